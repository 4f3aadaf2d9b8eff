//! The control packet (RFC 5880 §4.1).

use std::fmt;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use super::Error;
use crate::bytes;

/// UDP port of control packets over one hop (RFC 5881 §4).
pub const CONTROL_PORT: u16 = 3784;
/// UDP port of echo packets (RFC 5881 §4).
pub const ECHO_PORT: u16 = 3785;
/// UDP port of control packets over several hops (RFC 5883 §5).
pub const MULTIHOP_PORT: u16 = 4784;
/// Source ports of control packets (RFC 5881 §4).
pub const SOURCE_PORTS: RangeInclusive<u16> = 49152..=65535;
/// TTL or hop limit of everything that is sent (RFC 5881 §5).
pub const TTL: u8 = 255;

/// Length of a control packet without authentication.
pub const LEN: usize = 24;
/// Least length of one with it.
const LEN_AUTHENTICATED: usize = 26;

const VERSION: u8 = 1;
const FLAGS: usize = 1;
const MULTIPLIER: usize = 2;
const LENGTH: usize = 3;
const MY_DISCRIMINATOR: usize = 4;
const YOUR_DISCRIMINATOR: usize = 8;
const DESIRED_TX: usize = 12;
const REQUIRED_RX: usize = 16;
const REQUIRED_ECHO_RX: usize = 20;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const INDEPENDENT: u8 = 0x08;
const AUTHENTICATED: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// State of a session, as it stands in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Held down on purpose.
    AdminDown = 0,
    /// Down, or not up yet.
    Down = 1,
    /// The neighbour is heard, and does not hear us yet as far as we know.
    Init = 2,
    /// Both sides hear each other.
    Up = 3,
}

impl State {
    const fn of(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "AdminDown",
            Self::Down => "Down",
            Self::Init => "Init",
            Self::Up => "Up",
        })
    }
}

/// Why a session last left state Up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// 0.
    pub const NONE: Self = Self(0);
    /// 1: nothing was heard for the detection time.
    pub const TIME_EXPIRED: Self = Self(1);
    /// 2: echo packets do not come back.
    pub const ECHO_FAILED: Self = Self(2);
    /// 3: the neighbour says that it is down.
    pub const NEIGHBOUR_DOWN: Self = Self(3);
    /// 5: the path is known to be down.
    pub const PATH_DOWN: Self = Self(5);
    /// 7: held down on purpose.
    pub const ADMIN_DOWN: Self = Self(7);
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbour signalled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            other => return write!(f, "diagnostic {other}"),
        })
    }
}

/// A control packet. Intervals are in microseconds, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender last left state Up.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// P: an answer with F is wanted.
    pub poll: bool,
    /// F: the answer to P.
    pub r#final: bool,
    /// C: the sender's BFD outlives its control plane.
    pub independent: bool,
    /// D: the sender wants no periodic packets while both sides are Up.
    pub demand: bool,
    /// Of the sender's interval makes the receiver's detection time; never 0.
    pub multiplier: u8,
    /// The sender's discriminator.
    pub mine: NonZeroU32,
    /// The receiver's, 0 where it is not known.
    pub yours: u32,
    /// The sender would like to send at this interval.
    pub desired_tx: u32,
    /// The sender cannot take packets at a shorter interval; 0: it wants none.
    pub required_rx: u32,
    /// The same for echo packets; 0: it does not send them back.
    pub required_echo_rx: u32,
}

impl Packet {
    /// Reads the payload of a datagram, with the checks of §6.8.6 that need no session, in its
    /// order.
    pub fn parse(payload: &[u8]) -> Result<Self, Error> {
        let short = || Error::Truncated {
            length: payload.len(),
        };
        let header: [u8; LEN] = bytes::array(payload, 0).ok_or_else(short)?;
        let version = header[0] >> 5;
        if version != VERSION {
            return Err(Error::Version { version });
        }
        let flags = header[FLAGS];
        let authenticated = flags & AUTHENTICATED != 0;
        let least = if authenticated {
            LEN_AUTHENTICATED
        } else {
            LEN
        };
        let length = header[LENGTH];
        if usize::from(length) < least || usize::from(length) > payload.len() {
            return Err(Error::Length {
                length,
                least,
                payload: payload.len(),
            });
        }
        let multiplier = header[MULTIPLIER];
        if multiplier == 0 {
            return Err(Error::Multiplier);
        }
        if flags & MULTIPOINT != 0 {
            return Err(Error::Multipoint);
        }
        let word = |at| bytes::array(payload, at).map_or(0, u32::from_be_bytes);
        let mine = NonZeroU32::new(word(MY_DISCRIMINATOR)).ok_or(Error::MyDiscriminator)?;
        let yours = word(YOUR_DISCRIMINATOR);
        let state = State::of(flags >> 6);
        if yours == 0 && !matches!(state, State::Down | State::AdminDown) {
            return Err(Error::YourDiscriminator { state });
        }
        // No session uses authentication.
        if authenticated {
            return Err(Error::Authenticated);
        }
        Ok(Self {
            diagnostic: Diagnostic(header[0] & 0x1f),
            state,
            poll: flags & POLL != 0,
            r#final: flags & FINAL != 0,
            independent: flags & INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            multiplier,
            mine,
            yours,
            desired_tx: word(DESIRED_TX),
            required_rx: word(REQUIRED_RX),
            required_echo_rx: word(REQUIRED_ECHO_RX),
        })
    }

    /// The payload of a datagram.
    pub fn build(&self) -> [u8; LEN] {
        let flag = |is, bit| if is { bit } else { 0 };
        let mut out = [0; LEN];
        out[0] = VERSION << 5 | self.diagnostic.0 & 0x1f;
        out[FLAGS] = (self.state as u8) << 6
            | flag(self.poll, POLL)
            | flag(self.r#final, FINAL)
            | flag(self.independent, INDEPENDENT)
            | flag(self.demand, DEMAND);
        out[MULTIPLIER] = self.multiplier;
        out[LENGTH] = LEN as u8;
        for (at, word) in [
            (MY_DISCRIMINATOR, self.mine.get()),
            (YOUR_DISCRIMINATOR, self.yours),
            (DESIRED_TX, self.desired_tx),
            (REQUIRED_RX, self.required_rx),
            (REQUIRED_ECHO_RX, self.required_echo_rx),
        ] {
            out[at..at + 4].copy_from_slice(&word.to_be_bytes());
        }
        out
    }
}
