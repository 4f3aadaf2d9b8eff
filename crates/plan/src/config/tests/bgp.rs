//! The BGP kinds against each other. Cases after MetalLB's TestParse, TestValidateFRR and
//! TestCheckBGPAdvConflicts (Apache-2.0), with data of our own, among others.

use super::*;

fn at(object: Object, time: u8) -> Object {
    created(object, &time.to_string())
}

fn peer(name: &str, more: Value) -> Object {
    let mut spec = json!({"myASN": 64500, "peerASN": 64501, "peerAddress": "10.0.0.1"});
    merge(&mut spec, more);
    object("BGPPeer", name, spec)
}

fn merge(spec: &mut Value, more: Value) {
    let (Value::Object(spec), Value::Object(more)) = (spec, more) else {
        panic!("not objects");
    };
    spec.extend(more);
}

fn ad(name: &str, spec: Value) -> Object {
    object("BGPAdvertisement", name, spec)
}

fn rack(rack: &str) -> Value {
    json!([{"matchLabels": {"rack": rack}}])
}

/// Compiles with nodes `name=rack`.
fn with_nodes(list: &Objects, last_good: &Objects, nodes: &[(&str, &str)]) -> Compiled {
    let labels: Vec<(&str, Labels)> = nodes
        .iter()
        .map(|(name, rack)| {
            (
                *name,
                Labels::from([("rack".to_owned(), (*rack).to_owned())]),
            )
        })
        .collect();
    let context = Context {
        nodes: labels
            .iter()
            .map(|(name, labels)| (*name, labels))
            .collect(),
        ..Context::from(NAMESPACE)
    };
    compile(list, last_good, context)
}

const RACKS: &[(&str, &str)] = &[("n1", "a"), ("n2", "b")];

#[test]
fn the_example_is_compiled() {
    let compiled = fresh(examples());
    let bgp = &compiled.config.bgp;
    let peer = &bgp.peers["sample"];
    assert_eq!((peer.my_asn, peer.remote), (64500, RemoteAs::Number(64501)));
    let address = "10.0.0.1".parse().expect("an address");
    assert_eq!(peer.neighbour, Neighbour::Address(address));
    assert_eq!(
        (peer.port, peer.timers, &peer.password),
        (179, None, &Password::None)
    );
    let ad = &bgp.advertisements["bgpadver"];
    let pools: Vec<&str> = ad.pools.iter().map(|name| &**name).collect();
    assert_eq!(pools, ["first-pool", "ip-pool"]);
    assert_eq!((ad.length_v4, ad.length_v6, ad.local_pref), (32, 128, None));
}

#[test]
fn every_field_of_a_peer_arrives() {
    let compiled = fresh([
        object(
            "BFDProfile",
            "fast",
            json!({"receiveInterval": 50, "detectMultiplier": 255,
            "echoMode": true, "passiveMode": true}),
        ),
        object(
            "BGPPeer",
            "p",
            json!({
            "myASN": 1, "dynamicASN": "external", "localASN": 2, "interface": "eth0",
            "sourceAddress": "10.0.0.9", "peerPort": 1179, "keepaliveTime": "1500ms",
            "connectTime": "10s", "routerID": "1.1.1.1", "nodeSelectors": rack("a"),
            "password": "hunter2", "bfdProfile": "fast", "enableGracefulRestart": true,
            "ebgpMultiHop": true, "vrf": "red", "dualStackAddressFamily": true}),
        ),
    ]);
    let peer = &compiled.config.bgp.peers["p"];
    let timers = Timers {
        hold: 4,
        keepalive: 1,
    };
    assert_eq!(
        (peer.remote, peer.timers),
        (RemoteAs::External, Some(timers))
    );
    assert_eq!(peer.neighbour, Neighbour::Interface("eth0".into()));
    assert_eq!(
        (peer.local_asn, peer.connect_seconds, peer.port),
        (Some(2), Some(10), 1179)
    );
    assert_eq!(
        peer.router_id.map(|id| id.to_string()).as_deref(),
        Some("1.1.1.1")
    );
    assert!(peer.graceful_restart && peer.multihop && peer.dual_stack);
    let profile = compiled.config.bgp.profile_of(peer).expect("a profile");
    assert_eq!((profile.receive_ms, profile.transmit_ms), (50, 300));
    assert_eq!(
        (profile.multiplier, profile.echo_ms, profile.minimum_ttl),
        (255, Some(50), 254)
    );
    // The password is to be had, and nowhere to be seen.
    assert_eq!(compiled.password("p"), Some("hunter2"));
    let shown = format!("{:?} {:?}", compiled.config, compiled.accepted);
    let written = serde_json::to_string(&compiled.config).expect("writes");
    assert!(
        !shown.contains("hunter2") && !written.contains("hunter2"),
        "{shown} {written}"
    );
}

