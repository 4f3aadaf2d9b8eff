//! Allocations and forwarding outlive processes.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use lab::{Target, wait_for, wait_until};

use crate::support::{Outcome, SOON, Stage, ip};

/// Services made in one go, and how often `corten run` is killed.
const SERVICES: usize = 24;
const KILLS: usize = 6;

/// Looks at the state file: every address once held must stay with its Service, and be its alone.
fn unchanged(stage: &Stage, seen: &mut BTreeMap<String, Vec<IpAddr>>) -> Result<(), String> {
    let held = stage.held()?;
    for (name, addresses) in &*seen {
        if held.get(name) != Some(addresses) {
            return Err(format!(
                "{name} held {addresses:?}, now {:?}",
                held.get(name)
            ));
        }
    }
    let mut owners: BTreeMap<IpAddr, &String> = BTreeMap::new();
    for (name, addresses) in &held {
        for address in addresses {
            if let Some(other) = owners.insert(*address, name) {
                return Err(format!("{address} is held by {name} and {other}"));
            }
        }
    }
    *seen = held;
    Ok(())
}

#[test]
fn allocations_outlive_kills_in_the_middle_of_changes() {
    lab::run(
        "state::allocations_outlive_kills_in_the_middle_of_changes",
        async |lab| {
            let mut stage = Stage::build(&lab, 1).await?;
            let mut seen = BTreeMap::new();
            stage.start()?;
            for round in 0..KILLS {
                // Half of what this round adds is written before the kill is due.
                for n in 0..SERVICES / KILLS {
                    stage.serve(&format!("s{round}-{n}"))?;
                }
                let enough = seen.len() + round % 3;
                wait_until(SOON, "some of it to be stored", async || {
                    stage.held().is_ok_and(|held| held.len() >= enough)
                })
                .await?;
                stage.on("node-1").kill();
                unchanged(&stage, &mut seen)?;
                stage.start_on("node-1")?;
            }
            let all = (SERVICES / KILLS) * KILLS;
            wait_for(SOON, "every Service to hold an address", async || {
                unchanged(&stage, &mut seen)?;
                if seen.len() == all {
                    Ok(())
                } else {
                    Err(format!("{} do", seen.len()))
                }
            })
            .await?;
            stage.ready("node-1").await?;
            // A restart in peace changes nothing either; what was deleted meanwhile is freed.
            stage.on("node-1").terminate();
            let ended = stage.on("node-1").wait(SOON).await?;
            assert!(ended.success(), "{ended}");
            unchanged(&stage, &mut seen)?;
            stage.remove("s0-0.yaml")?;
            let freed = seen.remove("s0-0").expect("it was held");
            stage.start_on("node-1")?;
            stage.holds("s0-0", &[]).await?;
            unchanged(&stage, &mut seen)?;
            stage.serve("last")?;
            let freed: Vec<String> = freed.iter().map(ToString::to_string).collect();
            stage.holds("last", &[&freed[0]]).await?;
            unchanged(&stage, &mut seen)?;
            Ok(())
        },
    );
}

/// Kills the process on the owner's node, with no word to anybody, and starts it again: at once,
/// or after another node has taken over.
async fn restart(lab: &lab::Lab, at_once: bool) -> Outcome {
    let mut stage = Stage::build(lab, 3).await?;
    stage.serve("one")?;
    stage.start()?;
    let address = ip("10.0.0.101");
    let owner = stage.owner(address).await?;
    stage.scene.page(address).await?;
    // The client knows the owner's Ethernet address: nobody's ARP answers count for it.
    let prober = stage
        .client()
        .probe(Target::Tcp(SocketAddr::new(address, 80)))?;
    wait_until(SOON, "answers before", async || prober.answered() > 200).await?;
    let killed = Instant::now();
    stage.on(&owner).kill();
    if !at_once {
        let next = stage.owner_but(address, &owner).await?;
        lab.say(format!(
            "{next} took over {:?} after the kill",
            killed.elapsed()
        ));
    }
    stage.start_on(&owner)?;
    let mut duplicates = 0;
    let back = wait_for(SOON, "the owner to be back, alone", async || {
        let names = stage.answering(address, Duration::from_millis(40)).await;
        let names = names.map_err(|error| vec![error.to_string()])?;
        duplicates += usize::from(names.len() > 1);
        if names == [owner.clone()] {
            Ok(())
        } else {
            Err(names)
        }
    })
    .await;
    back?;
    let before = prober.answered();
    wait_until(SOON, "answers after", async || {
        prober.answered() > before + 200
    })
    .await?;
    let gaps = prober.stop().await?;
    lab.say(format!(
        "back {:?} after the kill; windows with two answers: {duplicates}; {gaps:?}",
        killed.elapsed()
    ));
    // The kernel forwards all the time; a gap as long as the agent was away would be over a second.
    assert!(gaps.longest < Duration::from_millis(800), "{gaps:?}");
    // Who gives way has to be run for it.
    assert!(
        duplicates <= 10,
        "two nodes answered in {duplicates} windows"
    );
    Ok(())
}

