//! Traffic policies, addresses from outside, endpoints that are not ready or end.

use std::net::{IpAddr, SocketAddr};

use lab::cluster::TOOLS;
use lab::{Host, Outcome, wait_for};
use serde_json::json;

use super::town::{Fate, Fault, SOON, Town};

/// Two addresses of nobody's, on the LAN.
const BALANCED: &str = "10.0.0.200";
const EXTERNAL: &str = "10.0.0.201";
const CHECK: u16 = 31999;

fn on(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

fn external(address: &str) -> Result<SocketAddr, Fault> {
    Ok(on(address.parse()?, 80))
}

/// The client's way to an address of a Service.
async fn by(town: &Town<'_>, address: &str, node: usize) -> Outcome {
    let via = town.node(node).address(false)?.to_string();
    let client = town.cluster.client();
    client.add_route(&format!("{address}/32"), &via).await?;
    Ok(())
}

/// `internalTrafficPolicy: Local`: only where an endpoint is, for Pods and nodes.
pub(super) async fn internal(town: &Town<'_>) -> Outcome {
    let spec = json!({"internalTrafficPolicy": "Local", "selector": {"at": "node-1"},
        "ports": [{"port": 80}]});
    let to = on(town.service("internal", spec).await?, 80);
    assert_eq!(town.pod_gets(0, to).await?, town.pod(0));
    assert_eq!(town.gets(&town.node(0), to).await?.0, town.pod(0));
    town.dropped(&town.node(1), to).await?;
    let said = match town.page_in_pod(1, &format!("http://{to}/")).await {
        Ok(page) => page,
        Err(error) => error.to_string(),
    };
    assert!(said.contains("deadline exceeded"), "{said}");
    let policy = json!({"spec": {"internalTrafficPolicy": "Cluster"}});
    town.patch("internal", policy).await?;
    assert_eq!(town.gets(&town.node(1), to).await?.0, town.pod(0));
    town.delete("internal").await
}

/// What a node's health check says: status and local endpoints.
async fn checked(host: &Host, to: SocketAddr) -> Result<(u16, u64), String> {
    let answer = host.http_get(to, "/").await.map_err(|e| format!("{e:?}"))?;
    let body: serde_json::Value = serde_json::from_str(&answer.body).map_err(|e| e.to_string())?;
    let local = body["localEndpoints"].as_u64().ok_or("no number")?;
    Ok((answer.status, local))
}

async fn check(town: &Town<'_>, node: usize, expected: (u16, u64)) -> Outcome {
    let (client, to) = (town.cluster.client(), town.at(node, CHECK)?);
    let what = format!("the health check of {to} to be {expected:?}");
    wait_for(SOON, &what, async || match checked(client, to).await {
        Ok(found) if found == expected => Ok(()),
        other => Err(other),
    })
    .await?;
    Ok(())
}

/// `externalTrafficPolicy: Local`: the client's own address, and only where an endpoint is.
pub(super) async fn local(town: &Town<'_>) -> Outcome {
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": CHECK, "selector": {"at": "node-1"},
        "ports": [{"port": 80, "nodePort": 31083}]});
    let ip = town.service("local", spec).await?;
    town.balanced("local", BALANCED).await?;
    let client = town.cluster.client().clone();
    let own = client.address(false)?;
    let (here, there) = (town.at(0, 31083)?, town.at(1, 31083)?);
    let mine = (town.pod(0).to_owned(), Some(own));
    assert_eq!(town.gets(&client, here).await?, mine);
    town.dropped(&client, there).await?;
    by(town, BALANCED, 0).await?;
    assert_eq!(town.gets(&client, external(BALANCED)?).await?, mine);
    by(town, BALANCED, 1).await?;
    town.dropped(&client, external(BALANCED)?).await?;
    // From inside both lead there from everywhere.
    for node in 0..2 {
        assert_eq!(town.pod_gets(node, external(BALANCED)?).await?, town.pod(0));
        town.gets(&town.node(node), external(BALANCED)?).await?;
        town.gets(&town.node(node), on(ip, 80)).await?;
    }
    check(town, 0, (200, 1)).await?;
    check(town, 1, (503, 0)).await?;
    // Elsewhere.
    town.patch("local", json!({"spec": {"selector": {"at": "node-2"}}}))
        .await?;
    check(town, 1, (200, 1)).await?;
    check(town, 0, (503, 0)).await?;
    assert_eq!(town.gets(&client, there).await?.0, town.pod(1));
    town.dropped(&client, here).await?;
    let policy = json!({"spec": {"externalTrafficPolicy": "Cluster"}});
    town.patch("local", policy).await?;
    assert_eq!(town.gets(&client, here).await?.0, town.pod(1));
    let closed = |fate: &Fate| *fate == Fate::Refused;
    town.fate(&client, town.at(1, CHECK)?, "closed", closed)
        .await?;
    town.delete("local").await
}

