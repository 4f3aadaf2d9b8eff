//! Layer 2 fail-over beside keepalived: `cargo xtask bench l2`.
//!
//! Three nodes on one segment, and two clients that are hosts of their own, which ask for as long
//! as a case takes:
//!
//! - a warm one sends a datagram each millisecond and keeps its neighbour entry. *Silent* is the
//!   longest time between two answers that ends after the instant of the fault (resolution: 1 ms,
//!   and `stalled`, the longest time that the client itself did not ask in); *lost* is what was
//!   never answered, half a second later;
//! - a cold one knows nothing and asks by broadcast ARP each 10 ms: *cold* is the time from the fault
//!   until another node answers it, or the longest time that nobody did; *double answers* are its
//!   questions that two nodes answered. Answers say which question they are for.
//!
//! Returns have eight TCP connections besides, which ask each 5 ms. The endpoints are on the nodes
//! that nothing happens to. One scene serves all runs of all cases; each run begins when the owner
//! alone has answered for a tenth of a second.
//!
//! keepalived runs on the same nodes and segment, right after the agents with fast failure
//! detection.
//!
//! `--runs N` for all cases [default: as `CASES` has them]; `--only CASE`, more than once. Prints
//! progress to stderr, a table, and as its last line one JSON object. Needs the Debian package
//! keepalived, and the right to make namespaces.

mod cases;
mod clients;
mod echo;
mod field;
mod figures;
mod keepalived;
#[path = "../../tests/bare/support.rs"]
#[allow(dead_code)]
mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use field::{Field, Harm};
use figures::Figures;
use lab::Lab;

pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

pub(crate) const SOON: Duration = Duration::from_secs(30);

