//! kube-proxy and Corten's agent on the same objects of a real API server, one after the other, each
//! on a gate of its own with nothing in its kernel.

use std::path::Path;
use std::time::{Duration, Instant};

use lab::controlplane::{Account, ControlPlane};
use lab::{Host, Lab, Process, Segment, bin, wait_for};
use plan::net::Family;

use tokio::sync::oneshot;

use crate::Fault;
use crate::bare::{self, Encoding};
use crate::figures::{median, short};
use crate::gate::{First, Gate, Rates, Way, run};
use crate::maker::Work;
use crate::objects::{NAMESPACE, name, service_object, slice_object};

/// Who does not load in that time did not finish.
const LOAD: Duration = Duration::from_secs(120);
/// The same for one change.
const CHANGE: Duration = Duration::from_secs(60);
/// Services that come while somebody runs have numbers from here on.
const EXTRA: u32 = 200_000;
/// How often a bare client lists everything, in each encoding.
const LISTS: usize = 3;
/// Services that are waited for in turns, spread over all; then all are asked.
const WATCHED: u32 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    KubeProxy,
    Corten,
}

impl Who {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::KubeProxy => "kube-proxy",
            Self::Corten => "corten",
        }
    }

    /// Of how many changes the median is taken: kube-proxy takes seconds for each.
    const fn changes(self, size: Size) -> u32 {
        match (self, size.services) {
            (Self::Corten, _) => 9,
            (Self::KubeProxy, 0..10_000) => 5,
            (Self::KubeProxy, _) => 3,
        }
    }
}

/// What one of them did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Score {
    /// Seconds from its start until every Service answers; none: it did not finish.
    pub(crate) load: Option<f64>,
    /// Its CPU time by then, in seconds, with that of the programs that it ran.
    pub(crate) cpu: f64,
    /// A Service that comes, whose slice is there.
    pub(crate) one: Option<Change>,
    /// A slice that comes, whose Service is there; of Corten alone: kube-proxy would still be at the
    /// Service.
    pub(crate) slice: Option<Change>,
    /// Memory in MiB after that.
    pub(crate) rss: f64,
    /// CPU with nothing to do, in percent of a core.
    pub(crate) idle: f64,
    pub(crate) first: Option<First>,
    pub(crate) rates: Option<Rates>,
}

/// What is made, in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Service,
    Slice,
}

/// One object more, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    /// From the request that makes it until it answers: median and longest.
    pub(crate) median: f64,
    pub(crate) longest: f64,
    /// Of that, until a bare client of the API server is told of it: median.
    pub(crate) told: f64,
    /// The rest, which is the proxy's: median.
    pub(crate) own: f64,
}

/// A number of Services, and how much is asked there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) services: u32,
    pub(crate) endpoints: u32,
    /// First packets, rates and idle CPU too.
    pub(crate) wire: bool,
}

impl Size {
    /// `15k`, `1kx50`.
    pub(crate) fn name(self) -> String {
        match self.endpoints {
            2 => short(self.services),
            endpoints => format!("{}x{endpoints}", short(self.services)),
        }
    }
}

pub(crate) struct Theatre {
    lab: Lab,
    plane: ControlPlane,
    maker: Host,
    gates: [Gate; 2],
    /// Services that there are.
    there: u32,
    extra: u32,
}

impl Theatre {
    pub(crate) async fn build(lab: &Lab, lan: &Segment, binary: &Path) -> Result<Self, Fault> {
        let (api, maker) = (lab.host("api").await?, lab.host("maker").await?);
        lan.attach(&api, &["10.0.0.5/24"]).await?;
        lan.attach(&maker, &["10.0.0.9/24"]).await?;
        let proxy = Gate::build(lab, lan, Who::KubeProxy.name(), 1).await?;
        let corten = Gate::build(lab, lan, Who::Corten.name(), 2).await?;
        let plane = ControlPlane::start(binary, lab, &api, api.address(false)?).await?;
        for gate in [&proxy, &corten] {
            let addresses = [gate.node.address(false)?];
            let name = gate.node.name();
            plane.api().create_node(name, &addresses, &[]).await?;
        }
        let manifests = crate::root("deploy");
        let (crds, rbac) = (manifests.join("crds"), manifests.join("rbac.yaml"));
        let (crds, rbac) = (crds.to_string_lossy(), rbac.to_string_lossy());
        for arguments in [
            &["apply", "-f", &*crds, "-f", &*rbac][..],
            &["wait", "--for=condition=Established", "-f", &*crds],
            &["create", "namespace", NAMESPACE],
        ] {
            plane.kubectl_ok(&maker, arguments, "").await?;
        }
        Ok(Self {
            lab: lab.clone(),
            plane,
            maker,
            gates: [proxy, corten],
            there: 0,
            extra: EXTRA,
        })
    }

