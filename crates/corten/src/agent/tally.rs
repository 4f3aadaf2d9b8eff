//! Changes on their way to the kernel, as kube-proxy's metrics tell of them
//! (`spec/dataplane.md` §1.13).

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use plan::forward::{FrontendKind, PortKey, ServicePort};
use plan::net::Family;
use plan::world::{Event, Policy};

use crate::http::kubeproxy::Counts;

/// Times that are remembered until a job is done; of more, the rest is not measured.
const TIMES: usize = 4096;

/// Traffic policies as a port follows them: internal, external.
type Policies = [bool; 2];

/// Changes that are not in the kernel yet.
#[derive(Debug, Default)]
struct Changes {
    services: i64,
    endpoints: i64,
    /// When Pods or Services changed, for which there are new endpoints.
    times: Vec<(Family, Timestamp)>,
}

/// What was counted.
#[derive(Debug)]
pub(super) struct Tally {
    counts: Counts,
    start: Timestamp,
    waiting: Changes,
    under_way: Changes,
    lonely: Lonely,
}

/// Ports with endpoints, but without one here, though a policy wants that; and how many there are.
#[derive(Debug, Default)]
struct Lonely {
    ports: BTreeMap<PortKey, Policies>,
    v4: Counted,
    v6: Counted,
}

/// By policy, as in [`Policies`].
type Counted = [usize; 2];

impl Lonely {
    /// A port is so from now on; true when that is new.
    fn set(&mut self, key: &PortKey, policies: Policies) -> bool {
        let old = match policies {
            [false, false] => self.ports.remove(key),
            _ => self.ports.insert(key.clone(), policies),
        };
        let old = old.unwrap_or_default();
        let counted = match key.family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        };
        for (count, (old, new)) in counted.iter_mut().zip(old.into_iter().zip(policies)) {
            *count = *count + usize::from(new) - usize::from(old);
        }
        old != policies
    }
}

impl Tally {
    pub(super) fn new(counts: Counts) -> Self {
        let tally = Self {
            counts,
            start: Timestamp::now(),
            waiting: Changes::default(),
            under_way: Changes::default(),
            lonely: Lonely::default(),
        };
        tally.show_lonely();
        tally
    }

    /// A change is known.
    pub(super) fn learn(&mut self, event: &Event) {
        match event {
            Event::Service { .. } => {
                self.counts.services.inc();
                self.waiting.services += 1;
            }
            Event::Slice { form, .. } => {
                self.counts.endpoints.inc();
                self.waiting.endpoints += 1;
                let slice = form.as_ref();
                let time = slice.and_then(|slice| slice.triggered.as_deref()?.parse().ok());
                if let (Some(slice), Some(time)) = (slice, time)
                    && time > self.start
                    && self.waiting.times.len() < TIMES
                {
                    self.waiting.times.push((slice.family, time));
                }
            }
            _ => {}
        }
    }

    /// Everything that is known is planned; `queued`: something of it waits for the kernel.
    pub(super) fn planned(&mut self, ports: &[(PortKey, Option<ServicePort>)], queued: bool) {
        let mut changed = false;
        for (key, port) in ports {
            let policies = port.as_ref().map_or([false; 2], lonely);
            changed |= self.lonely.set(key, policies);
        }
        if changed {
            self.show_lonely();
        }
        if queued && !ports.is_empty() {
            self.counts.queued();
        }
        if !queued {
            self.waiting = Changes::default();
        }
        self.show();
    }

    /// What was known goes to the kernel.
    pub(super) fn handed_out(&mut self) {
        self.under_way = std::mem::take(&mut self.waiting);
    }

    /// It is there.
    pub(super) fn programmed(&mut self) {
        let now = Timestamp::now();
        for (family, time) in std::mem::take(&mut self.under_way).times {
            let took = now.duration_since(time).as_secs_f64().max(0.0);
            self.counts.programmed(family, took);
        }
        self.show();
    }

    fn show(&self) {
        let (a, b) = (&self.waiting, &self.under_way);
        self.counts.services_pending.set(a.services + b.services);
        self.counts.endpoints_pending.set(a.endpoints + b.endpoints);
    }

    fn show_lonely(&self) {
        for (family, [internal, external]) in
            [(Family::V4, self.lonely.v4), (Family::V6, self.lonely.v6)]
        {
            self.counts.without_local(family, internal, external);
        }
    }
}

