//! The lab: what a test body gets.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ipnet::IpNet;
use linux::netlink::{AddressFlags, Route, VethEnd};

use crate::error::{At, LabError};
use crate::host::{Host, Role};
use crate::segment::Segment;

/// Hosts, segments and pods in one sandbox. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Lab(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    dir: PathBuf,
    started: Instant,
    segments: Mutex<Vec<Segment>>,
    hosts: Mutex<Vec<Host>>,
}

impl Lab {
    pub(crate) fn new(name: &str, dir: PathBuf) -> Result<Self, LabError> {
        std::fs::create_dir_all(&dir)
            .map_err(|e| LabError::io("lab", format!("make {}", dir.display()), e))?;
        Ok(Self(Arc::new(Inner {
            name: name.to_owned(),
            dir,
            started: Instant::now(),
            segments: Mutex::default(),
            hosts: Mutex::default(),
        })))
    }

    /// The test's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The lab's folder for logs, captures and other files worth keeping when the test fails.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Prints progress with the time since the lab's start.
    pub fn say(&self, text: impl std::fmt::Display) {
        println!("[{:7.3}] {text}", self.0.started.elapsed().as_secs_f64());
    }

    /// A host: a network namespace with its loopback up, an own host name and `/run`.
    pub async fn host(&self, name: &str) -> Result<Host, LabError> {
        self.add_host(name, Role::Host).await
    }

    /// A host that forwards packets and knows the routes to all pods: a cluster's node.
    pub async fn node(&self, name: &str) -> Result<Host, LabError> {
        self.add_host(name, Role::Node).await
    }

    /// A host that forwards packets.
    pub async fn router(&self, name: &str) -> Result<Host, LabError> {
        self.add_host(name, Role::Router).await
    }

    async fn add_host(&self, name: &str, role: Role) -> Result<Host, LabError> {
        let host = Host::new(name, role, &self.0.dir).await?;
        self.hosts_mut(|hosts| hosts.push(host.clone()));
        Ok(host)
    }

    /// All hosts and pods so far.
    pub fn hosts(&self) -> Vec<Host> {
        self.hosts_mut(|hosts| hosts.clone())
    }

    fn hosts_mut<T>(&self, f: impl FnOnce(&mut Vec<Host>) -> T) -> T {
        f(&mut self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A segment: one broadcast domain. A capture of all its frames runs from the start.
    pub async fn segment(&self, name: &str) -> Result<Segment, LabError> {
        let number = self.segments_mut(|segments| segments.len()) as u8;
        let segment = Segment::new(name, number, &self.0.dir).await?;
        self.segments_mut(|segments| segments.push(segment.clone()));
        Ok(segment)
    }

    fn segments_mut<T>(&self, f: impl FnOnce(&mut Vec<Segment>) -> T) -> T {
        f(&mut self
            .0
            .segments
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the captures, so that their files are complete.
    pub(crate) fn close(&self) {
        self.segments_mut(|segments| segments.iter().for_each(Segment::stop_capture));
    }

    /// A pod on a node: a namespace behind the node with these addresses, reachable from every
    /// node by a route over the first segment that it shares with the pod's node.
    ///
    /// Make and attach all nodes before the first pod. It has a default route to its node, which
    /// answers it on 169.254.1.1 and fe80::1.
    pub async fn pod(&self, node: &Host, ips: &[IpAddr], name: &str) -> Result<Host, LabError> {
        if node.role() != Role::Node {
            return Err(node.lacks("pods: only a host made by `Lab::node` may have them"));
        }
        let pod = Host::new(name, Role::Pod, &self.0.dir).await?;
        let port = format!("pod{}", node.add_child(&pod));
        let (near, far) = (
            VethEnd {
                name: &port,
                mac: None,
                netns: None,
            },
            VethEnd {
                name: "eth0",
                mac: None,
                netns: Some(pod.netns_fd()),
            },
        );
        node.netlink().add_veth(near, far).await.at(node.name())?;
        let near = node.netlink().index_of(&port).await.at(node.name())?;
        let far = pod.netlink().index_of("eth0").await.at(name)?;
        let gateways = [net("169.254.1.1/32")?, net("fe80::1/64")?];
        for gateway in gateways {
            node.add_address_at(near, gateway).await?;
        }
        node.netlink().set_up(near).await.at(node.name())?;
        pod.netlink().set_up(far).await.at(name)?;
        for &ip in ips {
            pod.add_address_at(far, IpNet::from(ip)).await?;
            let gateway = gateways[usize::from(ip.is_ipv6())].addr();
            let default = if ip.is_ipv6() {
                net("::/0")?
            } else {
                net("0.0.0.0/0")?
            };
            let mut route = Route::new(default.addr(), 0).via(gateway).device(far);
            route.onlink = true;
            pod.netlink().replace_route(&route).await.at(name)?;
            let here = Route::new(ip, max_prefix(ip)).device(near);
            node.netlink().add_route(&here).await.at(node.name())?;
        }
        pod.set_addresses(ips);
        let others: Vec<Host> = self.hosts();
        self.hosts_mut(|hosts| hosts.push(pod.clone()));
        for other in others
            .iter()
            .filter(|other| other.role() == Role::Node && other != &node)
        {
            route_to_pod(other, node, ips).await?;
        }
        Ok(pod)
    }
}

async fn route_to_pod(from: &Host, node: &Host, ips: &[IpAddr]) -> Result<(), LabError> {
    for &ip in ips {
        let hop = from
            .neighbour_address(node, ip.is_ipv6())
            .ok_or_else(|| LabError::Lacks {
                host: from.name().to_owned(),
                what: format!("segment with {} for the family of {ip}", node.name()),
            })?;
        let route = Route::new(ip, max_prefix(ip)).via(hop);
        from.netlink().add_route(&route).await.at(from.name())?;
    }
    Ok(())
}

pub(crate) fn max_prefix(ip: IpAddr) -> u8 {
    if ip.is_ipv6() { 128 } else { 32 }
}

pub(crate) fn net(text: &str) -> Result<IpNet, LabError> {
    text.trim()
        .parse()
        .map_err(|_| LabError::Address(text.to_owned()))
}

/// Addresses are used at once: nobody else in a lab has them.
pub(crate) const AT_ONCE: AddressFlags = AddressFlags {
    nodad: true,
    no_prefix_route: false,
    lifetime: None,
    protocol: None,
};