/// Two peers, the second one younger: `""`: both are good; else a part of what is said of the
/// second.
#[test]
fn peers_that_share_a_node() {
    let equal = "already exists: the older peer";
    let duplicate = "FRR mode doesn't support duplicate BGPPeers";
    let router_id = "in FRR mode peers selecting the same node must all have the same RouterID";
    let my_asn =
        "in FRR mode peers selecting the same node must have the same myAsn within the same VRF";
    let other = |more: Value| {
        let mut spec = json!({"peerAddress": "10.0.0.2"});
        merge(&mut spec, more);
        spec
    };
    let racks = |a: &str, spec: Value| {
        let mut spec = spec;
        spec["nodeSelectors"] = rack(a);
        spec
    };
    type Nodes = &'static [(&'static str, &'static str)];
    let table: Vec<(Value, Value, Nodes, &str)> = vec![
        (json!({}), other(json!({})), RACKS, ""),
        (json!({}), json!({}), RACKS, equal),
        (json!({}), json!({}), &[], equal),
        (
            json!({"password": "a"}),
            json!({"password": "b"}),
            RACKS,
            equal,
        ),
        (json!({}), json!({"holdTime": "9s"}), RACKS, duplicate),
        (json!({}), json!({"vrf": "red"}), RACKS, ""),
        (json!({}), json!({"peerPort": 1179}), RACKS, duplicate),
        (
            json!({"peerAddress": "2001:db8::1"}),
            json!({"peerAddress": "2001:db8:0::1", "peerASN": 3}),
            RACKS,
            duplicate,
        ),
        (
            json!({"peerAddress": "", "interface": "eth0"}),
            json!({"peerAddress": "", "interface": "eth0", "peerASN": 3}),
            RACKS,
            duplicate,
        ),
        (
            json!({"peerAddress": "", "interface": "eth0"}),
            json!({"peerAddress": "", "interface": "eth1"}),
            RACKS,
            "",
        ),
        (
            json!({"routerID": "1.1.1.1"}),
            other(json!({"routerID": "1.1.1.1"})),
            RACKS,
            "",
        ),
        (
            json!({"routerID": "1.1.1.1"}),
            other(json!({"routerID": "1.1.1.2"})),
            RACKS,
            router_id,
        ),
        (
            json!({"routerID": "1.1.1.1"}),
            other(json!({})),
            RACKS,
            router_id,
        ),
        (json!({}), other(json!({"myASN": 64510})), RACKS, my_asn),
        (
            json!({}),
            other(json!({"myASN": 64510, "vrf": "red"})),
            RACKS,
            "",
        ),
        // On nodes that they do not share.
        (
            racks("a", json!({})),
            racks("b", json!({"holdTime": "9s"})),
            RACKS,
            "",
        ),
        (
            racks("a", json!({})),
            racks("b", json!({"holdTime": "9s"})),
            &[],
            duplicate,
        ),
        (
            racks("a", json!({})),
            racks("b", other(json!({"myASN": 64510}))),
            RACKS,
            "",
        ),
        (
            racks("a", json!({})),
            other(json!({"myASN": 64510})),
            RACKS,
            my_asn,
        ),
        (
            racks("c", json!({})),
            other(json!({"myASN": 64510})),
            RACKS,
            "",
        ),
        (
            racks("a", json!({"routerID": "1.1.1.1"})),
            racks("b", other(json!({}))),
            RACKS,
            "",
        ),
    ];
    for (first, second, nodes, want) in table {
        let text = format!("{first} {second} {nodes:?}");
        for (a, b) in [(10, 20), (20, 10)] {
            let list = objects([
                at(peer("a", first.clone()), a),
                at(peer("b", second.clone()), b),
            ]);
            let compiled = with_nodes(&list, &Objects::new(), nodes);
            let (older, younger) = if a < b { ("a", "b") } else { ("b", "a") };
            assert_eq!(*verdict(&compiled, older), Verdict::Good, "{text}");
            let got = verdict(&compiled, younger);
            if want.is_empty() {
                assert_eq!(*got, Verdict::Good, "{text}");
                continue;
            }
            assert!(!got.in_force() && !got.transient(), "{text}: {got:?}");
            let finding = &got.findings()[0];
            assert!(finding.message.contains(want), "{text}: {finding}");
            assert!(finding.message.contains(older), "{text}: {finding}");
            assert_eq!(compiled.config.bgp.peers.len(), 1, "{text}");
        }
    }
    // The native mode of MetalLB speaks for each peer by itself.
    let list = objects([
        peer("a", json!({"routerID": "1.1.1.1"})),
        peer("b", other(json!({"myASN": 64510}))),
    ]);
    let context = Context {
        native_bgp: true,
        ..Context::from(NAMESPACE)
    };
    let compiled = compile(&list, &Objects::new(), context);
    assert_eq!(compiled.config.bgp.peers.len(), 2);
}

