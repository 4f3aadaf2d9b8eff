//! BGP beside FRR, BIRD and GoBGP as speakers: `cargo xtask bench bgp`.
//!
//! - [`cold`]: so many prefixes to four peers that come up at once, from the KEEPALIVE that makes
//!   the sessions Established until the last peer has read the last prefix. The peers ([`sink`])
//!   are the bench's own; the agent has its Services from an API server ([`api`]) of the bench,
//!   the rivals have theirs from their configuration (GoBGP, which has none, from a fifth peer).
//!   All are at rest before the sessions come up. Rounds are taken in turns; medians count.
//! - changes: EndpointSlices change one after another, from the first byte of the watch event to
//!   the UPDATE read by the last of the four peers.
//! - [`death`]: a node is cut off, until the router's kernel has lost its route.
//!
//! `--quick` takes small numbers, which are no figures; `--only PART` leaves out all but `changes`,
//! `10k`, `100k` or `deaths`. Prints its progress, a table, and as its last line one JSON object. Needs the Debian packages frr, bird2 and gobgpd, and the right to
//! make namespaces.

mod api;
mod cold;
mod death;
mod sink;
mod speakers;
mod usage;

use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cold::{Cold, Theatre, millis};
use death::Deaths;
use lab::{Lab, Outcome};
use serde_json::{Map, Value, json};
use speakers::Who;

type Fault = Box<dyn Error + Send + Sync>;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
struct Scale {
    quick: bool,
    /// Prefixes, and rounds with them.
    cold: [(u32, u32); 2],
    services: u32,
    changes: u32,
    deaths: u32,
}

impl Scale {
    /// One part alone; `None`: there is no such part.
    fn only(self, part: &str) -> Option<Self> {
        let none = Self {
            cold: self.cold.map(|(count, _)| (count, 0)),
            changes: 0,
            deaths: 0,
            ..self
        };
        let [ten, hundred] = none.cold;
        let [all_ten, all_hundred] = self.cold;
        Some(match part {
            "changes" => Self {
                changes: self.changes,
                ..none
            },
            "10k" => Self {
                cold: [all_ten, hundred],
                ..none
            },
            "100k" => Self {
                cold: [ten, all_hundred],
                ..none
            },
            "deaths" => Self {
                deaths: self.deaths,
                ..none
            },
            _ => return None,
        })
    }
}

const FULL: Scale = Scale {
    quick: false,
    cold: [(10_000, 5), (100_000, 3)],
    services: 1_000,
    changes: 2_000,
    deaths: 20,
};

const QUICK: Scale = Scale {
    quick: true,
    cold: [(1_000, 1), (5_000, 1)],
    services: 100,
    changes: 100,
    deaths: 2,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let scale = match arguments.as_slice() {
        [] => Some(FULL),
        ["--quick"] => Some(QUICK),
        ["--only", part] => FULL.only(part),
        _ => None,
    };
    let Some(scale) = scale else {
        eprintln!("usage: bench_bgp [--quick | --only changes|10k|100k|deaths]");
        return 2.into();
    };
    lab::main("bench_bgp", async move |lab| bench(lab, scale).await)
}

async fn bench(lab: Lab, scale: Scale) -> Outcome {
    let begin = Instant::now();
    let mut theatre = Theatre::build(&lab).await?;
    let mut changes = Vec::new();
    if scale.changes > 0 {
        changes = theatre.changes(scale.services, scale.changes).await?;
    }
    let mut colds: [BTreeMap<Who, Vec<Cold>>; 2] = Default::default();
    for ((count, rounds), colds) in scale.cold.into_iter().zip(&mut colds) {
        for round in 0..rounds as usize {
            let mut turns = Who::ALL;
            turns.rotate_left(round % Who::ALL.len());
            for who in turns {
                let cold = theatre.cold(who, count).await?;
                colds.entry(who).or_default().push(cold);
            }
        }
    }
    let mut deaths = Deaths::default();
    if scale.deaths > 0 {
        deaths = death::deaths(&lab, scale.deaths).await?;
    }
    report(&scale, &changes, &colds, &deaths, begin.elapsed());
    Ok(())
}

/// The table and the object, line by line.
#[derive(Default)]
struct Report {
    figures: Map<String, Value>,
}

impl Report {
    fn line(&mut self, name: &str, value: f64, what: &str) {
        let value = (value * 1e4).round() / 1e4;
        println!("| {name} | {value} | {what} |");
        self.figures.insert(name.to_owned(), json!(value));
    }
}

fn report(
    scale: &Scale,
    changes: &[Duration],
    colds: &[BTreeMap<Who, Vec<Cold>>; 2],
    deaths: &Deaths,
    took: Duration,
) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = load.trim_end();
    println!(
        "{cores} cores, load average {load}; the bench took {:.0} s",
        took.as_secs_f64()
    );
    if scale.quick {
        println!("--quick: small numbers, whatever the figures' names say");
    }
    println!("| figure | value | what |");
    println!("| --- | --- | --- |");
    let mut report = Report::default();
    let part = |share: usize| changes.get((changes.len() * share).saturating_sub(1) / 100);
    let what = format!(
        "{} changes of EndpointSlices at {} Services; median {:.2}, longest {:.2}",
        changes.len(),
        scale.services,
        part(50).map_or(f64::NAN, |it| millis(*it)),
        changes.last().map_or(f64::NAN, |it| millis(*it))
    );
    if let Some(p99) = part(99) {
        report.line("change_to_update_p99_ms", millis(*p99), &what);
    }
    for (((count, _), name), colds) in scale.cold.into_iter().zip(["10k", "100k"]).zip(colds) {
        for (who, rounds) in colds {
            let took = |it: &Cold| it.took.as_secs_f64();
            let what = format!(
                "{who:?}, {count} prefixes; rounds: {} s; CPU {:.1} ms, {:.1} MiB",
                rounds
                    .iter()
                    .map(|it| format!("{:.3}", took(it)))
                    .collect::<Vec<_>>()
                    .join(" "),
                median(rounds.iter().map(|it| millis(it.cpu))),
                median(rounds.iter().map(|it| it.rss))
            );
            let stem = who.stem();
            report.line(
                &format!("{stem}cold_{name}_x4_s"),
                median(rounds.iter().map(took)),
                &what,
            );
        }
        if let Some(rounds) = colds.get(&Who::Corten) {
            let cpu = median(rounds.iter().map(|it| millis(it.cpu)));
            report.line(
                &format!("cold_{name}_x4_cpu_ms"),
                cpu,
                "the agent's meanwhile",
            );
            let rss = rounds.iter().map(|it| it.rss).fold(0.0, f64::max);
            report.line(&format!("rss_mib_{name}_x4"), rss, "the agent's afterwards");
        }
    }
    for (name, times, what) in [
        ("death_to_route_gone_ms", &deaths.ours, "Corten on the node"),
        ("frr_death_to_route_gone_ms", &deaths.frr, "FRR on the node"),
        (
            "detection_ms",
            &deaths.detection,
            "Corten sees a dead router; at most 160",
        ),
    ] {
        if times.is_empty() {
            continue;
        }
        let longest = times.iter().copied().fold(f64::NAN, f64::max);
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        let what = format!(
            "{what}; mean of {} rounds, longest {longest:.1}",
            times.len()
        );
        report.line(name, mean, &what);
    }
    report
        .figures
        .insert("quick".to_owned(), scale.quick.into());
    println!("{}", json!({"bench": "bgp", "figures": report.figures}));
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
