//! The service proxy beside kube-proxy: `cargo xtask bench proxy`.
//!
//! - `rivals`: kube-proxy (nftables) and `corten agent --forward all` on the same Services of a real
//!   API server ([`rivals`]): full load, one Service more, memory, CPU, first packets, connections.
//! - `own`: larger tables from a generator, without an API server ([`own`]).
//! - `first`: the first packet's time at 1, 10,000 and 30,000 Services.
//! - `rates`: connections a second and throughput through the rules and by plain routing, IPv4 and
//!   IPv6.
//!
//! `--only PART` runs one of them, `--quick` a small form of all, to see that it works; `--size
//! 1000x50` (as often as wanted) plays the rivals at that size, in the place of the usual ones, and
//! `--ours` leaves kube-proxy out. Prints its
//! progress, a table, and as its last line one JSON object with the same numbers. Needs the control
//! plane (Go), Debian's nftables, and the right to make namespaces.

mod bare;
mod figures;
mod gate;
mod maker;
mod objects;
mod own;
mod probe;
mod rivals;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use bare::Encoding;
use figures::{Figures, median, short};
use gate::{Gate, Way};
use lab::controlplane::ensure_built;
use lab::{Lab, Outcome, Segment};
use maker::Work;
use own::Own;
use plan::net::Family;
use rivals::{Change, Score, Size, Theatre, Who};

type Fault = Box<dyn Error + Send + Sync>;

const USAGE: &str = "usage: bench_proxy [--quick] [--only rivals|own|first|rates] [--ours] [--size SERVICESxENDPOINTS]...";
const BOTH: [Family; 2] = [Family::V4, Family::V6];
const PARTS: [&str; 4] = ["rivals", "own", "first", "rates"];

/// What is run.
#[derive(Clone, Debug, Default)]
struct Asked {
    quick: bool,
    only: Option<&'static str>,
    /// Without kube-proxy.
    ours: bool,
    /// Services and endpoints; none: the usual ones.
    sizes: Vec<(u32, u32)>,
}

