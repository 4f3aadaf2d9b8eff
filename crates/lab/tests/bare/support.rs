//! The stage of these tests: the scene, a directory of manifests, the processes on it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use lab::scene::{self, Node, Scene};
use lab::{Lab, Process, Target, WaitError, wait_for, wait_until};
use serde_json::Value;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Longer than anything takes on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Port of the pods' UDP echo.
pub(crate) const ECHO: u16 = 9000;
/// The Ethernet address of nobody.
const NOBODY: [u8; 6] = [2, 0, 0, 0, 0, 99];

pub(crate) const POOL: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: ip-pool, namespace: metallb-system}
spec:
  addresses:
  - 10.0.0.101-10.0.0.150
";
pub(crate) const ADVERTISEMENT: &str = "\
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: l2adver, namespace: metallb-system}
";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A Service with a TCP port and a UDP port; `spec` is more lines of its spec, like
/// `externalTrafficPolicy: Local`.
pub(crate) fn service(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  \
         type: LoadBalancer\n  ports:\n  - {{name: http, port: 80}}\n  \
         - {{name: echo, protocol: UDP, port: {ECHO}}}\n  {spec}\n---\n"
    )
}

/// The pods of these nodes as the Service's endpoints, of one family.
pub(crate) fn slice<'n>(name: &str, v6: bool, nodes: impl IntoIterator<Item = &'n Node>) -> String {
    let family = if v6 { "IPv6" } else { "IPv4" };
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata:\n  name: {name}-{}\n  labels: {{kubernetes.io/service-name: {name}}}\n\
         addressType: {family}\nports:\n- {{name: http, port: 80}}\n\
         - {{name: echo, protocol: UDP, port: {ECHO}}}\nendpoints:\n",
        family.to_lowercase()
    );
    for node in nodes {
        let ip = if v6 { node.pod_ip6 } else { node.pod_ip };
        let host = node.host.name();
        let _ = writeln!(text, "- {{addresses: [\"{ip}\"], nodeName: {host}}}");
    }
    text + "---\n"
}

/// The scene, a directory with a pool, an advertisement and the Nodes, and what runs on it.
pub(crate) struct Stage {
    pub(crate) scene: Scene,
    pub(crate) dir: PathBuf,
    /// How fast a death is found: slowly, so that a busy machine does not decide who is dead.
    pub(crate) profile: &'static str,
    processes: BTreeMap<String, Process>,
}

impl Stage {
    /// Nothing runs yet.
    pub(crate) async fn build(lab: &Lab, nodes: u8) -> Outcome<Self> {
        let scene = Scene::build(lab, nodes).await?;
        for node in &scene.nodes {
            node.pod.serve_udp(ECHO)?;
        }
        let stage = Self {
            dir: scene.directory("manifests")?,
            scene,
            profile: "slow",
            processes: BTreeMap::new(),
        };
        stage.write("pool.yaml", POOL)?;
        stage.write("l2adver.yaml", ADVERTISEMENT)?;
        let mut text = String::new();
        for node in &stage.scene.nodes {
            let _ = write!(
                text,
                "apiVersion: v1\nkind: Node\nmetadata: {{name: {}}}\n\
                 status: {{addresses: [{{type: InternalIP, address: {}}}]}}\n---\n",
                node.host.name(),
                node.ip
            );
        }
        stage.write("nodes.yaml", &text)?;
        Ok(stage)
    }

    /// Writes a file as an editor does: not at one instant.
    pub(crate) fn write(&self, file: &str, text: &str) -> Outcome {
        Ok(fs::write(self.dir.join(file), text)?)
    }

    pub(crate) fn remove(&self, file: &str) -> Outcome {
        Ok(fs::remove_file(self.dir.join(file))?)
    }

    /// A Service of all pods over IPv4, in a file of its name.
    pub(crate) fn serve(&self, name: &str) -> Outcome {
        let text = service(name, "") + &slice(name, false, &self.scene.nodes);
        self.write(&format!("{name}.yaml"), &text)
    }

