//! Router solicitations and advertisements (RFC 4861 §4.1, §4.2, §6.1). The checksum is the
//! kernel's: raw ICMPv6 sockets write and check it (RFC 3542 §3.1).

use std::net::Ipv6Addr;

use super::Error;
use crate::{bytes, ethernet::Mac};

/// ICMPv6 type of a solicitation.
pub const SOLICITATION: u8 = 133;
/// ICMPv6 type of an advertisement.
pub const ADVERTISEMENT: u8 = 134;

const CODE: usize = 1;
const LIFETIME: usize = 6;
/// Options begin there in a solicitation and in an advertisement.
const BODY: [usize; 2] = [8, 16];
const OPTION_SOURCE_MAC: u8 = 1;

/// What the sender says, as far as it matters to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Are there routers?
    Solicitation {
        /// Source link-layer option.
        mac: Option<Mac>,
    },
    /// Here is one.
    Advertisement {
        /// Seconds for which it may be used as default router; 0: not at all.
        lifetime: u16,
        /// Source link-layer option.
        mac: Option<Mac>,
    },
}

impl Message {
    /// Reads an ICMPv6 message that came from `source` with this hop limit. Options that are not
    /// ours to read are skipped (RFC 4861 §6.1).
    pub fn parse(message: &[u8], source: Ipv6Addr, hop_limit: u8) -> Result<Self, Error> {
        let [kind, code] = field(message, 0)?;
        if kind != SOLICITATION && kind != ADVERTISEMENT {
            return Err(Error::Foreign { found: kind });
        }
        if hop_limit != 255 {
            return Err(Error::HopLimit { found: hop_limit });
        }
        if code != 0 {
            return Err(Error::Invalid {
                offset: CODE,
                why: "code is not 0",
            });
        }
        let advertisement = kind == ADVERTISEMENT;
        if advertisement && !source.is_unicast_link_local() {
            return Err(Error::Source { found: source });
        }
        let body = BODY[usize::from(advertisement)];
        if message.len() < body {
            return Err(Error::Truncated {
                offset: 0,
                length: message.len(),
            });
        }
        let mac = options(message, body)?;
        if !advertisement {
            if mac.is_some() && source.is_unspecified() {
                return Err(Error::Invalid {
                    offset: body,
                    why: "source is ::, but there is a source link-layer option",
                });
            }
            return Ok(Self::Solicitation { mac });
        }
        Ok(Self::Advertisement {
            lifetime: u16::from_be_bytes(field(message, LIFETIME)?),
            mac,
        })
    }

    /// The message's bytes; the checksum is left to the kernel.
    pub fn build(&self) -> Vec<u8> {
        let (mut out, mac) = match self {
            Self::Solicitation { mac } => {
                let mut out = vec![0; BODY[0]];
                out[0] = SOLICITATION;
                (out, mac)
            }
            Self::Advertisement { lifetime, mac } => {
                let mut out = vec![0; BODY[1]];
                out[0] = ADVERTISEMENT;
                // No word on hop limit, configuration, reachability, retransmission: all 0.
                out[LIFETIME..LIFETIME + 2].copy_from_slice(&lifetime.to_be_bytes());
                (out, mac)
            }
        };
        if let Some(mac) = mac {
            out.extend([OPTION_SOURCE_MAC, 1]);
            out.extend(mac.0);
        }
        out
    }
}

/// The source link-layer option, if it is Ethernet's.
fn options(message: &[u8], start: usize) -> Result<Option<Mac>, Error> {
    let mut found = None;
    let mut at = start;
    while at < message.len() {
        let [kind, units] = field(message, at)?;
        let length = usize::from(units) * 8;
        if length == 0 {
            return Err(Error::Invalid {
                offset: at + 1,
                why: "option length is 0",
            });
        }
        if at + length > message.len() {
            return Err(Error::Truncated {
                offset: at,
                length: message.len(),
            });
        }
        if kind == OPTION_SOURCE_MAC && units == 1 && found.is_none() {
            found = Some(Mac(field(message, at + 2)?));
        }
        at += length;
    }
    Ok(found)
}

fn field<const N: usize>(message: &[u8], offset: usize) -> Result<[u8; N], Error> {
    bytes::array(message, offset).ok_or(Error::Truncated {
        offset,
        length: message.len(),
    })
}
