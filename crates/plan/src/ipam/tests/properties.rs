//! Random sequences of changes, against a naive allocator and against a rebuilt one.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::pool::Fit;
use super::super::request::{self, Want};
use super::*;

/// Something that happens.
#[derive(Clone, Debug)]
enum Change {
    Service(Box<Service>),
    Deleted(u8),
    Pools(Vec<Pool>),
    Restart,
}

fn block() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("192.0.2.0/30"),
        Just("192.0.2.4/31"),
        Just("192.0.2.252/30"),
        Just("192.0.3.0/30"),
        Just("192.0.2.8/32"),
        Just("2001:db8::/126"),
        Just("2001:db8::8/127"),
    ]
}

fn a_pool() -> impl Strategy<Value = Pool> {
    (
        prop::sample::select(vec!["a", "b", "c"]),
        prop::collection::vec(block(), 1..4),
        any::<(bool, bool)>(),
        prop::bool::weighted(0.1),
        prop::option::of((0u32..3, prop::option::of(Just("default")), any::<bool>())),
    )
        .prop_map(
            |(name, blocks, (auto_assign, avoid), frozen, allocation)| Pool {
                auto_assign,
                avoid_buggy_ips: avoid,
                frozen,
                allocation: allocation.map(|(priority, namespace, red)| ServiceAllocation {
                    priority,
                    namespaces: namespace.into_iter().map(Name::from).collect(),
                    namespace_selectors: Vec::new(),
                    service_selectors: red
                        .then(|| Selector::label("team", "red"))
                        .into_iter()
                        .collect(),
                }),
                ..pool(name, &blocks.join(" "))
            },
        )
}

fn address() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("192.0.2.0"),
        Just("192.0.2.1"),
        Just("192.0.2.255"),
        Just("192.0.3.1"),
        Just("2001:db8::1"),
        Just("192.0.2.1,2001:db8::1"),
        Just("2001:db8::2,192.0.2.2"),
        Just("nonsense"),
    ]
}

fn a_service() -> impl Strategy<Value = Service> {
    (
        0u8..8,
        prop::sample::select(vec!["4", "6", "46", "p"]),
        prop::sample::select(vec!["", "", "j", "k"]),
        prop::sample::select(vec!["", "tcp/80", "udp/53", "tcp/80 udp/53"]),
        prop::option::weighted(0.3, address()),
        prop::option::weighted(0.2, prop::sample::select(vec!["a", "b", "x"])),
        any::<bool>(),
        prop::bool::weighted(0.05),
        prop::option::weighted(0.2, address()),
    )
        .prop_map(
            |(n, families, key, ports, wanted, from, red, plain, status)| {
                let mut service = lb(&format!("s{n}")).sharing(key, "").ports(ports);
                service = match families {
                    "4" => service,
                    "6" => service.v6(),
                    "46" => service.dual(FamilyPolicy::RequireDualStack),
                    _ => service.dual(FamilyPolicy::PreferDualStack),
                };
                if let Some(wanted) = wanted {
                    service = service.ips(wanted);
                }
                if let Some(from) = from {
                    service = service.pool(from);
                }
                if red {
                    service = service.label("team", "red");
                }
                if plain {
                    service.kind = ServiceType::ClusterIP;
                }
                // A status that nobody here wrote.
                if let Some(status) = status.filter(|text| *text != "nonsense") {
                    service = service.status(&status.replace(',', " "));
                }
                service
            },
        )
}

fn a_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        10 => a_service().prop_map(|service| Change::Service(Box::new(service))),
        3 => (0u8..8).prop_map(Change::Deleted),
        2 => prop::collection::vec(a_pool(), 0..4).prop_map(Change::Pools),
        1 => Just(Change::Restart),
    ]
}

/// A little controller: every Service is brought to rest after every change.
#[derive(Default)]
struct Cluster {
    allocator: Allocator,
    services: BTreeMap<ServiceKey, Service>,
    pools: Vec<Pool>,
}

