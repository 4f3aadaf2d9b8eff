//! What can go wrong between us and nf_tables.

use std::io;

/// A message from the kernel that does not decode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// An attribute or message is longer than what is left.
    #[error("netlink data cut off at byte {offset}, {left} left")]
    Truncated {
        /// Where the broken item starts.
        offset: usize,
        /// How many bytes were left there.
        left: usize,
    },
    /// An attribute's value has the wrong form.
    #[error("netlink attribute {kind} at byte {offset} is not {expected}")]
    Value {
        /// The attribute's type.
        kind: u16,
        /// Where it starts.
        offset: usize,
        /// What it should be.
        expected: &'static str,
    },
    /// An attribute that every such message has is absent.
    #[error("netlink attribute {kind} is missing")]
    Missing {
        /// The attribute's type.
        kind: u16,
    },
}

/// One message of a batch that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The message's sequence number.
    pub seq: u32,
    /// The error number, positive.
    pub errno: i32,
    /// The kernel's own words, where it has any.
    pub text: Option<String>,
    /// Where in the message the attribute stands that it blames.
    pub offset: Option<u32>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.errno))?;
        match &self.text {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

/// Talking to nf_tables failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on the socket failed.
    #[error("netlink socket: cannot {action}")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel sent something that does not decode.
    #[error("nf_tables sent a message that does not decode")]
    Decode(#[from] DecodeError),
    /// The batch was refused as a whole and nothing of it took effect.
    #[error("nf_tables refused {} message(s), the first, number {}: {}", .0.len(), .0.first().map_or(0, |r| r.seq), .0.first().map_or_else(String::new, ToString::to_string))]
    Refused(Vec<Refused>),
    /// The batch was refused, and so many errors came that some were lost.
    #[error("nf_tables refused the batch with more errors than fit in the socket's buffer")]
    Overrun,
    /// The kernel neither confirmed nor refused the batch.
    #[error("nf_tables gave no answer to a batch of {bytes} bytes")]
    NoAnswer {
        /// The batch's length.
        bytes: usize,
    },
    /// A dump failed.
    #[error("nf_tables refused to list {what}")]
    Dump {
        /// What was to be listed.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(super) fn socket(action: &'static str) -> Self {
        Self::Socket {
            action,
            source: io::Error::last_os_error(),
        }
    }
}
