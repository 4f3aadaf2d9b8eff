//! Hosts: network namespaces with processes in them.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use linux::namespace::{HostView, NetNs, RUN_DIR};
use linux::netlink::{Interface, Mac, Netlink, Route};
use tokio::task::AbortHandle;

use crate::error::{At, LabError};
use crate::lab::{AT_ONCE, net};
use crate::process::Process;
use crate::segment::Segment;

/// The agents' variable for how fast they find a death: `default`, `fast` or `slow`.
pub(crate) const MEMBER_PROFILE: &str = "CORTEN_MEMBER_PROFILE";

/// A host, router, node or pod. Cloning shares it; two handles are equal when they are the same
/// host.
#[derive(Debug, Clone)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    role: Role,
    ns: NetNs,
    netlink: Netlink,
    /// Where logs go.
    dir: PathBuf,
    /// What its processes see as `/run`.
    run: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ports: Vec<Port>,
    pods: Vec<Host>,
    tasks: Vec<AbortHandle>,
    addresses: Vec<IpAddr>,
}

/// A host's place on a segment.
#[derive(Debug, Clone)]
struct Port {
    segment: Segment,
    addresses: Vec<IpNet>,
}

/// What a host is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends and receives.
    Host,
    /// Forwards too.
    Router,
    /// Forwards, and has routes to all pods.
    Node,
    /// Behind a node.
    Pod,
}

impl PartialEq for Host {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Host {
    pub(crate) async fn new(name: &str, role: Role, dir: &Path) -> Result<Self, LabError> {
        let ns = NetNs::create(name)?;
        let netlink = netlink_in(&ns)?;
        let run = Path::new(RUN_DIR).join("hosts").join(name);
        std::fs::create_dir_all(&run)
            .map_err(|e| LabError::io(name, format!("make {}", run.display()), e))?;
        let (name, dir) = (name.to_owned(), dir.to_owned());
        let host = Self(Arc::new(Inner {
            name,
            role,
            ns,
            netlink,
            dir,
            run,
            state: Mutex::default(),
        }));
        host.prepare().await?;
        Ok(host)
    }

    async fn prepare(&self) -> Result<(), LabError> {
        if self.0.role != Role::Host && self.0.role != Role::Pod {
            // First, as turning it on resets other values.
            self.sysctl("net.ipv4.ip_forward", "1")?;
            self.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        }
        for scope in ["all", "default"] {
            // Otherwise the first second of IPv6 is lost to duplicate detection, and answers that
            // come in where the route does not point are dropped.
            self.sysctl(&format!("net.ipv6.conf.{scope}.accept_dad"), "0")?;
            self.sysctl(&format!("net.ipv6.conf.{scope}.accept_ra"), "0")?;
            self.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0")?;
        }
        // Echo sockets for probes (icmp(7)).
        self.sysctl("net.ipv4.ping_group_range", "0 0")?;
        let lo = self.netlink().index_of("lo").await.at(self.name())?;
        self.netlink().set_up(lo).await.at(self.name())
    }

    /// Its name, which is its host name too.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it is for.
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// Its network namespace.
    pub fn netns(&self) -> &NetNs {
        &self.0.ns
    }

    pub(crate) fn netns_fd(&self) -> BorrowedFd<'_> {
        self.0.ns.as_fd()
    }

    /// Links, addresses and routes of this host.
    pub fn netlink(&self) -> &Netlink {
        &self.0.netlink
    }

