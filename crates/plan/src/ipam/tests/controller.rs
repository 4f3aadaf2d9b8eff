//! One Service in, its status out: cases after MetalLB's TestControllerMutation (Apache-2.0).

use super::*;

fn pools() -> Vec<Pool> {
    let team = [Selector::label("team", "metallb")];
    vec![
        pool("pool1", "1.2.3.0/31"),
        manual("pool2", "3.4.5.6/32"),
        pool("pool3", "1000::/127"),
        manual("pool4", "2000::1/128"),
        pool("pool5", "1.2.5.0/31 1000:5::/127"),
        pinned("pool6", "7.8.9.0/31", 10, "test-ns1", &[]),
        pinned("pool7", "10.11.12.0/31", 11, "test-ns1", &[]),
        pinned("pool8", "13.14.15.0/31", 9, "", &team),
        pinned("pool9", "16.17.18.0/31", 0, "test-ns2", &[]),
        pinned("pool10", "19.20.21.0/31", 8, "", &team),
        pinned("pool11", "22.23.24.0/31", 8, "test-ns1", &team),
        pinned("pool12", "25.26.27.0/31", 5, "test-ns1", &team),
    ]
}

#[test]
fn mutation() {
    use FamilyPolicy::{PreferDualStack as Prefer, RequireDualStack as Require};
    let s = || lb("test");
    let old = "metallb.universe.tf/";
    // Service, its addresses afterwards, reasons of the events
    let table: Vec<(Service, &str, &[&str])> = vec![
        (s().kind(ServiceType::ClusterIP), "", &[]),
        (s().kind(ServiceType::NodePort).status("1.2.3.0"), "", &[]),
        (s(), "1.2.3.0", &["IPAllocated"]),
        (s().field("1.2.3.1"), "1.2.3.1", &["IPAllocated"]),
        (s().ips("1.2.3.1"), "1.2.3.1", &["IPAllocated"]),
        (
            s().ips("1.2.3.1").field("1.2.3.2"),
            "",
            &["AllocationFailed"],
        ),
        (
            s().ips("1.2.3.1").field("1.2.3.1").status("1.2.3.0"),
            "1.2.3.0",
            &["LoadBalancerFailed"],
        ),
        (
            s().field("please sir may I have an IP"),
            "",
            &["AllocationFailed"],
        ),
        (
            s().ips("please sir may I have an IP"),
            "",
            &["AllocationFailed"],
        ),
        (
            s().ips("1.2.3.0,").status("1.2.3.1"),
            "1.2.3.1",
            &["LoadBalancerFailed"],
        ),
        (s().ips("1.2.3.1").pool("pool2"), "", &["AllocationFailed"]),
        (s().ips("1.2.3.1,1.2.3.2"), "", &["AllocationFailed"]),
        (
            s().ips("1.2.3.1, 1000:: ,1.2.3.2"),
            "",
            &["AllocationFailed"],
        ),
        (
            s().field("1.2.3.4").status("1.2.3.1"),
            "",
            &["AllocationFailed"],
        ),
        (s().pool("pool1"), "1.2.3.0", &["IPAllocated"]),
        (
            s().pool("pool2").status("1.2.3.0"),
            "3.4.5.6",
            &["IPAllocated"],
        ),
        (s().pool("missing"), "", &["AllocationFailed"]),
        (
            s().pool("missing").status("1.2.3.0"),
            "",
            &["AllocationFailed"],
        ),
        (
            s().status("2.3.4.5"),
            "1.2.3.0",
            &["ClearAssignment", "IPAllocated"],
        ),
        (s().field("3.4.5.6"), "3.4.5.6", &["IPAllocated"]),
        (s().field("1.2.3.1").v6(), "", &["AllocationFailed"]),
        (s().ips("1.2.3.1").v6(), "", &["AllocationFailed"]),
        (s().ips("1000::"), "", &["AllocationFailed"]),
        (s().status("1000::"), "1.2.3.0", &["IPAllocated"]),
        (s().v6().status("1.2.3.0"), "1000::", &["IPAllocated"]),
        (s().v6().ips("1000::1"), "1000::1", &["IPAllocated"]),
        (s().v6().ips("2000::1"), "2000::1", &["IPAllocated"]),
        (
            s().status("1.2.3.0 1.2.3.1"),
            "1.2.3.0",
            &["nolbIPsIPFamily", "IPAllocated"],
        ),
        // deprecated keys
        (
            s().annotation(&format!("{old}address-pool"), "pool2"),
            "3.4.5.6",
            &["IPAllocated", "deprecatedAnnotation"],
        ),
        (
            s().annotation(&format!("{old}loadBalancerIPs"), "1.2.3.1")
                .ips(""),
            "1.2.3.0",
            &["IPAllocated", "deprecatedAnnotation"],
        ),
        // both families
        (s().dual(Require), "1.2.5.0 1000:5::", &["IPAllocated"]),
        (s().dual(Prefer), "1.2.5.0 1000:5::", &["IPAllocated"]),
        (
            s().dual(Require).ips("1000:5::1,1.2.5.1"),
            "1000:5::1 1.2.5.1",
            &["IPAllocated"],
        ),
        (
            s().dual(Require)
                .ips("1000:5::1,1.2.5.1")
                .status("1.2.5.1 1000:5::1"),
            "1.2.5.1 1000:5::1",
            &[],
        ),
        (s().dual(Require).ips("1.2.5.1"), "", &["AllocationFailed"]),
        (s().dual(Prefer).ips("1.2.5.1"), "", &["AllocationFailed"]),
        (s().ips("1.2.5.1,1000:5::1"), "", &["AllocationFailed"]),
        (
            s().dual(Require).ips("1.2.3.0,1000::"),
            "",
            &["AllocationFailed"],
        ),
        (s().dual(Require).pool("pool1"), "", &["AllocationFailed"]),
        (
            s().dual(Prefer).pool("pool1"),
            "1.2.3.0",
            &["IPAllocated", "AdditionalAssignFailed"],
        ),
        (
            s().dual(Prefer).pool("pool3"),
            "1000::",
            &["IPAllocated", "AdditionalAssignFailed"],
        ),
        (
            s().dual(Require).status("1.2.3.0"),
            "1.2.5.0 1000:5::",
            &["IPAllocated"],
        ),
        (
            s().dual(Prefer).status("1.2.5.1"),
            "1.2.5.1 1000:5::",
            &["IPAllocated"],
        ),
        (
            s().dual(Prefer).status("1000:5::1"),
            "1000:5::1 1.2.5.0",
            &["IPAllocated"],
        ),
        (
            s().dual(Prefer).status("1.2.3.1"),
            "1.2.3.1",
            &["AdditionalAssignFailed"],
        ),
        (
            s().dual(Prefer).status("1.2.3.1 1000::"),
            "1.2.5.0 1000:5::",
            &["ClearAssignment", "IPAllocated"],
        ),
        (s().status("1.2.5.0 1000:5::"), "1.2.3.0", &["IPAllocated"]),
        // pools meant for some
        (s().namespace("test-ns1"), "7.8.9.0", &["IPAllocated"]),
        (s().namespace("test-ns2"), "16.17.18.0", &["IPAllocated"]),
        (s().label("team", "metallb"), "19.20.21.0", &["IPAllocated"]),
        (s().label("team", "red"), "1.2.3.0", &["IPAllocated"]),
        (
            s().namespace("test-ns1").label("team", "metallb"),
            "25.26.27.0",
            &["IPAllocated"],
        ),
        (
            s().namespace("test-ns1").pool("pool7"),
            "10.11.12.0",
            &["IPAllocated"],
        ),
        (
            s().namespace("test-ns1").pool("pool9"),
            "",
            &["AllocationFailed"],
        ),
        (
            s().namespace("test-ns1").field("16.17.18.1"),
            "",
            &["AllocationFailed"],
        ),
        (
            s().namespace("test-ns1").status("16.17.18.1"),
            "7.8.9.0",
            &["ClearAssignment", "IPAllocated"],
        ),
        (s().namespace("test-ns1").status("1.2.3.1"), "1.2.3.1", &[]),
        (s().namespace("test-ns1").v6(), "1000::", &["IPAllocated"]),
    ];
    for (n, (mut service, want, events)) in table.into_iter().enumerate() {
        let mut allocator = allocator(pools());
        let (decision, _) = step(&mut allocator, &mut service);
        assert_eq!(decision.ingress, ips(want), "case {n}: {decision:#?}");
        assert_eq!(reasons(&decision), events, "case {n}: {decision:#?}");
        let should = if service.kind != ServiceType::LoadBalancer {
            Outcome::Cleared
        } else if want.is_empty() || events == ["LoadBalancerFailed"] {
            Outcome::Failed
        } else {
            Outcome::Settled
        };
        assert_eq!(decision.outcome, should, "case {n}");
        // With all recorded, nothing more is proposed.
        assert!(!decision.needs_write(&service), "case {n}");
        // An edited ipMode is put right.
        if let Some(entry) = service.ingress.first() {
            let mut edited = service.clone();
            edited.ingress[0].proxy = !entry.proxy;
            assert!(decision.needs_write(&edited), "case {n}");
        }
        let before = allocator.clone();
        let (again, helped) = step(&mut allocator, &mut service);
        assert_eq!(
            again,
            Decision {
                notes: Vec::new(),
                ..decision
            },
            "case {n}"
        );
        assert_eq!(helped, [], "case {n}");
        assert_eq!(allocator, before, "case {n}");
    }
}

