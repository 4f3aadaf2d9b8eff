//! Who is woken by a change: the same as a plain scan finds, without looking at the others.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::super::waiters::{Change, Waiters};
use super::*;

/// Something that is recorded.
#[derive(Clone, Debug)]
enum Step {
    Commit(u8, Option<Allocation>, Option<Wants>),
    Forget(u8),
    Pools(u8),
}

fn key(n: u8) -> ServiceKey {
    ServiceKey::new("default", &format!("s{n}"))
}

/// Of pools a and b, and of none.
fn an_address() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(vec![
        "10.0.0.0", "10.0.0.1", "10.0.1.0", "10.0.1.1", "10.0.2.0",
    ])
    .prop_map(ip)
}

fn an_allocation() -> impl Strategy<Value = Allocation> {
    (
        prop::collection::vec(an_address(), 1..3),
        prop::option::of(prop::sample::select(vec!["j", "k"])),
        1u16..5,
    )
        .prop_map(|(mut ips, sharing, port)| {
            ips.dedup();
            Allocation {
                ips,
                pool: "a".into(),
                sharing: sharing.map(|sharing| SharingKey {
                    sharing: sharing.into(),
                    backend: "".into(),
                }),
                ports: vec![(Protocol::Tcp, port)],
            }
        })
}

fn wants() -> impl Strategy<Value = Wants> {
    prop_oneof![
        Just(Wants::Nothing),
        Just(Wants::Any),
        prop::sample::select(vec!["a", "b"]).prop_map(|pool| Wants::Pool(pool.into())),
        prop::collection::vec(an_address(), 1..3).prop_map(Wants::Addresses),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    let allocation = prop::option::of(an_allocation());
    prop_oneof![
        12 => (0u8..12, allocation, prop::option::of(wants()))
            .prop_map(|(n, allocation, wants)| Step::Commit(n, allocation, wants)),
        2 => (0u8..12).prop_map(Step::Forget),
        1 => (0u8..4).prop_map(Step::Pools),
    ]
}

fn decision(allocation: Option<Allocation>, wants: Option<Wants>) -> Decision {
    Decision {
        outcome: Outcome::Settled,
        ingress: Vec::new(),
        pool_annotation: None,
        notes: Vec::new(),
        pending: wants.map(pending),
        allocation,
    }
}

fn pending(wants: Wants) -> Pending {
    Pending {
        error: AllocationError::Exhausted,
        wants,
        cleared: Vec::new(),
    }
}

/// Who a change of `service` to `new` concerns, found by looking at everybody.
fn plain_scan(
    allocator: &Allocator,
    service: &ServiceKey,
    new: Option<&Allocation>,
) -> Vec<ServiceKey> {
    let old = allocator.allocation(service);
    if old == new {
        return Vec::new();
    }
    let freed = old.map_or(&[][..], |old| &old.ips);
    let taken = new.map_or(&[][..], |new| &new.ips);
    let pools: Vec<&Pool> = freed
        .iter()
        .filter_map(|ip| allocator.pool_of(*ip))
        .collect();
    let concerns = |wants: &Wants| match wants {
        Wants::Nothing => false,
        Wants::Addresses(ips) => ips
            .iter()
            .any(|ip| freed.contains(ip) || taken.contains(ip)),
        Wants::Pool(name) => pools.iter().any(|pool| pool.name == *name),
        Wants::Any => !pools.is_empty(),
    };
    allocator
        .waiting()
        .filter(|(waiter, pending)| *waiter != service && concerns(&pending.wants))
        .map(|(waiter, _)| waiter.clone())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_whom_a_plain_scan_finds(steps in prop::collection::vec(a_step(), 1..60)) {
        let mut allocator = allocator([pool("a", "10.0.0.0/24"), pool("b", "10.0.1.0/24")]);
        for step in steps {
            match step {
                Step::Commit(n, allocation, wants) => {
                    let expected = plain_scan(&allocator, &key(n), allocation.as_ref());
                    let found = allocator.commit(&key(n), &decision(allocation, wants));
                    // A conflict changes nothing, and so concerns nobody.
                    if let Ok(found) = found {
                        prop_assert_eq!(found, expected);
                    }
                }
                Step::Forget(n) => {
                    let expected = plain_scan(&allocator, &key(n), None);
                    prop_assert_eq!(allocator.forget(&key(n)), expected);
                }
                Step::Pools(which) => {
                    let pools = [pool("a", "10.0.0.0/24"), pool("b", "10.0.1.0/24")];
                    let pools = pools.into_iter().enumerate();
                    let some = pools.filter(|(n, _)| which & (1 << n) != 0).map(|(_, pool)| pool);
                    allocator.set_pools(some);
                }
            }
        }
    }
}

/// The waiters are many, those that a change looks at are those that it concerns.
#[test]
fn a_change_looks_at_nobody_else() {
    for many in [100u32, 10_000] {
        let mut waiters = Waiters::default();
        let address = |n: u32| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n));
        for n in 0..many {
            let wait = |waiters: &mut Waiters, prefix: &str, wants| {
                let key = ServiceKey::new("default", &format!("{prefix}-{n}"));
                waiters.insert(&key, pending(wants));
            };
            wait(&mut waiters, "any", Wants::Any);
            wait(&mut waiters, "never", Wants::Nothing);
            wait(&mut waiters, "one", Wants::Addresses(vec![address(n)]));
            let pool = format!("pool-{}", n / 10);
            wait(&mut waiters, "pool", Wants::Pool(pool.as_str().into()));
        }
        let looked_at = |freed: &[IpAddr], taken: &[IpAddr], pools: &[&str]| {
            let change = Change {
                freed: freed.to_vec(),
                taken: taken.to_vec(),
                pools: pools.iter().map(|pool| Name::from(*pool)).collect(),
            };
            waiters.met_by(&change).count()
        };
        // All that wait get an address, one after the other: nobody looks at the rest.
        assert_eq!(looked_at(&[], &[address(many)], &[]), 0);
        assert_eq!(looked_at(&[], &[address(7)], &[]), 1);
        // An address of no pool any more.
        assert_eq!(looked_at(&[address(7)], &[], &[]), 1);
        let any = many as usize;
        assert_eq!(looked_at(&[address(7)], &[], &["pool-3"]), 1 + 10 + any);
    }
}
