//! A real Kubernetes cluster in the lab: every node is a host with containerd, a kubelet and
//! kube-proxy; Pods are containers; CoreDNS answers. Outside of it, on the same segment, are a
//! client and a router. No Docker, no registry.
//!
//! ```text
//!  LAN 10.0.0.0/24, fd00::/64
//!   ├─ api     10.0.0.5   etcd, API server, controllers, scheduler
//!   ├─ router  10.0.0.1   default gateway of the others
//!   ├─ client  10.0.0.9   knows nothing of Pods and Services
//!   └─ node-N  10.0.0.1N  Pods 10.244.N.0/24, fd01:N::/64
//! ```
//!
//! ```no_run
//! # use lab::cluster::{Cluster, Options, Parts};
//! #[test]
//! fn a_page_from_a_real_cluster() {
//!     let name = "a_page_from_a_real_cluster";
//!     let Some(parts) = Parts::or_skip(name) else { return };
//!     lab::run_for(name, std::time::Duration::from_secs(180), async |lab| {
//!         let cluster = Cluster::up(&lab, &parts, Options::default()).await?;
//!         cluster.kubectl(&["get", "nodes"], "").await?;
//!         Ok(())
//!     });
//! }
//! ```
//!
//! Owns: the sandbox's cgroups `corten-lab-…`, and a folder for each node in the lab's. Nodes die
//! with the value, and in any case with the sandbox.

pub(crate) mod cgroups;
mod config;
pub mod image;
pub mod keeper;
mod node;
mod parts;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::controlplane::{
    Account, Api, ApiError, ControlPlane, ControlPlaneError, SCHEDULER, Shape, User,
};
use crate::{Host, Lab, LabError, Segment, WaitError, wait_for};
use config::Network;
pub use node::Node;
use node::{Joined, Member};
pub use parts::{Parts, TOOLS};

/// How long a step may take that takes seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(150);
/// So many nodes have addresses below the examples' first pool.
const MOST_NODES: u8 = 30;
const API: [&str; 2] = ["10.0.0.5/24", "fd00::5/64"];
const ROUTER: [&str; 2] = ["10.0.0.1/24", "fd00::1/64"];
const CLIENT: [&str; 2] = ["10.0.0.9/24", "fd00::9/64"];
const DEFAULT_ROUTES: [(&str, &str); 2] = [("0.0.0.0/0", "10.0.0.1"), ("::/0", "fd00::1")];
const PROXY_USER: &str = "kube-proxy";

/// Who carries Services' traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// kube-proxy in its nftables mode.
    Nftables,
    /// kube-proxy in its iptables mode.
    Iptables,
    /// `corten agent --forward all`, as a process of the node.
    Corten,
    /// Nobody: whoever is installed later.
    None,
}

/// What a cluster is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many nodes: 1 to 30.
    pub nodes: u8,
    /// Who carries Services' traffic.
    pub proxy: Proxy,
    /// Pods and Services have IPv6 addresses too. Hosts always have.
    pub dual_stack: bool,
    /// The API server writes every request to [`Cluster::audit_log`].
    pub audit: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            proxy: Proxy::Nftables,
            dual_stack: false,
            audit: false,
        }
    }
}

/// Why there is no cluster, or why something on it failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A host or segment.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The control plane, or kubectl.
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
    /// The API server's answer.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Something did not happen in time.
    #[error(transparent)]
    Late(#[from] WaitError),
    /// A file or folder.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Cgroups that the sandbox would leave behind.
    #[error("cannot make the cgroup {name}")]
    Cgroup {
        /// Its name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// Too few nodes, or too many.
    #[error("a cluster has 1 to {MOST_NODES} nodes; {0} are asked for")]
    Nodes(u8),
    /// A node could not do something.
    #[error("{node}: cannot {what}:\n{log}")]
    Node {
        /// The node.
        node: String,
        /// What.
        what: &'static str,
        /// What it said.
        log: String,
    },
    /// A process on a node ended too early.
    #[error("{node}: {part} has ended; its log ends:\n{log}")]
    Ended {
        /// The node.
        node: String,
        /// The process.
        part: &'static str,
        /// The end of its log.
        log: String,
    },
}

impl ClusterError {
    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self::Io { path, source }
    }

    fn ended(node: &str, part: &'static str, log: &str) -> Self {
        let lines: Vec<&str> = log.lines().collect();
        let start = lines.len().saturating_sub(12);
        Self::Ended {
            node: node.to_owned(),
            part,
            log: lines.get(start..).unwrap_or_default().join("\n"),
        }
    }
}

