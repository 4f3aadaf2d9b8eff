//! What is due, sorted by message.

use std::collections::BTreeMap;

use super::{super::Family, PathId};

/// Lists of places, one for each family, taken from the end.
#[derive(Debug, Default)]
pub(super) struct ByFamily {
    ipv4: Vec<u32>,
    ipv6: Vec<u32>,
}

impl ByFamily {
    pub(super) fn of(&mut self, family: Family) -> &mut Vec<u32> {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ipv4.is_empty() && self.ipv6.is_empty()
    }
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) withdrawals: ByFamily,
    announcements: BTreeMap<(Family, PathId), Vec<u32>>,
    /// Announced earlier, not to be announced now.
    pub(super) stale: Vec<(Family, u32)>,
}

impl Queue {
    pub(super) fn withdraw(&mut self, family: Family, at: u32) {
        self.withdrawals.of(family).push(at);
    }

    pub(super) fn announce(&mut self, family: Family, path: PathId, at: u32) {
        let list = self.announcements.entry((family, path));
        list.or_default().push(at);
    }

    /// All that have one path.
    pub(super) fn take_announcements(&mut self) -> Option<(Family, PathId, Vec<u32>)> {
        let ((family, path), list) = self.announcements.pop_first()?;
        Some((family, path, list))
    }

    /// The rest of what was taken.
    pub(super) fn put_back(&mut self, family: Family, path: PathId, list: Vec<u32>) {
        self.announcements.insert((family, path), list);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.withdrawals.is_empty() && self.announcements.is_empty() && self.stale.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
