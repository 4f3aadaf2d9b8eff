//! `cargo xtask soak`: what takes too long for every run: the crash test with many kills.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::failure::{Failure, failed};
use crate::shell::{cargo, run as run_it};

/// Kills where nothing is said.
const KILLS: u64 = 200;
/// Kills of one control plane, when the time decides.
const BATCH: u64 = 50;

/// For how long.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Kills(u64),
    Time(Duration),
}

fn plan(arguments: &[String]) -> Option<Plan> {
    match arguments {
        [] => Some(Plan::Kills(KILLS)),
        [flag, kills] if flag == "--kills" => kills.parse().ok().map(Plan::Kills),
        [minutes] => {
            let minutes: u64 = minutes.parse().ok()?;
            Some(Plan::Time(Duration::from_secs(60 * minutes)))
        }
        _ => None,
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some(plan) = plan(arguments) else {
        let usage = "`soak` takes a number of minutes, or `--kills N`";
        return Err(Failure::Usage(usage.into()));
    };
    run_it(&mut cargo(["build", "-p", "corten", "--bins"]))?;
    match plan {
        Plan::Kills(kills) => run_it(&mut crash(kills)),
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
        for line in ["--kills", "--kills x", "soon", "1 2"] {
            assert_eq!(plan(line), None, "{line}");
        }
    }
}
