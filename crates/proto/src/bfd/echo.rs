//! Echo packets (RFC 5880 §6.8.8, RFC 5881 §4): their content is a local matter.
//!
//! The neighbour sends them back untouched: by its kernel, where they are addressed to our own
//! address and go to its link-layer address (IPv4, as FRR on Linux), or by its daemon, where they
//! are addressed to it (IPv6, as FRR; the TTL is 254 then).

use std::num::NonZeroU32;

use crate::bytes;

/// Length of an echo packet: as long as a control packet, which FRR expects at least.
pub const ECHO_LEN: usize = 24;

/// First word, as FRR's version byte and length stand: version 1, length 24.
const HEAD: [u8; 4] = [0x20, ECHO_LEN as u8, 0, 0];
const DISCRIMINATOR: usize = 4;
const TOKEN: usize = 8;
const SEQUENCE: usize = 16;

/// An echo packet of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// The session.
    pub discriminator: NonZeroU32,
    /// Of the session's life: nobody else knows it.
    pub token: u64,
    /// Which packet.
    pub sequence: u64,
}

impl Echo {
    /// Reads a payload. `None`: it is none of ours.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        if payload.len() != ECHO_LEN || !payload.starts_with(&HEAD) {
            return None;
        }
        let word = bytes::array(payload, DISCRIMINATOR).map(u32::from_be_bytes)?;
        Some(Self {
            discriminator: NonZeroU32::new(word)?,
            token: bytes::array(payload, TOKEN).map(u64::from_be_bytes)?,
            sequence: bytes::array(payload, SEQUENCE).map(u64::from_be_bytes)?,
        })
    }

    /// The payload of a datagram.
    pub fn build(&self) -> [u8; ECHO_LEN] {
        let mut out = [0; ECHO_LEN];
        out[..DISCRIMINATOR].copy_from_slice(&HEAD);
        out[DISCRIMINATOR..TOKEN].copy_from_slice(&self.discriminator.get().to_be_bytes());
        out[TOKEN..SEQUENCE].copy_from_slice(&self.token.to_be_bytes());
        out[SEQUENCE..].copy_from_slice(&self.sequence.to_be_bytes());
        out
    }
}
