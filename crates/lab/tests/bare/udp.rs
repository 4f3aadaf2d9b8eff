//! A UDP client that goes on sending from one port, whatever becomes of the endpoints
//! (Kubernetes' `conntrack.go`).

use std::net::SocketAddr;
use std::time::Duration;

use lab::{Prober, Target, wait_until};

use crate::support::{ECHO, Outcome, SOON, Stage, ip, service, slice};

/// How long questions are asked before there is an endpoint.
const ASKED: Duration = Duration::from_millis(300);

/// Waits until each has twenty answers more.
async fn go_on(what: &str, probers: &[Prober]) -> Outcome {
    for (number, prober) in probers.iter().enumerate() {
        let before = prober.answered();
        wait_until(SOON, &format!("{what}: answers to {number}"), async || {
            prober.answered() >= before + 20
        })
        .await?;
    }
    Ok(())
}

/// The Service's endpoints: the Pods of these nodes.
fn endpoints(stage: &Stage, nodes: std::ops::Range<usize>) -> Outcome {
    let text = service("one", "") + &slice("one", false, &stage.scene.nodes[nodes]);
    stage.write("one.yaml", &text)
}

#[test]
fn clients_follow_their_service() {
    lab::run("udp::clients_follow_their_service", async |lab| {
        let mut stage = Stage::build(&lab, 2).await?;
        let address = ip("10.0.0.101");
        endpoints(&stage, 0..0)?;
        stage.start()?;
        stage.holds("one", &["10.0.0.101"]).await?;
        stage.ready("node-1").await?;
        // Without an endpoint nobody announces it.
        stage.reach_by(address, "node-1").await?;
        let target = Target::Udp(SocketAddr::new(address, ECHO));
        let node = &stage.scene.nodes[0];
        let probers = [stage.client().probe(target)?, node.host.probe(target)?];
        wait_until(SOON, "questions to nobody", async || {
            // One in a millisecond.
            probers.iter().all(|prober| prober.silence() >= ASKED)
        })
        .await?;

        endpoints(&stage, 0..1)?;
        go_on("the first endpoint", &probers).await?;
        // It is gone without a word, and another one takes its place.
        stage.scene.nodes[0].pod.kill().await?;
        endpoints(&stage, 1..2)?;
        let deleted = "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv4\"}";
        wait_until(SOON, "both connections to be forgotten", async || {
            let deleted = stage.metric("node-1", deleted).await;
            deleted.is_ok_and(|deleted| deleted >= 2)
        })
        .await?;
        go_on("another endpoint", &probers).await?;
        Ok(())
    });
}
