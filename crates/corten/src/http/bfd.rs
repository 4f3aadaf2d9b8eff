//! What BFD counts: the names of MetalLB's FRR exporter (`spec/metallb.md` §5).

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// Labels of a session: the neighbour's address, the VRF.
const SESSION: [&str; 2] = ["peer", "vrf"];

/// By session; dropped packets by reason.
#[derive(Clone, Debug)]
pub struct Counts {
    /// 1 while the session is up.
    pub up: IntGaugeVec,
    /// Control packets taken.
    pub control_in: IntCounterVec,
    /// Control packets sent.
    pub control_out: IntCounterVec,
    /// How often it came up.
    pub ups: IntCounterVec,
    /// How often it went down.
    pub downs: IntCounterVec,
    /// How often its users heard that it came up or went down.
    pub notifications: IntCounterVec,
    /// Echo packets taken: ours that came back, and the neighbour's that its daemon sent to us.
    pub echo_in: IntCounterVec,
    /// Echo packets sent: ours, and the neighbour's sent back by us and not by the kernel.
    pub echo_out: IntCounterVec,
    /// Packets dropped; label reason.
    pub dropped: IntCounterVec,
}

impl Counts {
    /// In this registry.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let of_session = |name: &str, help: &str| {
            let name = format!("metallb_bfd_{name}");
            counter(&name, help, &SESSION)
        };
        let up = Opts::new("metallb_bfd_session_up", "1 while the BFD session is up");
        let up = IntGaugeVec::new(up, &SESSION)?;
        registry.register(Box::new(up.clone()))?;
        Ok(Self {
            up,
            control_in: of_session("control_packet_input", "BFD control packets taken")?,
            control_out: of_session("control_packet_output", "BFD control packets sent")?,
            ups: of_session("session_up_events", "How often the BFD session came up")?,
            downs: of_session("session_down_events", "How often the BFD session went down")?,
            notifications: of_session(
                "zebra_notifications",
                "How often BGP heard that the BFD session came up or went down",
            )?,
            echo_in: of_session("echo_packet_input", "BFD echo packets taken")?,
            echo_out: of_session("echo_packet_output", "BFD echo packets sent")?,
            dropped: counter(
                "corten_bfd_packets_dropped_total",
                "BFD packets that no session could use, by reason",
                &["reason"],
            )?,
        })
    }

    /// Shows a session, with all its counters.
    pub fn begin(&self, peer: &str, vrf: &str) {
        let labels = [peer, vrf];
        self.up.with_label_values(&labels);
        for counter in self.counters() {
            counter.with_label_values(&labels);
        }
    }

    const fn counters(&self) -> [&IntCounterVec; 7] {
        [
            &self.control_in,
            &self.control_out,
            &self.ups,
            &self.downs,
            &self.notifications,
            &self.echo_in,
            &self.echo_out,
        ]
    }

    /// Forgets a session.
    pub fn forget(&self, peer: &str, vrf: &str) {
        let labels = [peer, vrf];
        // It may never have been counted.
        let _ = self.up.remove_label_values(&labels);
        for counter in self.counters() {
            let _ = counter.remove_label_values(&labels);
        }
    }
}
