//! What agents say of their nodes, and what is asked of them: in a cluster, or in a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use api::Kind as _;
use api::annotations::DRAIN;
use api::corten::v1alpha1::{NodeState, NodeStateStatus};
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::core::params::{GetParams, ListParams};
use kube::core::{ObjectList, Request};
use serde_json::json;

use super::{Cluster, Failure, cluster};
use crate::nodes;
use crate::source::kube::path;

/// Where the nodes are.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Where {
    #[command(flatten)]
    cluster: Cluster,
    /// The directory of `corten run` or `corten agent --dir`, in place of a cluster.
    #[arg(long, conflicts_with_all = ["kubeconfig", "api_server"])]
    dir: Option<PathBuf>,
}

/// The nodes.
pub(super) enum Nodes {
    Cluster(Client),
    Dir(PathBuf),
}

impl Nodes {
    pub(super) async fn open(place: &Where) -> Result<Self, Failure> {
        match &place.dir {
            Some(dir) => {
                super::host::check_directory(dir)?;
                Ok(Self::Dir(dir.clone()))
            }
            None => {
                let client = cluster::client(&place.cluster).await?;
                cluster::check(&client).await?;
                Ok(Self::Cluster(client))
            }
        }
    }

    /// What each agent says of its node.
    pub(super) async fn states(&self) -> Result<BTreeMap<String, NodeStateStatus>, Failure> {
        match self {
            Self::Dir(dir) => Ok(nodes::load(dir)?),
            Self::Cluster(client) => {
                let request = Request::new(path::<NodeState>(None));
                let request = request.list(&ListParams::default())?;
                let list = client.request::<ObjectList<NodeState>>(request).await;
                let list =
                    list.map_err(|error| format!("{} cannot be read: {error}", NodeState::PLURAL))?;
                let of = |it: NodeState| (it.metadata.name, it.status);
                Ok(list.items.into_iter().map(of).collect())
            }
        }
    }

    /// What one agent says of its node; `None`: none serves it.
    pub(super) async fn state(&self, node: &str) -> Result<Option<NodeStateStatus>, Failure> {
        match self {
            Self::Dir(_) => Ok(self.states().await?.remove(node)),
            Self::Cluster(client) => {
                let request = Request::new(path::<NodeState>(None));
                let request = request.get(node, &GetParams::default())?;
                match client.request::<NodeState>(request).await {
                    Ok(found) => Ok(Some(found.status)),
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// Those of `states` whose kubelet is not heard any more, or whose Node is gone: what the agent
    /// said last is still there. Of a directory's nodes nobody knows.
    pub(super) async fn unheard(
        &self,
        states: &BTreeMap<String, NodeStateStatus>,
    ) -> Result<BTreeSet<String>, Failure> {
        let Self::Cluster(client) = self else {
            return Ok(BTreeSet::new());
        };
        let api: Api<Node> = Api::all(client.clone());
        let list = api.list(&ListParams::default()).await;
        let list = list.map_err(|error| format!("nodes cannot be read: {error}"))?;
        let heard = |node: &Node| {
            let conditions = node.status.iter().flat_map(|it| &it.conditions).flatten();
            let mut ready = conditions.filter(|it| it.type_ == "Ready");
            ready.all(|it| it.status != "Unknown")
        };
        let heard: BTreeSet<String> = list
            .items
            .into_iter()
            .filter(heard)
            .filter_map(|it| it.metadata.name)
            .collect();
        let silent = states.keys().filter(|name| !heard.contains(*name));
        Ok(silent.cloned().collect())
    }

    /// Asks a node's agent to drain, or to drain no more.
    pub(super) async fn ask_to_drain(&self, node: &str, wanted: bool) -> Result<(), Failure> {
        match self {
            Self::Dir(dir) => Ok(nodes::ask_to_drain(dir, node, wanted)?),
            Self::Cluster(client) => {
                let api: Api<Node> = Api::all(client.clone());
                let value = wanted.then_some("true");
                let patch = json!({"metadata": {"annotations": {DRAIN: value}}});
                api.patch(node, &PatchParams::default(), &Patch::Merge(patch))
                    .await
                    .map_err(|error| format!("the Node {node} cannot be annotated: {error}"))?;
                Ok(())
            }
        }
    }
}