    /// The folder that its processes see as `/run`.
    pub fn run_dir(&self) -> &Path {
        &self.0.run
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` on a thread inside, for sockets that belong to this host.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        Ok(self.0.ns.run(f)?)
    }

    /// Runs `f`, which makes a socket or the like, inside and within the tokio runtime.
    pub(crate) fn make<T: Send>(
        &self,
        what: &str,
        f: impl FnOnce() -> io::Result<T> + Send,
    ) -> Result<T, LabError> {
        let runtime = tokio::runtime::Handle::current();
        let made = self.run(|| {
            let _entered = runtime.enter();
            f()
        })?;
        made.map_err(|e| LabError::io(self.name(), what, e))
    }

    /// Writes a setting of its network, by the dotted name (`net.ipv4.ip_forward`).
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), LabError> {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        let written = self.run(|| std::fs::write(&path, value))?;
        written.map_err(|e| LabError::io(self.name(), format!("set {key} to {value}"), e))
    }

    /// Adds an address to one of its interfaces.
    pub async fn add_address(&self, device: &str, address: &str) -> Result<(), LabError> {
        let index = self.netlink().index_of(device).await.at(self.name())?;
        self.add_address_at(index, net(address)?).await
    }

    pub(crate) async fn add_address_at(&self, index: u32, address: IpNet) -> Result<(), LabError> {
        let (ip, prefix) = (address.addr(), address.prefix_len());
        self.netlink()
            .add_address(index, ip, prefix, AT_ONCE)
            .await
            .at(self.name())
    }

    /// Adds a route, or replaces it: `add_route("0.0.0.0/0", "10.0.0.1")`.
    pub async fn add_route(&self, to: &str, via: &str) -> Result<(), LabError> {
        let to = net(to)?;
        let via: IpAddr = via.parse().map_err(|_| LabError::Address(via.to_owned()))?;
        let route = Route::new(to.network(), to.prefix_len()).via(via);
        self.netlink().replace_route(&route).await.at(self.name())
    }

    /// Its interface of this name (`eth0` is the one on the first segment).
    pub async fn interface(&self, device: &str) -> Result<Interface, LabError> {
        let all = self.netlink().interfaces().await.at(self.name())?;
        let found = all.into_iter().find(|i| i.name == device);
        found.ok_or_else(|| self.lacks(format!("interface {device}")))
    }

    /// The Ethernet address of an interface.
    pub async fn mac(&self, device: &str) -> Result<Mac, LabError> {
        let mac = self.interface(device).await?.mac;
        mac.ok_or_else(|| self.lacks(format!("Ethernet address on {device}")))
    }

    pub(crate) fn lacks(&self, what: impl Into<String>) -> LabError {
        LabError::Lacks {
            host: self.name().to_owned(),
            what: what.into(),
        }
    }

    /// The addresses that it was given on segments, or as a pod.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let state = self.state();
        let ports = state
            .ports
            .iter()
            .flat_map(|p| p.addresses.iter().map(IpNet::addr));
        ports.chain(state.addresses.iter().copied()).collect()
    }

    /// Its first address of a family.
    pub fn address(&self, v6: bool) -> Result<IpAddr, LabError> {
        let found = self.addresses().into_iter().find(|ip| ip.is_ipv6() == v6);
        found.ok_or_else(|| self.lacks(if v6 { "IPv6 address" } else { "IPv4 address" }))
    }

    /// The address of `other` on the first segment that both are on.
    pub(crate) fn neighbour_address(&self, other: &Self, v6: bool) -> Option<IpAddr> {
        let segments: Vec<Segment> = self
            .state()
            .ports
            .iter()
            .map(|p| p.segment.clone())
            .collect();
        let ports = other.state().ports.clone();
        let shared = ports.iter().filter(|p| segments.contains(&p.segment));
        shared
            .flat_map(|p| &p.addresses)
            .map(IpNet::addr)
            .find(|ip| ip.is_ipv6() == v6)
    }

    /// The name of the next segment's interface.
    pub(crate) fn next_device(&self) -> String {
        format!("eth{}", self.state().ports.len())
    }

    pub(crate) fn add_port(&self, segment: &Segment, addresses: Vec<IpNet>) {
        self.state().ports.push(Port {
            segment: segment.clone(),
            addresses,
        });
    }

    pub(crate) fn set_addresses(&self, addresses: &[IpAddr]) {
        self.state().addresses = addresses.to_vec();
    }

    /// Takes a pod; gives its number.
    pub(crate) fn add_child(&self, pod: &Self) -> usize {
        let mut state = self.state();
        state.pods.push(pod.clone());
        state.pods.len() - 1
    }

    /// A task that is part of the host: killing the host ends it.
    pub(crate) fn own_task(&self, task: AbortHandle) {
        self.state().tasks.push(task);
    }

    /// A command that runs on this host: its network, its host name, its `/run`.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command, LabError> {
        let mut command = Command::new(program);
        let view = HostView {
            hostname: self.name().to_owned(),
            run: self.0.run.clone(),
        };
        self.0.ns.place(&mut command, Some(&view))?;
        command.env("HOSTNAME", self.name());
        // A busy test machine must not decide who is dead; who measures fail-over says otherwise.
        command.env(MEMBER_PROFILE, "slow");
        Ok(command)
    }

    /// Starts a command made by [`Host::command`]; its output goes to `<host>-<label>.log` in the
    /// lab's folder.
    pub fn spawn(&self, label: &str, command: Command) -> Result<Process, LabError> {
        let log = self.0.dir.join(format!("{}-{label}.log", self.name()));
        Process::spawn(&format!("{} {label}", self.name()), command, log)
    }

    /// Lets it fall silent on all segments; its own links stay up.
    pub async fn cut(&self) -> Result<(), LabError> {
        for port in self.ports() {
            port.segment.cut(self).await?;
        }
        Ok(())
    }

    /// Undoes [`Host::cut`].
    pub async fn heal(&self) -> Result<(), LabError> {
        for port in self.ports() {
            port.segment.heal(self).await?;
        }
        Ok(())
    }

    fn ports(&self) -> Vec<Port> {
        self.state().ports.clone()
    }

    /// Power off: silent first, so that nothing says goodbye, then every process and back end on
    /// it and in its pods is killed. Gives the processes killed.
    pub async fn kill(&self) -> Result<Vec<u32>, LabError> {
        self.cut().await?;
        let mut hosts = vec![self.clone()];
        hosts.extend(self.state().pods.iter().cloned());
        let mut killed = Vec::new();
        for host in hosts {
            host.state().tasks.drain(..).for_each(|task| task.abort());
            killed.extend(host.kill_processes()?);
        }
        Ok(killed)
    }

    /// The processes whose first thread is in this host's network namespace.
    pub fn processes(&self) -> Result<Vec<u32>, LabError> {
        let own = self.0.ns.inode()?;
        let failed = |e| LabError::io(self.name(), "list processes", e);
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|n| n.parse::<u32>().ok())
            else {
                continue;
            };
            // A process may end while we look.
            if std::fs::metadata(entry.path().join("ns/net"))
                .is_ok_and(|m| std::os::unix::fs::MetadataExt::ino(&m) == own)
            {
                found.push(pid);
            }
        }
        Ok(found)
    }

    fn kill_processes(&self) -> Result<Vec<u32>, LabError> {
        let mut killed = Vec::new();
        // Until none is new: a process may fork while we kill.
        loop {
            let mut news = self.processes()?;
            news.retain(|pid| !killed.contains(pid) && *pid != std::process::id());
            if news.is_empty() {
                return Ok(killed);
            }
            for pid in news {
                crate::process::kill(pid);
                killed.push(pid);
            }
        }
    }
}

/// A netlink handle of a namespace.
pub(crate) fn netlink_in(ns: &NetNs) -> Result<Netlink, LabError> {
    let runtime = tokio::runtime::Handle::current();
    let opened = ns.run(|| {
        let _entered = runtime.enter();
        Netlink::open()
    })?;
    opened.at(ns.name())
}
