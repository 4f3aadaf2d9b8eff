//! What is told of the session: metrics, its line among the sessions, the log.

use plan::announce::bgp::PeerSession;
use plan::config::{Neighbour, RemoteAs};
use proto::bgp::Update;
use proto::bgp::fsm::{Cause, DialError};

use super::super::Context;
use super::super::flaws::Flaws;
use super::Task;
use crate::http::bgp::Session;

impl Task {
    /// Tells trouble once, until it is another one.
    pub(super) fn trouble(&mut self, cause: &(dyn std::error::Error + 'static), what: &str) {
        let why = crate::cli::chain(cause);
        let taken = matches!(
            cause.downcast_ref(),
            Some(Cause::Dial(DialError::Occupied { .. }))
        );
        self.line.down(&self.label, &why, taken);
        if self.told.as_deref() != Some(&why) {
            tracing::warn!(peer = &*self.peer, address = self.label, why, "{what}");
            self.told = Some(why);
        }
    }

    /// Says what RFC 7606 made of an UPDATE: the first of a session loudly, all in the metrics.
    pub(super) fn flawed(&mut self, update: &Update) {
        let Some(flaws) = Flaws::of(update) else {
            return;
        };
        for (outcome, count) in flaws.counts() {
            let labels = [&*self.label, outcome];
            let counter = &self.context.metrics.bgp_flaws;
            counter.with_label_values(&labels).inc_by(count);
        }
        let (peer, address) = (&*self.peer, &self.label);
        if std::mem::replace(&mut self.complained, true) {
            tracing::debug!(peer, address, %flaws, "a malformed UPDATE");
        } else {
            tracing::warn!(peer, address, %flaws, "a malformed UPDATE; more of them at level debug");
        }
    }

    pub(super) fn tell_counts(&mut self) {
        self.counts.heard(self.fsm.take_heard());
        if self.draining.is_over() {
            return;
        }
        let counts = self.out.counts();
        let set = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.counts.announced.set(set(counts.sent));
        let pending = counts.desired.saturating_sub(counts.sent);
        self.counts.pending.set(set(pending));
        let accepted = self.intake.accepted();
        self.counts.received.set(accepted);
        self.line.count(self.remote_as(), counts.sent, accepted);
    }

    pub(super) fn down_metric(&self) {
        self.counts.forget();
    }

    /// The peer's AS number: what it says, or else what is wanted; 0: any.
    pub(super) fn remote_as(&self) -> u32 {
        match (self.fsm.session(), self.session.remote) {
            (Some(terms), _) => terms.remote_as.0,
            (None, RemoteAs::Number(asn)) => asn,
            (None, RemoteAs::Internal) => self.session.asn,
            (None, RemoteAs::External) => 0,
        }
    }
}

/// The session's counts, under the names that FRR gives it.
pub(super) fn counts(context: &Context, session: &PeerSession) -> Session {
    let port = session.port;
    let peer = match &session.neighbour {
        Neighbour::Address(ip) => format!("{ip}:{port}"),
        Neighbour::Interface(name) => format!("{name}:{port}"),
    };
    let vrf = session.vrf.as_deref().unwrap_or("default");
    context.metrics.bgp.session(&peer, vrf)
}
