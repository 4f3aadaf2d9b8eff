//! Hearing of changes: the multicast groups for links and addresses, routes and rules.

use std::net::IpAddr;
use std::{fmt, io};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};

use super::{Interface, NetlinkError, Result, address};

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR`.
const GROUPS: [u32; 3] = [1, 5, 9];
/// `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV4_RULE`, `RTNLGRP_IPV6_ROUTE`, `RTNLGRP_IPV6_RULE`.
const ROUTING: [u32; 4] = [7, 8, 11, 19];
/// Room for a burst of messages, so that overruns stay rare (bytes; the kernel may give less).
const RECEIVE_BUFFER: usize = 1 << 20;

/// One change, as the kernel reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A link appeared or changed. Its addresses are not in this message.
    Link(Interface),
    /// A link is gone.
    LinkGone {
        /// Its index.
        index: u32,
        /// Its name.
        name: String,
    },
    /// An address appeared or changed.
    Address {
        /// The interface's index.
        index: u32,
        /// The address.
        ip: IpAddr,
        /// Its prefix length.
        prefix: u8,
    },
    /// An address is gone.
    AddressGone {
        /// The interface's index.
        index: u32,
        /// The address.
        ip: IpAddr,
        /// Its prefix length.
        prefix: u8,
    },
    /// A route appeared, changed or is gone. Not told: those that go with their link.
    Route {
        /// Its table.
        table: u32,
        /// The indexes of the interfaces that it leads to.
        devices: Vec<u32>,
    },
    /// A rule appeared or is gone.
    Rule,
    /// Messages were lost, or could not be read: list everything anew.
    Lost,
}

/// A stream of changes in the network namespace that it was opened in.
pub struct Changes {
    socket: TokioSocket,
    pending: std::collections::VecDeque<Change>,
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

impl Changes {
    /// Listens for changes of links and addresses in the calling thread's network namespace. Open
    /// it before the first list, so that nothing falls between. Must be called within a tokio
    /// runtime.
    pub fn open() -> Result<Self> {
        Self::listen(&GROUPS)
    }

    /// The same, for changes of routes and rules too.
    pub fn open_routing() -> Result<Self> {
        Self::listen(&[&GROUPS[..], &ROUTING[..]].concat())
    }

    fn listen(groups: &[u32]) -> Result<Self> {
        let open = || -> io::Result<TokioSocket> {
            let mut socket = <TokioSocket as AsyncSocket>::new(NETLINK_ROUTE)?;
            let inner = socket.socket_mut();
            inner.bind(&SocketAddr::new(0, 0))?;
            inner.set_rx_buf_sz(RECEIVE_BUFFER as u32)?;
            for group in groups {
                inner.add_membership(*group)?;
            }
            Ok(socket)
        };
        let socket =
            open().map_err(|e| NetlinkError::new("listen for changes of interfaces", e))?;
        Ok(Self {
            socket,
            pending: std::collections::VecDeque::new(),
        })
    }

    /// The next change. An error means that the socket is of no use any more.
    pub async fn next(&mut self) -> Result<Change> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Ok(change);
            }
            match self.socket.recv_from_full().await {
                // Port 0 is the kernel; anybody may send to a multicast listener otherwise.
                Ok((datagram, from)) if from.port_number() == 0 => {
                    self.pending.extend(decode(&datagram))
                }
                Ok(_) => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Change::Lost),
                Err(e) => return Err(NetlinkError::new("hear of changes of interfaces", e)),
            }
        }
    }
}

/// All changes in one datagram. What cannot be read counts as lost, never as nothing.
fn decode(mut datagram: &[u8]) -> Vec<Change> {
    let mut changes = Vec::new();
    while !datagram.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) else {
            changes.push(Change::Lost);
            break;
        };
        // Messages are padded to four bytes (netlink(7)); a length of zero would never end.
        let length = (message.header.length as usize).next_multiple_of(4).max(16);
        datagram = datagram.get(length..).unwrap_or_default();
        match message.payload {
            NetlinkPayload::InnerMessage(inner) => changes.extend(change(inner)),
            NetlinkPayload::Overrun(_) => changes.push(Change::Lost),
            _ => {}
        }
    }
    changes
}

fn change(message: RouteNetlinkMessage) -> Option<Change> {
    Some(match message {
        RouteNetlinkMessage::NewLink(link) => Change::Link(Interface::from_message(&link)),
        RouteNetlinkMessage::DelLink(link) => {
            let Interface { index, name, .. } = Interface::from_message(&link);
            Change::LinkGone { index, name }
        }
        RouteNetlinkMessage::NewAddress(message) => {
            let (index, ip, prefix) = address::from_message(&message)?;
            Change::Address { index, ip, prefix }
        }
        RouteNetlinkMessage::DelAddress(message) => {
            let (index, ip, prefix) = address::from_message(&message)?;
            Change::AddressGone { index, ip, prefix }
        }
        RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
            let (table, devices) = super::route::place(&message);
            Change::Route { table, devices }
        }
        RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => Change::Rule,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RTM_DELADDR of 10.0.0.1/24 on link 3, of `length` octets as it says itself.
    fn message(length: u8) -> Vec<u8> {
        let header = [length, 0, 0, 0, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let address = [2, 24, 0, 0, 3, 0, 0, 0, 8, 0, 2, 0, 10, 0, 0, 1];
        [header, address].concat()
    }

    #[test]
    fn all_messages_of_a_datagram_are_read() {
        let gone = Change::AddressGone {
            index: 3,
            ip: [10, 0, 0, 1].into(),
            prefix: 24,
        };
        assert_eq!(
            decode(&[message(32), message(32)].concat()),
            [gone.clone(), gone]
        );
    }

    #[test]
    fn what_cannot_be_read_is_lost_and_ends() {
        for (length, cut) in [(0, 32), (15, 32), (33, 32), (32, 31), (32, 3)] {
            assert_eq!(
                decode(&message(length)[..cut]),
                [Change::Lost],
                "{length} {cut}"
            );
        }
        assert_eq!(decode(&[]), []);
    }
}
