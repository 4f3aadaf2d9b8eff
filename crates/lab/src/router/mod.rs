//! Routers that others wrote: FRR, BIRD, GoBGP and ExaBGP of Debian, on hosts of the lab.
//!
//! A router is a [`Host`] with the daemons started directly, in the foreground, each with a log;
//! a test asks it in its own language ([`Frr::json`], [`Bird::ask`], [`GoBgp::json`],
//! [`ExaBgp::events`]). [`speaker`] is no router: it says bytes that no router would.

mod bird;
mod exabgp;
mod frr;
mod gobgp;
pub mod speaker;

use std::path::Path;
use std::process::{Command, Output};

pub use bird::Bird;
pub use exabgp::ExaBgp;
pub use frr::Frr;
pub use gobgp::GoBgp;

use crate::{Host, LabError};

/// Runs a command to its end; its output, or why it failed.
fn output(host: &Host, mut command: Command) -> Result<String, LabError> {
    let name = command.get_program().display().to_string();
    let failed = |source| LabError::io(host.name(), format!("run {name}"), source);
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().map_err(failed)?;
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr).into_owned();
        return Err(failed(std::io::Error::other(format!("{status}: {said}"))));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Writes a file that the daemon may read.
fn write(host: &Host, path: &Path, text: &str) -> Result<(), LabError> {
    std::fs::write(path, text)
        .map_err(|e| LabError::io(host.name(), format!("write {}", path.display()), e))
}
