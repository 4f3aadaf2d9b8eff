//! Adj-RIB-In of one peer: what it announced and we accepted.
//!
//! Most peers' routes are not wanted: a policy that accepts nothing costs no memory and still
//! counts. A restarting peer's routes are marked stale and go later ([`Learned`]).

use std::{collections::HashMap, sync::Arc};

use super::{
    Asn, Attributes, Families, Family, Negotiated, NextHop, Nlri, Prefix, Update, fsm::Learned,
};

/// What the peer said of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnedPath {
    /// Where traffic goes.
    pub next_hop: NextHop,
    /// The rest.
    pub attributes: Arc<Attributes>,
}

/// A change of what is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// There, or there otherwise.
    Route(Nlri, LearnedPath),
    /// Gone.
    Gone(Nlri),
}

/// What came in, since the session came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Prefixes announced.
    pub announced: u64,
    /// Prefixes withdrawn, or treated so.
    pub withdrawn: u64,
    /// Announced prefixes that the policy does not want.
    pub refused: u64,
    /// Announced prefixes that came through us: our AS or router ID is in the path.
    pub looped: u64,
    /// Announced prefixes that have leaked: the peer should not have passed them on (RFC 9234 §5).
    pub leaked: u64,
    /// Announced prefixes that are no unicast ones, or of a family that has been switched off.
    pub unusable: u64,
    /// Announced prefixes beyond the limit.
    pub beyond: u64,
    /// Findings of RFC 7606.
    pub flaws: u64,
}

/// The peer sends more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// In which family.
    pub family: Family,
    /// What it may.
    pub limit: u32,
}

#[derive(Debug)]
struct Route {
    path: LearnedPath,
    stale: bool,
}

/// Accepted routes of one peer.
#[derive(Debug, Default)]
pub struct AdjIn {
    routes: HashMap<Nlri, Route>,
    counts: [u32; 2],
    limit: Option<u32>,
    received: Received,
    disabled: Families,
}

impl AdjIn {
    /// `limit`: accepted prefixes in each family.
    pub fn new(limit: Option<u32>) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// A session is there: counting begins anew.
    pub fn up(&mut self) {
        self.received = Received::default();
        self.disabled = Families::NONE;
    }

    /// What came in.
    pub fn received(&self) -> Received {
        self.received
    }

    /// Accepted prefixes of a family.
    pub fn count(&self, family: Family) -> u32 {
        let [ipv4, ipv6] = self.counts;
        match family {
            Family::Ipv4 => ipv4,
            Family::Ipv6 => ipv6,
        }
    }

    /// All that is accepted, in no order.
    pub fn routes(&self) -> impl Iterator<Item = (&Nlri, &LearnedPath)> {
        self.routes.iter().map(|(nlri, route)| (nlri, &route.path))
    }

    /// Takes an UPDATE. Changes are appended also where the error says that the session must end.
    pub fn apply(
        &mut self,
        update: Update,
        session: &Negotiated,
        accept: impl Fn(&Prefix) -> bool,
        changes: &mut Vec<Change>,
    ) -> Result<(), TooMany> {
        for family in update.disabled.iter() {
            self.disabled.insert(family);
            self.remove(family, |_| true, changes);
        }
        self.received.flaws += update.flaws.len() as u64;
        self.received.withdrawn += update.withdrawn.len() as u64;
        for nlri in update.withdrawn {
            self.gone(nlri, changes);
        }
        let looped = is_loop(&update.attributes, session);
        let role = session.role.filter(|_| session.codec.external);
        let leaked = role.is_some_and(|it| it.is_leak(&update.attributes, session.remote_as));
        let attributes = Arc::new(update.attributes);
        let mut outcome = Ok(());
        for group in update.announced {
            self.received.announced += group.nlri.len() as u64;
            for nlri in group.nlri {
                let family = nlri.prefix.family();
                let usable = nlri.prefix.is_unicast() && !self.disabled.contains(family);
                let wanted = usable && accept(&nlri.prefix);
                if !wanted || looped || leaked {
                    let counter = match (usable, wanted) {
                        (false, _) => &mut self.received.unusable,
                        (true, false) => &mut self.received.refused,
                        (true, true) if looped => &mut self.received.looped,
                        (true, true) => &mut self.received.leaked,
                    };
                    *counter += 1;
                    // It replaces what was announced before (RFC 4271 §9).
                    self.gone(nlri, changes);
                    continue;
                }
                let path = LearnedPath {
                    next_hop: group.next_hop,
                    attributes: Arc::clone(&attributes),
                };
                if !self.insert(nlri, path, changes)
                    && let Some(limit) = self.limit
                {
                    self.received.beyond += 1;
                    outcome = Err(TooMany { family, limit });
                }
            }
        }
        outcome
    }

    /// Another policy: what it does not accept goes. More than the limit stays until the peer
    /// sends more.
    pub fn restrict(
        &mut self,
        limit: Option<u32>,
        accept: impl Fn(&Prefix) -> bool,
        changes: &mut Vec<Change>,
    ) {
        self.limit = limit;
        for family in Family::ALL {
            self.remove_if(family, |nlri, _| !accept(&nlri.prefix), changes);
        }
    }

