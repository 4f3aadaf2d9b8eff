//! The allocator alone: cases after MetalLB's TestAssignment, TestPoolAllocation, TestAllocation,
//! TestAutoAssign and TestBuggyIPs (Apache-2.0), on data of our own.

use super::super::request::Want;
use super::*;

/// name, address (`-` gives it back), ports, sharing key, backend, whether it works
type Assign = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    bool,
);

fn assignments(allocator: &mut Allocator, table: &[Assign]) {
    for (n, (name, wanted, ports, key, backend, works)) in table.iter().enumerate() {
        let mut service = lb(name).ports(ports).sharing(key, backend);
        if *wanted == "-" {
            allocator.forget(&service.key);
            continue;
        }
        if wanted.contains(':') {
            service = service.v6();
        }
        match allocator.keep(asker(&service), &ips(wanted)) {
            Ok(allocation) => {
                assert!(works, "step {n}: {name} must not get {wanted}");
                allocator
                    .record(&service.key, Some(allocation))
                    .expect("it was checked");
                let has = allocator.allocation(&service.key).expect("recorded");
                assert_eq!(has.ips, ips(wanted), "step {n}");
            }
            Err(error) => assert!(!works, "step {n}: {name} {wanted}: {error}"),
        }
    }
}

#[test]
fn assignment() {
    let mut allocator = allocator([
        pool("one", "192.0.2.4/31 2001:db8::4/127"),
        avoiding("two", "198.51.100.0/24 2001:db8:1::/120"),
    ]);
    for (a, b, low, high, x, y) in [
        (
            "192.0.2.4",
            "192.0.2.5",
            "198.51.100.0",
            "198.51.100.255",
            "198.51.100.3",
            "198.51.100.254",
        ),
        (
            "2001:db8::4",
            "2001:db8::5",
            "2001:db8::6",
            "2001:db8::3",
            "2001:db8:1::3",
            "2001:db8:1::fe",
        ),
    ] {
        assignments(
            &mut allocator,
            &[
                ("s1", a, "", "", "", true),
                ("s1", a, "", "", "", true),
                ("s2", a, "", "", "", false),
                ("s2", b, "", "", "", true),
                ("s1", b, "", "", "", false),
                ("s1", "-", "", "", "", true),
                ("s2", a, "", "", "", true),
                ("s1", b, "", "", "", true),
                ("s3", low, "", "", "", false),
                ("s3", high, "", "", "", false),
                ("s3", y, "", "", "", true),
                ("s4", x, "tcp/80", "sharing", "backend", true),
                ("s4", x, "tcp/80", "share", "backend", true),
                ("s3", x, "tcp/80", "share", "backend", false),
                ("s3", x, "tcp/443", "othershare", "backend", false),
                ("s3", x, "tcp/443", "share", "otherbackend", false),
                ("s3", x, "tcp/443", "", "", false),
                ("s3", x, "tcp/443", "share", "backend", true),
                ("s3", x, "udp/53", "share", "backend", true),
                ("s3", x, "tcp/443", "othershare", "backend", false),
                ("s3", x, "tcp/443", "share", "otherbackend", false),
                ("s5", x, "tcp/80", "share", "backend", false),
                ("s5", x, "tcp/443", "share", "backend", true),
                ("s5", "-", "", "", "", true),
                ("s4", y, "", "", "", true),
                ("s3", x, "tcp/443", "othershare", "backend", true),
                ("s1", "-", "", "", "", true),
                ("s2", "-", "", "", "", true),
                ("s3", "-", "", "", "", true),
                ("s4", "-", "", "", "", true),
            ],
        );
    }
    // Both addresses of a Service come from one pool.
    assignments(
        &mut allocator,
        &[
            ("d1", "192.0.2.4 2001:db8::4", "", "", "", true),
            ("d2", "192.0.2.5 2001:db8:1::4", "", "", "", false),
            ("d2", "192.0.2.5 2001:db8::4", "", "", "", false),
            ("d2", "2001:db8::5 192.0.2.5", "", "", "", true),
            ("d3", "198.51.100.1 198.51.100.2", "", "", "", false),
            (
                "d3",
                "198.51.100.1 2001:db8:1::1 198.51.100.2",
                "",
                "",
                "",
                false,
            ),
            ("d3", "203.0.113.1", "", "", "", false),
        ],
    );
}

