//! The kubelet's part, played by the lab: Nodes and Pods as objects with the
//! status that a kubelet would report. Their processes are the lab's
//! namespaces. The real controllers do the rest: EndpointSlices follow within
//! a second.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::api::{Api, ApiError, Patch};

/// What a Pod is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodName<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl PodName<'_> {
    fn path(self) -> String {
        let Self { namespace, name } = self;
        format!("/api/v1/namespaces/{namespace}/pods/{name}")
    }
}

impl Api {
    /// Creates a Node that is Ready, with its addresses and Pod ranges.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn create_node(
        &self,
        name: &str,
        addresses: &[IpAddr],
        pod_cidrs: &[&str],
    ) -> Result<(), ApiError> {
        self.create("/api/v1/nodes", &node(name, addresses, pod_cidrs))
            .await
            .map(drop)
    }

    /// Creates a Pod on `node` and reports it running and ready.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn run_pod(
        &self,
        node: &str,
        pod: PodName<'_>,
        labels: &[(&str, &str)],
        addresses: &[IpAddr],
    ) -> Result<(), ApiError> {
        let collection = format!("/api/v1/namespaces/{}/pods", pod.namespace);
        self.create(&collection, &pod_object(node, pod.name, labels))
            .await?;
        let status = format!("{}/status", pod.path());
        self.patch(&status, Patch::Strategic, &running(addresses))
            .await
            .map(drop)
    }

    /// Reports a running Pod as ready or not.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn set_pod_ready(&self, pod: PodName<'_>, ready: bool) -> Result<(), ApiError> {
        let patch = json!({"status": {"conditions": conditions(ready)}});
        let status = format!("{}/status", pod.path());
        self.patch(&status, Patch::Strategic, &patch)
            .await
            .map(drop)
    }

    /// Removes a Pod at once.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn delete_pod(&self, pod: PodName<'_>) -> Result<(), ApiError> {
        self.delete(&pod.path()).await.map(drop)
    }
}

fn node(name: &str, addresses: &[IpAddr], pod_cidrs: &[&str]) -> Value {
    let mut reported: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"type": "InternalIP", "address": address}))
        .collect();
    reported.push(json!({"type": "Hostname", "address": name}));
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
        },
        "spec": {"podCIDR": pod_cidrs.first(), "podCIDRs": pod_cidrs},
        "status": {
            "addresses": reported,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Lab"}],
        },
    })
}

fn pod_object(node: &str, name: &str, labels: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<String, Value> = labels
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.into()))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "lab", "image": "lab"}],
        },
    })
}

fn running(addresses: &[IpAddr]) -> Value {
    let all: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({"status": {
        "phase": "Running",
        "podIP": addresses.first(),
        "podIPs": all,
        "conditions": conditions(true),
    }})
}

/// A strategic merge patch merges conditions by their type.
fn conditions(ready: bool) -> Value {
    let status = if ready { "True" } else { "False" };
    json!([
        {"type": "Ready", "status": status},
        {"type": "ContainersReady", "status": status},
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dual_stack_pod_reports_both_addresses_and_the_first_as_its_own() {
        let addresses = ["10.1.0.2".parse().unwrap(), "fd01::2".parse().unwrap()];
        let status = &running(&addresses)["status"];
        assert_eq!(status["podIP"], "10.1.0.2");
        assert_eq!(
            status["podIPs"],
            json!([{"ip": "10.1.0.2"}, {"ip": "fd01::2"}])
        );
        assert_eq!(status["conditions"][0]["status"], "True");
    }

    #[test]
    fn a_node_reports_its_addresses_then_its_name() {
        let node = node("n1", &["10.0.0.11".parse().unwrap()], &["10.1.0.0/24"]);
        assert_eq!(
            node["status"]["addresses"],
            json!([
                {"type": "InternalIP", "address": "10.0.0.11"},
                {"type": "Hostname", "address": "n1"},
            ])
        );
        assert_eq!(node["spec"]["podCIDR"], "10.1.0.0/24");
    }
}