    /// What the state machine says of the peer's routes.
    pub fn learned(&mut self, learned: Learned, changes: &mut Vec<Change>) {
        match learned {
            Learned::Forget(family) => self.remove(family, |_| true, changes),
            Learned::ForgetStale(family) => self.remove(family, |route| route.stale, changes),
            Learned::Stale(family) => {
                let routes = self.routes.iter_mut();
                for (_, route) in routes.filter(|(nlri, _)| nlri.prefix.family() == family) {
                    route.stale = true;
                }
            }
            // They stay as they are: with one route for a prefix there is no better choice. One
            // that must not be kept so goes (RFC 9494 §4.2).
            Learned::LongLivedStale(family) => {
                let refuses = |route: &Route| {
                    let communities = &route.path.attributes.communities;
                    route.stale && communities.contains(&super::Community::NO_LLGR)
                };
                self.remove(family, refuses, changes);
            }
        }
    }

    /// Whether it was possible within the limit.
    fn insert(&mut self, nlri: Nlri, path: LearnedPath, changes: &mut Vec<Change>) -> bool {
        let family = nlri.prefix.family();
        if let Some(route) = self.routes.get_mut(&nlri) {
            route.stale = false;
            if route.path != path {
                route.path = path.clone();
                changes.push(Change::Route(nlri, path));
            }
            return true;
        }
        let count = self.count(family);
        if self.limit.is_some_and(|limit| count >= limit) {
            return false;
        }
        self.set_count(family, count.saturating_add(1));
        let route = Route {
            path: path.clone(),
            stale: false,
        };
        self.routes.insert(nlri, route);
        changes.push(Change::Route(nlri, path));
        true
    }

    fn gone(&mut self, nlri: Nlri, changes: &mut Vec<Change>) {
        if self.routes.remove(&nlri).is_some() {
            let family = nlri.prefix.family();
            self.set_count(family, self.count(family).saturating_sub(1));
            changes.push(Change::Gone(nlri));
        }
    }

    fn remove(&mut self, family: Family, which: impl Fn(&Route) -> bool, out: &mut Vec<Change>) {
        self.remove_if(family, |_, route| which(route), out);
    }

    fn remove_if(
        &mut self,
        family: Family,
        which: impl Fn(&Nlri, &Route) -> bool,
        out: &mut Vec<Change>,
    ) {
        let of_family = |nlri: &Nlri| nlri.prefix.family() == family;
        let mut gone: Vec<Nlri> = self
            .routes
            .iter()
            .filter(|(nlri, route)| of_family(nlri) && which(nlri, route))
            .map(|(nlri, _)| *nlri)
            .collect();
        gone.sort_unstable();
        for nlri in gone {
            self.gone(nlri, out);
        }
    }

    fn set_count(&mut self, family: Family, count: u32) {
        let [ipv4, ipv6] = &mut self.counts;
        match family {
            Family::Ipv4 => *ipv4 = count,
            Family::Ipv6 => *ipv6 = count,
        }
    }
}