/// A running cluster, one to a lab. Dropping it ends it.
#[derive(Debug)]
pub struct Cluster {
    lab: Lab,
    options: Options,
    cgroup: String,
    lan: Segment,
    api: Host,
    router: Host,
    client: Host,
    nodes: Vec<Node>,
    plane: ControlPlane,
}

impl Cluster {
    /// Starts a cluster and returns when all nodes and the DNS are ready, saying each step.
    ///
    /// # Errors
    /// What failed, with the end of the log of a process that ended.
    pub async fn up(lab: &Lab, parts: &Parts, options: Options) -> Result<Self, ClusterError> {
        if !(1..=MOST_NODES).contains(&options.nodes) {
            return Err(ClusterError::Nodes(options.nodes));
        }
        let cgroup = cgroups::own().unwrap_or_else(cgroups::name);
        let network = Network {
            dual_stack: options.dual_stack,
        };
        let lan = lab.segment("lan").await?;
        let router = lab.router("router").await?;
        lan.attach(&router, &ROUTER).await?;
        let (api, client) = (lab.host("api").await?, lab.host("client").await?);
        for (host, addresses) in [(&api, API), (&client, CLIENT)] {
            lan.attach(host, &addresses).await?;
            default_routes(host).await?;
        }
        lab.say(format!(
            "the LAN: api 10.0.0.5, router 10.0.0.1, client 10.0.0.9; logs in {}",
            lab.dir().display()
        ));

        let mut nodes = Vec::new();
        for number in 1..=options.nodes {
            nodes.push(boot(lab, parts, &lan, &network, number, &cgroup).await?);
        }
        routes_to_pods(&api, &nodes, &network).await?;
        lab.say(format!("{} with containerd", count(options.nodes)));

        let shape = Shape {
            kubelets: true,
            dual_stack: options.dual_stack,
            audit: options.audit,
            users: users(&nodes),
            ..Shape::default()
        };
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));
        let plane =
            ControlPlane::start_shaped(&parts.kubernetes, lab, &api, address, shape).await?;
        lab.say("etcd, API server, controllers and scheduler");

        let lab = lab.clone();
        let mut cluster = Self {
            lab,
            options,
            cgroup,
            lan,
            api,
            router,
            client,
            nodes,
            plane,
        };
        if options.proxy == Proxy::Corten {
            cluster.install_kinds().await?;
        }
        // Before there are nodes, so that it is the first that they run.
        let dns = config::dns(parts::COREDNS, cluster.plane.server(), &network);
        cluster.kubectl(&["apply", "-f", "-"], &dns).await?;
        cluster.join(&network).await?;
        cluster.dns_ready().await?;
        Ok(cluster)
    }

    /// Corten's kinds and rights, which agents need that are no Pods.
    ///
    /// # Errors
    /// When the API server refuses them.
    pub async fn install_kinds(&self) -> Result<(), ClusterError> {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        let (crds, rbac) = (deploy.join("crds"), deploy.join("rbac.yaml"));
        let (crds, rbac) = (crds.to_string_lossy(), rbac.to_string_lossy());
        self.kubectl(&["apply", "-f", &crds, "-f", &rbac], "")
            .await?;
        let established = ["wait", "--for=condition=Established", "-f", &crds];
        self.kubectl(&established, "").await?;
        Ok(())
    }

    /// Images, Nodes, kubelets.
    async fn join(&mut self, network: &Network) -> Result<(), ClusterError> {
        for (number, node) in (1..).zip(&mut self.nodes) {
            let ranges = network.pods(number);
            let object = json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": node.name(), "labels": {"kubernetes.io/hostname": node.name()}},
                "spec": {"podCIDR": ranges.first(), "podCIDRs": ranges},
            });
            self.plane.api().create("/api/v1/nodes", &object).await?;
            node.loaded().await?;
            node.join(Joined {
                kubeconfig: self.plane.kubeconfig_of(node.name()),
                proxy: self.options.proxy,
                proxy_kubeconfig: self.plane.kubeconfig_of(PROXY_USER),
                agent_kubeconfig: self.plane.kubeconfig(Account::Agent),
                server: self.plane.server(),
                pod_ranges: network.pod_ranges(),
            })?;
        }
        self.lab.say("images loaded, kubelets started");
        let want = self.nodes.len();
        self.wait("all nodes to be ready", async |api| {
            let list = api.get("/api/v1/nodes").await.map_err(chain)?;
            let ready = items(&list).iter().filter(|node| is(node, "Ready")).count();
            match ready == want {
                true => Ok(()),
                false => Err(format!("{ready} of {want}")),
            }
        })
        .await?;
        self.lab.say(format!("{} ready", count(self.options.nodes)));
        Ok(())
    }

    async fn dns_ready(&mut self) -> Result<(), ClusterError> {
        let path = "/apis/apps/v1/namespaces/kube-system/deployments/coredns";
        self.wait("the cluster's DNS", async |api| {
            let deployment = api.get(path).await.map_err(chain)?;
            match is(&deployment, "Available") {
                true => Ok(()),
                false => Err(deployment["status"].to_string()),
            }
        })
        .await?;
        self.lab.say("CoreDNS ready");
        Ok(())
    }

    /// Waits while all processes on all nodes live.
    async fn wait(
        &mut self,
        what: &str,
        condition: impl AsyncFn(&Api) -> Result<(), String>,
    ) -> Result<(), ClusterError> {
        let Self { nodes, plane, .. } = self;
        wait_for(PATIENCE, what, async || {
            match nodes.iter_mut().find_map(Node::dead) {
                Some(dead) => Ok(Err(dead)),
                None => condition(plane.api()).await.map(Ok),
            }
        })
        .await?
    }

    /// Runs kubectl as admin on the client, with `stdin` as its input; gives what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn kubectl(&self, args: &[&str], stdin: &str) -> Result<String, ClusterError> {
        Ok(self.plane.kubectl_ok(&self.client, args, stdin).await?)
    }

    /// Loads an image archive (of `docker save`, or OCI) into every node.
    ///
    /// # Errors
    /// When containerd refuses it.
    pub async fn load_image(&self, archive: &Path) -> Result<(), ClusterError> {
        let archive = archive
            .canonicalize()
            .map_err(|e| ClusterError::io(archive, e))?;
        for node in &self.nodes {
            node.load_image(&archive).await?;
        }
        Ok(())
    }

    /// Gives an image one more name, on every node. Both are full ones
    /// (`docker.io/library/corten:0.1.0`).
    ///
    /// # Errors
    /// When a node does not have it.
    pub async fn tag_image(&self, from: &str, to: &str) -> Result<(), ClusterError> {
        for node in &self.nodes {
            node.tag_image(from, to).await?;
        }
        Ok(())
    }

    /// A client of the API server, as admin.
    #[must_use]
    pub fn api(&self) -> &Api {
        self.plane.api()
    }

    /// The control plane: kubeconfigs, and an API server that can be stopped.
    #[must_use]
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// The API server's audit log, if it was asked for: one JSON object a line, with `user`,
    /// `verb`, `objectRef`, `responseStatus` and the decision of the authorizer in `annotations`.
    #[must_use]
    pub fn audit_log(&self) -> Option<PathBuf> {
        self.plane.audit_log()
    }

    /// Kills the API server, as if its host had crashed; everything else goes on.
    pub fn stop_api_server(&mut self) {
        self.plane.stop_api_server();
    }

    /// Starts it again.
    ///
    /// # Errors
    /// As [`ControlPlane::start_api_server`].
    pub async fn start_api_server(&mut self) -> Result<(), ClusterError> {
        Ok(self.plane.start_api_server(&self.api).await?)
    }

    /// The nodes, `node-1` first.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node with this index, from 0, if there is one.
    pub fn node(&mut self, index: usize) -> Option<&mut Node> {
        self.nodes.get_mut(index)
    }

    /// The host outside the cluster that asks for pages.
    #[must_use]
    pub fn client(&self) -> &Host {
        &self.client
    }

    /// The gateway, where a routing daemon may run (10.0.0.1).
    #[must_use]
    pub fn router(&self) -> &Host {
        &self.router
    }

    /// The segment that all are on.
    #[must_use]
    pub fn lan(&self) -> &Segment {
        &self.lan
    }

    /// What it was asked to be.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        // Waits until the last container is gone. What fails here is tried again by whoever
        // started the sandbox.
        let _ = cgroups::remove(&self.cgroup);
    }
}