/// The policies Local under which the port has endpoints, but none here.
fn lonely(port: &ServicePort) -> Policies {
    if !port.local.is_empty() || !port.usable_anywhere {
        return [false; 2];
    }
    let local = |internal: bool| {
        port.frontends.iter().any(|front| {
            front.policy == Policy::Local && (front.kind == FrontendKind::ClusterIp) == internal
        })
    };
    [local(true), local(false)]
}

#[cfg(test)]
mod tests {
    use plan::forward::Frontend;
    use plan::name::ServiceKey;
    use plan::net::Protocol;
    use plan::world::Slice;

    use super::*;
    use crate::http::Metrics;

    fn line(metrics: &Metrics, name: &str) -> Option<String> {
        let text = String::from_utf8(metrics.encode().expect("encoded")).expect("UTF-8");
        let name = format!("kubeproxy_{name}");
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(&name))?;
        Some(value.trim().to_owned())
    }

    fn slice(time: Option<&str>) -> Event {
        Event::Slice {
            key: ServiceKey::new("default", "s-1"),
            form: Some(Slice {
                service: ServiceKey::new("default", "s"),
                family: Family::V4,
                ports: Vec::new(),
                endpoints: Vec::new(),
                triggered: time.map(Into::into),
                foreign: None,
            }),
        }
    }

    #[test]
    fn changes_wait_until_they_are_programmed() {
        let metrics = Metrics::new().expect("metrics");
        let mut tally = Tally::new(metrics.proxy.clone());
        let pending = || line(&metrics, "sync_proxy_rules_endpoint_changes_pending ");
        let total = || line(&metrics, "sync_proxy_rules_endpoint_changes_total ");
        let measured = || {
            line(
                &metrics,
                "network_programming_duration_seconds_count{ip_family=\"IPv4\"}",
            )
        };
        let now = Timestamp::now().to_string();
        // Before this agent started: another one's doing. And no time at all.
        for time in [
            Some("2020-01-01T00:00:00.5Z"),
            Some("soon"),
            None,
            Some(&*now),
        ] {
            tally.learn(&slice(time));
        }
        tally.planned(&[], true);
        assert_eq!(pending().as_deref(), Some("4"));
        tally.handed_out();
        tally.learn(&slice(None));
        tally.planned(&[], true);
        assert_eq!(pending().as_deref(), Some("5"));
        assert_eq!(measured(), None);
        tally.programmed();
        assert_eq!(pending().as_deref(), Some("1"));
        assert_eq!(total().as_deref(), Some("5"));
        assert_eq!(measured().as_deref(), Some("1"));
        // What changes nothing waits for nothing.
        tally.planned(&[], false);
        assert_eq!(pending().as_deref(), Some("0"));
    }

    #[test]
    fn ports_without_an_endpoint_here() {
        let metrics = Metrics::new().expect("metrics");
        let mut tally = Tally::new(metrics.proxy.clone());
        let count = |policy: &str| {
            let name = "sync_proxy_rules_no_local_endpoints_total";
            let labels = format!("{{ip_family=\"IPv4\",traffic_policy=\"{policy}\"}}");
            line(&metrics, &(name.to_owned() + &labels)).expect("is there")
        };
        let key = PortKey {
            service: ServiceKey::new("default", "s"),
            port: "http".into(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        };
        let front = |kind, policy| Frontend {
            address: [10, 0, 0, 1].into(),
            port: 80,
            kind,
            policy,
        };
        let endpoint = vec!["10.1.0.2:80".parse().expect("socket")];
        let (internal, external) = (FrontendKind::ClusterIp, FrontendKind::LoadBalancer);
        let (local, cluster) = (Policy::Local, Policy::Cluster);
        let table = [
            ([local, local], false, true, ["1", "1"]),
            ([cluster, local], false, true, ["0", "1"]),
            ([local, cluster], false, true, ["1", "0"]),
            ([local, local], true, true, ["0", "0"]),
            // Nobody serves anywhere.
            ([local, local], false, false, ["0", "0"]),
        ];
        for ([inner, outer], here, usable, expected) in table {
            let port = ServicePort {
                frontends: vec![front(internal, inner), front(external, outer)],
                local: if here { endpoint.clone() } else { Vec::new() },
                usable_anywhere: usable,
                ..ServicePort::default()
            };
            tally.planned(&[(key.clone(), Some(port))], true);
            let counted = [count("internal"), count("external")];
            assert_eq!(counted, expected, "{inner:?} {outer:?} {here} {usable}");
        }
        tally.planned(&[(key, None)], true);
        assert_eq!([count("internal"), count("external")], ["0", "0"]);
    }
}