/// name, families (`4`, `6`, `46` both, `p` prefer both), ports, key, addresses (`!` none, `-`
/// gives back)
type Give = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

fn gives(
    allocator: &mut Allocator,
    table: &[Give],
    find: impl Fn(&Allocator, Asker<'_>, Want) -> Result<Allocation, AllocationError>,
) {
    for (n, (name, families, ports, key, expected)) in table.iter().enumerate() {
        let service = lb(name).ports(ports).sharing(key, "");
        if *expected == "-" {
            allocator.forget(&service.key);
            continue;
        }
        let want = match *families {
            "4" => Want::One(Family::V4),
            "6" => Want::One(Family::V6),
            "46" => Want::Both,
            "p" => Want::Prefer(Family::V4),
            "p6" => Want::Prefer(Family::V6),
            other => panic!("families {other}"),
        };
        match find(allocator, asker(&service), want) {
            Ok(allocation) => {
                assert_eq!(allocation.ips, ips(expected), "step {n}: {name}");
                allocator
                    .record(&service.key, Some(allocation))
                    .expect("it was free");
            }
            Err(error) => assert_eq!(*expected, "!", "step {n}: {name}: {error}"),
        }
    }
}

#[test]
fn from_one_pool() {
    let mut allocator = allocator([
        pool("another", "10.0.0.0/16 fd00::/112"),
        pool(
            "test",
            "192.0.2.4/31 2001:db8:2::/127 192.0.2.10/31 2001:db8:1::/127",
        ),
    ]);
    let name: Name = "test".into();
    let find = |a: &Allocator, asker: Asker<'_>, want| a.in_pool(asker, &name, want);
    gives(
        &mut allocator,
        &[
            ("s1", "4", "", "", "192.0.2.4"),
            ("s2", "4", "", "", "192.0.2.5"),
            ("s3", "4", "", "", "192.0.2.10"),
            ("s4", "4", "", "", "192.0.2.11"),
            ("s5", "4", "", "", "!"),
            ("s5", "46", "", "", "!"),
            ("s6", "p", "", "", "2001:db8:2::"),
            ("s6", "", "", "", "-"),
            ("s2", "", "", "", "-"),
            ("s5", "4", "tcp/80", "share", "192.0.2.5"),
            ("s6", "4", "tcp/80", "share", "!"),
            ("s6", "4", "tcp/443", "other", "!"),
            ("s6", "4", "tcp/443", "share", "192.0.2.5"),
            ("s7", "46", "udp/53", "share", "192.0.2.5 2001:db8:2::"),
            // Lowest first, free or shareable.
            ("s1", "", "", "", "-"),
            ("s8", "4", "tcp/1", "share", "192.0.2.4"),
            ("s9", "4", "tcp/2", "share", "192.0.2.4"),
            ("s10", "4", "tcp/1", "share", "192.0.2.5"),
            ("s11", "4", "tcp/1", "share", "!"),
            ("s11", "6", "tcp/1", "share", "2001:db8:2::"),
            // The blocks count in their order, not by number.
            ("s12", "6", "", "", "2001:db8:2::1"),
            ("s13", "6", "", "", "2001:db8:1::"),
        ],
        find,
    );
    let unknown = allocator.in_pool(asker(&lb("x")), &"missing".into(), Want::Both);
    assert_eq!(unknown, Err(AllocationError::UnknownPool("missing".into())));
}

#[test]
fn from_any_pool() {
    let mut allocator = allocator([
        pool("a", "192.0.2.0/31"),
        pool("b", "2001:db8::/127"),
        pool("c", "192.0.2.4/31 2001:db8::4/127"),
        manual("d", "192.0.2.8/31"),
    ]);
    let find = Allocator::anywhere;
    gives(
        &mut allocator,
        &[
            ("s1", "4", "", "", "192.0.2.0"),
            ("s2", "46", "", "", "192.0.2.4 2001:db8::4"),
            ("s3", "p", "", "", "192.0.2.5 2001:db8::5"),
            ("s4", "46", "", "", "!"),
            ("s4", "p6", "", "", "2001:db8::"),
            ("s5", "p", "tcp/80", "k", "192.0.2.1"),
            ("s6", "4", "", "", "!"),
            ("s6", "4", "tcp/80", "k", "!"),
            ("s6", "4", "tcp/81", "k", "192.0.2.1"),
            ("s7", "p", "", "", "2001:db8::1"),
            ("s8", "p", "", "", "!"),
            ("s1", "", "", "", "-"),
            ("s8", "4", "", "", "192.0.2.0"),
        ],
        find,
    );
}

#[test]
fn buggy_addresses() {
    let mut allocator = allocator([
        pool("a", "192.0.2.0/31"),
        pool("b", "192.0.2.254/31"),
        avoiding("c", "198.51.100.0/31"),
        avoiding("d", "198.51.100.254/31"),
    ]);
    gives(
        &mut allocator,
        &[
            ("s1", "4", "", "", "192.0.2.0"),
            ("s2", "4", "", "", "192.0.2.1"),
            ("s3", "4", "", "", "192.0.2.254"),
            ("s4", "4", "", "", "192.0.2.255"),
            ("s5", "4", "", "", "198.51.100.1"),
            ("s6", "4", "", "", "198.51.100.254"),
            ("s7", "4", "", "", "!"),
            ("s5", "", "", "", "-"),
            ("s7", "4", "", "", "198.51.100.1"),
        ],
        Allocator::anywhere,
    );
}

#[test]
fn counters_count_addresses() {
    let mut allocator = allocator([pool("a", "192.0.2.0/30 2001:db8::/64")]);
    gives(
        &mut allocator,
        &[
            ("s1", "46", "tcp/1", "k", "192.0.2.0 2001:db8::"),
            ("s2", "46", "tcp/2", "k", "192.0.2.0 2001:db8::"),
            ("s3", "4", "", "", "192.0.2.1"),
        ],
        Allocator::anywhere,
    );
    assert_eq!(
        allocator.counters("a"),
        Some(Counters {
            assigned_v4: 2,
            assigned_v6: 1,
            available_v4: 2,
            available_v6: i64::MAX as u64 - 1,
        })
    );
    let key = SharingKey {
        sharing: "k".into(),
        backend: "".into(),
    };
    let sharers: Vec<String> = allocator
        .sharers("a", &key)
        .iter()
        .map(|s| s.to_string())
        .collect();
    assert_eq!(sharers, ["default/s1", "default/s2"]);
    assert_eq!(allocator.users_of_pool("a").count(), 5);
}

#[test]
fn a_duplicate_is_refused_and_names_both() {
    let mut allocator = allocator([pool("a", "192.0.2.0/30")]);
    let one = allocator
        .anywhere(asker(&lb("one")), Want::One(Family::V4))
        .expect("free");
    let (first, second) = (lb("one").key, lb("two").key);
    allocator.record(&first, Some(one.clone())).expect("free");
    let before = allocator.clone();
    let conflict = allocator.record(&second, Some(one)).expect_err("taken");
    assert_eq!(allocator, before);
    assert_eq!(conflict.holders, [first]);
    assert_eq!(conflict.refused, second);
    assert_eq!(
        conflict.to_string(),
        "192.0.2.0 is recorded for default/one, default/two can not have it too"
    );
}

#[test]
fn the_errors_read_as_metallbs() {
    let full = allocator([pool("a", "192.0.2.0/32"), pool("v6", "2001:db8::/127")]);
    let mut full = full;
    gives(
        &mut full,
        &[("s1", "4", "tcp/80", "k", "192.0.2.0")],
        Allocator::anywhere,
    );
    let name: Name = "a".into();
    let two = lb("s2").ports("tcp/80").sharing("k", "");
    for (got, want) in [
        (
            full.anywhere(asker(&lb("s2")), Want::One(Family::V4)),
            "no available IPs",
        ),
        (
            full.in_pool(asker(&lb("s2")), &name, Want::One(Family::V4)),
            "no available IPs in pool a for ipv4 IPFamily",
        ),
        (
            full.in_pool(asker(&lb("s2")), &"x".into(), Want::Both),
            "unknown pool \"x\"",
        ),
        (
            full.explicit(asker(&lb("s2")), &ips("192.0.2.1 2001:db8::"), None),
            "[\"192.0.2.1\" \"2001:db8::\"] is not allowed in config",
        ),
        (
            full.explicit(asker(&lb("s2")), &ips("192.0.2.0"), None),
            "can't change sharing key for \"default/s2\", address also in use by default/s1",
        ),
        (
            full.explicit(asker(&two), &ips("192.0.2.0"), None),
            "port TCP/80 is already in use on \"192.0.2.0\"",
        ),
    ] {
        assert_eq!(got.expect_err(want).to_string(), want);
    }
}
