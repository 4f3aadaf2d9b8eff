//! The kinds of `corten.dev`, by themselves and beside those of `metallb.io`.

use super::*;

fn findings(compiled: &Compiled, name: &str) -> Vec<String> {
    let found = verdict(compiled, name).findings();
    found
        .iter()
        .map(|f| format!("{}: {}", f.field, f.message))
        .collect()
}

#[test]
fn both_dialects_say_the_same() {
    let selector = json!([{"matchLabels": {"rack": "a"}}]);
    let theirs = fresh([
        object(
            "IPAddressPool",
            "p",
            json!({"addresses": ["10.0.0.0/24"], "autoAssign": false,
            "serviceAllocation": {"priority": 2, "namespaces": ["x"]}}),
        ),
        object(
            "L2Advertisement",
            "l2",
            json!({"ipAddressPools": ["p"], "interfaces": ["eth0"],
            "nodeSelectors": selector, "serviceSelectors": selector,
            "preferredNodeSelectors": [{"weight": 7, "preference": selector[0]}]}),
        ),
        object(
            "BGPAdvertisement",
            "bgp",
            json!({"ipAddressPools": ["p"], "peers": ["r"],
            "aggregationLength": 24, "aggregationLengthV6": 64, "localPref": 5,
            "communities": ["1:2"], "nodeSelectors": selector}),
        ),
        object(
            "BGPPeer",
            "r",
            json!({"myASN": 1, "peerASN": 2, "peerAddress": "10.0.0.9",
            "holdTime": "9s", "nodeSelectors": selector, "passwordSecret": {"name": "s"},
            "enableGracefulRestart": true, "ebgpMultiHop": true, "vrf": "red",
            "dualStackAddressFamily": true, "sourceAddress": "10.0.0.8", "localASN": 7}),
        ),
    ]);
    let ours = fresh([
        own(
            "AddressPool",
            "p",
            json!({"addresses": ["10.0.0.0/24"], "autoAssign": false,
            "serviceAllocation": {"priority": 2, "namespaces": ["x"]}}),
        ),
        own(
            "Advertisement",
            "l2",
            json!({"pools": ["p"], "nodeSelectors": selector,
            "serviceSelectors": selector, "layer2": {"interfaces": ["eth0"],
                "preferredNodeSelectors": [{"weight": 7, "preference": selector[0]}]}}),
        ),
        own(
            "Advertisement",
            "bgp",
            json!({"pools": ["p"], "nodeSelectors": selector,
            "bgp": {"peers": ["r"], "aggregationLength": 24, "aggregationLengthV6": 64,
                "localPref": 5, "communities": ["1:2"]}}),
        ),
        own(
            "Peer",
            "r",
            json!({"myASN": 1, "peerASN": 2, "peerAddress": "10.0.0.9",
            "holdTime": "9s", "nodeSelectors": selector, "passwordSecret": {"name": "s"},
            "gracefulRestart": true, "multihop": true, "vrf": "red", "dualStack": true,
            "sourceAddress": "10.0.0.8", "localASN": 7}),
        ),
    ]);
    assert!(
        ours.verdicts.values().all(|v| *v == Verdict::Good),
        "{:?}",
        ours.verdicts
    );
    assert!(theirs.config.bgp.peers.len() == 1 && theirs.config.l2.len() == 1);
    assert_eq!(ours.config, theirs.config);
}

#[test]
fn what_is_said_without_need_is_good() {
    // What is said without need is what holds anyway.
    let plain = fresh([
        own(
            "Advertisement",
            "l2",
            json!({"layer2": {"mac": "Node", "handBack": true}}),
        ),
        own(
            "Advertisement",
            "bgp",
            json!({"bgp": {"med": 0, "weighted": false}}),
        ),
    ]);
    assert!(
        plain.verdicts.values().all(|v| *v == Verdict::Good),
        "{:?}",
        plain.verdicts
    );
}

#[test]
fn addresses_have_mac_addresses_of_their_own() {
    let compiled = fresh([
        own(
            "Advertisement",
            "own",
            json!({"layer2": {"mac": "Virtual"}}),
        ),
        own("Advertisement", "nodes", json!({"layer2": {"mac": "Node"}})),
        own("Advertisement", "plain", json!({"layer2": {}})),
    ]);
    assert!(verdict(&compiled, "own").in_force());
    let own = |name: &str| compiled.config.l2[name].virtual_mac;
    assert_eq!(
        [own("own"), own("nodes"), own("plain")],
        [true, false, false]
    );
}

