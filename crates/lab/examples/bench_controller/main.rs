//! The controller against a real API server: `cargo xtask bench controller`.
//!
//! Four parts, each on a control plane of its own, so that nobody meets what another one left:
//! 5,000 Services wait and `corten controller` is started on them; the same with a bare client of
//! the same library ([`client`]) that writes one status and one event for each; 10,000 Services are
//! made while the controller runs; the same with the bare client, which a watch tells of them.
//! `--rounds N` repeats the first two, in turns; `--pending N` does only these, `--created N` only the
//! others. Prints its progress, a table, and as its last line
//! one JSON object with the same numbers. Needs the control plane (Go) and the right to make
//! namespaces.

mod client;

use std::collections::HashSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use client::Work;
use lab::controlplane::{Account, ControlPlane, ensure_built};
use lab::{Host, Lab, Outcome, Process, Segment, bin};
use serde_json::{Value, json};

type Fault = Box<dyn Error + Send + Sync>;

/// Services that wait when the controller starts.
const PENDING: u32 = 5_000;
/// Services that are made while it runs.
const CREATED: u32 = 10_000;
/// Where they are made.
const NAMESPACE: &str = "bench";
/// Custom kinds that the controller watches.
const KINDS: &str = "configurationstates.metallb.io,ipaddresspools.metallb.io,bgppeers.metallb.io,\
     bfdprofiles.metallb.io,bgpadvertisements.metallb.io,l2advertisements.metallb.io,\
     communities.metallb.io,acceptedconfigs.corten.dev,addresspools.corten.dev,peers.corten.dev,\
     advertisements.corten.dev";
/// Between two looks at what has been written; the same for both.
const LOOK: Duration = Duration::from_millis(100);
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);
/// No part takes as long on any machine that is worth measuring.
const DEADLINE: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [work, kubeconfig, namespace, count] = arguments.as_slice() {
        return part(work, kubeconfig, namespace, count);
    }
    let positive = |rounds: &String| rounds.parse().ok().filter(|rounds| *rounds > 0);
    let asked = match arguments.as_slice() {
        [] => Some((1, Parts::All)),
        [flag, rounds] => positive(rounds).zip(match flag.as_str() {
            "--rounds" => Some(Parts::All),
            "--pending" => Some(Parts::Pending),
            "--created" => Some(Parts::Created),
            _ => None,
        }),
        _ => None,
    };
    let Some((rounds, parts)) = asked else {
        eprintln!("usage: bench_controller [--rounds N | --pending N | --created N]");
        return 2.into();
    };
    match ensure_built() {
        Ok(binary) => lab::main("bench_controller", async move |lab| {
            bench(lab, &binary, rounds, parts).await
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

/// Which parts are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parts {
    All,
    Pending,
    Created,
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Corten,
    Bare,
}

/// Time and processor time of one half.
#[derive(Clone, Copy, Debug)]
struct Half {
    seconds: f64,
    cpu: f64,
}

async fn bench(lab: Lab, binary: &Path, rounds: u32, parts: Parts) -> Outcome {
    let begin = Instant::now();
    let mut theatre = Theatre::build(&lab, binary).await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    if parts == Parts::Created {
        for round in 1..=rounds {
            for who in turns(round) {
                created_by(&mut theatre, who).await?;
            }
        }
        return Ok(());
    }
    for round in 0..rounds {
        for who in turns(round) {
            let stage = theatre.stage().await?;
            let creation = stage.work(Work::Create, PENDING).await?;
            lab.say(format!("{PENDING} made in {creation:.1} s; {who:?} begins"));
            let half = stage.pending(who).await?;
            lab.say(format!("{who:?}: {PENDING} in {:.2} s", half.seconds));
            match who {
                Who::Corten => ours.push(half),
                Who::Bare => bare.push(half),
            }
        }
    }
    if parts == Parts::Pending {
        let (pending, baseline) = (mean(&ours, |h| h.seconds), mean(&bare, |h| h.seconds));
        lab.say(format!(
            "pending_5000_s {pending:.2}, CPU {:.2}; bare_5000_s {baseline:.2}, CPU {:.2}; ratio_to_bare {:.2}",
            mean(&ours, |h| h.cpu),
            mean(&bare, |h| h.cpu),
            baseline / pending
        ));
        return Ok(());
    }
    let mut created = Vec::new();
    for who in [Who::Corten, Who::Bare] {
        created.push(created_by(&mut theatre, who).await?);
    }
    if let [created, bare_created] = created.as_slice() {
        report(&ours, &bare, created, bare_created, begin.elapsed());
    }
    Ok(())
}

/// Who begins changes from round to round.
const fn turns(round: u32) -> [Who; 2] {
    match round % 2 {
        0 => [Who::Corten, Who::Bare],
        _ => [Who::Bare, Who::Corten],
    }
}

async fn created_by(theatre: &mut Theatre<'_>, who: Who) -> Result<Created, Fault> {
    let lab = theatre.lab;
    lab.say(format!("{CREATED} are made while {who:?} runs"));
    let one = theatre.stage().await?.created(who).await?;
    lab.say(format!(
        "{who:?}: {CREATED} in {:.2} s, made in {:.2} s, CPU {:.2} s",
        one.seconds, one.creation, one.cpu
    ));
    Ok(one)
}

fn mean(halves: &[Half], of: impl Fn(&Half) -> f64) -> f64 {
    halves.iter().map(of).sum::<f64>() / halves.len() as f64
}

/// Services made while somebody writes.
#[derive(Clone, Copy, Debug)]
struct Created {
    /// Until all were served.
    seconds: f64,
    /// Until all were made.
    creation: f64,
    cpu: f64,
    /// Memory in MiB: at the end, and at most.
    rss: f64,
    peak: f64,
}

fn report(ours: &[Half], bare: &[Half], created: &Created, other: &Created, took: Duration) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (pending, baseline) = (mean(ours, |h| h.seconds), mean(bare, |h| h.seconds));
    let ratio = baseline / pending;
    let created_ratio = other.seconds / created.seconds;
    let took = took.as_secs_f64();
    let all = |halves: &[Half]| {
        let each = halves.iter().map(|half| format!("{:.2}", half.seconds));
        each.collect::<Vec<_>>().join(" ")
    };
    println!(
        "{cores} cores, load average {}; the bench took {took:.0} s",
        load.trim_end()
    );
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
        "| created_10k_s | {:.2} | {CREATED} made while it runs, until all are served; {:.2} s for making them, CPU {:.2} s |",
        created.seconds, created.creation, created.cpu
    );
    println!(
        "| bare_created_10k_s | {:.2} | the same with the bare client; {:.2} s for making them, CPU {:.2} s |",
        other.seconds, other.creation, other.cpu
    );
    println!("| created_ratio_to_bare | {created_ratio:.2} | bare / ours; at least 0.9 |");
    println!(
        "| rss_mib | {:.1} | of the controller at {CREATED}; at most 60; peak {:.1} |",
        created.rss, created.peak
    );
    let figures = json!({
        "pending_5000_s": round(pending),
        "bare_5000_s": round(baseline),
        "ratio_to_bare": round(ratio),
        "created_10k_s": round(created.seconds),
        "creation_10k_s": round(created.creation),
        "bare_created_10k_s": round(other.seconds),
        "created_ratio_to_bare": round(created_ratio),
        "rss_mib": round(created.rss),
        "peak_rss_mib": round(created.peak),
        "bench_s": round(took),
    });
    println!("{}", json!({"bench": "controller", "figures": figures}));
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The segment and the host of those that write; control planes come and go.
struct Theatre<'a> {
    lab: &'a Lab,
    binary: &'a Path,
    lan: Segment,
    host: Host,
    planes: u32,
}

