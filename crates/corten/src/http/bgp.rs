//! What BGP sessions count: the names of MetalLB's native mode and of its FRR exporter, with the
//! labels of the latter (`spec/metallb.md` §5).

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use proto::bgp::Messages;

/// Labels of a session: the neighbour's address and port, the VRF.
const SESSION: [&str; 2] = ["peer", "vrf"];

/// By session.
#[derive(Clone, Debug)]
pub struct Counts {
    up: IntGaugeVec,
    announced: IntGaugeVec,
    pending: IntGaugeVec,
    received: IntGaugeVec,
    opens_sent: IntCounterVec,
    opens_received: IntCounterVec,
    notifications_sent: IntCounterVec,
    updates_sent: IntCounterVec,
    updates_received: IntCounterVec,
    keepalives_sent: IntCounterVec,
    keepalives_received: IntCounterVec,
    refreshes_sent: IntCounterVec,
    total_sent: IntCounterVec,
    total_received: IntCounterVec,
}

impl Counts {
    /// In this registry.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        fn put<T: Collector + Clone + 'static>(
            registry: &Registry,
            metric: T,
        ) -> Result<T, prometheus::Error> {
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        }
        let opts = |name: &str, help: &str| Opts::new(format!("metallb_bgp_{name}"), help);
        let gauge = |name, help| put(registry, IntGaugeVec::new(opts(name, help), &SESSION)?);
        let counter = |name, help| put(registry, IntCounterVec::new(opts(name, help), &SESSION)?);
        Ok(Self {
            up: gauge("session_up", "1 while the session is established")?,
            announced: gauge(
                "announced_prefixes_total",
                "Prefixes that the peer has from us",
            )?,
            pending: gauge(
                "pending_prefixes_total",
                "Prefixes that the peer should have, and has not yet",
            )?,
            received: gauge(
                "received_prefixes_total",
                "Prefixes of the peer that are taken",
            )?,
            opens_sent: counter("opens_sent", "OPEN messages sent")?,
            opens_received: counter("opens_received", "OPEN messages received")?,
            notifications_sent: counter("notifications_sent", "NOTIFICATION messages sent")?,
            updates_sent: counter("updates_total", "UPDATE messages sent")?,
            updates_received: counter("updates_total_received", "UPDATE messages received")?,
            keepalives_sent: counter("keepalives_sent", "KEEPALIVE messages sent")?,
            keepalives_received: counter("keepalives_received", "KEEPALIVE messages received")?,
            refreshes_sent: counter("route_refresh_sent", "ROUTE-REFRESH messages sent")?,
            total_sent: counter("total_sent", "Messages sent")?,
            total_received: counter("total_received", "Messages received")?,
        })
    }

    /// The counts of one session; they are shown until [`Session::forget`].
    pub fn session(&self, peer: &str, vrf: &str) -> Session {
        let labels = [peer, vrf];
        Session {
            up: self.up.with_label_values(&labels),
            announced: self.announced.with_label_values(&labels),
            pending: self.pending.with_label_values(&labels),
            received: self.received.with_label_values(&labels),
            sent: Sent {
                opens: self.opens_sent.with_label_values(&labels),
                notifications: self.notifications_sent.with_label_values(&labels),
                updates: self.updates_sent.with_label_values(&labels),
                keepalives: self.keepalives_sent.with_label_values(&labels),
                refreshes: self.refreshes_sent.with_label_values(&labels),
                total: self.total_sent.with_label_values(&labels),
            },
            heard: Heard {
                opens: self.opens_received.with_label_values(&labels),
                updates: self.updates_received.with_label_values(&labels),
                keepalives: self.keepalives_received.with_label_values(&labels),
                total: self.total_received.with_label_values(&labels),
            },
            peer: peer.to_owned(),
            vrf: vrf.to_owned(),
            all: self.clone(),
        }
    }
}

/// Of one session.
#[derive(Debug)]
pub struct Session {
    /// 1 while it is established.
    pub up: IntGauge,
    /// Prefixes that the peer has from us.
    pub announced: IntGauge,
    /// Prefixes that it should have, and has not yet.
    pub pending: IntGauge,
    /// Prefixes of the peer that are taken.
    pub received: IntGauge,
    sent: Sent,
    heard: Heard,
    peer: String,
    vrf: String,
    all: Counts,
}

#[derive(Debug)]
struct Sent {
    opens: IntCounter,
    notifications: IntCounter,
    updates: IntCounter,
    keepalives: IntCounter,
    refreshes: IntCounter,
    total: IntCounter,
}

#[derive(Debug)]
struct Heard {
    opens: IntCounter,
    updates: IntCounter,
    keepalives: IntCounter,
    total: IntCounter,
}

impl Session {
    /// Messages that were sent.
    pub fn sent(&self, messages: Messages) {
        self.sent.opens.inc_by(messages.opens);
        self.sent.notifications.inc_by(messages.notifications);
        self.sent.updates.inc_by(messages.updates);
        self.sent.keepalives.inc_by(messages.keepalives);
        self.sent.refreshes.inc_by(messages.refreshes);
        self.sent.total.inc_by(messages.total());
    }

    /// Messages that came.
    pub fn heard(&self, messages: Messages) {
        self.heard.opens.inc_by(messages.opens);
        self.heard.updates.inc_by(messages.updates);
        self.heard.keepalives.inc_by(messages.keepalives);
        self.heard.total.inc_by(messages.total());
    }

    /// It is shown no more.
    pub fn forget(&self) {
        let labels = [&*self.peer, &*self.vrf];
        let all = &self.all;
        for gauge in [&all.up, &all.announced, &all.pending, &all.received] {
            // Another session of the same name may have taken it away.
            let _ = gauge.remove_label_values(&labels);
        }
        for counter in [
            &all.opens_sent,
            &all.opens_received,
            &all.notifications_sent,
            &all.updates_sent,
            &all.updates_received,
            &all.keepalives_sent,
            &all.keepalives_received,
            &all.refreshes_sent,
            &all.total_sent,
            &all.total_received,
        ] {
            let _ = counter.remove_label_values(&labels);
        }
    }
}
