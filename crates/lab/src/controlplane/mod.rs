//! A real Kubernetes control plane inside the lab: etcd, kube-apiserver and
//! kube-controller-manager as processes of one host, kubectl for every host.
//!
//! There are no kubelets: the lab plays them ([`Api::create_node`],
//! [`Api::run_pod`]), and the real controllers react as in a cluster.
//!
//! Owns: its folder below the lab's, with all data, kubeconfigs and logs (one
//! per process); its processes, which end with the value, and in any case with
//! the sandbox. The binary is that of `lab/controlplane`; see [`ensure_built`].
//!
//! ```text
//!   host "api": etcd ◄── kube-apiserver ◄── kube-controller-manager
//!                          ▲        ▲
//!        https://ADDRESS:6443     kubectl proxy ◄── api.sock ◄── Api (this process)
//!   kubectl, corten on any host
//! ```

mod api;
mod build;
mod files;
mod kubelet;
mod parts;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

pub use api::{Api, ApiError, Patch};
pub use build::{BuildError, binary_or_skip, ensure_built};
pub use files::Account;
pub use kubelet::PodName;

use files::Files;
use parts::Part;

const PORT: u16 = 6443;
/// Some 4 s on an idle machine with 2 cores.
const READY: Duration = Duration::from_secs(90);

/// Why the control plane does not run.
#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    /// A file or process could not be made.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or program.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A process ended too early.
    #[error("{part} ended ({status}); its log ends:\n{log}")]
    Ended {
        /// The process.
        part: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The API server did not become ready in time.
    #[error("the API server is not ready after {} s", READY.as_secs())]
    NotReady {
        /// What the last try gave.
        source: ApiError,
    },
}

/// A running control plane. Dropping it ends its processes.
#[derive(Debug)]
pub struct ControlPlane {
    binary: PathBuf,
    files: Files,
    server: SocketAddr,
    api: Api,
    processes: Vec<Process>,
}

impl ControlPlane {
    /// Starts the control plane on a host and waits until `/readyz` is ok and
    /// the namespace `default` exists.
    ///
    /// `binary` is what [`ensure_built`] gave; `dir` a folder that does not
    /// exist yet and that every host sees under this name; `address` one of
    /// the host's that the other hosts reach; `on_host` makes a command that
    /// runs in the host's namespace.
    ///
    /// # Errors
    /// A process that ended (with the end of its log), or the deadline.
    pub fn start(
        binary: &Path,
        dir: &Path,
        address: IpAddr,
        on_host: impl Fn(&Path) -> Command,
    ) -> Result<Self, ControlPlaneError> {
        let server = SocketAddr::new(address, PORT);
        let files = Files::create(dir, server).map_err(at(dir))?;
        let mut plane = Self {
            binary: binary.to_owned(),
            api: Api::new(files.socket()),
            files,
            server,
            processes: Vec::new(),
        };
        let deadline = Instant::now() + READY;
        plane.spawn(parts::etcd(&plane.files), &on_host)?;
        plane.spawn(parts::api_server(&plane.files, server), &on_host)?;
        // The API server writes its key after its certificate, which the
        // other two read when they start.
        plane.wait(deadline, |plane| {
            let key = plane.files.key();
            fs::metadata(&key).map_err(|source| ApiError::Io {
                method: "read",
                path: key.display().to_string(),
                source,
            })
        })?;
        plane.spawn(parts::proxy(&plane.files), &on_host)?;
        plane.spawn(parts::controller_manager(&plane.files), &on_host)?;
        plane.wait(deadline, |plane| plane.api.ready())?;
        plane.wait(deadline, |plane| {
            plane.api.get("/api/v1/namespaces/default")
        })?;
        Ok(plane)
    }

    /// The API server's address as seen from the segment.
    #[must_use]
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// A client as admin that works from every namespace.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The kubeconfig file of an account, for programs on the lab's hosts.
    #[must_use]
    pub fn kubeconfig(&self, account: Account) -> PathBuf {
        self.files.kubeconfig(account)
    }

    /// Runs kubectl as admin on a host, with `stdin` as its input; the
    /// arguments are kubectl's.
    ///
    /// # Errors
    /// When it could not be started; its exit status is in the output.
    pub fn kubectl(
        &self,
        on_host: impl Fn(&Path) -> Command,
        args: &[&str],
        stdin: &str,
    ) -> Result<Output, ControlPlaneError> {
        let admin = self.files.kubeconfig(Account::Admin);
        let mut child = on_host(&self.binary)
            .arg("kubectl")
            .arg("--kubeconfig")
            .arg(admin)
            .arg("--cache-dir")
            .arg(self.files.cache())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(at(&self.binary))?;
        // kubectl reads all of its input before it prints more than a pipe
        // holds. One that does not want the input closes it.
        if let Some(mut input) = child.stdin.take() {
            match input.write_all(stdin.as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(at(&self.binary)(error));
                }
                _ => {}
            }
        }
        child.wait_with_output().map_err(at(&self.binary))
    }

    /// Ends all processes and waits for them. The folder stays.
    pub fn stop(self) {}

    fn spawn(
        &mut self,
        (name, args): Part,
        on_host: &impl Fn(&Path) -> Command,
    ) -> Result<(), ControlPlaneError> {
        let log = self.files.log(name);
        let output = File::create(&log).map_err(at(&log))?;
        let errors = output.try_clone().map_err(at(&log))?;
        let child = on_host(&self.binary)
            .arg(name)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(at(&self.binary))?;
        self.processes.push(Process { name, child, log });
        Ok(())
    }

    /// Waits until `condition` holds while all processes live.
    fn wait<T>(
        &mut self,
        deadline: Instant,
        condition: impl Fn(&Self) -> Result<T, ApiError>,
    ) -> Result<(), ControlPlaneError> {
        loop {
            let Err(source) = condition(self) else {
                return Ok(());
            };
            for process in &mut self.processes {
                process.alive()?;
            }
            if Instant::now() >= deadline {
                return Err(ControlPlaneError::NotReady { source });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // Clients before servers, so that logs do not end in their complaints.
        for process in self.processes.iter_mut().rev() {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

#[derive(Debug)]
struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    fn alive(&mut self) -> Result<(), ControlPlaneError> {
        match self.child.try_wait().map_err(at(&self.log))? {
            None => Ok(()),
            Some(status) => Err(ControlPlaneError::Ended {
                part: self.name,
                status,
                log: tail(&self.log),
            }),
        }
    }
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.len().saturating_sub(10);
    lines.get(start..).unwrap_or_default().join("\n")
}

fn at(path: &Path) -> impl Fn(io::Error) -> ControlPlaneError + '_ {
    move |source| ControlPlaneError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ends_is_reported_at_once_with_its_log() {
        let dir = std::env::temp_dir().join(format!("lab-ended-{}", std::process::id()));
        let address = IpAddr::from([127, 0, 0, 1]);
        let started = Instant::now();
        // `cat etcd --name=…` complains and ends.
        let error = ControlPlane::start(Path::new("cat"), &dir, address, |path| Command::new(path));
        fs::remove_dir_all(dir).unwrap();
        match error.unwrap_err() {
            ControlPlaneError::Ended { status, log, .. } => {
                assert_eq!(status.code(), Some(1));
                assert!(log.contains("option"), "{log}");
            }
            other => panic!("{other}"),
        }
        assert!(started.elapsed() < READY / 2);
    }
}
