//! Configuration and requests: verdicts in the log, pools that change under their Services,
//! Services that change their minds.

use lab::controlplane::{Patch, binary_or_skip};
use lab::{Outcome, Process, WaitError, wait_for};
use serde_json::{Value, json};

use crate::stage::{MINUTES, SOON, Stage, turn};

const POOL_ANNOTATION: &str = "metallb.io/ip-allocated-from-pool";

#[test]
fn configuration_and_requests() {
    let name = "services::configuration_and_requests";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    let _turn = turn();
    lab::run_for(name, MINUTES, async |lab| {
        let stage = Stage::build(lab, &binary, 1).await?;
        let controller = stage.controller(&stage.api_host)?;
        let agent = stage.agent(&stage.scene.nodes[0])?;
        lists(&stage, &controller, &agent).await?;
        verdicts(&stage, &controller, &agent).await?;
        pool_edit(&stage).await?;
        requests(&stage).await?;
        sharing(&stage).await?;
        mind_changed(&stage).await?;
        outside_write(&stage).await
    });
}

/// Waits for a log line with all these words.
pub(crate) async fn logged(process: &Process, words: &[&str]) -> Result<String, WaitError> {
    wait_for(SOON, &format!("a log line with {words:?}"), async || {
        let log = process.log();
        let mut lines = log.lines();
        let found = lines.rfind(|line| words.iter().all(|word| line.contains(word)));
        found.map(str::to_owned).ok_or("no such line")
    })
    .await
}

pub(crate) fn pool(name: &str, addresses: &str) -> String {
    format!(
        "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
         metadata: {{name: {name}, namespace: metallb-system}}\n\
         spec: {{addresses: [{addresses}]}}\n"
    )
}

pub(crate) fn service(name: &str, annotations: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\n\
         spec: {{type: LoadBalancer, selector: {{app: myapp}}, {spec}}}\n"
    )
}

const WEB: &str = "ports: [{port: 80}]";

/// This API server streams lists, and every kind's is asked for that way.
async fn lists(stage: &Stage, controller: &Process, agent: &Process) -> Outcome {
    let streamed = "\"streamed\":true";
    for kind in ["Service", "Namespace", "IPAddressPool", "Community"] {
        logged(
            controller,
            &["\"listed\"", &format!("\"{kind}\""), streamed],
        )
        .await?;
    }
    let kinds = [
        "Service",
        "EndpointSlice",
        "Node",
        "NodeState",
        "IPAddressPool",
        "L2Advertisement",
        "BGPAdvertisement",
        "BGPPeer",
        "BFDProfile",
        "Community",
    ];
    for kind in kinds {
        logged(agent, &["\"listed\"", &format!("\"{kind}\""), streamed]).await?;
    }
    stage.say("every list was streamed");
    Ok(())
}

/// Good and bad objects are told with their reasons.
async fn verdicts(stage: &Stage, controller: &Process, agent: &Process) -> Outcome {
    stage.apply(&pool("first", "10.0.0.100-10.0.0.109")).await?;
    logged(controller, &["IPAddressPool", "first", "accepted"]).await?;
    logged(agent, &["IPAddressPool", "first", "accepted"]).await?;
    stage
        .apply(&pool("second", "10.0.0.105-10.0.0.114"))
        .await?;
    let line = logged(controller, &["second", "left out", "first"]).await?;
    assert!(line.contains("remedy"), "{line}");
    stage
        .apply(&pool("second", "10.0.0.110-10.0.0.119"))
        .await?;
    logged(controller, &["IPAddressPool", "second", "accepted"]).await?;
    stage
        .apply(
            "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\n\
             metadata: {name: lost, namespace: metallb-system}\n\
             spec: {ipAddressPools: [nowhere]}\n",
        )
        .await?;
    logged(agent, &["L2Advertisement", "lost", "nowhere"]).await?;
    stage.say("verdicts are logged");
    Ok(())
}

/// A pool shrinks under its Service.
async fn pool_edit(stage: &Stage) -> Outcome {
    stage.apply(&service("moved", "", WEB)).await?;
    stage.has("moved", &["10.0.0.100"]).await?;
    stage.apply(&pool("first", "10.0.0.102-10.0.0.109")).await?;
    stage.has("moved", &["10.0.0.102"]).await?;
    stage
        .event("moved", "ClearAssignment metallb-controller")
        .await?;
    let told = stage
        .event("moved", "IPAllocated metallb-controller")
        .await?;
    assert!(told.contains("10.0.0.102"), "{told}");
    let events = stage.events("moved").await?;
    assert_eq!(events.len(), 3, "one event per change: {events:#?}");
    stage.say("a pool that shrank: the Service has another address, with its events");
    Ok(())
}