    /// `corten run` on the first node, `corten agent --dir` on the others.
    pub(crate) fn start(&mut self) -> Outcome {
        let names: Vec<String> = self
            .scene
            .nodes
            .iter()
            .map(|n| n.host.name().into())
            .collect();
        names.iter().try_for_each(|name| self.start_on(name))
    }

    /// Starts what belongs on this node.
    pub(crate) fn start_on(&mut self, name: &str) -> Outcome {
        let node = self.scene.node(name);
        let first = self
            .scene
            .nodes
            .first()
            .is_some_and(|f| f.host.name() == name);
        let process = scene::start(node, &self.dir, first, self.profile)?;
        self.processes.insert(name.to_owned(), process);
        Ok(())
    }

    /// Every node but this one.
    pub(crate) fn others(&self, name: &str) -> Vec<String> {
        let names = self
            .scene
            .nodes
            .iter()
            .map(|node| node.host.name().to_owned());
        names.filter(|other| other != name).collect()
    }

    /// The process on this node.
    pub(crate) fn on(&mut self, name: &str) -> &mut Process {
        self.processes.get_mut(name).expect("it was started")
    }

    pub(crate) fn client(&self) -> &lab::Host {
        &self.scene.client
    }

    /// Waits until the process on this node says that it is ready.
    pub(crate) async fn ready(&self, name: &str) -> Result<(), WaitError> {
        let host = &self.scene.node(name).host;
        let health = SocketAddr::new(ip("127.0.0.1"), 17472);
        wait_until(SOON, &format!("{name} to be ready"), async || {
            let answer = host.http_get(health, "/readyz").await;
            answer.is_ok_and(|answer| answer.status == 200)
        })
        .await
    }

    /// What the process on this node counts under this name for an address.
    pub(crate) async fn counted(&self, name: &str, metric: &str, ip: IpAddr) -> Outcome<u64> {
        self.metric(name, &format!("{metric}{{ip=\"{ip}\"}}")).await
    }

    /// A counter of an agent, by its name and labels.
    pub(crate) async fn metric(&self, name: &str, metric: &str) -> Outcome<u64> {
        let host = &self.scene.node(name).host;
        let metrics = SocketAddr::new(ip("127.0.0.1"), 17472);
        let text = host.http_get(metrics, "/metrics").await?.body;
        let value = text.lines().find_map(|line| line.strip_prefix(metric));
        Ok(value.map_or(Ok(0), |value| value.trim_start().parse())?)
    }

