//! Connection tracking by netlink (ctnetlink): which connections the kernel remembers, and how to
//! make it forget one or all.
//!
//! The kernel passes over other protocols itself (`CTA_FILTER`, Linux 5.8). Zones other than the
//! usual one are somebody else's and left out. Source: `net/netfilter/nf_conntrack_netlink.c`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::nft::attr::{Attrs, Reader};
use crate::nft::{DecodeError, Error, Socket};

/// nfnetlink's subsystem of connection tracking, in the upper byte of a message's type.
const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;

const UDP: u8 = libc::IPPROTO_UDP as u8;
/// Deletions in one message to the kernel: about 100 bytes each.
const TOGETHER: usize = 256;

/// A connection as the kernel remembers it, borrowed from the message that brought it.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// Who sent the first packet.
    pub source: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
    /// From where replies are expected: whom the destination was rewritten to.
    pub replier: SocketAddr,
    /// Where replies go to: whom the source was rewritten to.
    pub client: SocketAddr,
    /// The first tuple as the kernel spells it.
    tuple: &'a [u8],
    id: u32,
}

impl Flow<'_> {
    /// What is needed to delete it.
    pub fn handle(&self) -> Handle {
        Handle {
            family: match self.destination {
                SocketAddr::V4(_) => libc::AF_INET as u8,
                SocketAddr::V6(_) => libc::AF_INET6 as u8,
            },
            tuple: self.tuple.into(),
            id: self.id,
        }
    }
}

/// Names one connection; another one between the same ends is not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    family: u8,
    tuple: Box<[u8]>,
    id: u32,
}

/// The connections of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            socket: Socket::open()?,
        })
    }

    /// Shows every UDP connection of a family.
    pub fn udp(&mut self, ipv6: bool, each: &mut dyn FnMut(Flow<'_>)) -> Result<(), Error> {
        self.of(UDP, ipv6, each)
    }

    /// Shows every connection of a protocol with ports and of a family.
    pub fn of(
        &mut self,
        protocol: u8,
        ipv6: bool,
        each: &mut dyn FnMut(Flow<'_>),
    ) -> Result<(), Error> {
        let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
        let filter = |attrs: &mut Attrs<'_>| {
            const PROTOCOL: u32 = 1 << 3; // CTA_FILTER_FLAG(CTA_PROTO_NUM)
            attrs.nest(TUPLE_ORIG, |tuple| {
                tuple.nest(2, |number| number.bytes(1, &[protocol]));
            });
            attrs.nest(FILTER, |filter| {
                filter.bytes(1, &PROTOCOL.to_ne_bytes());
                filter.bytes(2, &[0; 4]);
            });
        };
        let dumped = "connections";
        self.socket
            .dump_of(dumped, GET, family as u8, filter, &mut |body| {
                if let Some(flow) = decode(body, protocol)? {
                    each(flow);
                }
                Ok(())
            })
    }

    /// Makes the kernel forget everything of both families.
    pub fn flush(&mut self) -> Result<(), Error> {
        let messages = [libc::AF_INET, libc::AF_INET6]
            .map(|family| (DELETE, family as u8, |_: &mut Attrs<'_>| {}));
        for errno in self.socket.request(messages)? {
            if errno != 0 {
                return Err(Error::Dump {
                    what: "deleted connections",
                    source: std::io::Error::from_raw_os_error(errno),
                });
            }
        }
        Ok(())
    }

    /// Makes the kernel forget these; says how many there still were.
    pub fn delete(&mut self, flows: &[Handle]) -> Result<usize, Error> {
        let mut deleted = 0;
        for some in flows.chunks(TOGETHER) {
            let messages = some.iter().map(|flow| {
                let write = |attrs: &mut Attrs<'_>| {
                    attrs.nest(TUPLE_ORIG, |tuple| tuple.raw(&flow.tuple));
                    attrs.u32(ID, flow.id);
                };
                (DELETE, flow.family, write)
            });
            for errno in self.socket.request(messages)? {
                match errno {
                    0 => deleted += 1,
                    libc::ENOENT => {}
                    errno => {
                        return Err(Error::Dump {
                            what: "deleted connections",
                            source: std::io::Error::from_raw_os_error(errno),
                        });
                    }
                }
            }
        }
        Ok(deleted)
    }
}

/// A connection of this protocol and the usual zone.
fn decode(body: &[u8], protocol: u8) -> Result<Option<Flow<'_>>, DecodeError> {
    let (mut original, mut reply, mut id, mut zone) = (None, None, 0, 0);
    for attr in Reader::new(body) {
        let attr = attr?;
        match attr.kind {
            TUPLE_ORIG => original = Some(attr.value),
            TUPLE_REPLY => reply = Some(attr.value),
            ID => id = attr.u32()?,
            ZONE => zone = number(attr.value),
            _ => {}
        }
    }
    let (Some(original), Some(reply)) = (original, reply) else {
        return Err(DecodeError::Missing { kind: TUPLE_ORIG });
    };
    let both = (tuple(original, protocol)?, tuple(reply, protocol)?);
    Ok(match both {
        (Some((source, destination)), Some((replier, client))) if zone == 0 => Some(Flow {
            source,
            destination,
            replier,
            client,
            tuple: original,
            id,
        }),
        _ => None,
    })
}

