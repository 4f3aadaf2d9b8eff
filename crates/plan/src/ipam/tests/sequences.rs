//! Several Services and changes of pools: cases after MetalLB's TestConfigReload,
//! TestDeleteRecyclesIP, TestControllerReassign and TestControllerDualStackConfig (Apache-2.0).

use super::*;

#[test]
fn pools_change_under_a_service() {
    let kept = "192.0.2.0";
    // pools, the address and pool afterwards
    let table: Vec<(Vec<Pool>, &str, &str)> = vec![
        (vec![pool("a", "192.0.2.0/30")], kept, "a"),
        (vec![pool("a", "192.0.2.0/24")], kept, "a"),
        (vec![pool("a", "192.0.2.0/31")], kept, "a"),
        (vec![pool("z", "192.0.2.0/30")], kept, "z"),
        (
            vec![pool("z", "192.0.2.0/31"), pool("b", "192.0.2.2/31")],
            kept,
            "z",
        ),
        (vec![manual("z", "192.0.2.0/31")], kept, "z"),
        (vec![frozen(manual("z", "192.0.2.0/31"))], kept, "z"),
        (
            vec![
                pinned("z", "192.0.2.0/31", 1, "default", &[]),
                pool("b", "192.0.2.2/31"),
            ],
            kept,
            "z",
        ),
        (
            vec![frozen(pinned("z", "192.0.2.0/31", 1, "other", &[]))],
            kept,
            "z",
        ),
        (
            vec![
                pinned("z", "192.0.2.0/31", 1, "other", &[]),
                pool("b", "192.0.2.2/31"),
            ],
            "192.0.2.2",
            "b",
        ),
        (vec![avoiding("b", "192.0.2.0/29")], "192.0.2.2", "b"),
        (vec![pool("b", "198.51.100.0/24")], "198.51.100.0", "b"),
        (vec![avoiding("b", "198.51.100.0/24")], "198.51.100.1", "b"),
        (vec![], "", ""),
        (vec![pool("b", "192.0.2.0/32")], kept, "b"),
    ];
    let mut allocator = allocator([pool("a", "192.0.2.0/30")]);
    let mut service = lb("s");
    step(&mut allocator, &mut service);
    for (n, (pools, want, from)) in table.into_iter().enumerate() {
        let again = allocator.set_pools(pools);
        if again.is_empty() {
            assert_eq!(n, 0, "only the first change is none");
        }
        let before: Vec<IpAddr> = service.assigned().collect();
        let (decision, _) = step(&mut allocator, &mut service);
        assert_eq!(decision.ingress, ips(want), "change {n}");
        assert_eq!(
            decision.pool_annotation.as_deref().unwrap_or(""),
            from,
            "change {n}"
        );
        let cleared = reasons(&decision).contains(&"ClearAssignment");
        let moved = !before.is_empty() && before != decision.ingress && !want.is_empty();
        assert_eq!(cleared, moved, "change {n}: {:?}", decision.notes);
    }
}

#[test]
fn unchanged_pools_concern_nobody() {
    let pools = || [pool("a", "192.0.2.0/30"), pool("b", "198.51.100.0/30")];
    let mut allocator = allocator(pools());
    let mut in_b = lb("in-b").pool("b");
    step(&mut allocator, &mut lb("in-a"));
    step(&mut allocator, &mut in_b);
    let before = allocator.clone();
    assert_eq!(allocator.set_pools(pools()), []);
    assert_eq!(allocator, before);
    let [a, b] = pools();
    assert_eq!(allocator.set_pools([a, frozen(b)]), [in_b.key]);
}

#[test]
fn a_frozen_pool_gives_nothing() {
    let mut allocator = allocator([frozen(pool("a", "192.0.2.0/24 2001:db8::/64"))]);
    for service in [lb("x"), lb("x").pool("a"), lb("x").ips("192.0.2.7")] {
        let (decision, _) = step(&mut allocator, &mut service.clone());
        assert_eq!(
            reasons(&decision).len() + usize::from(decision.notes.is_empty()),
            1
        );
        assert_eq!(decision.outcome, Outcome::Failed);
    }
    // After a restart the status is all there is: it is honoured.
    let mut held = lb("held")
        .dual(FamilyPolicy::PreferDualStack)
        .status("192.0.2.9");
    let (decision, _) = step(&mut allocator, &mut held);
    assert_eq!(decision.ingress, ips("192.0.2.9"));
}

