//! Builds Kubernetes' control plane if need be and prints where it is: `cargo xtask test` does so
//! before the tests, so that its minutes count against no test's deadline. Without Go it says so
//! and succeeds: the tests that need it skip.

use std::process::ExitCode;

use lab::controlplane::{BuildError, ensure_built};

fn main() -> ExitCode {
    match ensure_built() {
        Ok(binary) => println!("control plane: {}", binary.display()),
        Err(missing @ BuildError::Missing { .. }) => println!("{missing}"),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
