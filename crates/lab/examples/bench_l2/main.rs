//! Layer 2 fail-over beside keepalived: `cargo xtask bench l2`.
//!
//! Three nodes and a client on one segment; the client makes a TCP connection each millisecond, and
//! the longest time between two answers counts.
//!
//! - owner killed: the owner's link is cut; then it heals, and the owner comes back.
//! - agent killed: SIGKILL, and a client that knows nothing asks by ARP every 10 ms.
//! - hand-over: SIGTERM.
//!
//! keepalived does the first with `advert_int` 1 and 0.01, in the same run. `--runs N` [default:
//! 50]. Prints a table, and as its last line one JSON object. Needs the Debian package keepalived,
//! and the right to make namespaces.

mod keepalived;
#[path = "../../tests/bare/support.rs"]
#[allow(dead_code)]
mod support;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use keepalived::Keepalived;
use lab::scene::Scene;
use lab::{Backend, Gaps, Host, Lab, Target, wait_until};
use serde_json::{Map, Value, json};
use support::Stage;

pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Between two questions of the client that knows nothing.
const ASKED: Duration = Duration::from_millis(10);
/// Answers that show that all is well.
const WELL: u64 = 200;

/// Times of one kind, in milliseconds.
#[derive(Default)]
struct Times(Vec<f64>);

impl Times {
    fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1e3);
        self.0.sort_by(f64::total_cmp);
    }

    /// By nearest rank.
    fn at(&self, share: usize) -> f64 {
        let rank = (self.0.len() * share).div_ceil(100).max(1);
        let time = self.0.get(rank - 1).copied().unwrap_or(f64::NAN);
        (time * 10.0).round() / 10.0
    }
}

/// What came of owners that were cut off, and came back.
#[derive(Default)]
struct Cuts {
    silent: Times,
    /// Connections that were not answered when the owner came back.
    lost: u64,
    /// Times, at its return, that the client had two answers to one question.
    doubles: u64,
}

fn target(address: IpAddr) -> Target {
    Target::Tcp(SocketAddr::new(address, 80))
}

/// Who answers now, if it is one.
async fn owner(scene: &Scene, address: IpAddr) -> Result<Host, Fault> {
    Ok(scene.owner(address).await?.host.clone())
}

/// Waits until somebody else answers; who is cut off cannot.
async fn moved(scene: &Scene, address: IpAddr, from: &Host) -> Result<(), Fault> {
    wait_until(SOON, "another node to answer", async || {
        let found = scene.answering(address).await;
        found.is_ok_and(|nodes| nodes.iter().any(|node| node.host != *from))
    })
    .await?;
    Ok(())
}

/// Probes while something is done; ends when the client has answers again.
async fn probed(
    scene: &Scene,
    address: IpAddr,
    act: impl AsyncFnOnce() -> Result<(), Fault>,
) -> Result<Gaps, Fault> {
    let prober = scene.client.probe(target(address))?;
    wait_until(SOON, "answers before", async || prober.answered() > WELL).await?;
    act().await?;
    let before = prober.answered();
    wait_until(SOON, "answers after", async || {
        prober.answered() > before + WELL
    })
    .await?;
    Ok(prober.stop().await?)
}

/// The owner's link is cut, and heals; so many times.
async fn cuts(lab: &Lab, scene: &Scene, address: IpAddr, runs: usize) -> Result<Cuts, Fault> {
    let mut found = Cuts::default();
    for run in 0..runs {
        let first = owner(scene, address).await?;
        let gaps = probed(scene, address, async || {
            first.cut().await?;
            moved(scene, address, &first).await
        })
        .await?;
        found.silent.add(gaps.longest);
        let mut doubles = 0;
        let back = probed(scene, address, async || {
            first.heal().await?;
            let end = Instant::now() + SOON;
            let mut alone = 0;
            // It is the owner again, for a while.
            while alone < 20 && Instant::now() < end {
                let answers = scene.client.who_has("eth0", address, ASKED * 2).await?;
                doubles += u64::from(answers.len() > 1);
                let mac = first.mac("eth0").await?;
                alone = match answers.as_slice() {
                    [only] if *only == mac => alone + 1,
                    _ => 0,
                };
            }
            Ok(())
        })
        .await?;
        found.lost += back.lost();
        found.doubles += doubles;
        lab.say(format!(
            "run {run}: {} silent for {:.0} ms; its return: {} lost, {doubles} double answers",
            first.name(),
            gaps.longest.as_secs_f64() * 1e3,
            back.lost()
        ));
    }
    Ok(found)
}

/// The pods of the nodes that are never cut off: a connection to another one is lost whoever answers
/// for the address.
async fn serve_elsewhere(stage: &Stage, address: IpAddr) -> Result<(), Fault> {
    let owner = stage.owner(address).await?;
    let nodes = stage.scene.nodes.iter();
    let others = nodes.filter(|node| node.host.name() != owner);
    let text = support::service("one", "") + &support::slice("one", false, others);
    stage.write("one.yaml", &text)?;
    let pod = stage.scene.node(&owner).pod.name();
    let mut others = 0;
    wait_until(SOON, "the owner's pod to be out of it", async || {
        let page = stage.scene.page(address).await;
        others = if page.is_ok_and(|from| from != pod) {
            others + 1
        } else {
            0
        };
        others > 20
    })
    .await?;
    Ok(())
}

