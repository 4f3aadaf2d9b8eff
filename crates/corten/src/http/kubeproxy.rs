//! What a service proxy counts, under kube-proxy's names (`spec/dataplane.md` §1.13).

use std::time::{Duration, SystemTime};

use plan::net::Family;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

const FAMILY: &str = "ip_family";
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// All of them.
#[derive(Clone, Debug)]
pub struct Counts {
    sync: HistogramVec,
    full: HistogramVec,
    partial: HistogramVec,
    synced: GaugeVec,
    queued: GaugeVec,
    failures: IntCounterVec,
    network: HistogramVec,
    no_local: IntGaugeVec,
    /// Changes of EndpointSlices that are not in the kernel yet.
    pub endpoints_pending: IntGauge,
    /// Changes of EndpointSlices so far.
    pub endpoints: IntCounter,
    /// Changes of Services that are not in the kernel yet.
    pub services_pending: IntGauge,
    /// Changes of Services so far.
    pub services: IntCounter,
    reconciled: HistogramVec,
    deleted: IntCounterVec,
    /// Connections to node ports on the loopback so far: their first packets.
    pub on_loopback: IntCounter,
}

impl Counts {
    /// In this registry.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("kubeproxy_{name}"), help);
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            let opts = HistogramOpts::from(opts(name, help)).buckets(buckets);
            let metric = HistogramVec::new(opts, &[FAMILY])?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let time = |name: &str, help: &str| {
            let metric = GaugeVec::new(opts(name, help), &[FAMILY])?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let by_family = |name: &str, help: &str| {
            let metric = IntCounterVec::new(opts(name, help), &[FAMILY])?;
            registry.register(Box::new(metric.clone()))?;
            for family in FAMILIES {
                metric.with_label_values(&[label(family)]);
            }
            Ok::<_, prometheus::Error>(metric)
        };
        let counter = |name: &str, help: &str| {
            let metric = IntCounter::with_opts(opts(name, help))?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let gauge = |name: &str, help: &str| {
            let metric = IntGauge::with_opts(opts(name, help))?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let doubling = || prometheus::exponential_buckets(0.001, 2.0, 15);
        let no_local = IntGaugeVec::new(
            opts(
                "sync_proxy_rules_no_local_endpoints_total",
                "Services with traffic policy Local and endpoints, but none on this node",
            ),
            &[FAMILY, "traffic_policy"],
        )?;
        registry.register(Box::new(no_local.clone()))?;
        Ok(Self {
            sync: histogram(
                "sync_proxy_rules_duration_seconds",
                "Time that it took to bring changes to the kernel",
                doubling()?,
            )?,
            full: histogram(
                "sync_full_proxy_rules_duration_seconds",
                "The same, of the whole table",
                doubling()?,
            )?,
            partial: histogram(
                "sync_partial_proxy_rules_duration_seconds",
                "The same, of some changes",
                doubling()?,
            )?,
            synced: time(
                "sync_proxy_rules_last_timestamp_seconds",
                "When changes were last brought to the kernel",
            )?,
            queued: time(
                "sync_proxy_rules_last_queued_timestamp_seconds",
                "When a change was last queued for the kernel",
            )?,
            failures: by_family(
                "sync_proxy_rules_nftables_sync_failures_total",
                "Attempts to bring changes to the kernel that failed",
            )?,
            network: histogram(
                "network_programming_duration_seconds",
                "Time from the change of a Pod or Service until it was in the kernel",
                network_buckets(),
            )?,
            no_local,
            endpoints_pending: gauge(
                "sync_proxy_rules_endpoint_changes_pending",
                "Changes of EndpointSlices that are not in the kernel yet",
            )?,
            endpoints: counter(
                "sync_proxy_rules_endpoint_changes_total",
                "Changes of EndpointSlices",
            )?,
            services_pending: gauge(
                "sync_proxy_rules_service_changes_pending",
                "Changes of Services that are not in the kernel yet",
            )?,
            services: counter(
                "sync_proxy_rules_service_changes_total",
                "Changes of Services",
            )?,
            reconciled: histogram(
                "conntrack_reconciler_sync_duration_seconds",
                "Time that it took to look for UDP connections to endpoints that are gone",
                doubling()?,
            )?,
            deleted: by_family(
                "conntrack_reconciler_deleted_entries_total",
                "UDP connections to endpoints that are gone, which were forgotten",
            )?,
            on_loopback: counter(
                "iptables_localhost_nodeports_accepted_packets_total",
                "Connections to node ports on the loopback",
            )?,
        })
    }

    /// Changes are in the kernel, after so long.
    pub fn synced(&self, family: Family, took: Duration, whole: bool) {
        let label = [label(family)];
        let part = if whole { &self.full } else { &self.partial };
        for metric in [&self.sync, part] {
            metric.with_label_values(&label).observe(took.as_secs_f64());
        }
        self.synced.with_label_values(&label).set(now());
    }

    /// An attempt failed.
    pub fn failed(&self) {
        for family in FAMILIES {
            self.failures.with_label_values(&[label(family)]).inc();
        }
    }

    /// A change waits for the kernel.
    pub fn queued(&self) {
        for family in FAMILIES {
            self.queued.with_label_values(&[label(family)]).set(now());
        }
    }

    /// A change of a Pod or Service is in the kernel, after so many seconds.
    pub fn programmed(&self, family: Family, seconds: f64) {
        let metric = self.network.with_label_values(&[label(family)]);
        metric.observe(seconds);
    }

    /// So many ports have endpoints, but none here, though a policy wants that.
    pub fn without_local(&self, family: Family, internal: usize, external: usize) {
        for (policy, count) in [("internal", internal), ("external", external)] {
            let gauge = self.no_local.with_label_values(&[label(family), policy]);
            gauge.set(count as i64);
        }
    }

    /// UDP connections were looked at, and so many forgotten.
    pub fn reconciled(&self, family: Family, took: Duration, deleted: usize) {
        let label = [label(family)];
        let metric = self.reconciled.with_label_values(&label);
        metric.observe(took.as_secs_f64());
        let metric = self.deleted.with_label_values(&label);
        metric.inc_by(deleted as u64);
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

const fn label(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// kube-proxy's: to five minutes, in steps of a second for the first.
fn network_buckets() -> Vec<f64> {
    let seconds = (1..60)
        .chain((60..120).step_by(5))
        .chain((120..=300).step_by(30));
    let whole = seconds.map(f64::from);
    [0.0, 0.25, 0.5].into_iter().chain(whole).collect()
}
