//! BIRD 2.

use std::time::Duration;

use super::{output, write};
use crate::{Host, LabError, Process, wait_for};

/// As the daemon sees it, on its own host.
const SOCKET: &str = "/run/bird.ctl";
const FILE: &str = "/run/bird.conf";
/// How long the daemon may take to read its configuration and open its socket.
const SOON: Duration = Duration::from_secs(60);

/// BIRD on a host; dropping it kills it.
#[derive(Debug)]
pub struct Bird {
    host: Host,
    process: Process,
}

impl Bird {
    /// Starts it with this configuration. Ready when it answers `birdc`.
    pub async fn start(host: &Host, config: &str) -> Result<Self, LabError> {
        write(host, &host.run_dir().join("bird.conf"), config)?;
        let mut command = host.command("bird")?;
        command.args(["-f", "-c", FILE, "-s", SOCKET, "-P", "/run/bird.pid"]);
        let bird = Self {
            host: host.clone(),
            process: host.spawn("bird", command)?,
        };
        let what = format!("BIRD of {} to answer", host.name());
        wait_for(SOON, &what, async || {
            bird.ask("show status")
                .map_err(|e| crate::sandbox::chain(&e))
        })
        .await
        .map_err(|e| LabError::io(host.name(), "start BIRD", std::io::Error::other(e)))?;
        Ok(bird)
    }

    /// What `birdc` prints.
    pub fn ask(&self, command: &str) -> Result<String, LabError> {
        let mut birdc = self.host.command("birdc")?;
        birdc.args(["-s", SOCKET]);
        birdc.args(command.split_whitespace());
        output(&self.host, birdc)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