/// Stops all agents.
async fn stop(stage: &mut Stage) -> Result<(), Fault> {
    for name in stage.others("") {
        stage.on(&name).terminate();
        stage.on(&name).wait(SOON).await?;
    }
    Ok(())
}

/// The owner's agent is killed, or stopped, and started again.
async fn agents(
    lab: &Lab,
    stage: &mut Stage,
    address: IpAddr,
    runs: usize,
) -> Result<(Times, u64), Fault> {
    let (mut cold, mut lost) = (Times::default(), 0);
    for run in 0..runs {
        let name = stage.owner(address).await?;
        let mac = stage.scene.node(&name).host.mac("eth0").await?;
        let killed = Instant::now();
        stage.on(&name).kill();
        loop {
            let answers = stage.client().who_has("eth0", address, ASKED).await?;
            if answers.iter().any(|answer| *answer != mac) {
                break;
            }
            if killed.elapsed() > SOON {
                return Err("nobody took over".into());
            }
        }
        cold.add(killed.elapsed());
        back(stage, &name, address).await?;
        let scene = stage.scene.clone();
        let gaps = probed(&scene, address, async || {
            stage.on(&name).terminate();
            stage.on(&name).wait(SOON).await?;
            Ok(())
        })
        .await?;
        lost += gaps.lost();
        lab.say(format!(
            "run {run}: {name} killed: {:.0} ms in the dark; stopped: {} lost",
            cold.at(100),
            gaps.lost()
        ));
        back(stage, &name, address).await?;
    }
    Ok((cold, lost))
}

/// Starts an agent again, which has its address back then.
async fn back(stage: &mut Stage, name: &str, address: IpAddr) -> Result<(), Fault> {
    stage.start_on(name)?;
    wait_until(SOON, "it to have its address back", async || {
        stage.owner(address).await.is_ok_and(|now| now == name)
    })
    .await?;
    Ok(())
}

async fn bench(lab: Lab, runs: usize) -> Result<(), Fault> {
    let address = support::ip("10.0.0.101");
    let mut figures = Map::new();
    let mut table = Vec::new();
    let mut put = |figure: &str, value: Value| {
        table.push(format!("{figure:<32}{value:>10}"));
        figures.insert(figure.to_owned(), value);
    };
    let mut stage = Stage::build(&lab, 3).await?;
    stage.serve("one")?;
    stage.profile = "default";
    stage.start()?;
    serve_elsewhere(&stage, address).await?;
    let found = cuts(&lab, &stage.scene, address, runs).await?;
    put("owner_killed_p50_ms", json!(found.silent.at(50)));
    put("owner_killed_p99_ms", json!(found.silent.at(99)));
    put("return_lost", json!(found.lost));
    put("return_double_answers", json!(found.doubles));
    let (cold, lost) = agents(&lab, &mut stage, address, runs).await?;
    put("agent_killed_cold_p50_ms", json!(cold.at(50)));
    put("agent_killed_cold_p99_ms", json!(cold.at(99)));
    put("handover_lost", json!(lost));
    stop(&mut stage).await?;
    stage.profile = "fast";
    stage.start()?;
    let found = cuts(&lab, &stage.scene, address, runs).await?;
    put("fast_owner_killed_p50_ms", json!(found.silent.at(50)));
    put("fast_owner_killed_p99_ms", json!(found.silent.at(99)));
    stop(&mut stage).await?;
    let scene = stage.scene.clone();
    drop(stage);
    let pages = scene.nodes.iter().map(|node| node.host.serve_http(80));
    let _pages: Vec<Backend> = pages.collect::<Result<_, _>>()?;
    for (interval, name) in [("0.01", "10ms"), ("1", "1s")] {
        let rival = Keepalived::start(scene.clone(), interval).await?;
        let found = cuts(&lab, &rival.scene, keepalived::ADDRESS, runs).await?;
        put(
            &format!("keepalived_{name}_p50_ms"),
            json!(found.silent.at(50)),
        );
        put(
            &format!("keepalived_{name}_p99_ms"),
            json!(found.silent.at(99)),
        );
        put(&format!("keepalived_{name}_return_lost"), json!(found.lost));
        let doubles = json!(found.doubles);
        put(&format!("keepalived_{name}_double_answers"), doubles);
    }
    println!("{}", table.join("\n"));
    println!("{}", json!({"bench": "l2", "figures": figures}));
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runs = match words.as_slice() {
        [] => Some(50),
        [flag, runs] if flag == "--runs" => runs.parse().ok(),
        _ => None,
    };
    let Some(runs) = runs else {
        eprintln!("bench_l2 [--runs N]");
        return 2.into();
    };
    lab::main("bench_l2", async move |lab| bench(lab, runs).await)
}
