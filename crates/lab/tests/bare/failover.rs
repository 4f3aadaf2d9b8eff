//! How long an address is not answered for when its owner is gone.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lab::{Lab, Target, wait_until};

use crate::support::{Outcome, SOON, Stage, ip};

/// On an idle machine it is 150 ms. On a busy one the best of a few must still be below what a
/// timeout of one second would give.
const BOUND: Duration = Duration::from_millis(700);
const TRIES: usize = 3;

/// The longest silence that a client sees while `act` is done and another node takes over.
async fn gap(lab: &Lab, stage: &Stage, address: IpAddr, cut: bool) -> Outcome<(String, Duration)> {
    let owner = stage.owner(address).await?;
    stage.scene.page(address).await?;
    let target = Target::Tcp(SocketAddr::new(address, 80));
    let prober = stage.client().probe(target)?;
    wait_until(SOON, "answers before", async || prober.answered() > 200).await?;
    let host = &stage.scene.node(&owner).host;
    if cut {
        host.cut().await?;
    } else {
        host.kill().await?;
    }
    let next = stage.owner_but(address, &owner).await?;
    let before = prober.answered();
    wait_until(SOON, "answers after", async || {
        prober.answered() > before + 200
    })
    .await?;
    let gaps = prober.stop().await?;
    let what = if cut { "cut off" } else { "killed" };
    lab.say(format!(
        "{owner} {what}, {next} answers: silent for {} ms",
        gaps.longest.as_millis()
    ));
    Ok((owner, gaps.longest))
}

#[test]
fn an_owner_that_is_cut_off_is_followed_soon_and_comes_back() {
    lab::run(
        "failover::an_owner_that_is_cut_off_is_followed_soon_and_comes_back",
        async |lab| {
            let mut stage = Stage::build(&lab, 3).await?;
            stage.profile = "default";
            stage.serve("one")?;
            stage.start()?;
            let address = ip("10.0.0.101");
            let mut gaps = Vec::new();
            while gaps.len() < TRIES && !gaps.iter().any(|gap| *gap < BOUND) {
                let (owner, gap) = gap(&lab, &stage, address, true).await?;
                gaps.push(gap);
                stage.scene.node(&owner).host.heal().await?;
                // It stands first, so it has the address back, alone.
                wait_until(SOON, "the old owner to have it back", async || {
                    stage.owner(address).await.is_ok_and(|now| now == owner)
                })
                .await?;
                stage.scene.page(address).await?;
            }
            assert!(gaps.iter().any(|gap| *gap < BOUND), "{gaps:?}");
            Ok(())
        },
    );
}

#[test]
fn owners_that_die_one_after_another_are_followed_soon() {
    lab::run(
        "failover::owners_that_die_one_after_another_are_followed_soon",
        async |lab| {
            let mut stage = Stage::build(&lab, 4).await?;
            stage.profile = "default";
            stage.serve("one")?;
            stage.start()?;
            let address = ip("10.0.0.101");
            let mut gaps = Vec::new();
            for _ in 0..TRIES {
                gaps.push(gap(&lab, &stage, address, false).await?.1);
            }
            assert!(gaps.iter().any(|gap| *gap < BOUND), "{gaps:?}");
            Ok(())
        },
    );
}

/// A machine on which processes are not run for a while holds living nodes for dead. Each such
/// death heals: in the end one node answers, the first, and a page comes.
#[test]
fn false_deaths_heal() {
    lab::run("failover::false_deaths_heal", async |lab| {
        let mut stage = Stage::build(&lab, 3).await?;
        stage.profile = "fast";
        stage.serve("one")?;
        stage.start()?;
        let address = ip("10.0.0.101");
        let owner = stage.owner(address).await?;
        for name in [owner.clone()].into_iter().chain(stage.others(&owner)) {
            stage.on(&name).freeze();
            if name == owner {
                stage.owner_but(address, &owner).await?;
            }
            let watched = stage.others(&name).remove(0);
            stage.logged(&watched, &["dead", &name]).await?;
            stage.on(&name).thaw();
            stage
                .logged(&name, &["silent until a peer is heard"])
                .await?;
            stage.logged(&name, &["answering again"]).await?;
            wait_until(SOON, "the first to have it back", async || {
                stage.owner(address).await.is_ok_and(|now| now == owner)
            })
            .await?;
        }
        stage.scene.page(address).await?;
        stage.no_strangers();
        counted(&stage, &owner).await
    });
}

/// Metrics tell of it (docs/failure-detection.md).
async fn counted(stage: &Stage, owner: &str) -> Outcome {
    let paused = "corten_member_silences_total{cause=\"paused\"}";
    let healed = "corten_member_false_deaths_healed_total";
    let beats = "corten_member_datagrams_received_total{kind=\"beat\"}";
    for metric in [paused, healed, beats] {
        wait_until(SOON, metric, async || {
            stage
                .metric(owner, metric)
                .await
                .is_ok_and(|count| count > 0)
        })
        .await?;
    }
    Ok(())
}
