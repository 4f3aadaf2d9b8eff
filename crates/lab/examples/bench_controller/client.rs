//! The bare client, and who makes the Services: the bench's own program started again on a host of
//! the lab, with [`WORKERS`] requests at a time over the client library that Corten uses. It decides
//! nothing: the rate at which it writes is the API server's.

use std::collections::HashSet;
use std::error::Error;
use std::net::Ipv4Addr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use kube::api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};

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
    /// The same for each Service that comes, as a watch tells it.
    Follow,
    /// Nothing: ends when a watch has told of an address for each.
    Observe,
}

impl Work {
    pub(crate) const ALL: [Self; 4] = [Self::Create, Self::Write, Self::Follow, Self::Observe];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Write => "write",
            Self::Follow => "follow",
            Self::Observe => "observe",
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
        let worker = Worker {
            client: Client::try_from(config)?,
            services: Request::new(format!("/api/v1/namespaces/{namespace}/services")),
            events: Request::new(format!("/api/v1/namespaces/{namespace}/events")),
            namespace: namespace.to_owned(),
        };
        let (numbers_in, numbers) = mpsc::channel(WORKERS);
        let numbers = Arc::new(Mutex::new(numbers));
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..WORKERS {
            let (worker, numbers) = (worker.clone(), Arc::clone(&numbers));
            workers.spawn(async move {
                loop {
                    let next = numbers.lock().await.recv().await;
                    let Some(n) = next else {
                        return Ok::<_, Fault>(());
                    };
                    worker.one(work, n).await?;
                }
            });
        }
        drop(numbers);
        match work {
            Work::Create | Work::Write => {
                for n in 0..count {
                    numbers_in.send(n).await?;
                }
            }
            Work::Follow => {
                let made = |event: WatchEvent<Value>| match event {
                    WatchEvent::Added(service) => Some(service),
                    _ => None,
                };
                worker.watch(count, made, Some(&numbers_in)).await?;
            }
            Work::Observe => {
                let served = |event: WatchEvent<Value>| match event {
                    WatchEvent::Added(service) | WatchEvent::Modified(service) => {
                        let address = &service["status"]["loadBalancer"]["ingress"][0]["ip"];
                        address.is_string().then_some(service)
                    }
                    _ => None,
                };
                worker.watch(count, served, None).await?;
            }
        }
        drop(numbers_in);
        while let Some(done) = workers.join_next().await {
            done??;
        }
        Ok(())
    })
}

/// The number of a Service, from its name.
fn number(service: &Value) -> Option<u32> {
    let name = service["metadata"]["name"].as_str()?;
    name.strip_prefix("service-")?.parse().ok()
}

#[derive(Clone)]
struct Worker {
    client: Client,
    services: Request,
    events: Request,
    namespace: String,
}

impl Worker {
    /// Hands on each Service of which `such` an event is told, until there were `count`.
    async fn watch(
        &self,
        count: u32,
        such: impl Fn(WatchEvent<Value>) -> Option<Value>,
        out: Option<&mpsc::Sender<u32>>,
    ) -> Result<(), Fault> {
        let request = self.services.watch(&WatchParams::default(), "0")?;
        let mut events = pin!(self.client.request_events::<Value>(request).await?);
        let mut seen = HashSet::new();
        while seen.len() < count as usize {
            let event = events.next().await.ok_or("the watch ended")??;
            let Some(n) = such(event).as_ref().and_then(number) else {
                continue;
            };
            if seen.insert(n)
                && let Some(out) = out
            {
                out.send(n).await?;
            }
        }
        Ok(())
    }

    async fn one(&self, work: Work, n: u32) -> Result<(), Fault> {
        let name = format!("service-{n}");
        if work == Work::Create {
            let body = serde_json::to_vec(&service(&name))?;
            let request = self.services.create(&PostParams::default(), body)?;
            self.client.request_text(request).await?;
            return Ok(());
        }
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

/// Without a selector: Kubernetes' own controllers would write its endpoints in the meantime, and
/// neither side's time would be its own.
fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false,
            "ports": [{"port": 80}],
        },
    })
}
