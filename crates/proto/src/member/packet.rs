//! The datagram. All numbers are big-endian.
//!
//! ```text
//!  0  magic "Cm"
//!  2  version (high half), kind (low half)
//!  3  flags: 1 tag, 2 payload, 4 answer wanted, 8 the sender hears no guardian
//!  4  sender: the first 8 bytes of SHA-256 of its name
//! 12  incarnation of the sender
//! 20  the receiver's incarnation as the sender knows it; 0: not at all
//! 28  sequence number (4)
//! 32  by kind:  1 beat      guardians: the first 4 bytes of their ids, up to three
//!               2 ack       sequence number of the beat (4)
//!               3 probe     -
//!               4 vote      id and incarnation of the dead
//!               5 obituary  id and incarnation of the dead
//!               6 hello     versions of the receiver's payload and the sender's (4 each), payload
//!               7 leave     -
//!               8 follow    milliseconds until the next start of the sender (4)
//!     HMAC-SHA-256 of all before, cut to 16 bytes (RFC 4868 §2.1)
//! ```

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::Error;
use crate::bytes;

/// Longest node name, as Kubernetes has it.
pub const MAX_NAME: usize = 253;
/// Longest payload.
pub const MAX_PAYLOAD: usize = 1024;
/// Most guardians of a node.
pub const MAX_GUARDIANS: usize = 3;
/// Longest datagram: below every usual MTU.
pub const MAX_LEN: usize = BODY + 8 + MAX_PAYLOAD + TAG_LEN;

const MAGIC: [u8; 2] = *b"Cm";
const VERSION: u8 = 2;
const FLAG_TAG: u8 = 1;
const FLAG_PAYLOAD: u8 = 2;
const FLAG_ANSWER: u8 = 4;
const FLAG_DEAF: u8 = 8;
const SENDER: usize = 4;
const INCARNATION: usize = 12;
const TO: usize = 20;
const SEQUENCE: usize = 28;
const BODY: usize = 32;
const TAG_LEN: usize = 16;

/// Datagrams that may wait in their socket until something is due, where nothing is amiss
/// ([`super::Member::may_wait`]): beats that want no answer, and acknowledgements.
pub const PATIENT: Pattern = Pattern {
    offset: MAGIC.len(),
    mask: 0xff00 | FLAG_ANSWER as u16,
    values: &[
        (VERSION as u16) << 12 | 0x100,
        (VERSION as u16) << 12 | 0x200,
    ],
};

/// What a kernel can tell datagrams apart by without reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Of two bytes, big-endian.
    pub offset: usize,
    /// Their bits that count.
    pub mask: u16,
    /// What these may be.
    pub values: &'static [u16],
}

impl Pattern {
    /// Whether a datagram is of this kind.
    pub fn matches(&self, datagram: &[u8]) -> bool {
        bytes::array(datagram, self.offset).is_some_and(|found| {
            self.values
                .contains(&(u16::from_be_bytes(found) & self.mask))
        })
    }
}

/// A node's name: 1 to 253 bytes, unique in the cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

