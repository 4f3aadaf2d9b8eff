//! The order in which nodes stand for an address: MetalLB's, so that old and new agents agree while
//! a cluster moves from one to the other (`spec/metallb.md` §4.2 step 7).
//!
//! The order is a pure function of names, so no election traffic exists: everyone who knows the
//! same candidates names the same owner.

use std::cmp::Reverse;
use std::net::IpAddr;

use sha2::{Digest, Sha256};

use crate::world::Term;

/// Preference weights summed for one node.
pub type Score = i64;

/// The first address of a Service, as text: what ranks are computed of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor(String);

impl From<IpAddr> for Anchor {
    fn from(address: IpAddr) -> Self {
        Self(address.to_string())
    }
}

/// The rank of a node for an address; the smallest stands first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    tenure: Reverse<Option<Term>>,
    score: Reverse<Score>,
    hash: [u8; 32],
}

impl Rank {
    /// The rank of `node` for `anchor`: higher scores first, then ascending SHA-256 of node, `#` and
    /// the address's text.
    pub fn of(node: &str, anchor: &Anchor, score: Score) -> Self {
        #[cfg(test)]
        count::add();
        let mut hasher = Sha256::new();
        hasher.update(node.as_bytes());
        hasher.update(b"#");
        hasher.update(anchor.0.as_bytes());
        Self {
            tenure: Reverse(None),
            score: Reverse(score),
            hash: hasher.finalize().into(),
        }
    }

    /// The term in which the node has the address, where it stays.
    pub(crate) const fn tenure(&self) -> Option<Term> {
        self.tenure.0
    }

    /// How much the node is preferred.
    pub(crate) const fn score(&self) -> Score {
        self.score.0
    }

    /// The same of a node that has the address, where addresses stay: it stands before all that do
    /// not, and before those that had it in an earlier term.
    pub const fn holding(self, tenure: Option<Term>) -> Self {
        Self {
            tenure: Reverse(tenure),
            ..self
        }
    }
}

/// How many ranks this thread computed: what a change costs, for tests.
#[cfg(test)]
pub(crate) mod count {
    use std::cell::Cell;

    thread_local!(static RANKS: Cell<usize> = const { Cell::new(0) });

    pub(super) fn add() {
        RANKS.set(RANKS.get() + 1);
    }

    /// Since the last call.
    pub(crate) fn take() -> usize {
        RANKS.replace(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(anchor: &str, nodes: &[(&str, Score)]) -> Vec<String> {
        let anchor = Anchor::from(anchor.parse::<IpAddr>().expect("address"));
        let mut ranked: Vec<_> = nodes
            .iter()
            .map(|(node, score)| (Rank::of(node, &anchor, *score), *node))
            .collect();
        ranked.sort();
        ranked
            .into_iter()
            .map(|(_, node)| node.to_owned())
            .collect()
    }

    /// MetalLB's own vectors (TestSortL2Candidates, Apache-2.0), by `spec/metallb.md` §4.2.
    #[test]
    fn vectors_of_metallb() {
        let abc = [("node-a", 0), ("node-b", 0), ("node-c", 0)];
        assert_eq!(order("10.0.0.1", &abc), ["node-b", "node-a", "node-c"]);
        assert_eq!(order("10.0.0.2", &abc), ["node-b", "node-c", "node-a"]);
        assert_eq!(
            order(
                "10.20.30.1",
                &[
                    ("edge-a", 100),
                    ("edge-b", 0),
                    ("worker-a", 0),
                    ("worker-b", 0)
                ]
            ),
            ["edge-a", "edge-b", "worker-a", "worker-b"]
        );
        assert_eq!(
            order(
                "10.20.30.1",
                &[("edge-a", 100), ("edge-b", 100), ("worker-a", 0)]
            ),
            ["edge-b", "edge-a", "worker-a"]
        );
    }

    /// A tenure counts more than a preference, a later term more than an earlier one; between equal
    /// terms, as two sides of a split network may have them, the order decides.
    #[test]
    fn who_has_an_address_stands_before_those_who_would_be_first() {
        let anchor = Anchor::from("10.0.0.1".parse::<IpAddr>().expect("address"));
        let rank = |node, score, tenure| Rank::of(node, &anchor, score).holding(tenure);
        let ordered = [
            rank("node-c", 0, Some(3)),
            rank("node-a", 7, Some(2)),
            rank("node-b", 0, Some(2)),
            rank("node-c", 0, Some(2)),
            rank("node-c", 100, None),
            rank("node-b", 0, None),
            rank("node-a", 0, None),
        ];
        assert!(ordered.is_sorted(), "{ordered:?}");
    }

    #[test]
    fn the_order_does_not_depend_on_who_lists_the_nodes() {
        let forth = order("192.0.2.7", &[("a", 0), ("b", 5), ("c", 0)]);
        let back = order("192.0.2.7", &[("c", 0), ("b", 5), ("a", 0)]);
        assert_eq!(forth, back);
        assert_eq!(forth[0], "b");
    }
}
