//! What a peer announces to us: its Adj-RIB-In under its policy, and what the RIB is told of it.
//!
//! Without a policy every route is counted and dropped (RFC 8212).

use std::sync::Arc;
use std::time::Duration;

use plan::config::Receive;
use proto::bgp::adj_in::{AdjIn, Change, Received, TooMany};
use proto::bgp::fsm::Learned;
use proto::bgp::{Family, Initial, Negotiated, Prefix, Update};

use super::rib::{Giver, Message, Origin, Rib, hop};
use crate::agent::interfaces::Snapshot;
use crate::http::Metrics;

/// One peer's received routes.
pub(super) struct Intake {
    giver: Giver,
    rib: Rib,
    metrics: Metrics,
    policy: Option<Receive>,
    routes: AdjIn,
    session: Option<Arc<Negotiated>>,
    origin: Origin,
    /// The peer has yet to send some of what it had as the session came up.
    initial: Option<Initial>,
    /// For the RIB, in order.
    outbox: Vec<Message>,
}

impl Intake {
    /// The RIB expects its routes already.
    pub(super) fn new(rib: Rib, giver: Giver, metrics: Metrics, policy: Option<Receive>) -> Self {
        Self {
            giver,
            rib,
            metrics,
            routes: AdjIn::new(policy.as_ref().and_then(|policy| policy.most)),
            policy,
            session: None,
            origin: Origin::default(),
            initial: None,
            outbox: Vec::new(),
        }
    }

    /// Tells the RIB whether routes are to come, and into which table.
    fn expect(&mut self) {
        let table = self.policy.as_ref().map(|policy| policy.table);
        self.outbox.push(Message::Expect(self.giver.clone(), table));
        if self.session.is_some() && self.initial.is_none() {
            self.outbox.push(Message::Complete(self.giver.clone()));
        }
    }

    /// Takes another policy. Whether the peer must be asked for its routes again.
    pub(super) fn set_policy(&mut self, policy: Option<Receive>) -> bool {
        if self.policy == policy {
            return false;
        }
        let old = std::mem::replace(&mut self.policy, policy);
        let policy = self.policy.as_ref();
        let moved = old.map(|old| old.table) != policy.map(|policy| policy.table);
        let mut changes = Vec::new();
        self.routes.restrict(
            policy.and_then(|policy| policy.most),
            accepts(policy),
            &mut changes,
        );
        if moved {
            // Into another table: the RIB forgets the first.
            self.outbox.push(Message::Gone(self.giver.clone()));
            let routes = self.routes.routes();
            changes = routes
                .map(|(nlri, path)| Change::Route(*nlri, path.clone()))
                .collect();
            self.expect();
        }
        self.tell(changes);
        self.policy.is_some()
    }

    /// A session is there. `origin`: where its routes come from.
    pub(super) fn up(&mut self, now: Duration, session: Arc<Negotiated>, origin: Origin) {
        self.routes.up();
        self.initial = Some(Initial::new(now, &session));
        let origin = Origin {
            external: session.codec.external,
            ..origin
        };
        let before = std::mem::replace(&mut self.origin, origin);
        self.session = Some(session);
        // What stayed from an earlier session is announced again, and then it is nothing new.
        if before != origin && self.routes.routes().next().is_some() {
            self.send(Vec::new());
        }
    }

    /// The session is gone.
    pub(super) fn down(&mut self) {
        self.session = None;
        self.initial = None;
    }

    /// When [`Intake::expire`] is to be called.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.initial.as_ref()?.deadline()
    }

    /// The peer may have sent all.
    pub(super) fn expire(&mut self, now: Duration) {
        if self.initial.take_if(|it| it.is_over(now)).is_some() {
            self.outbox.push(Message::Complete(self.giver.clone()));
        }
    }

    /// Takes an UPDATE. The error says that the session must end.
    pub(super) fn update(
        &mut self,
        now: Duration,
        update: Update,
        interfaces: &Snapshot,
        label: &str,
    ) -> Result<(), TooMany> {
        let Some(session) = &self.session else {
            return Ok(());
        };
        let ended = update.end_of_rib;
        let before = self.routes.received();
        let mut changes = Vec::new();
        let policy = self.policy.as_ref();
        let outcome = self
            .routes
            .apply(update, session, accepts(policy), &mut changes);
        let lost = changes.iter().filter(|change| match change {
            Change::Route(_, path) => hop(&path.next_hop, &self.origin, interfaces).is_none(),
            Change::Gone(_) => false,
        });
        let lost = lost.count() as u64;
        self.count(label, &before, &self.routes.received(), lost);
        self.tell(changes);
        if let Some(initial) = &mut self.initial {
            initial.update(now, ended);
        }
        self.expire(now);
        outcome
    }

    /// What the state machine says of the peer's routes.
    pub(super) fn learned(&mut self, learned: Learned) {
        let mut changes = Vec::new();
        self.routes.learned(learned, &mut changes);
        self.tell(changes);
    }

    /// Hands over what is new.
    pub(super) async fn hand_over(&mut self) {
        for message in self.outbox.drain(..) {
            self.rib.tell(message).await;
        }
    }

    /// The peer is not configured any more.
    pub(super) async fn end(&mut self) {
        self.outbox.clear();
        self.rib.tell(Message::Gone(self.giver.clone())).await;
    }

    /// How many prefixes are accepted.
    pub(super) fn accepted(&self) -> i64 {
        let count = |family| i64::from(self.routes.count(family));
        count(Family::Ipv4) + count(Family::Ipv6)
    }

    fn tell(&mut self, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.send(changes);
        }
    }

    fn send(&mut self, changes: Vec<Change>) {
        let Some(policy) = &self.policy else {
            return;
        };
        self.outbox.push(Message::Routes {
            giver: self.giver.clone(),
            table: policy.table,
            origin: self.origin,
            changes,
        });
    }

    fn count(&self, label: &str, before: &Received, after: &Received, lost: u64) {
        let dropped = &self.metrics.bgp_routes_dropped;
        for (reason, count) in [
            ("policy", after.refused - before.refused),
            ("loop", after.looped - before.looped),
            ("leak", after.leaked - before.leaked),
            ("unusable", after.unusable - before.unusable),
            ("limit", after.beyond - before.beyond),
            ("next-hop", lost),
        ] {
            if count > 0 {
                dropped.with_label_values(&[label, reason]).inc_by(count);
            }
        }
    }
}

fn accepts(policy: Option<&Receive>) -> impl Fn(&Prefix) -> bool {
    move |prefix| policy.is_some_and(|policy| policy.accepts(prefix.address(), prefix.length()))
}
