//! Errors of messages, each with the NOTIFICATION that it is answered with.

use std::net::Ipv4Addr;

use thiserror::Error;

use super::{Notification, attribute::Flaw, notification::code};

/// A message that ends the session. The offset counts from the message's first byte.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{fault} at offset {offset} ({})", .fault.section())]
pub struct Error {
    /// Where it is.
    pub offset: usize,
    /// What it is.
    pub fault: Fault,
    data: Vec<u8>,
}

impl Error {
    pub(super) fn new(offset: usize, fault: Fault) -> Self {
        Self {
            offset,
            fault,
            data: Vec::new(),
        }
    }

    pub(super) fn with_data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    /// What the peer is told.
    pub fn notification(&self) -> Notification {
        let (code, subcode) = self.fault.codes();
        Notification {
            code,
            subcode,
            data: self.data.clone(),
        }
    }
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// The first 16 bytes are not ones.
    #[error("BGP marker is not all ones")]
    Marker,
    /// Too short or too long for its type.
    #[error("message of type {kind} cannot have length {found}")]
    Length {
        /// Message type.
        kind: u8,
        /// Length field.
        found: u16,
    },
    /// Not a type that we know.
    #[error("message type {found} is not known")]
    Kind {
        /// What is there.
        found: u8,
    },
    /// Not version 4.
    #[error("BGP version {found} is not 4")]
    Version {
        /// What is there.
        found: u8,
    },
    /// AS number 0.
    #[error("AS number 0 is not an AS")]
    ZeroAs,
    /// Identifier 0.
    #[error("BGP identifier {found} is not valid")]
    Identifier {
        /// What is there.
        found: Ipv4Addr,
    },
    /// 1 or 2 seconds.
    #[error("hold time {found} s is neither 0 nor at least 3 s")]
    HoldTime {
        /// What is there.
        found: u16,
    },
    /// Not capabilities.
    #[error("optional parameter {found} is not supported")]
    Parameter {
        /// Its type.
        found: u8,
    },
    /// Lengths that do not fit.
    #[error("optional parameters are malformed")]
    Parameters,
    /// Withdrawn Routes Length or Total Path Attribute Length beyond the end.
    #[error("UPDATE's {field} Length {found} exceeds the message")]
    UpdateLength {
        /// Which.
        field: &'static str,
        /// What is there.
        found: u16,
    },
    /// A prefix too long, or cut.
    #[error("{field} has a malformed prefix")]
    Network {
        /// Which field.
        field: &'static str,
    },
    /// MP_REACH_NLRI or MP_UNREACH_NLRI.
    #[error("attribute {attribute} is there twice")]
    Twice {
        /// Attribute type.
        attribute: u8,
    },
    /// An attribute that everyone must know.
    #[error("well-known attribute {attribute} is not known")]
    WellKnown {
        /// Attribute type.
        attribute: u8,
    },
    /// MP_REACH_NLRI or MP_UNREACH_NLRI whose prefixes cannot be read reliably.
    #[error("attribute {attribute} is malformed: {what}")]
    Multiprotocol {
        /// Attribute type.
        attribute: u8,
        /// Which part.
        what: &'static str,
    },
    /// An attribute error where there is no prefix to withdraw for it.
    #[error("no prefix to withdraw for a malformed attribute ({0})")]
    NothingToWithdraw(Flaw),
    /// ROUTE-REFRESH of another length.
    #[error("ROUTE-REFRESH of length {found}")]
    RefreshLength {
        /// Message length.
        found: usize,
    },
}

impl Fault {
    /// Error code and subcode.
    pub fn codes(&self) -> (u8, u8) {
        match self {
            Self::Marker => (code::HEADER, 1),
            Self::Length { .. } => (code::HEADER, 2),
            Self::Kind { .. } => (code::HEADER, 3),
            Self::Version { .. } => (code::OPEN, 1),
            Self::ZeroAs => (code::OPEN, 2),
            Self::Identifier { .. } => (code::OPEN, 3),
            Self::HoldTime { .. } => (code::OPEN, 6),
            Self::Parameter { .. } => (code::OPEN, 4),
            Self::Parameters => (code::OPEN, 0),
            Self::UpdateLength { .. } | Self::Twice { .. } => (code::UPDATE, 1),
            Self::Network { .. } => (code::UPDATE, 10),
            Self::WellKnown { .. } => (code::UPDATE, 2),
            Self::Multiprotocol { .. } => (code::UPDATE, 9),
            Self::NothingToWithdraw(flaw) => (code::UPDATE, flaw.subcode()),
            Self::RefreshLength { .. } => (code::ROUTE_REFRESH, 1),
        }
    }

    /// The paragraph that says so.
    pub fn section(&self) -> &'static str {
        match self {
            Self::Marker | Self::Length { .. } | Self::Kind { .. } => "RFC 4271 §6.1",
            Self::Version { .. }
            | Self::HoldTime { .. }
            | Self::Parameter { .. }
            | Self::Parameters => "RFC 4271 §6.2",
            Self::ZeroAs => "RFC 7607 §2",
            Self::Identifier { .. } => "RFC 6286 §2.2",
            Self::UpdateLength { .. } => "RFC 7606 §3 (b)",
            Self::Network { .. } => "RFC 7606 §5.3",
            Self::Twice { .. } => "RFC 7606 §3 (g)",
            Self::WellKnown { .. } => "RFC 4271 §6.3",
            Self::Multiprotocol { .. } => "RFC 7606 §5.3, §7.11",
            Self::NothingToWithdraw(_) => "RFC 7606 §5.2",
            Self::RefreshLength { .. } => "RFC 7313 §5",
        }
    }
}
