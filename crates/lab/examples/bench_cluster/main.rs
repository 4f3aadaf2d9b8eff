//! Corten on a real cluster of three nodes: `cargo xtask bench cluster`.
//!
//! A cold install with the published manifests, until a client outside gets its page; an upgrade
//! under 200 requests a second; the memory of agents and controller at 100 and at 5,000 Services.
//! Those have no selector and no endpoints, so that the cluster's own parts stay small: they are
//! allocated and known to every agent, and announced by none. Prints its progress, a table, and as
//! its last line one JSON object with the same numbers. Needs what the lab's cluster needs: root,
//! Go, Debian packages.

#[allow(dead_code)]
#[path = "../bench_controller/client.rs"]
mod client;
#[path = "../../tests/install/load.rs"]
mod load;
#[allow(dead_code)]
#[path = "../../tests/install/quickstart.rs"]
mod quickstart;
#[allow(dead_code)]
#[path = "../../tests/install/stage.rs"]
mod stage;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use client::Work;
use lab::cluster::{Cluster, Options, Parts};
use lab::controlplane::Account;
use lab::{Lab, Outcome, wait_for, wait_until};
use load::{Figures, Load};
use serde_json::json;
use stage::{ADDRESS, SECOND, SYSTEM, Stage};

type Fault = Box<dyn std::error::Error + Send + Sync>;