/// `externalIPs`: an address that no node has.
pub(super) async fn external_ip(town: &Town<'_>) -> Outcome {
    let spec = json!({"externalIPs": [EXTERNAL], "selector": {"app": "web"},
        "ports": [{"port": 80}]});
    town.service("external", spec).await?;
    by(town, EXTERNAL, 2).await?;
    let client = town.cluster.client().clone();
    town.gets(&client, external(EXTERNAL)?).await?;
    town.gets(&town.node(1), external(EXTERNAL)?).await?;
    town.pod_gets(0, external(EXTERNAL)?).await?;
    town.delete("external").await
}

/// `loadBalancerSourceRanges`: who may come.
pub(super) async fn sources(town: &Town<'_>) -> Outcome {
    let spec = json!({"type": "LoadBalancer", "selector": {"app": "web"},
        "loadBalancerSourceRanges": ["192.0.2.0/24"], "ports": [{"port": 80}]});
    town.service("sources", spec).await?;
    town.balanced("sources", BALANCED).await?;
    by(town, BALANCED, 2).await?;
    let client = town.cluster.client().clone();
    // The ranges are for this address only.
    let port = town.node_port("sources", 0).await?;
    town.gets(&client, town.at(2, port)?).await?;
    town.dropped(&client, external(BALANCED)?).await?;
    let own = format!("{}/32", client.address(false)?);
    let ranges = json!({"spec": {"loadBalancerSourceRanges": ["192.0.2.0/24", own]}});
    town.patch("sources", ranges).await?;
    town.gets(&client, external(BALANCED)?).await?;
    town.delete("sources").await
}

/// A Pod of one node that is never ready, and one that takes its time to end.
fn pods() -> String {
    let pod = |name: &str, node: u8, more: &str| {
        format!(
            "\
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  nodeName: node-{node}
  terminationGracePeriodSeconds: 60
  containers:
  - name: web
    image: {TOOLS}
    args: [serve]
{more}
---
"
        )
    };
    pod(
        "unready",
        1,
        "    readinessProbe: {tcpSocket: {port: 9}, periodSeconds: 1}",
    ) + &pod(
        "ending",
        2,
        "    readinessProbe: {httpGet: {port: 80}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 9}\n    \
         lifecycle: {preStop: {sleep: {seconds: 50}}}",
    )
}

/// Endpoints that are not ready count where that is asked for; those that end and still serve,
/// where there are no others.
pub(super) async fn unready(town: &Town<'_>) -> Outcome {
    let kubectl = async |args: &[&str], input: &str| town.cluster.kubectl(args, input).await;
    kubectl(&["apply", "-f", "-"], &pods()).await?;
    let host = town.node(2);
    let spec = json!({"selector": {"app": "unready"}, "ports": [{"port": 80}]});
    let to = on(town.service("unready", spec).await?, 80);
    town.refused(&host, to).await?;
    let publish = |publish: bool| json!({"spec": {"publishNotReadyAddresses": publish}});
    town.patch("unready", publish(true)).await?;
    assert_eq!(town.gets(&host, to).await?.0, "unready");
    town.patch("unready", publish(false)).await?;
    town.refused(&host, to).await?;
    town.delete("unready").await?;

    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": CHECK, "selector": {"app": "ending"},
        "ports": [{"port": 80, "nodePort": 31084}]});
    let cluster = on(town.service("ending", spec).await?, 80);
    let client = town.cluster.client().clone();
    let local = town.at(1, 31084)?;
    assert_eq!(town.gets(&client, local).await?.0, "ending");
    check(town, 1, (200, 1)).await?;
    kubectl(&["delete", "pod", "ending", "--wait=false"], "").await?;
    // Nothing else is to be sent there, but what comes is served.
    check(town, 1, (503, 0)).await?;
    assert_eq!(town.gets(&client, local).await?.0, "ending");
    assert_eq!(town.gets(&host, cluster).await?.0, "ending");
    town.dropped(&client, town.at(0, 31084)?).await?;
    for pod in ["ending", "unready"] {
        let path = format!("/api/v1/namespaces/default/pods/{pod}");
        town.cluster.api().delete(&path).await?;
    }
    town.refused(&host, cluster).await?;
    town.delete("ending").await
}
