//! The scene that most end-to-end tests and the demo play in: nodes on a LAN, a client, a pod on
//! each node; with a directory of manifests in place of a Kubernetes API server.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use linux::netlink::Mac;

use crate::host::MEMBER_PROFILE;
use crate::{Backend, Host, Lab, LabError, Process, Segment, WaitError, bin, wait_for};

/// Subnet of the LAN: nodes are 10.0.0.11 and up, the client is 10.0.0.9.
const CLIENT: &str = "10.0.0.9/24";
/// How long something may take that should take no time.
const SOON: Duration = Duration::from_secs(30);

/// One node and the pod on it.
#[derive(Debug, Clone)]
pub struct Node {
    /// The node.
    pub host: Host,
    /// Its address on the LAN.
    pub ip: IpAddr,
    /// Its pod.
    pub pod: Host,
    /// The pod's address.
    pub pod_ip: IpAddr,
    /// Its IPv6 address.
    pub pod_ip6: IpAddr,
    /// The pod's HTTP server, on port 80.
    pub backend: Backend,
}

/// Nodes, a client, pods.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The LAN.
    pub lan: Segment,
    /// The client.
    pub client: Host,
    /// The nodes.
    pub nodes: Vec<Node>,
    lab: Lab,
}

impl Scene {
    /// Builds `count` nodes (at most 9) with a pod each, and the client.
    pub async fn build(lab: &Lab, count: u8) -> Result<Self, LabError> {
        let lan = lab.segment("lan").await?;
        let client = lab.host("client").await?;
        lan.attach(&client, &[CLIENT, "fd00::9/64"]).await?;
        let mut hosts = Vec::new();
        for n in 1..=count {
            let host = lab.node(&format!("node-{n}")).await?;
            lan.attach(
                &host,
                &[&format!("10.0.0.1{n}/24"), &format!("fd00::1{n}/64")],
            )
            .await?;
            hosts.push((n, host));
        }
        let mut nodes = Vec::new();
        for (n, host) in hosts {
            let pod_ip = IpAddr::from([10, 244, n, 2]);
            let pod_ip6 = IpAddr::from([0xfd01, n.into(), 0, 0, 0, 0, 0, 2]);
            let pod = lab
                .pod(&host, &[pod_ip, pod_ip6], &format!("pod-{n}"))
                .await?;
            let backend = pod.serve_http(80)?;
            nodes.push(Node {
                host,
                ip: IpAddr::from([10, 0, 0, 10 + n]),
                pod,
                pod_ip,
                pod_ip6,
                backend,
            });
        }
        Ok(Self {
            lan,
            client,
            nodes,
            lab: lab.clone(),
        })
    }

    /// The node of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn node(&self, name: &str) -> &Node {
        let found = self.nodes.iter().find(|node| node.host.name() == name);
        found.unwrap_or_else(|| panic!("no node {name}"))
    }

    /// The node with this Ethernet address on the LAN.
    pub async fn node_of(&self, mac: Mac) -> Result<Option<&Node>, LabError> {
        for node in &self.nodes {
            if node.host.mac("eth0").await? == mac {
                return Ok(Some(node));
            }
        }
        Ok(None)
    }

    /// The nodes that answer the client's ARP (or NDP) requests for `ip`.
    pub async fn answering(&self, ip: IpAddr) -> Result<Vec<&Node>, LabError> {
        let mut nodes = Vec::new();
        for mac in self
            .client
            .who_has("eth0", ip, Duration::from_millis(150))
            .await?
        {
            nodes.extend(self.node_of(mac).await?);
        }
        Ok(nodes)
    }

    /// Waits until exactly one node answers for `ip`, and gives it.
    pub async fn owner(&self, ip: IpAddr) -> Result<&Node, WaitError> {
        wait_for(
            SOON,
            &format!("one node to answer for {ip}"),
            async || match self
                .answering(ip)
                .await
                .map_err(|error| error.to_string())?
                .as_slice()
            {
                [owner] => Ok(*owner),
                others => Err(format!("{} answer", others.len())),
            },
        )
        .await
    }

    /// Asks `http://ip:80/` from the client until it answers; gives the pod that did.
    pub async fn page(&self, ip: IpAddr) -> Result<String, WaitError> {
        wait_for(SOON, &format!("the page at http://{ip}/"), async || {
            let answer = self.client.http_get(SocketAddr::new(ip, 80), "/").await;
            answer
                .map(|answer| answer.backend().to_owned())
                .map_err(|error| error.to_string())
        })
        .await
    }

    /// An empty directory for manifests, in the lab's folder.
    pub fn directory(&self, name: &str) -> Result<PathBuf, LabError> {
        let dir = self.lab.dir().join(name);
        fs::create_dir_all(&dir).map_err(|e| LabError::io("lab", "make a directory", e))?;
        Ok(dir)
    }

    /// What a cluster would know beside the user's manifests: the Nodes, and an EndpointSlice of
    /// the pods for `service` (`namespace/name`).
    pub fn cluster_manifests(&self, service: &str) -> String {
        let (namespace, name) = service.split_once('/').unwrap_or(("default", service));
        let mut text = String::new();
        for node in &self.nodes {
            let _ = write!(
                text,
                "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {}}}\n\
                 status: {{addresses: [{{type: InternalIP, address: {}}}]}}\n",
                node.host.name(),
                node.ip
            );
        }
        let _ = write!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata:\n  name: {name}-1\n  namespace: {namespace}\n  \
             labels: {{kubernetes.io/service-name: {name}}}\n\
             addressType: IPv4\nports: [{{name: \"\", protocol: TCP, port: 80}}]\nendpoints:\n"
        );
        for node in &self.nodes {
            let _ = writeln!(
                text,
                "- {{addresses: [{}], nodeName: {}, conditions: {{ready: true}}}}",
                node.pod_ip,
                node.host.name()
            );
        }
        text
    }

    /// Starts `corten run DIR` on the first node and `corten agent --dir DIR` on the others, with
    /// this `--member-profile`.
    pub fn start_on_directory(&self, dir: &Path, profile: &str) -> Result<Vec<Process>, LabError> {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .map(|(n, node)| start(node, dir, n == 0, profile))
            .collect()
    }
}

/// Starts `corten run DIR` on a node, which is slow to find a death.
pub fn run(node: &Node, dir: &Path) -> Result<Process, LabError> {
    start(node, dir, true, "slow")
}

/// Starts `corten agent --dir DIR` on a node, which is slow to find a death.
pub fn agent(node: &Node, dir: &Path) -> Result<Process, LabError> {
    start(node, dir, false, "slow")
}

/// Starts `corten run DIR` or `corten agent --dir DIR` on a node, with this `--member-profile`.
pub fn start(node: &Node, dir: &Path, run: bool, profile: &str) -> Result<Process, LabError> {
    let mut command = node.host.command(bin("corten")?)?;
    let name = if run { "run" } else { "agent" };
    command
        .arg(name)
        .args((!run).then_some("--dir"))
        .arg(dir)
        .args(["--node-name", node.host.name()])
        .env(MEMBER_PROFILE, profile);
    node.host.spawn(name, command)
}
