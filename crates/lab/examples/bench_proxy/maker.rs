//! Who makes the objects: the bench's own program started again on a host of the lab, with
//! [`WORKERS`] requests at a time.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use kube::{Client, Config};
use serde_json::json;

use crate::objects::{NAMESPACE, endpoint_objects, name, service_object, slice_object};

type Fault = Box<dyn Error + Send + Sync>;

const WORKERS: usize = 24;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Services and slices are made.
    Make,
    /// Slices that there are get other endpoints.
    Change,
}

impl Work {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Make => "make",
            Self::Change => "change",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        [Self::Make, Self::Change]
            .into_iter()
            .find(|work| work.name() == name)
    }
}

/// Does it for the Services `from` to `to`, with `endpoints` each.
pub(crate) fn run(
    work: Work,
    kubeconfig: &Path,
    (from, to): (u32, u32),
    endpoints: u32,
) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let config = Kubeconfig::read_from(kubeconfig)?;
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let next = Arc::new(AtomicU32::new(from));
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..WORKERS {
            let (client, next) = (client.clone(), Arc::clone(&next));
            workers.spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= to {
                        return Ok::<_, Fault>(());
                    }
                    one(&client, work, n, endpoints).await?;
                }
            });
        }
        while let Some(done) = workers.join_next().await {
            done??;
        }
        Ok(())
    })
}

async fn one(client: &Client, work: Work, n: u32, endpoints: u32) -> Result<(), Fault> {
    let services = Request::new(format!("/api/v1/namespaces/{NAMESPACE}/services"));
    let slices = Request::new(format!(
        "/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
    ));
    match work {
        Work::Make => {
            for (kind, object) in [
                (&services, service_object(n)),
                (&slices, slice_object(n, endpoints)),
            ] {
                let body = serde_json::to_vec(&object)?;
                let request = kind.create(&PostParams::default(), body)?;
                client.request_text(request).await?;
            }
        }
        Work::Change => {
            let patch = Patch::Merge(json!({"endpoints": endpoint_objects(n, endpoints)}));
            let request = slices.patch(&name(n), &PatchParams::default(), &patch)?;
            client.request_text(request).await?;
        }
    }
    Ok(())
}
