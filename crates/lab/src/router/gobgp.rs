//! GoBGP 3.

use std::time::Duration;

use serde_json::Value;

use super::{output, write};
use crate::{Host, LabError, Process, wait_for};

const FILE: &str = "/run/gobgpd.toml";
/// The API, on the host's own loopback.
const API: &str = "127.0.0.1:50051";
/// How long the daemon may take to answer.
const SOON: Duration = Duration::from_secs(30);

/// GoBGP on a host; dropping it kills it.
#[derive(Debug)]
pub struct GoBgp {
    host: Host,
    process: Process,
}

impl GoBgp {
    /// Starts it with this configuration (TOML). Ready when it answers `gobgp`.
    pub async fn start(host: &Host, config: &str) -> Result<Self, LabError> {
        write(host, &host.run_dir().join("gobgpd.toml"), config)?;
        let mut command = host.command("gobgpd")?;
        command
            .args(["-f", FILE, "--api-hosts", API])
            .args(["--log-plain", "--pprof-disable"]);
        let gobgp = Self {
            host: host.clone(),
            process: host.spawn("gobgpd", command)?,
        };
        let what = format!("GoBGP of {} to answer", host.name());
        wait_for(SOON, &what, async || {
            gobgp
                .ask("global")
                .map_err(|e| crate::sandbox::chain(&e))
                .and_then(|said| match said.contains("Router-ID") {
                    true => Ok(()),
                    false => Err(said),
                })
        })
        .await
        .map_err(|e| LabError::io(host.name(), "start GoBGP", std::io::Error::other(e)))?;
        Ok(gobgp)
    }

    /// What `gobgp` prints.
    pub fn ask(&self, command: &str) -> Result<String, LabError> {
        let mut gobgp = self.host.command("gobgp")?;
        gobgp.args(command.split_whitespace());
        output(&self.host, gobgp)
    }

    /// What `gobgp -j` prints.
    pub fn json(&self, command: &str) -> Result<Value, LabError> {
        let text = self.ask(&format!("-j {command}"))?;
        serde_json::from_str(&text)
            .map_err(|e| LabError::io(self.host.name(), format!("read {command}"), e.into()))
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