/// An advertisement with one pool. `""`: good.
#[test]
fn aggregation_lengths_and_pools() {
    for (addresses, spec, want) in [
        (
            vec!["10.0.0.0/28"],
            json!({"aggregationLength": 26}),
            "invalid aggregation length 26: prefix 28 in this pool is more specific than the \
             aggregation length for addresses 10.0.0.0/28",
        ),
        (vec!["10.0.0.0/24"], json!({"aggregationLength": 24}), ""),
        (
            vec!["10.0.0.0/24", "10.0.1.0/25"],
            json!({"aggregationLength": 24}),
            "10.0.1.0/25",
        ),
        // A range counts as its widest block.
        (
            vec!["10.0.0.1-10.0.0.255"],
            json!({"aggregationLength": 26}),
            "",
        ),
        (
            vec!["10.0.0.1-10.0.0.255"],
            json!({"aggregationLength": 25}),
            "",
        ),
        (
            vec!["10.0.0.1-10.0.0.255"],
            json!({"aggregationLength": 24}),
            "prefix 25",
        ),
        (vec!["2001:db8::/64"], json!({"aggregationLength": 8}), ""),
        (
            vec!["2001:db8::/64"],
            json!({"aggregationLengthV6": 63}),
            "prefix 64",
        ),
        (
            vec!["2001:db8::/64", "10.0.0.0/24"],
            json!({"aggregationLength": 24, "aggregationLengthV6": 64}),
            "",
        ),
    ] {
        let text = format!("{addresses:?} {spec}");
        let compiled = fresh([pool("p", &addresses), ad("ad", spec)]);
        let got = verdict(&compiled, "ad");
        match got.findings() {
            [] => assert_eq!(want, "", "{text}"),
            [finding] => {
                assert!(
                    !want.is_empty() && finding.message.contains(want),
                    "{text}: {finding}"
                );
                assert!(
                    finding.field.starts_with("spec.aggregationLength"),
                    "{finding}"
                );
                assert!(compiled.config.bgp.advertisements.is_empty());
            }
            more => panic!("{text}: {more:?}"),
        }
    }
}

/// Two advertisements with different local preferences, the second one younger: do they conflict?
#[test]
fn local_preferences() {
    let v4: &[&str] = &["10.0.0.0/24"];
    let v6: &[&str] = &["2001:db8::/64"];
    let both: &[&str] = &["10.0.0.0/24", "2001:db8::/64"];
    let (len4, len6) = (
        json!({"aggregationLength": 24}),
        json!({"aggregationLengthV6": 64}),
    );
    let lens = json!({"aggregationLength": 24, "aggregationLengthV6": 64});
    let service = json!([{"matchLabels": {"app": "x"}}]);
    type Nodes = &'static [(&'static str, &'static str)];
    let table: Vec<(&[&str], Value, Value, Nodes, bool)> = vec![
        (v4, json!({}), json!({}), RACKS, true),
        (v4, json!({"localPref": 0}), json!({}), RACKS, true),
        (v4, json!({"localPref": 200}), json!({}), RACKS, false),
        (v4, json!({}), json!({}), &[], true),
        (
            v4,
            json!({"peers": ["a"]}),
            json!({"peers": ["b"]}),
            RACKS,
            false,
        ),
        (
            v4,
            json!({"peers": ["a", "b"]}),
            json!({"peers": ["b"]}),
            RACKS,
            true,
        ),
        (v4, json!({"peers": ["a"]}), json!({}), RACKS, true),
        (
            v4,
            json!({"nodeSelectors": rack("a")}),
            json!({"nodeSelectors": rack("b")}),
            RACKS,
            false,
        ),
        (
            v4,
            json!({"nodeSelectors": rack("a")}),
            json!({"nodeSelectors": rack("a")}),
            RACKS,
            true,
        ),
        (
            v4,
            json!({"nodeSelectors": rack("a")}),
            json!({}),
            RACKS,
            true,
        ),
        (
            v4,
            json!({"nodeSelectors": rack("none")}),
            json!({}),
            RACKS,
            false,
        ),
        (v4, len4.clone(), json!({}), RACKS, false),
        (v4, len6.clone(), json!({}), RACKS, true),
        (v6, len4.clone(), json!({}), RACKS, true),
        (v6, len6.clone(), json!({}), RACKS, false),
        (both, len4, json!({}), RACKS, true),
        (both, len6, json!({}), RACKS, true),
        (both, lens, json!({}), RACKS, false),
        (
            v4,
            json!({"serviceSelectors": service}),
            json!({}),
            RACKS,
            false,
        ),
        (
            v4,
            json!({}),
            json!({"ipAddressPools": ["other"]}),
            RACKS,
            false,
        ),
    ];
    for (addresses, first, second, nodes, conflict) in table {
        let text = format!("{addresses:?} {first} {second} {nodes:?}");
        let with = |spec: &Value, preference: u32| {
            let mut all = json!({"localPref": preference});
            merge(&mut all, spec.clone());
            all
        };
        // Under names whose order is not their age's.
        let list = objects([
            pool("p", addresses),
            pool("other", &["172.16.0.0/24"]),
            at(
                ad(
                    "z",
                    with(&merged(&first, json!({"ipAddressPools": ["p"]})), 100),
                ),
                10,
            ),
            at(
                ad(
                    "a",
                    with(&merged(&json!({"ipAddressPools": ["p"]}), second), 200),
                ),
                20,
            ),
        ]);
        let compiled = with_nodes(&list, &Objects::new(), nodes);
        assert!(verdict(&compiled, "z").in_force(), "{text}");
        let got = verdict(&compiled, "a");
        assert_eq!(got.in_force(), !conflict, "{text}: {got:?}");
        if conflict {
            let message = &got.findings()[0].message;
            assert!(
                message.contains("was already set for the same type of BGP update"),
                "{text}"
            );
        }
    }
}

