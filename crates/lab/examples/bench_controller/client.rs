//! The bare client, and who makes and removes the Services: the bench's own program started again
//! on a host of the lab, with [`WORKERS`] requests at a time over the client library that Corten
//! uses. It decides nothing and watches nothing: the rate at which it writes is the API server's.

use std::error::Error;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use kube::{Client, Config};
use serde_json::{Value, json};

type Fault = Box<dyn Error + Send + Sync>;

/// Requests at a time: as many as the controller has on their way, 16 statuses and 8 events.
const WORKERS: usize = 24;

/// What is done for each Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Made, of type LoadBalancer, without node ports (there are too few of them).
    Create,
    /// One patch of its status and one event: the least that a controller writes.
    Write,
    /// Removed.
    Delete,
}

impl Work {
    pub(crate) const ALL: [Self; 3] = [Self::Create, Self::Write, Self::Delete];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Write => "write",
            Self::Delete => "delete",
        }
    }
}

/// Does `work` for the Services 0 to `count` of `namespace`.
pub(crate) fn run(work: Work, kubeconfig: &Path, namespace: &str, count: u32) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let config = Kubeconfig::read_from(kubeconfig)?;
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let next = Arc::new(AtomicU32::new(0));
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..WORKERS {
            let worker = Worker {
                client: client.clone(),
                services: Request::new(format!("/api/v1/namespaces/{namespace}/services")),
                events: Request::new(format!("/api/v1/namespaces/{namespace}/events")),
                namespace: namespace.to_owned(),
            };
            let next = Arc::clone(&next);
            workers.spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return Ok::<_, Fault>(());
                    }
                    worker.one(work, n).await?;
                }
            });
        }
        while let Some(done) = workers.join_next().await {
            done??;
        }
        Ok(())
    })
}

struct Worker {
    client: Client,
    services: Request,
    events: Request,
    namespace: String,
}

impl Worker {
    async fn one(&self, work: Work, n: u32) -> Result<(), Fault> {
        let name = format!("service-{n}");
        match work {
            Work::Create => {
                let body = serde_json::to_vec(&service(&name))?;
                let request = self.services.create(&PostParams::default(), body)?;
                self.client.request_text(request).await?;
            }
            Work::Write => {
                let [_, _, c, d] = n.to_be_bytes();
                let address = Ipv4Addr::new(10, 64, c, d);
                let patch = Patch::Merge(json!({
                    "metadata": {"annotations": {"metallb.io/ip-allocated-from-pool": "bench"}},
                    "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
                }));
                let params = PatchParams {
                    field_manager: Some("bare".to_owned()),
                    ..PatchParams::default()
                };
                let request = self
                    .services
                    .patch_subresource("status", &name, &params, &patch)?;
                self.client.request_text(request).await?;
                let event = self.event(&name, address);
                let request = self
                    .events
                    .create(&PostParams::default(), serde_json::to_vec(&event)?)?;
                self.client.request_text(request).await?;
            }
            Work::Delete => {
                let request = self.services.delete(&name, &DeleteParams::default())?;
                self.client.request_text(request).await?;
            }
        }
        Ok(())
    }

    /// An event of the size of Corten's.
    fn event(&self, service: &str, address: Ipv4Addr) -> Value {
        let now = k8s_openapi::jiff::Timestamp::now().to_string();
        let uid = "00000000-0000-0000-0000-000000000000";
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": format!("{service}.1"), "namespace": self.namespace},
            "involvedObject": {
                "apiVersion": "v1", "kind": "Service", "namespace": self.namespace,
                "name": service, "uid": uid,
            },
            "type": "Normal",
            "reason": "IPAllocated",
            "message": format!("Assigned IP [\"{address}\"]"),
            "source": {"component": "bare", "host": "bare"},
            "reportingComponent": "bare",
            "reportingInstance": "bare",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        })
    }
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false,
            "selector": {"app": name},
            "ports": [{"port": 80}],
        },
    })
}
