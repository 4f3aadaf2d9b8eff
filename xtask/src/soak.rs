//! `cargo xtask soak`: what takes too long for every run: the crash test with many kills,
//! MetalLB's controller beside Corten's, and kube-proxy beside Corten's agent, on random sequences of
//! objects, and days of failure detection and a million faults of announcing nodes in virtual time.

use std::ops::Range;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::failure::{Failure, failed};
use crate::shell::{cargo, run as run_it};

/// Kills where nothing is said.
const KILLS: u64 = 200;
/// Kills of one control plane, when the time decides.
const BATCH: u64 = 50;
/// Sequences, and steps of each, where nothing is said.
const SEEDS: u64 = 5;
const STEPS: u64 = 100;
/// Hours of failure detection where nothing is said.
const HOURS: u64 = 24;

/// Schedules of faults where nothing is said.
const SCHEDULES: u64 = 1_000_000;

/// What, and for how long.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Kills(u64),
    Time(Duration),
    Differential { seeds: Range<u64>, steps: u64 },
    Proxy { seeds: Range<u64>, steps: u64 },
    Member { hours: u64 },
    Election { schedules: u64 },
}

fn plan(arguments: &[String]) -> Option<Plan> {
    match arguments {
        [] => Some(Plan::Kills(KILLS)),
        [name, rest @ ..] if name == "differential" => {
            let (seeds, steps) = sequences(rest)?;
            Some(Plan::Differential { seeds, steps })
        }
        [name, rest @ ..] if name == "proxy" => {
            let (seeds, steps) = sequences(rest)?;
            Some(Plan::Proxy { seeds, steps })
        }
        [name] if name == "member" => Some(Plan::Member { hours: HOURS }),
        [name, flag, hours] if name == "member" && flag == "--hours" => {
            let hours = hours.parse().ok()?;
            Some(Plan::Member { hours })
        }
        [name] if name == "election" => Some(Plan::Election {
            schedules: SCHEDULES,
        }),
        [name, flag, schedules] if name == "election" && flag == "--schedules" => {
            let schedules = schedules.parse().ok()?;
            Some(Plan::Election { schedules })
        }
        [flag, kills] if flag == "--kills" => kills.parse().ok().map(Plan::Kills),
        [minutes] => {
            let minutes: u64 = minutes.parse().ok()?;
            Some(Plan::Time(Duration::from_secs(60 * minutes)))
        }
        _ => None,
    }
}

/// Seeds, and the steps of each.
fn sequences(arguments: &[String]) -> Option<(Range<u64>, u64)> {
    let (mut seeds, mut steps) = (1..1 + SEEDS, STEPS);
    let (pairs, rest) = arguments.as_chunks();
    for [flag, value] in pairs {
        let value: u64 = value.parse().ok()?;
        match flag.as_str() {
            "--seed" => seeds = value..value.checked_add(1)?,
            "--steps" => steps = value,
            _ => return None,
        }
    }
    rest.is_empty().then_some((seeds, steps))
}

/// Runs the command.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some(plan) = plan(arguments) else {
        let usage = "`soak` takes a number of minutes, `--kills N`, \
                     `differential [--seed N] [--steps N]`, `proxy [--seed N] [--steps N]`, \
                     `member [--hours N]` or \
                     `election [--schedules N]`";
        return Err(Failure::Usage(usage.into()));
    };
    if !matches!(plan, Plan::Member { .. } | Plan::Election { .. }) {
        run_it(&mut cargo(["build", "-p", "corten", "--bins"]))?;
    }
    match plan {
        Plan::Kills(kills) => run_it(&mut crash(kills)),
        Plan::Differential { seeds, steps } => {
            for seed in seeds {
                run_it(&mut differential("differential", seed, steps))?;
            }
            Ok(())
        }
        Plan::Proxy { seeds, steps } => {
            for seed in seeds {
                run_it(&mut differential("proxy_differential", seed, steps))?;
            }
            Ok(())
        }
        Plan::Member { hours } => run_it(&mut member(hours)),
        Plan::Election { schedules } => run_it(&mut election(schedules)),
        Plan::Time(time) => {
            let start = Instant::now();
            let mut rounds = 0;
            while start.elapsed() < time {
                run_it(&mut crash(BATCH)).or_else(|failure| {
                    failed(format!(
                        "after {} kills and more: {failure}",
                        rounds * BATCH
                    ))
                })?;
                rounds += 1;
            }
            println!("soak: {} kills, nothing lost", rounds * BATCH);
            Ok(())
        }
    }
}

/// The crash test; it prints its seed, with which `CRASH_SEED` plays the same story.
fn crash(kills: u64) -> Command {
    let mut command = cargo(["test", "-p", "lab", "--test", "cluster"]);
    command
        .args(["crash::", "--", "--nocapture"])
        .env("CRASH_KILLS", kills.to_string());
    command
}

/// Failure detection in virtual time.
fn member(hours: u64) -> Command {
    let mut command = cargo(["run", "--release", "-p", "proto"]);
    command
        .args(["--example", "soak_member", "--"])
        .args(["--hours", &hours.to_string()]);
    command
}

/// Nodes that announce, in virtual time.
fn election(schedules: u64) -> Command {
    let mut command = cargo(["run", "--release", "-p", "plan"]);
    command
        .args(["--example", "soak_election", "--"])
        .args(["--schedules", &schedules.to_string()]);
    command
}

/// Both controllers, or both proxies, on one sequence of objects.
fn differential(example: &str, seed: u64, steps: u64) -> Command {
    let mut command = cargo(["run", "-p", "lab", "--example", example, "--"]);
    command
        .args(["--seed", &seed.to_string()])
        .args(["--steps", &steps.to_string()]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let plan = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            plan(&words)
        };
        assert_eq!(plan(""), Some(Plan::Kills(200)));
        assert_eq!(plan("--kills 7"), Some(Plan::Kills(7)));
        assert_eq!(plan("3"), Some(Plan::Time(Duration::from_secs(180))));
        let (seeds, steps) = (1..6, 100);
        let sequences = |seeds, steps| Some(Plan::Differential { seeds, steps });
        assert_eq!(plan("differential"), sequences(seeds, steps));
        assert_eq!(
            plan("differential --seed 7 --steps 20"),
            sequences(7..8, 20)
        );
        let (seeds, steps) = (3..4, 100);
        let proxy = plan("proxy --seed 3");
        assert_eq!(proxy, Some(Plan::Proxy { seeds, steps }));
        assert_eq!(plan("member"), Some(Plan::Member { hours: 24 }));
        assert_eq!(plan("member --hours 2"), Some(Plan::Member { hours: 2 }));
        let election = |schedules| Some(Plan::Election { schedules });
        assert_eq!(plan("election"), election(1_000_000));
        assert_eq!(plan("election --schedules 9"), election(9));
        for line in [
            "member --hours",
            "election 9",
            "--kills",
            "--kills x",
            "soon",
            "1 2",
            "differential --seed",
            "differential 7",
            "proxy --seeds 7",
        ] {
            assert_eq!(plan(line), None, "{line}");
        }
    }
}