#[test]
fn a_freed_address_helps_those_who_wait() {
    let mut allocator = allocator([pool("a", "192.0.2.0/32"), manual("b", "198.51.100.0/32")]);
    let [mut one, mut two, mut three, mut four] = [
        lb("one"),
        lb("two"),
        lb("three").ips("192.0.2.0"),
        lb("four").pool("b"),
    ];
    let mut five = lb("five").pool("b");
    assert_eq!(step(&mut allocator, &mut one).1, []);
    step(&mut allocator, &mut four);
    for waiter in [&mut two, &mut three, &mut five] {
        let (decision, helped) = step(&mut allocator, waiter);
        assert_eq!((decision.outcome, helped), (Outcome::Failed, vec![]));
    }
    let helped = allocator.forget(&one.key);
    assert_eq!(helped, [three.key.clone(), two.key.clone()]);
    assert_eq!(step(&mut allocator, &mut three).0.ingress, ips("192.0.2.0"));
    assert_eq!(step(&mut allocator, &mut two).0.outcome, Outcome::Failed);
    assert!(
        step(&mut allocator, &mut two).0.notes.is_empty(),
        "told once"
    );
    four.kind = ServiceType::ClusterIP;
    assert_eq!(
        step(&mut allocator, &mut four).1,
        [five.key.clone(), two.key]
    );
    assert_eq!(
        step(&mut allocator, &mut five).0.ingress,
        ips("198.51.100.0")
    );
}

#[test]
fn a_new_sharing_key_helps_those_who_wait_with_it() {
    let mut allocator = allocator([pool("a", "192.0.2.0/32")]);
    let mut one = lb("one").ports("tcp/80");
    let mut two = lb("two").ports("tcp/81").sharing("k", "");
    step(&mut allocator, &mut one);
    assert_eq!(step(&mut allocator, &mut two).0.outcome, Outcome::Failed);
    one = one.sharing("k", "");
    assert_eq!(step(&mut allocator, &mut one).1, [two.key.clone()]);
    assert_eq!(step(&mut allocator, &mut two).0.ingress, ips("192.0.2.0"));
    // The last one to come may not change the key under the first.
    two = two.sharing("other", "");
    let (decision, _) = step(&mut allocator, &mut two);
    assert_eq!(reasons(&decision), ["ClearAssignment", "AllocationFailed"]);
}

#[test]
fn a_request_that_cannot_be_met_costs_the_address() {
    let mut allocator = allocator([pool("a", "192.0.2.0/30")]);
    step(&mut allocator, &mut lb("one"));
    let mut two = lb("two");
    step(&mut allocator, &mut two);
    two = two.ips("192.0.2.0");
    let (decision, _) = step(&mut allocator, &mut two);
    assert_eq!(
        (decision.ingress.len(), reasons(&decision)),
        (0, vec!["AllocationFailed"])
    );
    two.annotations.remove("metallb.io/loadBalancerIPs");
    assert_eq!(step(&mut allocator, &mut two).0.ingress, ips("192.0.2.1"));
    // A request that goes away changes nothing.
    two = two.ips("192.0.2.3");
    step(&mut allocator, &mut two);
    two.annotations.remove("metallb.io/loadBalancerIPs");
    assert_eq!(step(&mut allocator, &mut two).0.ingress, ips("192.0.2.3"));
}

#[test]
fn a_dual_pool_that_loses_a_family() {
    let mut allocator = allocator([pool("a", "192.0.2.0/30 2001:db8::/126")]);
    let mut service = lb("s").dual(FamilyPolicy::PreferDualStack);
    step(&mut allocator, &mut service);
    allocator.set_pools([
        pool("a", "192.0.2.0/30"),
        pool("b", "198.51.100.0/30 2001:db8:1::/126"),
    ]);
    let (decision, _) = step(&mut allocator, &mut service);
    assert_eq!(decision.ingress, ips("198.51.100.0 2001:db8:1::"));
    allocator.set_pools([pool("a", "192.0.2.0/30")]);
    let (decision, _) = step(&mut allocator, &mut service);
    assert_eq!(decision.ingress, ips("192.0.2.0"));
    // The family comes back: the second address does too.
    allocator.set_pools([pool("a", "192.0.2.0/30 2001:db8::/126")]);
    let (decision, _) = step(&mut allocator, &mut service);
    assert_eq!(decision.ingress, ips("192.0.2.0 2001:db8::"));
    assert_eq!(
        decision.notes[0].message,
        "Assigned additional IP \"2001:db8::\""
    );
}

#[test]
fn a_second_address_is_added_when_one_is_freed() {
    let mut allocator = allocator([pool("a", "192.0.2.0/30 2001:db8::/128")]);
    let mut first = lb("first").v6();
    step(&mut allocator, &mut first);
    let mut service = lb("s").dual(FamilyPolicy::PreferDualStack);
    assert_eq!(
        step(&mut allocator, &mut service).0.ingress,
        ips("192.0.2.0")
    );
    assert_eq!(allocator.forget(&first.key), [service.key.clone()]);
    assert_eq!(
        step(&mut allocator, &mut service).0.ingress,
        ips("192.0.2.0 2001:db8::")
    );
}

#[test]
fn an_old_status_does_not_move_a_service() {
    let mut allocator = allocator([pool("a", "192.0.2.0/24")]);
    let mut service = lb("s");
    step(&mut allocator, &mut service);
    for stale in ["", "192.0.2.77", "203.0.113.1"] {
        let echo = lb("s").status(stale);
        let decision = decide(&allocator, &echo, None, &Options::default());
        assert_eq!(decision.ingress, ips("192.0.2.0"));
        assert!(decision.notes.is_empty() && decision.needs_write(&echo));
    }
}

