//! Nodes on a LAN, a router on it, a client behind the router.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::router::Frr;
use lab::scene::Scene;
use lab::{Host, Lab, Process, WaitError, wait_for};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Longer than anything takes on a busy machine: a hold time of 9 s among it.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// The router of examples/bgp: 10.0.0.1, AS 64501. It takes every node as a neighbour.
pub(crate) const ROUTER: &str = "\
frr defaults datacenter
router bgp 64501
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp bestpath as-path multipath-relax
 timers bgp 3 9
 coalesce-time 0
 neighbor NODES peer-group
 neighbor NODES remote-as 64500
 bgp listen range 10.0.0.0/24 peer-group NODES
 address-family ipv4 unicast
  neighbor NODES activate
  maximum-paths 16
 exit-address-family
";

pub(crate) struct Stage {
    pub(crate) scene: Scene,
    pub(crate) dir: PathBuf,
    pub(crate) router: Host,
    pub(crate) outside: Host,
}

impl Stage {
    /// Three nodes with a directory of manifests; nothing runs yet.
    pub(crate) async fn build(lab: &Lab) -> Outcome<Self> {
        let scene = Scene::build(lab, 3).await?;
        let router = lab.router("router").await?;
        scene.lan.attach(&router, &["10.0.0.1/24"]).await?;
        let far = lab.segment("far").await?;
        let outside = lab.host("outside").await?;
        far.attach(&router, &["10.9.0.1/24"]).await?;
        far.attach(&outside, &["10.9.0.9/24"]).await?;
        outside.add_route("0.0.0.0/0", "10.9.0.1").await?;
        for node in &scene.nodes {
            node.host.add_route("10.9.0.0/24", "10.0.0.1").await?;
        }
        // Each connection its own way.
        router.sysctl("net.ipv4.fib_multipath_hash_policy", "1")?;
        let dir = scene.directory("manifests")?;
        Ok(Self {
            scene,
            dir,
            router,
            outside,
        })
    }

    /// Puts a manifest there, or replaces it.
    pub(crate) fn write(&self, name: &str, text: &str) -> Outcome {
        let new = self.dir.join(format!(".{name}.new"));
        fs::write(&new, text)?;
        Ok(fs::rename(new, self.dir.join(name))?)
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
        Ok(self.scene.start_on_directory(&self.dir)?)
    }
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
