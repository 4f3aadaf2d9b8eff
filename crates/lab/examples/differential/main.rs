//! The same random sequence of objects to MetalLB's controller and to Corten's, each on a control
//! plane of its own: after every step their Services, the events' reasons and the pools' counters
//! are the same, but for the exceptions that `compare` names.
//!
//! `--seed N` says which sequence, `--steps N` how long it is; `--record FILE` keeps MetalLB's
//! answers for the tests of `plan` (`ipam/tests/metallb`). `cargo xtask soak differential` runs
//! several. It is no test of every run: MetalLB's own choices are chance now and then, and its
//! build from an empty cache takes minutes. What it decided is replayed there instead.

mod compare;
mod random;
mod record;
mod side;
mod step;
mod view;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lab::controlplane::{Write, ensure_built, ensure_metallb_built};
use lab::{Lab, Outcome, wait_for};
use serde_json::json;

use compare::{Difference, Kind, Known, Passed, Step};
use record::Record;
use side::{Controller, NAMESPACES, POOLS, Side};
use step::World;
use view::{Key, View};

/// Any error that a story meets.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Name of the namespace, the Service and the pool by which the story sees that a controller has
/// seen what was written before.
const MARKER: &str = "marker";
/// No step takes as long.
const SOON: Duration = Duration::from_secs(30);
/// Both sides rest when nothing has changed for so long.
const REST: Duration = Duration::from_millis(150);
/// A difference that lasts so long is one.
const LASTS: Duration = Duration::from_secs(3);

struct Options {
    seed: u64,
    steps: u64,
    record: Option<PathBuf>,
}

impl Options {
    fn read(arguments: &[String]) -> Option<Self> {
        let mut options = Self {
            seed: 1,
            steps: 100,
            record: None,
        };
        let (pairs, rest) = arguments.as_chunks();
        for [flag, value] in pairs {
            match flag.as_str() {
                "--seed" => options.seed = value.parse().ok()?,
                "--steps" => options.steps = value.parse().ok()?,
                "--record" => options.record = Some(value.into()),
                _ => return None,
            }
        }
        rest.is_empty().then_some(options)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(options) = Options::read(&arguments) else {
        eprintln!("usage: differential [--seed N] [--steps N] [--record FILE]");
        return 2.into();
    };
    let built = ensure_built().and_then(|plane| Ok((plane, ensure_metallb_built()?)));
    let (control_plane, metallb) = match built {
        Ok(binaries) => binaries,
        Err(error) => {
            eprintln!("differential: {error}");
            return ExitCode::FAILURE;
        }
    };
    lab::main("differential", async move |lab| {
        let mut story = Story::start(lab, &control_plane, &metallb, &options).await?;
        let result = story.play(options.steps).await;
        story.lab.say(story.summary());
        result
    })
}

struct Story {
    lab: Lab,
    sides: [Side; 2],
    world: World,
    seed: u64,
    /// What was written, as a list of the steps.
    written: Vec<String>,
    before: [View; 2],
    passed: Passed,
    marks: u64,
    record: Option<Record>,
}

impl Story {
    async fn start(
        lab: Lab,
        control_plane: &Path,
        metallb: &Path,
        options: &Options,
    ) -> Result<Self, Fault> {
        let seed = options.seed;
        lab.say(format!("--seed {seed}"));
        let lan = lab.segment("lan").await?;
        let corten = Side::start(&lab, &lan, 5, control_plane, Controller::Corten).await?;
        let metallb = Controller::MetalLb(metallb.to_owned());
        let metallb = Side::start(&lab, &lan, 6, control_plane, metallb).await?;
        lab.say("both control planes and controllers run");
        Ok(Self {
            lab,
            sides: [corten, metallb],
            world: World::new(seed),
            seed,
            written: Vec::new(),
            before: Default::default(),
            passed: Passed::new(),
            marks: 0,
            record: options.record.as_deref().map(Record::create).transpose()?,
        })
    }

    async fn play(&mut self, steps: u64) -> Outcome {
        let start = Instant::now();
        self.markers().await?;
        for write in self.world.first() {
            self.write(&write, "first").await?;
        }
        self.agree(Kind::Change, true).await?;
        for n in 1..=steps {
            let counters = n % 10 == 0;
            if n % 30 == 0 {
                for side in &mut self.sides {
                    side.restart().await?;
                }
                self.written.push(format!("{n}: restart"));
                self.agree(Kind::Restart, counters).await?;
            } else if n % 5 == 0 {
                let kind = self.burst(n).await?;
                self.agree(kind, counters).await?;
            } else {
                let write = self.world.next();
                self.write(&write, &n.to_string()).await?;
                self.agree(Kind::Change, counters).await?;
            }
        }
        for write in self.world.last() {
            self.write(&write, "last").await?;
        }
        self.agree(Kind::NoPool, false).await?;
        let took = start.elapsed().as_secs_f64();
        self.lab.say(format!("{steps} steps in {took:.1} s"));
        Ok(())
    }

