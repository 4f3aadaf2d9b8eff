//! Capabilities (RFC 5492).

use super::{AfiSafi, Asn, reader::Reader};

mod number {
    pub(super) const MULTIPROTOCOL: u8 = 1;
    pub(super) const ROUTE_REFRESH: u8 = 2;
    pub(super) const EXTENDED_NEXT_HOP: u8 = 5;
    pub(super) const EXTENDED_MESSAGE: u8 = 6;
    pub(super) const ROLE: u8 = 9;
    pub(super) const GRACEFUL_RESTART: u8 = 64;
    pub(super) const FOUR_OCTET_AS: u8 = 65;
    pub(super) const ADD_PATH: u8 = 69;
    pub(super) const ENHANCED_REFRESH: u8 = 70;
    pub(super) const LONG_LIVED: u8 = 71;
    pub(super) const FQDN: u8 = 73;
    pub(super) const CISCO_REFRESH: u8 = 128;
}

const RESTARTING: u8 = 0x80;
const NOTIFICATION: u8 = 0x40;
const FORWARDING: u8 = 0x80;

/// What a speaker says that it can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// A family (RFC 4760 §8).
    Multiprotocol(AfiSafi),
    /// Sends its routes again when asked (RFC 2918).
    RouteRefresh,
    /// The same under its number of before the RFC, which FRR still sends.
    CiscoRouteRefresh,
    /// With begin and end (RFC 7313).
    EnhancedRefresh,
    /// Next hops of another family: NLRI family and AFI of the next hop (RFC 8950).
    ExtendedNextHop(Vec<(AfiSafi, u16)>),
    /// Messages up to 65535 bytes (RFC 8654).
    ExtendedMessage,
    /// The number of a [`Role`](super::Role), or one that is not assigned (RFC 9234).
    Role(u8),
    /// RFC 4724, RFC 8538.
    GracefulRestart(GracefulRestart),
    /// AS numbers of 4 bytes (RFC 6793).
    FourOctetAs(Asn),
    /// Several paths for a prefix (RFC 7911).
    AddPath(Vec<(AfiSafi, AddPath)>),
    /// RFC 9494.
    LongLived(Vec<LongLived>),
    /// Host name (draft-walton-bgp-hostname-capability).
    Fqdn {
        /// Name without domain.
        host: String,
        /// The domain, often empty.
        domain: String,
    },
    /// Any other, and one of the above whose value we cannot read.
    Unknown {
        /// Its number.
        code: u8,
        /// Its value.
        value: Vec<u8>,
    },
}

/// RFC 4724 §3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R: the speaker has just restarted; do not wait for its End-of-RIB before you send.
    pub restarting: bool,
    /// N: routes also survive a NOTIFICATION (RFC 8538 §2).
    pub notification: bool,
    /// Seconds until the speaker should be back; 12 bits.
    pub restart_time: u16,
    /// Families, and whether forwarding for them was kept (F).
    pub families: Vec<(AfiSafi, bool)>,
}

/// One family of RFC 9494 §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongLived {
    /// The family.
    pub family: AfiSafi,
    /// Whether forwarding for it was kept.
    pub forwarding: bool,
    /// Seconds, 24 bits.
    pub stale_time: u32,
}

/// Directions of RFC 7911 §4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddPath {
    /// The speaker can receive several paths.
    pub receive: bool,
    /// It wants to send them.
    pub send: bool,
}

