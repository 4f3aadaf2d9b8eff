//! Why the executor could not do its work.

use linux::nft;

pub(crate) const EPERM: i32 = 1;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const EINTR: i32 = 4;
/// Of a batch as a whole: nobody has registered for nf_tables (`nfnetlink_rcv_batch`).
const EOPNOTSUPP: i32 = 95;
/// Of a socket: no netfilter netlink.
const EPROTONOSUPPORT: i32 = 93;
const EAFNOSUPPORT: i32 = 97;

/// The nftables executor failed as a whole. What concerns one service port only is in
/// [`super::Report::refused`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel is older than the floor.
    #[error("kernel {found} is too old for nftables mode: 5.13 or newer is needed")]
    Kernel {
        /// Its release.
        found: String,
    },
    /// There is no nf_tables at all.
    #[error("the kernel has no nf_tables (CONFIG_NF_TABLES)")]
    Missing {
        /// Its words.
        #[source]
        source: nft::Error,
    },
    /// Not enough rights.
    #[error(
        "nf_tables refuses changes: the capability NET_ADMIN is needed in this network namespace"
    )]
    Denied,
    /// The kernel cannot load a rule or set of ours.
    #[error("the kernel cannot load the rule set ({what}): it needs {needs}")]
    Unsupported {
        /// What it refused.
        what: String,
        /// The options that may be missing.
        needs: String,
        /// Its words.
        #[source]
        source: nft::Error,
    },
    /// Another process holds the table.
    #[error(
        "table inet {table} is owned by another process (netlink port {port}); one agent per node"
    )]
    Owned {
        /// The table.
        table: String,
        /// The owner's netlink port.
        port: u32,
    },
    /// The rules or sets themselves were refused.
    #[error("cannot {action} table inet {table}")]
    Structure {
        /// What was tried.
        action: &'static str,
        /// The table.
        table: String,
        /// Why not.
        #[source]
        source: nft::Error,
    },
    /// The kernel's state could not be read or written.
    #[error("cannot {action} nf_tables")]
    Netlink {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: nft::Error,
    },
    /// Others kept changing the rule set.
    #[error("the rule set changed during each of {attempts} attempts to read it")]
    Busy {
        /// How often it was tried.
        attempts: u32,
    },
}

pub(super) fn reading(source: nft::Error) -> Error {
    Error::Netlink {
        action: "read",
        source,
    }
}

pub(super) fn writing(source: nft::Error) -> Error {
    Error::Netlink {
        action: "write to",
        source,
    }
}

/// The first error number in a refusal.
pub(crate) fn errno(error: &nft::Error) -> Option<i32> {
    match error {
        nft::Error::Refused(refused) => refused.first().map(|r| r.errno),
        nft::Error::Dump { source, .. } | nft::Error::Socket { source, .. } => {
            source.raw_os_error()
        }
        _ => None,
    }
}

/// Whether it says that the kernel has no nf_tables, rather than that it lacks a part of them; ours
/// are the messages numbered 1 to `messages`.
pub(super) fn is_missing(error: &nft::Error, messages: usize) -> bool {
    match error {
        nft::Error::Socket { .. } => {
            matches!(errno(error), Some(EPROTONOSUPPORT | EAFNOSUPPORT))
        }
        nft::Error::Refused(refused) => refused.first().is_some_and(|first| {
            let ours = (1..=messages).contains(&(first.seq as usize));
            first.errno == EOPNOTSUPP && !ours
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn refused(seq: u32, errno: i32) -> nft::Error {
        nft::Error::Refused(vec![nft::Refused {
            seq,
            errno,
            text: None,
            offset: None,
        }])
    }

    #[test]
    fn a_kernel_without_nf_tables_is_told_from_one_without_a_part() {
        let socket = |errno| nft::Error::Socket {
            action: "open it",
            source: io::Error::from_raw_os_error(errno),
        };
        let table = [
            (socket(EPROTONOSUPPORT), true),
            (socket(EAFNOSUPPORT), true),
            (socket(EPERM), false),
            // The begin of a batch, or its end.
            (refused(0, EOPNOTSUPP), true),
            (refused(4, EOPNOTSUPP), true),
            // A message of ours: an expression that is missing.
            (refused(2, EOPNOTSUPP), false),
            (refused(2, ENOENT), false),
            (refused(0, EPERM), false),
            (nft::Error::Overrun, false),
        ];
        for (error, missing) in table {
            assert_eq!(is_missing(&error, 3), missing, "{error:?}");
        }
    }
}
