//! Parameters of sessions.

use super::*;
use crate::config::{Neighbour, Password, RemoteAs, Timers};

fn session(told: &Told, node: &str, peer: &str) -> PeerSession {
    bgp(told, node).peers[peer].session.clone()
}

#[test]
fn what_is_left_out_is_frrs() {
    let told = common();
    let session = session(&told, "a", "r");
    assert_eq!(
        session,
        PeerSession {
            neighbour: Neighbour::Address(ip("10.9.0.1")),
            port: 179,
            source: None,
            vrf: None,
            asn: 64500,
            remote: RemoteAs::Number(64501),
            // CRC-32 of "a": the node has no IPv4 address.
            router_id: std::net::Ipv4Addr::from(0xe8b7_be43),
            timers: TIMERS,
            connect_seconds: 120,
            password: Password::None,
            bfd: None,
            graceful_restart: false,
            multihop: false,
            ttl: 1,
            minimum_ttl: None,
            families: Families {
                ipv4: true,
                ipv6: false
            },
            next_hop: config::NextHops::default(),
            listen: None,
            add_path: false,
            role: None,
            receive: None,
        }
    );
    assert!(!session.internal());
}

#[test]
fn every_field_arrives() {
    let mut told = common();
    told.tell(Event::Node {
        name: "a".into(),
        form: Some(Node {
            addresses: vec![ip("2001:db8:1::1"), ip("192.0.2.7")],
            ..Node::default()
        }),
    });
    assert_eq!(session(&told, "a", "r").router_id.to_string(), "192.0.2.7");
    told.configure("BFDProfile", "fast", json!({"receiveInterval": 50}));
    let mut told = Told::new(settings(), &["10.0.0.0/16"], "a");
    told.configure("BFDProfile", "fast", json!({"receiveInterval": 50}));
    told.configure(
        "BGPPeer",
        "p",
        json!({"myASN": 1, "dynamicASN": "external", "localASN": 2, "interface": "eth0",
            "sourceAddress": "10.0.0.9", "peerPort": 1179, "holdTime": "9s",
            "connectTime": "10s", "routerID": "1.1.1.1", "password": "hunter2",
            "bfdProfile": "fast", "enableGracefulRestart": true, "ebgpMultiHop": true,
            "vrf": "red", "dualStackAddressFamily": true}),
    );
    let session = session(&told, "a", "p");
    let Password::Inline { digest } = &session.password else {
        panic!("{:?}", session.password);
    };
    assert!(!digest.is_empty() && !format!("{session:?}").contains("hunter2"));
    assert_eq!(session.bfd.as_ref().map(|bfd| bfd.receive_ms), Some(50));
    assert_eq!(
        PeerSession {
            password: Password::None,
            bfd: None,
            ..session
        },
        PeerSession {
            neighbour: Neighbour::Interface("eth0".into()),
            port: 1179,
            source: Some(ip("10.0.0.9")),
            vrf: Some("red".into()),
            asn: 2,
            remote: RemoteAs::External,
            router_id: std::net::Ipv4Addr::new(1, 1, 1, 1),
            timers: Timers {
                hold: 9,
                keepalive: 3
            },
            connect_seconds: 10,
            password: Password::None,
            bfd: None,
            graceful_restart: true,
            multihop: true,
            ttl: 255,
            minimum_ttl: None,
            families: Families {
                ipv4: true,
                ipv6: true
            },
            next_hop: config::NextHops::default(),
            listen: None,
            add_path: false,
            role: None,
            receive: None,
        }
    );
}

