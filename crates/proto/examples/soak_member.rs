//! `cargo xtask soak member`: how often failure detection errs, and how fast it is, in virtual time.
//! A table, and as its last line one JSON object. `--hours N` of each line [default: 24].

#[path = "../tests/member/sim.rs"]
#[allow(dead_code, unreachable_pub)]
mod sim;

use std::time::Duration;

use proto::member::{Event, Profile};
use sim::{Net, Setup, ms, name, random};

const HOUR: Duration = Duration::from_secs(3600);
/// Of the design: false deaths of a node in a day at 5 % loss.
const BUDGET: f64 = 1.0;

struct Rates {
    /// False deaths of a node, in a day: times that somebody held it for dead.
    deaths: f64,
    /// Times that a node was silent, in a day.
    silences: f64,
    /// Of a silence, the longest.
    longest: Duration,
}

fn settled(setup: Setup) -> Net {
    let mut net = Net::new(setup);
    net.run_for(ms(3000));
    net.log.clear();
    net
}

/// What happened to nodes that all live, in `time`.
fn rates(net: &Net, time: Duration) -> Rates {
    let days = time.as_secs_f64() / (24.0 * HOUR.as_secs_f64()) * net.setup.nodes as f64;
    let mut deaths = 0u32;
    let mut silences = 0u32;
    let mut longest = Duration::ZERO;
    for node in 0..net.setup.nodes {
        let of_node = Event::Dead { node: name(node) };
        // Seen by several within a second: one death.
        let mut last = None;
        for at in net.seen(ms(0), &of_node) {
            if last.is_none_or(|last| at > last + ms(1000)) {
                deaths += 1;
            }
            last = Some(at);
        }
        let mut began = None;
        for (at, who, event) in &net.log {
            match event {
                Event::Isolated { .. } if *who == node => {
                    silences += 1;
                    began = Some(*at);
                }
                Event::Resumed if *who == node => {
                    longest = longest.max(began.map_or(Duration::ZERO, |began| *at - began));
                }
                _ => {}
            }
        }
    }
    Rates {
        deaths: f64::from(deaths) / days,
        silences: f64::from(silences) / days,
        longest,
    }
}

/// Loss of so many in 1000, all the time.
fn lossy(nodes: usize, loss: u64, profile: Profile, time: Duration) -> Rates {
    let mut net = settled(Setup {
        seed: 7,
        profile,
        ..Setup::of(nodes)
    });
    net.setup.loss = loss;
    net.run_for(time);
    rates(&net, time)
}

/// Each node's process is not run for 2 s once in ten minutes, at 1 % loss.
fn pausing(nodes: usize, time: Duration) -> Rates {
    let mut net = settled(Setup {
        loss: 10,
        seed: 7,
        ..Setup::of(nodes)
    });
    let (mut dice, end) = (11, net.now + time);
    while net.now < end {
        net.run_for(Duration::from_secs(600) / nodes as u32);
        let node = random(&mut dice) as usize % nodes;
        net.freeze(node, ms(2000));
        net.run_for(ms(3000));
    }
    rates(&net, time)
}

/// Times from a death to everyone who lives, sorted.
fn detection(nodes: usize, loss: u64, profile: Profile, runs: u64) -> Vec<Duration> {
    let mut all = Vec::new();
    for seed in 0..runs {
        let mut net = settled(Setup {
            seed,
            profile,
            ..Setup::of(nodes)
        });
        net.setup.loss = loss;
        net.run_for(ms(200) + profile.beat * 2 * seed as u32 / runs as u32);
        let died = net.now;
        net.die(nodes - 1);
        net.run_for(ms(5000));
        let node = name(nodes - 1);
        all.extend(net.seen(died, &Event::Dead { node }));
    }
    all.sort();
    all
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let hours = match words.as_slice() {
        [] => 24,
        [flag, hours] if flag == "--hours" => hours.parse().expect("a number of hours"),
        _ => panic!("soak_member [--hours N]"),
    };
    let time = HOUR * hours;
    let mut figures = Vec::new();
    println!(
        "{:<46}{:>12}{:>12}{:>12}",
        "", "deaths", "silences", "longest ms"
    );
    println!("{:<46}{:>12}{:>12}", "", "/node·day", "/node·day");
    let mut row = |figure: &str, what: &str, found: Rates| {
        println!(
            "{what:<46}{:>12.2}{:>12.2}{:>12}",
            found.deaths,
            found.silences,
            found.longest.as_millis()
        );
        figures.push(format!("\"{figure}\": {:.3}", found.deaths));
        found.deaths
    };
    let (normal, slow) = (Profile::DEFAULT, Profile::SLOW);
    let mut worst = 0f64;
    for nodes in [2, 3, 5] {
        let found = lossy(nodes, 50, normal, time);
        let what = format!("{nodes} nodes, 5 % loss");
        worst = worst.max(row(&format!("false_5pct_{nodes}"), &what, found));
    }
    // Three times as many beats in an hour.
    for nodes in [2, 3, 5] {
        let found = lossy(nodes, 50, Profile::FAST, time / 3);
        let what = format!("{nodes} nodes, 5 % loss, fast profile");
        row(&format!("false_5pct_{nodes}_fast"), &what, found);
    }
    for nodes in [2, 3, 5] {
        let found = lossy(nodes, 300, normal, time / 4);
        let what = format!("{nodes} nodes, 30 % loss");
        row(&format!("false_30pct_{nodes}"), &what, found);
    }
    let found = lossy(5, 300, slow, time);
    row(
        "false_30pct_5_slow",
        "5 nodes, 30 % loss, slow profile",
        found,
    );
    let what = "5 nodes, paused for 2 s 144 times a day";
    row("false_paused_5", what, pausing(5, time));

    println!(
        "\n{:<46}{:>12}{:>12}{:>12}",
        "a death is known, ms", "p50", "p99", "longest"
    );
    for (figure, profile) in [("default", normal), ("fast", Profile::FAST), ("slow", slow)] {
        let all = detection(5, 50, profile, 500);
        let at = |share: usize| all[(all.len() - 1) * share / 100].as_secs_f64() * 1e3;
        let what = format!("5 nodes, 5 % loss, {figure} profile, 500 deaths");
        println!(
            "{what:<46}{:>12.1}{:>12.1}{:>12.1}",
            at(50),
            at(99),
            at(100)
        );
        figures.push(format!("\"detection_{figure}_p50_ms\": {:.1}", at(50)));
        figures.push(format!("\"detection_{figure}_p99_ms\": {:.1}", at(99)));
    }

    println!("\n{:<46}{:>12}", "sent and received by a node", "kbit/s");
    for nodes in [10, 1000] {
        let mut net = Net::new(Setup {
            keyed: true,
            ..Setup::of(nodes)
        });
        net.run_for(ms(3000));
        let (before, time) = (net.traffic.clone(), Duration::from_secs(5));
        net.run_for(time);
        let cost = 2.0 * net.bits_per_second(&before, time) / 1e3;
        println!("{:<46}{cost:>12.0}", format!("{nodes} nodes"));
        figures.push(format!("\"kbits_{nodes}\": {cost:.0}"));
        assert!(cost <= 200.0, "{cost} kbit/s");
    }
    println!(
        "{{\"bench\": \"member\", \"figures\": {{{}}}}}",
        figures.join(", ")
    );
    assert!(
        worst <= BUDGET,
        "{worst} false deaths a node and day at 5 % loss"
    );
}
