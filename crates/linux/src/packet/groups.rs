//! Membership of IPv6 multicast groups.

use std::{collections::BTreeMap, net::Ipv6Addr, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt},
};

use super::PacketError;

/// The groups that one interface is in on our behalf; dropping this leaves them all.
///
/// Joined as IPv6 groups and not as mere Ethernet groups of a packet socket: so the kernel opens
/// the device's filter and also sends MLD reports, without which a switch that snoops would keep
/// solicitations from us. The interface needs IPv6.
#[derive(Debug)]
pub struct MulticastGroups {
    interface: u32,
    /// Each can hold only so many (`net.core.optmem_max`), so there may be several.
    sockets: Vec<OwnedFd>,
    /// The socket by which a group was joined.
    joined: BTreeMap<Ipv6Addr, usize>,
}

impl MulticastGroups {
    /// No groups yet; opens nothing. The sockets will belong to the network namespace of the
    /// thread that joins.
    pub fn new(interface: u32) -> Self {
        Self {
            interface,
            sockets: Vec::new(),
            joined: BTreeMap::new(),
        }
    }

    /// Joins a group; nothing happens if that was done before.
    pub fn join(&mut self, group: Ipv6Addr) -> Result<(), PacketError> {
        if self.joined.contains_key(&group) {
            return Ok(());
        }
        let socket = match self.join_last(group) {
            // The last socket is full, or there is none.
            Err(Errno::NOMEM | Errno::NOBUFS) => self.open().and_then(|()| self.join_last(group)),
            other => other,
        };
        let socket = socket
            .map_err(|e| PacketError::new(format!("join group {group}"), self.interface, e))?;
        self.joined.insert(group, socket);
        Ok(())
    }

    /// Leaves a group; nothing happens if it was not joined.
    pub fn leave(&mut self, group: Ipv6Addr) -> Result<(), PacketError> {
        let Some(socket) = self.joined.remove(&group).and_then(|s| self.sockets.get(s)) else {
            return Ok(());
        };
        match sockopt::set_ipv6_drop_membership(socket, &group, self.interface) {
            // The interface has gone, and its memberships with it.
            Ok(()) | Err(Errno::ADDRNOTAVAIL | Errno::NODEV) => Ok(()),
            Err(e) => Err(PacketError::new(
                format!("leave group {group}"),
                self.interface,
                e,
            )),
        }
    }

    fn open(&mut self) -> Result<(), Errno> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET6, SocketType::DGRAM, flags, None)?;
        self.sockets.push(socket);
        Ok(())
    }

    fn join_last(&self, group: Ipv6Addr) -> Result<usize, Errno> {
        let last = self.sockets.last().ok_or(Errno::NOMEM)?;
        sockopt::set_ipv6_add_membership(last, &group, self.interface)?;
        Ok(self.sockets.len() - 1)
    }
}
