//! The routes as planned, on their way into the Adj-RIB-Out; and the peer's, asked for again.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use plan::announce::bgp::Attributes;
use proto::bgp::fsm::Reset;
use proto::bgp::{Messages, Nlri, Path, Refresh, RefreshKind};

use super::super::route;
use super::Task;

impl Task {
    pub(super) fn offer(&mut self, prefix: IpNet, attributes: &Attributes) {
        if self.draining.withholds() {
            return;
        }
        for (nlri, path) in route::paths(&self.session, prefix, attributes) {
            self.out.announce(nlri, &path);
        }
    }

    /// Withdraws the paths of a route's old form that the new one has no more.
    pub(super) fn withdraw(
        &mut self,
        prefix: IpNet,
        old: Option<Arc<Attributes>>,
        new: Option<&Attributes>,
    ) {
        if !self.session.add_path {
            if let (None, Some(nlri)) = (new, route::nlri(prefix)) {
                self.out.withdraw(&nlri);
            }
            return;
        }
        let paths = |form: &Attributes| -> BTreeSet<Nlri> {
            let paths = route::paths(&self.session, prefix, form);
            paths.map(|(nlri, _)| nlri).collect()
        };
        let kept = new.map(paths).unwrap_or_default();
        for nlri in old.as_deref().map(paths).unwrap_or_default() {
            if !kept.contains(&nlri) {
                self.out.withdraw(&nlri);
            }
        }
    }

    /// Offers every route anew, in the session's present form.
    pub(super) fn offer_all(&mut self) {
        if self.draining.withholds() {
            return self.out.replace([]);
        }
        let session = &self.session;
        let routes: Vec<(Nlri, Arc<Path>)> = self
            .routes
            .iter()
            .flat_map(|(prefix, attributes)| route::paths(session, *prefix, attributes))
            .collect();
        self.out.replace(routes);
    }

    /// Asks the peer for all its routes (RFC 2918); one that cannot be asked is reset.
    pub(super) fn ask_again(&mut self) {
        let now = self.now();
        let Some(session) = self.fsm.session().cloned() else {
            return;
        };
        let established = self.established;
        let live = self
            .live
            .as_mut()
            .filter(|live| Some(live.id) == established);
        match live {
            Some(live) if session.route_refresh => {
                let before = live.outbox.len();
                for family in session.codec.families.iter() {
                    let refresh = Refresh {
                        family: family.into(),
                        kind: RefreshKind::Request,
                    };
                    refresh.encode(&mut live.outbox);
                }
                let new = live.outbox.get(before..).unwrap_or_default();
                self.counts.sent(Messages::in_bytes(new));
                self.fsm.queued(now, live.id);
            }
            _ => {
                let text = "other routes are wanted".to_owned();
                self.fsm.reset(now, Reset::Administrative { text });
            }
        }
    }
}
