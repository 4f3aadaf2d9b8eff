//! Counts for metrics.

use super::{Body, Error};

/// Kinds of datagrams, as metrics call them.
pub const KINDS: [&str; 8] = [
    "beat", "ack", "probe", "vote", "obituary", "hello", "leave", "follow",
];

/// A number for each of [`KINDS`].
pub type ByKind = [u64; KINDS.len()];

pub(super) fn note_kind(counts: &mut ByKind, body: &Body) {
    let [beat, ack, probe, vote, obituary, hello, leave, follow] = counts;
    *match body {
        Body::Beat { .. } => beat,
        Body::Ack { .. } => ack,
        Body::Probe => probe,
        Body::Vote(_) => vote,
        Body::Obituary(_) => obituary,
        Body::Hello { .. } => hello,
        Body::Leave => leave,
        Body::Follow { .. } => follow,
    } += 1;
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams taken.
    pub accepted: u64,
    /// Of those, what was said to this start of this node.
    pub received: ByKind,
    /// Datagrams to send.
    pub sent: ByKind,
    /// Of those, what the caller did not fetch in time.
    pub overflowed: u64,
    /// Datagrams whose authentication failed, is missing, or was not expected.
    pub bad_tag: u64,
    /// Datagrams that were taken before, or that are for an earlier incarnation.
    pub replayed: u64,
    /// Datagrams of nodes that are not peers, or from another address than theirs.
    pub stranger: u64,
    /// Datagrams that do not read.
    pub malformed: u64,
    /// Times that three beats of a ward were missed.
    pub probed: u64,
    /// Times that the probes were not answered either.
    pub voted: u64,
    /// Obituaries that this node was in the majority for.
    pub obituaries: u64,
    /// Times that this node fell silent as it was not run.
    pub paused: u64,
    /// Times that it fell silent as it heard no guardian, or learnt that it was cut off.
    pub deaf: u64,
    /// Obituaries of this node itself.
    pub buried: u64,
    /// Peers that were held for dead, and lived.
    pub revived: u64,
}

impl Counters {
    pub(super) fn note(&mut self, error: &Error) {
        *match error {
            Error::BadTag | Error::Untagged | Error::UnexpectedTag => &mut self.bad_tag,
            Error::Replayed { .. } => &mut self.replayed,
            Error::UnknownPeer { .. } | Error::OwnName { .. } | Error::WrongAddress { .. } => {
                &mut self.stranger
            }
            Error::Truncated { .. }
            | Error::Magic { .. }
            | Error::Version { .. }
            | Error::Kind { .. }
            | Error::Flags { .. }
            | Error::Guardians { .. }
            | Error::NameLength { .. }
            | Error::PayloadLength { .. }
            | Error::Trailing { .. } => &mut self.malformed,
        } += 1;
    }
}