#[test]
fn forwarding_goes_on_while_the_agent_restarts() {
    lab::run(
        "state::forwarding_goes_on_while_the_agent_restarts",
        async |lab| restart(&lab, true).await,
    );
}

#[test]
fn forwarding_goes_on_while_the_agent_is_away() {
    lab::run(
        "state::forwarding_goes_on_while_the_agent_is_away",
        async |lab| restart(&lab, false).await,
    );
}

#[test]
fn an_agent_that_starts_takes_nothing_from_its_neighbours() {
    lab::run(
        "state::an_agent_that_starts_takes_nothing_from_its_neighbours",
        async |lab| {
            let mut stage = Stage::build(&lab, 3).await?;
            stage.serve("one")?;
            stage.start()?;
            let address = ip("10.0.0.101");
            let owner = stage.owner(address).await?;
            for other in stage.others(&owner) {
                stage.on(&other).kill();
                let before = stage.on(&other).log().len();
                stage.start_on(&other)?;
                stage.ready(&other).await?;
                assert_eq!(stage.owner(address).await?, owner);
                let log = stage.on(&other).log();
                let since = log.get(before..).unwrap_or_default();
                assert!(since.contains("in sync"), "{since}");
                assert!(!since.contains("announcing from node"), "{since}");
            }
            Ok(())
        },
    );
}

#[test]
fn a_damaged_state_file_is_refused_and_left_alone() {
    lab::run(
        "state::a_damaged_state_file_is_refused_and_left_alone",
        async |lab| {
            let mut stage = Stage::build(&lab, 2).await?;
            stage.serve("one")?;
            stage.start()?;
            stage.holds("one", &["10.0.0.101"]).await?;
            stage.owner(ip("10.0.0.101")).await?;
            stage.on("node-1").kill();
            stage.on("node-2").kill();
            let file = stage.dir.join(".corten/state.json");
            let damaged = fs::read_to_string(&file)?.replace("10.0.0.101", "10.0.0.107");
            fs::write(&file, &damaged)?;
            for node in ["node-1", "node-2"] {
                stage.start_on(node)?;
                let ended = stage.on(node).wait(SOON).await?;
                assert_eq!(ended.code(), Some(1), "{node}");
                let line = stage.logged(node, &["is damaged"]).await?;
                for part in [
                    "state.json",
                    "digest",
                    "restore it from a copy, or remove it",
                ] {
                    assert!(line.contains(part), "{part}: {line}");
                }
            }
            assert_eq!(
                fs::read_to_string(&file)?,
                damaged,
                "it must be left as it is"
            );
            // The remedy works.
            fs::remove_file(&file)?;
            stage.start()?;
            stage.holds("one", &["10.0.0.101"]).await?;

            // Damaged while it runs: told, and what was read stays in force.
            stage.owner(ip("10.0.0.101")).await?;
            fs::write(&file, "{")?;
            stage
                .logged("node-2", &["is damaged", "stays in force"])
                .await?;
            stage.owner(ip("10.0.0.101")).await?;
            Ok(())
        },
    );
}