/// What runs on the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// Agents with this member profile.
    Agents(&'static str),
    /// The same, with addresses on the LAN's interface.
    Linux,
    Keepalived,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Harm(Harm),
    /// The link is cut, and healed so long after that.
    Held(Duration, (&'static str, &'static str)),
    Killed,
    Stopped,
    Drained,
    Paused,
    /// `advert_int`
    Vrrp(&'static str),
}

/// Cases in their order: name, what runs, what happens, how often. Those that take long are played
/// less often, or (none) only on request.
const CASES: [(&str, Subject, Kind, usize); 14] = {
    use Kind::{Drained, Harm as Harmed, Held, Killed, Paused, Stopped, Vrrp};
    use Subject::{Agents, Keepalived, Linux};
    [
        ("cut", Agents("default"), Harmed(Harm::Cut), 50),
        (
            "cut-long",
            Agents("default"),
            Held(ALONE, ("long_cut", "long_cut_return")),
            20,
        ),
        (
            "cut-minute",
            Agents("default"),
            Held(FORGOTTEN, ("minute_cut", "minute_cut_return")),
            0,
        ),
        ("off", Agents("default"), Harmed(Harm::Off), 50),
        ("down", Agents("default"), Harmed(Harm::Down), 50),
        ("killed", Agents("default"), Killed, 50),
        ("stopped", Agents("default"), Stopped, 50),
        ("drained", Agents("default"), Drained, 50),
        ("paused", Agents("default"), Paused, 5),
        ("linux-cut", Linux, Harmed(Harm::Cut), 10),
        ("linux-killed", Linux, Killed, 10),
        ("fast", Agents("fast"), Harmed(Harm::Cut), 50),
        ("keepalived-10ms", Keepalived, Vrrp("0.01"), 50),
        ("keepalived-1s", Keepalived, Vrrp("1"), 20),
    ]
};
/// A cut that outlasts the second after which a node that hears nobody goes on alone.
const ALONE: Duration = Duration::from_millis(2500);
/// One that outlasts what the kernels know of their neighbours.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// How long an address lasts on the LAN's interface, and more.
const LIFETIME: Duration = Duration::from_millis(2500);

/// What to play.
#[derive(Clone, Debug, Default)]
struct Options {
    runs: Option<usize>,
    only: Vec<String>,
}

impl Options {
    fn parse(words: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self::default();
        let mut words = words;
        while let Some(word) = words.next() {
            match word.as_str() {
                "--runs" => options.runs = Some(words.next()?.parse().ok().filter(|n| *n > 0)?),
                "--only" => {
                    let name = words.next()?;
                    CASES.iter().find(|case| case.0 == name)?;
                    options.only.push(name);
                }
                _ => return None,
            }
        }
        Some(options)
    }

    /// How often a case is played.
    fn runs(&self, name: &str, usual: usize) -> usize {
        let only = self.only.iter().any(|only| only == name);
        match (self.only.is_empty(), only) {
            (true, _) if usual == 0 => 0,
            (true, _) => self.runs.unwrap_or(usual),
            (false, true) => self.runs.unwrap_or_else(|| usual.max(1)),
            (false, false) => 0,
        }
    }
}

async fn play(
    field: &mut Field,
    figures: &mut Figures,
    (subject, kind): (Subject, Kind),
    runs: usize,
) -> Result<(), Fault> {
    let short = Duration::ZERO;
    match (subject, kind) {
        (Subject::Linux, Kind::Harm(harm)) => {
            let names = ("linux_link_cut", "linux_return");
            cases::harmed(field, figures, names, (harm, LIFETIME), runs).await
        }
        (Subject::Linux, _) => cases::linux_killed(field, figures, runs).await,
        (Subject::Agents("fast"), Kind::Harm(harm)) => {
            let names = ("fast_owner_killed", "fast_return");
            cases::harmed(field, figures, names, (harm, short), runs).await
        }
        (_, Kind::Harm(harm)) => {
            let names = match harm {
                Harm::Cut => ("link_cut", "return"),
                Harm::Down => ("interface_down", "interface_return"),
                Harm::Off => ("owner_killed", "power_return"),
            };
            cases::harmed(field, figures, names, (harm, short), runs).await
        }
        (_, Kind::Held(hold, names)) => {
            cases::harmed(field, figures, names, (Harm::Cut, hold), runs).await
        }
        (_, Kind::Killed) => cases::ended(field, figures, true, runs).await,
        (_, Kind::Stopped) => cases::ended(field, figures, false, runs).await,
        (_, Kind::Drained) => cases::drained(field, figures, runs).await,
        (_, Kind::Paused) => cases::paused(field, figures, runs).await,
        (_, Kind::Vrrp(interval)) => {
            let name = if interval == "1" {
                "keepalived_1s"
            } else {
                "keepalived_10ms"
            };
            keepalived::cut(field, figures, (interval, name), runs).await
        }
    }
}

/// Makes the nodes run what the next case is about.
async fn change(field: &mut Field, from: Option<Subject>, to: Subject) -> Result<(), Fault> {
    if from == Some(to) {
        return Ok(());
    }
    if let Some(Subject::Agents(_) | Subject::Linux) = from {
        field.stop_agents().await?;
    }
    match to {
        Subject::Agents(profile) => {
            field.announce(false)?;
            field.start_agents(profile).await
        }
        Subject::Linux => {
            field.announce(true)?;
            field.start_agents("default").await
        }
        Subject::Keepalived => keepalived::prepare(field),
    }
}

async fn bench(lab: Lab, options: Options) -> Result<(), Fault> {
    let mut field = Field::build(&lab).await?;
    let mut figures = Figures::default();
    let mut runs_now = None;
    for (name, subject, kind, runs) in CASES {
        let runs = options.runs(name, runs);
        if runs == 0 {
            continue;
        }
        let began = Instant::now();
        change(&mut field, runs_now, subject).await?;
        runs_now = Some(subject);
        play(&mut field, &mut figures, (subject, kind), runs).await?;
        eprintln!(
            "{name}: {runs} runs in {:.0} s",
            began.elapsed().as_secs_f64()
        );
    }
    figures.print();
    Ok(())
}

fn main() -> ExitCode {
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        let names = CASES.map(|case| case.0);
        eprintln!(
            "bench_l2 [--runs N] [--only CASE]...; cases: {}",
            names.join(", ")
        );
        return 2.into();
    };
    lab::main("bench_l2", async move |lab| bench(lab, options).await)
}