    /// Several Services are created while the controllers do not look. Those that wait already
    /// are taken out before, so that nobody else can be served.
    async fn burst(&mut self, n: u64) -> Result<Kind, Fault> {
        let services = self.before[0].services.iter();
        let waiting: BTreeSet<Key> = services
            .filter(|(_, shown)| shown.addresses().is_empty())
            .map(|(key, _)| key.clone())
            .collect();
        for write in self.world.take_out(&waiting) {
            self.write(&write, &format!("{n}, before")).await?;
        }
        self.agree(Kind::Change, false).await?;
        let start = Instant::now();
        self.sides.iter().for_each(Side::freeze);
        for write in self.world.burst() {
            self.write(&write, &format!("{n}, at once")).await?;
        }
        self.sides.iter().for_each(Side::thaw);
        // Corten's controller gives its lease up when it could not renew it, and begins anew: then
        // nobody comes first.
        let quick = start.elapsed() < Duration::from_secs(1);
        Ok(if quick { Kind::Burst } else { Kind::Change })
    }

    fn summary(&self) -> String {
        format!(
            "seed {}: {} writes, exceptions {:?}",
            self.seed,
            self.written.len(),
            self.passed
        )
    }

    /// Writes to both sides, which must answer the same.
    async fn write(&mut self, write: &Write, step: &str) -> Outcome {
        let mut answers = Vec::new();
        for side in &self.sides {
            answers.push(side.write(write).await?);
        }
        let answer = answers[0].map_or_else(String::new, |status| format!(" -> {status}"));
        let Write { verb, path, body } = write;
        self.written
            .push(format!("{step}: {verb:?} {path} {body}{answer}"));
        if answers[0] != answers[1] {
            return Err(self.failure(&[], &format!("the API servers say {answers:?}")));
        }
        Ok(())
    }

