//! `cargo xtask cluster`: a real Kubernetes cluster on this machine, kept by a process in the
//! background.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    lab::cluster::keeper::main(&arguments)
}
