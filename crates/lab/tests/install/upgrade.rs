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
    Ok(())
}
