//! The messages, pure. Numbers are in the machine's byte order; ports, addresses and netmasks in
//! that of the network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::nft::DecodeError;
use crate::nft::attr::{Attr, Attrs, Reader};

/// Flag of a virtual server: a client stays at its destination for a while.
pub const PERSISTENT: u32 = 1;
/// Flag whose meaning is the scheduler's: `sh-fallback`, `mh-fallback`.
pub const SCHEDULER_1: u32 = 8;
/// Flag whose meaning is the scheduler's: `sh-port`, `mh-port`.
pub const SCHEDULER_2: u32 = 16;
/// Set by the kernel.
const HASHED: u32 = 2;

/// `IPVS_CMD_*`.
pub(super) mod command {
    pub(in super::super) const NEW_SERVICE: u8 = 1;
    pub(in super::super) const SET_SERVICE: u8 = 2;
    pub(in super::super) const DEL_SERVICE: u8 = 3;
    pub(in super::super) const GET_SERVICE: u8 = 4;
    pub(in super::super) const NEW_DEST: u8 = 5;
    pub(in super::super) const SET_DEST: u8 = 6;
    pub(in super::super) const DEL_DEST: u8 = 7;
    pub(in super::super) const GET_DEST: u8 = 8;
}

/// `IPVS_CMD_ATTR_*`.
const SERVICE: u16 = 1;
const DEST: u16 = 2;

/// `IPVS_SVC_ATTR_*`.
mod service {
    pub(super) const AF: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    pub(super) const ADDR: u16 = 3;
    pub(super) const PORT: u16 = 4;
    pub(super) const FWMARK: u16 = 5;
    pub(super) const SCHED_NAME: u16 = 6;
    pub(super) const FLAGS: u16 = 7;
    pub(super) const TIMEOUT: u16 = 8;
    pub(super) const NETMASK: u16 = 9;
}

/// `IPVS_DEST_ATTR_*`.
mod dest {
    pub(super) const ADDR: u16 = 1;
    pub(super) const PORT: u16 = 2;
    pub(super) const FWD_METHOD: u16 = 3;
    pub(super) const WEIGHT: u16 = 4;
    pub(super) const U_THRESH: u16 = 5;
    pub(super) const L_THRESH: u16 = 6;
    pub(super) const ACTIVE_CONNS: u16 = 7;
    pub(super) const INACT_CONNS: u16 = 8;
    pub(super) const ADDR_FAMILY: u16 = 11;
}

/// `IP_VS_CONN_F_MASQ`: by translation.
const TRANSLATED: u32 = 0;
const AF_INET: u16 = libc::AF_INET as u16;
const AF_INET6: u16 = libc::AF_INET6 as u16;

/// What identifies a virtual server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerKey {
    /// Its address.
    pub address: IpAddr,
    /// Its IP protocol.
    pub protocol: u8,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = SocketAddr::new(self.address, self.port);
        write!(f, "{at}, protocol {}", self.protocol)
    }
}

/// How a virtual server chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The scheduler's name (`rr`).
    pub scheduler: String,
    /// [`PERSISTENT`], the scheduler's own, and any bits that the kernel has no meaning for, which
    /// it keeps.
    pub flags: u32,
    /// Seconds that a client stays, where it does.
    pub timeout: u32,
}

/// A virtual server as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Which.
    pub key: ServerKey,
    /// How it chooses.
    pub settings: Settings,
}

/// A destination as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Where.
    pub at: SocketAddr,
    /// Its share; 0 gets nothing new.
    pub weight: u32,
    /// It is reached by translation.
    pub translated: bool,
    /// Connections in use.
    pub active: u32,
    /// Connections that are ending or silent.
    pub inactive: u32,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A new virtual server.
    AddServer(ServerKey, Settings),
    /// Other settings of one that is there.
    SetServer(ServerKey, Settings),
    /// It goes, with its destinations.
    DeleteServer(ServerKey),
    /// A new destination with a weight.
    AddDestination(ServerKey, SocketAddr, u32),
    /// Another weight of one that is there.
    SetDestination(ServerKey, SocketAddr, u32),
    /// It goes; so do its connections, with their next packets or at once.
    DeleteDestination(ServerKey, SocketAddr),
}

