//! Weights by ready endpoints, all nodes or none.

use super::super::weight::quantised;
use super::*;

fn weighted(told: &mut Told, name: &str, mut spec: Value) -> Dirty {
    spec["bgp"]["weighted"] = json!(true);
    told.tell(configured(own("Advertisement", name, spec)))
}

#[test]
fn numbers_are_rounded_to_four_bits() {
    for (weight, want) in [
        (0, 0),
        (1, 1),
        (15, 15),
        (16, 16),
        (17, 18),
        (19, 20),
        (20, 20),
        (31, 32),
        (33, 32),
        (34, 36),
        (100, 104),
        (1000, 1024),
    ] {
        assert_eq!(quantised(weight), want, "{weight}");
    }
    for weight in 1..5000_usize {
        let off = quantised(weight).abs_diff(weight);
        assert!(off * 16 <= weight, "{weight}");
        assert!(quantised(weight) <= quantised(weight + 1), "{weight}");
    }
    let most = Bandwidth::of(usize::MAX, api::corten::v1alpha1::LinkBandwidth::Transitive);
    assert_eq!(most.bytes_per_second, u32::MAX);
}

#[test]
fn a_node_weighs_what_it_serves() {
    let mut told = bare();
    weighted(&mut told, "w", json!({}));
    told.service(local(balancer("s", "10.0.0.1")));
    // Endpoints, weight on a, weight on b.
    for (endpoints, a, b) in [
        ("10.1.0.1@a", "=1", ""),
        ("10.1.0.1@a 10.1.0.2@a 10.1.0.3@a 10.1.0.4@b", "=3", "=1"),
        // One that is not ready, or on its way out, gets no share of its own.
        ("10.1.0.1@a !10.1.0.2@a ~10.1.0.3@a 10.1.0.4@b", "=1", "=1"),
        // All of a's are on their way out: it still serves, and every node has a weight.
        ("~10.1.0.1@a ~10.1.0.2@a 10.1.0.3@b 10.1.0.4@b", "=1", "=2"),
    ] {
        told.slice("s", slice("s", endpoints));
        for (node, weight) in [("a", a), ("b", b)] {
            let want: Vec<String> = match weight {
                "" => vec![],
                weight => vec![format!("r 10.0.0.1/32 Transitive{weight}")],
            };
            assert_eq!(routes(&told, node), want, "{endpoints}");
        }
    }
    // Twice the same, in two slices while it moves.
    told.slice("s", slice("s", "10.1.0.1@a"));
    told.slice("t", slice("s", "10.1.0.1@a"));
    assert_eq!(routes(&told, "a"), ["r 10.0.0.1/32 Transitive=1"]);
    told.slice("t", slice("s", "10.1.0.1@a 10.1.0.2@a"));
    assert_eq!(routes(&told, "a"), ["r 10.0.0.1/32 Transitive=2"]);
    // Under policy Cluster all nodes are alike.
    told.service(balancer("s", "10.0.0.1"));
    for node in ["a", "b"] {
        assert_eq!(routes(&told, node), ["r 10.0.0.1/32 Transitive=1"]);
    }
}

#[test]
fn a_ready_endpoint_more_is_a_change() {
    let mut told = bare();
    weighted(&mut told, "w", json!({}));
    told.service(local(balancer("s", "10.0.0.1")));
    told.slice("s", slice("s", "10.1.0.1@a !10.1.0.2@a 10.1.0.3@b"));
    let mut kept = bgp(&told, "a");
    let dirty = told.slice("s", slice("s", "10.1.0.1@a 10.1.0.2@a 10.1.0.3@b"));
    assert!(dirty.addresses.is_empty(), "nothing of it is layer 2's");
    let changes = kept.replan(&told.world, "a", &dirty);
    assert_eq!(changes.len(), 1);
    assert_eq!(kept, bgp(&told, "a"));
    assert_eq!(routes(&told, "a"), ["r 10.0.0.1/32 Transitive=2"]);
    // One more of many may change nothing: it is rounded.
    let many = |n: usize| -> String {
        let each = (0..n).map(|n| format!("10.1.1.{n}@a"));
        each.collect::<Vec<_>>().join(" ")
    };
    let dirty = told.slice("s", slice("s", &many(100)));
    kept.replan(&told.world, "a", &dirty);
    let dirty = told.slice("s", slice("s", &many(101)));
    assert_eq!(kept.replan(&told.world, "a", &dirty), []);
}

/// T5: routers weigh only if every path of a prefix has a weight.
#[test]
fn all_nodes_or_none() {
    let rack = |rack: &str| json!([{"matchLabels": {"rack": rack}}]);
    let mut told = bare();
    told.node("a", "rack=1");
    told.node("b", "rack=2");
    told.served(balancer("s", "10.0.0.1"));
    let weights = |told: &Told| -> Vec<String> {
        let both = ["a", "b"].into_iter().flat_map(|node| routes(told, node));
        both.collect()
    };
    let plain = ["r 10.0.0.1/32", "r 10.0.0.1/32"];
    let all = ["r 10.0.0.1/32 Transitive=1", "r 10.0.0.1/32 Transitive=1"];
    // MetalLB's kinds give none.
    advertise(&mut told, "m", json!({}));
    assert_eq!(weights(&told), plain);
    // One node's advertisement asks for weights, the other's does not: nobody gives one.
    advertise(&mut told, "m", json!({"nodeSelectors": rack("2")}));
    weighted(&mut told, "w", json!({"nodeSelectors": rack("1")}));
    assert_eq!(weights(&told), plain);
    weighted(&mut told, "v", json!({"nodeSelectors": rack("2")}));
    assert_eq!(weights(&told), plain);
    advertise(
        &mut told,
        "m",
        json!({"serviceSelectors": [{"matchLabels": {"team": "red"}}]}),
    );
    assert_eq!(
        weights(&told),
        all,
        "what is not for the Service does not count"
    );
    advertise(&mut told, "m", json!({"aggregationLength": 24}));
    let each = ["r 10.0.0.0/24", "r 10.0.0.1/32 Transitive=1"];
    assert_eq!(weights(&told), [each, each].concat(), "nor another prefix");
}

#[test]
fn each_peer_its_form() {
    let mut told = bare();
    weighted(&mut told, "w", json!({}));
    let old = json!({"myASN": 64500, "peerASN": 2, "peerAddress": "10.9.0.2",
        "linkBandwidth": "NonTransitive"});
    told.tell(configured(own("Peer", "old", old)));
    told.served(balancer("s", "10.0.0.1"));
    assert_eq!(
        routes(&told, "a"),
        [
            "old 10.0.0.1/32 NonTransitive=1",
            "r 10.0.0.1/32 Transitive=1"
        ]
    );
}

#[test]
fn an_aggregate_weighs_all_that_is_behind_it() {
    let mut told = bare();
    weighted(&mut told, "w", json!({"bgp": {"aggregationLength": 24}}));
    told.service(local(balancer("s", "10.0.0.1")));
    told.service(local(balancer("t", "10.0.0.2")));
    told.served(balancer("u", "10.0.0.3"));
    told.slice("s", slice("s", "10.1.0.1@a 10.1.0.2@a"));
    told.slice("t", slice("t", "10.1.0.3@a 10.1.0.4@b"));
    assert_eq!(routes(&told, "a"), ["r 10.0.0.0/24 Transitive=4"]);
    assert_eq!(routes(&told, "b"), ["r 10.0.0.0/24 Transitive=2"]);
}
