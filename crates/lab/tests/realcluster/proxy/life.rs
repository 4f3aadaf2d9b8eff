//! Services, Pods, agents and the API server that come anew.

use std::net::{IpAddr, SocketAddr};

use lab::cluster::{Proxy, TOOLS};
use lab::{Outcome, wait_for};
use serde_json::json;

use super::town::{Fate, SOON, Town};
use crate::load::Load;

fn on(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

/// The same name, and the same address, with other Pods.
pub(super) async fn recreated(town: &Town<'_>) -> Outcome {
    let spec = |at: &str| json!({"clusterIP": "10.96.77.77", "selector": {"at": at}, "ports": [{"port": 80}]});
    let host = town.node(0);
    let to = on(town.service("again", spec("node-1")).await?, 80);
    for (at, pod) in [("node-2", 1), ("node-3", 2)] {
        town.gets(&host, to).await?;
        town.delete("again").await?;
        town.service("again", spec(at)).await?;
        let answered =
            |fate: &Fate| matches!(fate, Fate::Answered(name, _) if name == town.pod(pod));
        town.fate(&host, to, "the new Pod's", answered).await?;
    }
    town.delete("again").await?;
    let nobody = |fate: &Fate| !matches!(fate, Fate::Answered(..));
    town.fate(&host, to, "nobody's", nobody).await?;
    Ok(())
}

/// All Pods of a Deployment are replaced: nobody notices.
pub(super) async fn rolled(town: &Town<'_>) -> Outcome {
    let deployment = format!(
        "\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: rolled}}
spec:
  replicas: 2
  strategy: {{rollingUpdate: {{maxUnavailable: 0, maxSurge: 1}}}}
  selector: {{matchLabels: {{app: rolled}}}}
  template:
    metadata: {{labels: {{app: rolled}}}}
    spec:
      terminationGracePeriodSeconds: 12
      containers:
      - name: web
        image: {TOOLS}
        args: [serve]
        # Proxies hear of a Pod's end no sooner than the Pod.
        lifecycle: {{preStop: {{sleep: {{seconds: 6}}}}}}
        readinessProbe: {{httpGet: {{port: 80}}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 9}}
"
    );
    let kubectl = async |args: &[&str], input: &str| town.cluster.kubectl(args, input).await;
    kubectl(&["apply", "-f", "-"], &deployment).await?;
    let status = ["rollout", "status", "deployment/rolled", "--timeout=60s"];
    kubectl(&status, "").await?;
    let spec = json!({"type": "NodePort", "selector": {"app": "rolled"}, "ports": [{"port": 80}]});
    town.service("rolled", spec).await?;
    let to = town.at(1, town.node_port("rolled", 0).await?)?;
    let client = town.cluster.client().clone();
    town.gets(&client, to).await?;
    let load = Load::start(&client, to)?;
    kubectl(&["rollout", "restart", "deployment/rolled"], "").await?;
    kubectl(&status, "").await?;
    let figures = load.stop().await?;
    assert!(figures.sent > 0 && figures.failed == 0, "{figures:?}");
    kubectl(&["delete", "deployment", "rolled", "--wait=false"], "").await?;
    town.delete("rolled").await
}

/// An agent that is killed: its rules go on, and the next one takes them over. The API server is
/// away meanwhile, and comes back.
pub(super) async fn restarted(town: &mut Town<'_>) -> Outcome {
    let spec = |port: u16| {
        json!({"type": "NodePort", "selector": {"app": "web"},
            "ports": [{"port": 80, "nodePort": port}]})
    };
    let before = on(town.service("before", spec(31085)).await?, 80);
    let client = town.cluster.client().clone();
    let outside = town.at(0, 31085)?;
    town.gets(&client, outside).await?;
    let load = Load::start(&client, outside)?;
    let agent = town.cluster.node(0).ok_or("no node")?;
    agent.stop_proxy(Proxy::Corten);
    town.gets(&town.node(0), before).await?;
    town.cluster.stop_api_server();
    town.cluster
        .node(0)
        .ok_or("no node")?
        .start_proxy(Proxy::Corten)?;
    town.gets(&town.node(0), before).await?;
    town.cluster.start_api_server().await?;
    // The API server may still be at work on what comes first.
    let made = async || {
        town.service("after", spec(31086))
            .await
            .map_err(|e| e.to_string())
    };
    let after = on(wait_for(SOON, "a Service to be made", made).await?, 80);
    for node in 0..3 {
        town.gets(&town.node(node), after).await?;
    }
    let figures = load.stop().await?;
    assert!(figures.sent > 0 && figures.failed == 0, "{figures:?}");
    town.delete("before").await?;
    town.delete("after").await
}
