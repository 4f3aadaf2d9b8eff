//! Nodes on a LAN, a router on it, a client behind the router.

use std::fs;
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::router::Frr;
use lab::scene::Scene;
use lab::uplink::Uplink;
use lab::{Host, Lab, Process, WaitError, wait_for};
use serde_json::Value;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Longer than anything takes on a busy machine: a hold time of 9 s among it.
pub(crate) const SOON: Duration = Duration::from_secs(40);

pub(crate) use lab::uplink::FRR as ROUTER;

pub(crate) struct Stage {
    pub(crate) scene: Scene,
    pub(crate) dir: PathBuf,
    pub(crate) router: Host,
    pub(crate) outside: Host,
}

impl Stage {
    /// Three nodes with a directory of manifests; nothing runs yet.
    pub(crate) async fn build(lab: &Lab) -> Outcome<Self> {
        Self::of(lab, 3).await
    }

    /// The same with so many nodes.
    pub(crate) async fn of(lab: &Lab, nodes: u8) -> Outcome<Self> {
        let scene = Scene::build(lab, nodes).await?;
        let Uplink { router, outside } = Uplink::build(lab, &scene).await?;
        router.add_address("eth0", "fd00::1/64").await?;
        let dir = scene.directory("manifests")?;
        Ok(Self {
            scene,
            dir,
            router,
            outside,
        })
    }

    /// More addresses on the LAN: 10.0.0.N and fd00::N for the router, with a 1 before N for the
    /// first node.
    pub(crate) async fn more_addresses(&self, v4: Range<u8>, v6: Range<u8>) -> Outcome {
        let node = &self.scene.nodes[0].host;
        let v4 = v4.map(|n| ("10.0.0.", n, 24));
        for (net, n, length) in v4.chain(v6.map(|n| ("fd00::", n, 64))) {
            let router = format!("{net}{n}/{length}");
            self.router.add_address("eth0", &router).await?;
            node.add_address("eth0", &format!("{net}1{n}/{length}"))
                .await?;
        }
        Ok(())
    }

    /// Puts a manifest there, or replaces it.
    pub(crate) fn write(&self, name: &str, text: &str) -> Outcome {
        let new = self.dir.join(format!(".{name}.new"));
        fs::write(&new, text)?;
        Ok(fs::rename(new, self.dir.join(name))?)
    }

    /// Takes a manifest away.
    pub(crate) fn remove(&self, name: &str) -> Outcome {
        Ok(fs::remove_file(self.dir.join(name))?)
    }

    /// The Nodes, each with these labels (`a: b, c: d`).
    pub(crate) fn label_nodes(&self, labels: &[&str]) -> Outcome {
        let mut text = String::new();
        for (node, labels) in self.scene.nodes.iter().zip(labels) {
            text += &format!(
                "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {}, labels: {{{labels}}}}}\n\
                 status: {{addresses: [{{type: InternalIP, address: {}}}]}}\n",
                node.host.name(),
                node.ip
            );
        }
        self.write("nodes.yaml", &text)
    }

    /// A Service with these addresses and these fields more, and its endpoints: the pods of
    /// `nodes` (numbers in the scene).
    pub(crate) fn serve(&self, name: &str, ips: &str, more: &str, nodes: &[usize]) -> Outcome {
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: default\n  \
             annotations: {{metallb.io/loadBalancerIPs: \"{ips}\"}}\n\
             spec: {{type: LoadBalancer, selector: {{app: {name}}}, {more}, \
             ports: [{{protocol: TCP, port: 80, targetPort: 80}}]}}\n"
        );
        for family in ["IPv4", "IPv6"] {
            text += &format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata:\n  name: {name}-{}\n  namespace: default\n  \
                 labels: {{kubernetes.io/service-name: {name}}}\naddressType: {family}\n\
                 ports: [{{name: \"\", protocol: TCP, port: 80}}]\nendpoints:\n",
                family.to_lowercase()
            );
            for node in nodes.iter().filter_map(|n| self.scene.nodes.get(*n)) {
                let ip = match family {
                    "IPv4" => node.pod_ip,
                    _ => node.pod_ip6,
                };
                text += &format!(
                    "- {{addresses: [\"{ip}\"], nodeName: {}, conditions: {{ready: true}}}}\n",
                    node.host.name()
                );
            }
        }
        self.write(&format!("service-{name}.yaml"), &text)
    }

    /// The documents' example.
    pub(crate) fn example(&self) -> Outcome {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/bgp");
        for entry in fs::read_dir(examples)? {
            let path = entry?.path();
            let name = path.file_name().expect("a file's name");
            fs::copy(&path, self.dir.join(name))?;
        }
        let cluster = self.scene.cluster_manifests("default/myapp-svc");
        self.write("nodes.yaml", &cluster)
    }

    pub(crate) fn start(&self) -> Outcome<Vec<Process>> {
        Ok(self.scene.start_on_directory(&self.dir, "slow")?)
    }
}

/// A manifest in the namespace of MetalLB; `spec` in one line.
pub(crate) fn object(kind: &str, name: &str, spec: &str) -> String {
    let version = match kind {
        "BGPPeer" => "metallb.io/v1beta2",
        "Peer" | "Advertisement" => "corten.dev/v1alpha1",
        _ => "metallb.io/v1beta1",
    };
    format!(
        "---\napiVersion: {version}\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: metallb-system}}\nspec: {{{spec}}}\n"
    )
}

/// What the router knows of a prefix, a line for each path: the next hop, and what is not as usual.
pub(crate) fn paths(frr: &Frr, prefix: &str) -> Outcome<Vec<String>> {
    let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
    let found = frr.json(&format!("show bgp {family} unicast {prefix} json"))?;
    let paths = found["paths"].as_array().into_iter().flatten();
    let mut lines: Vec<String> = paths
        .map(|path| {
            let mut line = path["nexthops"][0]["ip"].as_str().unwrap_or("").to_owned();
            for (key, pointer) in [
                ("as", "/aspath/string"),
                ("pref", "/locPrf"),
                ("com", "/community/string"),
                ("large", "/largeCommunity/string"),
                ("stale", "/stale"),
            ] {
                match path.pointer(pointer) {
                    None => {}
                    Some(Value::String(text)) => line += &format!(" {key}={text}"),
                    Some(other) => line += &format!(" {key}={other}"),
                }
            }
            line
        })
        .collect();
    lines.sort_unstable();
    Ok(lines)
}

/// Waits until the router knows exactly this of a prefix; see [`paths`].
pub(crate) async fn known(frr: &Frr, prefix: &str, wanted: &[&str]) -> Result<(), WaitError> {
    let what = format!("{prefix} as {wanted:?} at {}", frr.host().name());
    wait_for(SOON, &what, async || {
        let found = paths(frr, prefix).map_err(|error| error.to_string())?;
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
}

/// Waits until the router has these next hops for a prefix.
pub(crate) async fn next_hops(frr: &Frr, prefix: &str, hops: &[IpAddr]) -> Result<(), WaitError> {
    let mut wanted: Vec<String> = hops.iter().map(ToString::to_string).collect();
    wanted.sort_unstable();
    let what = format!("{prefix} by {wanted:?} at the router");
    wait_for(SOON, &what, async || {
        let found = frr.next_hops(prefix).map_err(|error| error.to_string())?;
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
}
