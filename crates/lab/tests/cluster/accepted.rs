//! Objects that have gone bad keep their last good forms over a restart of everything.

use std::net::IpAddr;

use lab::controlplane::binary_or_skip;
use lab::{Outcome, Process, wait_for};
use serde_json::Value;

use crate::services::{logged, pool, service};
use crate::stage::{MINUTES, SOON, Stage, turn};

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 101));
const WEB: &str = "ports: [{port: 80}]";
const GOOD: &str = "10.0.0.101-10.0.0.150";

#[test]
fn last_good_forms_outlive_a_restart() {
    let name = "accepted::last_good_forms_outlive_a_restart";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    let _turn = turn();
    lab::run_for(name, MINUTES, async |lab| {
        let stage = Stage::build(lab, &binary, 3).await?;
        let mut processes = start(&stage).await?;
        stage.apply(&pool("first", "10.0.0.200-10.0.0.210")).await?;
        // Ages are in seconds; of one age, the name decides.
        stage.apply(&pool("ip-pool", GOOD)).await?;
        stage.apply(&advertisement(ONE)).await?;
        stage.apply(&service("one", POOL_WISH, WEB)).await?;
        goes_on(&stage).await?;
        stage.say("everything is good");

        stage
            .apply(&pool("ip-pool", "10.0.0.205-10.0.0.220"))
            .await?;
        stage.apply(&advertisement(TWICE)).await?;
        kept(&stage, &["ip-pool", "l2adver"]).await?;
        for process in &mut processes {
            process.kill();
        }
        drop(processes);
        stage.say("two objects are bad, everything is killed");
        let processes = start(&stage).await?;
        goes_on(&stage).await?;
        // Every node's agent and the controller have the good forms, and say what is wrong.
        for process in &processes {
            for (object, field) in [
                ("ip-pool", "spec.addresses[0]"),
                ("l2adver", "spec.nodeSelectors[1]"),
            ] {
                let line = logged(process, &[object, "last good form", field]).await?;
                assert!(line.contains("remedy"), "{line}");
            }
        }
        stage.apply(&service("two", POOL_WISH, WEB)).await?;
        stage.event("two", "AllocationFailed").await?;
        assert!(stage.addresses("two").await.is_empty());
        goes_on(&stage).await?;
        kept(&stage, &["ip-pool", "l2adver"]).await?;
        stage.say("the last good forms are in force, the pool is frozen");

        stage.apply(&pool("ip-pool", GOOD)).await?;
        stage.apply(&advertisement(ONE)).await?;
        stage.has("two", &["10.0.0.102"]).await?;
        kept(&stage, &[]).await?;
        goes_on(&stage).await?;
        stage.say("mended");
        Ok(())
    });
}

/// Every node of the lab, in a way that can be said twice: the schema sees no duplicate in the
/// other order.
const ONE: &str = "[{matchExpressions: [{key: a, operator: NotIn, values: [one, two]}]}]";
const TWICE: &str = "[{matchExpressions: [{key: a, operator: NotIn, values: [one, two]}]}, \
                     {matchExpressions: [{key: a, operator: NotIn, values: [two, one]}]}]";
const POOL_WISH: &str = "metallb.io/address-pool: ip-pool";

fn advertisement(nodes: &str) -> String {
    format!(
        "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\n\
         metadata: {{name: l2adver, namespace: metallb-system}}\n\
         spec: {{ipAddressPools: [ip-pool], nodeSelectors: {nodes}}}\n"
    )
}

/// The controller and three agents, once they are ready.
async fn start(stage: &Stage) -> Result<Vec<Process>, crate::stage::Fault> {
    let mut processes = vec![stage.controller(&stage.api_host)?];
    for node in &stage.scene.nodes {
        processes.push(stage.agent(node)?);
    }
    stage.ready(&stage.api_host).await?;
    for node in &stage.scene.nodes {
        stage.ready(&node.host).await?;
    }
    Ok(processes)
}

/// The Service has its address, one node answers, the page comes.
async fn goes_on(stage: &Stage) -> Outcome {
    stage.has("one", &["10.0.0.101"]).await?;
    stage.scene.owner(ADDRESS).await?;
    stage.scene.page(ADDRESS).await?;
    Ok(())
}

/// Waits until the AcceptedConfig has the forms of these objects, and of no others.
async fn kept(stage: &Stage, names: &[&str]) -> Outcome {
    let path = "/apis/corten.dev/v1alpha1/namespaces/metallb-system/acceptedconfigs/accepted";
    wait_for(
        SOON,
        &format!("the forms of {names:?} to be kept"),
        async || {
            let found = stage.plane.api().get(path).await.unwrap_or_default();
            let objects = found["spec"]["objects"].as_array().cloned();
            let objects = objects.unwrap_or_default();
            let form = |object: &Value| object["form"]["metadata"]["name"].clone();
            if objects.iter().map(form).eq(names.iter().copied()) {
                Ok(())
            } else {
                Err(found.to_string())
            }
        },
    )
    .await?;
    Ok(())
}
