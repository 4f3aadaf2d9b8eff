//! The commands of the project, run as `cargo xtask NAME`. Plain cargo is all they need.

mod bench;
mod ci;
mod cluster;
mod command;
mod crds;
mod debian;
mod demo;
mod failure;
mod image;
mod manifests;
mod shell;
mod soak;
mod source;
mod test;

use std::process::ExitCode;

use failure::Failure;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match command::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            if let Failure::Usage(_) = failure {
                eprintln!("\n{}", command::usage());
            }
            ExitCode::from(failure.code())
        }
    }
}