#[test]
fn hops() {
    let table = [
        (json!({"peerASN": 64501}), false, 1, None),
        (json!({"peerASN": 64500}), true, 255, None),
        (json!({"dynamicASN": "internal"}), true, 255, None),
        (json!({"dynamicASN": "external"}), false, 1, None),
        (
            json!({"peerASN": 64501, "multihop": true}),
            false,
            255,
            None,
        ),
        (json!({"peerASN": 2, "localASN": 2}), true, 255, None),
        (json!({"peerASN": 64500, "localASN": 2}), false, 1, None),
        (
            json!({"peerASN": 2, "ttlSecurityHops": 1}),
            false,
            255,
            Some(255),
        ),
        (
            json!({"peerASN": 2, "ttlSecurityHops": 3}),
            false,
            255,
            Some(253),
        ),
    ];
    for (spec, internal, ttl, minimum) in table {
        let mut told = Told::new(settings(), &["10.0.0.0/16"], "a");
        let mut full = spec.clone();
        full["myASN"] = json!(64500);
        full["peerAddress"] = json!("10.9.0.1");
        told.tell(configured(own("Peer", "p", full)));
        let session = session(&told, "a", "p");
        let found = (session.internal(), session.ttl, session.minimum_ttl);
        assert_eq!(found, (internal, ttl, minimum), "{spec}");
    }
}

/// A changed peer resets only its own session, and only when the change needs it.
#[test]
fn what_needs_a_reset() {
    use SessionChange::{Live, Nothing, Reopen, Replace};
    let table = [
        (json!({}), Nothing),
        (json!({"connectTime": "7s"}), Live),
        (json!({"bfdProfile": "fast"}), Live),
        (json!({"nextHop": {"ipv4": "10.0.0.7"}}), Live),
        // The hold time is FRR's still: only what we send changes.
        (json!({"holdTime": "180s", "keepaliveTime": "7s"}), Live),
        (json!({"multihop": true}), Live),
        (json!({"ttlSecurityHops": 1}), Live),
        (json!({"passwordSecret": {"name": "s"}}), Reopen),
        (json!({"holdTime": "30s"}), Reopen),
        (json!({"routerID": "1.1.1.1"}), Reopen),
        (json!({"gracefulRestart": true}), Reopen),
        (json!({"dualStack": true}), Reopen),
        (json!({"role": "Customer"}), Reopen),
        (json!({"role": "Peer", "strictRole": true}), Reopen),
        (json!({"peerASN": 3}), Replace),
        (json!({"localASN": 3}), Replace),
        (json!({"sourceAddress": "10.0.0.1"}), Replace),
        (json!({"peerAddress": "10.9.0.3"}), Replace),
        (json!({"peerPort": 1790}), Replace),
        (json!({"vrf": "red"}), Replace),
        // The same neighbour by another choice of nodes.
        (
            json!({"nodeSelectors": [{"matchLabels": {"x": "y"}}]}),
            Nothing,
        ),
    ];
    for (more, want) in table {
        let mut told = Told::new(settings(), &["10.0.0.0/16"], "a");
        told.node("a", "x=y");
        told.configure("BFDProfile", "fast", json!({}));
        told.tell(Event::Secret {
            namespace: NAMESPACE.into(),
            name: "s".into(),
            form: Some(config::SecretFacts {
                basic_auth: true,
                password: Some(config::Hidden::from(&b"x"[..])),
            }),
        });
        let plain = json!({"myASN": 1, "peerASN": 2, "peerAddress": "10.9.0.1"});
        told.tell(configured(own("Peer", "p", plain.clone())));
        told.tell(configured(own(
            "Peer",
            "q",
            json!({"myASN": 1, "peerASN": 2, "peerAddress": "10.9.0.2", "vrf": "blue"}),
        )));
        let mut kept = bgp(&told, "a");
        let before = session(&told, "a", "p");
        let mut changed = plain;
        for (field, value) in more.as_object().expect("fields") {
            changed[field] = value.clone();
        }
        if changed.get("routerID").is_some() {
            // All peers of a node have the same.
            let mut other = json!({"myASN": 1, "peerASN": 2, "peerAddress": "10.9.0.2",
                "vrf": "blue"});
            other["nodeSelectors"] = json!([{"matchLabels": {"x": "z"}}]);
            let dirty = told.tell(configured(own("Peer", "q", other)));
            kept.replan(&told.world, "a", &dirty);
        }
        let dirty = told.tell(configured(own("Peer", "p", changed)));
        let after = session(&told, "a", "p");
        assert_eq!(before.change_to(&after), want, "{more}");
        let changes = kept.replan(&told.world, "a", &dirty);
        let of_p = |change: &Change| matches!(change, Change::Session { peer, session: Some(_) } if &**peer == "p");
        assert!(changes.iter().all(of_p), "{more}: {changes:?}");
        assert_eq!(changes.is_empty(), want == Nothing, "{more}");
    }
}

