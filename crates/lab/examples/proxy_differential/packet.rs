//! First packets of connections as bytes, sent through raw sockets: their source may be any.

use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use plan::net::Protocol;
use socket2::{Domain, Socket, Type};

/// `IPPROTO_RAW`: the header is among the bytes.
const RAW: i32 = 255;
const ICMP: i32 = 1;
const ICMPV6: i32 = 58;
const HOPS: u8 = 64;

/// What names a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Tuple {
    pub(crate) protocol: Protocol,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

/// The sockets of one namespace.
pub(crate) struct Wire {
    raw: [Socket; 2],
    icmp: [Socket; 2],
}

impl Wire {
    /// In the calling thread's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let open = |domain, protocol: i32| {
            let socket = Socket::new(domain, Type::RAW, Some(protocol.into()))?;
            socket.set_nonblocking(true)?;
            io::Result::Ok(socket)
        };
        Ok(Self {
            raw: [open(Domain::IPV4, RAW)?, open(Domain::IPV6, RAW)?],
            icmp: [open(Domain::IPV4, ICMP)?, open(Domain::IPV6, ICMPV6)?],
        })
    }

    pub(crate) fn send(&self, tuple: &Tuple) -> io::Result<()> {
        let [v4, v6] = &self.raw;
        let socket = if tuple.source.is_ipv6() { v6 } else { v4 };
        // A raw socket has no port.
        let to = SocketAddr::new(tuple.destination.ip(), 0);
        match socket.send_to(&packet(tuple), &to.into()) {
            // The rules discarded it at this host's output, or rejected an earlier one.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(())
            }
            sent => sent.map(drop),
        }
    }

    /// The connections that "port unreachable" was said of since the last call.
    pub(crate) fn refused(&self, each: &mut dyn FnMut(Tuple)) -> io::Result<()> {
        let mut buffer = [0; 2048];
        for (mut socket, read) in self.icmp.iter().zip([refused_v4, refused_v6]) {
            loop {
                match socket.read(&mut buffer) {
                    Ok(length) => {
                        let bytes = buffer.get(..length).unwrap_or_default();
                        read(bytes).into_iter().for_each(&mut *each);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// Port unreachable, behind the IPv4 header that a raw socket is given.
fn refused_v4(bytes: &[u8]) -> Option<Tuple> {
    let icmp = bytes.get(usize::from(bytes.first()? & 15) * 4..)?;
    if icmp.get(..2)? != [3, 3] {
        return None;
    }
    let inner = icmp.get(8..)?;
    let ports = inner.get(usize::from(inner.first()? & 15) * 4..)?;
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = inner.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets).into())
    };
    tuple(*inner.get(9)?, [address(12)?, address(16)?], ports)
}

/// Port unreachable; an IPv6 raw socket is given no header.
fn refused_v6(icmp: &[u8]) -> Option<Tuple> {
    if icmp.get(..2)? != [1, 4] {
        return None;
    }
    let inner = icmp.get(8..)?;
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = inner.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(octets).into())
    };
    tuple(
        *inner.get(6)?,
        [address(8)?, address(24)?],
        inner.get(40..)?,
    )
}

fn tuple(protocol: u8, [from, to]: [IpAddr; 2], ports: &[u8]) -> Option<Tuple> {
    let port = |at: usize| Some(u16::from_be_bytes(ports.get(at..at + 2)?.try_into().ok()?));
    Some(Tuple {
        protocol: [Protocol::Tcp, Protocol::Udp]
            .into_iter()
            .find(|known| known.number() == protocol)?,
        source: SocketAddr::new(from, port(0)?),
        destination: SocketAddr::new(to, port(2)?),
    })
}

/// The whole packet: a SYN, or a datagram of four bytes. The kernel writes IPv4's own checksum.
fn packet(tuple: &Tuple) -> Vec<u8> {
    let mut body = Vec::with_capacity(64);
    body.extend(tuple.source.port().to_be_bytes());
    body.extend(tuple.destination.port().to_be_bytes());
    let (length, checksum): (u16, usize) = match tuple.protocol {
        Protocol::Udp => (12, 6),
        _ => (20, 16),
    };
    match tuple.protocol {
        Protocol::Udp => {
            body.extend(length.to_be_bytes());
            body.extend([0, 0]);
            body.extend(*b"fate");
        }
        _ => {
            // Sequence numbers, five words, SYN, window, checksum, no urgent data.
            body.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 2, 0xff, 0xff, 0, 0, 0, 0]);
        }
    }
    let number = tuple.protocol.number();
    let addresses = [octets(tuple.source.ip()), octets(tuple.destination.ip())].concat();
    let pseudo = [&addresses[..], &[0, number], &length.to_be_bytes()].concat();
    let sum = sum(&[&pseudo[..], &body].concat()).to_be_bytes();
    body.splice(checksum..checksum + 2, sum);
    let mut whole = Vec::with_capacity(64);
    match tuple.source {
        SocketAddr::V4(_) => {
            whole.extend([0x45, 0]);
            whole.extend((20 + length).to_be_bytes());
            whole.extend([0, 0, 0, 0, HOPS, number, 0, 0]);
        }
        SocketAddr::V6(_) => {
            whole.extend([0x60, 0, 0, 0]);
            whole.extend(length.to_be_bytes());
            whole.extend([number, HOPS]);
        }
    }
    whole.extend(addresses);
    whole.extend(body);
    whole
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The Internet checksum (RFC 1071) of whole words.
fn sum(bytes: &[u8]) -> u16 {
    let (words, _) = bytes.as_chunks::<2>();
    let mut sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