/// RFC 4271 §9.1.2, RFC 4456 §8.
fn is_loop(attributes: &Attributes, session: &Negotiated) -> bool {
    let own: Asn = session.local_as;
    let id = session.local_id;
    attributes.as_path.contains(own)
        || attributes.originator_id == Some(id)
        || attributes.cluster_list.contains(&id)
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::{super::*, *};

    fn session() -> Negotiated {
        Negotiated {
            codec: Codec::default(),
            local_as: Asn(64512),
            remote_as: Asn(64513),
            local_id: Ipv4Addr::new(10, 0, 0, 1),
            remote_id: Ipv4Addr::new(10, 0, 0, 2),
            hold_time: Duration::from_secs(9),
            route_refresh: true,
            enhanced_refresh: true,
            graceful: None,
            long_lived: Vec::new(),
            role: None,
            host: None,
        }
    }

    fn nlri(text: &str) -> Nlri {
        text.parse::<Prefix>().unwrap().into()
    }

    fn update(path: &[u32], prefixes: &[&str]) -> Update {
        Update {
            announced: vec![Announced {
                next_hop: NextHop::V4(Ipv4Addr::new(10, 0, 0, 2)),
                nlri: prefixes.iter().map(|text| nlri(text)).collect(),
            }],
            attributes: Attributes {
                as_path: AsPath(path.iter().copied().map(Asn).collect()),
                ..Attributes::default()
            },
            ..Update::default()
        }
    }

    fn withdraw(prefix: &str) -> Update {
        Update {
            withdrawn: vec![nlri(prefix)],
            ..Update::default()
        }
    }

    #[test]
    fn nothing_accepted_is_counted_and_not_kept() {
        let mut adj = AdjIn::new(None);
        let mut changes = Vec::new();
        let update = update(&[64513], &["192.0.2.0/24", "198.51.100.0/24"]);
        adj.apply(update, &session(), |_| false, &mut changes)
            .unwrap();
        adj.apply(
            withdraw("192.0.2.0/24"),
            &session(),
            |_| false,
            &mut changes,
        )
        .unwrap();
        assert_eq!(changes, []);
        let want = Received {
            announced: 2,
            refused: 2,
            withdrawn: 1,
            ..Received::default()
        };
        assert_eq!(adj.received(), want);
    }

    #[test]
    fn accepted_ones_come_change_and_go() {
        let mut adj = AdjIn::new(None);
        let mut take = |update| {
            let mut changes = Vec::new();
            adj.apply(update, &session(), |_| true, &mut changes)
                .unwrap();
            changes
        };
        assert_eq!(take(update(&[64513], &["192.0.2.0/24"])).len(), 1);
        assert_eq!(take(update(&[64513], &["192.0.2.0/24"])), []);
        assert_eq!(take(update(&[64513, 7], &["192.0.2.0/24"])).len(), 1);
        let gone = [Change::Gone(nlri("192.0.2.0/24"))];
        // Our own AS: what was there is replaced by nothing.
        assert_eq!(take(update(&[64513, 64512], &["192.0.2.0/24"])), gone);
        assert_eq!(take(update(&[64513], &["192.0.2.0/24"])).len(), 1);
        assert_eq!(take(withdraw("192.0.2.0/24")), gone);
        assert_eq!(take(update(&[64513], &["224.0.0.0/4"])), []);
        assert_eq!(adj.count(Family::Ipv4), 0);
        let received = adj.received();
        assert_eq!((received.looped, received.unusable), (1, 1));
    }

    #[test]
    fn too_many_are_an_error() {
        let mut adj = AdjIn::new(Some(2));
        let mut changes = Vec::new();
        let all = update(&[64513], &["192.0.2.0/24", "192.0.2.0/25", "192.0.2.0/26"]);
        let outcome = adj.apply(all, &session(), |_| true, &mut changes);
        let family = Family::Ipv4;
        assert_eq!(outcome, Err(TooMany { family, limit: 2 }));
        assert_eq!((changes.len(), adj.count(family)), (2, 2));
        assert_eq!(adj.received().beyond, 1);
        // Those that are there may change.
        let same = update(&[64513, 9], &["192.0.2.0/24"]);
        adj.apply(same, &session(), |_| true, &mut changes).unwrap();
    }

    #[test]
    fn another_policy_keeps_what_it_accepts() {
        let mut adj = AdjIn::new(Some(2));
        let mut changes = Vec::new();
        let all = update(&[64513], &["192.0.2.0/24", "198.51.100.0/24"]);
        adj.apply(all, &session(), |_| true, &mut changes).unwrap();
        changes.clear();
        let kept = nlri("192.0.2.0/24").prefix;
        adj.restrict(Some(1), |prefix| *prefix == kept, &mut changes);
        assert_eq!(changes, [Change::Gone(nlri("198.51.100.0/24"))]);
        let more = update(&[64513], &["203.0.113.0/24"]);
        let outcome = adj.apply(more, &session(), |_| true, &mut changes);
        assert_eq!(outcome.map_err(|error| error.limit), Err(1));
    }

    #[test]
    fn a_leak_takes_the_place_of_what_was_there() {
        let session = Negotiated {
            role: Some(Role::Peer),
            ..session()
        };
        let mut adj = AdjIn::new(None);
        let mut changes = Vec::new();
        let mut take = |only_to_customer: Option<Asn>, session: &Negotiated| {
            let mut update = update(&[64513], &["192.0.2.0/24"]);
            update.attributes.only_to_customer = only_to_customer;
            changes.clear();
            adj.apply(update, session, |_| true, &mut changes).unwrap();
            (changes.len(), adj.routes().count(), adj.received().leaked)
        };
        assert_eq!(take(None, &session), (1, 1, 0));
        assert_eq!(take(Some(Asn(64513)), &session), (1, 1, 0));
        assert_eq!(take(Some(Asn(65000)), &session), (1, 0, 1));
        assert_eq!(take(Some(Asn(65000)), &session), (0, 0, 2));
        // Without a role of ours nobody can say what leaks.
        let plain = Negotiated {
            role: None,
            ..session
        };
        assert_eq!(take(Some(Asn(65000)), &plain), (1, 1, 2));
    }

    #[test]
    fn stale_ones_go_when_they_do_not_come_again() {
        let mut adj = AdjIn::new(None);
        let mut changes = Vec::new();
        let all = update(&[64513], &["192.0.2.0/24", "192.0.2.0/25"]);
        adj.apply(all, &session(), |_| true, &mut changes).unwrap();
        changes.clear();
        adj.learned(Learned::Stale(Family::Ipv4), &mut changes);
        adj.up();
        let again = update(&[64513], &["192.0.2.0/24"]);
        adj.apply(again, &session(), |_| true, &mut changes)
            .unwrap();
        assert_eq!(changes, []);
        adj.learned(Learned::ForgetStale(Family::Ipv4), &mut changes);
        assert_eq!(changes, [Change::Gone(nlri("192.0.2.0/25"))]);
        adj.learned(Learned::Forget(Family::Ipv4), &mut changes);
        assert_eq!(changes.len(), 2);
        assert_eq!(adj.routes().count(), 0);
    }
}
