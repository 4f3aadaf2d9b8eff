//! A new version comes by `kubectl set image`, under load: no request fails.

use std::net::SocketAddr;

use lab::{Outcome, wait_until};

use crate::load::Load;
use crate::stage::{ADDRESS, SECOND, SOON, SYSTEM, Stage};

pub(crate) async fn story(stage: &Stage) -> Outcome {
    let to = SocketAddr::new(ADDRESS.parse()?, 80);
    stage.forget_flows()?;
    let load = Load::start(stage.cluster.client(), to)?;
    let flows = async || load.answered() > 200;
    wait_until(SOON, "the load to flow", flows).await?;
    for (workload, container) in [
        ("deployment/corten-controller", "controller"),
        ("daemonset/corten-agent", "speaker"),
    ] {
        let image = format!("{container}={SECOND}");
        let set = ["set", "image", "-n", SYSTEM, workload, &image];
        stage.kubectl(&set).await?;
    }
    stage.rolled_out().await?;
    let before = load.answered();
    let flows = async || load.answered() > before + 200;
    wait_until(SOON, "the load to flow afterwards", flows).await?;
    let figures = load.stop().await?;
    stage.lab.say(format!(
        "upgrade_failed_requests: {} of {}; slowest {:?}, longest gap {:?}",
        figures.failed, figures.sent, figures.slowest, figures.gap
    ));
    assert_eq!(figures.failed, 0, "{figures:?}");
    let pods = format!("/api/v1/namespaces/{SYSTEM}/pods");
    for pod in stage.list(&pods).await? {
        let gone = !pod["metadata"]["deletionTimestamp"].is_null();
        let image = pod["spec"]["containers"][0]["image"].as_str();
        assert!(gone || image == Some(SECOND), "{image:?}");
    }
    deleted(stage).await
}

/// The announcing agent's Pod is deleted: its addresses are handed over, and there is a new agent. A
/// connection that is made then finds a node; one that was being used may be cut, as another node's
/// kube-proxy does not know it.
async fn deleted(stage: &Stage) -> Outcome {
    let to = SocketAddr::new(ADDRESS.parse()?, 80);
    let index = stage.announcer(ADDRESS).await?;
    let node = stage.cluster.nodes()[index].name();
    let load = Load::start(stage.cluster.client(), to)?;
    let flows = async || load.answered() > 200;
    wait_until(SOON, "the load to flow", flows).await?;
    let on_it = format!("--field-selector=spec.nodeName={node}");
    let delete = [
        "delete",
        "pods",
        "-n",
        SYSTEM,
        "-l",
        "component=speaker",
        &on_it,
    ];
    stage.kubectl(&delete).await?;
    stage.rolled_out().await?;
    let before = load.answered();
    let flows = async || load.answered() > before + 200;
    wait_until(SOON, "the load to flow afterwards", flows).await?;
    let figures = load.stop().await?;
    stage.lab.say(format!(
        "{node}'s agent deleted: {} of {} failed, {} of them cut; slowest {:?}, longest gap {:?}",
        figures.failed, figures.sent, figures.cut, figures.slowest, figures.gap
    ));
    assert_eq!(figures.failed, figures.cut, "{figures:?}");
    Ok(())
}