impl NodeName {
    /// Checks the length.
    pub fn new(name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        match name.len() {
            1..=MAX_NAME => Ok(Self(name)),
            length => Err(Error::NameLength { length }),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A node's place in the ring, and what stands for its name in datagrams. Two of 10,000 nodes share
/// one with a probability of 3e-12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64);

impl Id {
    /// The first 8 bytes of SHA-256 of the name.
    pub fn of(name: &NodeName) -> Self {
        let hash: [u8; 32] = Sha256::digest(name.as_str()).into();
        let [a, b, c, d, e, f, g, h, ..] = hash;
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    /// The first half, which stands for a guardian.
    pub(super) const fn short(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The cluster's secret. Debug does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub [u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    fn hmac(&self) -> Hmac<Sha256> {
        // A key shorter than the hash's block is filled with zeros (RFC 2104 §2).
        let mut block = [0; 64];
        block[..self.0.len()].copy_from_slice(&self.0);
        Hmac::new(&block.into())
    }
}

/// The sender's opaque state.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Payload {
    /// Grows with every change; 0: never set.
    pub version: u32,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The end of an incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Death {
    /// Whose.
    pub node: Id,
    /// Which: it and all before it.
    pub incarnation: u64,
}

/// What the sender says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// I am alive; the receiver is among my guardians if it is named.
    Beat {
        /// Whether an [`Body::Ack`] is wanted.
        answer: bool,
        /// All my guardians, by the first half of their ids.
        guardians: Vec<u32>,
    },
    /// I have heard your beat, or that you stop.
    Ack {
        /// Its sequence number.
        sequence: u32,
    },
    /// Beat now.
    Probe,
    /// To a fellow guardian: I do not hear it.
    Vote(Death),
    /// A majority of its guardians does not hear it.
    Obituary(Death),
    /// I am here.
    Hello {
        /// Whether a hello is wanted back.
        answer: bool,
        /// Version of the receiver's payload that I have.
        have: u32,
        /// My payload, where the receiver does not have it.
        payload: Option<Payload>,
    },
    /// I stop on purpose.
    Leave,
    /// I stop, and this node's next start follows; acknowledged as a beat is.
    Follow {
        /// Milliseconds until then, at most.
        within: u32,
    },
}

/// A datagram's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The sender.
    pub from: Id,
    /// The sender's incarnation.
    pub incarnation: u64,
    /// The receiver's incarnation, as the sender knows it.
    pub to: u64,
    /// Number of the datagram: grows within an incarnation.
    pub sequence: u32,
    /// The sender hears no guardian: it must not count as alive.
    pub deaf: bool,
    /// What it says.
    pub body: Body,
}

impl Packet {
    /// The datagram's bytes.
    pub fn build(&self, key: Option<&Key>) -> Result<Vec<u8>, Error> {
        let mut flags = u8::from(key.is_some()) * FLAG_TAG + u8::from(self.deaf) * FLAG_DEAF;
        let mut body = Vec::new();
        let kind = match &self.body {
            Body::Beat { answer, guardians } => {
                flags |= u8::from(*answer) * FLAG_ANSWER;
                body.extend(guardians.iter().flat_map(|short| short.to_be_bytes()));
                1
            }
            Body::Ack { sequence } => {
                body.extend(sequence.to_be_bytes());
                2
            }
            Body::Probe => 3,
            Body::Vote(death) | Body::Obituary(death) => {
                body.extend(death.node.0.to_be_bytes());
                body.extend(death.incarnation.to_be_bytes());
                if matches!(self.body, Body::Vote(_)) {
                    4
                } else {
                    5
                }
            }
            Body::Hello {
                answer,
                have,
                payload,
            } => {
                flags |= u8::from(*answer) * FLAG_ANSWER;
                flags |= u8::from(payload.is_some()) * FLAG_PAYLOAD;
                let (version, bytes) = match payload {
                    Some(payload) => (payload.version, payload.bytes.as_slice()),
                    None => (0, [].as_slice()),
                };
                if bytes.len() > MAX_PAYLOAD {
                    return Err(Error::PayloadLength {
                        length: bytes.len(),
                    });
                }
                body.extend(have.to_be_bytes());
                body.extend(version.to_be_bytes());
                body.extend(bytes);
                6
            }
            Body::Leave => 7,
            Body::Follow { within } => {
                body.extend(within.to_be_bytes());
                8
            }
        };
        let mut out = Vec::with_capacity(BODY + body.len() + TAG_LEN);
        out.extend(MAGIC);
        out.extend([VERSION << 4 | kind, flags]);
        for number in [self.from.0, self.incarnation, self.to] {
            out.extend(number.to_be_bytes());
        }
        out.extend(self.sequence.to_be_bytes());
        out.extend(body);
        if let Some(key) = key {
            let tag = key.hmac().chain_update(&out).finalize().into_bytes();
            out.extend(tag.iter().take(TAG_LEN));
        }
        Ok(out)
    }

    /// Reads a datagram; beyond its first bytes nothing is believed before the tag was checked.
    pub fn parse(datagram: &[u8], key: Option<&Key>) -> Result<Self, Error> {
        let found = array(datagram, 0)?;
        if found != MAGIC {
            return Err(Error::Magic { found });
        }
        let [version_and_kind, flags] = array(datagram, MAGIC.len())?;
        if version_and_kind >> 4 != VERSION {
            return Err(Error::Version {
                found: version_and_kind >> 4,
            });
        }
        if flags & !(FLAG_TAG | FLAG_PAYLOAD | FLAG_ANSWER | FLAG_DEAF) != 0 {
            return Err(Error::Flags { found: flags });
        }
        let tagged = flags & FLAG_TAG != 0;
        let tag_len = if tagged { TAG_LEN } else { 0 };
        let end = datagram.len().saturating_sub(tag_len).max(BODY);
        let body = slice(datagram, BODY, end)?;
        let tag = slice(datagram, end, end + tag_len)?;
        match key {
            None if tagged => return Err(Error::UnexpectedTag),
            Some(_) if !tagged => return Err(Error::Untagged),
            Some(key) => key
                .hmac()
                .chain_update(slice(datagram, 0, end)?)
                .verify_truncated_left(tag)
                .map_err(|_| Error::BadTag)?,
            None => {}
        }
        Ok(Self {
            from: Id(number(datagram, SENDER)?),
            incarnation: number(datagram, INCARNATION)?,
            to: number(datagram, TO)?,
            sequence: u32::from_be_bytes(array(datagram, SEQUENCE)?),
            deaf: flags & FLAG_DEAF != 0,
            body: parse_body(version_and_kind & 0xf, flags, body)?,
        })
    }
}

/// `body` starts at offset [`BODY`] of the datagram.
fn parse_body(kind: u8, flags: u8, body: &[u8]) -> Result<Body, Error> {
    let answer = flags & FLAG_ANSWER != 0;
    let short = |at| -> Result<u32, Error> { array(body, at).map(u32::from_be_bytes) };
    // Errors count offsets from the datagram's start.
    let within = |error| match error {
        Error::Truncated { offset, length } => Error::Truncated {
            offset: BODY + offset,
            length: BODY + length,
        },
        other => other,
    };
    let ends_at = |length: usize| match body.len() > length {
        true => Err(Error::Trailing {
            offset: BODY + length,
            length: BODY + body.len(),
        }),
        false => Ok(()),
    };
    if flags & FLAG_PAYLOAD != 0 && kind != 6 {
        return Err(Error::Flags { found: flags });
    }
    let death = || -> Result<Death, Error> {
        ends_at(16)?;
        Ok(Death {
            node: Id(number(body, 0).map_err(within)?),
            incarnation: number(body, 8).map_err(within)?,
        })
    };
    Ok(match kind {
        1 => {
            let (guardians, rest) = body.as_chunks::<4>();
            if !rest.is_empty() || guardians.len() > MAX_GUARDIANS {
                return Err(Error::Guardians {
                    offset: BODY,
                    length: body.len(),
                });
            }
            Body::Beat {
                answer,
                guardians: guardians.iter().map(|id| u32::from_be_bytes(*id)).collect(),
            }
        }
        2 => {
            ends_at(4)?;
            Body::Ack {
                sequence: short(0).map_err(within)?,
            }
        }
        3 => {
            ends_at(0)?;
            Body::Probe
        }
        4 => Body::Vote(death()?),
        5 => Body::Obituary(death()?),
        6 => {
            let (have, version) = (short(0).map_err(within)?, short(4).map_err(within)?);
            let bytes = body.get(8..).unwrap_or_default();
            let there = flags & FLAG_PAYLOAD != 0;
            if bytes.len() > MAX_PAYLOAD || (!there && !bytes.is_empty()) {
                return Err(Error::PayloadLength {
                    length: bytes.len(),
                });
            }
            Body::Hello {
                answer,
                have,
                payload: there.then(|| Payload {
                    version,
                    bytes: bytes.to_vec(),
                }),
            }
        }
        7 => {
            ends_at(0)?;
            Body::Leave
        }
        8 => {
            ends_at(4)?;
            Body::Follow {
                within: short(0).map_err(within)?,
            }
        }
        found => return Err(Error::Kind { found }),
    })
}

fn number(bytes: &[u8], offset: usize) -> Result<u64, Error> {
    array(bytes, offset).map(u64::from_be_bytes)
}

fn array<const N: usize>(datagram: &[u8], offset: usize) -> Result<[u8; N], Error> {
    bytes::array(datagram, offset).ok_or(Error::Truncated {
        offset,
        length: datagram.len(),
    })
}

fn slice(datagram: &[u8], start: usize, end: usize) -> Result<&[u8], Error> {
    let missing = Error::Truncated {
        offset: start,
        length: datagram.len(),
    };
    datagram.get(start..end).ok_or(missing)
}
