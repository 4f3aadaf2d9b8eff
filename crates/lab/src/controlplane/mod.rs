//! A real Kubernetes control plane inside the lab: etcd, kube-apiserver and
//! kube-controller-manager as processes of one host, kubectl for every host.
//!
//! There are no kubelets: the lab plays them ([`Api::create_node`],
//! [`Api::run_pod`]), and the real controllers react as in a cluster.
//!
//! Owns: the folder `HOST-controlplane` in the lab's (kubeconfigs, certificates);
//! its processes, whose logs are beside those of the lab's other processes and
//! which end with the value, and in any case with the sandbox. The binary is
//! that of `lab/controlplane`; see [`ensure_built`].
//!
//! ```text
//!   host "api": etcd ◄── kube-apiserver ◄── kube-controller-manager
//!                          ▲        ▲
//!        https://ADDRESS:6443     kubectl proxy ◄── api.sock ◄── Api (this process)
//!   kubectl, corten on any host
//! ```

mod api;
pub(crate) mod build;
mod files;
mod kubelet;
mod parts;
mod write;

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

pub use api::{Api, ApiError, Patch};
pub use build::{BuildError, binary_or_skip, ensure_built, ensure_metallb_built};
pub use files::Account;
pub(crate) use files::User;
pub use kubelet::PodName;
pub use write::{Verb, Write};

use crate::{Host, Lab, LabError, Process, WaitError, wait_for};
use files::Files;
use parts::Part;
pub(crate) use parts::{SCHEDULER, SERVICE_RANGE_V4, SERVICE_RANGE_V6, Shape};

const PORT: u16 = 6443;
/// Some 3 s on an idle machine with 2 cores.
const READY: Duration = Duration::from_secs(60);

/// Why the control plane does not run.
#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    /// The host could not start a process.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A file or process could not be used.
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
    #[error(transparent)]
    NotReady(#[from] WaitError),
    /// kubectl said no.
    #[error("kubectl {command}: {status}: {errors}")]
    Kubectl {
        /// Its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed on standard error.
        errors: String,
    },
}

/// A running control plane. Dropping it ends its processes.
#[derive(Debug)]
pub struct ControlPlane {
    binary: PathBuf,
    files: Files,
    shape: Shape,
    server: SocketAddr,
    api: Api,
    processes: Vec<(&'static str, Process)>,
}

impl ControlPlane {
    /// Starts the control plane on a host and waits until `/readyz` is ok and
    /// the namespace `default` exists.
    ///
    /// `binary` is what [`ensure_built`] gave; `address` one of the host's
    /// that the other hosts reach. One to a host.
    ///
    /// # Errors
    /// A process that ended (with the end of its log), or the deadline.
    pub async fn start(
        binary: &Path,
        lab: &Lab,
        host: &Host,
        address: IpAddr,
    ) -> Result<Self, ControlPlaneError> {
        Self::start_shaped(binary, lab, host, address, Shape::default()).await
    }

    /// [`ControlPlane::start`] with an [`ControlPlane::audit_log`], and an API server that does not
    /// stream lists, as older ones: whoever watches lists first.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn start_audited(
        binary: &Path,
        lab: &Lab,
        host: &Host,
        address: IpAddr,
    ) -> Result<Self, ControlPlaneError> {
        let shape = Shape {
            audit: true,
            streamed_lists: false,
            ..Shape::default()
        };
        Self::start_shaped(binary, lab, host, address, shape).await
    }