impl<'a> Theatre<'a> {
    async fn build(lab: &'a Lab, binary: &'a Path) -> Result<Self, Fault> {
        let lan = lab.segment("lan").await?;
        let host = lab.host("controller").await?;
        lan.attach(&host, &["10.0.0.9/24"]).await?;
        Ok(Self {
            lab,
            binary,
            lan,
            host,
            planes: 0,
        })
    }

    /// A new control plane on a host of its own, with Corten's kinds, rights and one pool.
    async fn stage(&mut self) -> Result<Stage<'a>, Fault> {
        self.planes += 1;
        let api = self.lab.host(&format!("api-{}", self.planes)).await?;
        let address = format!("10.0.0.{}/24", 10 + self.planes);
        self.lan.attach(&api, &[&address]).await?;
        let plane = ControlPlane::start(self.binary, self.lab, &api, api.address(false)?).await?;
        let stage = Stage {
            lab: self.lab,
            plane,
            host: self.host.clone(),
        };
        let (crds, rbac) = (root("deploy/crds"), root("deploy/rbac.yaml"));
        let (crds, rbac) = (crds.to_string_lossy(), rbac.to_string_lossy());
        stage
            .kubectl(&["apply", "-f", &crds, "-f", &rbac], "")
            .await?;
        stage
            .kubectl(&["wait", "--for=condition=Established", "-f", &crds], "")
            .await?;
        let objects = format!(
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
             metadata: {{name: bench, namespace: metallb-system}}\n\
             spec: {{addresses: [10.64.0.0/16]}}\n---\n\
             apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n"
        );
        stage.kubectl(&["apply", "-f", "-"], &objects).await?;
        // The API server builds what serves a custom kind when it is first asked for it: a second
        // for all of them, once in its life. That time is neither side's.
        stage
            .kubectl(&["get", "--all-namespaces", KINDS], "")
            .await?;
        Ok(stage)
    }
}

/// One part's control plane; its processes end with the value.
struct Stage<'a> {
    lab: &'a Lab,
    plane: ControlPlane,
    host: Host,
}