impl Request {
    /// The command's number.
    pub(super) const fn command(&self) -> u8 {
        match self {
            Self::AddServer(..) => command::NEW_SERVICE,
            Self::SetServer(..) => command::SET_SERVICE,
            Self::DeleteServer(_) => command::DEL_SERVICE,
            Self::AddDestination(..) => command::NEW_DEST,
            Self::SetDestination(..) => command::SET_DEST,
            Self::DeleteDestination(..) => command::DEL_DEST,
        }
    }

    /// What it is, for people.
    pub const fn what(&self) -> &'static str {
        match self {
            Self::AddServer(..) => "add a virtual server",
            Self::SetServer(..) => "change a virtual server",
            Self::DeleteServer(_) => "delete a virtual server",
            Self::AddDestination(..) => "add a destination",
            Self::SetDestination(..) => "change a destination",
            Self::DeleteDestination(..) => "delete a destination",
        }
    }

    /// Its attributes.
    pub(super) fn encode(&self, attrs: &mut Attrs<'_>) {
        match self {
            Self::AddServer(key, settings) | Self::SetServer(key, settings) => {
                attrs.nest(SERVICE, |attrs| {
                    identify(key, attrs);
                    settings.encode(key.address, attrs);
                });
            }
            Self::DeleteServer(key) => attrs.nest(SERVICE, |attrs| identify(key, attrs)),
            Self::AddDestination(key, at, weight) | Self::SetDestination(key, at, weight) => {
                attrs.nest(SERVICE, |attrs| identify(key, attrs));
                attrs.nest(DEST, |attrs| {
                    place(*at, attrs);
                    number(attrs, dest::FWD_METHOD, TRANSLATED);
                    number(attrs, dest::WEIGHT, *weight);
                    number(attrs, dest::U_THRESH, 0);
                    number(attrs, dest::L_THRESH, 0);
                });
            }
            Self::DeleteDestination(key, at) => {
                attrs.nest(SERVICE, |attrs| identify(key, attrs));
                attrs.nest(DEST, |attrs| place(*at, attrs));
            }
        }
    }
}

/// Names a virtual server in a question.
pub(super) fn about(key: &ServerKey, attrs: &mut Attrs<'_>) {
    attrs.nest(SERVICE, |attrs| identify(key, attrs));
}

impl Settings {
    fn encode(&self, address: IpAddr, attrs: &mut Attrs<'_>) {
        attrs.string(service::SCHED_NAME, &self.scheduler);
        let mut flags = [0; 8];
        let (value, mask) = flags.split_at_mut(4);
        value.copy_from_slice(&self.flags.to_ne_bytes());
        // All of them, but what is the kernel's own.
        mask.copy_from_slice(&(!HASHED).to_ne_bytes());
        attrs.bytes(service::FLAGS, &flags);
        number(attrs, service::TIMEOUT, self.timeout);
        match address {
            // Every client for itself.
            IpAddr::V4(_) => attrs.bytes(service::NETMASK, &[255; 4]),
            IpAddr::V6(_) => number(attrs, service::NETMASK, 128),
        }
    }
}

pub(super) fn number(attrs: &mut Attrs<'_>, kind: u16, value: u32) {
    attrs.bytes(kind, &value.to_ne_bytes());
}

fn identify(key: &ServerKey, attrs: &mut Attrs<'_>) {
    let family = match key.address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    };
    attrs.bytes(service::AF, &family.to_ne_bytes());
    attrs.bytes(service::PROTOCOL, &u16::from(key.protocol).to_ne_bytes());
    attrs.bytes(service::ADDR, &wide(key.address));
    attrs.bytes(service::PORT, &key.port.to_be_bytes());
}