/// By annotation and by `spec.loadBalancerIP`; a bad wish takes nothing away.
async fn requests(stage: &Stage) -> Outcome {
    let wish = "metallb.io/loadBalancerIPs: 10.0.0.107";
    stage.apply(&service("wish", wish, WEB)).await?;
    stage.has("wish", &["10.0.0.107"]).await?;
    let field = format!("loadBalancerIP: 10.0.0.108, {WEB}");
    stage.apply(&service("field", "", &field)).await?;
    stage.has("field", &["10.0.0.108"]).await?;
    // Changed: it moves.
    let wish = "metallb.io/loadBalancerIPs: 10.0.0.117";
    stage.apply(&service("wish", wish, WEB)).await?;
    stage.has("wish", &["10.0.0.117"]).await?;
    assert_eq!(annotation(stage, "wish").await?, "second");
    // Not in any pool: an event, and no address.
    let stray = "metallb.io/loadBalancerIPs: 192.0.2.1";
    stage.apply(&service("stray", stray, WEB)).await?;
    let told = stage.event("stray", "AllocationFailed").await?;
    assert!(told.contains("192.0.2.1"), "{told}");
    // Not an address: what it holds stays.
    let nonsense = "metallb.io/loadBalancerIPs: here";
    stage.apply(&service("wish", nonsense, WEB)).await?;
    stage.event("wish", "LoadBalancerFailed").await?;
    stage.has("wish", &["10.0.0.117"]).await?;
    stage.say("requested addresses");
    Ok(())
}

async fn annotation(stage: &Stage, name: &str) -> Result<Value, crate::stage::Fault> {
    let service = stage.service(name).await?;
    Ok(service["metadata"]["annotations"][POOL_ANNOTATION].clone())
}

/// Two Services share an address on different ports; on equal ones they do not.
async fn sharing(stage: &Stage) -> Outcome {
    let wish = "metallb.io/loadBalancerIPs: 10.0.0.118, metallb.io/allow-shared-ip: together";
    stage.apply(&service("web", wish, WEB)).await?;
    stage
        .apply(&service("tls", wish, "ports: [{port: 443}]"))
        .await?;
    stage.has("web", &["10.0.0.118"]).await?;
    stage.has("tls", &["10.0.0.118"]).await?;
    stage.apply(&service("clash", wish, WEB)).await?;
    stage.event("clash", "AllocationFailed").await?;
    assert!(stage.addresses("clash").await.is_empty());
    // The port is free again: the waiting one has it.
    stage.kubectl(&["delete", "svc", "web"], "").await?;
    stage.has("clash", &["10.0.0.118"]).await?;
    stage.say("a shared address");
    Ok(())
}

/// A Service that is no LoadBalancer any more gives its address back.
async fn mind_changed(stage: &Stage) -> Outcome {
    stage.apply(&service("plain", "", WEB)).await?;
    stage.has("plain", &["10.0.0.103"]).await?;
    assert_eq!(annotation(stage, "plain").await?, "first");
    let path = "/api/v1/namespaces/default/services/plain";
    let patch = json!({"spec": {"type": "ClusterIP"}});
    stage.plane.api().patch(path, Patch::Merge, &patch).await?;
    stage.has("plain", &[]).await?;
    wait_for(SOON, "the annotation to go", async || {
        match annotation(stage, "plain").await {
            Ok(Value::Null) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    stage.apply(&service("next", "", WEB)).await?;
    stage.has("next", &["10.0.0.103"]).await?;
    stage.say("a Service that became a ClusterIP gave its address back");
    Ok(())
}

/// Somebody else's hand in the status is corrected, and not for ever.
async fn outside_write(stage: &Stage) -> Outcome {
    let path = "/api/v1/namespaces/default/services/next/status";
    let patch = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}});
    stage.plane.api().patch(path, Patch::Merge, &patch).await?;
    stage.has("next", &["10.0.0.103"]).await?;
    stage.say("a foreign address in the status was replaced");
    Ok(())
}