#[test]
fn addresses_are_handed_back_unless_they_are_to_stay() {
    let compiled = fresh([
        object("L2Advertisement", "theirs", json!({})),
        own("Advertisement", "ours", json!({"layer2": {}})),
        own(
            "Advertisement",
            "stay",
            json!({"layer2": {"handBack": false}}),
        ),
    ]);
    let said = compiled.config.l2.values();
    let said: Vec<(&str, bool)> = said.map(|ad| (&*ad.name, ad.hand_back)).collect();
    assert!(said.contains(&("stay", false)), "{said:?}");
    assert!(said.contains(&("ours", true)), "{said:?}");
    assert!(said.contains(&("theirs", true)), "{said:?}");
}

#[test]
fn addresses_are_put_on_interfaces() {
    let compiled = fresh([
        object("IPAddressPool", "p", json!({"addresses": ["10.0.0.0/24"]})),
        own("Advertisement", "lan", json!({"linux": {"device": "lan"}})),
        own(
            "Advertisement",
            "wide",
            json!({"linux": {"device": "kube-lb0", "aggregationLength": 23}}),
        ),
        own(
            "Advertisement",
            "lb0",
            json!({"linux": {"device": "kube-lb0", "aggregationLength": 24},
                "serviceSelectors": [{"matchLabels": {"a": "b"}}]}),
        ),
    ]);
    assert!(compiled.config.l2["lan"].on_interface);
    let found = findings(&compiled, "wide");
    let wanted = "spec.linux.aggregationLength: invalid aggregation length 23: ";
    assert!(
        found.len() == 1 && found[0].starts_with(wanted),
        "{found:?}"
    );
    let names: Vec<&str> = compiled.config.linux.keys().map(|name| &**name).collect();
    assert_eq!(names, ["lb0"]);
    let ad = &compiled.config.linux["lb0"];
    assert_eq!((ad.length_v4, ad.length_v6), (24, 128));
    assert_eq!(ad.service_selectors.len(), 1);
}

