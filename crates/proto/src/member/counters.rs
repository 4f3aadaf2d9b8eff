//! Counts for metrics.

use super::Error;

/// What came in since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams taken.
    pub accepted: u64,
    /// Datagrams whose authentication failed, is missing, or was not expected.
    pub bad_tag: u64,
    /// Datagrams that are not newer than one already taken.
    pub replayed: u64,
    /// Datagrams of nodes that are not peers, or from another address than theirs.
    pub stranger: u64,
    /// Datagrams that do not read.
    pub malformed: u64,
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
            | Error::Name { .. }
            | Error::NameLength { .. }
            | Error::PayloadLength { .. }
            | Error::Trailing { .. } => &mut self.malformed,
        } += 1;
    }
}
