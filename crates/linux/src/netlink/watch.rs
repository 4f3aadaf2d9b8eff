//! Hearing of changes: the multicast groups for links and addresses, routes and rules.

use std::net::IpAddr;
use std::{fmt, io};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkEvent, LinkMessage};
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
    /// A link's way to its network is another one: another port of a bond is active, a guest has been
    /// moved to another machine. What is told of this host there is to be told again.
    Moved {
        /// The link's index.
        index: u32,
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
            NetlinkPayload::InnerMessage(inner) => {
                changes.extend(moved(&inner));
                changes.extend(change(inner));
            }
            NetlinkPayload::Overrun(_) => changes.push(Change::Lost),
            _ => {}
        }
    }
    changes
}

/// What a message about a link says besides: `IFLA_EVENT`.
fn moved(message: &RouteNetlinkMessage) -> Option<Change> {
    let RouteNetlinkMessage::NewLink(LinkMessage {
        header, attributes, ..
    }) = message
    else {
        return None;
    };
    let mut attributes = attributes.iter();
    let moved = attributes.any(|it| {
        matches!(
            it,
            LinkAttribute::Event(LinkEvent::NotifyPeers | LinkEvent::BondingFailover)
        )
    });
    moved.then_some(Change::Moved {
        index: header.index,
    })
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

    /// RTM_NEWLINK of link 3 with IFLA_EVENT.
    #[test]
    fn a_link_that_moved_says_so() {
        for (event, moved) in [(1, false), (2, false), (3, true), (4, true), (5, false)] {
            let header = [40, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let link = [0, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let attribute = [8, 0, 44, 0, event, 0, 0, 0];
            let found = decode(&[&header[..], &link, &attribute].concat());
            let is_link = |it: &Change| matches!(it, Change::Link(link) if link.index == 3);
            assert!(found.iter().any(is_link), "{event}: {found:?}");
            let said = found.contains(&Change::Moved { index: 3 });
            assert_eq!(said, moved, "{event}: {found:?}");
        }
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
