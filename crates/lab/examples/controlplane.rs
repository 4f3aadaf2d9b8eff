//! Builds Kubernetes' control plane and the other parts of a cluster if need be: `cargo xtask
//! test` does so before the tests, so that its minutes count against no test's deadline. Without
//! Go it says so and succeeds: the tests that need it skip.

use std::process::ExitCode;

use lab::cluster::Parts;
use lab::controlplane::{BuildError, ensure_built};

fn main() -> ExitCode {
    let built = ensure_built().and_then(|binary| {
        println!("control plane: {}", binary.display());
        Parts::ensure()
    });
    match built {
        Ok(_) => println!("parts of a cluster: built"),
        Err(missing @ BuildError::Missing { .. }) => println!("{missing}"),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
