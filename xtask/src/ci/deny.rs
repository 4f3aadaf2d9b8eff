//! Licences, bans and sources of all dependencies, by cargo-deny and `deny.toml`.
//!
//! Advisories are left out: their database comes over the network at every run, and a run of old
//! code must not fail for what was published since.

use crate::ci::Verdict;
use crate::failure::{Failure, failed};
use crate::shell::{cargo, output, program, run, target};

const VERSION: &str = "0.20.2";

/// Runs the step.
pub(crate) fn check() -> Verdict {
    let tools = target().join("tools");
    let deny = tools.join("bin/cargo-deny");
    let installed = || {
        deny.is_file()
            .then(|| output(program(&deny).arg("--version")).ok())
            .flatten()
    };
    let current = |said: &String| said.split_whitespace().last() == Some(VERSION);
    if !installed().as_ref().is_some_and(current) {
        println!(
            "missing: cargo-deny {VERSION}; building it into {}",
            tools.display()
        );
        let install = ["install", "--locked", "cargo-deny", "--version", VERSION];
        // A build folder of its own: nothing of it is worth keeping.
        run(cargo(install)
            .args(["--force", "--root"])
            .arg(&tools)
            .env_remove("CARGO_TARGET_DIR"))?;
    }
    let checks = ["check", "licenses", "bans", "sources"];
    let mut command = program(&deny);
    match run(command
        .args(["--workspace", "--all-features", "--locked"])
        .args(checks))
    {
        Ok(()) => Ok("licences, bans, sources (advisories need the network: left out)".into()),
        Err(Failure::Failed(text)) => failed(format!("{text}; the rules are in deny.toml")),
        Err(other) => Err(other),
    }
}
