//! The objects that exist, read for one request. There are tens of them: a list per request is
//! always fresh, and no replica needs a cache of what it does not lead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use api::core::{Node, ServiceCIDR};
use api::corten::v1alpha1::{AddressPool, Advertisement, Peer};
use api::metallb::{
    BFDProfile, BGPAdvertisement, BGPPeer, Community, IPAddressPool, L2Advertisement,
};
use kube::Client;
use kube::core::params::ListParams;
use kube::core::{ObjectList, Request};
use plan::config::{Object, ObjectKind};
use plan::world;
use serde::de::DeserializeOwned;

use super::review::{Cluster, Known, Subject};
use crate::source::kube::path;

/// Objects of one kind that are read.
const MOST: usize = 10_000;
const PAGE: u32 = 500;
/// For all lists that a verdict needs.
const PATIENCE: Duration = Duration::from_secs(3);
/// For those that only a warning needs. Together less than the API server waits for us.
const FOR_WARNINGS: Duration = Duration::from_secs(1);

/// Why the objects are not known.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The API server refused.
    #[error("cannot list {kind}")]
    Api {
        /// The kind.
        kind: &'static str,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// The request could not be built.
    #[error("cannot ask for {kind}")]
    Request {
        /// The kind.
        kind: &'static str,
        /// Why.
        #[source]
        source: kube::core::request::Error,
    },
    /// More than can be compared in time.
    #[error("there are more than {MOST} {kind}")]
    TooMany {
        /// The kind.
        kind: &'static str,
    },
    /// The API server was too slow.
    #[error("no answer from the API server in {PATIENCE:?}")]
    Late,
}

/// What a subject is judged against.
pub async fn known(client: &Client, namespace: &str, subject: Subject) -> Result<Known, ListError> {
    let lists = Lists { client, namespace };
    let all = async {
        let mut objects = Vec::new();
        for kind in subject.against {
            let into = &mut objects;
            match kind {
                ObjectKind::IPAddressPool => lists.add::<IPAddressPool>(into).await,
                ObjectKind::L2Advertisement => lists.add::<L2Advertisement>(into).await,
                ObjectKind::BGPAdvertisement => lists.add::<BGPAdvertisement>(into).await,
                ObjectKind::BGPPeer => lists.add::<BGPPeer>(into).await,
                ObjectKind::BFDProfile => lists.add::<BFDProfile>(into).await,
                ObjectKind::Community => lists.add::<Community>(into).await,
                ObjectKind::AddressPool => lists.add::<AddressPool>(into).await,
                ObjectKind::Advertisement => lists.add::<Advertisement>(into).await,
                ObjectKind::Peer => lists.add::<Peer>(into).await,
            }?;
        }
        let nodes = match subject.cluster {
            Cluster::Nodes => lists.of::<Node>().await?,
            Cluster::Nothing | Cluster::Ranges => Vec::new(),
        };
        Ok((objects, nodes))
    };
    let (objects, mut nodes) = match tokio::time::timeout(PATIENCE, all).await {
        Ok(listed) => listed?,
        Err(_) => return Err(ListError::Late),
    };
    let mut service_ranges = BTreeMap::new();
    if subject.cluster == Cluster::Ranges {
        // Only a warning depends on them: without them the object is judged all the same.
        let ranges = async { tokio::try_join!(lists.of::<Node>(), lists.of::<ServiceCIDR>()) };
        match tokio::time::timeout(FOR_WARNINGS, ranges).await {
            Ok(Ok((listed, cidrs))) => {
                nodes = listed;
                service_ranges = cidrs
                    .into_iter()
                    .map(|cidr| {
                        (
                            cidr.metadata.name.as_str().into(),
                            world::service_ranges(&cidr),
                        )
                    })
                    .collect();
            }
            Ok(Err(error)) => {
                let error: &ListError = &error;
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "whether a pool overlaps the cluster's own ranges is not known"
                );
            }
            Err(_) => tracing::warn!(
                "whether a pool overlaps the cluster's own ranges is not known: no answer from \
                 the API server in {FOR_WARNINGS:?}"
            ),
        }
    }
    let (objects, nodes) = (objects.into_iter(), nodes.into_iter());
    Ok(Known {
        objects: objects
            .map(|object: Object| (object.reference(), Arc::new(object)))
            .collect(),
        nodes: nodes
            .map(|node| (node.metadata.name.as_str().into(), node.into()))
            .collect(),
        service_ranges,
    })
}

/// Lists of whole kinds.
struct Lists<'a> {
    client: &'a Client,
    namespace: &'a str,
}

impl Lists<'_> {
    async fn add<T: Kind + DeserializeOwned + Clone + Into<Object>>(
        &self,
        into: &mut Vec<Object>,
    ) -> Result<(), ListError> {
        into.extend(self.of::<T>().await?.into_iter().map(Into::into));
        Ok(())
    }

    async fn of<T: Kind + DeserializeOwned + Clone>(&self) -> Result<Vec<T>, ListError> {
        let kind = T::KIND;
        let request = Request::new(path::<T>(Some(self.namespace)));
        let mut params = ListParams::default().limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = request
                .list(&params)
                .map_err(|source| ListError::Request { kind, source })?;
            let page: ObjectList<T> = match self.client.request(page).await {
                Ok(page) => page,
                // A kind that is not installed has no objects.
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(all),
                Err(source) => return Err(ListError::Api { kind, source }),
            };
            all.extend(page.items);
            if all.len() > MOST {
                return Err(ListError::TooMany { kind });
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(all),
            }
        }
    }
}
