//! What the ARP and the NDP responder have in common: outcomes, reasons and counters.

use crate::ethernet::Mac;

/// What a received frame asks of the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<Ip, Frame> {
    /// Send this frame on the interface.
    Reply(Frame),
    /// Nothing to do; the counters have noted why.
    Ignored(DropReason),
    /// A stranger claims an address that is announced here. The caller knows whether the MAC
    /// address is that of another interface of this node, or of the next owner.
    Conflict {
        /// The address.
        ip: Ip,
        /// The stranger.
        mac: Mac,
    },
}

/// Why a frame was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// Neither ARP over Ethernet and IPv4, nor a neighbour solicitation or advertisement.
    Foreign,
    /// Cut short, or a field that the RFC forbids.
    Malformed,
    /// Tagged for a VLAN: another segment's traffic.
    Vlan,
    /// IPv6 hop limit below 255: forwarded by a router, so from off-link.
    HopLimit,
    /// Wrong ICMPv6 checksum.
    Checksum,
    /// A reply or advertisement, of an address that is not ours.
    NotRequest,
    /// Ethernet destination is another station or group.
    NotForUs,
    /// The address asked for is not announced on this interface.
    NotAnnounced,
    /// Our own frame, heard again.
    Own,
    /// The asker's MAC address is zero, broadcast or multicast: an answer would go astray.
    BadSender,
}

impl DropReason {
    /// All reasons, in the order of the counters.
    pub const ALL: [Self; 10] = [
        Self::Foreign,
        Self::Malformed,
        Self::Vlan,
        Self::HopLimit,
        Self::Checksum,
        Self::NotRequest,
        Self::NotForUs,
        Self::NotAnnounced,
        Self::Own,
        Self::BadSender,
    ];

    /// The reason as a metrics label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Malformed => "malformed",
            Self::Vlan => "vlan",
            Self::HopLimit => "hop_limit",
            Self::Checksum => "checksum",
            Self::NotRequest => "not_request",
            Self::NotForUs => "not_for_us",
            Self::NotAnnounced => "not_announced",
            Self::Own => "own",
            Self::BadSender => "bad_sender",
        }
    }
}

/// Counts of outcomes, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Answers built.
    pub replies: u64,
    /// Conflicts seen.
    pub conflicts: u64,
    drops: [u64; DropReason::ALL.len()],
}

impl Counters {
    /// Frames ignored for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    pub(crate) fn note<Ip, Frame>(&mut self, outcome: &Outcome<Ip, Frame>) {
        match outcome {
            Outcome::Reply(_) => self.replies += 1,
            Outcome::Ignored(reason) => self.drops[*reason as usize] += 1,
            Outcome::Conflict { .. } => self.conflicts += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_every_reason_at_its_counter() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?}");
        }
    }
}
