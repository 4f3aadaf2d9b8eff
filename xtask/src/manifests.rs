//! `cargo xtask manifests`: the plain YAML of `deploy/`, rendered from the chart.

use crate::failure::Failure;
use crate::shell::{cargo, run as run_it};

/// Runs the command.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    match arguments {
        [] => {}
        [flag] if flag == "--check" => {}
        _ => {
            return Err(Failure::Usage(
                "`manifests` takes `--check` or nothing".into(),
            ));
        }
    }
    let example = ["run", "-q", "-p", "lab", "--example", "manifests", "--"];
    run_it(cargo(example).args(arguments))
}
