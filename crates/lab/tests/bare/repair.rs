//! What other programs do to the nftables table is mended.

use std::net::SocketAddr;
use std::time::Instant;

use lab::{wait_for, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Outcome, SOON, Stage, ip};

/// Runs a script on node-1.
fn sh(stage: &Stage, script: &str) -> Outcome {
    let mut command = stage.scene.node("node-1").host.command("sh")?;
    let output = command.args(["-ec", script]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}");
    Ok(())
}

#[test]
fn a_flushed_rule_set_is_back_and_connections_go_on() {
    lab::run(
        "repair::a_flushed_rule_set_is_back_and_connections_go_on",
        async |lab| {
            let mut stage = Stage::build(&lab, 1).await?;
            stage.serve("one")?;
            // As kernels before 6.9 have it: anybody may change the table.
            sh(&stage, "nft add table inet corten")?;
            stage.start()?;
            let front = SocketAddr::new(ip("10.0.0.101"), 80);
            stage.scene.page(front.ip()).await?;
            let repairs = "corten_forward_repairs_total";
            let comparisons = "corten_forward_comparisons_total";

            // Others write all the time, as kube-proxy does: no comparison for each of it.
            let (before, began) = (stage.metric("node-1", comparisons).await?, Instant::now());
            sh(
                &stage,
                "nft add table ip other; nft add set ip other s '{type inet_service;}'; \\
                 for n in $(seq 60); do nft add element ip other s \"{$n}\"; done",
            )?;
            let took = began.elapsed().as_secs();
            let compared = stage.metric("node-1", comparisons).await? - before;
            assert!(compared <= took / 3 + 2, "{compared} in {took} s");
            assert_eq!(stage.metric("node-1", repairs).await?, 0);

            // A single element goes.
            let elements =
                "nft -a list table inet corten | sed -n 's/.*map \\(front4[^ ]*\\) .*/\\1/p'";
            sh(&stage, &format!("nft flush map inet corten $({elements})"))?;
            wait_for(SOON, "the elements to be back", async || {
                match stage.metric("node-1", repairs).await {
                    Ok(1) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
            stage.scene.page(front.ip()).await?;

            // All goes, while a connection rests.
            let mut old = stage.client().connect(front).await?;
            sh(&stage, "nft flush ruleset")?;
            let flushed = Instant::now();
            wait_until(SOON, "new connections", async || {
                stage.answers(front.ip()).await
            })
            .await?;
            lab.say(format!(
                "new connections {:?} after the flush",
                flushed.elapsed()
            ));
            old.write_all(b"GET / HTTP/1.1\r\nHost: one\r\nConnection: close\r\n\r\n")
                .await?;
            let mut page = String::new();
            old.read_to_string(&mut page).await?;
            assert!(page.contains("pod-1"), "{page}");
            let line = stage
                .logged("node-1", &["another program changed", "\"rules\":true"])
                .await?;
            let log = stage.on("node-1").log();
            assert_eq!(log.matches("another program changed").count(), 2, "{line}");
            Ok(())
        },
    );
}
