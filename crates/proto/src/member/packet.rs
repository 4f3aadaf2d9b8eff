//! The datagram. All numbers are big-endian.
//!
//! ```text
//!  0  magic "Cmbr"                   8  incarnation of the sender
//!  4  version 1                     16  sequence number
//!  5  type: 1 beat, 2 leave         24  payload version
//!  6  flags: 1 tag, 2 payload       32  echo: incarnation ┐ newest that the sender
//!  7  length of name                40  echo: sequence    ├ has of the receiver,
//!                                   48  echo: payload     ┘ zeros if none
//! 56  length of payload (2)         58  name, payload, HMAC-SHA-256 of all before (32)
//! ```

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Error;
use crate::bytes;

/// Longest node name, as Kubernetes has it.
pub const MAX_NAME: usize = 253;
/// Longest payload.
pub const MAX_PAYLOAD: usize = 1024;
/// Longest datagram: below every usual MTU.
pub const MAX_LEN: usize = NAME + MAX_NAME + MAX_PAYLOAD + TAG_LEN;

const MAGIC: [u8; 4] = *b"Cmbr";
const VERSION: u8 = 1;
const FLAG_TAG: u8 = 1;
const FLAG_PAYLOAD: u8 = 2;
const INCARNATION: usize = 8;
const SEQUENCE: usize = 16;
const PAYLOAD_VERSION: usize = 24;
const ECHO: usize = 32;
const PAYLOAD_LEN: usize = 56;
const NAME: usize = 58;
const TAG_LEN: usize = 32;

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

/// What the sender says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// I am alive.
    Beat = 1,
    /// I stop on purpose.
    Leave = 2,
}

/// The newest that the sender has of the receiver; zeros if nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Echo {
    /// The receiver's incarnation.
    pub incarnation: u64,
    /// The receiver's sequence number.
    pub sequence: u64,
    /// Version of the receiver's payload.
    pub payload: u64,
}

/// The sender's opaque state.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Payload {
    /// Grows with every change; 0: never set.
    pub version: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A datagram's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Beat or leave.
    pub kind: Kind,
    /// The sender.
    pub node: NodeName,
    /// Start of the sender: grows with every start.
    pub incarnation: u64,
    /// Number of the datagram: grows within an incarnation.
    pub sequence: u64,
    /// What the sender has of the receiver.
    pub echo: Echo,
    /// The sender's payload, while the receiver has not echoed its version.
    pub payload: Option<Payload>,
}

impl Packet {
    /// The datagram's bytes.
    pub fn build(&self, key: Option<&Key>) -> Result<Vec<u8>, Error> {
        let (version, payload) = match &self.payload {
            Some(payload) => (payload.version, payload.bytes.as_slice()),
            None => (0, [].as_slice()),
        };
        if payload.len() > MAX_PAYLOAD {
            return Err(Error::PayloadLength {
                length: payload.len(),
            });
        }
        let name = self.node.0.as_bytes();
        let flags = if key.is_some() { FLAG_TAG } else { 0 }
            | if self.payload.is_some() {
                FLAG_PAYLOAD
            } else {
                0
            };
        let mut out = Vec::with_capacity(NAME + name.len() + payload.len() + TAG_LEN);
        out.extend(MAGIC);
        out.extend([VERSION, self.kind as u8, flags, name.len() as u8]);
        let Echo {
            incarnation,
            sequence,
            payload: echoed,
        } = self.echo;
        for number in [
            self.incarnation,
            self.sequence,
            version,
            incarnation,
            sequence,
            echoed,
        ] {
            out.extend(number.to_be_bytes());
        }
        out.extend((payload.len() as u16).to_be_bytes());
        out.extend(name);
        out.extend(payload);
        if let Some(key) = key {
            let tag = key.hmac().chain_update(&out).finalize().into_bytes();
            out.extend(tag);
        }
        Ok(out)
    }

    /// Reads a datagram and checks its tag before it believes anything but lengths.
    pub fn parse(datagram: &[u8], key: Option<&Key>) -> Result<Self, Error> {
        let found = array(datagram, 0)?;
        if found != MAGIC {
            return Err(Error::Magic { found });
        }
        let [version, kind, flags, name_length] = array(datagram, MAGIC.len())?;
        if version != VERSION {
            return Err(Error::Version { found: version });
        }
        if flags & !(FLAG_TAG | FLAG_PAYLOAD) != 0 {
            return Err(Error::Flags { found: flags });
        }
        let payload_length = usize::from(u16::from_be_bytes(array(datagram, PAYLOAD_LEN)?));
        let payload_at = NAME + usize::from(name_length);
        let tag_at = payload_at + payload_length;
        let end = tag_at + if flags & FLAG_TAG != 0 { TAG_LEN } else { 0 };
        if datagram.len() > end {
            return Err(Error::Trailing {
                offset: end,
                length: datagram.len(),
            });
        }
        let name = slice(datagram, NAME, payload_at)?;
        let payload = slice(datagram, payload_at, tag_at)?;
        let tag = slice(datagram, tag_at, end)?;
        match key {
            None if flags & FLAG_TAG != 0 => return Err(Error::UnexpectedTag),
            Some(_) if flags & FLAG_TAG == 0 => return Err(Error::Untagged),
            Some(key) => key
                .hmac()
                .chain_update(slice(datagram, 0, tag_at)?)
                .verify_slice(tag)
                .map_err(|_| Error::BadTag)?,
            None => {}
        }
        let kind = match kind {
            1 => Kind::Beat,
            2 => Kind::Leave,
            found => return Err(Error::Kind { found }),
        };
        if payload.len() > MAX_PAYLOAD || (flags & FLAG_PAYLOAD == 0 && !payload.is_empty()) {
            return Err(Error::PayloadLength {
                length: payload.len(),
            });
        }
        let name = str::from_utf8(name).map_err(|_| Error::Name { offset: NAME })?;
        let number = |offset| array(datagram, offset).map(u64::from_be_bytes);
        let payload_version = number(PAYLOAD_VERSION)?;
        Ok(Self {
            kind,
            node: NodeName::new(name)?,
            incarnation: number(INCARNATION)?,
            sequence: number(SEQUENCE)?,
            echo: Echo {
                incarnation: number(ECHO)?,
                sequence: number(ECHO + 8)?,
                payload: number(ECHO + 16)?,
            },
            payload: (flags & FLAG_PAYLOAD != 0).then(|| Payload {
                version: payload_version,
                bytes: payload.to_vec(),
            }),
        })
    }
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