    async fn markers(&mut self) -> Outcome {
        let pool = json!({
            "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": MARKER},
            "spec": {"addresses": [marked(0)], "autoAssign": false},
        });
        let service = json!({
            "metadata": {"name": MARKER},
            "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
                     "ports": [{"port": 80}]},
        });
        let services = format!("{NAMESPACES}/{MARKER}/services");
        for write in [
            Write::create(NAMESPACES, json!({"metadata": {"name": MARKER}})),
            Write::create(POOLS, pool),
            Write::create(&services, service),
        ] {
            self.write(&write, "marker").await?;
        }
        self.written.clear();
        Ok(())
    }

    /// Both controllers have seen, on both watches, what was written before: they give the
    /// marker an address that it asks for and that its pool has just come to hold. MetalLB's goes
    /// through all Services for that, so that nobody waits for an address that is free (it does
    /// not look at those who wait when a Service moves to another address).
    async fn mark(&mut self) -> Outcome {
        self.marks += 1;
        let block = marked(self.marks);
        let ip = block.trim_end_matches("/32");
        let service = format!("{NAMESPACES}/{MARKER}/services/{MARKER}");
        let wish = json!({"metadata": {"annotations": {"metallb.io/loadBalancerIPs": ip}}});
        let pool = json!({"spec": {"addresses": [block]}});
        for side in &self.sides {
            side.write(&Write::patch(service.clone(), wish.clone()))
                .await?;
            side.write(&Write::patch(format!("{POOLS}/{MARKER}"), pool.clone()))
                .await?;
        }
        for side in &mut self.sides {
            let what = format!("{}'s marker to have {ip}", side.name());
            let found = wait_for(SOON, &what, async || {
                let service = side.api().get(&service).await.map_err(|e| e.to_string())?;
                let found = &service["status"]["loadBalancer"]["ingress"][0]["ip"];
                if *found == ip {
                    Ok(())
                } else {
                    Err(found.to_string())
                }
            });
            if let Err(error) = found.await {
                let ended = side.ended().unwrap_or_default();
                return Err(format!("{error}; {ended}").into());
            }
        }
        Ok(())
    }

    /// The sides come to rest and agree; where MetalLB's answer was chance, its Services are taken
    /// out of both.
    async fn agree(&mut self, kind: Kind, counters: bool) -> Outcome {
        for round in 0..3 {
            if kind != Kind::NoPool {
                self.mark().await?;
            }
            let (after, found) = self.rest(kind, counters).await?;
            let step = Step {
                before: [&self.before[0], &self.before[1]],
                after: [&after[0], &after[1]],
                counters,
                kind,
            };
            let taken = step.taken();
            if !taken.is_empty() {
                let what = format!("a start took addresses from {taken:?}");
                return Err(self.failure(&found, &what));
            }
            if found.is_empty() {
                let mut passed = Passed::new();
                step.differences(&mut passed);
                for (known, count) in passed {
                    *self.passed.entry(known).or_default() += count;
                }
                if let Some(record) = &mut self.record {
                    let api = self.sides[1].api();
                    record.step(api, kind, &after[1], &BTreeSet::new()).await?;
                }
                self.before = after;
                return Ok(());
            }
            let contenders = step.contenders();
            // Events alone differ only where the statuses did at first.
            let by_chance = |found: &Difference| {
                let key = found.service.clone().filter(|key| contenders.contains(key));
                key.filter(|_| !found.events || round > 0)
            };
            let chance: Option<BTreeSet<Key>> = found.iter().map(by_chance).collect();
            let Some(chance) = chance else {
                return Err(self.failure(&found, "they differ"));
            };
            let known = match kind {
                Kind::Restart => Known::Stolen,
                _ => Known::Contended,
            };
            *self.passed.entry(known).or_default() += 1;
            let step = self.written.last().cloned().unwrap_or_default();
            if let Some(record) = &mut self.record {
                let api = self.sides[1].api();
                record.step(api, kind, &after[1], &chance).await?;
            }
            self.lab.say(format!("chance: {chance:?} after {step}"));
            for write in self.world.take_out(&chance) {
                self.write(&write, "taken out").await?;
            }
        }
        Err(self.failure(&[], "they differ, whoever is taken out"))
    }

    /// What both show once nothing changes any more, and where they differ then.
    async fn rest(
        &self,
        kind: Kind,
        counters: bool,
    ) -> Result<([View; 2], Vec<Difference>), Fault> {
        let mut last: Option<[View; 2]> = None;
        let mut since = Instant::now();
        let rest = wait_for(SOON, "both sides to rest", async || {
            let [one, two] = &self.sides;
            let now = [
                View::of(one.api()).await.map_err(|e| e.to_string())?,
                View::of(two.api()).await.map_err(|e| e.to_string())?,
            ];
            if last.as_ref() != Some(&now) {
                since = Instant::now();
                last = Some(now);
                return Err("still at it".to_owned());
            }
            let step = Step {
                before: [&self.before[0], &self.before[1]],
                after: [&now[0], &now[1]],
                counters,
                kind,
            };
            if kind == Kind::NoPool && now.iter().any(View::has_addresses) {
                return Err("addresses are left".to_owned());
            }
            let found = step.differences(&mut Passed::new());
            let wait = if found.is_empty() { REST } else { LASTS };
            if since.elapsed() < wait {
                return Err(format!("{found:?}"));
            }
            Ok((now, found))
        });
        Ok(rest.await?)
    }

    fn failure(&self, found: &[Difference], what: &str) -> Fault {
        let mut text = format!("{what}; --seed {}\n", self.seed);
        for Difference {
            service, text: how, ..
        } in found
        {
            let _ = match service {
                Some((namespace, name)) => writeln!(text, "{namespace}/{name}\n{how}"),
                None => writeln!(text, "pools\n{how}"),
            };
        }
        let names: Vec<&str> = found
            .iter()
            .filter_map(|found| Some(found.service.as_ref()?.1.as_str()))
            .collect();
        let _ = writeln!(text, "written to pools, namespaces and those Services:");
        for (n, written) in self.written.iter().enumerate() {
            let about = |name: &&str| {
                written.contains(&format!("/{name} ")) || written.contains(&format!("{name:?}"))
            };
            let general = !written.contains("/services");
            if general || n + 4 > self.written.len() || names.iter().any(about) {
                let _ = writeln!(text, "  {written}");
            }
        }
        text.into()
    }
}

/// The marker pool's block: another one each time.
fn marked(n: u64) -> String {
    format!("192.0.2.{}/32", n % 250 + 1)
}
