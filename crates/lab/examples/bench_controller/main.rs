//! The controller against a real API server: `cargo xtask bench controller`.
//!
//! In each round (two, or as many as the argument says) 5,000 Services wait for an address. In one half `corten controller` is
//! started on them, in the other a bare client of the same library ([`client`]) that writes one
//! status and one event for each; the halves change places from round to round. Then 10,000
//! Services are made while the controller runs. Prints a table, and as its last line one JSON
//! object with the same numbers. Needs the control plane (Go) and the right to make namespaces.

mod client;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use client::Work;
use lab::controlplane::{Account, ControlPlane, ensure_built};
use lab::{Host, Lab, Outcome, Process, bin};
use serde_json::{Value, json};

type Fault = Box<dyn Error + Send + Sync>;

/// Services that wait when the controller starts.
const PENDING: u32 = 5_000;
/// Services that are made while it runs.
const CREATED: u32 = 10_000;
/// Between two looks at what has been written; the same for both.
const LOOK: Duration = Duration::from_millis(100);
/// No half takes as long on any machine that is worth measuring.
const DEADLINE: Duration = Duration::from_secs(900);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [work, kubeconfig, namespace, count] = arguments.as_slice() {
        return part(work, kubeconfig, namespace, count);
    }
    let rounds = match arguments.as_slice() {
        [] => Some(2),
        [rounds] => rounds.parse().ok(),
        _ => None,
    };
    let Some(rounds) = rounds else {
        eprintln!("usage: bench_controller [ROUNDS]");
        return 2.into();
    };
    match ensure_built() {
        Ok(binary) => lab::main("bench_controller", async move |lab| {
            bench(lab, &binary, rounds).await
        }),
        Err(error) => {
            eprintln!("bench controller: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One of the bench's own processes on a host of the lab.
fn part(work: &str, kubeconfig: &str, namespace: &str, count: &str) -> ExitCode {
    let work = Work::ALL.into_iter().find(|known| known.name() == work);
    let (Some(work), Ok(count)) = (work, count.parse()) else {
        eprintln!("bench controller: wrong arguments");
        return 2.into();
    };
    match client::run(work, Path::new(kubeconfig), namespace, count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", work.name());
            ExitCode::FAILURE
        }
    }
}

/// Time and processor time of one half.
#[derive(Clone, Copy, Debug)]
struct Half {
    seconds: f64,
    cpu: f64,
}

async fn bench(lab: Lab, binary: &Path, rounds: u32) -> Outcome {
    let stage = Stage::build(&lab, binary).await?;
    let mut halves: [Vec<Half>; 2] = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        // Who comes first finds a younger etcd: they take turns.
        for ours in [round % 2 == 0, round % 2 == 1] {
            let namespace = format!("round-{round}-{}", if ours { "corten" } else { "bare" });
            stage.namespace(&namespace).await?;
            stage.work(Work::Create, &namespace, PENDING).await?;
            let half = if ours {
                stage.controller_half(&namespace).await?
            } else {
                stage.bare_half(&namespace).await?
            };
            lab.say(format!("{namespace}: {:.2} s", half.seconds));
            stage.work(Work::Delete, &namespace, PENDING).await?;
            halves[usize::from(!ours)].push(half);
        }
    }
    let (created, creation, memory) = stage.creation(&lab).await?;
    let [ours, bare] = halves;
    report(&ours, &bare, created, creation, memory);
    Ok(())
}

fn mean(halves: &[Half], of: impl Fn(&Half) -> f64) -> f64 {
    halves.iter().map(of).sum::<f64>() / halves.len() as f64
}

/// Memory of the controller in MiB: at the end, and at most.
#[derive(Clone, Copy, Debug)]
struct Memory {
    now: f64,
    peak: f64,
}

fn report(ours: &[Half], bare: &[Half], created: f64, creation: f64, memory: Memory) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (pending, baseline) = (mean(ours, |h| h.seconds), mean(bare, |h| h.seconds));
    let ratio = baseline / pending;
    let all = |halves: &[Half]| {
        let each = halves.iter().map(|half| format!("{:.2}", half.seconds));
        each.collect::<Vec<_>>().join(" ")
    };
    println!("{cores} cores, load average {}", load.trim_end());
    println!("| figure | value | what |");
    println!("| --- | --- | --- |");
    println!(
        "| pending_5000_s | {pending:.2} | {PENDING} pending Services, from the start of the controller; rounds: {} s, CPU {:.2} s |",
        all(ours),
        mean(ours, |h| h.cpu)
    );
    println!(
        "| bare_5000_s | {baseline:.2} | one status and one event for each, from the start of the client; rounds: {} s, CPU {:.2} s |",
        all(bare),
        mean(bare, |h| h.cpu)
    );
    println!("| ratio_to_bare | {ratio:.2} | bare / ours; at least 0.9 |");
    println!(
        "| created_10k_s | {created:.2} | {CREATED} made while it runs, until all are served; {creation:.2} s for making them |"
    );
    println!(
        "| rss_mib | {:.1} | of the controller at {CREATED}; at most 60; peak {:.1} |",
        memory.now, memory.peak
    );
    let figures = json!({
        "pending_5000_s": round(pending),
        "bare_5000_s": round(baseline),
        "ratio_to_bare": round(ratio),
        "created_10k_s": round(created),
        "creation_10k_s": round(creation),
        "rss_mib": round(memory.now),
        "peak_rss_mib": round(memory.peak),
    });
    println!("{}", json!({"bench": "controller", "figures": figures}));
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

struct Stage {
    plane: ControlPlane,
    host: Host,
}

impl Stage {
    async fn build(lab: &Lab, binary: &Path) -> Result<Self, Fault> {
        let lan = lab.segment("lan").await?;
        let (api, host) = (lab.host("api").await?, lab.host("controller").await?);
        lan.attach(&api, &["10.0.0.5/24"]).await?;
        lan.attach(&host, &["10.0.0.9/24"]).await?;
        let plane = ControlPlane::start(binary, lab, &api, api.address(false)?).await?;
        let stage = Self { plane, host };
        let (crds, rbac) = (root("deploy/crds"), root("deploy/rbac.yaml"));
        let (crds, rbac) = (crds.to_string_lossy(), rbac.to_string_lossy());
        stage
            .kubectl(&["apply", "-f", &crds, "-f", &rbac], "")
            .await?;
        stage
            .kubectl(&["wait", "--for=condition=Established", "-f", &crds], "")
            .await?;
        let pool = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
                    metadata: {name: bench, namespace: metallb-system}\n\
                    spec: {addresses: [10.64.0.0/16]}\n";
        stage.kubectl(&["apply", "-f", "-"], pool).await?;
        Ok(stage)
    }

    async fn kubectl(&self, args: &[&str], stdin: &str) -> Result<(), Fault> {
        self.plane.kubectl_ok(&self.host, args, stdin).await?;
        Ok(())
    }

    async fn namespace(&self, name: &str) -> Result<(), Fault> {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.plane
            .api()
            .create("/api/v1/namespaces", &object)
            .await?;
        Ok(())
    }

    fn start(&self, work: Work, namespace: &str, count: u32) -> Result<Process, Fault> {
        // The writer has the controller's account: its requests are judged by the same rules.
        let account = match work {
            Work::Write => Account::Controller,
            Work::Create | Work::Delete => Account::Admin,
        };
        let mut command = self.host.command(std::env::current_exe()?)?;
        command
            .arg(work.name())
            .arg(self.plane.kubeconfig(account))
            .arg(namespace)
            .arg(count.to_string());
        Ok(self.host.spawn(work.name(), command)?)
    }

    async fn work(&self, work: Work, namespace: &str, count: u32) -> Result<(), Fault> {
        ended(self.start(work, namespace, count)?).await
    }

    fn controller(&self) -> Result<Process, Fault> {
        let mut command = self.host.command(bin("corten")?)?;
        command
            .arg("controller")
            .arg("--kubeconfig")
            .arg(self.plane.kubeconfig(Account::Controller))
            .args([
                "--pod-name",
                "bench",
                "--no-http",
                "--webhook-mode",
                "disabled",
            ]);
        Ok(self.host.spawn("controller", command)?)
    }

    async fn controller_half(&self, namespace: &str) -> Result<Half, Fault> {
        let start = Instant::now();
        let mut process = self.controller()?;
        let seconds = self.served(namespace, PENDING, start).await?;
        let cpu = cpu(&process);
        // It gives its lease back, so that the next one leads at once.
        process.terminate();
        process.wait(Duration::from_secs(10)).await?;
        Ok(Half { seconds, cpu })
    }

    async fn bare_half(&self, namespace: &str) -> Result<Half, Fault> {
        let start = Instant::now();
        let mut process = self.start(Work::Write, namespace, PENDING)?;
        let served = self.served(namespace, PENDING, start);
        let seconds = tokio::select! {
            served = served => served?,
            () = failed(&mut process) => {
                return Err(format!("the bare client failed: {}", process.log()).into());
            }
        };
        let cpu = cpu(&process);
        ended(process).await?;
        Ok(Half { seconds, cpu })
    }

    /// Makes many Services while the controller runs: until all are served, until all were made.
    async fn creation(&self, lab: &Lab) -> Result<(f64, f64, Memory), Fault> {
        let mut controller = self.controller()?;
        self.namespace("created").await?;
        let start = Instant::now();
        let creator = self.start(Work::Create, "created", CREATED)?;
        let creation = async {
            ended(creator).await?;
            Ok::<_, Fault>(start.elapsed().as_secs_f64())
        };
        let (served, creation) = tokio::join!(self.served("created", CREATED, start), creation);
        let memory = Memory {
            now: memory(&controller, "VmRSS:"),
            peak: memory(&controller, "VmHWM:"),
        };
        lab.say(format!("CPU of the controller: {:.2} s", cpu(&controller)));
        controller.terminate();
        controller.wait(Duration::from_secs(10)).await?;
        Ok((served?, creation?, memory))
    }

    /// Waits until every Service of a namespace has an address and an event; seconds since `start`.
    ///
    /// Events are counted (one number in the answer, whatever their count); only when they are all
    /// there the Services are listed.
    async fn served(&self, namespace: &str, count: u32, start: Instant) -> Result<f64, Fault> {
        let api = self.plane.api();
        let events = format!("/api/v1/namespaces/{namespace}/events?limit=1");
        let services = format!("/api/v1/namespaces/{namespace}/services");
        let mut looks = tokio::time::interval(LOOK);
        let mut last = String::new();
        while start.elapsed() < DEADLINE {
            looks.tick().await;
            let moment = start.elapsed();
            let told = number(&api.get(&events).await?);
            if told < u64::from(count) {
                last = format!("{told} events");
                continue;
            }
            let list = api.get(&services).await?;
            let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
            let served = items.iter().filter(|service| {
                service["status"]["loadBalancer"]["ingress"][0]["ip"].is_string()
            });
            let served = served.count();
            // Kubernetes' own controllers write events too.
            let list = api
                .get(&format!("/api/v1/namespaces/{namespace}/events"))
                .await?;
            let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
            let told = items
                .iter()
                .filter(|event| event["reason"] == "IPAllocated");
            let told = told.count();
            if told > count as usize {
                return Err(format!("{told} events for {count} Services").into());
            }
            if served == count as usize && told == served {
                return Ok(moment.as_secs_f64());
            }
            last = format!("{served} addresses, {told} events");
        }
        Err(format!("{namespace}: not served in {DEADLINE:?}; last seen: {last}").into())
    }
}

/// How many objects a list of one page of one object stands for.
fn number(list: &Value) -> u64 {
    let shown = list["items"].as_array().map_or(0, Vec::len) as u64;
    shown + list["metadata"]["remainingItemCount"].as_u64().unwrap_or(0)
}

async fn ended(mut process: Process) -> Result<(), Fault> {
    let status = process.wait(DEADLINE).await?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{status}: {}", process.log()).into())
}

/// Completes when the process has ended badly, else never.
async fn failed(process: &mut Process) {
    match process.wait(DEADLINE).await {
        Ok(status) if !status.success() => {}
        _ => std::future::pending().await,
    }
}

/// Processor time that a process has used, in seconds.
fn cpu(process: &Process) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid()));
    let stat = stat.unwrap_or_default();
    // After the name in brackets, utime and stime are fields 12 and 13 (proc_pid_stat(5)).
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|text| text.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// A line of a process' memory in MiB.
fn memory(process: &Process, line: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()));
    let status = status.unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix(line));
    let kib = found.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}
