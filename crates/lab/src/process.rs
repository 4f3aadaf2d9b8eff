//! Processes on hosts.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::error::LabError;
use crate::wait::{WaitError, wait_for};

/// A process with its log. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    pub(crate) fn spawn(name: &str, mut command: Command, log: PathBuf) -> Result<Self, LabError> {
        let failed = |what: String, e| LabError::io(name, what, e);
        let file = File::options().create(true).append(true).open(&log);
        let file = file.map_err(|e| failed(format!("write {}", log.display()), e))?;
        let second = file
            .try_clone()
            .map_err(|e| failed("share the log".to_owned(), e))?;
        command.stdin(Stdio::null()).stdout(file).stderr(second);
        let program = command.get_program().to_owned();
        let child = command
            .spawn()
            .map_err(|e| failed(format!("start {}", program.display()), e))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Its PID in the sandbox.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log file.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        let read = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Its status if it has ended.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end.
    pub async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus, WaitError> {
        let what = format!("the end of {}", self.name);
        wait_for(deadline, &what, async || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("runs".to_owned()),
            Err(e) => Err(e.to_string()),
        })
        .await
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        signal(self.pid(), Signal::TERM);
    }

    /// Stops it where it is (SIGSTOP): alive, and silent.
    pub fn freeze(&self) {
        signal(self.pid(), Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) {
        signal(self.pid(), Signal::CONT);
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

fn signal(pid: u32, signal: Signal) {
    // A process that is gone needs no signal.
    let _ = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .map(|pid| kill_process(pid, signal));
}
