//! A node: a host of the lab whose processes see a machine of their own, with containerd, a
//! kubelet and, if wanted, kube-proxy or Corten's agent.
//!
//! ```text
//! host (network, host name, /run)
//!   └─ unshare: mounts and PIDs of its own ── sh, PID 1: lays out the mounts, then reaps
//!        ├─ containerd ── shims ── Pods
//!        ├─ kubelet
//!        └─ kube-proxy, corten agent
//! ```
//!
//! When `unshare` dies its PID 1 does, and with that the kernel kills everything on the node.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::config::{self, Network};
use super::parts::{PATH, Parts};
use super::{ClusterError, Proxy, cgroups};
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
    /// Below it are its containers'.
    cgroup: PathBuf,
    joined: Option<Joined>,
    // In the order in which they are to be dropped.
    loading: Option<Process>,
    kube_proxy: Option<Process>,
    agent: Option<Process>,
    kubelet: Option<Process>,
    containerd: Option<Process>,
    /// `unshare`, while the power is on.
    init: Option<Process>,
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

/// How its kubelet and kube-proxy are started.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    pub(super) kubeconfig: PathBuf,
    pub(super) proxy: Proxy,
    pub(super) proxy_kubeconfig: PathBuf,
    pub(super) agent_kubeconfig: PathBuf,
    /// The API server's own address.
    pub(super) server: SocketAddr,
    /// All Pods' ranges.
    pub(super) pod_ranges: &'static str,
}

impl Node {
    /// Makes the node's machine and starts containerd, which loads its images meanwhile.
    pub(super) async fn boot(
        lab: &Lab,
        parts: &Parts,
        member: Member<'_>,
    ) -> Result<Self, ClusterError> {
        let dir = lab.dir().join(member.host.name());
        write_files(&dir, &member).map_err(|e| ClusterError::io(&dir, e))?;
        let dir = dir.canonicalize().map_err(|e| ClusterError::io(&dir, e))?;
        let mut node = Self {
            parts: parts.clone(),
            dir,
            addresses: member.addresses,
            cgroup: member.cgroup.to_owned(),
            joined: None,
            loading: None,
            kube_proxy: None,
            agent: None,
            kubelet: None,
            containerd: None,
            init: None,
            host: member.host,
        };
        node.power_on().await?;
        node.load_all()?;
        Ok(node)
    }

    /// Its cgroup, its mounts and containerd.
    async fn power_on(&mut self) -> Result<(), ClusterError> {
        // Those of containers that are no more would keep the kubelet busy for a while.
        let fresh = cgroups::remove(&self.cgroup).and_then(|()| cgroups::create(&self.cgroup));
        fresh.map_err(|source| ClusterError::Cgroup {
            name: self.cgroup.display().to_string(),
            source,
        })?;
        let mut command = self.host.command("unshare")?;
        command
            .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
            .args(["sh", "-c", INIT, "node"])
            .arg(&self.dir)
            .env("PATH", PATH);
        let init = self.init.insert(self.host.spawn("init", command)?);
        let ready = self.host.run_dir().join(READY);
        let laid_out = wait_for(PATIENCE, "the node's mounts", async || {
            match (ready.is_file(), init.try_wait()) {
                (true, _) => Ok(None),
                (false, Ok(None)) => Err("not yet".to_owned()),
                (false, Ok(Some(_))) => Ok(Some(init.log())),
                (false, Err(e)) => Err(e.to_string()),
            }
        });
        if let Some(log) = laid_out.await? {
            return Err(self.cannot("lay out its mounts", log));
        }
        let mut command = self.command(&self.parts.containerd)?;
        command.args(["--config", "/etc/containerd/config.toml"]);
        self.containerd = Some(self.host.spawn("containerd", command)?);
        self.runtime_ready().await
    }

