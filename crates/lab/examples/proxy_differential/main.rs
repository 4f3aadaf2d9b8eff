//! The same random sequence of Services and EndpointSlices to kube-proxy (nftables) and to `corten
//! agent --forward all`, each on a node of its own with the same name, addresses and surroundings,
//! from one real API server: after every step the first packets of connections have the same fates
//! on both, but for the exceptions that [`Known`] names.
//!
//! `--seed N` says which sequence, `--steps N` how long it is; `cargo xtask soak proxy` runs
//! several. A seed also chooses the proxies' flags. What is compared is what becomes of packets,
//! never rules: the set of endpoints that a client can reach, whether its address is kept, and what
//! is rejected, dropped or let through untouched.

mod ask;
mod packet;
#[path = "../differential/random.rs"]
mod random;
mod side;
mod world;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ask::{Answer, Ask, Client, Question};
use lab::controlplane::{ApiError, ControlPlane, Patch, Write, ensure_built};
use lab::{Lab, Outcome, wait_for};
use packet::Tuple;
use plan::net::Protocol;
use serde_json::{Value, json};
use side::{Fate, NODE, PRIMARY, Settings, Side, Who};
use world::{Step, World};

/// Any error that a story meets.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// No step takes as long.
const SOON: Duration = Duration::from_secs(60);
/// A difference that lasts so long is one.
const LASTS: Duration = Duration::from_secs(6);
/// Steps that fail before the story ends.
const ENOUGH: u64 = 5;
/// The Service by which the story sees that a proxy has applied what was written before.
const MARKER: &str = "marker";
const MARKER_IP: &str = "10.96.0.200";

/// A difference that is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    /// Session affinity and one client: which of the endpoints it is kept at is chance.
    Kept,
    /// UDP connections to an endpoint that is said to be ready and not to serve: kube-proxy leads
    /// them there, and forgets them when any slice of a UDP port changes; Corten when that port does.
    Unserving,
}

#[derive(Clone, Copy)]
struct Options {
    seed: u64,
    steps: u64,
}

impl Options {
    fn read(arguments: &[String]) -> Option<Self> {
        let mut options = Self {
            seed: 1,
            steps: 200,
        };
        let (pairs, rest) = arguments.as_chunks();
        for [flag, value] in pairs {
            let value = value.parse().ok()?;
            match flag.as_str() {
                "--seed" => options.seed = value,
                "--steps" => options.steps = value,
                _ => return None,
            }
        }
        rest.is_empty().then_some(options)
    }

