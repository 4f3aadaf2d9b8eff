//! Why there is no session, as a status says it.

use std::time::Duration;

use thiserror::Error;

use super::{
    super::{
        Asn, Error as MessageError, Families, Kind, Notification, RoleMismatch,
        notification::{cease, code},
    },
    Phase, RemoteAs,
};

/// Why an attempt to connect failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DialError {
    /// Nobody listens, or a filter refuses.
    #[error("connection refused")]
    Refused,
    /// No route, or no neighbour.
    #[error("unreachable")]
    Unreachable,
    /// The kernel gave up.
    #[error("no answer")]
    TimedOut,
    /// It was not tried: with graceful restart the peer would take the new session for the old one
    /// come back, and both speakers would end each other's for ever.
    #[error(
        "another BGP speaker of this node has a session with it ({by}): MetalLB's speaker, FRR, or \
         Calico's BIRD? Waiting until that ends"
    )]
    Occupied {
        /// Its end of the connection.
        by: String,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Why we end a session that goes on later.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Reset {
    /// The configuration is another one, or an operator wants it.
    #[error("reset: {text}")]
    Administrative {
        /// Told to the peer.
        text: String,
    },
    /// BFD says that the path is dead (RFC 9384).
    #[error("BFD says that the path is down")]
    BfdDown,
    /// The way to the peer is gone, and was known to go: nothing can be said.
    #[error("the interface is down, or the neighbour there is another one")]
    LinkDown,
    /// The peer sends more prefixes than it may (RFC 4486).
    #[error("the peer sends more than {limit} prefixes")]
    MaxPrefixes {
        /// What it may.
        limit: u32,
    },
}

/// Why we stop.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Stop {
    /// We come back at once: the peer keeps the routes where graceful restart was negotiated.
    #[error("restart")]
    Restart,
    /// For good: the peer keeps nothing (RFC 8538 §3.1). Withdraw before.
    #[error("shutdown: {text}")]
    Drain {
        /// Told to the peer.
        text: String,
    },
    /// The peer is no longer in the configuration.
    #[error("not configured any more")]
    Removed,
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Cause {
    /// Nobody answers (so far).
    #[error("no answer{}", silence(*.password, *.minimum_ttl))]
    NoAnswer {
        /// A password is set: a wrong one looks the same.
        password: bool,
        /// TTL security is on: a peer without it looks the same.
        minimum_ttl: Option<u8>,
    },
    /// The attempt to connect failed.
    #[error("cannot connect")]
    Dial(#[source] DialError),
    /// Connected, but silence.
    #[error("connected, but no OPEN in {} s: {}", .after.as_secs(), muteness(*.minimum_ttl))]
    NoOpen {
        /// For so long.
        after: Duration,
        /// TTL security is on.
        minimum_ttl: Option<u8>,
    },
    /// The peer closed the connection without a word.
    #[error("peer closed the connection in {phase}{}", stranger(*.0), phase = .0)]
    Closed(Phase),
    /// The same, again and again.
    #[error(
        "peer closed {times} sessions in a row soon after they came up: does another speaker use \
         this node's address or router ID?"
    )]
    CutShort {
        /// So often.
        times: u32,
    },
    /// The peer opened a new connection: it has restarted.
    #[error("peer restarted")]
    Restarted,
    /// Another AS than configured.
    #[error("wrong AS: expected {expected}, got {got}")]
    WrongAs {
        /// Configured.
        expected: RemoteAs,
        /// The peer's.
        got: Asn,
    },
    /// The peer has our router ID.
    #[error("peer has our router ID")]
    OwnIdentifier,
    /// Roles that do not fit.
    #[error("role mismatch: {0}")]
    Role(RoleMismatch),
    /// Nothing in common.
    #[error("no common address family: ours {ours}, the peer's {theirs}")]
    NoCommonFamily {
        /// Configured.
        ours: Families,
        /// The peer's.
        theirs: Families,
    },
    /// The peer fell silent.
    #[error("nothing heard for {} s", .after.as_secs())]
    HoldTimer {
        /// For so long.
        after: Duration,
    },
    /// The peer does not read.
    #[error("peer has not read for {} s", .after.as_secs())]
    SendHoldTimer {
        /// For so long.
        after: Duration,
    },
    /// The peer said why.
    #[error("peer says: {}{}", .0, hint(.0))]
    Received(Notification),
    /// The peer sent what it must not.
    #[error("peer sent a malformed message")]
    Malformed(#[source] MessageError),
    /// The peer sent a message that does not fit the state.
    #[error("peer sent {kind:?} in {phase}")]
    Unexpected {
        /// Which message.
        kind: Kind,
        /// In which phase.
        phase: Phase,
    },
    /// We reset it.
    #[error(transparent)]
    Reset(Reset),
    /// We stopped it.
    #[error(transparent)]
    Stopped(Stop),
}

fn silence(password: bool, minimum_ttl: Option<u8>) -> String {
    match (password, minimum_ttl) {
        (true, None) => ": check password".to_owned(),
        (true, Some(ttl)) => {
            format!(": check password, and TTL security (packets must come with TTL {ttl})")
        }
        (false, Some(ttl)) => format!(": check TTL security (packets must come with TTL {ttl})"),
        (false, None) => {
            ": does a filter drop our packets, or does the peer want a password?".to_owned()
        }
    }
}

fn muteness(minimum_ttl: Option<u8>) -> String {
    match minimum_ttl {
        Some(ttl) => format!(
            "the peer's packets have too small a TTL: ours must come with {ttl}; is TTL security \
             on there?"
        ),
        None => "is TTL security on there, or a filter between?".to_owned(),
    }
}

/// FRR closes connections of those it does not know.
fn stranger(phase: Phase) -> &'static str {
    match phase {
        Phase::OpenSent => ": is this node among the peer's neighbours?",
        Phase::OpenConfirm | Phase::Established => "",
    }
}

fn hint(notification: &Notification) -> &'static str {
    match (notification.code, notification.subcode) {
        (code::OPEN, 2) => ": it expects another AS number of us",
        (code::OPEN, 11) => {
            ": do the roles of both sides fit, and does it insist that we say ours (`role` of a \
             Peer)?"
        }
        (code::OPEN, 7) => ": have both sides an address family in common?",
        (6, cease::COLLISION) => ": does another speaker use this node's address?",
        (6, cease::REJECTED) => ": is this node among the peer's neighbours?",
        _ => "",
    }
}