#[test]
fn families_must_be_known() {
    let mut headless = lb("test").status("1.2.3.0");
    headless.families.clear();
    let mut allocator = allocator(pools());
    let (decision, _) = step(&mut allocator, &mut headless);
    assert_eq!(
        (decision.outcome, decision.ingress.len()),
        (Outcome::Failed, 0)
    );
    assert_eq!(reasons(&decision), ["noclusterIPsIPFamily"]);

    let mut single = lb("test").status("1.2.3.0");
    single.family_policy = FamilyPolicy::RequireDualStack;
    let (decision, _) = step(&mut allocator, &mut single);
    assert_eq!(
        (decision.outcome, decision.ingress.len()),
        (Outcome::Failed, 0)
    );
    assert_eq!(reasons(&decision), ["not enough clusterips"]);
}

#[test]
fn one_cluster_ip_never_gets_two_addresses() {
    // MetalLB flips between one and two here.
    let mut service = lb("test").status("1.2.5.0");
    service.family_policy = FamilyPolicy::PreferDualStack;
    let mut allocator = allocator(pools());
    let (decision, _) = step(&mut allocator, &mut service);
    assert_eq!(
        (decision.ingress.clone(), reasons(&decision)),
        (ips("1.2.5.0"), vec![])
    );
}

#[test]
fn classes() {
    let flag = Options {
        lb_class: Some("corten.dev/x".into()),
    };
    let none = Options::default();
    let mut other = lb("other").status("203.0.113.1");
    other.class = Some("corten.dev/x".into());
    let allocator_ = allocator(pools());
    // Not ours: nothing is touched.
    let decision = decide(&allocator_, &other, None, &none);
    assert_eq!(decision.outcome, Outcome::NotOurs);
    assert!(!decision.needs_write(&other) && decision.notes.is_empty());
    assert_eq!(
        decide(&allocator_, &lb("a"), None, &flag).outcome,
        Outcome::NotOurs
    );
    assert_eq!(
        decide(&allocator_, &other, None, &flag).outcome,
        Outcome::Settled
    );

    // The API server wipes the class with the type: the address is given back all the same.
    let mut allocator = allocator_;
    let decision = decide(&allocator, &other, None, &flag);
    allocator.commit(&other.key, &decision).expect("free");
    write(&mut other, &decision);
    other.class = None;
    other.kind = ServiceType::ClusterIP;
    let decision = decide(&allocator, &other, None, &flag);
    assert_eq!(decision.outcome, Outcome::Cleared);
    assert!(decision.needs_write(&other));
    allocator
        .commit(&other.key, &decision)
        .expect("nothing to refuse");
    assert!(allocator.allocation(&other.key).is_none());
    // After a restart the annotation tells it.
    assert_eq!(
        decide(&allocator, &other, None, &flag).outcome,
        Outcome::Cleared
    );
    write(&mut other, &decision);
    assert_eq!(
        decide(&allocator, &other, None, &flag).outcome,
        Outcome::NotOurs
    );
}

