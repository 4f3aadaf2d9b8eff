//! Neighbour solicitations and advertisements as Ethernet frames (RFC 4861 §4.3, §4.4, §7.1).

use std::net::Ipv6Addr;

use super::{Error, multicast_mac};
use crate::{
    bytes,
    ethernet::{self, Header, Mac},
};

/// `ff02::1`, every node of the segment.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const IP: usize = ethernet::HEADER_LEN;
const PAYLOAD_LENGTH: usize = IP + 4;
const NEXT_HEADER: usize = IP + 6;
const HOP_LIMIT: usize = IP + 7;
const SOURCE: usize = IP + 8;
const DESTINATION: usize = IP + 24;
const ICMP: usize = IP + 40;
const CODE: usize = ICMP + 1;
const CHECKSUM: usize = ICMP + 2;
const FLAGS: usize = ICMP + 4;
const TARGET: usize = ICMP + 8;
const OPTIONS: usize = ICMP + 24;

const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const OPTION_SOURCE_MAC: u8 = 1;
const OPTION_TARGET_MAC: u8 = 2;
const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// What the sender says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who has the target? (RFC 4861 §4.3)
    Solicitation {
        /// The address asked for.
        target: Ipv6Addr,
        /// Source link-layer option; absent when unreachability is probed by unicast.
        source_mac: Option<Mac>,
    },
    /// The target is here (RFC 4861 §4.4).
    Advertisement {
        /// The address spoken of.
        target: Ipv6Addr,
        /// R: the sender routes.
        router: bool,
        /// S: answer to a solicitation; confirms reachability.
        solicited: bool,
        /// O: replaces a cached link-layer address.
        override_: bool,
        /// Target link-layer option.
        target_mac: Option<Mac>,
        /// Source link-layer option, which has no meaning here (RFC 4861 §4.4) and which receivers
        /// skip: see [`unsolicited`].
        source_mac: Option<Mac>,
    },
}

/// A neighbour discovery message with its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Ethernet destination.
    pub link_destination: Mac,
    /// Ethernet source.
    pub link_source: Mac,
    /// IPv6 source; `::` in duplicate address detection.
    pub source: Ipv6Addr,
    /// IPv6 destination.
    pub destination: Ipv6Addr,
    /// The message.
    pub message: Message,
}

impl Packet {
    /// Reads a frame and applies every check of RFC 4861 §7.1.1 and §7.1.2. Bytes behind the IPv6
    /// payload are padding. Packets with extension headers are left to others as foreign: real
    /// senders use none, and RFC 6980 forbids fragments.
    pub fn parse(frame: &[u8]) -> Result<Self, Error> {
        let (header, _) = Header::parse(frame)?;
        if header.ethertype != ethernet::IPV6 {
            return Err(foreign("EtherType", 12, header.ethertype));
        }
        let [version] = field(frame, IP)?;
        if version >> 4 != 6 {
            return Err(foreign("IP version", IP, (version >> 4).into()));
        }
        let [next_header] = field(frame, NEXT_HEADER)?;
        if next_header != ICMPV6 {
            return Err(foreign("next header", NEXT_HEADER, next_header.into()));
        }
        let length = usize::from(u16::from_be_bytes(field(frame, PAYLOAD_LENGTH)?));
        let frame = frame.get(..ICMP + length).ok_or(Error::Truncated {
            offset: ICMP,
            length: frame.len(),
        })?;
        let [kind] = field(frame, ICMP)?;
        if kind != SOLICITATION && kind != ADVERTISEMENT {
            return Err(foreign("ICMPv6 type", ICMP, kind.into()));
        }
        let [found] = field(frame, HOP_LIMIT)?;
        if found != 255 {
            return Err(Error::HopLimit { found });
        }
        if checksum(frame) != 0 {
            return Err(Error::Checksum {
                found: u16::from_be_bytes(field(frame, CHECKSUM)?),
            });
        }
        if field(frame, CODE)? != [0] {
            return Err(Error::Invalid {
                offset: CODE,
                why: "code is not 0",
            });
        }
        let source = Ipv6Addr::from(field::<16>(frame, SOURCE)?);
        let destination = Ipv6Addr::from(field::<16>(frame, DESTINATION)?);
        let target = Ipv6Addr::from(field::<16>(frame, TARGET)?);
        if target.is_multicast() {
            return Err(Error::Invalid {
                offset: TARGET,
                why: "target is a multicast address",
            });
        }
        let options = Options::parse(frame)?;
        let message = if kind == SOLICITATION {
            if source.is_unspecified() {
                check_dad(destination, options)?;
            }
            Message::Solicitation {
                target,
                source_mac: options.source_mac,
            }
        } else {
            let [flags] = field(frame, FLAGS)?;
            let solicited = flags & FLAG_SOLICITED != 0;
            if solicited && destination.is_multicast() {
                return Err(Error::Invalid {
                    offset: FLAGS,
                    why: "solicited, but to a group",
                });
            }
            Message::Advertisement {
                target,
                router: flags & FLAG_ROUTER != 0,
                solicited,
                override_: flags & FLAG_OVERRIDE != 0,
                target_mac: options.target_mac,
                source_mac: options.source_mac,
            }
        };
        Ok(Self {
            link_destination: header.destination,
            link_source: header.source,
            source,
            destination,
            message,
        })
    }