/// Source and destination; `None`: this is of another protocol or zone.
fn tuple(bytes: &[u8], wanted: u8) -> Result<Option<(SocketAddr, SocketAddr)>, DecodeError> {
    let (mut source, mut destination, mut zone) = (None, None, 0);
    let (mut protocol, mut ports) = (0, (0, 0));
    for part in Reader::new(bytes) {
        let part = part?;
        match part.kind {
            1 => {
                for address in part.nested() {
                    let address = address?;
                    match address.kind {
                        1 | 3 => source = ip(address.value),
                        2 | 4 => destination = ip(address.value),
                        _ => {}
                    }
                }
            }
            2 => {
                for field in part.nested() {
                    let field = field?;
                    match field.kind {
                        1 => protocol = field.value.first().copied().unwrap_or(0),
                        2 => ports.0 = number(field.value),
                        3 => ports.1 = number(field.value),
                        _ => {}
                    }
                }
            }
            3 => zone = number(part.value),
            _ => {}
        }
    }
    Ok(match (source, destination) {
        (Some(source), Some(destination)) if protocol == wanted && zone == 0 => Some((
            SocketAddr::new(source, ports.0),
            SocketAddr::new(destination, ports.1),
        )),
        _ => None,
    })
}

fn number(bytes: &[u8]) -> u16 {
    bytes.try_into().map_or(0, u16::from_be_bytes)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(|it| Ipv4Addr::from(it).into());
    let six = || <[u8; 16]>::try_from(bytes).map(|it| Ipv6Addr::from(it).into());
    four.or_else(|_| six()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(protocol: u8, zone: Option<u16>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut attrs = Attrs::new(&mut bytes);
        let ends = [
            (TUPLE_ORIG, [10, 0, 0, 9], [10, 96, 0, 1], 40_000u16, 53u16),
            (TUPLE_REPLY, [10, 1, 0, 2], [10, 0, 0, 9], 5353, 40_000),
        ];
        for (kind, from, to, from_port, to_port) in ends {
            attrs.nest(kind, |tuple| {
                tuple.nest(1, |ip| {
                    ip.bytes(1, &from);
                    ip.bytes(2, &to);
                });
                tuple.nest(2, |ports| {
                    ports.bytes(1, &[protocol]);
                    ports.bytes(2, &from_port.to_be_bytes());
                    ports.bytes(3, &to_port.to_be_bytes());
                });
            });
        }
        attrs.u32(ID, 77);
        if let Some(zone) = zone {
            attrs.bytes(ZONE, &zone.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn udp_connections_of_the_usual_zone() {
        let bytes = entry(UDP, None);
        let flow = decode(&bytes, UDP).expect("decodes").expect("is UDP");
        assert_eq!(flow.source, "10.0.0.9:40000".parse().expect("socket"));
        assert_eq!(flow.destination, "10.96.0.1:53".parse().expect("socket"));
        assert_eq!(flow.replier, "10.1.0.2:5353".parse().expect("socket"));
        let handle = flow.handle();
        assert_eq!((handle.id, handle.family), (77, libc::AF_INET as u8));
        let (source, destination) = tuple(&handle.tuple, UDP).expect("decodes").expect("is UDP");
        assert_eq!((source, destination), (flow.source, flow.destination));
        let others = [entry(6, None), entry(132, None), entry(UDP, Some(9))];
        for other in &others {
            assert!(decode(other, UDP).expect("decodes").is_none());
        }
    }

    #[test]
    fn what_is_cut_is_refused() {
        let bytes = entry(UDP, None);
        for length in 1..bytes.len() {
            // Never a panic; what is cut within an attribute is an error.
            let _ = decode(&bytes[..length], UDP);
        }
        assert!(decode(&bytes[..10], UDP).is_err());
        assert!(decode(&[], UDP).is_err());
    }
}
