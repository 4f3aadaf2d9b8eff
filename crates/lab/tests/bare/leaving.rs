//! SIGTERM is a planned hand-over.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lab::{Target, wait_until};

use crate::support::{Outcome, SOON, Stage, ip};

async fn leave(lab: &lab::Lab, v6: bool) -> Outcome {
    let mut stage = Stage::build(lab, 3).await?;
    let address = if v6 {
        ip("fd00::100")
    } else {
        ip("10.0.0.101")
    };
    if v6 {
        let pool = crate::support::POOL.replace("10.0.0.101-10.0.0.150", "fd00::100-fd00::1ff");
        stage.write("pool.yaml", &pool)?;
        let text = crate::support::service("one", "ipFamilies: [IPv6]")
            + &crate::support::slice("one", true, &stage.scene.nodes);
        stage.write("one.yaml", &text)?;
    } else {
        stage.serve("one")?;
    }
    stage.start()?;
    let owner = stage.owner(address).await?;
    stage.scene.page(address).await?;
    let prober = stage
        .client()
        .probe(Target::Tcp(SocketAddr::new(address, 80)))?;
    wait_until(SOON, "answers before", async || prober.answered() > 200).await?;
    let told = Instant::now();
    stage.on(&owner).terminate();
    // Who asks meanwhile is answered at any moment, by the old owner or the new one. A window is
    // long enough for a busy machine, and a fifth of what a death costs.
    let (mut silent, mut windows) = (0, 0);
    let window = Duration::from_millis(200);
    let mut taken = None;
    while taken.is_none_or(|taken: Instant| taken.elapsed() < Duration::from_millis(500)) {
        let names = stage.answering(address, window).await?;
        windows += 1;
        silent += u32::from(names.is_empty());
        if taken.is_none() && names.iter().any(|name| *name != owner) {
            taken = Some(Instant::now());
            lab.say(format!(
                "{names:?} answer {:?} after SIGTERM",
                told.elapsed()
            ));
        }
        assert!(told.elapsed() < SOON, "nobody took over");
    }
    let ended = stage.on(&owner).wait(SOON).await?;
    lab.say(format!("ended {:?} after SIGTERM", told.elapsed()));
    assert!(ended.success(), "{ended}");
    stage.owner_but(address, &owner).await?;
    let before = prober.answered();
    wait_until(SOON, "answers after", async || {
        prober.answered() > before + 200
    })
    .await?;
    let gaps = prober.stop().await?;
    lab.say(format!(
        "{silent} of {windows} windows without an answer; {gaps:?}"
    ));
    assert_eq!(silent, 0, "windows in which nobody answered, of {windows}");
    // Below the second that a death costs; what is left is the machine's own.
    assert!(gaps.longest < Duration::from_millis(800), "{gaps:?}");
    // They were told, and did not have to find out.
    for other in stage.others(&owner) {
        stage.logged(&other, &["left", &owner]).await?;
        let log = stage.on(&other).log();
        let mut lines = log.lines();
        let dead = |line: &str| line.contains("not heard of for too long") && line.contains(&owner);
        assert!(!lines.any(dead), "{log}");
    }
    Ok(())
}

#[test]
fn another_node_answers_before_the_old_one_is_gone() {
    lab::run(
        "leaving::another_node_answers_before_the_old_one_is_gone",
        async |lab| leave(&lab, false).await,
    );
}

#[test]
fn another_node_answers_before_the_old_one_is_gone_over_ipv6() {
    lab::run(
        "leaving::another_node_answers_before_the_old_one_is_gone_over_ipv6",
        async |lab| leave(&lab, true).await,
    );
}

#[test]
fn the_old_owner_answers_until_another_has_taken_over() {
    lab::run(
        "leaving::the_old_owner_answers_until_another_has_taken_over",
        async |lab| {
            let mut stage = Stage::build(&lab, 3).await?;
            stage.serve("one")?;
            stage.start()?;
            let address = ip("10.0.0.101");
            let owner = stage.owner(address).await?;
            // For less time than failure detection takes, nobody can take over.
            for other in stage.others(&owner) {
                stage.on(&other).freeze();
            }
            stage.on(&owner).terminate();
            stage.logged(&owner, &["stopping"]).await?;
            let names = stage.answering(address, Duration::from_millis(300)).await?;
            assert_eq!(names, std::slice::from_ref(&owner));
            for other in stage.others(&owner) {
                stage.on(&other).thaw();
            }
            let ended = stage.on(&owner).wait(SOON).await?;
            assert!(ended.success(), "{ended}");
            stage.logged(&owner, &["handed over", "10.0.0.101"]).await?;
            stage.owner_but(address, &owner).await?;
            Ok(())
        },
    );
}

#[test]
fn the_only_node_ends_at_once() {
    lab::run("leaving::the_only_node_ends_at_once", async |lab| {
        let mut stage = Stage::build(&lab, 1).await?;
        stage.serve("one")?;
        stage.start()?;
        stage.owner(ip("10.0.0.101")).await?;
        let told = Instant::now();
        stage.on("node-1").terminate();
        let ended = stage.on("node-1").wait(SOON).await?;
        assert!(ended.success(), "{ended}");
        let took = told.elapsed();
        assert!(took < Duration::from_secs(1), "ended after {took:?}");
        Ok(())
    });
}