    /// Of an unsolicited advertisement with an address's own MAC address: the interface that sent
    /// it ([`unsolicited`]).
    pub fn station(&self) -> Option<Mac> {
        match self.message {
            Message::Advertisement { source_mac, .. } => source_mac,
            Message::Solicitation { .. } => None,
        }
    }

    /// The frame's bytes, hop limit 255, checksum filled in.
    pub fn build(&self) -> Vec<u8> {
        let (kind, flags, target, target_mac, source_mac) = match self.message {
            Message::Solicitation { target, source_mac } => {
                (SOLICITATION, 0, target, None, source_mac)
            }
            Message::Advertisement {
                target,
                router,
                solicited,
                override_,
                target_mac,
                source_mac,
            } => {
                let flag = |on, bit| if on { bit } else { 0 };
                let flags = flag(router, FLAG_ROUTER)
                    | flag(solicited, FLAG_SOLICITED)
                    | flag(override_, FLAG_OVERRIDE);
                (ADVERTISEMENT, flags, target, target_mac, source_mac)
            }
        };
        let target_mac = target_mac.map(|mac| (OPTION_TARGET_MAC, mac));
        let source_mac = source_mac.map(|mac| (OPTION_SOURCE_MAC, mac));
        let options = target_mac.into_iter().chain(source_mac);
        let length = 24 + 8 * options.clone().count() as u16;
        let link = Header {
            destination: self.link_destination,
            source: self.link_source,
            ethertype: ethernet::IPV6,
        };
        let mut out = Vec::with_capacity(ICMP + usize::from(length));
        out.extend(link.build());
        out.extend([0x60, 0, 0, 0]);
        out.extend(length.to_be_bytes());
        out.extend([ICMPV6, 255]);
        out.extend(self.source.octets());
        out.extend(self.destination.octets());
        out.extend([kind, 0, 0, 0, flags, 0, 0, 0]);
        out.extend(target.octets());
        for (option, mac) in options {
            out.extend([option, 1]);
            out.extend(mac.0);
        }
        let sum = checksum(&out);
        out[CHECKSUM..FLAGS].copy_from_slice(&sum.to_be_bytes());
        out
    }
}

/// The frame that tells the segment that `ip` is now at `mac`: an unsolicited advertisement to
/// all nodes that overrides what they have cached (RFC 4861 §7.2.6).
///
/// `station` is the MAC address of the interface that sends. Where `mac` is another, the address's
/// own, a source link-layer option says so: that is how nodes that share `mac` know each other's
/// frames from their own.
pub fn unsolicited(mac: Mac, ip: Ipv6Addr, station: Mac) -> Vec<u8> {
    Packet {
        link_destination: multicast_mac(ALL_NODES),
        link_source: mac,
        source: ip,
        destination: ALL_NODES,
        message: Message::Advertisement {
            target: ip,
            router: false,
            solicited: false,
            override_: true,
            target_mac: Some(mac),
            source_mac: Some(station).filter(|station| *station != mac),
        },
    }
    .build()
}