#[test]
fn faults_name_the_kinds_own_fields() {
    let twice = json!(["x", "x"]);
    let peer = |field: &str, value: Value| {
        let mut spec = json!({"myASN": 1, "peerASN": 2, "peerAddress": "10.0.0.1"});
        spec[field] = value;
        spec
    };
    for (kind, spec, want) in [
        (
            "Advertisement",
            json!({"layer2": {}, "pools": twice}),
            "spec.pools[1]: duplicate definition of pools: \"x\"",
        ),
        (
            "Advertisement",
            json!({"layer2": {"interfaces": twice}}),
            "spec.layer2.interfaces[1]: ",
        ),
        (
            "Advertisement",
            json!({"layer2": {"preferredNodeSelectors": [
            {"weight": 0, "preference": {}}]}}),
            "spec.layer2.preferredNodeSelectors[0].weight: ",
        ),
        (
            "Advertisement",
            json!({"bgp": {"aggregationLength": 0}}),
            "spec.bgp.aggregationLength: ",
        ),
        (
            "Advertisement",
            json!({"bgp": {"aggregationLengthV6": 129}}),
            "spec.bgp.aggregationLengthV6: ",
        ),
        (
            "Advertisement",
            json!({"bgp": {"communities": ["9:x"]}}),
            "spec.bgp.communities[0]: ",
        ),
        (
            "Advertisement",
            json!({"bgp": {"peers": ["nobody"]}}),
            "spec.bgp.peers: ",
        ),
        (
            "Advertisement",
            json!({"layer2": {}, "pools": ["none"]}),
            "spec.pools[0]: no IPAddressPool",
        ),
        (
            "Advertisement",
            json!({"linux": {"device": "kube-lb0", "aggregationLength": 33}}),
            "spec.linux.aggregationLength: ",
        ),
        (
            "Advertisement",
            json!({"linux": {"device": "kube-lb0", "aggregationLengthV6": 0}}),
            "spec.linux.aggregationLengthV6: ",
        ),
        (
            "Advertisement",
            json!({"linux": {"device": "lan", "aggregationLength": 24}}),
            "spec.linux.aggregationLength: ",
        ),
        (
            "Advertisement",
            json!({"linux": {}, "pools": ["none"]}),
            "spec.pools[0]: no IPAddressPool",
        ),
        ("Advertisement", json!({}), "spec: exactly one of"),
        (
            "Advertisement",
            json!({"layer2": {}, "bgp": {}}),
            "spec: exactly one of",
        ),
        (
            "Peer",
            json!({"myASN": 1, "peerASN": 1, "peerAddress": "10.0.0.1", "multihop": true}),
            "spec.multihop: ",
        ),
        (
            "Peer",
            json!({"myASN": 1, "peerASN": 2, "peerAddress": "x"}),
            "spec.peerAddress: ",
        ),
        (
            "Advertisement",
            json!({"bgp": {"prepend": 11}}),
            "spec.bgp.prepend: ",
        ),
        (
            "Peer",
            peer("ttlSecurityHops", json!(0)),
            "spec.ttlSecurityHops: ",
        ),
        (
            "Peer",
            peer("ttlSecurityHops", json!(255)),
            "spec.ttlSecurityHops: ",
        ),
        (
            "Peer",
            json!({"myASN": 1, "peerASN": 2, "peerAddress": "::1", "ttlSecurityHops": 1,
                "multihop": true}),
            "spec.ttlSecurityHops: both",
        ),
        ("Peer", peer("strictRole", json!(true)), "spec.strictRole: "),
        (
            "Peer",
            json!({"myASN": 1, "peerASN": 1, "peerAddress": "::1", "role": "Customer"}),
            "spec.role: role specified for a peer of our own AS",
        ),
        (
            "Peer",
            json!({"myASN": 1, "localASN": 2, "peerASN": 2, "peerAddress": "::1",
                "role": "Customer"}),
            "spec.role: role specified for a peer of our own AS",
        ),
        (
            "Peer",
            json!({"myASN": 1, "dynamicASN": "internal", "peerAddress": "::1", "role": "Peer"}),
            "spec.role: role specified for a peer of our own AS",
        ),
        (
            "Peer",
            peer("nextHop", json!({"ipv4": "x"})),
            "spec.nextHop.ipv4: ",
        ),
        (
            "Peer",
            peer("nextHop", json!({"ipv6": "10.0.0.1"})),
            "spec.nextHop.ipv6: ",
        ),
        (
            "Peer",
            peer("listen", json!({"port": 0})),
            "spec.listen.port: invalid port 0",
        ),
        (
            "Peer",
            json!({"myASN": 1, "peerASN": 2, "interface": "eth0", "listen": {"port": 1790}}),
            "spec.listen: both listen and interface",
        ),
        (
            "Peer",
            peer("receive", json!({"prefixes": []})),
            "spec.receive.prefixes: no prefix",
        ),
        (
            "Peer",
            peer("receive", json!({"prefixes": ["10.0.0.0/8", "10.0.0.1"]})),
            "spec.receive.prefixes[1]: invalid prefix",
        ),
        (
            "Peer",
            peer("receive", json!({"prefixes": ["::/0", "::/0"]})),
            "spec.receive.prefixes[1]: duplicate",
        ),
        (
            "Peer",
            peer("receive", json!({"prefixes": ["::/0"], "table": 255})),
            "spec.receive.table: table 255 is the kernel's own",
        ),
        (
            "Peer",
            json!({"myASN": 1, "peerASN": 2, "peerAddress": "::1", "vrf": "red",
                "receive": {"prefixes": ["::/0"]}}),
            "spec.receive.table: no routing table",
        ),
        (
            "Peer",
            json!({"myASN": 1, "peerASN": 2, "peerAddress": "::1", "peerPort": 0}),
            "spec.peerPort: ",
        ),
        (
            "AddressPool",
            json!({"addresses": ["x"]}),
            "spec.addresses[0]: invalid CIDR",
        ),
    ] {
        let compiled = fresh([own(kind, "it", spec)]);
        let found = findings(&compiled, "it");
        assert!(
            found.iter().any(|found| found.starts_with(want)),
            "{want}: {found:?}"
        );
    }
    let high = json!({"myASN": 1, "peerASN": 2, "peerAddress": "::1", "peerPort": 50000});
    assert_eq!(
        fresh([own("Peer", "it", high)]).config.bgp.peers["it"].port,
        50000
    );
}

#[test]
fn a_role_is_taken_as_it_is_said() {
    for (more, want) in [
        (json!({"peerASN": 2}), None),
        (
            json!({"peerASN": 2, "role": "Customer"}),
            Some(("Customer", false)),
        ),
        (
            json!({"dynamicASN": "external", "role": "RouteServerClient", "strictRole": true}),
            Some(("RouteServerClient", true)),
        ),
        // Of our AS, but for the number that stands in its place.
        (
            json!({"peerASN": 1, "localASN": 2, "role": "Peer"}),
            Some(("Peer", false)),
        ),
    ] {
        let mut spec = more.clone();
        spec["myASN"] = json!(1);
        spec["peerAddress"] = json!("::1");
        let compiled = fresh([own("Peer", "it", spec)]);
        let found = compiled.config.bgp.peers["it"].role;
        let found = found.map(|it| (format!("{:?}", it.role), it.strict));
        let want = want.map(|(role, strict)| (role.to_owned(), strict));
        assert_eq!(found, want, "{more}");
    }
}