fn merged(a: &Value, b: Value) -> Value {
    let mut all = a.clone();
    merge(&mut all, b);
    all
}

#[test]
fn equal_advertisements_are_told_of() {
    let compiled = fresh([
        pool("p", &["10.0.0.0/24"]),
        at(ad("a", json!({"communities": ["1:2"]})), 10),
        at(
            ad(
                "b",
                json!({"communities": ["1:2"], "ipAddressPools": ["p"]}),
            ),
            20,
        ),
        at(ad("c", json!({"communities": ["1:3"]})), 30),
    ]);
    let warned: Vec<bool> = ["a", "b", "c"]
        .map(|name| matches!(verdict(&compiled, name), Verdict::Warned(_)))
        .into();
    assert_eq!(warned, [false, true, false]);
    assert_eq!(compiled.config.bgp.advertisements.len(), 3);
}

#[test]
fn an_alias_may_come_later_and_is_one_objects_own() {
    let community = |name: &str, alias: &str, value: &str| {
        object(
            "Community",
            name,
            json!({"communities": [{"name": alias, "value": value}]}),
        )
    };
    let wants = || ad("ad", json!({"communities": ["blue", "1:1"]}));
    let missing = fresh([wants()]);
    let got = verdict(&missing, "ad");
    assert!(!got.in_force() && got.transient(), "{got:?}");
    assert!(missing.config.bgp.advertisements.is_empty());

    let healed = fresh([
        wants(),
        at(community("old", "blue", "7:7"), 10),
        at(community("new", "blue", "8:8"), 20),
    ]);
    assert_eq!(*verdict(&healed, "ad"), Verdict::Good);
    let finding = &verdict(&healed, "new").findings()[0];
    assert!(
        finding
            .message
            .contains("duplicate definition of community \"blue\""),
        "{finding}"
    );
    let values: Vec<String> = healed.config.bgp.advertisements["ad"]
        .communities
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(values, ["1:1", "7:7"]);

    // Gone again: a route without the community that bounds it would say too much.
    let gone = compile(&objects([wants()]), &healed.accepted, NAMESPACE);
    assert!(gone.config.bgp.advertisements.is_empty());
    // An alias in error and one missing are not transient.
    let both = fresh([ad(
        "ad",
        json!({"communities": ["blue"], "localPref": 5,
        "peers": ["x", "x"]}),
    )]);
    assert!(!verdict(&both, "ad").transient());
}