impl Asked {
    fn read(arguments: &[&str]) -> Option<Self> {
        let mut asked = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match *argument {
                "--quick" => asked.quick = true,
                "--ours" => asked.ours = true,
                "--size" => {
                    let (services, endpoints) = rest.next()?.split_once('x')?;
                    asked
                        .sizes
                        .push((services.parse().ok()?, endpoints.parse().ok()?));
                }
                "--only" => {
                    let part = rest.next()?;
                    asked.only = Some(PARTS.into_iter().find(|known| known == part)?);
                }
                _ => return None,
            }
        }
        Some(asked)
    }

    fn wants(&self, part: &str) -> bool {
        self.only.is_none_or(|only| only == part)
    }

    /// A tenth where it is quick.
    const fn of(&self, services: u32) -> u32 {
        match self.quick {
            true => services.div_ceil(10),
            false => services,
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let [work, kubeconfig, numbers @ ..] = arguments.as_slice()
        && let Some(work) = Work::of(work)
    {
        return part(work, kubeconfig, numbers);
    }
    let Some(asked) = Asked::read(&arguments) else {
        eprintln!("{USAGE}");
        return 2.into();
    };
    match ensure_built() {
        Ok(binary) => lab::main("bench_proxy", async move |lab| {
            bench(lab, &binary, asked).await
        }),
        Err(error) => {
            eprintln!("bench proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One of the bench's own processes on a host of the lab.
fn part(work: Work, kubeconfig: &str, numbers: &[&str]) -> ExitCode {
    let numbers: Vec<u32> = numbers.iter().flat_map(|number| number.parse()).collect();
    let [from, to, endpoints] = *numbers else {
        eprintln!("{USAGE}");
        return 2.into();
    };
    match maker::run(work, Path::new(kubeconfig), (from, to), endpoints) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", work.name());
            ExitCode::FAILURE
        }
    }
}

async fn bench(lab: Lab, binary: &Path, asked: Asked) -> Outcome {
    let begin = Instant::now();
    let mut figures = Figures::default();
    let lan = lab.segment("lan").await?;
    if asked.wants("rivals") {
        rivals(&lab, &lan, binary, &asked, &mut figures).await?;
    }
    if asked.wants("own") {
        own(&lab, &lan, &asked, &mut figures).await?;
    }
    if asked.wants("first") {
        first(&lab, &lan, &asked, &mut figures).await?;
    }
    if asked.wants("rates") {
        rates(&lab, &lan, &asked, &mut figures).await?;
    }
    let took = begin.elapsed().as_secs_f64();
    figures.set("bench_s", Some(took), "the whole bench, seconds");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores, load average {}", load.trim_end());
    figures.print();
    Ok(())
}

async fn rivals(
    lab: &Lab,
    lan: &Segment,
    binary: &Path,
    asked: &Asked,
    figures: &mut Figures,
) -> Outcome {
    let usual = [
        (1_000, 50),
        (1_000, 2),
        (5_000, 2),
        (10_000, 2),
        (15_000, 2),
    ];
    let sizes = match asked.sizes.as_slice() {
        [] => usual
            .map(|(services, endpoints)| (asked.of(services), endpoints))
            .to_vec(),
        sizes => sizes.to_vec(),
    };
    let last = sizes.len() - 1;
    let mut theatre = Theatre::build(lab, lan, binary).await?;
    for (i, (services, endpoints)) in sizes.into_iter().enumerate() {
        let size = Size {
            services,
            endpoints,
            wire: i == last,
        };
        theatre.set(size).await?;
        if i == 0 {
            let seconds = theatre.cold(size).await?;
            lab.say(format!("  corten: the first load ever {seconds:.2?} s"));
            figures.set(
                format!("load_cold_{}_s", size.name()),
                seconds,
                "Corten's first load from this API server, which sets up the watches of its kinds then",
            );
        }
        let players = [Who::Corten, Who::KubeProxy];
        for who in players
            .into_iter()
            .filter(|who| !asked.ours || *who == Who::Corten)
        {
            let score = theatre.play(who, size).await?;
            tell(who, size, &score, figures);
        }
        for encoding in Encoding::ALL {
            let seconds = theatre.list(encoding).await?;
            lab.say(format!(
                "  a bare client lists all in {seconds:.2} s ({})",
                encoding.name()
            ));
            figures.set(
                format!("api_list_{}_{}_s", encoding.name(), size.name()),
                Some(seconds),
                "a bare client has all Services and slices, seconds, median of 3",
            );
        }
    }
    Ok(())
}

/// One of the times of a change.
type Part = fn(Change) -> f64;

/// The figures of one of them at one size.
fn tell(who: Who, size: Size, score: &Score, figures: &mut Figures) {
    let (prefix, name) = match who {
        Who::Corten => ("", "Corten"),
        Who::KubeProxy => ("kube_proxy_", "kube-proxy"),
    };
    let at = size.name();
    let what = format!("{name}, {} Services x {}", size.services, size.endpoints);
    let mut set = |figure: String, value: Option<f64>, unit: &str| {
        figures.set(
            format!("{prefix}{figure}"),
            value,
            &format!("{what}: {unit}"),
        );
    };
    set(
        format!("load_{at}_s"),
        score.load,
        "from its start until all answer, seconds",
    );
    if score.load.is_none() {
        return;
    }
    set(
        format!("load_cpu_{at}_s"),
        Some(score.cpu),
        "CPU time of that",
    );
    for (figure, what, change) in [
        ("one", "one Service more", score.one),
        ("slice", "the endpoints of one Service more", score.slice),
    ] {
        if figure != "one" && change.is_none() {
            continue;
        }
        let parts: [(&str, &str, Part); 4] = [
            ("", "from the request until it answers, median", |it| {
                it.median
            }),
            ("_longest", "the longest of these", |it| it.longest),
            (
                "_told",
                "of that, until a bare client of the API server was told of it, median",
                |it| it.told,
            ),
            ("_own", "the rest, which is the proxy's, median", |it| {
                it.own
            }),
        ];
        for (part, unit, value) in parts {
            set(
                format!("{figure}{part}_{at}_ms"),
                change.map(value),
                &format!("{what}, milliseconds, {unit}"),
            );
        }
    }
    set(format!("rss_mib_{at}"), Some(score.rss), "memory, MiB");
    if let (Some(first), Some(rates)) = (score.first, score.rates) {
        set(
            format!("api_first_packet_p50_us_{at}"),
            Some(first.p50),
            "first packet, microseconds, median",
        );
        set(
            format!("api_first_packet_p99_us_{at}"),
            Some(first.p99),
            "99th percentile",
        );
        set(
            format!("api_conn_per_s_{at}"),
            Some(rates.connections),
            "connections a second, IPv4",
        );
        set(
            format!("api_gbit_per_s_{at}"),
            Some(rates.gbits),
            "one connection, Gbit/s",
        );
        set(
            format!("idle_cpu_pct_{at}"),
            Some(score.idle),
            "CPU with nothing to do, percent of a core",
        );
    }
}

async fn own(lab: &Lab, lan: &Segment, asked: &Asked, figures: &mut Figures) -> Outcome {
    let gate = Gate::build(lab, lan, "own", 3).await?;
    for (services, endpoints) in [(20_000, 2), (45_000, 2), (5_000, 50)] {
        let services = asked.of(services);
        let (mut own, seconds) = Own::load(&gate, services, endpoints, &[Family::V4])?;
        let times: Result<Vec<f64>, Fault> =
            (0..200).map(|i| own.one(services + i, endpoints)).collect();
        let mut times = times?;
        times.sort_by(f64::total_cmp);
        own.remove()?;
        let at = match endpoints {
            2 => short(services),
            endpoints => format!("{}x{endpoints}", short(services)),
        };
        let last = times.get(times.len() * 99 / 100).copied();
        lab.say(format!(
            "{at}: {seconds:.2} s, one {:.3} ms",
            median(&times)
        ));
        let what = format!("{services} Services x {endpoints}, generator to kernel");
        for (name, value, unit) in [
            (format!("load_{at}_s"), Some(seconds), "seconds"),
            (
                format!("one_at_{at}_ms"),
                Some(median(&times)),
                "one Service more, median of 200, milliseconds",
            ),
            (format!("one_at_{at}_p99_ms"), last, "99th percentile"),
        ] {
            figures.set(name, value, &format!("{what}: {unit}"));
        }
    }
    Ok(())
}

async fn first(lab: &Lab, lan: &Segment, asked: &Asked, figures: &mut Figures) -> Outcome {
    let gate = Gate::build(lab, lan, "first", 4).await?;
    let mut tell = |at: String, found: gate::First| {
        lab.say(format!(
            "first packet, {at}: {:.1} µs, {:.1}",
            found.p50, found.p99
        ));
        for (name, value) in [("p50", found.p50), ("p99", found.p99)] {
            let what = format!("{name} of a connection's first packet and its answer, {at}");
            figures.set(format!("first_packet_{name}_us_{at}"), Some(value), &what);
        }
    };
    tell("plain".to_owned(), gate.first(Way::Plain, 1000).await?);
    for services in [1, 10_000, 30_000] {
        let services = asked.of(services);
        let (own, _) = Own::load(&gate, services, 2, &[Family::V4])?;
        tell(short(services), gate.first(Way::Service, services).await?);
        own.remove()?;
    }
    Ok(())
}

async fn rates(lab: &Lab, lan: &Segment, asked: &Asked, figures: &mut Figures) -> Outcome {
    let gate = Gate::build(lab, lan, "rates", 5).await?;
    let services = asked.of(10_000);
    let mut own = None;
    for (way, prefix) in [(Way::Plain, "plain_"), (Way::Service, "")] {
        if way == Way::Service {
            own = Some(Own::load(&gate, services, 2, &BOTH)?.0);
        }
        for (family, v) in BOTH.into_iter().zip(["v4", "v6"]) {
            let found = gate.rates(way, services, family).await?;
            lab.say(format!(
                "{way:?}, {family}: {:.0} connections/s, {:.2} Gbit/s",
                found.connections, found.gbits
            ));
            let what = match way {
                Way::Plain => format!("{family} by plain routing"),
                Way::Service => format!("{family} through the rules of {services} Services"),
            };
            figures.set(
                format!("{prefix}conn_per_s_{v}"),
                Some(found.connections),
                &format!("{what}: connections made and cut in a second"),
            );
            figures.set(
                format!("{prefix}gbit_per_s_{v}"),
                Some(found.gbits),
                &format!("{what}: one connection, Gbit/s"),
            );
        }
    }
    own.map_or(Ok(()), Own::remove)
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}