#[test]
fn namespaces_by_label() {
    let mut pool = pinned("a", "192.0.2.0/24", 0, "", &[]);
    if let Some(allocation) = &mut pool.allocation {
        allocation.namespace_selectors = vec![Selector::label("env", "prod")];
    }
    let mut allocator = allocator([pool]);
    let options = Options::default();
    let prod = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
    let test = BTreeMap::new();
    let service = lb("a");
    let failed = decide(&allocator, &service, Some(&test), &options);
    assert_eq!(failed.outcome, Outcome::Failed);
    // A Namespace that is not known yet gives nothing new and takes nothing away.
    assert_eq!(
        decide(&allocator, &service, None, &options).outcome,
        Outcome::Failed
    );
    let decision = decide(&allocator, &service, Some(&prod), &options);
    allocator.commit(&service.key, &decision).expect("free");
    assert_eq!(
        decide(&allocator, &service, None, &options).ingress,
        ips("192.0.2.0")
    );
    let decision = decide(&allocator, &service, Some(&test), &options);
    assert_eq!(reasons(&decision), ["ClearAssignment", "AllocationFailed"]);
}

#[test]
fn the_texts_of_the_events() {
    let mut allocator = allocator([pool("a", "192.0.2.0/32")]);
    let (decision, _) = step(&mut allocator, &mut lb("one"));
    assert_eq!(decision.notes[0].message, "Assigned IP [\"192.0.2.0\"]");
    let (decision, _) = step(&mut allocator, &mut lb("two"));
    assert_eq!(
        decision.notes[0].message,
        "Failed to allocate IP for \"default/two\": no available IPs"
    );
    let (decision, _) = step(&mut allocator, &mut lb("three").status("192.0.2.0"));
    assert_eq!(
        decision.notes[0].message,
        "current IP for \"default/three\" not allowed by config, will attempt for new IP \
         assignment: can't change sharing key for \"default/three\", address also in use by default/one"
    );
    assert_eq!(decision.notes[1].reason.kind(), Kind::Warning);
}
