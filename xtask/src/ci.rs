//! `cargo xtask ci`: what CI runs. Every step runs, whatever the others say; a table ends it.

mod deny;
mod length;
mod purity;
mod safety;
mod stubs;

use std::time::{Duration, Instant};

use crate::command::no_arguments;
use crate::failure::{Failure, failed};
use crate::shell::{cargo, run as run_it, seconds};
use crate::source::{self, Source};
use crate::test::Counts;
use crate::{crds, test};

/// What a step says of itself when it passed.
type Verdict = Result<String, Failure>;

struct Step {
    name: &'static str,
    verdict: Verdict,
    took: Duration,
}

/// Runs the command.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    no_arguments("ci", arguments)?;
    let start = Instant::now();
    let mut counts = Counts::default();
    let mut steps = Vec::new();
    let mut step = |name, run: &mut dyn FnMut() -> Verdict| {
        println!("\n== {name}");
        let start = Instant::now();
        let verdict = run();
        let took = start.elapsed();
        let text = match &verdict {
            Ok(text) => text.clone(),
            Err(failure) => failure.to_string(),
        };
        println!("{text} ({})", seconds(took));
        steps.push(Step {
            name,
            verdict,
            took,
        });
    };
    step("fmt", &mut fmt);
    step("purity", &mut purity::check);
    step("unsafe", &mut || safety::check(&sources()?));
    step("length", &mut || length::check(&sources()?));
    step("stubs", &mut || stubs::check(&sources()?));
    step("deny", &mut deny::check);
    step("clippy", &mut clippy);
    step("doc", &mut doc);
    step("crds", &mut crds::check);
    step("test", &mut || {
        let (count, verdict) = test::all();
        counts = count;
        verdict
    });

    println!("\n{}", table(&steps));
    let bad: Vec<&str> = steps
        .iter()
        .filter_map(|step| step.verdict.is_err().then_some(step.name))
        .collect();
    let took = seconds(start.elapsed());
    let verdict = match bad.as_slice() {
        [] => {
            println!("ci: all steps passed, in {took}");
            Ok(())
        }
        bad => failed(format!("ci: FAILED in {took}: {}", bad.join(", "))),
    };
    // The plain closing line comes last of all on stdout.
    println!("{counts}");
    verdict
}

fn table(steps: &[Step]) -> String {
    let row = |step: &Step| {
        let (result, text) = match &step.verdict {
            Ok(text) => ("ok", text.clone()),
            Err(failure) => ("FAILED", failure.to_string()),
        };
        let text = text.lines().next().unwrap_or_default();
        let took = seconds(step.took);
        format!("{:<8} {result:<7} {took:>12}  {text}", step.name)
    };
    let rows: Vec<String> = steps.iter().map(row).collect();
    format!(
        "{:<8} {:<7} {:>12}\n{}",
        "step",
        "result",
        "time",
        rows.join("\n")
    )
}

fn sources() -> Result<Vec<Source>, Failure> {
    source::all().or_else(|error| failed(format!("cannot read the sources: {error}")))
}

fn fmt() -> Verdict {
    run_it(&mut cargo(["fmt", "--all", "--check"])).map(|()| "as rustfmt has it".into())
}

fn clippy() -> Verdict {
    let lint = ["clippy", "--workspace", "--all-targets", "--all-features"];
    let strict = ["--keep-going", "--", "-D", "warnings"];
    run_it(cargo(lint).args(strict)).map(|()| "no warning".into())
}

fn doc() -> Verdict {
    // Private items too: the readers are those who work on it, and module docs link to them.
    let doc = ["doc", "--workspace", "--no-deps", "--all-features"];
    let mut command = cargo(doc);
    command.args(["--document-private-items", "--keep-going"]);
    let flags = "-D warnings -A rustdoc::private-intra-doc-links";
    run_it(command.env("RUSTDOCFLAGS", flags)).map(|()| "no warning".into())
}

/// One finding a line, or what was looked at.
fn verdict(findings: &[String], good: String) -> Verdict {
    if findings.is_empty() {
        return Ok(good);
    }
    failed(format!(
        "{} found:\n  {}",
        findings.len(),
        findings.join("\n  ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_a_step_and_one_line_of_each_failure() {
        let step = |name, verdict| Step {
            name,
            verdict,
            took: Duration::from_secs(3),
        };
        let findings = ["a.rs:1: x".to_owned(), "b.rs:2: y".to_owned()];
        let text = table(&[
            step("fmt", Ok(String::new())),
            step("unsafe", verdict(&findings, String::new())),
        ]);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(
            text.contains("unsafe   FAILED         3.0 s  2 found:"),
            "{text}"
        );
    }
}