fn place(at: SocketAddr, attrs: &mut Attrs<'_>) {
    let family = match at {
        SocketAddr::V4(_) => AF_INET,
        SocketAddr::V6(_) => AF_INET6,
    };
    attrs.bytes(dest::ADDR, &wide(at.ip()));
    attrs.bytes(dest::PORT, &at.port().to_be_bytes());
    attrs.bytes(dest::ADDR_FAMILY, &family.to_ne_bytes());
}

/// An address as `union nf_inet_addr` has it.
fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    }
}

fn narrow(family: u16, attr: &Attr<'_>) -> Result<IpAddr, DecodeError> {
    let address = match family {
        AF_INET => attr
            .value
            .first_chunk()
            .map(|octets: &[u8; 4]| IpAddr::from(Ipv4Addr::from(*octets))),
        AF_INET6 => attr
            .value
            .first_chunk()
            .map(|octets: &[u8; 16]| IpAddr::from(Ipv6Addr::from(*octets))),
        _ => None,
    };
    address.ok_or_else(|| bad(attr, "an address"))
}

const fn bad(attr: &Attr<'_>, expected: &'static str) -> DecodeError {
    DecodeError::Value {
        kind: attr.kind,
        offset: attr.offset,
        expected,
    }
}

fn half(attr: &Attr<'_>) -> Result<u16, DecodeError> {
    let bytes = attr.value.try_into().map_err(|_| bad(attr, "two bytes"))?;
    Ok(u16::from_ne_bytes(bytes))
}

fn port(attr: &Attr<'_>) -> Result<u16, DecodeError> {
    Ok(u16::from_be(half(attr)?))
}

pub(super) fn word(attr: &Attr<'_>) -> Result<u32, DecodeError> {
    let bytes = attr.value.try_into().map_err(|_| bad(attr, "four bytes"))?;
    Ok(u32::from_ne_bytes(bytes))
}

/// Fails where an attribute that every such message has is absent.
fn needed<T>(found: Option<T>, kind: u16) -> Result<T, DecodeError> {
    found.ok_or(DecodeError::Missing { kind })
}

/// Reads an answer about a virtual server. `None`: it is one of marked packets, which has no
/// address.
pub(super) fn server(body: &[u8]) -> Result<Option<Server>, DecodeError> {
    let outer = needed(Reader::new(body).find(SERVICE)?, SERVICE)?;
    let (mut family, mut protocol, mut address, mut at) = (None, None, None, None);
    let (mut scheduler, mut flags, mut timeout) = (None, None, None);
    for attr in outer.nested() {
        let attr = attr?;
        match attr.kind {
            service::AF => family = Some(half(&attr)?),
            service::PROTOCOL => protocol = Some(half(&attr)?),
            service::ADDR => address = Some(attr),
            service::PORT => at = Some(port(&attr)?),
            service::FWMARK => return Ok(None),
            service::SCHED_NAME => scheduler = Some(attr.string()?.to_owned()),
            service::FLAGS => {
                let bytes = attr.value.first_chunk().copied();
                flags = Some(u32::from_ne_bytes(
                    bytes.ok_or_else(|| bad(&attr, "flags and their mask"))?,
                ));
            }
            service::TIMEOUT => timeout = Some(word(&attr)?),
            _ => {}
        }
    }
    let family = needed(family, service::AF)?;
    let address = needed(address, service::ADDR)?;
    let protocol = needed(protocol, service::PROTOCOL)?;
    Ok(Some(Server {
        key: ServerKey {
            address: narrow(family, &address)?,
            protocol: u8::try_from(protocol).map_err(|_| DecodeError::Missing {
                kind: service::PROTOCOL,
            })?,
            port: needed(at, service::PORT)?,
        },
        settings: Settings {
            // None: the kernel says so where destinations cannot be chosen at all.
            scheduler: scheduler.unwrap_or_default(),
            flags: needed(flags, service::FLAGS)? & !HASHED,
            timeout: needed(timeout, service::TIMEOUT)?,
        },
    }))
}