impl Capability {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (code, value) = self.value();
        out.push(code);
        // Callers keep values below 255: families are two, names are cut below.
        out.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
        out.extend(value.iter().take(usize::from(u8::MAX)));
    }

    fn value(&self) -> (u8, Vec<u8>) {
        let mut out = Vec::new();
        let code = match self {
            Self::Multiprotocol(AfiSafi { afi, safi }) => {
                out.extend(afi.to_be_bytes());
                out.extend([0, *safi]);
                number::MULTIPROTOCOL
            }
            Self::RouteRefresh => number::ROUTE_REFRESH,
            Self::CiscoRouteRefresh => number::CISCO_REFRESH,
            Self::EnhancedRefresh => number::ENHANCED_REFRESH,
            Self::ExtendedNextHop(families) => {
                for (AfiSafi { afi, safi }, next_hop) in families {
                    out.extend(afi.to_be_bytes());
                    out.extend(u16::from(*safi).to_be_bytes());
                    out.extend(next_hop.to_be_bytes());
                }
                number::EXTENDED_NEXT_HOP
            }
            Self::ExtendedMessage => number::EXTENDED_MESSAGE,
            Self::Role(role) => {
                out.push(*role);
                number::ROLE
            }
            Self::GracefulRestart(graceful) => {
                let flags = flag(graceful.restarting, RESTARTING)
                    | flag(graceful.notification, NOTIFICATION);
                let time = graceful.restart_time.min(0x0fff) | u16::from(flags) << 8;
                out.extend(time.to_be_bytes());
                for (AfiSafi { afi, safi }, forwarding) in &graceful.families {
                    out.extend(afi.to_be_bytes());
                    out.extend([*safi, flag(*forwarding, FORWARDING)]);
                }
                number::GRACEFUL_RESTART
            }
            Self::FourOctetAs(Asn(asn)) => {
                out.extend(asn.to_be_bytes());
                number::FOUR_OCTET_AS
            }
            Self::AddPath(families) => {
                for (AfiSafi { afi, safi }, AddPath { receive, send }) in families {
                    out.extend(afi.to_be_bytes());
                    out.extend([*safi, flag(*receive, 1) | flag(*send, 2)]);
                }
                number::ADD_PATH
            }
            Self::LongLived(families) => {
                for family in families {
                    out.extend(family.family.afi.to_be_bytes());
                    out.extend([family.family.safi, flag(family.forwarding, FORWARDING)]);
                    let [_, time @ ..] = family.stale_time.min(0x00ff_ffff).to_be_bytes();
                    out.extend(time);
                }
                number::LONG_LIVED
            }
            Self::Fqdn { host, domain } => {
                for name in [host, domain] {
                    // RFC 1035 allows 64 and 255; together they must fit into 255.
                    let name = name
                        .get(..name.floor_char_boundary(120))
                        .unwrap_or_default();
                    out.push(u8::try_from(name.len()).unwrap_or_default());
                    out.extend(name.as_bytes());
                }
                number::FQDN
            }
            Self::Unknown { code, value } => return (*code, value.clone()),
        };
        (code, out)
    }

    pub(super) fn decode(code: u8, value: &[u8]) -> Self {
        // A value that does not read is not an error of the OPEN: the capability does not count
        // (as RFC 8950 §4 and RFC 9494 §3.1 say for theirs).
        Self::known(code, value).unwrap_or_else(|| Self::Unknown {
            code,
            value: value.to_vec(),
        })
    }

    fn known(code: u8, value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value, 0);
        let capability = match code {
            number::MULTIPROTOCOL => {
                let afi = reader.u16()?;
                reader.u8()?;
                let safi = reader.u8()?;
                Self::Multiprotocol(AfiSafi { afi, safi })
            }
            number::ROUTE_REFRESH => Self::RouteRefresh,
            number::CISCO_REFRESH => Self::CiscoRouteRefresh,
            number::ENHANCED_REFRESH => Self::EnhancedRefresh,
            number::EXTENDED_NEXT_HOP => {
                let mut families = Vec::new();
                while !reader.is_empty() {
                    let afi = reader.u16()?;
                    let safi = u8::try_from(reader.u16()?).ok()?;
                    families.push((AfiSafi { afi, safi }, reader.u16()?));
                }
                Self::ExtendedNextHop(families)
            }
            number::EXTENDED_MESSAGE => Self::ExtendedMessage,
            number::ROLE => Self::Role(reader.u8()?),
            number::GRACEFUL_RESTART => {
                let time = reader.u16()?;
                let [flags, _] = time.to_be_bytes();
                let mut families = Vec::new();
                while !reader.is_empty() {
                    let afi = reader.u16()?;
                    let safi = reader.u8()?;
                    families.push((AfiSafi { afi, safi }, reader.u8()? & FORWARDING != 0));
                }
                Self::GracefulRestart(GracefulRestart {
                    restarting: flags & RESTARTING != 0,
                    notification: flags & NOTIFICATION != 0,
                    restart_time: time & 0x0fff,
                    families,
                })
            }
            number::FOUR_OCTET_AS => Self::FourOctetAs(Asn(reader.u32()?)),
            number::ADD_PATH => {
                let mut families = Vec::new();
                while !reader.is_empty() {
                    let afi = reader.u16()?;
                    let safi = reader.u8()?;
                    let mode = reader.u8()?;
                    // Any other value: the tuple is ignored (RFC 7911 §4).
                    if matches!(mode, 1..=3) {
                        let mode = AddPath {
                            receive: mode & 1 != 0,
                            send: mode & 2 != 0,
                        };
                        families.push((AfiSafi { afi, safi }, mode));
                    }
                }
                Self::AddPath(families)
            }
            number::LONG_LIVED => {
                let mut families = Vec::new();
                while !reader.is_empty() {
                    let afi = reader.u16()?;
                    let safi = reader.u8()?;
                    let flags = reader.u8()?;
                    let [a, b, c] = reader.array()?;
                    families.push(LongLived {
                        family: AfiSafi { afi, safi },
                        forwarding: flags & FORWARDING != 0,
                        stale_time: u32::from_be_bytes([0, a, b, c]),
                    });
                }
                Self::LongLived(families)
            }
            number::FQDN => {
                let mut name = || {
                    let length = reader.u8()?;
                    let name = reader.take(usize::from(length))?;
                    Some(String::from_utf8_lossy(name).into_owned())
                };
                Self::Fqdn {
                    host: name()?,
                    domain: name().unwrap_or_default(),
                }
            }
            _ => return None,
        };
        reader.is_empty().then_some(capability)
    }
}

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}
