//! Weighted ECMP by the link bandwidth community (RFC 10005, `spec/bgp.md` A2.2 T5).
//!
//! Routers weigh only if every path has the community: all nodes give it or none does. So whether
//! a prefix is weighted follows from configuration and Services alone, never from the node: every
//! advertisement, of whatever nodes, that is for a Service behind the prefix must ask for weights.
//!
//! The weight of a node is the number of its ready endpoints of each Service with policy Local,
//! and 1 for each with policy Cluster, whose traffic any node may take. A node that announces has 1
//! at least: its endpoints may all be on their way out, and still serve.

use api::corten::v1alpha1::LinkBandwidth;
use serde::{Deserialize, Serialize};

/// Bytes a second that one endpoint stands for: 10 Mbit/s. Only the proportions count; FRR keeps
/// bytes a second in 32 bits, which 3400 endpoints fill.
pub const PER_ENDPOINT: u32 = 1_250_000;

/// Of a number this many leading bits stay: the error is at most one in sixteen, and a large
/// Service does not send an update for each Pod.
const SIGNIFICANT_BITS: u32 = 4;

/// A link bandwidth community.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Its type byte.
    pub form: LinkBandwidth,
    /// As on the wire, before it becomes a float: a multiple of [`PER_ENDPOINT`], but for the
    /// greatest.
    pub bytes_per_second: u32,
}

impl Bandwidth {
    pub(super) fn of(weight: usize, form: LinkBandwidth) -> Self {
        let weight = u32::try_from(quantised(weight.max(1))).unwrap_or(u32::MAX);
        Self {
            form,
            bytes_per_second: weight.saturating_mul(PER_ENDPOINT),
        }
    }
}

/// Rounded to the nearest number of [`SIGNIFICANT_BITS`].
pub(super) fn quantised(weight: usize) -> usize {
    let bits = usize::BITS - weight.leading_zeros();
    let shift = bits.saturating_sub(SIGNIFICANT_BITS);
    if shift == 0 {
        return weight;
    }
    let half = 1 << (shift - 1);
    weight.saturating_add(half) >> shift << shift
}
