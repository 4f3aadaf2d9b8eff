//! An upgrade of one node's agent: the others wait for the next one, and no longer.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use lab::controlplane::binary_or_skip;
use lab::{Outcome, Process, wait_for, wait_until};

use crate::stage::{MINUTES, SOON, Stage, root, turn};

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 101));
/// Longer than the slow profile takes to find a death.
const DEATH: Duration = Duration::from_millis(1500);
/// The one that ends asks the others for 5 s; the end may be seen late.
const WAITED: Duration = Duration::from_millis(2500);

async fn logged(process: &Process, words: &[&str]) -> Result<(), lab::WaitError> {
    wait_for(SOON, &format!("{words:?} in its log"), async || {
        let log = process.log();
        let mut lines = log.lines();
        match lines.any(|line| words.iter().all(|word| line.contains(word))) {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await
}

fn mourned(process: &Process, node: &str) -> bool {
    let log = process.log();
    let mut lines = log.lines();
    lines.any(|line| line.contains("not heard of for too long") && line.contains(node))
}

#[test]
fn the_next_agent_is_waited_for() {
    let name = "succession::the_next_agent_is_waited_for";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    let _turn = turn();
    lab::run_for(name, MINUTES, async |lab| {
        let stage = Stage::build(lab, &binary, 2).await?;
        let _controller = stage.controller(&stage.api_host)?;
        let mut agents = Vec::new();
        for node in &stage.scene.nodes {
            agents.push(stage.agent(node)?);
        }
        stage.ready(&stage.api_host).await?;
        let example = ["apply", "-f", &root("examples/l2")];
        stage.kubectl(&example, "").await?;
        let owner = stage.scene.owner(ADDRESS).await?;
        let mut nodes = stage.scene.nodes.iter();
        let index = nodes.position(|node| node.host == owner.host);
        let index = index.ok_or("no such node")?;
        let (first, other) = (agents.remove(index), agents.remove(0));
        let second = upgrade(&stage, index, first, &other).await?;
        never_comes(&stage, index, second, &other).await
    });
}

/// The next agent is ready, and then not run for a while, the one before having ended.
async fn upgrade(
    stage: &Stage,
    index: usize,
    mut first: Process,
    other: &Process,
) -> Result<Process, crate::stage::Fault> {
    let node = &stage.scene.nodes[index];
    let second = stage.next_agent(node, "second")?;
    logged(&second, &["ready to follow it"]).await?;
    second.freeze();
    first.terminate();
    assert!(first.wait(SOON).await?.success(), "{}", first.log());
    let ended = Instant::now();
    wait_until(SOON, "a death to be found", async || {
        ended.elapsed() > DEATH
    })
    .await?;
    second.thaw();
    let owner = stage.scene.owner(ADDRESS).await?;
    assert_eq!(owner.host, node.host, "no address has moved");
    assert!(!mourned(other, node.host.name()), "{}", other.log());
    stage.say("the next agent came late, and nobody took that for a death");
    Ok(second)
}

/// The next agent is ready, and dies.
async fn never_comes(stage: &Stage, index: usize, mut second: Process, other: &Process) -> Outcome {
    let node = &stage.scene.nodes[index];
    let mut third = stage.next_agent(node, "third")?;
    logged(&third, &["ready to follow it"]).await?;
    third.freeze();
    second.terminate();
    assert!(second.wait(SOON).await?.success(), "{}", second.log());
    let ended = Instant::now();
    third.kill();
    logged(other, &["not heard of for too long", node.host.name()]).await?;
    let took = ended.elapsed();
    let owner = stage.scene.owner(ADDRESS).await?;
    assert_ne!(owner.host, node.host);
    stage.say(format!("the next agent never came: dead after {took:?}"));
    assert!(took > WAITED, "{took:?}");
    Ok(())
}
