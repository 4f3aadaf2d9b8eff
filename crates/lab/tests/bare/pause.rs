//! An agent that was not run for longer than failure detection takes.

use std::time::{Duration, Instant};

use lab::wait_until;

use crate::support::{Outcome, SOON, Stage, ip};

/// Longer than failure detection takes.
const PAUSE: Duration = Duration::from_secs(3);

#[test]
fn after_a_pause_nobody_answers_beside_the_new_owner() {
    lab::run(
        "pause::after_a_pause_nobody_answers_beside_the_new_owner",
        async |lab| {
            let mut stage = Stage::build(&lab, 3).await?;
            stage.serve("one")?;
            stage.start()?;
            let address = ip("10.0.0.101");
            let owner = stage.owner(address).await?;
            let counted = async |stage: &Stage| -> Outcome<(u64, u64)> {
                let asked = "metallb_layer2_requests_received";
                let answered = "metallb_layer2_responses_sent";
                Ok((
                    stage.counted(&owner, asked, address).await?,
                    stage.counted(&owner, answered, address).await?,
                ))
            };
            let before = counted(&stage).await?;
            stage.on(&owner).freeze();
            let frozen = Instant::now();
            // At once, so that a request is the first thing that the agent finds after its pause;
            // and again and again: all of them wait in its sockets.
            stage.answering(address, Duration::from_millis(30)).await?;
            let next = stage.owner_but(address, &owner).await?;
            wait_until(SOON, "the pause to be long enough", async || {
                stage.owner(address).await.is_ok_and(|now| now == next) && frozen.elapsed() > PAUSE
            })
            .await?;
            // Nobody asks from here on, so that each answer is one to an old request.
            stage.on(&owner).thaw();
            stage
                .logged(&owner, &["silent until a peer is heard"])
                .await?;
            stage.logged(&owner, &["answering again"]).await?;
            let after = counted(&stage).await?;
            lab.say(format!(
                "{owner}: (asked, answered) {before:?}, after its pause {after:?}"
            ));
            assert!(
                after.0 > before.0 + 10,
                "requests that waited: {before:?}, {after:?}"
            );
            assert_eq!(after.1, before.1, "answers to requests that waited");
            // It stands first for this address, so it has it back, alone.
            wait_until(SOON, "the old owner to have it back", async || {
                stage.owner(address).await.is_ok_and(|now| now == owner)
            })
            .await?;
            stage.scene.page(address).await?;
            Ok(())
        },
    );
}

#[test]
fn an_agent_without_peers_answers_after_a_pause() {
    lab::run(
        "pause::an_agent_without_peers_answers_after_a_pause",
        async |lab| {
            let mut stage = Stage::build(&lab, 1).await?;
            stage.serve("one")?;
            stage.start()?;
            let address = ip("10.0.0.101");
            stage.owner(address).await?;
            stage.on("node-1").freeze();
            let frozen = Instant::now();
            wait_until(SOON, "the pause to be long enough", async || {
                frozen.elapsed() > PAUSE
            })
            .await?;
            stage.on("node-1").thaw();
            stage.logged("node-1", &["was not run"]).await?;
            stage.owner(address).await?;
            Ok(())
        },
    );
}
