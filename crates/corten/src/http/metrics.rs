//! The metrics registry; names, types and labels are MetalLB's where it has them
//! (`spec/metallb.md` §5).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use plan::config::Verdict;
use plan::ipam::Counters;
use prometheus::{
    Encoder, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::announced::{self, Announced};

/// What is told of each pool; label pool.
#[derive(Clone, Debug)]
struct Pools {
    total: IntGaugeVec,
    total_v4: IntGaugeVec,
    total_v6: IntGaugeVec,
    used: IntGaugeVec,
    used_v4: IntGaugeVec,
    used_v6: IntGaugeVec,
    services: IntGaugeVec,
    /// The pools that the gauges know.
    known: Arc<Mutex<BTreeSet<String>>>,
}

impl Pools {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let opts = Opts::new(format!("metallb_allocator_{name}"), help);
            let metric = IntGaugeVec::new(opts, &["pool"])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        Ok(Self {
            total: gauge("addresses_total", "Usable addresses, by pool")?,
            total_v4: gauge("ipv4_addresses_total", "Usable IPv4 addresses, by pool")?,
            total_v6: gauge("ipv6_addresses_total", "Usable IPv6 addresses, by pool")?,
            used: gauge("addresses_in_use_total", "Addresses in use, by pool")?,
            used_v4: gauge(
                "ipv4_addresses_in_use_total",
                "IPv4 addresses in use, by pool",
            )?,
            used_v6: gauge(
                "ipv6_addresses_in_use_total",
                "IPv6 addresses in use, by pool",
            )?,
            services: gauge(
                "services_allocated_total",
                "Services with addresses, by pool",
            )?,
            known: Arc::default(),
        })
    }

    const fn gauges(&self) -> [&IntGaugeVec; 7] {
        [
            &self.total,
            &self.total_v4,
            &self.total_v6,
            &self.used,
            &self.used_v4,
            &self.used_v6,
            &self.services,
        ]
    }

    fn set<'a>(&self, pools: impl IntoIterator<Item = (&'a str, Counters, usize)>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = std::mem::take(&mut *known);
        for (name, counters, services) in pools {
            let total_v4 = counters.assigned_v4.saturating_add(counters.available_v4);
            let total_v6 = counters.assigned_v6.saturating_add(counters.available_v6);
            let values = [
                total_v4.saturating_add(total_v6),
                total_v4,
                total_v6,
                counters.assigned_v4.saturating_add(counters.assigned_v6),
                counters.assigned_v4,
                counters.assigned_v6,
                services as u64,
            ];
            for (gauge, value) in self.gauges().into_iter().zip(values) {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                gauge.with_label_values(&[name]).set(value);
            }
            gone.remove(name);
            known.insert(name.to_owned());
        }
        for name in gone {
            for gauge in self.gauges() {
                // It is there: `known` says so.
                let _ = gauge.remove_label_values(&[&name]);
            }
        }
    }
}

/// Every metric of the process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Updates taken in by the planner.
    pub updates: IntCounter,
    /// Updates that could not be acted on: no address to give, a write that failed.
    pub update_errors: IntCounter,
    config_loaded: IntGauge,
    config_stale: IntGauge,
    pools: Pools,
    /// 1 for each address that this node announces; labels service, protocol, node, ip.
    pub announced: Announced,
    /// ARP and NDP requests for our addresses; label ip.
    pub requests: IntCounterVec,
    /// Replies to them; label ip.
    pub responses: IntCounterVec,
    /// Gratuitous frames; label ip.
    pub gratuitous: IntCounterVec,
    /// Layer 2 frames that asked nothing of us; label reason.
    pub frames_dropped: IntCounterVec,
    /// Addresses that answer with the interface's MAC address, not their own; label cause.
    pub virtual_mac_fallbacks: IntCounterVec,
    /// Strangers found to use addresses of ours.
    pub address_conflicts: IntCounter,
    /// Addresses that strangers have; label state.
    pub occupied_addresses: IntGaugeVec,
    /// Events for people that could not be sent.
    pub reports_dropped: IntCounter,
    /// Elements written to the kernel's tables.
    pub forward_elements: IntCounter,
    /// Service ports that are not, or not wholly, forwarded.
    pub forward_refused: IntGauge,
    /// Times that all elements were read, since others had changed nftables.
    pub forward_comparisons: IntCounter,
    /// Times that what others had done to our table was mended.
    pub forward_repairs: IntCounter,
    /// 1 while MetalLB runs beside, and this process leaves work to it.
    pub standing_by: IntGauge,
    /// What the proxy's health was asked.
    pub proxy_asked: super::proxy::Asked,
    /// The service proxy.
    pub proxy: super::kubeproxy::Counts,
    /// Addresses on `kube-lb0`.
    pub device_addresses: IntGauge,
    /// What the API server asked the webhook, and what came of it; labels path, answer.
    pub webhook_requests: IntCounterVec,
    /// BGP sessions.
    pub bgp: super::bgp::Counts,
    /// Prefixes that peers sent and that were not taken; labels peer, reason.
    pub bgp_routes_dropped: IntCounterVec,
    /// Attributes of UPDATEs that RFC 7606 leaves out or withdraws for; labels peer, outcome.
    pub bgp_flaws: IntCounterVec,
    /// Connections to our ports that were closed at once; label reason.
    pub bgp_connections_refused: IntCounterVec,
    /// Routes of peers in the kernel's tables.
    pub bgp_routes_installed: IntGauge,
    /// Attempts to bring one there that failed.
    pub bgp_route_errors: IntCounter,
    /// BFD sessions.
    pub bfd: super::bfd::Counts,
    /// Failure detection.
    pub member: super::member::Counts,
}

