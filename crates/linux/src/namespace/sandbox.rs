//! Starting a sandbox and waiting for it.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};

use super::init::{self, Plan, Step, Strings};

/// Why a sandbox could not be started or watched.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel refuses namespaces to this user: neither root nor user namespaces.
    #[error(
        "no right to make a sandbox (needs root or unprivileged user namespaces): cannot {step}"
    )]
    Denied {
        /// What was refused.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something else failed.
    #[error("sandbox: cannot {step}")]
    Failed {
        /// What failed.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A string with a zero byte cannot be handed to the kernel.
    #[error("sandbox: argument or variable {0:?} has a zero byte in it")]
    ZeroByte(OsString),
}

impl SandboxError {
    /// True when this user may not make sandboxes here at all.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }

    fn new(step: &'static str, source: io::Error) -> Self {
        use io::ErrorKind::{PermissionDenied, StorageFull, Unsupported};
        let denied = [PermissionDenied, StorageFull, Unsupported];
        // ENOSPC is the answer when the number of user namespaces is limited to nothing.
        if denied.contains(&source.kind()) {
            Self::Denied { step, source }
        } else {
            Self::Failed { step, source }
        }
    }
}

/// A program to run in namespaces of its own; see the module's documentation.
///
/// Inside, `/run` is a private tmpfs, `/proc` shows the sandbox's processes only, and the program
/// is PID 2, a child of a small PID 1 that reaps orphans. PID 1 dies with the thread that called
/// [`Sandbox::spawn`], on SIGINT, SIGTERM and SIGHUP, and with the program.
#[derive(Debug)]
pub struct Sandbox {
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    output: Option<OwnedFd>,
}

impl Sandbox {
    /// A sandbox for the program at this path.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
            output: None,
        }
    }

    /// A sandbox that runs the calling program again.
    pub fn current_exe() -> Result<Self, SandboxError> {
        std::env::current_exe()
            .map(Self::new)
            .map_err(|e| SandboxError::new("find the own program", e))
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets a variable; the others are inherited.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.envs.push((key.into(), value.into()));
        self
    }

    /// Sends stdout and stderr here instead of the caller's own.
    #[must_use]
    pub fn output(mut self, output: OwnedFd) -> Self {
        self.output = Some(output);
        self
    }

    /// Starts the sandbox. When this returns, the program has been executed inside.
    pub fn spawn(self) -> Result<SandboxChild, SandboxError> {
        let mut flags = libc::CLONE_NEWPID
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWIPC;
        if rustix::process::geteuid().is_root() {
            match self.try_spawn(flags, None) {
                // Root in a container without the right: a user namespace may still be allowed.
                Err(e) if e.is_denied() => {}
                other => return other,
            }
        }
        flags |= libc::CLONE_NEWUSER;
        let map = |id: u32| format!("0 {id} 1").into_bytes();
        let ids = (
            map(rustix::process::geteuid().as_raw()),
            map(rustix::process::getegid().as_raw()),
        );
        self.try_spawn(flags, Some(ids))
    }

    fn try_spawn(
        &self,
        flags: i32,
        id_maps: Option<(Vec<u8>, Vec<u8>)>,
    ) -> Result<SandboxChild, SandboxError> {
        let null = File::open("/dev/null").map_err(|e| SandboxError::new("open /dev/null", e))?;
        let (alive, alive_parent) = pipe()?;
        let (mut errors, errors_child) = pipe()?;
        let plan = Plan {
            program: c_string(self.program.as_os_str())?,
            argv: self.argv()?,
            envp: self.envp()?,
            id_maps,
            output: self.output.as_ref().map(AsRawFd::as_raw_fd),
            null: null.as_raw_fd(),
            alive: alive.as_raw_fd(),
            alive_parent: alive_parent.as_raw_fd(),
            errors: errors_child.as_raw_fd(),
        };
        let pid =
            init::start(flags, &plan).map_err(|e| SandboxError::new("make the namespaces", e))?;
        drop(errors_child);
        let child = SandboxChild::new(pid)?;
        let mut report = Vec::new();
        errors
            .read_to_end(&mut report)
            .map_err(|e| SandboxError::new("hear from the sandbox", e))?;
        match report.as_slice() {
            [] => Ok(child),
            [step, errno @ ..] => {
                let errno = <[u8; 4]>::try_from(errno).map_or(0, i32::from_ne_bytes);
                let source = io::Error::from_raw_os_error(errno);
                let (step, rights) = Step::from_byte(*step);
                Err(if rights {
                    SandboxError::new(step, source)
                } else {
                    SandboxError::Failed { step, source }
                })
            }
        }
    }

    fn argv(&self) -> Result<Strings, SandboxError> {
        let all = std::iter::once(self.program.as_os_str())
            .chain(self.args.iter().map(OsString::as_os_str));
        all.map(c_string)
            .collect::<Result<_, _>>()
            .map(Strings::new)
    }

    fn envp(&self) -> Result<Strings, SandboxError> {
        let inherited =
            std::env::vars_os().filter(|(key, _)| self.envs.iter().all(|(k, _)| k != key));
        let all = inherited
            .chain(self.envs.iter().cloned())
            .map(|(mut pair, value)| {
                pair.push("=");
                pair.push(value);
                c_string(&pair)
            });
        all.collect::<Result<_, _>>().map(Strings::new)
    }
}

/// A running sandbox: its PID 1, as the caller sees it. Dropping it ends the sandbox.
#[derive(Debug)]
pub struct SandboxChild {
    pid: Pid,
    pidfd: OwnedFd,
    ended: Option<ExitStatus>,
}

impl SandboxChild {
    fn new(pid: i32) -> Result<Self, SandboxError> {
        let step = "watch the sandbox's first process";
        let pid = Pid::from_raw(pid)
            .ok_or_else(|| SandboxError::new(step, io::ErrorKind::InvalidInput.into()))?;
        let pidfd =
            pidfd_open(pid, PidfdFlags::empty()).map_err(|e| SandboxError::new(step, e.into()))?;
        Ok(Self {
            pid,
            pidfd,
            ended: None,
        })
    }

    /// The first process, numbered in the caller's PID namespace.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Kills the first process, and with it everything inside.
    pub fn kill(&self) -> io::Result<()> {
        if self.ended.is_none() {
            Ok(kill_process(self.pid, Signal::KILL)?)
        } else {
            Ok(())
        }
    }

    /// Waits for the end. When this returns, no process of the sandbox is left: the kernel lets
    /// PID 1 be reaped only after all others are gone.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.ended {
                return Ok(status);
            }
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Ok(Some((_, status))) => self.ended = Some(ExitStatus::from_raw(status.as_raw())),
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Waits for the end for so long; `None` when it still runs.
    pub fn wait_timeout(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let Some(end) = std::time::Instant::now().checked_add(limit) else {
            return self.wait().map(Some);
        };
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Ok(None),
                Ok(_) => return self.wait().map(Some),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Drop for SandboxChild {
    fn drop(&mut self) {
        let _ = self.kill();
        let _ = self.wait();
    }
}

fn pipe() -> Result<(File, OwnedFd), SandboxError> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors, which nobody else owns yet.
    let (read, write) = unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) < 0 {
            return Err(SandboxError::new("make a pipe", io::Error::last_os_error()));
        }
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    };
    Ok((File::from(read), write))
}

fn c_string(text: &OsStr) -> Result<CString, SandboxError> {
    CString::new(text.as_bytes()).map_err(|_| SandboxError::ZeroByte(text.to_owned()))
}
