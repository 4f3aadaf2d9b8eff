//! From what is due to messages.

use super::{
    super::{
        Announce, Codec, Families, Family, NextHop, Nlri, Refresh, RefreshKind, Withdraw,
        end_of_rib,
    },
    AdjOut, Entry,
};

impl AdjOut {
    pub(super) fn begin_refreshes(&mut self, out: &mut Vec<u8>) {
        let Some(session) = &mut self.session else {
            return;
        };
        let families: Families = session.refreshes().collect();
        for family in families.iter() {
            session.begin_of_refresh.remove(family);
            session.end_of_refresh.insert(family);
            mark(family, RefreshKind::Begin, out);
        }
        for family in families.iter() {
            self.again(family);
        }
    }

    /// Sorts what changed into withdrawals and announcements.
    pub(super) fn stage(&mut self) {
        let Some(session) = &self.session else {
            return;
        };
        let codec = session.negotiated.codec;
        for at in std::mem::take(&mut self.dirty) {
            let Some(entry) = self.entries.get_mut(at as usize) else {
                continue;
            };
            entry.dirty = false;
            let family = entry.nlri.prefix.family();
            let possible = is_possible(&entry.nlri, &codec);
            match (entry.desired, entry.sent) {
                (None, Some(_)) => self.queue.withdraw(family, at),
                (None, None) => self.forget(at),
                (Some(desired), sent) if possible && (entry.again || sent != Some(desired)) => {
                    self.queue.announce(family, desired, at);
                }
                _ => {}
            }
        }
    }

    pub(super) fn send_withdrawals(&mut self, out: &mut Vec<u8>, limit: usize) {
        let Some(session) = &self.session else {
            return;
        };
        let codec = session.negotiated.codec;
        let Self {
            queue,
            entries,
            paths,
            counts,
            ..
        } = self;
        let mut gone = Vec::new();
        for family in Family::ALL {
            let list = queue.withdrawals.of(family);
            let mut due = std::iter::from_fn(|| {
                loop {
                    let at = list.pop()?;
                    let Some(entry) = entries.get_mut(at as usize) else {
                        continue;
                    };
                    // It may be desired again by now, or its place be another's.
                    if entry.desired.is_some() || entry.nlri.prefix.family() != family {
                        continue;
                    }
                    if let Some(sent) = entry.sent.take() {
                        paths.release(sent);
                        counts.sent -= 1;
                        gone.push(at);
                        return Some(entry.nlri);
                    }
                }
            });
            let withdraw = Withdraw::new(family, &codec);
            while out.len() < limit && withdraw.message(&mut due, out) > 0 {}
        }
        for at in gone {
            self.forget(at);
        }
    }

    pub(super) fn send_announcements(&mut self, out: &mut Vec<u8>, limit: usize) {
        let Some(session) = &self.session else {
            return;
        };
        let negotiated = &session.negotiated;
        let codec = negotiated.codec;
        let Self {
            queue,
            entries,
            paths,
            counts,
            ..
        } = self;
        while out.len() < limit {
            let Some((family, id, mut list)) = queue.take_announcements() else {
                break;
            };
            let path = paths.get(id).cloned();
            let announce = path.and_then(|path| {
                let self_hop = || session.local.next_hop(family, codec.extended_next_hop);
                let next_hop = path.next_hop.or_else(self_hop)?;
                match (family, next_hop) {
                    (Family::Ipv6, NextHop::V4(_)) => return None,
                    (Family::Ipv4, NextHop::V6(_) | NextHop::V6Both { .. })
                        if !codec.extended_next_hop =>
                    {
                        return None;
                    }
                    _ => {}
                }
                let attributes =
                    path.attributes
                        .toward(negotiated.local_as, negotiated.role, &codec);
                Announce::new(&attributes, &next_hop, family, &codec).ok()
            });
            let Some(announce) = announce else {
                // What the peer has of them is no longer true.
                for at in list {
                    let stale = |entry: &Entry| entry.desired == Some(id) && entry.sent.is_some();
                    if entries.get(at as usize).is_some_and(stale) {
                        queue.stale.push((family, at));
                    }
                }
                continue;
            };
            let mut due = std::iter::from_fn(|| {
                loop {
                    let at = list.pop()?;
                    let entry = entries.get_mut(at as usize);
                    // It may be desired otherwise by now, or its place be another's: then it is in
                    // the list of changes.
                    let fits = |entry: &&mut Entry| {
                        entry.desired == Some(id)
                            && entry.nlri.prefix.family() == family
                            && is_possible(&entry.nlri, &codec)
                    };
                    let Some(entry) = entry.filter(fits) else {
                        continue;
                    };
                    if entry.sent == Some(id) && !entry.again {
                        continue;
                    }
                    entry.again = false;
                    paths.share(id);
                    match entry.sent.replace(id) {
                        Some(old) => paths.release(old),
                        None => counts.sent += 1,
                    }
                    return Some(entry.nlri);
                }
            });
            while out.len() < limit && announce.message(&mut due, out) > 0 {}
            if !list.is_empty() {
                queue.put_back(family, id, list);
            }
        }
        self.withdraw_stale(out);
    }

    /// Withdraws what was announced but cannot be any more.
    fn withdraw_stale(&mut self, out: &mut Vec<u8>) {
        let Some(session) = &self.session else {
            return;
        };
        let codec = session.negotiated.codec;
        let Self {
            queue,
            entries,
            paths,
            counts,
            ..
        } = self;
        for family in Family::ALL {
            let of_family = queue.stale.iter().filter(|(other, _)| *other == family);
            let mut due = of_family.filter_map(|(_, at)| {
                let entry = entries.get_mut(*at as usize)?;
                paths.release(entry.sent.take()?);
                counts.sent -= 1;
                Some(entry.nlri)
            });
            let withdraw = Withdraw::new(family, &codec);
            while withdraw.message(&mut due, out) > 0 {}
        }
        queue.stale.clear();
    }

    pub(super) fn send_marks(&mut self, out: &mut Vec<u8>) {
        let Some(session) = &mut self.session else {
            return;
        };
        for family in std::mem::take(&mut session.end_of_refresh).iter() {
            mark(family, RefreshKind::End, out);
        }
        if self.ready {
            for family in std::mem::take(&mut session.end_of_rib).iter() {
                end_of_rib(family, out);
            }
        }
    }
}

fn mark(family: Family, kind: RefreshKind, out: &mut Vec<u8>) {
    let family = family.into();
    Refresh { family, kind }.encode(out);
}

/// Whether the session has room for it at all.
fn is_possible(nlri: &Nlri, codec: &Codec) -> bool {
    let family = nlri.prefix.family();
    codec.families.contains(family) && (nlri.path_id == 0 || codec.add_path_send.contains(family))
}