    /// [`ControlPlane::start`] for real kubelets, too.
    pub(crate) async fn start_shaped(
        binary: &Path,
        lab: &Lab,
        host: &Host,
        address: IpAddr,
        shape: Shape,
    ) -> Result<Self, ControlPlaneError> {
        let server = SocketAddr::new(address, PORT);
        let dir = lab.dir().join(format!("{}-controlplane", host.name()));
        let files = Files::create(&dir, server, &shape.users).map_err(at(&dir))?;
        let mut plane = Self {
            binary: binary.to_owned(),
            api: Api::new(host.run_dir().join(parts::SOCKET)),
            files,
            shape,
            server,
            processes: Vec::new(),
        };
        plane.spawn(host, parts::etcd())?;
        let api_server = parts::api_server(&plane.files, server, &plane.shape);
        plane.spawn(host, api_server)?;
        // The API server writes its key after its certificate, which the
        // other two read when they start.
        let key = plane.files.key();
        plane
            .wait("the API server's key", async |_| match key.is_file() {
                true => Ok(()),
                false => Err(format!("{} is not there", key.display())),
            })
            .await?;
        let proxy = parts::proxy(&plane.files);
        plane.spawn(host, proxy)?;
        plane
            .wait("a ready API server", async |api| {
                api.ready().await.map_err(chain)?;
                let namespace = api.get("/api/v1/namespaces/default").await;
                namespace.map(drop).map_err(chain)
            })
            .await?;
        // They end when the API server takes ten seconds to be ready, which it does on a busy
        // machine.
        plane.start_controllers(host)?;
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

    /// The program that it is, with the cluster's other parts in it (`kube-proxy`).
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The kubeconfig file of an account, for programs on the lab's hosts.
    #[must_use]
    pub fn kubeconfig(&self, account: Account) -> PathBuf {
        self.files.kubeconfig(account)
    }

    /// The audit log, if one is kept; [`crate::rights`] reads it.
    #[must_use]
    pub fn audit_log(&self) -> Option<PathBuf> {
        self.shape.audit.then(|| self.files.audit_log())
    }

    /// The kubeconfig file of one of the cluster's own parts.
    pub(crate) fn kubeconfig_of(&self, name: &str) -> PathBuf {
        self.files.kubeconfig_of(name)
    }

    /// Runs kubectl as admin on a host, with `stdin` as its input, and gives
    /// its exit status and what it printed. The arguments are kubectl's;
    /// another `--kubeconfig` among them wins.
    ///
    /// # Errors
    /// When it could not be started.
    pub async fn kubectl(
        &self,
        host: &Host,
        args: &[&str],
        stdin: &str,
    ) -> Result<Output, ControlPlaneError> {
        let mut command = host.command(&self.binary)?;
        command
            .arg("kubectl")
            .arg("--kubeconfig")
            .arg(self.files.kubeconfig(Account::Admin))
            .arg("--cache-dir")
            .arg(self.files.cache())
            .args(args);
        let stdin = stdin.to_owned();
        // A thread of its own: the lab's back ends live on this one.
        let done = tokio::task::spawn_blocking(move || run(command, &stdin)).await;
        done.map_err(io::Error::other)
            .flatten()
            .map_err(at(&self.binary))
    }

    /// [`ControlPlane::kubectl`] that must succeed; gives its standard output.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn kubectl_ok(
        &self,
        host: &Host,
        args: &[&str],
        stdin: &str,
    ) -> Result<String, ControlPlaneError> {
        let output = self.kubectl(host, args, stdin).await?;
        if !output.status.success() {
            return Err(ControlPlaneError::Kubectl {
                command: args.join(" "),
                status: output.status,
                errors: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Kills the API server, as if its host had crashed; its clients go on without it.
    pub fn stop_api_server(&mut self) {
        self.end(&[parts::API_SERVER]);
    }

    /// Kills these.
    fn end(&mut self, those: &[&str]) {
        for (part, process) in &mut self.processes {
            if those.contains(part) {
                process.kill();
            }
        }
        self.processes.retain(|(part, _)| !those.contains(part));
    }

    /// Starts the API server again after [`ControlPlane::stop_api_server`], with the same data and
    /// certificate, on the host that it was on; returns when it is ready. Kubernetes' controllers
    /// start anew with it, as in a cluster where they lose their lease meanwhile and end: else they
    /// would wait up to half a minute between two looks whether the server is back.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn start_api_server(&mut self, host: &Host) -> Result<(), ControlPlaneError> {
        let api_server = parts::api_server(&self.files, self.server, &self.shape);
        self.spawn(host, api_server)?;
        self.wait("a ready API server", async |api| {
            api.ready().await.map_err(chain)
        })
        .await?;
        self.end(&[parts::CONTROLLER_MANAGER, SCHEDULER]);
        self.start_controllers(host)
    }

    fn start_controllers(&mut self, host: &Host) -> Result<(), ControlPlaneError> {
        let controllers = parts::controller_manager(&self.files, &self.shape);
        self.spawn(host, controllers)?;
        if self.shape.kubelets {
            let scheduler = parts::scheduler(&self.files);
            self.spawn(host, scheduler)?;
        }
        Ok(())
    }

    /// Ends all processes and waits for them. The kubeconfigs and logs stay.
    pub fn stop(mut self) {
        self.kill();
    }

    fn kill(&mut self) {
        // Clients before servers, so that logs do not end in their complaints.
        for (_, process) in self.processes.iter_mut().rev() {
            process.kill();
        }
    }

    fn spawn(&mut self, host: &Host, (part, args): Part) -> Result<(), ControlPlaneError> {
        let mut command = host.command(&self.binary)?;
        command.arg(part).args(args);
        self.processes.push((part, host.spawn(part, command)?));
        Ok(())
    }

    /// Waits until `condition` holds while all processes live.
    async fn wait(
        &mut self,
        what: &str,
        condition: impl AsyncFn(&Api) -> Result<(), String>,
    ) -> Result<(), ControlPlaneError> {
        let Self { api, processes, .. } = self;
        wait_for(READY, what, async || {
            for (part, process) in processes.iter_mut() {
                if let Err(ended) = alive(part, process) {
                    return Ok(Err(ended));
                }
            }
            condition(api).await.map(Ok)
        })
        .await?
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.kill();
    }
}

fn alive(part: &'static str, process: &mut Process) -> Result<(), ControlPlaneError> {
    match process.try_wait().map_err(at(process.log_path()))? {
        None => Ok(()),
        Some(status) => Err(ControlPlaneError::Ended {
            part,
            status,
            log: tail(&process.log()),
        }),
    }
}

/// Runs a command to its end with this input.
fn run(mut command: Command, stdin: &str) -> io::Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // kubectl reads all of its input before it prints more than a pipe holds.
    // One that does not want the input closes it.
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(stdin.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    child.wait_with_output()
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let start = lines.len().saturating_sub(10);
    lines.get(start..).unwrap_or_default().join("\n")
}

fn chain(error: ApiError) -> String {
    crate::sandbox::chain(&error)
}

fn at(path: &Path) -> impl Fn(io::Error) -> ControlPlaneError + '_ {
    move |source| ControlPlaneError::Io {
        path: path.to_owned(),
        source,
    }
}
