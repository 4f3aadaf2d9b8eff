//! Layer 2 sockets: whole Ethernet frames on one interface (`packet(7)`), for answering ARP and
//! NDP for addresses that the kernel does not own, and for the echo packets of BFD, whose source
//! is the address that they are for.
//!
//! - [`PacketSocket`] receives and sends the frames of one kind of [`Traffic`];
//!   [`AsyncPacketSocket`] does so in a tokio task.
//! - [`MulticastGroups`] makes the interface receive IPv6 groups, and switches deliver them.
//!
//! An agent has a pair of sockets per interface, one for each kind, and not one for both: a socket
//! that is bound to one EtherType costs nothing on packets of another, while one for all of them
//! is called for each packet in and out. What is left for the NDP socket, IPv6 traffic, a filter
//! in the kernel sorts out.

mod filter;
mod groups;
mod task;
#[cfg(test)]
mod tests;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

pub use groups::MulticastGroups;
use rustix::io::Errno;
pub use task::AsyncPacketSocket;

/// What a [`PacketSocket`] receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// ARP.
    Arp,
    /// Neighbour solicitations and advertisements.
    Ndp,
    /// BFD over IPv4: control packets over one hop, and echo packets.
    Bfd,
}

impl Traffic {
    fn ethertype(self) -> u16 {
        let number = match self {
            Self::Arp => libc::ETH_P_ARP,
            Self::Ndp => libc::ETH_P_IPV6,
            Self::Bfd => libc::ETH_P_IP,
        };
        number as u16
    }
}

impl std::fmt::Display for Traffic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Arp => "ARP",
            Self::Ndp => "NDP",
            Self::Bfd => "BFD",
        })
    }
}

/// A layer 2 socket could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} on interface {interface}")]
pub struct PacketError {
    what: String,
    interface: u32,
    source: io::Error,
}

impl PacketError {
    fn new(what: impl Into<String>, interface: u32, source: impl Into<io::Error>) -> Self {
        Self {
            what: what.into(),
            interface,
            source: source.into(),
        }
    }

    /// The right NET_RAW is missing.
    pub fn is_denied(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }

    /// The kernel has no packet sockets.
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self.source.raw_os_error(),
            Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT)
        )
    }

    /// The interface is not there (any more).
    pub fn is_missing(&self) -> bool {
        matches!(
            self.source.raw_os_error(),
            Some(libc::ENODEV | libc::ENXIO | libc::EADDRNOTAVAIL)
        )
    }
}

/// A non-blocking socket for frames of one kind on one interface, in the network namespace of the
/// thread that opened it. [`AsyncPacketSocket`] wraps it for tokio.
///
/// It never receives frames sent by this machine, and none that belong to a VLAN on top of the
/// interface. It is silent while the interface is down, and for ever once it is deleted: netlink
/// tells of both.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// Opens a socket on the interface with this index.
    pub fn open(interface: u32, traffic: Traffic) -> Result<Self, PacketError> {
        let what = || format!("open a packet socket for {traffic}");
        // Protocol 0 receives nothing: so no frame comes in before the filter is there.
        let fd = open().map_err(|e| PacketError::new(what(), interface, e))?;
        filter::attach(fd.as_fd(), interface, traffic)
            .and_then(|()| bind(fd.as_fd(), interface, traffic))
            .map_err(|e| PacketError::new(what(), interface, e))?;
        Ok(Self { fd })
    }

    /// Sends a whole frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // A packet socket takes all of a frame or none.
        rustix::io::write(&self.fd, frame)?;
        Ok(())
    }

    /// Receives one frame; what does not fit in the buffer is lost. `WouldBlock` when there is
    /// none.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match rustix::io::read(&self.fd, &mut *buffer) {
            // Told once. Who needs to know hears it from netlink, and sooner: this error alone
            // wakes nobody who waits for frames.
            Err(Errno::NETDOWN) => Ok(rustix::io::read(&self.fd, buffer)?),
            other => Ok(other?),
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn open() -> io::Result<OwnedFd> {
    let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers are passed; the result is checked before use.
    let fd = unsafe { libc::socket(libc::AF_PACKET, flags, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bind(fd: BorrowedFd<'_>, interface: u32, traffic: Traffic) -> io::Result<()> {
    // Index 0 would mean every interface.
    let index = libc::c_int::try_from(interface).ok().filter(|i| *i > 0);
    let Some(index) = index else {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    };
    // SAFETY: sockaddr_ll is plain data for which zeroes are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = traffic.ethertype().to_be();
    address.sll_ifindex = index;
    // SAFETY: `address` is a sockaddr_ll of the length given, alive during the call.
    let done = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
