//! Settings of a session.

use std::num::NonZeroU8;
use std::time::Duration;

use super::TTL;

/// How far away the neighbour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hops {
    /// On the same link: packets must come with TTL 255 (RFC 5881 §5).
    Single,
    /// Behind routers: packets must come with this TTL at least (RFC 5883 §5).
    Multi {
        /// `minimumTtl`.
        minimum_ttl: u8,
    },
}

impl Hops {
    /// The least TTL that counts.
    pub const fn least_ttl(self) -> u8 {
        match self {
            Self::Single => TTL,
            Self::Multi { minimum_ttl } => minimum_ttl,
        }
    }
}

/// What is wanted of a session; the fields of MetalLB's BFDProfile. All may be changed while the
/// session is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `transmitInterval`: the shortest interval to send at.
    pub transmit: Duration,
    /// `receiveInterval`: the shortest interval to be sent at.
    pub receive: Duration,
    /// `detectMultiplier`: how many intervals of silence the neighbour bears.
    pub multiplier: NonZeroU8,
    /// `echoMode` with `echoInterval`: echo packets are sent at this interval, and the neighbour's
    /// are sent back at most as often. Not over several hops (RFC 5883 §3).
    pub echo: Option<Duration>,
    /// `passiveMode`: says nothing before the neighbour does.
    pub passive: bool,
    /// Over how many hops, with `minimumTtl`.
    pub hops: Hops,
}

impl Default for Settings {
    /// FRR's defaults.
    fn default() -> Self {
        Self {
            transmit: Duration::from_millis(300),
            receive: Duration::from_millis(300),
            multiplier: NonZeroU8::new(3).unwrap_or(NonZeroU8::MAX),
            echo: None,
            passive: false,
            hops: Hops::Single,
        }
    }
}

impl Settings {
    /// The echo interval, where echo may be used.
    pub(super) fn echo(&self) -> Option<Duration> {
        self.echo.filter(|_| self.hops == Hops::Single)
    }
}

/// As it stands in a packet.
pub(super) fn micros(interval: Duration) -> u32 {
    u32::try_from(interval.as_micros()).unwrap_or(u32::MAX)
}
