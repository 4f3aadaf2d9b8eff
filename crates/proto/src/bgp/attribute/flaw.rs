//! What is wrong with an attribute, and what follows from it (RFC 7606).

use thiserror::Error;

use super::super::Family;
use super::number;

/// What happens to the UPDATE. A session reset is an [`Error`](super::super::Error) instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disposition {
    /// The attribute is left out.
    Discard,
    /// The announced prefixes are withdrawn.
    Withdraw,
    /// The family's routes are all gone, and further ones are ignored on this session.
    Disable(Family),
}

/// One finding in an UPDATE that the session survives.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("attribute {attribute} at offset {offset}: {fault} ({})", .fault.section(*attribute))]
pub struct Flaw {
    /// Of the attribute in the message.
    pub offset: usize,
    /// Attribute type; 0 if there is none.
    pub attribute: u8,
    /// What.
    pub fault: AttributeFault,
    /// What follows.
    pub disposition: Disposition,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AttributeFault {
    /// The list ends inside an attribute.
    #[error("the attributes end inside it")]
    Cut,
    /// Flags that its type cannot have.
    #[error("flags {0:#04x} are not possible")]
    Flags(u8),
    /// A length that its type cannot have.
    #[error("length {0} is not possible")]
    Length(usize),
    /// A value that its type cannot have.
    #[error("its value is not possible")]
    Value,
    /// Segments that do not fit.
    #[error("its segments are malformed")]
    Segments,
    /// AS 0.
    #[error("it has AS 0")]
    ZeroAs,
    /// An AS_SET.
    #[error("it has an AS_SET")]
    AsSet,
    /// A confederation's segment.
    #[error("it has a confederation's segment")]
    Confederation,
    /// Not an address of a host.
    #[error("its next hop is not a host's address")]
    NextHop,
    /// It must be there.
    #[error("it is missing")]
    Missing,
    /// The second of its type.
    #[error("it is there twice")]
    Twice,
    /// Not for this kind of peer.
    #[error("this peer may not send it")]
    Unexpected,
    /// A family that was not negotiated.
    #[error("its family was not negotiated")]
    Family,
    /// Its prefixes cannot be read reliably.
    #[error("its prefixes or next hop cannot be read")]
    Multiprotocol,
}

impl Flaw {
    /// UPDATE error subcode, should it end the session after all.
    pub(crate) fn subcode(&self) -> u8 {
        match (self.fault, self.attribute) {
            (AttributeFault::Cut | AttributeFault::Twice, _) => 1,
            (AttributeFault::Missing, _) => 3,
            (AttributeFault::Flags(_), _) => 4,
            (AttributeFault::Length(_), _) => 5,
            (_, number::ORIGIN) => 6,
            (_, number::NEXT_HOP) => 8,
            (_, number::AS_PATH) => 11,
            _ => 9,
        }
    }
}

impl AttributeFault {
    fn section(self, attribute: u8) -> &'static str {
        match (self, attribute) {
            (Self::Cut, _) => "RFC 7606 §4",
            (Self::Flags(_), _) => "RFC 7606 §3 (c)",
            (Self::Missing, _) => "RFC 7606 §3 (d)",
            (Self::Twice, _) => "RFC 7606 §3 (g)",
            (Self::ZeroAs, _) => "RFC 7607 §2",
            (Self::AsSet, _) => "RFC 9774 §3",
            (Self::Confederation, _) => "RFC 5065 §5",
            (Self::Family, _) => "RFC 4760 §8",
            (Self::Multiprotocol, _) => "RFC 7606 §7.11",
            (_, number::ORIGIN) => "RFC 7606 §7.1",
            (_, number::AS_PATH) => "RFC 7606 §7.2",
            (_, number::NEXT_HOP) => "RFC 7606 §7.3",
            (_, number::MED) => "RFC 7606 §7.4",
            (_, number::LOCAL_PREF) => "RFC 7606 §7.5",
            (_, number::ATOMIC_AGGREGATE) => "RFC 7606 §7.6",
            (_, number::AGGREGATOR) => "RFC 7606 §7.7",
            (_, number::COMMUNITIES) => "RFC 7606 §7.8",
            (_, number::ORIGINATOR_ID) => "RFC 7606 §7.9",
            (_, number::CLUSTER_LIST) => "RFC 7606 §7.10",
            (_, number::MP_REACH) => "RFC 7606 §7.11",
            (_, number::EXTENDED_COMMUNITIES) => "RFC 7606 §7.14",
            (_, number::IPV6_EXTENDED_COMMUNITIES) => "RFC 7606 §7.15",
            (_, number::AS4_PATH | number::AS4_AGGREGATOR) => "RFC 6793 §4.1, §6",
            (_, number::AIGP) => "RFC 7311 §3",
            (_, number::LARGE_COMMUNITIES) => "RFC 8092 §6",
            (_, number::ONLY_TO_CUSTOMER) => "RFC 9234 §5",
            _ => "RFC 7606 §8",
        }
    }
}
