//! `cargo xtask soak election`: what failure detection, election and hand-over promise together, in
//! virtual time: an address that stays with its owner among them; with the default profile, and a
//! tenth as many schedules with the fast one; with each ten of either, a network that is cut in two.
//! Tables of what was seen, and as its last line one JSON object. `--schedules N` [default: 1000000], `--first N` [default: 0].

#[path = "../tests/election/model.rs"]
#[allow(dead_code)]
mod model;
#[path = "../tests/election/schedule.rs"]
#[allow(dead_code)]
mod schedule;
#[path = "../../proto/tests/member/sim.rs"]
#[allow(dead_code, unreachable_pub)]
mod sim;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use proto::member::Profile;
use schedule::{Schedule, Settled, play};

/// By kind of schedule: how long nobody answered, and how long several did.
type Seen = BTreeMap<(String, bool), Vec<[Duration; 2]>>;

fn look(seeds: impl Iterator<Item = u64>, settled: &Settled) -> (Seen, Vec<String>) {
    let (mut seen, mut broken) = (Seen::new(), Vec::new());
    let split = |seed: u64| seed.is_multiple_of(10).then(|| Schedule::split(seed));
    let schedules = |seed| [Schedule::of(seed)].into_iter().chain(split(seed));
    for schedule in seeds.flat_map(schedules) {
        let outcome = play(&schedule, settled);
        broken.extend(outcome.judge(&schedule).err());
        let kind = match schedule.steps.as_slice() {
            [step] => format!("{:?}", step.fault),
            _ => "two at a time".to_owned(),
        };
        let silence = outcome.silence().saturating_sub(outcome.away);
        let seen = seen.entry((kind, schedule.loss > 0)).or_default();
        seen.push([silence, outcome.several()]);
    }
    (seen, broken)
}

/// On all cores.
fn look_at(seeds: Range<u64>, profile: Profile) -> (Seen, Vec<String>) {
    let settled = &Settled::new(profile);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|n| {
                let seeds = seeds.clone().skip(n).step_by(threads);
                scope.spawn(move || look(seeds, settled))
            })
            .collect();
        let (mut all, mut broken) = (Seen::new(), Vec::new());
        for part in parts {
            let (seen, bad) = part.join().expect("no panic");
            for (kind, spans) in seen {
                all.entry(kind).or_default().extend(spans);
            }
            broken.extend(bad);
        }
        (all, broken)
    })
}

fn main() {
    let (mut schedules, mut first) = (1_000_000, 0);
    let words: Vec<String> = std::env::args().skip(1).collect();
    for pair in words.chunks(2) {
        match pair {
            [flag, number] if flag == "--schedules" => {
                schedules = number.parse().expect("a number of schedules");
            }
            [flag, number] if flag == "--first" => first = number.parse().expect("a number"),
            _ => panic!("soak_election [--schedules N] [--first N]"),
        }
    }
    let mut figures = vec![format!("\"schedules\": {schedules}")];
    let mut broken = 0;
    for (name, before, profile, count) in [
        ("default", "", Profile::DEFAULT, schedules),
        ("fast", "fast_", Profile::FAST, schedules / 10),
    ] {
        println!("{count} schedules with the {name} profile");
        let (seen, bad) = look_at(first..first + count, profile);
        show(&seen, before, &mut figures);
        for one in bad.iter().take(20) {
            println!("BROKEN {one}");
        }
        figures.push(format!("\"{before}broken\": {}", bad.len()));
        broken += bad.len();
    }
    println!(
        "{{\"bench\": \"election\", \"figures\": {{{}}}}}",
        figures.join(", ")
    );
    assert!(broken == 0, "{broken} broken promises");
}

/// Prints a profile's table; its worst cases become figures.
fn show(seen: &Seen, before: &str, figures: &mut Vec<String>) {
    println!(
        "{:<16}{:>8}{:>10}{:>30}{:>30}",
        "milliseconds", "loss", "schedules", "nobody: p50, p99, most", "several: p50, p99, most"
    );
    let mut worst = [[Duration::ZERO; 2]; 2];
    for ((kind, loss), spans) in seen {
        let mut columns = String::new();
        for what in 0..2 {
            let mut all: Vec<Duration> = spans.iter().map(|span| span[what]).collect();
            all.sort();
            let at = |share: usize| all[(all.len() - 1) * share / 100].as_secs_f64() * 1e3;
            columns += &format!("{:>12.1}{:>9.1}{:>9.1}", at(50), at(99), at(100));
            if kind != "two at a time" {
                let most = &mut worst[usize::from(*loss)][what];
                *most = (*most).max(all[all.len() - 1]);
            }
        }
        let loss = if *loss { "0.1-5 %" } else { "none" };
        println!("{kind:<16}{loss:>8}{:>10}{columns}", spans.len());
    }
    let ends = ["", "_in_loss"];
    for (worst, end) in worst.iter().zip(ends) {
        for (time, what) in worst.iter().zip(["silent", "several"]) {
            let ms = time.as_secs_f64() * 1e3;
            figures.push(format!("\"{before}{what}{end}_ms\": {ms:.1}"));
        }
    }
}