#[test]
fn a_profile_may_come_later_and_stays_while_it_is_used() {
    let wants = || peer("p", json!({"bfdProfile": "fast"}));
    let profile = || object("BFDProfile", "fast", json!({}));
    let missing = fresh([wants()]);
    assert!(verdict(&missing, "p").transient());
    assert!(missing.config.bgp.peers.is_empty());
    let there = fresh([wants(), profile()]);
    assert_eq!(*verdict(&there, "p"), Verdict::Good);
    // Gone again: the session goes on without.
    let gone = compile(&objects([wants()]), &there.accepted, NAMESPACE);
    assert!(!verdict(&gone, "p").in_force());
    assert_eq!(gone.config.bgp.peers["p"].bfd_profile, None);

    let list = objects([wants(), profile()]);
    assert_eq!(
        deletion_denied(&list, &profile().reference()).as_deref(),
        Some("failed to delete BFDProfile fast, used by BGPPeer p")
    );
    assert_eq!(
        deletion_denied(&objects([profile()]), &profile().reference()),
        None
    );
}

#[test]
fn no_echo_with_ipv6() {
    let all = |peer_time: u8, ad_time: u8, addresses: &[&str], peers: Value, echo: bool| {
        fresh([
            pool("p", addresses),
            object("BFDProfile", "echo", json!({"echoMode": echo})),
            at(peer("r", json!({"bfdProfile": "echo"})), peer_time),
            at(ad("ad", json!({"peers": peers})), ad_time),
        ])
    };
    let v6 = &["10.0.0.0/24", "2001:db8::/64"][..];
    for (peer_time, ad_time, loser) in [(10, 20, "ad"), (20, 10, "r")] {
        let compiled = all(peer_time, ad_time, v6, json!([]), true);
        for name in ["ad", "r"] {
            assert_eq!(verdict(&compiled, name).in_force(), name != loser, "{name}");
        }
        let message = &verdict(&compiled, loser).findings()[0].message;
        assert!(
            message.contains("references peer r which has bfd echo enabled"),
            "{message}"
        );
    }
    for (addresses, peers, echo) in [
        (&["10.0.0.0/24"][..], json!([]), true),
        (v6, json!(["other"]), true),
        (v6, json!(["r"]), false),
    ] {
        let compiled = all(10, 20, addresses, peers, echo);
        assert!(verdict(&compiled, "ad").in_force() && verdict(&compiled, "r").in_force());
    }
}

#[test]
fn an_advertisement_in_force_loses_only_what_conflicts() {
    let wants = || at(ad("ad", json!({"aggregationLength": 24})), 10);
    let before = fresh([
        pool("p", &["10.0.0.0/24"]),
        pool("q", &["10.0.1.0/24"]),
        wants(),
    ]);
    let narrow = objects([
        pool("p", &["10.0.0.0/28"]),
        pool("q", &["10.0.1.0/24"]),
        wants(),
    ]);
    let after = compile(&narrow, &before.accepted, NAMESPACE);
    assert!(matches!(
        verdict(&after, "ad"),
        Verdict::Bad {
            last_good: true,
            ..
        }
    ));
    let pools: Vec<&str> = after.config.bgp.advertisements["ad"]
        .pools
        .iter()
        .map(|name| &**name)
        .collect();
    assert_eq!(pools, ["q"]);
    // One that never was in force does not come into force by halves.
    let fresh = compile(&narrow, &Objects::new(), NAMESPACE);
    assert!(fresh.config.bgp.advertisements.is_empty());
}

#[test]
fn ranges_of_the_cluster_are_warned_of() {
    let list = objects([pool(
        "p",
        &["192.0.2.0/25", "10.96.0.0/24", "10.0.0.1-10.0.0.20"],
    )]);
    let range = |net: &str, purpose, owner| KnownRange {
        net: net.parse().expect("a range"),
        purpose,
        owner,
    };
    let context = Context {
        ranges: vec![
            range("10.0.0.9/32", Purpose::Node, "n1"),
            range("10.0.0.7/32", Purpose::Node, "n2"),
            range("10.0.0.30/32", Purpose::Node, "n3"),
            range("10.96.0.0/12", Purpose::Service, "kubernetes"),
            range("192.0.0.0/16", Purpose::Pod, "n1"),
        ],
        ..Context::from(NAMESPACE)
    };
    let compiled = compile(&list, &Objects::new(), context);
    let Verdict::Warned(found) = verdict(&compiled, "p") else {
        panic!("{:?}", compiled.verdicts)
    };
    let found: Vec<String> = found
        .iter()
        .map(|f| format!("{}: {}", f.field, f.message))
        .collect();
    assert_eq!(
        found,
        [
            "spec.addresses[0]: overlaps with the Pod range 192.0.0.0/16 of Node \"n1\"",
            "spec.addresses[1]: overlaps with the Service range 10.96.0.0/12 of ServiceCIDR \
         \"kubernetes\"",
            "spec.addresses[2]: overlaps with the address 10.0.0.9 of Node \"n1\" and 1 more",
        ]
    );
    assert!(!compiled.config.pools["p"].frozen);
}
