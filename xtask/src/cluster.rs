//! `cargo xtask cluster`: a real Kubernetes cluster on this machine, which stays until `down`.
//! The work is done by the lab's own program; this one builds it.

use std::process::Command;

use crate::debian;
use crate::failure::{Failure, failed};
use crate::shell::{cargo, run as run_it, target};

/// Runs the command.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some(first) = arguments.first() else {
        let text = "`cluster` wants up, kubectl, exec, load-image or down";
        return Err(Failure::Usage(text.to_owned()));
    };
    let program = target().join("debug/cluster");
    // What is up was started by the program as it is.
    if first == "up" || !program.is_file() {
        debian::install_missing();
        run_it(&mut cargo(["build", "-q", "-p", "lab", "--bin", "cluster"]))?;
    }
    // In the caller's folder, as file names are meant.
    let status = match Command::new(&program).args(arguments).status() {
        Ok(status) => status,
        Err(error) => return failed(format!("{} does not run: {error}", program.display())),
    };
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let verdict = format!("cluster {first}: failed ({status})");
    Err(Failure::Status(verdict, code.unwrap_or(1).max(1)))
}
