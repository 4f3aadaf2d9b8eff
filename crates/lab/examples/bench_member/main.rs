//! What failure detection costs a node: `cargo xtask bench member`.
//!
//! - 100 members, each with a UDP socket, an address and a thread of its own, in one network
//!   namespace, for a minute ([`crowd`]): CPU time of one, what it sends and receives, and whether
//!   anybody was held for dead.
//! - Three agents that have nothing to do, in namespaces of their own: CPU time of one, from
//!   `/proc/PID/stat`.
//!
//! `--seconds N` is for less than a minute. Prints a table, and as its last line one JSON object.

mod crowd;

use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lab::scene::Scene;
use lab::{Lab, wait_until};
use proto::member::Profile;
use serde_json::json;

type Fault = Box<dyn Error + Send + Sync>;

const MEMBERS: usize = 100;
/// The kernel's clock ticks in a second (`USER_HZ`), the same on every machine.
const TICKS: f64 = 100.0;
/// From the start of the agents until all has been said.
const SETTLED: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(60);
const POOL: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: pool, namespace: metallb-system}
spec: {addresses: [10.0.0.101-10.0.0.150]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: adv, namespace: metallb-system}
";

/// User and system time of a process.
fn cpu(pid: u32) -> Result<Duration, Fault> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // Fields 14 and 15 of proc(5), the third of which comes first here.
    let ticks = |field: usize| -> Result<f64, Fault> {
        let text = fields.get(field - 3).ok_or("stat ends early")?;
        Ok(text.parse()?)
    };
    Ok(Duration::from_secs_f64((ticks(14)? + ticks(15)?) / TICKS))
}

/// The share of a core that an agent with nothing to do takes, in percent.
async fn idle(lab: &Lab, profile: &str, time: Duration) -> Result<f64, Fault> {
    let scene = Scene::build(lab, 3).await?;
    // Who sends would be charged for what the lab writes down.
    scene.lan.stop_capture();
    let dir = scene.directory("manifests")?;
    fs::write(dir.join("pool.yaml"), POOL)?;
    fs::write(
        dir.join("nodes.yaml"),
        scene.cluster_manifests("default/one"),
    )?;
    let agents = scene.start_on_directory(&dir, profile)?;
    let start = Instant::now();
    wait_until(SOON, "the agents to settle", async || {
        start.elapsed() > SETTLED
    })
    .await?;
    let before: Vec<Duration> = agents
        .iter()
        .map(|agent| cpu(agent.pid()))
        .collect::<Result<_, _>>()?;
    let begin = Instant::now();
    wait_until(time * 2 + SOON, "the time to pass", async || {
        begin.elapsed() > time
    })
    .await?;
    let took = begin.elapsed();
    let mut most = 0f64;
    for (agent, before) in agents.iter().zip(before) {
        let used = cpu(agent.pid())? - before;
        most = most.max(100.0 * used.as_secs_f64() / took.as_secs_f64());
    }
    Ok(most)
}

async fn measure(lab: Lab, time: Duration) -> Result<(), Fault> {
    let host = lab.host("crowd").await?;
    let mut figures = serde_json::Map::new();
    println!("{:<52}{:>10}", "", "of a core");
    for (name, profile) in [("default", Profile::DEFAULT), ("fast", Profile::FAST)] {
        let found = crowd::run(&host, MEMBERS, profile, time)?;
        println!(
            "{:<52}{:>8.2} %   {:.0} kbit/s, {} deaths",
            format!("a member of {MEMBERS}, {name} profile"),
            found.share,
            found.kbits,
            found.deaths
        );
        figures.insert(format!("member_{name}_cpu_pct"), json!(round(found.share)));
        figures.insert(format!("member_{name}_kbits"), json!(round(found.kbits)));
        figures.insert(format!("member_{name}_false_deaths"), json!(found.deaths));
    }
    let share = idle(&lab, "default", time).await?;
    println!(
        "{:<52}{share:>8.2} %",
        "an idle agent of 3, default profile"
    );
    figures.insert("idle_agent_cpu_pct".to_owned(), json!(round(share)));
    println!("{}", json!({"bench": "member", "figures": figures}));
    Ok(())
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let seconds = match words.as_slice() {
        [] => Some(60),
        [flag, seconds] if flag == "--seconds" => seconds.parse().ok(),
        _ => None,
    };
    let Some(seconds) = seconds else {
        eprintln!("bench_member [--seconds N]");
        return ExitCode::from(2);
    };
    let time = Duration::from_secs(seconds);
    lab::main("bench_member", async move |lab| measure(lab, time).await)
}
