//! NOTIFICATION (RFC 4271 §4.5; RFC 4486, 6608, 8538, 9003, 9384, 9687).

use std::fmt;

use super::{
    packet::{HEADER_LEN, Kind, finish, start},
    reader::Reader,
};

/// Longest text that we send: RFC 8203 peers know no longer one (RFC 9003 allows 255).
pub const MAX_TEXT_SENT: usize = 128;

/// Error codes.
pub mod code {
    /// Message header.
    pub const HEADER: u8 = 1;
    /// OPEN.
    pub const OPEN: u8 = 2;
    /// UPDATE.
    pub const UPDATE: u8 = 3;
    /// Nothing heard for the hold time.
    pub const HOLD_TIMER: u8 = 4;
    /// A message that does not fit the state.
    pub const FSM: u8 = 5;
    /// On purpose.
    pub const CEASE: u8 = 6;
    /// ROUTE-REFRESH.
    pub const ROUTE_REFRESH: u8 = 7;
    /// Nothing could be sent for the send hold time.
    pub const SEND_HOLD_TIMER: u8 = 8;
}

/// Subcodes of [`code::CEASE`].
pub mod cease {
    /// Too many prefixes.
    pub const MAX_PREFIXES: u8 = 1;
    /// Stopped by its operator.
    pub const SHUTDOWN: u8 = 2;
    /// Peer taken out of the configuration.
    pub const DECONFIGURED: u8 = 3;
    /// Reset by its operator.
    pub const RESET: u8 = 4;
    /// Not wanted.
    pub const REJECTED: u8 = 5;
    /// Another configuration.
    pub const CHANGED: u8 = 6;
    /// The other of two connections is kept.
    pub const COLLISION: u8 = 7;
    /// No memory or the like.
    pub const RESOURCES: u8 = 8;
    /// No graceful restart for what is inside.
    pub const HARD_RESET: u8 = 9;
    /// BFD says that the path is dead.
    pub const BFD_DOWN: u8 = 10;
}

/// The last message on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// What the subcode says.
    pub data: Vec<u8>,
}

impl Notification {
    /// Without data.
    pub fn new(code: u8, subcode: u8) -> Self {
        Self {
            code,
            subcode,
            data: Vec::new(),
        }
    }

    /// Cease with a text for the peer's operator, for shutdown and reset (RFC 9003). The text is
    /// cut at 128 bytes.
    pub fn cease(subcode: u8, text: &str) -> Self {
        let text = text
            .get(..text.floor_char_boundary(MAX_TEXT_SENT))
            .unwrap_or(text);
        let mut data = Vec::new();
        if matches!(subcode, cease::SHUTDOWN | cease::RESET) && !text.is_empty() {
            data.push(u8::try_from(text.len()).unwrap_or_default());
            data.extend(text.as_bytes());
        }
        Self {
            code: code::CEASE,
            subcode,
            data,
        }
    }

    /// Wraps it, so that a peer with the N-bit keeps no routes (RFC 8538 §3.1).
    pub fn hard(&self) -> Self {
        let mut data = vec![self.code, self.subcode];
        data.extend(&self.data);
        Self {
            code: code::CEASE,
            subcode: cease::HARD_RESET,
            data,
        }
    }

    /// What a hard reset has inside; itself otherwise.
    pub fn inner(&self) -> Self {
        match self.data.as_slice() {
            [code, subcode, data @ ..] if self.is_hard() => Self {
                code: *code,
                subcode: *subcode,
                data: data.to_vec(),
            },
            _ => self.clone(),
        }
    }

    /// Whether it is Cease / Hard Reset.
    pub fn is_hard(&self) -> bool {
        (self.code, self.subcode) == (code::CEASE, cease::HARD_RESET)
    }

