//! The next change: random, and such that MetalLB's answer to it does not depend on the order of a
//! Go map. That means at most one pool of a family that serves all, and pinned pools whose
//! priorities differ.

use std::collections::{BTreeMap, BTreeSet};

use lab::controlplane::Write;
use serde_json::{Value, json};

use crate::MARKER;
use crate::random::Random;
use crate::side::{NAMESPACES, POOLS};
use crate::view::Key;

/// Namespaces of the Services, with the label that pools select by.
pub(crate) const SPACES: [&str; 3] = ["red", "green", "blue"];
const TEAMS: [&str; 2] = ["a", "b"];
const POOL_NAMES: [&str; 5] = ["p1", "p2", "p3", "p4", "p5"];
/// Entries of pools; no two overlap. Some hold `.0` and `.255`.
const V4: [&str; 8] = [
    "10.70.0.0/30",
    "10.70.1.254-10.70.2.2",
    "10.70.3.9/32",
    "10.70.4.4 - 10.70.4.6",
    "10.70.5.252/30",
    "10.70.6.16/29",
    "10.70.7.255/32",
    "10.70.8.1-10.70.8.1",
];
const V6: [&str; 5] = [
    "fd70:0::/126",
    "fd70:1::ffff-fd70:1::1:1",
    "fd70:2::7/128",
    "fd70:3::a0/125",
    "fd70:4::1-fd70:4::2",
];
/// Addresses that are asked for: of each entry, and of none.
const ASKED_V4: [&str; 10] = [
    "10.70.0.0",
    "10.70.0.1",
    "10.70.1.255",
    "10.70.2.1",
    "10.70.3.9",
    "10.70.4.5",
    "10.70.6.17",
    "10.70.7.255",
    "10.70.8.1",
    "10.99.0.1",
];
const ASKED_V6: [&str; 6] = [
    "fd70::1",
    "fd70:1::1:0",
    "fd70:2::7",
    "fd70:3::a1",
    "fd70:4::2",
    "fd99::1",
];
/// More live Services than there are addresses would only wait.
const MOST: usize = 24;

/// A pool as it was written last.
#[derive(Clone, Debug, Default)]
struct Pool {
    entries: Vec<&'static str>,
    auto: bool,
    avoid: bool,
    /// Priority, when it has a `serviceAllocation`.
    pinned: Option<u64>,
    allocation: Value,
}

