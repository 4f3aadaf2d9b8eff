//! The metrics registry; names, types and labels are MetalLB's where it has them
//! (`spec/metallb.md` §5).

use prometheus::{Encoder, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

/// Every metric of the process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Updates taken in by the planner.
    pub updates: IntCounter,
    /// 1 for each address that this node announces; labels service, protocol, node, ip.
    pub announced: IntGaugeVec,
    /// ARP and NDP requests for our addresses; label ip.
    pub requests: IntCounterVec,
    /// Replies to them; label ip.
    pub responses: IntCounterVec,
    /// Gratuitous frames; label ip.
    pub gratuitous: IntCounterVec,
    /// Layer 2 frames that asked nothing of us; label reason.
    pub frames_dropped: IntCounterVec,
    /// Events for people that could not be sent.
    pub reports_dropped: IntCounter,
    /// Elements written to the kernel's tables.
    pub forward_elements: IntCounter,
}

impl Metrics {
    /// A registry with every metric in it.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name, help| -> Result<IntCounter, prometheus::Error> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counters = |name, help, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let announced = IntGaugeVec::new(
            Opts::new(
                "metallb_speaker_announced",
                "Services being announced from this node",
            ),
            &["service", "protocol", "node", "ip"],
        )?;
        registry.register(Box::new(announced.clone()))?;
        Ok(Self {
            updates: counter("metallb_k8s_client_updates_total", "Updates taken in")?,
            announced,
            requests: counters(
                "metallb_layer2_requests_received",
                "Requests for our addresses",
                &["ip"],
            )?,
            responses: counters(
                "metallb_layer2_responses_sent",
                "Replies to requests",
                &["ip"],
            )?,
            gratuitous: counters(
                "metallb_layer2_gratuitous_sent",
                "Gratuitous frames sent",
                &["ip"],
            )?,
            frames_dropped: counters(
                "corten_layer2_frames_dropped_total",
                "Frames that asked nothing of us",
                &["reason"],
            )?,
            reports_dropped: counter("corten_events_dropped_total", "Events that were not sent")?,
            forward_elements: counter(
                "corten_forward_elements_written_total",
                "Elements written to the kernel's tables",
            )?,
            registry,
        })
    }

    /// All metrics in Prometheus' text format.
    pub fn encode(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