async fn boot(
    lab: &Lab,
    parts: &Parts,
    lan: &Segment,
    network: &Network,
    number: u8,
    cgroup: &str,
) -> Result<Node, ClusterError> {
    let host = lab.node(&format!("node-{number}")).await?;
    let addresses = Network::node(number);
    lan.attach(&host, &addresses.each_ref().map(String::as_str))
        .await?;
    default_routes(&host).await?;
    for other in (1..=MOST_NODES).filter(|&other| other != number) {
        route_to(&host, other, network).await?;
    }
    let cgroup = Path::new(cgroup).join(host.name());
    let mut own = host.addresses();
    own.retain(|address| address.is_ipv4() || network.dual_stack);
    let member = Member {
        host,
        addresses: own,
        network,
        number,
        cgroup: &cgroup,
    };
    Node::boot(lab, parts, member).await
}

async fn default_routes(host: &Host) -> Result<(), LabError> {
    for (to, via) in DEFAULT_ROUTES {
        host.add_route(to, via).await?;
    }
    Ok(())
}

async fn routes_to_pods(host: &Host, nodes: &[Node], network: &Network) -> Result<(), LabError> {
    for (number, _) in (1..).zip(nodes) {
        route_to(host, number, network).await?;
    }
    Ok(())
}

/// The route to the Pods of a node.
async fn route_to(host: &Host, number: u8, network: &Network) -> Result<(), LabError> {
    for (range, address) in network.pods(number).iter().zip(Network::node(number)) {
        let (via, _) = address.split_once('/').unwrap_or((&address, ""));
        host.add_route(range, via).await?;
    }
    Ok(())
}

/// As whom the cluster's parts ask the API server: the names that Kubernetes' own roles bind.
fn users(nodes: &[Node]) -> Vec<User> {
    let user = |name: &str, user: String, groups: &str| User {
        name: name.to_owned(),
        user,
        groups: groups.to_owned(),
    };
    let mut users = vec![
        user(SCHEDULER, "system:kube-scheduler".to_owned(), ""),
        user(PROXY_USER, "system:kube-proxy".to_owned(), ""),
    ];
    let of_node = |node: &Node| {
        let name = node.name();
        user(name, format!("system:node:{name}"), "system:nodes")
    };
    users.extend(nodes.iter().map(of_node));
    users
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

/// Whether an object's condition is true.
fn is(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|c| c["type"] == condition && c["status"] == "True")
}

fn count(nodes: u8) -> String {
    match nodes {
        1 => "1 node".to_owned(),
        n => format!("{n} nodes"),
    }
}

fn chain(error: ApiError) -> String {
    crate::sandbox::chain(&error)
}