/// The password of a Secret: its peer has it, its digest stands in the plan, and nothing shows it.
#[test]
fn the_password_of_a_secret() {
    let mut told = Told::new(settings(), &["10.0.0.0/16"], "a");
    let secret = |password: Option<&str>| Event::Secret {
        namespace: NAMESPACE.into(),
        name: "s".into(),
        form: password.map(|password| config::SecretFacts {
            basic_auth: true,
            password: Some(config::Hidden::from(password.as_bytes())),
        }),
    };
    let event = secret(Some("hunter2"));
    assert!(!format!("{event:?}").contains("hunter2"));
    told.tell(event);
    let peer = |address: &str, more| {
        let mut spec = json!({"myASN": 1, "peerASN": 2, "peerAddress": address});
        if more {
            spec["passwordSecret"] = json!({"name": "s"});
        }
        spec
    };
    told.configure("BGPPeer", "p", peer("10.9.0.1", true));
    told.configure("BGPPeer", "q", peer("10.9.0.2", false));
    let password = |told: &Told, peer: &str| {
        let password = told.world.password(peer)?;
        Some(String::from_utf8_lossy(password.reveal()).into_owned())
    };
    assert_eq!(password(&told, "p").as_deref(), Some("hunter2"));
    assert_eq!(password(&told, "q"), None);
    let mut kept = bgp(&told, "a");
    let shown = format!("{kept:?}");
    assert!(!shown.contains("hunter2") && !format!("{:?}", told.world).contains("hunter2"));

    // Another one: told of that session alone. A Secret that goes: that too, without a reset.
    let mut steps = vec![session(&told, "a", "p")];
    for content in [Some("another"), None, Some("another")] {
        let dirty = told.tell(secret(content));
        let changes = kept.replan(&told.world, "a", &dirty);
        let [
            Change::Session {
                peer,
                session: Some(session),
            },
        ] = &*changes
        else {
            panic!("{content:?}: {changes:?}");
        };
        assert_eq!(&**peer, "p");
        assert_eq!(password(&told, "p").as_deref(), content);
        steps.push((**session).clone());
    }
    let has = |session: &PeerSession| {
        matches!(
            session.password,
            Password::Secret {
                digest: Some(_),
                ..
            }
        )
    };
    assert_eq!(
        steps.iter().map(has).collect::<Vec<_>>(),
        [true, true, false, true]
    );
    assert!(steps[0] != steps[1] && steps[1] == steps[3]);
    assert_eq!(steps[1].change_to(&steps[2]), SessionChange::Live);
    assert!(told.tell(secret(Some("another"))).is_empty(), "nothing new");
}

/// The router has one place for a node's address: a speaker of MetalLB on it has that.
#[test]
fn a_speaker_of_metallb_on_the_node_has_the_sessions() {
    let mut told = common();
    told.served(balancer("s", "10.0.0.1"));
    let mut kept = ["a", "b"].map(|node| bgp(&told, node));
    let rival = |told: &mut Told, node: Option<&str>| {
        told.tell(Event::Rival {
            pod: ServiceKey::new(NAMESPACE, "speaker-x"),
            form: node.map(|node| Rival {
                part: Part::Speaker,
                node: node.into(),
                workload: "daemonset/speaker".into(),
            }),
        })
    };
    for (on, there) in [
        (Some("a"), [0, 1]),
        (Some("b"), [1, 0]),
        (Some("elsewhere"), [1, 1]),
        (Some("a"), [0, 1]),
        (None, [1, 1]),
    ] {
        let dirty = rival(&mut told, on);
        for (node, kept) in ["a", "b"].iter().zip(&mut kept) {
            kept.replan(&told.world, node, &dirty);
            assert_eq!(*kept, bgp(&told, node), "{on:?}");
        }
        let routes = ["a", "b"].map(|node| routes(&told, node).len());
        assert_eq!(routes, there, "{on:?}");
        assert_eq!(kept.clone().map(|kept| kept.peers.len()), there, "{on:?}");
    }
}