#[test]
fn a_duplicate_from_outside_is_cleared_and_the_holder_keeps_it() {
    let mut allocator = allocator([pool("a", "192.0.2.0/24")]);
    let mut holder = lb("z-holder");
    step(&mut allocator, &mut holder);
    // A deposed leader wrote the same address elsewhere.
    let mut late = lb("a-late").status("192.0.2.0");
    let (decision, _) = step(&mut allocator, &mut late);
    assert_eq!(reasons(&decision), ["ClearAssignment", "IPAllocated"]);
    assert_eq!(decision.ingress, ips("192.0.2.1"));
    assert!(step(&mut allocator, &mut holder).0.notes.is_empty());
}

#[test]
fn an_address_of_another_in_the_status_is_taken_back_and_told() {
    let mut allocator = allocator([pool("a", "192.0.2.0/24")]);
    let (mut first, mut second) = (lb("first"), lb("second"));
    step(&mut allocator, &mut first);
    step(&mut allocator, &mut second);
    // The old leader's write for `second` lands after the new one gave that address to `first`.
    let usurper = lb("second").status("192.0.2.0");
    let decision = decide(&allocator, &usurper, None, &Options::default());
    assert_eq!(decision.ingress, ips("192.0.2.1"));
    assert_eq!(reasons(&decision), ["ClearAssignment"]);
    assert!(
        decision.notes[0].message.contains("default/first"),
        "{:?}",
        decision.notes
    );
}

#[test]
fn a_clearing_that_is_not_written_yet_is_told_once() {
    let mut allocator = allocator([pool("a", "192.0.2.0/32")]);
    step(&mut allocator, &mut lb("holder"));
    let late = lb("late").status("192.0.2.0");
    let decision = decide(&allocator, &late, None, &Options::default());
    assert_eq!(reasons(&decision), ["ClearAssignment", "AllocationFailed"]);
    allocator
        .commit(&late.key, &decision)
        .expect("nothing given");
    let again = decide(&allocator, &late, None, &Options::default());
    assert_eq!(
        again,
        Decision {
            notes: Vec::new(),
            ..decision
        }
    );
}

/// MetalLB's end-to-end case: four Services on two addresses over five restarts.
#[test]
fn restarts_keep_addresses_where_they_are() {
    let pools = || [pool("a", "192.0.2.0/31")];
    let mut allocator = allocator(pools());
    let mut services = ["d", "c", "b", "a"].map(lb);
    for service in &mut services {
        step(&mut allocator, service);
    }
    for _ in 0..5 {
        allocator = super::allocator(pools());
        let known = services.iter().map(|service| (service, None));
        allocator.adopt(known, &Options::default());
        for service in &mut services {
            step(&mut allocator, service);
        }
        let has = |n: usize| services[n].assigned().collect::<Vec<_>>();
        assert_eq!((has(0), has(1)), (ips("192.0.2.0"), ips("192.0.2.1")));
        assert_eq!((has(2), has(3)), (ips(""), ips("")));
    }
}

/// Decisions are events of World: a recording of them replays.
#[test]
fn a_decision_survives_its_text() {
    let mut allocator = allocator([pool("a", "192.0.2.0/32 2001:db8::/64")]);
    let prefer = FamilyPolicy::PreferDualStack;
    let services = [
        lb("one").ports("tcp/80").sharing("k", "app=x"),
        lb("two").dual(prefer),
        lb("three"),
        lb("four").ips("192.0.2.0"),
        lb("five").ips("x").status("192.0.2.0"),
    ];
    for mut service in services {
        let (decision, _) = step(&mut allocator, &mut service);
        let text = serde_json::to_string(&decision).expect("serialisable");
        assert_eq!(
            serde_json::from_str::<Decision>(&text).expect(&text),
            decision
        );
    }
}

/// Found by the comparison with MetalLB's controller.
#[test]
fn a_bad_request_is_told_again_when_the_address_is_lost() {
    let mut allocator = allocator([pool("a", "192.0.2.0/30")]);
    let mut service = lb("s");
    let reasons = |decision: &Decision| -> Vec<&str> {
        let notes = decision.notes.iter();
        notes.map(|note| note.reason.as_str()).collect()
    };
    step(&mut allocator, &mut service);
    service = service.annotation("metallb.io/loadBalancerIPs", "nonsense");
    let (decision, _) = step(&mut allocator, &mut service);
    assert_eq!(reasons(&decision), ["LoadBalancerFailed"]);
    assert_eq!(decision.ingress, ips("192.0.2.0"));
    allocator.set_pools([pool("b", "198.51.100.0/30")]);
    let (decision, _) = step(&mut allocator, &mut service);
    assert_eq!(reasons(&decision), ["ClearAssignment", "AllocationFailed"]);
    assert!(decision.ingress.is_empty());
    let (decision, _) = step(&mut allocator, &mut service);
    assert_eq!(reasons(&decision), [""; 0]);
}