const FEW: u32 = 100;
const MANY: u32 = 5_000;
/// Two namespaces, as the Services of both parts have the same names.
const NAMESPACES: [(&str, u32); 2] = [("bench-few", FEW), ("bench-many", MANY - FEW)];
/// No step takes as long on any machine that is worth measuring.
const DEADLINE: Duration = Duration::from_secs(900);
/// Memory is read when it has changed by less than a hundredth in this time, so many times.
const SETTLED: (Duration, u32) = (Duration::from_secs(2), 4);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => {}
        ["create", kubeconfig, namespace, count] => {
            let Ok(count) = count.parse() else {
                return 2.into();
            };
            return match client::run(Work::Create, Path::new(kubeconfig), namespace, count) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("create: {error}");
                    ExitCode::FAILURE
                }
            };
        }
        _ => {
            eprintln!("usage: bench_cluster");
            return 2.into();
        }
    }
    match Parts::ensure() {
        Ok(parts) => lab::main("bench_cluster", async move |lab| bench(lab, &parts).await),
        Err(error) => {
            eprintln!("bench cluster: {}", stage::chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn bench(lab: Lab, parts: &Parts) -> Outcome {
    let begin = Instant::now();
    let cluster = Cluster::up(&lab, parts, Options::default()).await?;
    let mut stage = Stage::set(lab, cluster).await?;
    // As it is published: nothing else runs here.
    stage.manifest = stage::root().join("deploy/corten.yaml");
    let install = install(&stage).await?;
    stage
        .lab
        .say(format!("installed: a page after {install:.2} s"));
    let upgrade = upgrade(&stage).await?;
    stage.lab.say(format!(
        "upgraded: {} of {} requests failed",
        upgrade.failed, upgrade.sent
    ));
    let mut memory = Vec::new();
    for (namespace, count) in NAMESPACES {
        services(&stage, namespace, count).await?;
        let (agent, controller) = settled().await?;
        stage.lab.say(format!(
            "{namespace}: agent {agent:.1} MiB, controller {controller:.1} MiB"
        ));
        memory.push((agent, controller));
    }
    stage.answers(ADDRESS).await?;
    if let [few, many] = memory.as_slice() {
        report(install, &upgrade, *few, *many, begin.elapsed());
    }
    Ok(())
}

/// From the first command of the README until the client outside has a page, in seconds. The nodes have the image.
async fn install(stage: &Stage) -> Result<f64, Fault> {
    let start = Instant::now();
    for line in &quickstart::lines().1 {
        stage.line(line).await?;
    }
    stage.answers(ADDRESS).await?;
    let took = start.elapsed().as_secs_f64();
    stage.rolled_out().await?;
    Ok(took)
}

/// `kubectl set image` for both, under load.
async fn upgrade(stage: &Stage) -> Result<Figures, Fault> {
    let to = SocketAddr::new(ADDRESS.parse()?, 80);
    stage.forget_flows()?;
    let load = Load::start(stage.cluster.client(), to)?;
    let flows = async || load.answered() > 200;
    wait_until(DEADLINE, "the load to flow", flows).await?;
    for (workload, container) in [
        ("deployment/corten-controller", "controller"),
        ("daemonset/corten-agent", "speaker"),
    ] {
        let image = format!("{container}={SECOND}");
        let set = ["set", "image", "-n", SYSTEM, workload, &image];
        stage.kubectl(&set).await?;
    }
    stage.rolled_out().await?;
    let before = load.answered();
    let flows = async || load.answered() > before + 200;
    wait_until(DEADLINE, "the load to flow afterwards", flows).await?;
    let figures = load.stop().await?;
    for failure in &figures.failures {
        stage.lab.say(format!("failed {failure}"));
    }
    Ok(figures)
}

/// Makes so many Services in a new namespace, and waits until each has its address.
async fn services(stage: &Stage, namespace: &str, count: u32) -> Result<(), Fault> {
    let objects = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n---\n\
         apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
         metadata: {{name: bench, namespace: {SYSTEM}}}\n\
         spec: {{addresses: [10.64.0.0/16]}}\n"
    );
    stage.apply(&objects).await?;
    let client = stage.cluster.client();
    let mut command = client.command(std::env::current_exe()?)?;
    command
        .arg("create")
        .arg(stage.cluster.plane().kubeconfig(Account::Admin))
        .args([namespace, &count.to_string()]);
    let mut maker = client.spawn(namespace, command)?;
    let status = maker.wait(DEADLINE).await?;
    if !status.success() {
        return Err(maker.log().into());
    }
    let path = format!("/api/v1/namespaces/{namespace}/services");
    wait_for(DEADLINE, "an address for each", async || {
        let list = stage.list(&path).await.map_err(|e| e.to_string())?;
        let served = list
            .iter()
            .filter(|service| service["status"]["loadBalancer"]["ingress"][0]["ip"].is_string())
            .count();
        match served == count as usize {
            true => Ok(()),
            false => Err(format!("{served} of {count}")),
        }
    })
    .await?;
    Ok(())
}

/// Memory of the largest agent and the largest controller in MiB, once both stay as they are.
async fn settled() -> Result<(f64, f64), Fault> {
    let (between, times) = SETTLED;
    let mut looks = tokio::time::interval(between);
    let start = Instant::now();
    let (mut last, mut same) = (resident()?, 0);
    while same < times {
        if start.elapsed() > DEADLINE {
            return Err("memory does not settle".into());
        }
        looks.tick().await;
        let now = resident()?;
        let near = |a: f64, b: f64| (a - b).abs() <= a / 100.0;
        same = match near(now.0, last.0) && near(now.1, last.1) {
            true => same + 1,
            false => 0,
        };
        last = now;
    }
    Ok(last)
}

/// The Pods' processes are in this sandbox, and nobody else's.
fn resident() -> Result<(f64, f64), Fault> {
    let (mut agent, mut controller) = (0.0_f64, 0.0_f64);
    for process in fs::read_dir("/proc")?.flatten() {
        let read = |name: &str| fs::read(process.path().join(name)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).into_owned();
        let mut words = command.split('\0');
        let largest = match (words.next(), words.next()) {
            (Some("/corten"), Some("agent")) => &mut agent,
            (Some("/corten"), Some("controller")) => &mut controller,
            _ => continue,
        };
        let status = String::from_utf8_lossy(&read("status")).into_owned();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        *largest = largest.max(kib.unwrap_or(0.0) / 1024.0);
    }
    match agent > 0.0 && controller > 0.0 {
        true => Ok((agent, controller)),
        false => Err("no process of a Pod of Corten is to be seen".into()),
    }
}

fn report(install: f64, upgrade: &Figures, few: (f64, f64), many: (f64, f64), took: Duration) {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{cores} cores, load average {}; the bench took {:.0} s",
        load.trim_end(),
        took.as_secs_f64()
    );
    println!("| figure | value | what |");
    println!("| --- | --- | --- |");
    println!("| install_to_answer_s | {install:.2} | kubectl apply until a page from outside |");
    println!(
        "| upgrade_failed_requests | {} | of {} at 200/s; longest gap {:.0} ms, slowest {:.0} ms |",
        upgrade.failed,
        upgrade.sent,
        upgrade.gap.as_secs_f64() * 1e3,
        upgrade.slowest.as_secs_f64() * 1e3
    );
    for (name, value, what) in [
        (
            "agent_rss_mib_100",
            few.0,
            "the largest agent, 100 Services",
        ),
        (
            "agent_rss_mib_5000",
            many.0,
            "the largest agent, 5,000 Services",
        ),
        (
            "controller_rss_mib_100",
            few.1,
            "the larger controller, 100 Services",
        ),
        (
            "controller_rss_mib_5000",
            many.1,
            "the larger controller, 5,000 Services",
        ),
    ] {
        println!("| {name} | {value:.1} | {what} |");
    }
    let figures = json!({
        "install_to_answer_s": round(install),
        "upgrade_failed_requests": upgrade.failed,
        "upgrade_requests": upgrade.sent,
        "upgrade_longest_gap_ms": round(upgrade.gap.as_secs_f64() * 1e3),
        "agent_rss_mib_100": round(few.0),
        "agent_rss_mib_5000": round(many.0),
        "controller_rss_mib_100": round(few.1),
        "controller_rss_mib_5000": round(many.1),
        "bench_s": round(took.as_secs_f64()),
    });
    println!("{}", json!({"bench": "cluster", "figures": figures}));
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
