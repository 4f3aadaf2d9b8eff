//! Segments: bridges in namespaces of their own.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use linux::capture::CaptureSocket;
use linux::namespace::NetNs;
use linux::netlink::{Mac, Netlink, VethEnd};
use rustix::io::Errno;

use crate::capture::Capture;
use crate::error::{At, LabError};
use crate::host::{Host, netlink_in};
use crate::lab::net;

const BRIDGE: &str = "br0";

/// A broadcast domain. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Segment(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    number: u8,
    ns: NetNs,
    netlink: Netlink,
    bridge: u32,
    /// The attached hosts' names and their bridge ports.
    ports: Mutex<Vec<(String, u32)>>,
    capture: Mutex<Capture>,
}

impl PartialEq for Segment {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Segment {
    pub(crate) async fn new(name: &str, number: u8, dir: &Path) -> Result<Self, LabError> {
        let ns = NetNs::create(name)?;
        let netlink = netlink_in(&ns)?;
        netlink.add_bridge(BRIDGE).await.at(name)?;
        let bridge = netlink.index_of(BRIDGE).await.at(name)?;
        netlink.set_up(bridge).await.at(name)?;
        let socket = ns.run(|| CaptureSocket::open(bridge))?;
        let path = dir.join(format!("{name}.pcap"));
        let capture = socket.and_then(|socket| Capture::start(socket, path));
        let capture = capture.map_err(|e| LabError::io(name, "start the capture", e))?;
        let (name, ports, capture) = (name.to_owned(), Mutex::default(), Mutex::new(capture));
        Ok(Self(Arc::new(Inner {
            name,
            number,
            ns,
            netlink,
            bridge,
            ports,
            capture,
        })))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The namespace with the bridge.
    pub fn netns(&self) -> &NetNs {
        &self.0.ns
    }

    /// Connects a host, by its next free `ethN`, with these addresses (`["10.0.0.11/24"]`). Gives
    /// the interface's name.
    pub async fn attach(&self, host: &Host, addresses: &[&str]) -> Result<String, LabError> {
        let addresses: Vec<IpNet> = addresses.iter().map(|a| net(a)).collect::<Result<_, _>>()?;
        let device = host.next_device();
        let (number, port) = self.next_port();
        let near = VethEnd {
            name: &port,
            mac: None,
            netns: Some(self.0.ns.as_fd()),
        };
        let far = VethEnd {
            name: &device,
            mac: Some(self.mac(number)),
            netns: None,
        };
        host.netlink().add_veth(far, near).await.at(host.name())?;
        let near = self.0.netlink.index_of(&port).await.at(self.name())?;
        self.0
            .netlink
            .set_master(near, Some(self.0.bridge))
            .await
            .at(self.name())?;
        self.0.netlink.set_up(near).await.at(self.name())?;
        let far = host.netlink().index_of(&device).await.at(host.name())?;
        host.netlink().set_up(far).await.at(host.name())?;
        for address in &addresses {
            host.add_address_at(far, *address).await?;
        }
        self.ports().push((host.name().to_owned(), near));
        host.add_port(self, addresses);
        Ok(device)
    }

    /// Drops all frames from and to this host. Its carrier stays, so that it does not notice.
    pub async fn cut(&self, host: &Host) -> Result<(), LabError> {
        self.set_port(self.port_of(host)?, false).await
    }

    /// Takes the host's carrier away, as pulling its cable does.
    pub async fn unplug(&self, host: &Host) -> Result<(), LabError> {
        let port = self.port_of(host)?;
        self.0.netlink.set_down(port).await.at(self.name())
    }

    /// Undoes [`Segment::cut`] and [`Segment::unplug`].
    pub async fn heal(&self, host: &Host) -> Result<(), LabError> {
        let port = self.port_of(host)?;
        self.0.netlink.set_up(port).await.at(self.name())?;
        self.set_port(port, true).await
    }

    /// Drops frames from Ethernet addresses that this host has not used yet, as a switch with port
    /// security does, or takes all again.
    pub async fn lock(&self, host: &Host, locked: bool) -> Result<(), LabError> {
        let port = self.port_of(host)?;
        let done = self.0.netlink.lock_bridge_port(port, locked).await;
        done.at(self.name())
    }

    async fn set_port(&self, port: u32, forwards: bool) -> Result<(), LabError> {
        match self.0.netlink.set_bridge_port(port, forwards).await {
            // An unplugged port drops everything, and forwards again when its carrier is back.
            Err(e) if e.errno() == Some(Errno::NETDOWN.raw_os_error()) => Ok(()),
            other => other.at(self.name()),
        }
    }

    /// Ends the capture; all frames so far are then in its file. What is measured is better without
    /// one.
    pub fn stop_capture(&self) {
        self.0
            .capture
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stop();
    }

    fn ports(&self) -> std::sync::MutexGuard<'_, Vec<(String, u32)>> {
        self.0.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn port_of(&self, host: &Host) -> Result<u32, LabError> {
        let found = self
            .ports()
            .iter()
            .find(|(name, _)| name == host.name())
            .map(|(_, port)| *port);
        found.ok_or_else(|| host.lacks(format!("port on {}", self.name())))
    }

    fn next_port(&self) -> (u8, String) {
        let number = self.ports().len();
        (number as u8, format!("port{number}"))
    }

    /// Tells segment and port at a glance in a capture; the first octet says "locally chosen".
    fn mac(&self, port: u8) -> Mac {
        [0x02, 0x1a, 0xb0, 0, self.0.number, port + 1]
    }
}
