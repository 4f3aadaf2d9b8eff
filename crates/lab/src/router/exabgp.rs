//! ExaBGP 4: a peer that says whatever bytes it is told to say, and shows what it heard.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;

use super::write;
use crate::{Host, LabError, Process, wait_for};

/// As the daemon sees them, on its own host.
const FILE: &str = "/run/exabgp.conf";
const COMMANDS: &str = "exabgp.commands";
const EVENTS: &str = "exabgp.events";
/// How long the daemon may take to have started its helper.
const SOON: Duration = Duration::from_secs(30);

/// ExaBGP on a host; dropping it kills it.
#[derive(Debug)]
pub struct ExaBgp {
    host: Host,
    process: Process,
    commands: File,
}

impl ExaBgp {
    /// Starts it with the neighbours of this configuration; it listens on `listen`. In each of
    /// them, `api { processes [ lab ]; … }` says what [`ExaBgp::events`] shows.
    pub async fn start(host: &Host, listen: &str, neighbours: &str) -> Result<Self, LabError> {
        let dir = host.run_dir();
        let helper = format!(
            "tail -n +1 -f /run/{COMMANDS} & echo ready >/run/exabgp.ready; exec cat >/run/{EVENTS}"
        );
        let script = dir.join("exabgp.sh");
        write(host, &script, &format!("#!/bin/sh\n{helper}\n"))?;
        let failed = |what: &str| {
            let what = what.to_owned();
            move |e| LabError::io(host.name(), what, e)
        };
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))
            .map_err(failed("make ExaBGP's helper a program"))?;
        let config = format!("process lab {{ run /run/exabgp.sh; encoder json; }}\n{neighbours}\n");
        write(host, &dir.join("exabgp.conf"), &config)?;
        let commands = File::options()
            .create(true)
            .append(true)
            .open(dir.join(COMMANDS))
            .map_err(failed("make ExaBGP's commands"))?;
        let mut command = host.command("exabgp")?;
        command.arg(FILE);
        for (name, value) in [
            ("exabgp_daemon_drop", "false"),
            ("exabgp_daemon_user", "root"),
            ("exabgp_api_cli", "false"),
            ("exabgp_api_ack", "false"),
            ("exabgp_tcp_bind", listen),
            ("exabgp_reactor_speed", "0.1"),
            ("exabgp_log_packets", "true"),
        ] {
            command.env(name, value);
        }
        let router = Self {
            host: host.clone(),
            process: host.spawn("exabgp", command)?,
            commands,
        };
        let what = format!("the helper of ExaBGP on {}", host.name());
        let ready = dir.join("exabgp.ready");
        wait_for(SOON, &what, async || match ready.exists() {
            true => Ok(()),
            false => Err(router.process.log()),
        })
        .await
        .map_err(|e| LabError::io(host.name(), "start ExaBGP", std::io::Error::other(e)))?;
        Ok(router)
    }

    /// Gives a command of its API (`announce route …`).
    pub fn tell(&mut self, command: &str) -> Result<(), LabError> {
        writeln!(self.commands, "{command}")
            .map_err(|e| LabError::io(self.host.name(), "command ExaBGP", e))
    }

    /// What it has told its helper so far, a JSON object each.
    pub fn events(&self) -> Vec<Value> {
        let read = std::fs::read(self.host.run_dir().join(EVENTS)).unwrap_or_default();
        let text = String::from_utf8_lossy(&read);
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.collect()
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