    /// What the state file says of a Service; `Err` when the file is not whole.
    pub(crate) fn held(&self) -> Result<BTreeMap<String, Vec<IpAddr>>, String> {
        let text = match fs::read(self.dir.join(".corten/state.json")) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(BTreeMap::new());
            }
            Err(error) => return Err(error.to_string()),
        };
        let state: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let services = state["services"].as_object().ok_or("no services")?;
        services
            .iter()
            .map(|(key, holding)| {
                let addresses = holding["addresses"].as_array().ok_or("no addresses")?;
                let addresses = addresses.iter().filter_map(|a| a.as_str()?.parse().ok());
                let name = key.strip_prefix("default/").unwrap_or(key);
                Ok((name.to_owned(), addresses.collect()))
            })
            .collect()
    }

    /// Waits until the Service holds exactly these addresses; none is no holding.
    pub(crate) async fn holds(&self, name: &str, addresses: &[&str]) -> Result<(), WaitError> {
        let wanted: Vec<IpAddr> = addresses.iter().map(|a| ip(a)).collect();
        wait_for(SOON, &format!("{name} to hold {addresses:?}"), async || {
            let held = self.held()?.get(name).cloned().unwrap_or_default();
            if held == wanted {
                Ok(())
            } else {
                Err(format!("{held:?}"))
            }
        })
        .await
    }

    /// The names of the nodes that answer ARP or NDP for `ip` within `window`.
    pub(crate) async fn answering(&self, ip: IpAddr, window: Duration) -> Outcome<Vec<String>> {
        let mut names = Vec::new();
        for mac in self.client().who_has("eth0", ip, window).await? {
            let node = self.scene.node_of(mac).await?;
            names.push(node.map_or_else(|| format!("{mac:02x?}"), |n| n.host.name().to_owned()));
        }
        Ok(names)
    }

    /// Waits until exactly one node answers for `ip` and it is not `but`.
    pub(crate) async fn owner_but(&self, ip: IpAddr, but: &str) -> Result<String, WaitError> {
        let what = format!("one node, but not {but:?}, to answer for {ip}");
        wait_for(SOON, &what, async || {
            let mut names = self
                .answering(ip, Duration::from_millis(150))
                .await
                .map_err(|error| vec![error.to_string()])?;
            match names.as_slice() {
                [name] if name != but => Ok(names.remove(0)),
                _ => Err(names),
            }
        })
        .await
    }

    pub(crate) async fn owner(&self, ip: IpAddr) -> Result<String, WaitError> {
        self.owner_but(ip, "").await
    }

    /// Waits until nobody answers for `ip`.
    pub(crate) async fn unowned(&self, ip: IpAddr) -> Result<(), WaitError> {
        wait_for(SOON, &format!("nobody to answer for {ip}"), async || {
            let names = self.answering(ip, Duration::from_millis(60)).await;
            match names {
                Ok(names) if names.is_empty() => Ok(()),
                names => Err(format!("{names:?}")),
            }
        })
        .await
    }

    /// Datagrams to `ip` until twenty are echoed, by that very address.
    pub(crate) async fn echo(&self, ip: IpAddr) -> Outcome {
        let prober = self
            .client()
            .probe(Target::Udp(SocketAddr::new(ip, ECHO)))?;
        wait_until(SOON, &format!("echoes from {ip}"), async || {
            prober.answered() >= 20
        })
        .await?;
        Ok(())
    }

    /// Lets the client reach `ip` through this node, whoever answers for it.
    pub(crate) async fn reach_by(&self, ip: IpAddr, node: &str) -> Outcome {
        let mac = self.scene.node(node).host.mac("eth0").await?;
        self.pin(ip, mac).await
    }

    /// Undoes [`Stage::reach_by`]: the next question finds who answers by then.
    pub(crate) async fn reach_nobody(&self, ip: IpAddr) -> Outcome {
        self.pin(ip, NOBODY).await
    }

    pub(crate) async fn pin(&self, ip: IpAddr, mac: [u8; 6]) -> Outcome {
        let device = self.client().netlink().index_of("eth0").await?;
        Ok(self
            .client()
            .netlink()
            .set_neighbour(device, ip, mac)
            .await?)
    }

    /// Whether a page comes from `ip` at the first try.
    pub(crate) async fn answers(&self, ip: IpAddr) -> bool {
        self.client()
            .http_get(SocketAddr::new(ip, 80), "/")
            .await
            .is_ok()
    }

    /// No node was held for a stranger that has another's address.
    pub(crate) fn no_strangers(&self) {
        for (node, process) in &self.processes {
            let log = process.log();
            assert!(!log.contains("AddressConflict"), "{node}:\n{log}");
        }
    }

    /// Waits for a line in the log of the process on `node` that has all of `parts`.
    pub(crate) async fn logged(&mut self, node: &str, parts: &[&str]) -> Result<String, WaitError> {
        let process = self.on(node);
        wait_for(
            SOON,
            &format!("{parts:?} in the log of {node}"),
            async || {
                let log = process.log();
                let found = log
                    .lines()
                    .find(|line| parts.iter().all(|part| line.contains(part)));
                found.map(str::to_owned).ok_or("no such line")
            },
        )
        .await
    }
}
