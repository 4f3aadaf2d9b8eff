//! How the session is given up: for a drain, and because the agent stops.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::corten::v1alpha1::SessionState;
use ipnet::IpNet;
use plan::announce::bgp::{Attributes, Drain, GRACEFUL_SHUTDOWN};
use proto::bgp::fsm::Stop;

use super::super::{connection, drain};
use super::Task;

/// How long routes ask to be left where the whole agent ends and graceful restart was not agreed on.
const FAREWELL: Duration = Duration::from_millis(300);
/// How long a peer may take to close a connection that we have closed.
const PARTING: Duration = Duration::from_millis(500);

impl Task {
    pub(super) fn drain(&mut self, drain: Option<Drain>) {
        tracing::info!(peer = &*self.peer, ?drain, "drain");
        match drain {
            Some(why) => {
                let session = drain::Session {
                    up: self.established.is_some(),
                    routes: !self.routes.is_empty(),
                    graceful: self.session.graceful_restart,
                };
                self.draining.ask(why, session, Instant::now());
                if let Some(why) = self.draining.over() {
                    self.part(why);
                }
            }
            None if self.draining.end() => self.begin_anew(false),
            None => {}
        }
        // The planner sends the routes in their new form.
        self.offer_all();
    }

    /// Ends the session for the time of a drain.
    pub(super) fn part(&mut self, why: String) {
        self.line.show(&self.label, SessionState::Drained, &why);
        self.fsm.stop(self.now(), Stop::Drain { text: why });
        self.bfd.forget();
        // A session that is not to be there is no alarm.
        self.down_metric();
    }

    /// The agent stops. With graceful restart the peer keeps our routes; without it they ask to be
    /// left, then they are withdrawn, then the session ends with a word (design.md §4.3).
    pub(super) async fn leave(mut self) {
        if self.draining.is_under_way() {
            self.draining.withdraw();
            self.out.replace([]);
            self.settle();
            let text = "the node drains".to_owned();
            return self.end(Stop::Drain { text }).await;
        }
        let both = self.fsm.session().is_some_and(|it| it.graceful.is_some());
        // Without our part in it we only help the peer.
        if both && self.session.graceful_restart {
            return self.end(Stop::Restart).await;
        }
        if self.established.is_some() && !self.routes.is_empty() {
            let leaving: BTreeMap<IpNet, Arc<Attributes>> = self
                .routes
                .iter()
                .map(|(prefix, attributes)| {
                    let mut leaving = Attributes::clone(attributes);
                    leaving
                        .communities
                        .extend(BTreeSet::from([GRACEFUL_SHUTDOWN]));
                    leaving.local_pref = leaving.local_pref.map(|_| 0);
                    (*prefix, Arc::new(leaving))
                })
                .collect();
            self.routes = leaving;
            self.offer_all();
            self.settle();
            tokio::time::sleep(FAREWELL).await;
            self.out.replace([]);
            self.settle();
        }
        let text = "the agent stops".to_owned();
        self.end(Stop::Drain { text }).await;
    }

    pub(super) async fn end(mut self, stop: Stop) {
        self.ending = true;
        self.fsm.stop(self.now(), stop);
        self.settle();
        // After BGP: that BFD ends must not look like a failure of a session that lives. The peer's
        // BGP may hear of it by another way, and sooner than our last message.
        if let Some(last) = self.last.take() {
            let _ = tokio::time::timeout(PARTING, connection::part(last)).await;
        }
        self.bfd.end().await;
        self.down_metric();
    }
}
