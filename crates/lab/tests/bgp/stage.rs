//! Nodes on a LAN, a router on it, a client behind the router.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::router::Frr;
use lab::scene::Scene;
use lab::uplink::Uplink;
use lab::{Host, Lab, Process, WaitError, wait_for};

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
        let scene = Scene::build(lab, 3).await?;
        let Uplink { router, outside } = Uplink::build(lab, &scene).await?;
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