impl Stage<'_> {
    async fn kubectl(&self, args: &[&str], stdin: &str) -> Result<(), Fault> {
        self.plane.kubectl_ok(&self.host, args, stdin).await?;
        Ok(())
    }

    fn start(&self, work: Work, count: u32) -> Result<Process, Fault> {
        // The writer has the controller's account: its requests are judged by the same rules.
        let account = match work {
            Work::Write | Work::Follow => Account::Controller,
            Work::Create | Work::Observe => Account::Admin,
        };
        let mut command = self.host.command(std::env::current_exe()?)?;
        command
            .arg(work.name())
            .arg(self.plane.kubeconfig(account))
            .arg(NAMESPACE)
            .arg(count.to_string());
        Ok(self.host.spawn(work.name(), command)?)
    }

    /// How long it took, in seconds.
    async fn work(&self, work: Work, count: u32) -> Result<f64, Fault> {
        let start = Instant::now();
        ended(self.start(work, count)?).await?;
        Ok(start.elapsed().as_secs_f64())
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

    /// Somebody serves the Services that wait.
    async fn pending(&self, who: Who) -> Result<Half, Fault> {
        let observer = self.start(Work::Observe, PENDING)?;
        let start = Instant::now();
        let mut process = match who {
            Who::Corten => self.controller()?,
            Who::Bare => self.start(Work::Write, PENDING)?,
        };
        let seconds = self
            .served_by(&mut process, observer, PENDING, start)
            .await?;
        let cpu = cpu(&process);
        process.kill();
        Ok(Half { seconds, cpu })
    }

    /// Makes many Services while somebody serves them.
    async fn created(&self, who: Who) -> Result<Created, Fault> {
        let observer = self.start(Work::Observe, CREATED)?;
        let mut process = match who {
            Who::Corten => self.controller()?,
            Who::Bare => self.start(Work::Follow, CREATED)?,
        };
        let start = Instant::now();
        let (seconds, creation) = tokio::join!(
            self.served_by(&mut process, observer, CREATED, start),
            self.work(Work::Create, CREATED)
        );
        let created = Created {
            seconds: seconds?,
            creation: creation?,
            cpu: cpu(&process),
            rss: memory(&process, "VmRSS:"),
            peak: memory(&process, "VmHWM:"),
        };
        process.kill();
        Ok(created)
    }

    /// Waits until all are served, or their server has failed; seconds since `start`.
    async fn served_by(
        &self,
        server: &mut Process,
        observer: Process,
        count: u32,
        start: Instant,
    ) -> Result<f64, Fault> {
        let served = async {
            tokio::try_join!(ended(observer), self.told(count, start))?;
            Ok::<_, Fault>(start.elapsed().as_secs_f64())
        };
        let done = tokio::select! {
            served = served => Some(served?),
            () = failed(server) => None,
        };
        let seconds = done.ok_or_else(|| format!("the server failed: {}", server.log()))?;
        Ok(seconds)
    }

    /// Waits until there is an event for every Service. Events are counted (one number in the
    /// answer, whatever their count); when there are enough they are listed, for Kubernetes' own
    /// controllers write some too.
    async fn told(&self, count: u32, start: Instant) -> Result<(), Fault> {
        let number_of_events = format!("{}?limit=1", events());
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut said, mut others) = (start, 0);
        let count = count as usize;
        while start.elapsed() < DEADLINE {
            looks.tick().await;
            let there = number(&self.plane.api().get(&number_of_events).await?);
            if there >= count + others {
                let list = self.plane.api().get(&events()).await?;
                let all = list["items"].as_array().map_or(&[][..], Vec::as_slice);
                let told = all.iter().filter(|event| event["reason"] == "IPAllocated");
                let of: HashSet<&str> = told
                    .clone()
                    .filter_map(|event| event["involvedObject"]["name"].as_str())
                    .collect();
                if of.len() == count {
                    let told = told.count();
                    // Where the leadership was lost and won again, a change may be told again.
                    if told > count {
                        self.lab.say(format!("{told} events for {count} Services"));
                    }
                    return Ok(());
                }
                others = all.len() - of.len();
            }
            if said.elapsed() >= PROGRESS {
                let seconds = start.elapsed().as_secs_f64();
                self.lab.say(format!("{seconds:.0} s: {there} events"));
                said = Instant::now();
            }
        }
        Err(format!("not {count} events in {DEADLINE:?}").into())
    }
}

/// Where the events of the bench's Services are.
fn events() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/events")
}

/// How many objects a list of one page of one object stands for.
fn number(list: &Value) -> usize {
    let shown = list["items"].as_array().map_or(0, Vec::len);
    let more = list["metadata"]["remainingItemCount"].as_u64().unwrap_or(0);
    shown.saturating_add(usize::try_from(more).unwrap_or(usize::MAX))
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