    /// Makes the objects for `size`, which is larger than the one before, or has as many Services
    /// with other endpoints.
    pub(crate) async fn set(&mut self, size: Size) -> Result<(), Fault> {
        let start = Instant::now();
        let (work, from) = match size.services == self.there {
            true => (Work::Change, 0),
            false => (Work::Make, self.there),
        };
        let mut command = self.maker.command(std::env::current_exe()?)?;
        command.arg(work.name());
        command.arg(self.plane.kubeconfig(Account::Admin));
        command.args([from, size.services, size.endpoints].map(|number| number.to_string()));
        let mut process = self.maker.spawn(work.name(), command)?;
        let status = process.wait(Duration::from_secs(600)).await?;
        if !status.success() {
            return Err(format!("{status}: {}", process.log()).into());
        }
        self.there = size.services;
        self.lab.say(format!(
            "{} x {} made in {:.1} s",
            size.services,
            size.endpoints,
            start.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    const fn gate(&self, who: Who) -> &Gate {
        let [proxy, corten] = &self.gates;
        match who {
            Who::KubeProxy => proxy,
            Who::Corten => corten,
        }
    }

    fn start(&self, who: Who) -> Result<Process, Fault> {
        let node = &self.gate(who).node;
        let command = match who {
            Who::KubeProxy => {
                let mut command = node.command(self.plane.binary())?;
                command
                    .arg("kube-proxy")
                    .arg("--kubeconfig")
                    .arg(self.plane.kubeconfig(Account::Admin))
                    .args(["--hostname-override", node.name()])
                    .args(["--cluster-cidr=10.244.0.0/16", "--proxy-mode=nftables"])
                    // The machine-wide table of connections is read-only in a namespace.
                    .args(["--conntrack-max-per-core=0", "--conntrack-min=0"])
                    .arg("--conntrack-tcp-timeout-established=0s")
                    .arg("--conntrack-tcp-timeout-close-wait=0s");
                command
            }
            Who::Corten => {
                let mut command = node.command(bin("corten")?)?;
                command
                    .arg("agent")
                    .arg("--kubeconfig")
                    .arg(self.plane.kubeconfig(Account::Agent))
                    .args(["--api-server", &format!("https://{}", self.plane.server())])
                    .args(["--forward", "all", "--node-name", node.name()])
                    .arg("--cluster-cidr=10.244.0.0/16")
                    // Each start is a first one.
                    .args(["--keep-in=", "--http-address", "127.0.0.1:17472"]);
                command
            }
        };
        Ok(node.spawn(who.name(), command)?)
    }

    /// One of them on `size`.
    pub(crate) async fn play(&mut self, who: Who, size: Size) -> Result<Score, Fault> {
        let start = Instant::now();
        let mut process = self.start(who)?;
        let mut score = Score::default();
        let begun = self.lab.clone();
        let told = move |what: String| {
            begun.say(format!("  {}: {what}", who.name()));
        };
        let load = tokio::select! {
            load = self.load(who, size, start) => load?,
            _ = process.wait(LOAD * 2) => {
                return Err(format!("{} has ended: {}", who.name(), process.log()).into());
            }
        };
        if let Some(load) = load {
            score.load = Some(load);
            score.cpu = cpu(&process);
            told(format!("load {load:.2} s, CPU {:.2} s", score.cpu));
            score.one = self.changes(who, size, Last::Service).await?;
            told(format!("Services (ms): {:?}", score.one));
            if who == Who::Corten {
                score.slice = self.changes(who, size, Last::Slice).await?;
                told(format!("slices (ms): {:?}", score.slice));
            }
            score.rss = memory(&process);
            if size.wire {
                let gate = self.gate(who);
                score.first = Some(gate.first(Way::Service, size.services).await?);
                let rates = gate.rates(Way::Service, size.services, Family::V4).await;
                score.rates = Some(rates?);
                let (before, span) = (cpu(&process), Duration::from_secs(5));
                tokio::time::sleep(span).await;
                score.idle = (cpu(&process) - before) * 100.0 / span.as_secs_f64();
            }
            told(format!(
                "{:.1} MiB; {:?} {:?}",
                score.rss, score.first, score.rates
            ));
        } else {
            told("did not finish".to_owned());
        }
        self.end(who, process).await?;
        Ok(score)
    }

    /// Seconds of Corten's first load from this API server, which nobody has asked of its own kinds
    /// before.
    pub(crate) async fn cold(&self, size: Size) -> Result<Option<f64>, Fault> {
        let start = Instant::now();
        let process = self.start(Who::Corten)?;
        let load = self.load(Who::Corten, size, start).await?;
        self.end(Who::Corten, process).await?;
        Ok(load)
    }

    /// Ends one of them, and empties its kernel.
    async fn end(&self, who: Who, mut process: Process) -> Result<(), Fault> {
        if process.try_wait()?.is_some() {
            return Err(format!("{} has ended: {}", who.name(), process.log()).into());
        }
        process.kill();
        let node = self.gate(who).node.clone();
        // The program that it ran may still be at it.
        node.kill().await?;
        node.heal().await?;
        let flush = async || {
            let mut command = node.command("nft").map_err(|e| e.to_string())?;
            run(command.args(["flush", "ruleset"])).map_err(|e| e.to_string())
        };
        wait_for(LOAD, "an empty kernel", flush).await?;
        Ok(())
    }

    async fn load(&self, who: Who, size: Size, start: Instant) -> Result<Option<f64>, Fault> {
        let mut watched: Vec<u32> = (0..WATCHED)
            .map(|i| i * (size.services - 1) / (WATCHED - 1))
            .collect();
        watched.reverse();
        let gate = self.gate(who);
        let mut seconds = 0.0;
        for n in watched {
            match gate.answers(n, start, LOAD).await? {
                Some(took) => seconds = took.as_secs_f64(),
                None => return Ok(None),
            }
        }
        let silent = gate.silent(size.services).await?;
        if silent > 0 {
            return Err(format!("{}: {silent} Services do not answer", who.name()).into());
        }
        Ok(Some(seconds))
    }

    /// Services that come, in two objects. The first of these is made some time before, so that one
    /// change of the rules is all that there is to do.
    async fn changes(&mut self, who: Who, size: Size, last: Last) -> Result<Option<Change>, Fault> {
        let services = format!("/api/v1/namespaces/{NAMESPACE}/services");
        let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices");
        let (mut all, mut api, mut own) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..who.changes(size) {
            let n = self.extra;
            self.extra += 1;
            let service = (&services, service_object(n));
            let slice = (&slices, slice_object(n, size.endpoints));
            let [first, second] = match last {
                Last::Service => [slice, service],
                Last::Slice => [service, slice],
            };
            self.plane.api().create(first.0, &first.1).await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            let (begun_in, begun) = oneshot::channel();
            let collection = second.0.clone();
            let told = self.bare(move |config| bare::told(config, &collection, &name(n), begun_in));
            let change = async {
                // Without a watch there is an error in the other branch.
                let _ = begun.await;
                let since = Instant::now();
                let made = self.plane.api().create(second.0, &second.1);
                let gate = self.gate(who);
                let (made, answered) = tokio::join!(made, gate.answers(n, since, CHANGE));
                made?;
                Ok::<_, Fault>((since, answered?))
            };
            let (told, (since, answered)) = tokio::try_join!(told, change)?;
            let Some(took) = answered else {
                return Ok(None);
            };
            let took = took.as_secs_f64() * 1e3;
            let until_told = told.saturating_duration_since(since).as_secs_f64() * 1e3;
            all.push(took);
            api.push(until_told);
            own.push(took - until_told);
        }
        for times in [&mut all, &mut api, &mut own] {
            times.sort_by(f64::total_cmp);
        }
        Ok(Some(Change {
            median: median(&all),
            longest: all.last().copied().unwrap_or(f64::NAN),
            told: median(&api),
            own: median(&own),
        }))
    }

    /// Seconds in which a bare client has all Services and slices: median.
    pub(crate) async fn list(&self, encoding: Encoding) -> Result<f64, Fault> {
        let mut times = Vec::new();
        for _ in 0..LISTS {
            times.push(
                self.bare(move |config| bare::list(config, encoding))
                    .await?,
            );
        }
        times.sort_by(f64::total_cmp);
        Ok(median(&times))
    }

    /// What a bare client does, on a thread of a host of its own.
    async fn bare<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Path) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (host, config) = (self.maker.clone(), self.plane.kubeconfig(Account::Admin));
        let done = tokio::task::spawn_blocking(move || host.run(move || what(&config)));
        done.await??
    }
}

/// Processor time that a process and its ended children have used, in seconds.
fn cpu(process: &Process) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid()));
    let stat = stat.unwrap_or_default();
    // After the name in brackets, utime, stime, cutime, cstime are fields 12 to 15
    // (proc_pid_stat(5)).
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(4);
    ticks
        .filter_map(|text| text.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// A process' memory in MiB.
fn memory(process: &Process) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()));
    let status = status.unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix("VmRSS:"));
    let kib = found.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}
