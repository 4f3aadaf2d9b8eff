//! `cargo xtask test`: every test of the workspace, counted, what was skipped included.
//!
//! A test that cannot run for want of a tool or a right prints `skipped: REASON` (a lab test
//! `skipped: lab NAME: REASON`) and passes; with `CI=true` a skip is a failure.

mod report;

use std::process::Stdio;
use std::time::Instant;

use crate::debian;
use crate::failure::{Failure, failed};
use crate::shell::{cargo, in_ci, line, program, run as run_it, seconds, stream, target};
pub(crate) use report::Counts;
use report::Report;

/// Runs the command.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    match arguments {
        [] => {
            let (counts, outcome) = all();
            println!("\n{counts}");
            let verdict = outcome?;
            println!("test: {verdict}");
            Ok(())
        }
        [flag] if flag == "--list" => run_it(&mut cargo(["test", "--workspace", "--", "--list"])),
        _ => Err(Failure::Usage("`test` takes `--list` or nothing".into())),
    }
}

/// Installs, builds and runs everything; the counts and the verdict.
pub(crate) fn all() -> (Counts, Result<String, Failure>) {
    let start = Instant::now();
    debian::install_missing();
    // All targets at once: the programs that tests start are built with the tests' features, so
    // that no dependency is built twice.
    if let Err(failure) = run_it(&mut cargo(["build", "--workspace", "--all-targets"])) {
        return (Counts::default(), Err(failure));
    }
    control_plane();

    let mut command = cargo(["test", "--workspace", "--no-fail-fast", "--"]);
    // What passing tests print is shown too, because some say there that they were skipped.
    command.arg("--show-output").stdin(Stdio::null());
    println!("$ {}", line(&command));
    let mut report = Report::default();
    let status = match stream(&mut command, |line| {
        if report.read(line) {
            println!("{line}");
        }
    }) {
        Ok(status) => status,
        Err(error) => {
            return (
                Counts::default(),
                failed(format!("cargo does not run: {error}")),
            );
        }
    };
    let counts = report.finish(status.success());
    println!();
    for skip in report.skips() {
        println!("skipped: {skip}");
    }
    let verdict = counts.verdict(in_ci());
    let took = seconds(start.elapsed());
    let verdict = verdict
        .map(|text| format!("{text}, in {took}"))
        .map_err(Failure::Failed);
    (counts, verdict)
}

/// Builds the Go program that lab tests run as Kubernetes' control plane: outside of a test, where
/// its minutes count against no deadline. The tests themselves say what it means when it is missing.
fn control_plane() {
    let builder = target().join("debug/examples/controlplane");
    if builder.is_file()
        && let Err(failure) = run_it(&mut program(builder))
    {
        println!("{failure}");
    }
}