    /// The peer's text, bytes that are not UTF-8 replaced. Also from inside a hard reset.
    pub fn text(&self) -> Option<String> {
        let inner = self.inner();
        if inner.code != code::CEASE || !matches!(inner.subcode, cease::SHUTDOWN | cease::RESET) {
            return None;
        }
        let (&length, text) = inner.data.split_first()?;
        let text = text.get(..usize::from(length))?;
        (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
    }

    /// The header was checked: code and subcode are there.
    pub(super) fn decode(message: &[u8]) -> Self {
        let mut reader = Reader::new(message.get(HEADER_LEN..).unwrap_or_default(), HEADER_LEN);
        Self {
            code: reader.u8().unwrap_or_default(),
            subcode: reader.u8().unwrap_or_default(),
            data: reader.rest().to_vec(),
        }
    }

    /// Appends the message. Data that would not fit into 4096 bytes is cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let at = start(Kind::Notification, out);
        out.extend([self.code, self.subcode]);
        let room = super::packet::MAX_LEN - HEADER_LEN - 2;
        out.extend(self.data.iter().take(room));
        finish(at, out);
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_hard() && self.data.len() >= 2 {
            return write!(f, "Hard Reset: {}", self.inner());
        }
        let (code, subcode) = (self.code, self.subcode);
        match (code_name(code), subcode_name(code, subcode)) {
            (Some(name), Some(detail)) => write!(f, "{name}: {detail}")?,
            (Some(name), None) => write!(f, "{name}")?,
            (None, _) => write!(f, "unknown error")?,
        }
        write!(f, " ({code}/{subcode})")?;
        if let Some(text) = self.text() {
            write!(f, ", \"{}\"", text.escape_debug())?;
        }
        Ok(())
    }
}

fn code_name(code: u8) -> Option<&'static str> {
    Some(match code {
        1 => "Message Header Error",
        2 => "OPEN Message Error",
        3 => "UPDATE Message Error",
        4 => "Hold Timer Expired",
        5 => "Finite State Machine Error",
        6 => "Cease",
        7 => "ROUTE-REFRESH Message Error",
        8 => "Send Hold Timer Expired",
        _ => return None,
    })
}

fn subcode_name(code: u8, subcode: u8) -> Option<&'static str> {
    Some(match (code, subcode) {
        (1, 1) => "Connection Not Synchronized",
        (1, 2) => "Bad Message Length",
        (1, 3) => "Bad Message Type",
        (2, 1) => "Unsupported Version Number",
        (2, 2) => "Bad Peer AS",
        (2, 3) => "Bad BGP Identifier",
        (2, 4) => "Unsupported Optional Parameter",
        (2, 6) => "Unacceptable Hold Time",
        (2, 7) => "Unsupported Capability",
        (2, 11) => "Role Mismatch",
        (3, 1) => "Malformed Attribute List",
        (3, 2) => "Unrecognized Well-known Attribute",
        (3, 3) => "Missing Well-known Attribute",
        (3, 4) => "Attribute Flags Error",
        (3, 5) => "Attribute Length Error",
        (3, 6) => "Invalid ORIGIN Attribute",
        (3, 8) => "Invalid NEXT_HOP Attribute",
        (3, 9) => "Optional Attribute Error",
        (3, 10) => "Invalid Network Field",
        (3, 11) => "Malformed AS_PATH",
        (5, 1) => "Unexpected Message in OpenSent",
        (5, 2) => "Unexpected Message in OpenConfirm",
        (5, 3) => "Unexpected Message in Established",
        (6, 1) => "Maximum Number of Prefixes Reached",
        (6, 2) => "Administrative Shutdown",
        (6, 3) => "Peer De-configured",
        (6, 4) => "Administrative Reset",
        (6, 5) => "Connection Rejected",
        (6, 6) => "Other Configuration Change",
        (6, 7) => "Connection Collision Resolution",
        (6, 8) => "Out of Resources",
        (6, 9) => "Hard Reset",
        (6, 10) => "BFD Down",
        (7, 1) => "Invalid Message Length",
        _ => return None,
    })
}
