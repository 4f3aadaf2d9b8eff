//! Writes the plain YAML of `deploy/` from the chart; with `--check` only says whether it is so.
//! `cargo xtask manifests` runs it.

use std::error::Error;
use std::fs;
use std::process::ExitCode;

use lab::chart::{Chart, deploy};

fn main() -> ExitCode {
    match run(std::env::args().any(|argument| argument == "--check")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manifests: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(check: bool) -> Result<(), Box<dyn Error>> {
    let chart = Chart::find()?;
    for (name, want) in chart.files()? {
        let file = deploy().join(name);
        if fs::read_to_string(&file).is_ok_and(|have| have == want) {
            println!("deploy/{name}: as the chart has it");
        } else if check {
            return Err(format!(
                "deploy/{name} is not as the chart has it: run `cargo xtask manifests`"
            )
            .into());
        } else {
            fs::write(&file, want)?;
            println!("deploy/{name}: written");
        }
    }
    Ok(())
}