impl Cluster {
    fn change(&mut self, change: Change) {
        let dirty = match change {
            Change::Service(mut service) => {
                // The status stays as it was unless the Service is new.
                if let Some(old) = self.services.get(&service.key) {
                    service.ingress = old.ingress.clone();
                }
                let key = service.key.clone();
                self.services.insert(key.clone(), *service);
                vec![key]
            }
            Change::Deleted(n) => {
                let key = ServiceKey::new("default", &format!("s{n}"));
                self.services.remove(&key);
                self.allocator.forget(&key)
            }
            Change::Pools(pools) => {
                self.pools = pools;
                self.allocator.set_pools(self.pools.clone())
            }
            Change::Restart => {
                self.allocator = allocator(self.pools.clone());
                let services = self.services.values().map(|service| (service, None));
                self.allocator.adopt(services, &Options::default());
                self.services.keys().cloned().collect()
            }
        };
        self.settle(dirty);
    }

    fn settle(&mut self, mut dirty: Vec<ServiceKey>) {
        let mut rounds = 0;
        while !dirty.is_empty() {
            rounds += 1;
            assert!(rounds < 50, "does not come to rest");
            let mut next = Vec::new();
            for key in dirty {
                if let Some(service) = self.services.get_mut(&key) {
                    next.extend(step(&mut self.allocator, service).1);
                }
            }
            dirty = next;
        }
    }

    /// The sharing rule, from the allocations alone.
    fn check_rule(&self) {
        let all: Vec<_> = self.allocator.allocations().collect();
        for (n, (one, a)) in all.iter().enumerate() {
            for (two, b) in &all[n + 1..] {
                if !a.ips.iter().any(|ip| b.ips.contains(ip)) {
                    continue;
                }
                assert!(
                    a.sharing.is_some() && a.sharing == b.sharing,
                    "{one} and {two}"
                );
                assert!(
                    !a.ports.iter().any(|port| b.ports.contains(port)),
                    "{one} and {two}"
                );
            }
        }
    }

    /// Index and counters, counted anew.
    fn check_index(&self) {
        let mut rebuilt = allocator(self.pools.clone());
        for (key, allocation) in self.allocator.allocations() {
            rebuilt
                .record(key, Some(allocation.clone()))
                .expect("no conflict");
        }
        for (key, pending) in self.allocator.waiting() {
            let decision = Decision {
                outcome: Outcome::Failed,
                allocation: rebuilt.allocation(key).cloned(),
                ingress: Vec::new(),
                pool_annotation: None,
                notes: Vec::new(),
                pending: Some(pending.clone()),
            };
            rebuilt.commit(key, &decision).expect("no conflict");
        }
        assert_eq!(rebuilt, self.allocator);
        let used: BTreeSet<IpAddr> = self
            .allocator
            .allocations()
            .flat_map(|(_, allocation)| allocation.ips.iter().copied())
            .collect();
        for pool in self.allocator.pools() {
            let of = |family: Family| {
                let mine = |ip: &&IpAddr| {
                    Family::of(**ip) == family
                        && self
                            .allocator
                            .pool_of(**ip)
                            .is_some_and(|p| p.name == pool.name)
                };
                used.iter().filter(mine).count() as u64
            };
            let counters = self.allocator.counters(&pool.name).expect("a pool");
            assert_eq!(
                (counters.assigned_v4, counters.assigned_v6),
                (of(Family::V4), of(Family::V6))
            );
        }
    }

    /// With all decisions recorded nothing is proposed.
    fn check_rest(&self) {
        for service in self.services.values() {
            let decision = decide(&self.allocator, service, None, &Options::default());
            assert!(decision.notes.is_empty(), "{:?}", decision.notes);
            assert!(!decision.needs_write(service), "{decision:?}");
            assert_eq!(
                decision.allocation.as_ref(),
                self.allocator.allocation(&service.key)
            );
            assert_eq!(
                decision.pending.as_ref(),
                self.allocator.pending(&service.key)
            );
        }
    }
}

