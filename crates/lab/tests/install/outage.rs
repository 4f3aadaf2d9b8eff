//! The announcing node is cordoned and drained, and loses its power while the API server is away.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lab::{Outcome, wait_for, wait_until};

use crate::load::Load;
use crate::stage::{ADDRESS, SOON, Stage, chain};

/// How long the API server is away; longer in a soak.
const AWAY: Duration = Duration::from_secs(8);
/// Seconds of the outage, for a soak.
const SOAK: &str = "LAB_OUTAGE_SECONDS";

pub(crate) async fn story(stage: &mut Stage) -> Outcome {
    let index = stage.announcer(ADDRESS).await?;
    let name = stage.cluster.nodes()[index].name().to_owned();
    let to = SocketAddr::new(ADDRESS.parse()?, 80);
    stage.forget_flows()?;
    let load = Load::start(stage.cluster.client(), to)?;
    let flows = async || load.answered() > 200;
    wait_until(SOON, "the load to flow", flows).await?;

    stage.kubectl(&["cordon", &name]).await?;
    let drain = [
        "drain",
        &name,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=150s",
    ];
    stage.kubectl(&drain).await?;
    let figures = load.stop().await?;
    stage.lab.say(format!(
        "{name} drained: {} of {} failed, longest gap {:?}",
        figures.failed, figures.sent, figures.gap
    ));
    away(stage, index).await?;
    Ok(())
}

/// Without the API server the address stays where it is; a node's death is noticed all the same.
async fn away(stage: &mut Stage, index: usize) -> Outcome {
    let to = SocketAddr::new(ADDRESS.parse()?, 80);
    let client = stage.cluster.client().clone();
    // Those of the agents' watches too: they hear nothing of the server's end, as when its host
    // loses its power.
    stage.forget_flows()?;
    let load = Load::start(&client, to)?;
    stage.cluster.stop_api_server();
    let seconds = std::env::var(SOAK).ok().and_then(|text| text.parse().ok());
    let away = seconds.map_or(AWAY, Duration::from_secs);
    let start = tokio::time::Instant::now();
    wait_until(away + SOON, "the outage's first half", async || {
        start.elapsed() > away / 2
    })
    .await?;
    let standing = load.stop().await?;
    assert_eq!(standing.failed, 0, "announcements stand: {standing:?}");

    stage.forget_flows()?;
    let load = Load::start(&client, to)?;
    let flows = async || load.answered() > 200;
    wait_until(SOON, "the load to flow", flows).await?;
    let before = load.answered();
    let node = stage.cluster.node(index).ok_or("no such node")?;
    let name = node.name().to_owned();
    node.kill().await?;
    let flows = async || load.answered() > before + 1000;
    wait_until(SOON, "the load to flow after a node's death", flows).await?;
    wait_until(away + SOON, "the outage's end", async || {
        start.elapsed() > away
    })
    .await?;
    let figures = load.stop().await?;
    stage.lab.say(format!(
        "{name} killed: longest gap {:?}, {} of {} failed",
        figures.gap, figures.failed, figures.sent
    ));
    assert!(figures.gap < Duration::from_secs(20), "{figures:?}");

    stage.cluster.start_api_server().await?;
    taken_up(stage).await?;
    let node = stage.cluster.node(index).ok_or("no such node")?;
    node.start().await?;
    let path = format!("/api/v1/nodes/{name}");
    wait_for(SOON, "the node to be ready", async || {
        let node = stage.cluster.api().get(&path).await;
        let node = node.map_err(|e| chain(&e))?;
        let conditions = node["status"]["conditions"].as_array();
        let ready = conditions
            .into_iter()
            .flatten()
            .find(|c| c["type"] == "Ready");
        match ready.is_some_and(|c| c["status"] == "True") {
            true => Ok(()),
            false => Err(format!("{ready:?}")),
        }
    })
    .await?;
    stage.kubectl(&["uncordon", &name]).await?;
    stage.rolled_out().await?;
    stage.answers(ADDRESS).await?;
    stage.lab.say(format!("{name} is back"));
    Ok(())
}

/// What changes after the outage is taken up.
async fn taken_up(stage: &Stage) -> Outcome {
    let begun = Instant::now();
    stage.apply(SECOND_SERVICE).await?;
    let address = stage.addressed("second").await?;
    let addressed = begun.elapsed();
    assert_ne!(address.to_string(), ADDRESS);
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices\
        ?labelSelector=kubernetes.io%2Fservice-name%3Dsecond";
    wait_for(SOON, "the Service's endpoints", async || {
        let slices = stage.list(slices).await.map_err(|e| e.to_string())?;
        let endpoints = slices
            .first()
            .and_then(|slice| slice["endpoints"].as_array());
        match endpoints.is_some_and(|endpoints| !endpoints.is_empty()) {
            true => Ok(()),
            false => Err(format!("{slices:?}")),
        }
    })
    .await?;
    let endpoints = begun.elapsed();
    stage.announced(address).await?;
    let announced = begun.elapsed();
    // kube-proxy doubles its wait for the API server, too: up to half a minute.
    stage.answers(address).await?;
    stage.lab.say(format!(
        "a Service of after the outage: {address} given after {:.1} s, endpoints after {:.1} s, \
         announced after {:.1} s, answers after {:.1} s",
        addressed.as_secs_f64(),
        endpoints.as_secs_f64(),
        announced.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    ));
    // A watch whose other end has gone without a word finds that out after 25 s at the latest.
    assert!(announced - endpoints < Duration::from_secs(40));
    Ok(())
}

const SECOND_SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: second}
spec:
  type: LoadBalancer
  selector: {app: myapp}
  ports: [{protocol: TCP, port: 80, targetPort: 80}]
";