#[test]
fn routes_are_received_as_the_peer_says() {
    let receive = |policy: Value| {
        let spec = json!({"myASN": 1, "peerASN": 2, "peerAddress": "::1", "receive": policy});
        let compiled = fresh([own("Peer", "it", spec)]);
        let found = compiled.config.bgp.peers["it"].receive.clone();
        found.expect("a policy")
    };
    let plain = receive(json!({"prefixes": ["10.1.2.3/8", "::/0"]}));
    let prefixes: Vec<String> = plain.prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(prefixes, ["10.0.0.0/8", "::/0"]);
    assert_eq!((plain.most, plain.table), (None, 254));
    let whole = receive(json!({"prefixes": ["::/0"], "maxPrefixes": 5, "table": 7}));
    assert_eq!((whole.most, whole.table), (Some(5), 7));
}

#[test]
fn a_range_in_two_dialects_is_told_on_both() {
    for (a, b, stays) in [(10, 20, "theirs"), (20, 10, "ours")] {
        let compiled = fresh([
            created(pool("theirs", &["10.0.0.0/24"]), &a.to_string()),
            created(
                own(
                    "AddressPool",
                    "ours",
                    json!({"addresses": ["10.0.0.128/25"]}),
                ),
                &b.to_string(),
            ),
        ]);
        let leaves = if stays == "ours" { "theirs" } else { "ours" };
        assert!(matches!(verdict(&compiled, stays), Verdict::Warned(_)));
        assert!(!verdict(&compiled, leaves).in_force());
        assert!(findings(&compiled, stays)[0].contains(&format!("{leaves:?}")));
        let said = &findings(&compiled, leaves)[0];
        let kind = if stays == "ours" {
            "AddressPool"
        } else {
            "IPAddressPool"
        };
        assert!(
            said.contains(&format!("of the older {kind} {stays:?}")),
            "{said}"
        );
    }
}

#[test]
fn names_are_one_space_for_both_dialects() {
    let compiled = fresh([
        created(pool("x", &["10.0.0.0/24"]), "10"),
        created(
            own("AddressPool", "x", json!({"addresses": ["10.1.0.0/24"]})),
            "20",
        ),
        created(object("L2Advertisement", "x", json!({})), "10"),
        created(own("Advertisement", "x", json!({"layer2": {}})), "20"),
        created(object("BGPAdvertisement", "x", json!({})), "10"),
    ]);
    let bad: Vec<String> = compiled
        .verdicts
        .iter()
        .filter(|(_, verdict)| !verdict.in_force())
        .map(|(reference, verdict)| format!("{reference} {}", verdict.findings()[0].field))
        .collect();
    assert_eq!(
        bad,
        [
            "AddressPool metallb-system/x metadata.name",
            "Advertisement metallb-system/x metadata.name",
        ]
    );
    assert_eq!(blocks(&compiled, "x"), "10.0.0.0/24");
}

#[test]
fn an_advertisement_that_changes_its_way_keeps_the_old_one_while_it_is_bad() {
    let before = fresh([own(
        "Advertisement",
        "x",
        json!({"layer2": {"interfaces": ["eth0"]}}),
    )]);
    let now = objects([own("Advertisement", "x", json!({"bgp": {"prepend": 11}}))]);
    let after = compile(&now, &before.accepted, NAMESPACE);
    assert!(matches!(
        verdict(&after, "x"),
        Verdict::Bad {
            last_good: true,
            ..
        }
    ));
    assert_eq!(after.config, before.config);
    assert_eq!(after.config.l2.len(), 1);
}

#[test]
fn the_condition_says_it() {
    let now = "2026-01-02T00:00:00Z";
    let good = Verdict::Good.condition(3, None, now);
    assert_eq!(
        (&*good.type_, &*good.status, &*good.reason),
        ("Accepted", "True", "Accepted")
    );
    assert_eq!(
        (
            good.observed_generation,
            good.last_transition_time.as_deref()
        ),
        (3, Some(now))
    );
    let later = "2026-01-03T00:00:00Z";
    let still = Verdict::Good.condition(4, Some(&good), later);
    assert_eq!(
        (
            still.observed_generation,
            still.last_transition_time.as_deref()
        ),
        (4, Some(now))
    );
    let compiled = fresh([own(
        "Advertisement",
        "x",
        json!({"bgp": {"communities": ["later"]}}),
    )]);
    let waits = verdict(&compiled, "x").condition(5, Some(&good), later);
    assert_eq!((&*waits.status, &*waits.reason), ("False", "Incomplete"));
    assert_eq!(waits.last_transition_time.as_deref(), Some(later));
    assert!(
        waits.message.contains("spec.bgp.communities[0]"),
        "{}",
        waits.message
    );
}