/// The lowest address by looking at each.
fn naive(allocator: &Allocator, service: &Service, pool: &Pool, family: Family) -> Option<IpAddr> {
    let sharing = request::sharing(service);
    let ports = request::ports(service);
    pool.blocks
        .iter()
        .filter(|block| Family::of(block.addr()) == family)
        .find_map(|block| {
            block
                .hosts()
                .chain([block.network(), block.broadcast()])
                .collect::<BTreeSet<_>>()
                .into_iter()
                .find(|ip| {
                    // Of two blocks that overlap only the first counts.
                    allocator.pool_of(*ip).is_some_and(|p| p.name == pool.name)
                        && !pool.avoids(*ip)
                        && allocator.allocations().all(|(other, theirs)| {
                            *other == service.key
                                || !theirs.ips.contains(ip)
                                || (sharing.is_some()
                                    && sharing == theirs.sharing
                                    && !ports.iter().any(|port| theirs.ports.contains(port)))
                        })
                })
        })
}

fn naive_anywhere(allocator: &Allocator, service: &Service, want: Want) -> Option<Vec<IpAddr>> {
    let mut pinned: Vec<&Pool> = allocator
        .pools()
        .filter(|p| p.allocation.is_some() && p.fit(service, None) == Fit::Yes)
        .collect();
    let priority = |p: &Pool| p.allocation.as_ref().map_or(0, |a| a.priority);
    pinned.sort_by_key(|p| (priority(p) == 0, priority(p)));
    let for_all: Vec<&Pool> = allocator
        .pools()
        .filter(|p| p.allocation.is_none())
        .collect();
    for group in [pinned, for_all] {
        let (mut first, mut second) = (None, None);
        for pool in group.into_iter().filter(|p| p.auto_assign && !p.frozen) {
            let find = |family| naive(allocator, service, pool, family);
            match want {
                Want::One(family) => {
                    if let Some(ip) = find(family) {
                        return Some(vec![ip]);
                    }
                }
                Want::Both | Want::Prefer(_) => {
                    if let (Some(v4), Some(v6)) = (find(Family::V4), find(Family::V6)) {
                        return Some(vec![v4, v6]);
                    }
                }
            }
            if let Want::Prefer(family) = want {
                first = first.or_else(|| find(family));
                second = second.or_else(|| find(family.other()));
            }
        }
        if let Some(ip) = first.or(second) {
            return Some(vec![ip]);
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes(changes in prop::collection::vec(a_change(), 1..40)) {
        let mut cluster = Cluster::default();
        for change in changes {
            cluster.change(change);
            cluster.check_rule();
            cluster.check_index();
            cluster.check_rest();
        }
    }

    /// Statuses are enough to come back to the same allocations.
    #[test]
    fn a_restart_changes_nothing(changes in prop::collection::vec(a_change(), 1..30)) {
        let mut cluster = Cluster::default();
        for change in changes {
            cluster.change(change);
        }
        let before: Vec<_> = cluster.allocator.allocations().map(|(k, a)| (k.clone(), a.clone())).collect();
        cluster.change(Change::Restart);
        let after: Vec<_> = cluster.allocator.allocations().map(|(k, a)| (k.clone(), a.clone())).collect();
        prop_assert_eq!(before, after);
    }

    #[test]
    fn the_lowest_address_first(
        pools in prop::collection::vec(a_pool(), 1..4),
        services in prop::collection::vec(a_service(), 1..12),
        asking in a_service(),
    ) {
        let mut cluster = Cluster::default();
        cluster.change(Change::Pools(pools));
        for service in services {
            cluster.change(Change::Service(Box::new(service)));
        }
        let want = Want::of(&asking, request::families(&asking).expect("families"));
        let got = cluster.allocator.anywhere(asker(&asking), want).ok().map(|a| a.ips);
        prop_assert_eq!(got, naive_anywhere(&cluster.allocator, &asking, want));
    }

    #[test]
    fn no_text_makes_it_panic(
        ips in ".{0,60}", pool_name in ".{0,12}", key in ".{0,12}", field in prop::option::of(".{0,30}"),
    ) {
        let mut service = lb("s").ips(&ips).sharing(&key, "");
        if !pool_name.is_empty() {
            service = service.pool(&pool_name);
        }
        service.load_balancer_ip = field.map(|text| text.as_str().into());
        let allocator = allocator([pool("a", "0.0.0.0/0 ::/0")]);
        let decision = decide(&allocator, &service, None, &Options::default());
        prop_assert_eq!(decision.allocation.is_some(), decision.outcome == Outcome::Settled);
    }
}
