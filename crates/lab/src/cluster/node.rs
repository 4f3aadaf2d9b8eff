//! A node: a host of the lab whose processes see a machine of their own, with containerd, a
//! kubelet and, if wanted, kube-proxy.
//!
//! ```text
//! host (network, host name, /run)
//!   └─ unshare: mounts and PIDs of its own ── sh, PID 1: lays out the mounts, then reaps
//!        ├─ containerd ── shims ── Pods
//!        ├─ kubelet
//!        └─ kube-proxy
//! ```
//!
//! When `unshare` dies its PID 1 does, and with that the kernel kills everything on the node.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::config::{self, Network};
use super::parts::{PATH, Parts};
use super::{ClusterError, Proxy};
use crate::{Host, Lab, Process, wait_for};

/// Lays out a node's mounts. Its argument is the node's folder.
const INIT: &str = include_str!("node.sh");
/// Written at the end of `INIT`'s work, in the host's `/run`.
const READY: &str = "node-ready";
/// Seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Files that the kubelet wants to see in `/proc/sys`, with what it wants to see in them: the
/// node gets copies, because the settings are the whole machine's.
const SYSCTLS: [(&str, &str); 6] = [
    ("vm.overcommit_memory", "1"),
    ("vm.panic_on_oom", "0"),
    ("kernel.panic", "10"),
    ("kernel.panic_on_oops", "1"),
    ("kernel.keys.root_maxkeys", "1000000"),
    ("kernel.keys.root_maxbytes", "25000000"),
];

/// A node of a cluster. Dropping it switches it off.
#[derive(Debug)]
pub struct Node {
    host: Host,
    parts: Parts,
    /// Its files: configuration, `/etc`, `/var`, images and containers.
    dir: PathBuf,
    addresses: Vec<IpAddr>,
    kubeconfig: PathBuf,
    proxy_kubeconfig: PathBuf,
    // In the order in which they are to be dropped.
    kube_proxy: Option<Process>,
    kubelet: Option<Process>,
    containerd: Option<Process>,
    init: Process,
}

/// What a node needs to know of its cluster.
pub(super) struct Member<'a> {
    pub(super) host: Host,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) network: &'a Network,
    /// Its number, from 1.
    pub(super) number: u8,
    /// Where its containers' cgroups are.
    pub(super) cgroup: &'a Path,
}

impl Node {
    /// Makes the node's machine and starts containerd, which loads its images meanwhile.
    pub(super) async fn boot(
        lab: &Lab,
        parts: &Parts,
        member: Member<'_>,
    ) -> Result<Self, ClusterError> {
        let host = member.host.clone();
        let dir = lab.dir().join(host.name());
        write_files(&dir, &member).map_err(|e| ClusterError::io(&dir, e))?;
        let dir = dir.canonicalize().map_err(|e| ClusterError::io(&dir, e))?;
        let mut command = host.command("unshare")?;
        command
            .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
            .args(["sh", "-c", INIT, "node"])
            .arg(&dir)
            .env("PATH", PATH);
        let init = host.spawn("init", command)?;
        let mut node = Self {
            parts: parts.clone(),
            dir,
            addresses: member.addresses,
            kubeconfig: PathBuf::new(),
            proxy_kubeconfig: PathBuf::new(),
            kube_proxy: None,
            kubelet: None,
            containerd: None,
            init,
            host,
        };
        let (ready, init) = (node.host.run_dir().join(READY), &mut node.init);
        let laid_out = wait_for(PATIENCE, "the node's mounts", async || {
            match (ready.is_file(), init.try_wait()) {
                (true, _) => Ok(None),
                (false, Ok(None)) => Err("not yet".to_owned()),
                (false, Ok(Some(_))) => Ok(Some(init.log())),
                (false, Err(e)) => Err(e.to_string()),
            }
        });
        if let Some(log) = laid_out.await? {
            return Err(ClusterError::Node {
                node: node.host.name().to_owned(),
                what: "lay out its mounts",
                log,
            });
        }
        node.start_containerd()?;
        Ok(node)
    }

