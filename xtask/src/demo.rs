//! `cargo xtask demo [bgp]`: builds the product and the lab, and runs one of the lab's demos.

use std::process::Command;
use std::time::Instant;

use crate::failure::{Failure, failed};
use crate::shell::{cargo, program, run as run_it, seconds, target, which};

/// Runs the command.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let name = match arguments {
        [] => "demo",
        [what] if what == "bgp" => {
            // The router.
            crate::debian::install_missing();
            "demo_bgp"
        }
        _ => return Err(Failure::Usage("demo takes nothing, or `bgp`".to_owned())),
    };
    let start = Instant::now();
    run_it(&mut cargo(["build", "-p", "corten", "-p", "lab", "--bins"]))?;
    println!("built in {}\n", seconds(start.elapsed()));

    let start = Instant::now();
    let mut demo = bound_to_us(target().join("debug").join(name).as_os_str());
    let status = match demo.status() {
        Ok(status) => status,
        Err(error) => return failed(format!("the demo does not run: {error}")),
    };
    let took = seconds(start.elapsed());
    if status.success() {
        println!("\ndemo: passed in {took}");
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let verdict = format!("demo: FAILED after {took} ({status})");
    Err(Failure::Status(verdict, code.unwrap_or(1).max(1)))
}

/// A program that gets SIGTERM when we end, however that happens: Ctrl-C reaches it through the
/// terminal, a signal to our process alone would not.
fn bound_to_us(path: &std::ffi::OsStr) -> Command {
    let Some(setpriv) = which("setpriv") else {
        return program(path);
    };
    let mut command = program(setpriv);
    command.args(["--pdeathsig", "TERM"]).arg(path);
    command
}
