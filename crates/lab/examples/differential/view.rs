//! What a side shows: the statuses of its Services, their events, the pools' counters.

use std::collections::BTreeMap;

use lab::controlplane::{Api, ApiError};
use serde_json::Value;

use crate::MARKER;
use crate::side::{POOLS, items};
use crate::step::SPACES;

/// Namespace and name.
pub(crate) type Key = (String, String);

/// How often an event was told, by type and reason.
pub(crate) type Events = BTreeMap<(String, String), u64>;

/// A Service as its controller left it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// `status.loadBalancer`.
    pub(crate) status: Value,
    pub(crate) annotations: BTreeMap<String, Value>,
    /// What asks for addresses by the field.
    pub(crate) wish: Option<String>,
    /// The controller is to give it addresses.
    pub(crate) balanced: bool,
}

impl Shown {
    pub(crate) fn addresses(&self) -> Vec<&str> {
        let entries = self.status["ingress"].as_array().into_iter().flatten();
        entries.filter_map(|entry| entry["ip"].as_str()).collect()
    }

    /// Whether it says which addresses it wants.
    pub(crate) fn asks(&self) -> bool {
        let annotated = |key: &String| key.ends_with("/loadBalancerIPs");
        self.wish.is_some() || self.annotations.keys().any(annotated)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) services: BTreeMap<Key, Shown>,
    pub(crate) events: BTreeMap<Key, Events>,
    pub(crate) pools: BTreeMap<String, Pool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    pub(crate) entries: Vec<String>,
    /// `avoidBuggyIPs`
    pub(crate) avoids: bool,
    pub(crate) status: Value,
}

impl View {
    pub(crate) async fn of(api: &Api) -> Result<Self, ApiError> {
        let mut view = Self::default();
        for service in items(api, "/api/v1/services").await? {
            let Some(key) = key(&service["metadata"]) else {
                continue;
            };
            let annotations = service["metadata"]["annotations"].as_object();
            let shown = Shown {
                status: service["status"]["loadBalancer"].clone(),
                annotations: annotations.into_iter().flatten().map(owned).collect(),
                wish: service["spec"]["loadBalancerIP"]
                    .as_str()
                    .map(str::to_owned),
                balanced: service["spec"]["type"] == "LoadBalancer"
                    && service["spec"]["loadBalancerClass"].is_null(),
            };
            view.services.insert(key, shown);
        }
        for event in items(api, "/api/v1/events").await? {
            let object = &event["involvedObject"];
            // Kubernetes' own controllers have something to say of Services too.
            let of_controller = event["source"]["component"] == "metallb-controller";
            let Some(key) = key(object).filter(|_| of_controller && object["kind"] == "Service")
            else {
                continue;
            };
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            let count = event["count"].as_u64().unwrap_or(1);
            let told = view.events.entry(key).or_default();
            *told.entry((text("type"), text("reason"))).or_default() += count;
        }
        for pool in items(api, POOLS).await? {
            if let Some(name) = pool["metadata"]["name"].as_str() {
                let entries = pool["spec"]["addresses"].as_array().into_iter().flatten();
                let text = |entry: &Value| entry.as_str().map(str::to_owned);
                let shown = Pool {
                    entries: entries.filter_map(text).collect(),
                    avoids: pool["spec"]["avoidBuggyIPs"] == true,
                    status: pool["status"].clone(),
                };
                view.pools.insert(name.to_owned(), shown);
            }
        }
        let ours = |namespace: &String| SPACES.contains(&namespace.as_str());
        view.services.retain(|(namespace, _), _| ours(namespace));
        view.events.retain(|(namespace, _), _| ours(namespace));
        view.pools.remove(MARKER);
        Ok(view)
    }

    pub(crate) fn has_addresses(&self) -> bool {
        self.services
            .values()
            .any(|shown| !shown.addresses().is_empty())
    }

    pub(crate) fn addresses(&self, key: &Key) -> Vec<&str> {
        self.services
            .get(key)
            .map_or_else(Vec::new, Shown::addresses)
    }
}

fn owned((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

fn key(metadata: &Value) -> Option<Key> {
    let namespace = metadata["namespace"].as_str()?;
    Some((namespace.to_owned(), metadata["name"].as_str()?.to_owned()))
}