    /// Its name, which is its Node's.
    #[must_use]
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// Its network: segments, addresses, probes. [`Host::command`] sees its network but not its
    /// files; [`Node::command`] sees both.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its addresses, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// A command that runs on the node: its network, processes, files and mounts.
    ///
    /// # Errors
    /// When the host cannot be entered.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command, ClusterError> {
        let mut command = self.host.command("nsenter")?;
        command
            .args(enter(self.init.pid()))
            // nsenter waits for the program, which must not outlive it.
            .args(["setpriv", "--pdeathsig", "TERM"])
            .arg(program.as_ref())
            .env("PATH", self.parts.path());
        Ok(command)
    }

    /// `ctr` with these arguments on the node, in Kubernetes' namespace of containerd.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn ctr(&self, args: &[&str]) -> Result<String, ClusterError> {
        let output = finished(self.ctr_command(args)?).await;
        let output = output.map_err(|e| ClusterError::io(&self.parts.ctr, e))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(ClusterError::Node {
            node: self.name().to_owned(),
            what: "run ctr",
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn ctr_command(&self, args: &[&str]) -> Result<Command, ClusterError> {
        let mut command = self.command(&self.parts.ctr)?;
        command.args(["--namespace", "k8s.io"]).args(args);
        Ok(command)
    }

    /// Imports an image archive (`docker save`'s or OCI's).
    pub(super) async fn load_image(&self, archive: &Path) -> Result<(), ClusterError> {
        let archive = archive.to_string_lossy();
        let import = ["image", "import", "--local", &archive];
        self.ctr(&import).await.map(drop)
    }

    fn start_containerd(&mut self) -> Result<(), ClusterError> {
        let mut command = self.command(&self.parts.containerd)?;
        command.args(["--config", "/etc/containerd/config.toml"]);
        self.containerd = Some(self.host.spawn("containerd", command)?);
        Ok(())
    }

    /// Waits until containerd serves.
    pub(super) async fn runtime_ready(&mut self) -> Result<(), ClusterError> {
        let socket = self.host.run_dir().join("containerd/containerd.sock");
        let name = self.host.name().to_owned();
        if let Some(containerd) = &mut self.containerd {
            let what = format!("containerd on {name}");
            let ended = wait_for(PATIENCE, &what, async || {
                if let Ok(Some(_)) = containerd.try_wait() {
                    return Ok(Some(containerd.log()));
                }
                match std::os::unix::net::UnixStream::connect(&socket) {
                    Ok(_) => Ok(None),
                    Err(e) => Err(e.to_string()),
                }
            });
            if let Some(log) = ended.await? {
                return Err(ClusterError::ended(&name, "containerd", &log));
            }
        }
        Ok(())
    }

    /// Starts the kubelet, and kube-proxy.
    pub(super) fn join(
        &mut self,
        kubeconfig: PathBuf,
        proxy_kubeconfig: PathBuf,
        proxy: Proxy,
        network: &Network,
    ) -> Result<(), ClusterError> {
        (self.kubeconfig, self.proxy_kubeconfig) = (kubeconfig, proxy_kubeconfig);
        self.start_kubelet()?;
        if proxy == Proxy::Nftables {
            let mut command = self.command(&self.parts.kubernetes)?;
            command
                .arg("kube-proxy")
                .arg(format!("--kubeconfig={}", self.proxy_kubeconfig.display()))
                .arg(format!("--hostname-override={}", self.name()))
                .arg(format!("--cluster-cidr={}", network.pod_ranges()))
                .args(config::KUBE_PROXY);
            self.kube_proxy = Some(self.host.spawn("kube-proxy", command)?);
        }
        Ok(())
    }

    /// Starts the kubelet, at first and after [`Node::stop_kubelet`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_kubelet(&mut self) -> Result<(), ClusterError> {
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        let mut command = self.command(&self.parts.kubernetes)?;
        command
            .arg("kubelet")
            .arg(format!("--kubeconfig={}", self.kubeconfig.display()))
            .args(["--config=/etc/kubelet.yaml", "--root-dir=/var/lib/kubelet"])
            .arg(format!("--hostname-override={}", self.name()))
            .arg(format!("--node-ip={}", addresses.join(",")));
        self.kubelet = Some(self.host.spawn("kubelet", command)?);
        Ok(())
    }

    /// Stops the kubelet; containers go on.
    pub fn stop_kubelet(&mut self) {
        self.kubelet = None;
    }

    /// Power off: silent first, then every process on it and in its Pods is killed at once.
    ///
    /// # Errors
    /// When its segment cannot be told.
    pub async fn kill(&mut self) -> Result<(), ClusterError> {
        self.host.cut().await?;
        self.init.kill();
        self.kube_proxy = None;
        self.kubelet = None;
        self.containerd = None;
        Ok(())
    }

    /// Its PID 1's parent, whose namespaces are the node's; the PID is the sandbox's.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.init.pid()
    }

    /// The first process that has ended and should not have, with its log.
    pub(super) fn dead(&mut self) -> Option<ClusterError> {
        let name = self.host.name();
        let parts = [
            ("containerd", &mut self.containerd),
            ("kubelet", &mut self.kubelet),
            ("kube-proxy", &mut self.kube_proxy),
        ];
        parts.into_iter().find_map(|(part, process)| {
            let process = process.as_mut()?;
            let ended = process.try_wait().ok().flatten()?;
            let log = format!("({ended})\n{}", process.log());
            Some(ClusterError::ended(name, part, &log))
        })
    }

    /// Where its logs are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// nsenter's arguments for a node by the PID of its `unshare`, whose children are the node's.
pub(super) fn enter(pid: u32) -> [String; 4] {
    [
        format!("--target={pid}"),
        "--mount".to_owned(),
        "--uts".to_owned(),
        format!("--pid=/proc/{pid}/ns/pid_for_children"),
    ]
}

/// Runs a command to its end, on a thread of its own: the lab's back ends live on this one.
pub(super) async fn finished(mut command: Command) -> io::Result<Output> {
    command.stdin(Stdio::null());
    let done = tokio::task::spawn_blocking(move || command.output()).await;
    done.map_err(io::Error::other).flatten()
}

fn write_files(dir: &Path, member: &Member<'_>) -> io::Result<()> {
    let etc = dir.join("etc");
    let data = ["containerd", "kubelet", "cni"].map(|name| dir.join("lib").join(name));
    let folders = [etc.join("containerd"), etc.join("cni/net.d")];
    let work = ["etc.work", "var", "var.work", "sys"].map(|name| dir.join(name));
    for folder in folders.iter().chain(&data).chain(&work) {
        fs::create_dir_all(folder)?;
    }
    let cgroup = Path::new("/").join(member.cgroup);
    for (path, text) in [
        ("containerd/config.toml", config::containerd()),
        ("kubelet.yaml", config::kubelet(&cgroup, member.network)),
        (
            "cni/net.d/10-lab.conflist",
            config::cni(member.network, member.number),
        ),
        // Pods that use the node's resolver get none.
        ("resolv.node", String::new()),
    ] {
        fs::write(etc.join(path), text)?;
    }
    for (name, value) in SYSCTLS {
        fs::write(dir.join("sys").join(name), format!("{value}\n"))?;
    }
    Ok(())
}