    fn cannot(&self, what: &'static str, log: String) -> ClusterError {
        ClusterError::Node {
            node: self.name().to_owned(),
            what,
            log,
        }
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
    /// When its power is off, or its host cannot be entered.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command, ClusterError> {
        let pid = self.pid().ok_or_else(|| self.host.lacks("power"))?;
        let mut command = self.host.command("nsenter")?;
        command
            .args(enter(pid))
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
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(self.cannot("run ctr", said))
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

    /// Gives an image that it has one more name; both are full ones.
    pub(super) async fn tag_image(&self, from: &str, to: &str) -> Result<(), ClusterError> {
        let tag = ["image", "tag", from, to];
        self.ctr(&tag).await.map(drop)
    }

    /// Begins to import the images that every node has; [`Node::loaded`] waits for the end.
    fn load_all(&mut self) -> Result<(), ClusterError> {
        let each =
            "for image do ctr --namespace k8s.io image import --local \"$image\" || exit; done";
        let mut command = self.command("sh")?;
        let ctr = self.parts.ctr.parent().unwrap_or_else(|| Path::new("/"));
        command
            .args(["-c", each, "sh"])
            .args(&self.parts.images)
            .env("PATH", format!("{}:{PATH}", ctr.display()));
        self.loading = Some(self.host.spawn("images", command)?);
        Ok(())
    }

    /// Waits until all images are there.
    pub(super) async fn loaded(&mut self) -> Result<(), ClusterError> {
        let Some(mut loading) = self.loading.take() else {
            return Ok(());
        };
        let status = loading.wait(PATIENCE).await?;
        match status.success() {
            true => Ok(()),
            false => Err(self.cannot("load its images", loading.log())),
        }
    }

    /// Waits until containerd serves.
    async fn runtime_ready(&mut self) -> Result<(), ClusterError> {
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

    /// Starts the kubelet, and who carries Services' traffic.
    pub(super) fn join(&mut self, joined: Joined) -> Result<(), ClusterError> {
        let proxy = joined.proxy;
        self.joined = Some(joined);
        self.start_kubelet()?;
        self.start_proxy(proxy)
    }

    /// Starts the kubelet, at first and after [`Node::stop_kubelet`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_kubelet(&mut self) -> Result<(), ClusterError> {
        let Some(joined) = &self.joined else {
            return Ok(());
        };
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        let mut command = self.command(&self.parts.kubernetes)?;
        command
            .arg("kubelet")
            .arg(format!("--kubeconfig={}", joined.kubeconfig.display()))
            .args(["--config=/etc/kubelet.yaml", "--root-dir=/var/lib/kubelet"])
            .arg(format!("--hostname-override={}", self.name()))
            .arg(format!("--node-ip={}", addresses.join(",")));
        self.kubelet = Some(self.host.spawn("kubelet", command)?);
        Ok(())
    }

    /// Starts who carries Services' traffic, also beside another one; it is who comes up when the
    /// node is switched on again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_proxy(&mut self, proxy: Proxy) -> Result<(), ClusterError> {
        let Some(joined) = &mut self.joined else {
            return Ok(());
        };
        joined.proxy = proxy;
        let joined = joined.clone();
        let pods = joined.pod_ranges;
        match proxy {
            Proxy::None => {}
            Proxy::Nftables | Proxy::Iptables => {
                let mode = match proxy {
                    Proxy::Iptables => "--proxy-mode=iptables",
                    _ => "--proxy-mode=nftables",
                };
                let mut command = self.command(&self.parts.kubernetes)?;
                command
                    .arg("kube-proxy")
                    .arg(format!(
                        "--kubeconfig={}",
                        joined.proxy_kubeconfig.display()
                    ))
                    .arg(format!("--hostname-override={}", self.name()))
                    .arg(format!("--cluster-cidr={pods}"))
                    .arg(mode)
                    .args(config::KUBE_PROXY);
                self.kube_proxy = Some(self.host.spawn("kube-proxy", command)?);
            }
            Proxy::Corten => {
                let mut command = self.command(crate::bin("corten")?)?;
                command
                    .arg("agent")
                    .arg(format!(
                        "--kubeconfig={}",
                        joined.agent_kubeconfig.display()
                    ))
                    .arg(format!("--api-server=https://{}", joined.server))
                    .arg(format!("--node-name={}", self.name()))
                    .arg(format!("--cluster-cidr={pods}"))
                    .args(["--forward=all", "--http-address=127.0.0.1:17472"]);
                self.agent = Some(self.host.spawn("agent", command)?);
            }
        }
        Ok(())
    }

    /// Kills that one, if it runs; what it has put into the kernel stays.
    pub fn stop_proxy(&mut self, proxy: Proxy) {
        match proxy {
            Proxy::None => {}
            Proxy::Nftables | Proxy::Iptables => self.kube_proxy = None,
            Proxy::Corten => self.agent = None,
        }
    }

    /// Stops the kubelet; containers go on.
    pub fn stop_kubelet(&mut self) {
        self.kubelet = None;
    }

    /// Power off: silent first, then every process on it and in its Pods is killed at once.
    ///
    /// # Errors
    /// When its segment cannot be told, or a process does not go.
    pub async fn kill(&mut self) -> Result<(), ClusterError> {
        self.host.cut().await?;
        self.switch_off();
        let host = &self.host;
        wait_for(
            PATIENCE,
            "the node's processes to be gone",
            async || match host.processes() {
                Ok(left) if left.is_empty() => Ok(()),
                left => Err(format!("{left:?}")),
            },
        )
        .await?;
        Ok(())
    }

    fn switch_off(&mut self) {
        // The first ends all others.
        self.init = None;
        self.loading = None;
        self.kube_proxy = None;
        self.agent = None;
        self.kubelet = None;
        self.containerd = None;
    }

    /// Power on again after [`Node::kill`]: what was in memory is lost, disks are as they were.
    ///
    /// # Errors
    /// As [`super::Cluster::up`].
    pub async fn start(&mut self) -> Result<(), ClusterError> {
        let run = self.host.run_dir().to_owned();
        empty(&run).map_err(|e| ClusterError::io(&run, e))?;
        self.host.heal().await?;
        self.power_on().await?;
        self.start_kubelet()?;
        match self.joined.as_ref().map(|joined| joined.proxy) {
            Some(proxy) => self.start_proxy(proxy),
            None => Ok(()),
        }
    }

    /// The process whose namespaces are the node's, as the sandbox numbers it, while the power is
    /// on.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.init.as_ref().map(Process::pid)
    }

    /// The first process that has ended and should not have, with its log.
    pub(super) fn dead(&mut self) -> Option<ClusterError> {
        let name = self.host.name();
        let parts = [
            ("containerd", &mut self.containerd),
            ("kubelet", &mut self.kubelet),
            ("kube-proxy", &mut self.kube_proxy),
            ("corten", &mut self.agent),
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

impl Drop for Node {
    fn drop(&mut self) {
        self.switch_off();
    }
}

/// Removes what is in a folder.
fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
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