/// What was written so far.
#[derive(Debug)]
pub(crate) struct World {
    random: Random,
    pools: BTreeMap<&'static str, Pool>,
    services: BTreeSet<Key>,
    created: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            pools: BTreeMap::new(),
            services: BTreeSet::new(),
            created: 0,
        }
    }

    /// What there is before the first step.
    pub(crate) fn first(&mut self) -> Vec<Write> {
        let mut writes: Vec<Write> = SPACES
            .into_iter()
            .map(|name| {
                let labels = json!({"team": self.random.of(&TEAMS)});
                Write::create(
                    NAMESPACES,
                    json!({"metadata": {"name": name, "labels": labels}}),
                )
            })
            .collect();
        for name in ["p1", "p2", "p3"] {
            writes.extend(self.write_pool(name));
        }
        writes
    }

    /// The next step.
    pub(crate) fn next(&mut self) -> Write {
        loop {
            let write = match self.random.below(100) {
                0..36 if self.services.len() < MOST => Some(self.create()),
                36..46 => self.delete(),
                46..84 => self.change(),
                84..94 => {
                    let name = self.random.of(&POOL_NAMES);
                    self.write_pool(name)
                }
                94..97 => self.delete_pool(),
                97..100 => {
                    let labels = json!({"team": self.random.of(&TEAMS)});
                    let path = format!("{NAMESPACES}/{}", self.random.of(&SPACES));
                    Some(Write::patch(path, json!({"metadata": {"labels": labels}})))
                }
                _ => None,
            };
            if let Some(write) = write {
                return write;
            }
        }
    }

    /// Some Services that share nothing, to be created one soon after the other.
    pub(crate) fn burst(&mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        while self.services.len() < MOST && writes.len() < 6 {
            let mut write = self.create();
            if let Some(annotations) = write.body["metadata"]["annotations"].as_object_mut() {
                annotations.retain(|name, _| !name.ends_with("allow-shared-ip"));
            }
            writes.push(write);
        }
        writes
    }

    /// Takes Services out of both sides.
    pub(crate) fn take_out(&mut self, keys: &BTreeSet<Key>) -> Vec<Write> {
        self.services.retain(|key| !keys.contains(key));
        keys.iter().map(|key| Write::delete(path(key))).collect()
    }

    /// Every pool goes.
    pub(crate) fn last(&mut self) -> Vec<Write> {
        let pools = std::mem::take(&mut self.pools);
        let names = pools.keys().copied().chain([MARKER]);
        names
            .map(|name| Write::delete(format!("{POOLS}/{name}")))
            .collect()
    }

    fn create(&mut self) -> Write {
        self.created += 1;
        let key = (
            self.random.of(&SPACES).to_owned(),
            // Created in another order than that of the names.
            format!("{}{}", self.random.of(&["a", "m", "z"]), self.created),
        );
        let mut annotations = serde_json::Map::new();
        for (name, value) in self.wishes() {
            annotations.insert(name, json!(value));
        }
        if self.random.one_in(3) {
            let (name, value) = self.sharing();
            annotations.insert(name, value);
        }
        let mut spec = json!({
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false,
            "selector": {"app": self.random.of(&["x", "y"])},
            "ports": self.ports(),
            "externalTrafficPolicy": self.policy(),
        });
        if let Some((policy, families)) = self.families() {
            spec["ipFamilyPolicy"] = json!(policy);
            spec["ipFamilies"] = families;
        }
        if self.random.one_in(12) {
            spec["loadBalancerIP"] = json!(self.address());
        }
        if self.random.one_in(25) {
            spec["loadBalancerClass"] = json!("example.org/other");
        }
        let service = json!({
            "metadata": {
                "name": key.1,
                "labels": {"tier": self.random.of(&["front", "back"])},
                "annotations": annotations,
            },
            "spec": spec,
        });
        let write = Write::create(collection(&key), service);
        self.services.insert(key);
        write
    }

    fn delete(&mut self) -> Option<Write> {
        let key = self.service()?;
        self.services.remove(&key);
        Some(Write::delete(path(&key)))
    }

    /// One Service in another form.
    fn change(&mut self) -> Option<Write> {
        let key = self.service()?;
        let body = match self.random.below(18) {
            0..5 => {
                // Another wish, and none of the others.
                let mut annotations = serde_json::Map::new();
                for name in ["address-pool", "loadBalancerIPs"] {
                    for prefix in ["metallb.io", "metallb.universe.tf"] {
                        annotations.insert(format!("{prefix}/{name}"), Value::Null);
                    }
                }
                for (name, value) in self.wishes() {
                    annotations.insert(name, json!(value));
                }
                json!({"metadata": {"annotations": annotations}})
            }
            5..8 => {
                let (name, value) = self.sharing();
                let value = if self.random.one_in(3) {
                    Value::Null
                } else {
                    value
                };
                json!({"metadata": {"annotations": {name: value}}})
            }
            8..10 => json!({"spec": {"ports": self.ports()}}),
            10 => json!({"spec": {"externalTrafficPolicy": self.policy()}}),
            11 => json!({"spec": {"selector": {"app": self.random.of(&["x", "y"])}}}),
            12 => json!({"metadata": {"labels": {"tier": self.random.of(&["front", "back"])}}}),
            13..15 => {
                let kind = self
                    .random
                    .of(&["ClusterIP", "LoadBalancer", "LoadBalancer"]);
                // A Service without balancer may have no such policy.
                let policy = (kind == "LoadBalancer").then(|| self.policy());
                json!({"spec": {
                    "type": kind,
                    "externalTrafficPolicy": policy,
                    "allocateLoadBalancerNodePorts": policy.map(|_| false),
                }})
            }
            15..17 => {
                let policies = ["SingleStack", "PreferDualStack", "RequireDualStack"];
                json!({"spec": {"ipFamilyPolicy": self.random.of(&policies)}})
            }
            _ => {
                let wish = (!self.random.one_in(3)).then(|| self.address());
                json!({"spec": {"loadBalancerIP": wish.unwrap_or_default()}})
            }
        };
        Some(Write::patch(path(&key), body))
    }

    /// Creates a pool, or writes it in another form.
    fn write_pool(&mut self, name: &'static str) -> Option<Write> {
        let old = self.pools.remove(name);
        let used: BTreeSet<&str> = self
            .pools
            .values()
            .flat_map(|p| p.entries.clone())
            .collect();
        let mut pool = old.clone().unwrap_or_default();
        if old.is_none() || self.random.one_in(2) {
            pool.entries = self.entries(&used);
        }
        if old.is_none() || self.random.one_in(3) {
            pool.auto = !self.random.one_in(4);
            pool.avoid = self.random.one_in(3);
        }
        if old.is_none() || self.random.one_in(3) {
            (pool.pinned, pool.allocation) = self.allocation();
        }
        if pool.entries.is_empty() {
            if let Some(old) = old {
                self.pools.insert(name, old);
            }
            return None;
        }
        if pool.auto && pool.pinned.is_none() && self.serves_all(&pool.entries) {
            pool.auto = false;
        }
        let body = json!({
            "metadata": {"name": name},
            "spec": {
                "addresses": pool.entries,
                "autoAssign": pool.auto,
                "avoidBuggyIPs": pool.avoid,
                "serviceAllocation": pool.allocation,
            },
        });
        let write = match old {
            Some(_) => {
                // A merge patch would leave what the old allocation had.
                let mut body = body;
                let spec = &mut body["spec"]["serviceAllocation"];
                if !spec.is_null() {
                    for field in ["namespaces", "namespaceSelectors", "serviceSelectors"] {
                        if spec[field].is_null() {
                            spec[field] = Value::Null;
                        }
                    }
                }
                Write::patch(format!("{POOLS}/{name}"), body)
            }
            None => {
                let mut body = body;
                body["apiVersion"] = json!("metallb.io/v1beta1");
                body["kind"] = json!("IPAddressPool");
                Write::create(POOLS, body)
            }
        };
        self.pools.insert(name, pool);
        Some(write)
    }

    fn delete_pool(&mut self) -> Option<Write> {
        let names: Vec<&'static str> = self.pools.keys().copied().collect();
        if names.len() < 2 {
            return None;
        }
        let name = self.random.of(&names);
        self.pools.remove(name);
        Some(Write::delete(format!("{POOLS}/{name}")))
    }

    /// Whether another pool serves all with a family of `entries`.
    fn serves_all(&self, entries: &[&str]) -> bool {
        let family = |entry: &&str| entry.contains(':');
        self.pools.values().any(|other| {
            other.auto
                && other.pinned.is_none()
                && other
                    .entries
                    .iter()
                    .any(|entry| entries.iter().any(|own| family(own) == family(entry)))
        })
    }

    /// Some entries that no other pool has, of one family or both, in any order.
    fn entries(&mut self, used: &BTreeSet<&str>) -> Vec<&'static str> {
        let mut free: Vec<&'static str> = match self.random.below(4) {
            0 => V4.to_vec(),
            1 => V6.to_vec(),
            _ => [&V4[..], &V6[..]].concat(),
        };
        free.retain(|entry| !used.contains(entry));
        let mut entries = Vec::new();
        while !free.is_empty() && entries.len() < 4 {
            let n = self.random.below(free.len() as u64) as usize;
            entries.push(free.swap_remove(n));
            if self.random.one_in(3) {
                break;
            }
        }
        entries
    }

    /// For whom a pool is; its priority differs from every other pool's.
    fn allocation(&mut self) -> (Option<u64>, Value) {
        if self.random.one_in(2) {
            return (None, Value::Null);
        }
        let taken: BTreeSet<u64> = self.pools.values().filter_map(|p| p.pinned).collect();
        let free: Vec<u64> = (0..=6).filter(|n| !taken.contains(n)).collect();
        let priority = self.random.of(&free);
        let mut allocation = json!({"priority": priority});
        if self.random.one_in(2) {
            allocation["namespaces"] = json!([self.random.of(&SPACES)]);
        } else if self.random.one_in(2) {
            let team = self.random.of(&TEAMS);
            allocation["namespaceSelectors"] = json!([{"matchLabels": {"team": team}}]);
        }
        if self.random.one_in(3) {
            let tier = self.random.of(&["front", "back"]);
            let selector = match self.random.below(2) {
                0 => json!({"matchLabels": {"tier": tier}}),
                _ => json!({"matchExpressions": [
                    {"key": "tier", "operator": "NotIn", "values": [tier]},
                ]}),
            };
            allocation["serviceSelectors"] = json!([selector]);
        }
        (Some(priority), allocation)
    }

    fn service(&mut self) -> Option<Key> {
        let keys: Vec<&Key> = self.services.iter().collect();
        (!keys.is_empty()).then(|| self.random.of(&keys).clone())
    }

    /// What a Service asks for by annotation: mostly nothing.
    fn wishes(&mut self) -> Vec<(String, String)> {
        let mut wishes = Vec::new();
        if self.random.one_in(4) {
            let pool = self
                .random
                .of(&["p1", "p2", "p3", "p4", "p5", "nowhere", ""]);
            wishes.push((self.annotation("address-pool"), pool.to_owned()));
        }
        if self.random.one_in(4) {
            let ips = self.addresses();
            wishes.push((self.annotation("loadBalancerIPs"), ips));
        }
        wishes
    }

    fn sharing(&mut self) -> (String, Value) {
        let key = self.random.of(&["k1", "k1", "k2", ""]);
        (self.annotation("allow-shared-ip"), json!(key))
    }

    fn annotation(&mut self, name: &str) -> String {
        let prefix = match self.random.below(5) {
            0 => "metallb.universe.tf",
            _ => "metallb.io",
        };
        format!("{prefix}/{name}")
    }

    fn address(&mut self) -> &'static str {
        match self.random.below(20) {
            0 => "not-an-address",
            1..6 => self.random.of(&ASKED_V6),
            _ => self.random.of(&ASKED_V4),
        }
    }

    fn addresses(&mut self) -> String {
        match self.random.below(12) {
            0..6 => self.address().to_owned(),
            6 => format!("{},{}", self.address(), self.address()),
            7 => format!("{},10.70.0.2,fd70::2", self.address()),
            8 => format!(
                "{}, {}",
                self.random.of(&ASKED_V6),
                self.random.of(&ASKED_V4)
            ),
            _ => format!(
                "{},{}",
                self.random.of(&ASKED_V4),
                self.random.of(&ASKED_V6)
            ),
        }
    }

    fn ports(&mut self) -> Value {
        let port = |number: u64, protocol: &str| {
            let name = format!("{}-{number}", protocol.to_lowercase());
            json!({"name": name, "port": number, "protocol": protocol})
        };
        let number = self.random.of(&[80, 443, 53]);
        match self.random.below(4) {
            0 => json!([port(53, "TCP"), port(53, "UDP")]),
            1 => json!([port(number, "UDP")]),
            _ => json!([port(number, "TCP")]),
        }
    }

    fn policy(&mut self) -> &'static str {
        self.random.of(&["Cluster", "Cluster", "Local"])
    }

    fn families(&mut self) -> Option<(&'static str, Value)> {
        let dual = if self.random.one_in(2) {
            json!(["IPv4", "IPv6"])
        } else {
            json!(["IPv6", "IPv4"])
        };
        match self.random.below(8) {
            0..3 => None,
            3 => Some(("SingleStack", json!(["IPv4"]))),
            4 => Some(("SingleStack", json!(["IPv6"]))),
            5 => Some(("RequireDualStack", dual)),
            _ => Some(("PreferDualStack", dual)),
        }
    }
}

fn collection((namespace, _): &Key) -> String {
    format!("{NAMESPACES}/{namespace}/services")
}

fn path(key: &Key) -> String {
    format!("{}/{}", collection(key), key.1)
}
