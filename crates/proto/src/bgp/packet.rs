//! Header, framing and the five messages (RFC 4271 §4.1, RFC 8654).

use super::{Codec, Error, Fault, Notification, Open, Refresh, Update};
use crate::bytes;

/// Bytes of the header.
pub const HEADER_LEN: usize = 19;
/// Longest message without RFC 8654, and longest OPEN and KEEPALIVE.
pub const MAX_LEN: usize = 4096;
/// Longest message with RFC 8654.
pub const MAX_EXTENDED_LEN: usize = 65535;

const MARKER: [u8; 16] = [0xff; 16];

/// Message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// First message.
    Open = 1,
    /// Routes.
    Update = 2,
    /// Last message.
    Notification = 3,
    /// I am alive.
    Keepalive = 4,
    /// Routes again.
    RouteRefresh = 5,
}

/// Begins a message and gives the place that [`finish`] needs.
pub(super) fn start(kind: Kind, out: &mut Vec<u8>) -> usize {
    let at = out.len();
    out.extend(MARKER);
    out.extend([0, 0, kind as u8]);
    at
}

/// Fills in the length.
pub(super) fn finish(at: usize, out: &mut [u8]) {
    // Every encoder keeps below 65535; a longer one would be a bug and is made visible to the peer.
    let length = u16::try_from(out.len() - at).unwrap_or(u16::MAX);
    set_u16(out, at + MARKER.len(), length);
}

/// Writes a length field that was left open.
pub(super) fn set_u16(out: &mut [u8], at: usize, value: u16) {
    if let Some(field) = out.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Appends a KEEPALIVE.
pub fn keepalive(out: &mut Vec<u8>) {
    let at = start(Kind::Keepalive, out);
    finish(at, out);
}

/// A message from the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// First message.
    Open(Open),
    /// Routes.
    Update(Box<Update>),
    /// Last message.
    Notification(Notification),
    /// I am alive.
    Keepalive,
    /// Routes again.
    RouteRefresh(Refresh),
}

impl Message {
    /// Reads a whole message, as [`Framer::next`] gives it.
    pub fn decode(message: &[u8], codec: &Codec) -> Result<Self, Error> {
        let kind = check_header(message, MAX_EXTENDED_LEN)?.0;
        Ok(match kind {
            Kind::Open => Self::Open(Open::decode(message)?),
            Kind::Update => Self::Update(Box::new(Update::decode(message, codec)?)),
            Kind::Notification => Self::Notification(Notification::decode(message)),
            Kind::Keepalive => Self::Keepalive,
            Kind::RouteRefresh => Self::RouteRefresh(Refresh::decode(message)?),
        })
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Open(_) => Kind::Open,
            Self::Update(_) => Kind::Update,
            Self::Notification(_) => Kind::Notification,
            Self::Keepalive => Kind::Keepalive,
            Self::RouteRefresh(_) => Kind::RouteRefresh,
        }
    }
}

/// Type and length of the message that starts here (RFC 4271 §6.1). Call it with a whole header.
fn check_header(header: &[u8], limit: usize) -> Result<(Kind, usize), Error> {
    if bytes::array(header, 0) != Some(MARKER) {
        return Err(Error::new(0, Fault::Marker));
    }
    let found = bytes::be16(header, 16).unwrap_or_default();
    let length = usize::from(found);
    let number = bytes::array(header, 18).map_or(0, |[kind]: [u8; 1]| kind);
    let bad_length = || {
        let fault = Fault::Length {
            kind: number,
            found,
        };
        Error::new(16, fault).with_data(&found.to_be_bytes())
    };
    if length < HEADER_LEN || length > limit {
        return Err(bad_length());
    }
    let (kind, possible) = match number {
        1 => (Kind::Open, 29..=MAX_LEN),
        2 => (Kind::Update, 23..=limit),
        3 => (Kind::Notification, 21..=limit),
        4 => (Kind::Keepalive, HEADER_LEN..=HEADER_LEN),
        // Its length is checked by RFC 7313's rules.
        5 => (Kind::RouteRefresh, HEADER_LEN..=limit),
        found => return Err(Error::new(18, Fault::Kind { found }).with_data(&[found])),
    };
    if possible.contains(&length) {
        Ok((kind, length))
    } else {
        Err(bad_length())
    }
}

/// Cuts a byte stream into messages.
#[derive(Clone, Debug)]
pub struct Framer {
    buffer: Vec<u8>,
    at: usize,
    limit: usize,
}

impl Default for Framer {
    fn default() -> Self {
        Self {
            buffer: Vec::new(),
            at: 0,
            limit: MAX_LEN,
        }
    }
}

impl Framer {
    /// Takes messages up to 65535 bytes from now on: we have offered it (RFC 8654 §4).
    pub fn allow_extended(&mut self) {
        self.limit = MAX_EXTENDED_LEN;
    }

    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend(bytes);
    }

    /// The next whole message; `None`: more bytes are needed. A wrong header is reported as soon as
    /// it is there, not when the message is. After an error the stream has no more messages.
    #[expect(clippy::should_implement_trait, reason = "lends from itself")]
    pub fn next(&mut self) -> Result<Option<&[u8]>, Error> {
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        if rest.len() < HEADER_LEN {
            return Ok(None);
        }
        let (_, length) = check_header(rest, self.limit)?;
        let message = rest.get(..length);
        if message.is_some() {
            self.at += length;
        }
        Ok(message)
    }

    /// Bytes that are not yet a message.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.at
    }
}