/// The frame that asks whether somebody has `ip`, and from which nobody's cache learns (RFC 4862
/// §5.4.2): a solicitation from `::`.
pub fn probe(station: Mac, ip: Ipv6Addr) -> Vec<u8> {
    let group = super::solicited_node(ip);
    Packet {
        link_destination: multicast_mac(group),
        link_source: station,
        source: Ipv6Addr::UNSPECIFIED,
        destination: group,
        message: Message::Solicitation {
            target: ip,
            source_mac: None,
        },
    }
    .build()
}

/// The frame by which `sender`, an address of the interface `station` itself, asks for another host:
/// at the MAC address that it had, or of its group. Both learn from it, who asks and who answers.
///
/// The IP destination is the group in either case (RFC 6085): who is asked at its own address leaves
/// its MAC address out of the answer, as Linux does (RFC 4861 §4.4), and nothing is learned by it.
pub fn solicitation(station: Mac, sender: Ipv6Addr, target: Ipv6Addr, at: Option<Mac>) -> Vec<u8> {
    let group = super::solicited_node(target);
    Packet {
        link_destination: at.unwrap_or_else(|| multicast_mac(group)),
        link_source: station,
        source: sender,
        destination: group,
        message: Message::Solicitation {
            target,
            source_mac: Some(station),
        },
    }
    .build()
}

/// RFC 4861 §7.1.1: what a solicitation from `::` must and must not have.
fn check_dad(destination: Ipv6Addr, options: Options) -> Result<(), Error> {
    // ff02::1:ff00:0/104
    if destination.octets()[..13] != super::solicited_node(Ipv6Addr::UNSPECIFIED).octets()[..13] {
        return Err(Error::Invalid {
            offset: DESTINATION,
            why: "source is ::, but destination is no solicited-node group",
        });
    }
    if options.source_mac.is_some() {
        return Err(Error::Invalid {
            offset: OPTIONS,
            why: "source is ::, but there is a source link-layer option",
        });
    }
    Ok(())
}

/// The link-layer options; others are skipped (RFC 4861 §7.1).
#[derive(Clone, Copy, Default)]
struct Options {
    source_mac: Option<Mac>,
    target_mac: Option<Mac>,
}

impl Options {
    fn parse(frame: &[u8]) -> Result<Self, Error> {
        let mut found = Self::default();
        let mut at = OPTIONS;
        while at < frame.len() {
            let [kind, units] = field(frame, at)?;
            let length = usize::from(units) * 8;
            if length == 0 {
                return Err(Error::Invalid {
                    offset: at + 1,
                    why: "option length is 0",
                });
            }
            if at + length > frame.len() {
                return Err(Error::Truncated {
                    offset: at,
                    length: frame.len(),
                });
            }
            if kind == OPTION_SOURCE_MAC || kind == OPTION_TARGET_MAC {
                if units != 1 {
                    return Err(Error::Invalid {
                        offset: at + 1,
                        why: "link-layer option is not 8 bytes, as Ethernet's are",
                    });
                }
                let mac = Some(Mac(field(frame, at + 2)?));
                if kind == OPTION_SOURCE_MAC {
                    found.source_mac = found.source_mac.or(mac);
                } else {
                    found.target_mac = found.target_mac.or(mac);
                }
            }
            at += length;
        }
        Ok(found)
    }
}

fn field<const N: usize>(frame: &[u8], offset: usize) -> Result<[u8; N], Error> {
    bytes::array(frame, offset).ok_or(Error::Truncated {
        offset,
        length: frame.len(),
    })
}

fn foreign(field: &'static str, offset: usize, value: u16) -> Error {
    Error::Foreign {
        field,
        offset,
        value,
    }
}

/// Internet checksum over pseudo-header and message (RFC 8200 §8.1): the value to store when the
/// field is zero; zero when the stored value is right.
fn checksum(frame: &[u8]) -> u16 {
    let message = frame.get(ICMP..).unwrap_or_default();
    let addresses = frame.get(SOURCE..ICMP).unwrap_or_default();
    let number = message.len() as u64 + u64::from(ICMPV6);
    bytes::checksum(&[addresses, message], number)
}
