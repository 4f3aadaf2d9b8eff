//! A hub gets the next hops of all nodes.

use super::*;

/// Nodes a, b and c with an address each; the hub's session is on a, r's on all.
fn hub(policy: fn(Service) -> Service) -> Told {
    let mut told = Told::new(settings(), &["10.0.0.0/16"], "a b c");
    peer(&mut told, "r", "10.9.0.1", json!({}));
    let spec = json!({"myASN": 64500, "peerASN": 64500, "peerAddress": "127.0.0.1",
        "addPath": true, "nodeSelectors": [{"matchLabels": {"hub": "yes"}}]});
    told.tell(configured(own("Peer", "hub", spec)));
    advertise(&mut told, "all", json!({"communities": ["1:1"]}));
    for (name, last, label) in [("a", 1, "hub=yes"), ("b", 2, ""), ("c", 3, "")] {
        told.tell(node(name, last, label));
    }
    told.service(policy(balancer("s", "10.0.0.1")));
    told.slice("s", slice("s", "10.1.0.1@a 10.1.0.2@b"));
    told
}

fn node(name: &str, last: u8, label: &str) -> Event {
    Event::Node {
        name: name.into(),
        form: Some(Node {
            labels: labels(label),
            addresses: vec![[192, 0, 2, last].into()],
            ..Node::default()
        }),
    }
}

/// The last octets of the next hops that the hub gets.
fn hops(found: &Bgp) -> Vec<u8> {
    let routes = &found.peers["hub"].routes;
    let hops = routes.values().flat_map(|it| it.hops.keys());
    hops.map(|hop| match hop {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    })
    .collect()
}

#[test]
fn every_node_that_would_advertise_is_a_next_hop() {
    let told = hub(|service| service);
    let found = bgp(&told, "a");
    assert_eq!(hops(&found), [1, 2, 3]);
    // Others hear of this node alone, by the session's own next hop.
    let plain = &found.peers["r"].routes;
    assert!(plain.values().all(|it| it.hops.is_empty()), "{plain:?}");
    assert!(!bgp(&told, "b").peers.contains_key("hub"));
    assert_eq!(hops(&bgp(&hub(local), "a")), [1, 2]);
}

#[test]
fn what_befalls_another_node_is_planned_anew() {
    let mut told = hub(local);
    let mut found = bgp(&told, "a");
    let member = |alive| Event::Member {
        node: "b".into(),
        alive,
    };
    let state = |draining, version| Event::State {
        node: "b".into(),
        form: Some(NodeState {
            draining,
            ..state(version, "eth0:")
        }),
    };
    let excluded = |name: &str| node("b", 2, name);
    for (what, event, want) in [
        ("dead", member(Some(false)), vec![1]),
        ("back", member(Some(true)), vec![1, 2]),
        ("drains", state(true, 90), vec![1]),
        ("does so no more", state(false, 91), vec![1, 2]),
        ("another address", node("b", 7, ""), vec![1, 7]),
        ("excluded", excluded(&format!("{EXCLUDE_LABEL}=")), vec![1]),
        ("back", node("b", 2, ""), vec![1, 2]),
    ] {
        let dirty = told.tell(event);
        let changes = found.replan(&told.world, "a", &dirty);
        assert_eq!(hops(&found), want, "{what}");
        assert_eq!(found, bgp(&told, "a"), "{what}");
        assert!(!changes.is_empty(), "{what}");
    }
    // Endpoints move.
    let dirty = told.slice("s", slice("s", "10.1.0.3@c"));
    found.replan(&told.world, "a", &dirty);
    assert_eq!(hops(&found), [3]);
    // Nobody is left.
    let dirty = told.slice("s", slice("s", ""));
    found.replan(&told.world, "a", &dirty);
    assert_eq!(found.peers["hub"].routes.len(), 0);
}