/// Reads an answer about a destination of a server of this family.
pub(super) fn destination(of: IpAddr, body: &[u8]) -> Result<Destination, DecodeError> {
    let outer = needed(Reader::new(body).find(DEST)?, DEST)?;
    let mut family = match of {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    };
    let (mut address, mut at, mut method, mut weight) = (None, None, None, None);
    let (mut active, mut inactive) = (0, 0);
    for attr in outer.nested() {
        let attr = attr?;
        match attr.kind {
            dest::ADDR => address = Some(attr),
            dest::PORT => at = Some(port(&attr)?),
            dest::FWD_METHOD => method = Some(word(&attr)?),
            dest::WEIGHT => weight = Some(word(&attr)?),
            dest::ACTIVE_CONNS => active = word(&attr)?,
            dest::INACT_CONNS => inactive = word(&attr)?,
            dest::ADDR_FAMILY => family = half(&attr)?,
            _ => {}
        }
    }
    let address = narrow(family, &needed(address, dest::ADDR)?)?;
    Ok(Destination {
        at: SocketAddr::new(address, needed(at, dest::PORT)?),
        weight: needed(weight, dest::WEIGHT)?,
        translated: needed(method, dest::FWD_METHOD)? == TRANSLATED,
        active,
        inactive,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [ServerKey; 2] = [
        ServerKey {
            address: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)),
            protocol: 6,
            port: 80,
        },
        ServerKey {
            address: IpAddr::V6(Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 1)),
            protocol: 132,
            port: 8080,
        },
    ];

    fn encoded(request: &Request) -> Vec<u8> {
        let mut bytes = Vec::new();
        request.encode(&mut Attrs::new(&mut bytes));
        bytes
    }

    #[test]
    fn what_is_asked_is_read() {
        for key in KEYS {
            let settings = Settings {
                scheduler: "mh".to_owned(),
                flags: PERSISTENT | SCHEDULER_2 | 1 << 30,
                timeout: 10_800,
            };
            let bytes = encoded(&Request::AddServer(key, settings.clone()));
            assert_eq!(server(&bytes), Ok(Some(Server { key, settings })));
            let at = SocketAddr::new(key.address, 5353);
            let bytes = encoded(&Request::SetDestination(key, at, 7));
            let found = destination(key.address, &bytes).unwrap();
            assert_eq!((found.at, found.weight, found.translated), (at, 7, true));
        }
    }

    /// As a kernel of the other byte order would not send it: ports and addresses are the
    /// network's, the rest is the machine's.
    #[test]
    fn octets_are_in_their_order() {
        let [key, _] = KEYS;
        let bytes = encoded(&Request::DeleteServer(key));
        let outer = Reader::new(&bytes).find(SERVICE).unwrap().unwrap();
        let values: Vec<&[u8]> = outer.nested().map(|attr| attr.unwrap().value).collect();
        let (family, protocol) = (2u16.to_ne_bytes(), 6u16.to_ne_bytes());
        let mut address = [0; 16];
        address[..4].copy_from_slice(&[10, 96, 0, 1]);
        assert_eq!(values, [&family[..], &protocol, &address, &[0, 80]]);
    }

    #[test]
    fn no_bytes_do_harm() {
        let settings = Settings {
            scheduler: "rr".to_owned(),
            flags: 0,
            timeout: 0,
        };
        let [key, _] = KEYS;
        let at = SocketAddr::new(key.address, 80);
        for request in [
            Request::AddServer(key, settings),
            Request::AddDestination(key, at, 1),
        ] {
            let whole = encoded(&request);
            for cut in 0..whole.len() {
                let bytes = whole.get(..cut).unwrap();
                assert!(server(bytes).is_err() && destination(key.address, bytes).is_err());
            }
            for place in 0..whole.len() {
                for value in [0, 1, 3, 127, 255] {
                    let mut bytes = whole.clone();
                    bytes[place] = value;
                    let _ = (server(&bytes), destination(key.address, &bytes));
                }
            }
        }
    }
}