    fn settings(self) -> Settings {
        let usual = Settings {
            cluster_cidr: Some("10.224.0.0/11,fd01::/48"),
            ..Settings::default()
        };
        match self.seed % 6 {
            1 => Settings {
                masquerade_all: true,
                ..usual
            },
            2 => Settings::default(),
            3 => Settings {
                node_port_addresses: &["172.18.0.0/16", "10.243.0.0/16", "fd18::/64"],
                ..usual
            },
            _ => usual,
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(options) = Options::read(&arguments) else {
        eprintln!("usage: proxy_differential [--seed N] [--steps N]");
        return 2.into();
    };
    match ensure_built() {
        Ok(binary) => lab::main(
            &format!("proxy_differential-{}", options.seed),
            async move |lab| {
                let mut story = Story::start(lab, &binary, options).await?;
                let result = story.play(options.steps).await;
                story.lab.say(story.summary());
                result
            },
        ),
        Err(error) => {
            eprintln!("proxy_differential: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The answers of the two sides to one question.
struct Difference {
    question: Question,
    answers: [Answer; 2],
}

/// Connections, and who replies.
type Flows = HashMap<Tuple, SocketAddr>;

struct Story {
    lab: Lab,
    plane: ControlPlane,
    sides: [Side; 2],
    world: World,
    options: Options,
    /// What was written, as a list of the steps.
    written: Vec<String>,
    /// What both sides said last to a question, when all endpoints were met.
    agreed: BTreeMap<Question, Answer>,
    known: BTreeMap<Known, u64>,
    counter: u32,
    marks: u16,
    packets: u64,
    /// UDP connections whose survival was compared.
    flows: u64,
    /// Endpoints that were said to be ready and not to serve.
    unserving: BTreeSet<IpAddr>,
    refused: u64,
    failures: u64,
}

impl Story {
    async fn start(lab: Lab, binary: &Path, options: Options) -> Result<Self, Fault> {
        lab.say(format!("--seed {}: {:?}", options.seed, options.settings()));
        let lan = lab.segment("lan").await?;
        lan.stop_capture();
        let api = lab.host("api").await?;
        lan.attach(&api, &["10.0.0.5/24"]).await?;
        let sides = [
            Side::build(&lab, &lan, Who::Corten).await?,
            Side::build(&lab, &lan, Who::KubeProxy).await?,
        ];
        let plane = ControlPlane::start(binary, &lab, &api, api.address(false)?).await?;
        let addresses: Vec<IpAddr> = PRIMARY
            .iter()
            .map(|address| address.parse())
            .collect::<Result<_, _>>()?;
        plane.api().create_node(NODE, &addresses, &[]).await?;
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        let (crds, rbac) = (manifests.join("crds"), manifests.join("rbac.yaml"));
        let (crds, rbac) = (crds.to_string_lossy(), rbac.to_string_lossy());
        for arguments in [
            &["apply", "-f", &*crds, "-f", &*rbac][..],
            &["wait", "--for=condition=Established", "-f", &*crds],
            // What the chart gives with `forward=all`.
            &[
                "create",
                "clusterrole",
                "ranges",
                "--verb=list,watch",
                "--resource=servicecidrs.networking.k8s.io",
            ],
            &[
                "create",
                "clusterrolebinding",
                "ranges",
                "--clusterrole=ranges",
                "--serviceaccount=metallb-system:corten-agent",
            ],
        ] {
            plane.kubectl_ok(&api, arguments, "").await?;
        }
        let mut story = Self {
            lab,
            plane,
            sides,
            world: World::new(options.seed),
            options,
            written: Vec::new(),
            agreed: BTreeMap::new(),
            known: BTreeMap::new(),
            counter: (options.seed as u32) << 8,
            marks: 0,
            packets: 0,
            flows: 0,
            unserving: BTreeSet::new(),
            refused: 0,
            failures: 0,
        };
        let service = json!({
            "metadata": {"name": MARKER},
            "spec": {"clusterIP": MARKER_IP, "ports": [{"port": 1}]},
        });
        let slice = json!({
            "metadata": {"name": MARKER, "labels": {"kubernetes.io/service-name": MARKER}},
            "addressType": "IPv4", "ports": [{"name": "", "port": 80}],
            "endpoints": [{"addresses": ["10.244.9.1"]}],
        });
        let api = story.plane.api();
        api.create(&world::services(), &service).await?;
        api.create(&world::slices(), &slice).await?;
        for side in &mut story.sides {
            side.start(&story.plane, &options.settings())?;
        }
        story.mark().await?;
        story.lab.say("both proxies run");
        Ok(story)
    }

    async fn play(&mut self, steps: u64) -> Outcome {
        let start = Instant::now();
        for n in 1..=steps {
            // Every so often several changes at once, or while nobody looks.
            let absent = n % 25 == 0;
            let count = match n {
                _ if absent => 6,
                _ if n % 7 == 0 => 4,
                _ => 1,
            };
            if absent {
                self.sides.iter_mut().for_each(Side::kill);
                self.written.push(format!("{n}: both proxies are killed"));
            }
            let flows = match n % 5 {
                3 => Some(self.flows()?),
                _ => None,
            };
            let mut services = Vec::new();
            for _ in 0..count {
                let step = self.world.next();
                services.extend(&step.services);
                self.write(n, step).await?;
            }
            if absent {
                for side in &mut self.sides {
                    side.start(&self.plane, &self.options.settings())?;
                }
            }
            self.mark().await?;
            if let Some(flows) = flows {
                self.survivors(&flows)?;
            }
            services.sort_unstable();
            services.dedup();
            if absent || n % 10 == 0 {
                services = ask::all().collect();
            }
            self.agree(&services)?;
            if n % 50 == 0 {
                let took = start.elapsed().as_secs_f64();
                self.lab.say(format!("{n} steps in {took:.0} s"));
            }
        }
        if self.failures > 0 {
            return Err(format!("{} steps failed", self.failures).into());
        }
        Ok(())
    }

    fn summary(&self) -> String {
        format!(
            "seed {}: {} writes ({} refused), {} packets to each, {} kinds of UDP connections \
             judged, exceptions {:?}",
            self.options.seed,
            self.written.len(),
            self.refused,
            self.packets,
            self.flows,
            self.known
        )
    }

    async fn write(&mut self, n: u64, step: Step) -> Outcome {
        for write in step.writes {
            self.unserving.extend(unserving(&write.body));
            let done = self.plane.api().write(&write).await;
            let Write { verb, path, body } = &write;
            let answer = match done {
                Ok(()) => String::new(),
                Err(ApiError::Refused {
                    status, message, ..
                }) => {
                    self.refused += 1;
                    self.world.refused(&write);
                    format!(" -> {status} {message}")
                }
                Err(error) => return Err(error.into()),
            };
            self.written
                .push(format!("{n}: {verb:?} {path} {body}{answer}"));
        }
        Ok(())
    }

    /// Both proxies have applied what was written before, of either kind: they lead the marker's
    /// newest port to its newest endpoint.
    async fn mark(&mut self) -> Outcome {
        self.marks += 1;
        let port = 1 + self.marks;
        let endpoint = format!("10.244.9.{}", 1 + self.marks % 250);
        let api = self.plane.api();
        let path = format!("{}/{MARKER}", world::services());
        let patch = json!({"spec": {"ports": [{"port": port, "protocol": "TCP"}]}});
        api.patch(&path, Patch::Merge, &patch).await?;
        let path = format!("{}/{MARKER}", world::slices());
        let patch = json!({"endpoints": [{"addresses": [&endpoint]}]});
        api.patch(&path, Patch::Merge, &patch).await?;
        let ask = Ask {
            question: Question {
                service: u8::MAX,
                protocol: Protocol::Tcp,
                to: SocketAddr::new(MARKER_IP.parse()?, port),
                client: Client::RemotePod,
            },
            times: 1,
            whole: true,
        };
        let there = Fate::To(SocketAddr::new(endpoint.parse()?, 80), None);
        let counter = &mut self.counter;
        for side in &mut self.sides {
            let what = format!("{}'s marker at {endpoint}", side.who.name());
            let found = wait_for(SOON, &what, async || {
                if let Some(ended) = side.ended() {
                    return Ok(Err(ended));
                }
                let packets = ask::packets(&[ask], counter).map_err(|e| e.to_string())?;
                let fates = side.fates(&packets).map_err(|e| e.to_string())?;
                match fates[..] {
                    [Fate::To(to, _)] if Fate::To(to, None) == there => Ok(Ok(())),
                    _ => Err(format!("{fates:?}")),
                }
            });
            found.await??;
        }
        Ok(())
    }

    /// The sides come to agree about these Services, and still do about the others.
    fn agree(&mut self, changed: &[u8]) -> Outcome {
        let start = Instant::now();
        let mut asks = Vec::new();
        for service in ask::all() {
            asks.extend(ask::about(
                &self.world,
                service,
                changed.contains(&service),
            )?);
        }
        loop {
            let (again, found) = self.compare(&asks)?;
            if found.is_empty() {
                return Ok(());
            }
            if start.elapsed() > LASTS {
                let failure = self.failure(&found);
                self.failures += 1;
                if self.failures == ENOUGH {
                    return Err(failure);
                }
                // What else is there? These Services are as they are from here on.
                self.lab.say(failure);
                for found in found {
                    let both = found.answers.iter().flatten().copied().collect();
                    self.agreed.insert(found.question, both);
                }
                return Ok(());
            }
            // Some are only asked in full now.
            asks = again
                .into_iter()
                .map(|ask| Ask {
                    times: ask.times.max(40),
                    whole: true,
                    ..ask
                })
                .collect();
        }
    }

    /// UDP connections to all ports there are, and what answers each: on each side its own.
    fn flows(&mut self) -> Result<[Flows; 2], Fault> {
        let mut asks = Vec::new();
        for service in ask::all() {
            let of_it = ask::about(&self.world, service, false)?;
            asks.extend(of_it.into_iter().filter(|ask| {
                let Question {
                    protocol, client, ..
                } = ask.question;
                protocol == Protocol::Udp && matches!(client, Client::Near | Client::Host)
            }));
        }
        asks.iter_mut().for_each(|ask| ask.times = 12);
        let packets = ask::packets(&asks, &mut self.counter)?;
        let mut flows = [Flows::new(), Flows::new()];
        for (side, flows) in self.sides.iter().zip(&mut flows) {
            side.forget()?;
            let fates = side.fates(&packets)?;
            let led = packets
                .iter()
                .zip(fates)
                .filter_map(|((_, tuple), fate)| match fate {
                    Fate::To(to, _) => Some((*tuple, to)),
                    _ => None,
                });
            flows.extend(led);
        }
        Ok(flows)
    }

    /// Both sides forgot the same of these connections: by where they were to and who answers.
    fn survivors(&mut self, flows: &[Flows; 2]) -> Outcome {
        let start = Instant::now();
        loop {
            let mut ends: [BTreeMap<(SocketAddr, SocketAddr), (usize, usize)>; 2] =
                Default::default();
            for ((side, flows), ends) in self.sides.iter().zip(flows).zip(&mut ends) {
                let known = side.known()?;
                for (tuple, to) in flows {
                    let end = ends.entry((tuple.destination, *to)).or_default();
                    match known.contains(tuple) {
                        true => end.0 += 1,
                        false => end.1 += 1,
                    }
                }
            }
            let [ours, theirs] = &ends;
            let found = ours
                .iter()
                .filter_map(|(flow, ours)| Some((flow, ours, theirs.get(flow)?)))
                .filter(|(_, ours, theirs)| {
                    let kept = |(kept, gone): &(usize, usize)| (*kept > 0, *gone > 0);
                    kept(ours) != kept(theirs)
                });
            let (known, found): (Vec<_>, Vec<_>) =
                found.partition(|((_, to), ..)| self.unserving.contains(&to.ip()));
            if found.is_empty() {
                self.flows += ours.len() as u64;
                if !known.is_empty() {
                    *self.known.entry(Known::Unserving).or_default() += known.len() as u64;
                }
                return Ok(());
            }
            if start.elapsed() > LASTS {
                let last: Vec<&String> = self.written.iter().rev().take(30).collect();
                return Err(format!(
                    "--seed {}: UDP connections (destination, replier), kept and forgotten by \
                     corten, by kube-proxy: {found:#?}; last written first: {last:#?}",
                    self.options.seed
                )
                .into());
            }
        }
    }

    fn compare(&mut self, asks: &[Ask]) -> Result<(Vec<Ask>, Vec<Difference>), Fault> {
        let packets = ask::packets(asks, &mut self.counter)?;
        self.packets += packets.len() as u64;
        let [ours, theirs] = std::thread::scope(|scope| {
            let packets = &packets;
            self.sides
                .each_ref()
                .map(|side| {
                    scope.spawn(move || {
                        side.forget()?;
                        side.fates(packets)
                    })
                })
                .map(|thread| {
                    thread
                        .join()
                        .map_err(|_| Fault::from("a thread panicked"))?
                })
        });
        let [ours, theirs] = [ask::answers(asks, &ours?), ask::answers(asks, &theirs?)];
        let (mut again, mut found) = (Vec::new(), Vec::new());
        for ((ask, ours), theirs) in asks.iter().zip(ours).zip(theirs) {
            let question = ask.question;
            let same = match (ask.whole, self.agreed.get(&question)) {
                (false, Some(agreed)) => ours.is_subset(agreed) && theirs.is_subset(agreed),
                _ => ours == theirs,
            };
            if same || self.is_known(ask, &ours, &theirs) {
                if ask.whole {
                    let both = ours.union(&theirs).copied().collect();
                    self.agreed.insert(question, both);
                }
                continue;
            }
            again.push(*ask);
            let answers = [ours, theirs];
            found.push(Difference { question, answers });
        }
        Ok((again, found))
    }

    fn is_known(&mut self, ask: &Ask, ours: &Answer, theirs: &Answer) -> bool {
        let Question {
            service, client, ..
        } = ask.question;
        let keeps = self.world.service(service);
        let keeps = keeps.is_some_and(world::Service::has_affinity);
        // One client, at one endpoint each. One that is the node itself resets the connection, which
        // the kernel then knows no more.
        let led = |answer: &Answer| {
            let mut fates = answer.iter();
            answer.len() == 1 && fates.all(|fate| matches!(fate, Fate::To(..) | Fate::Dropped))
        };
        if keeps && !client.is_many() && led(ours) && led(theirs) {
            *self.known.entry(Known::Kept).or_default() += 1;
            return true;
        }
        false
    }

    fn failure(&self, found: &[Difference]) -> Fault {
        let mut text = format!("they differ; --seed {}\n", self.options.seed);
        for Difference {
            question,
            answers: [ours, theirs],
        } in found.iter().take(12)
        {
            let Question {
                service,
                protocol,
                to,
                client,
            } = question;
            let _ = writeln!(
                text,
                "s{service}: {client:?} to {to}/{protocol}\n  corten:     {ours:?}\n  kube-proxy: {theirs:?}"
            );
        }
        let _ = writeln!(
            text,
            "{} questions; written to those Services:",
            found.len()
        );
        for (n, written) in self.written.iter().enumerate() {
            let about =
                |found: &Difference| written.contains(&format!("s{}", found.question.service));
            if n + 6 > self.written.len() || found.iter().any(about) || written.contains("/nodes/")
            {
                let _ = writeln!(text, "  {written}");
            }
        }
        text.into()
    }
}

/// The endpoints of a slice that are ready and do not serve.
fn unserving(slice: &Value) -> Vec<IpAddr> {
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let unserving = endpoints.filter(|endpoint| {
        let conditions = &endpoint["conditions"];
        conditions["ready"] != false && conditions["serving"] == false
    });
    let addresses = unserving.filter_map(|endpoint| endpoint["addresses"][0].as_str());
    addresses.filter_map(|text| text.parse().ok()).collect()
}
