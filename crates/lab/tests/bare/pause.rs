//! An agent that was not run for longer than failure detection takes.

use std::time::{Duration, Instant};

use lab::{wait_for, wait_until};

use crate::support::{SOON, Stage, ip};

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
            stage.on(&owner).freeze();
            let frozen = Instant::now();
            let next = stage.owner_but(address, &owner).await?;
            // Requests go on: they wait in the frozen agent's sockets.
            wait_until(SOON, "the pause to be long enough", async || {
                stage.owner(address).await.is_ok_and(|now| now == next) && frozen.elapsed() > PAUSE
            })
            .await?;
            stage.on(&owner).thaw();
            let thawed = Instant::now();
            let mut windows: Vec<Vec<String>> = Vec::new();
            wait_for(SOON, "the old owner to have it back, alone", async || {
                let names = stage.answering(address, Duration::from_millis(25)).await;
                let names = names.map_err(|error| error.to_string())?;
                windows.push(names.clone());
                if names == [owner.clone()] {
                    Ok(())
                } else {
                    Err(format!("{names:?}"))
                }
            })
            .await?;
            let duplicates = windows.iter().filter(|names| names.len() > 1).count();
            lab.say(format!(
            "{owner} has it back {:?} after its pause; {duplicates} of {} windows with two answers",
            thawed.elapsed(),
            windows.len()
        ));
            // One window may see the change itself.
            assert!(duplicates <= 1, "{windows:?}");
            stage
                .logged(&owner, &["silent until a peer is heard"])
                .await?;
            assert_eq!(stage.owner(address).await?, owner);
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