impl Metrics {
    /// A registry with every metric in it.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        // `process_*`, under the names that every dashboard knows.
        #[cfg(target_os = "linux")]
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
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
        let gauge = |name, help| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauges = |name, help, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        Ok(Self {
            updates: counter("metallb_k8s_client_updates_total", "Updates taken in")?,
            update_errors: counter(
                "metallb_k8s_client_update_errors_total",
                "Updates that could not be acted on",
            )?,
            config_loaded: gauge(
                "metallb_k8s_client_config_loaded_bool",
                "1 once a configuration is in force",
            )?,
            config_stale: gauge(
                "metallb_k8s_client_config_stale_bool",
                "1 while some object's newest form is not in force",
            )?,
            pools: Pools::new(&registry)?,
            announced: Announced::default(),
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
            virtual_mac_fallbacks: counters(
                "corten_layer2_virtual_mac_fallbacks_total",
                "How often addresses began to answer with the interface's MAC address, not their own",
                &["cause"],
            )?,
            address_conflicts: counter(
                "corten_layer2_address_conflicts_total",
                "How often a station that is no node was found to use an address of ours",
            )?,
            occupied_addresses: gauges(
                "corten_layer2_occupied_addresses",
                "Addresses that stations have which are no nodes: withheld, or announced all the same",
                &["state"],
            )?,
            reports_dropped: counter("corten_events_dropped_total", "Events that were not sent")?,
            forward_comparisons: counter(
                "corten_forward_comparisons_total",
                "Times that the kernel's table was read whole, since others had changed nftables",
            )?,
            forward_repairs: counter(
                "corten_forward_repairs_total",
                "Times that what others had done to the kernel's table was mended",
            )?,
            forward_refused: gauge(
                "corten_forward_refused_ports",
                "Service ports that are not, or not wholly, forwarded",
            )?,
            forward_elements: counter(
                "corten_forward_elements_written_total",
                "Elements written to the kernel's tables",
            )?,
            proxy_asked: super::proxy::Asked {
                healthz: counters(
                    "kubeproxy_proxy_healthz_total",
                    "Answers to /healthz of the service proxy",
                    &["code"],
                )?,
                livez: counters(
                    "kubeproxy_proxy_livez_total",
                    "Answers to /livez of the service proxy",
                    &["code"],
                )?,
            },
            device_addresses: gauge(
                "corten_kube_lb0_addresses",
                "Addresses that this node has on kube-lb0",
            )?,
            standing_by: gauge(
                "corten_standing_by",
                "1 while MetalLB runs beside and work is left to it",
            )?,
            webhook_requests: counters(
                "corten_webhook_requests_total",
                "Requests of the API server to the webhook, by path and answer",
                &["path", "answer"],
            )?,
            proxy: super::kubeproxy::Counts::new(&registry)?,
            bgp: super::bgp::Counts::new(&registry)?,
            bgp_routes_dropped: counters(
                "corten_bgp_received_prefixes_dropped_total",
                "Prefixes that the peer sent and that were not taken, by reason",
                &["peer", "reason"],
            )?,
            bgp_flaws: counters(
                "corten_bgp_attribute_flaws_total",
                "Attributes that the peer should not have sent so, by what came of them",
                &["peer", "outcome"],
            )?,
            bgp_connections_refused: counters(
                "corten_bgp_connections_refused_total",
                "Connections to our ports that were closed at once, by reason",
                &["reason"],
            )?,
            bgp_routes_installed: gauge(
                "corten_bgp_routes_installed",
                "Routes of peers in the kernel's tables",
            )?,
            bgp_route_errors: counter(
                "corten_bgp_route_errors_total",
                "Attempts to bring a received route to the kernel that failed",
            )?,
            bfd: super::bfd::Counts::new(&registry)?,
            member: super::member::Counts::new(&registry)?,
            registry,
        })
    }

    /// A configuration is in force; these are the verdicts on its objects.
    pub fn set_config<'a>(&self, verdicts: impl IntoIterator<Item = &'a Verdict>) {
        let stale = verdicts.into_iter().any(|verdict| !verdict.in_force());
        self.config_loaded.set(1);
        self.config_stale.set(i64::from(stale));
    }

    /// The pools with their counters and how many Services each serves; others are gone.
    pub fn set_pools<'a>(&self, pools: impl IntoIterator<Item = (&'a str, Counters, usize)>) {
        self.pools.set(pools);
    }

    /// The service proxy's, and the process's, as kube-proxy serves them.
    pub fn encode_proxy(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut families = self.registry.gather();
        families.retain(|family| {
            let name = family.name();
            ["kubeproxy_", "process_"]
                .iter()
                .any(|it| name.starts_with(it))
        });
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }

    /// All metrics in Prometheus' text format.
    pub fn encode(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        let families = self.registry.gather();
        // Families are in the order of their names.
        let place = families.partition_point(|family| family.name() < announced::NAME);
        let (before, after) = families.split_at(place);
        TextEncoder::new().encode(before, &mut text)?;
        self.announced.encode(&mut text)?;
        TextEncoder::new().encode(after, &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use plan::name::ServiceKey;
    use proto::bgp::Messages;

    use super::announced::Protocol;
    use super::*;

    const COUNTERS: Counters = Counters {
        assigned_v4: 2,
        assigned_v6: 1,
        available_v4: 48,
        available_v6: i64::MAX as u64,
    };

    /// Names, types and labels, with values; without the lines of help.
    fn text(metrics: &Metrics) -> String {
        let text = String::from_utf8(metrics.encode().expect("encoded")).expect("UTF-8");
        let lines = text.lines().filter(|line| !line.starts_with("# HELP"));
        lines.map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn names_types_and_labels_are_metallb_s() {
        let metrics = Metrics::new().expect("metrics");
        metrics.updates.inc();
        metrics.set_config([]);
        metrics.set_pools([("first-pool", COUNTERS, 2)]);
        let (web, ip) = (ServiceKey::new("default", "web"), [10, 0, 0, 101].into());
        metrics
            .announced
            .begin(&"n1".into(), web, Protocol::Layer2, ip);
        for of_ip in [&metrics.requests, &metrics.responses, &metrics.gratuitous] {
            of_ip.with_label_values(&["10.0.0.101"]).inc();
        }
        let session = metrics.bgp.session("10.0.0.1:179", "default");
        let messages = Messages {
            opens: 1,
            updates: 2,
            notifications: 3,
            keepalives: 4,
            refreshes: 5,
        };
        session.sent(messages);
        session.heard(messages);
        metrics.bfd.begin("10.0.0.1", "default");
        let text = text(&metrics);
        let metallb: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("metallb_"))
            .collect();
        let golden = include_str!("../../testdata/metrics.txt");
        assert_eq!(metallb, golden.lines().collect::<Vec<_>>(), "\n{text}");
    }

    #[test]
    fn the_proxys_names_types_and_labels_are_kube_proxys() {
        use std::time::Duration;

        use plan::net::Family;

        let metrics = Metrics::new().expect("metrics");
        let proxy = &metrics.proxy;
        for family in [Family::V4, Family::V6] {
            for whole in [true, false] {
                proxy.synced(family, Duration::from_millis(3), whole);
            }
            proxy.reconciled(family, Duration::from_millis(3), 2);
            proxy.programmed(family, 0.3);
            proxy.without_local(family, 1, 2);
        }
        proxy.queued();
        proxy.failed();
        for asked in [&metrics.proxy_asked.healthz, &metrics.proxy_asked.livez] {
            asked.with_label_values(&["200"]).inc();
        }
        let text = text(&metrics);
        let told: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("kubeproxy_"))
            // The time of day.
            .map(|line| match line.split_once("timestamp_seconds{") {
                Some(_) => line.split(' ').next().unwrap_or(line),
                None => line,
            })
            .collect();
        let golden = include_str!("../../testdata/metrics-kubeproxy.txt");
        assert_eq!(told, golden.lines().collect::<Vec<_>>(), "\n{text}");
    }

    #[test]
    fn pools_that_are_gone_are_not_told() {
        let metrics = Metrics::new().expect("metrics");
        metrics.set_pools([("a", COUNTERS, 1), ("b", COUNTERS, 1)]);
        metrics.set_pools([("b", Counters::default(), 0)]);
        let text = text(&metrics);
        assert!(!text.contains("pool=\"a\""), "{text}");
        assert!(
            text.contains("metallb_allocator_addresses_total{pool=\"b\"} 0"),
            "{text}"
        );
    }

    #[test]
    fn stale_goes_back_to_nought() {
        let metrics = Metrics::new().expect("metrics");
        let stale = || metrics.config_stale.get();
        assert_eq!((metrics.config_loaded.get(), stale()), (0, 0));
        let bad = Verdict::Bad {
            findings: Vec::new(),
            last_good: true,
        };
        metrics.set_config([&Verdict::Good, &bad]);
        assert_eq!((metrics.config_loaded.get(), stale()), (1, 1));
        metrics.set_config([&Verdict::Good, &Verdict::Warned(Vec::new())]);
        assert_eq!(stale(), 0);
    }
}
