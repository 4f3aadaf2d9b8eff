//! Tables: who advertises what to whom. Cases after MetalLB's TestBGPSpeakerEPSlices,
//! TestNodeSelectors, TestPeersForService, TestBGPAdsForService, TestBGPServiceSelectors and
//! TestNodesWithExcludeLabel (Apache-2.0), with data of our own.

mod hub;
pub(crate) mod properties;
mod sessions;
mod weights;

use serde_json::{Value, json};

use super::*;
use crate::config;
use crate::name::{Name, ServiceKey};
use crate::world::tests::{
    NAMESPACE, Told, balancer, configured, ip, key, labels, local, settings, slice, state,
};
use crate::world::{Dirty, EXCLUDE_LABEL, Event, Node, NodeState, Part, Rival, Service, Settings};

/// An object of `corten.dev`.
pub(crate) fn own(kind: &str, name: &str, spec: Value) -> config::Object {
    let manifest = json!({
        "apiVersion": "corten.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    });
    let decoded = api::object::Object::decode(manifest).expect("an object");
    assert_eq!(decoded.unknown_fields, [""; 0]);
    config::Object::try_from(decoded.object).expect("a configuration object")
}

fn peer(told: &mut Told, name: &str, address: &str, more: Value) -> Dirty {
    let mut spec = json!({"myASN": 64500, "peerASN": 64501, "peerAddress": address});
    let (Value::Object(spec_map), Value::Object(more)) = (&mut spec, more) else {
        panic!("not objects");
    };
    spec_map.extend(more);
    told.configure("BGPPeer", name, spec)
}

fn advertise(told: &mut Told, name: &str, spec: Value) -> Dirty {
    told.configure("BGPAdvertisement", name, spec)
}

/// Nodes a and b, the pool 10.0.0.0/16 and 2001:db8::/32, peer `r` at 10.9.0.1, one advertisement.
fn common() -> Told {
    let mut told = bare();
    advertise(&mut told, "all", json!({}));
    told
}

fn bare() -> Told {
    under(settings())
}

fn under(settings: Settings) -> Told {
    let mut told = Told::new(settings, &["10.0.0.0/16", "2001:db8::/32"], "a b");
    peer(&mut told, "r", "10.9.0.1", json!({}));
    told
}

fn bgp(told: &Told, node: &str) -> Bgp {
    let mut bgp = Bgp::default();
    bgp.replan(&told.world, node, &told.world.everything());
    bgp
}

/// The routes of a node: `peer prefix` and what is not as usual.
fn routes(told: &Told, node: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for (peer, desired) in bgp(told, node).peers {
        for (prefix, attributes) in desired.routes {
            texts.push(format!("{peer} {prefix}{}", text(&attributes)));
        }
    }
    texts
}

fn text(attributes: &Attributes) -> String {
    let mut text = String::new();
    if let Some(local_pref) = attributes.local_pref {
        text += &format!(" pref={local_pref}");
    }
    if attributes.med != 0 {
        text += &format!(" med={}", attributes.med);
    }
    if attributes.prepend != 0 {
        text += &format!(" prepend={}", attributes.prepend);
    }
    for community in &attributes.communities {
        text += &format!(" {community}");
    }
    if let Some(bandwidth) = attributes.bandwidth {
        let weight = bandwidth.bytes_per_second / PER_ENDPOINT;
        text += &format!(" {:?}={weight}", bandwidth.form);
    }
    text
}

fn why(told: &Told, node: &str, service: &str, address: &str) -> String {
    match explain(&told.world, node, &key(service), ip(address)) {
        Ok(routes) => {
            let each = routes
                .iter()
                .map(|(prefix, peer)| format!("{peer} {prefix}"));
            each.collect::<Vec<_>>().join(", ")
        }
        Err(withheld) => withheld.to_string(),
    }
}

#[test]
fn endpoints_decide_whether_and_under_policy_local_where() {
    // Endpoints, policy Cluster on a, policy Local on a.
    let table = [
        ("", "noEndpoints", "noLocalEndpoints"),
        ("10.244.0.1@b", "", "noLocalEndpoints"),
        ("10.244.0.1@a", "", ""),
        ("10.244.0.1@a 10.244.0.2@b", "", ""),
        ("!10.244.0.1@a", "noEndpoints", "noLocalEndpoints"),
        ("!10.244.0.1@a 10.244.0.2@b", "", "noLocalEndpoints"),
        ("!10.244.0.1@a 10.244.0.2@a", "", ""),
        ("~10.244.0.1@a", "", ""),
        ("-10.244.0.1@a", "noEndpoints", "noLocalEndpoints"),
        ("10.244.0.1", "", "noLocalEndpoints"),
    ];
    for (endpoints, cluster, at_home) in table {
        let service = balancer("s", "10.0.0.1");
        for (service, want) in [(service.clone(), cluster), (local(service), at_home)] {
            let mut told = common();
            told.service(service);
            told.slice("s", slice("s", endpoints));
            let (found, reason) = match want {
                "" => (vec!["r 10.0.0.1/32".to_owned()], "r 10.0.0.1/32"),
                reason => (vec![], reason),
            };
            assert_eq!(routes(&told, "a"), found, "{endpoints}");
            assert_eq!(why(&told, "a", "s", "10.0.0.1"), reason, "{endpoints}");
        }
    }
}

#[test]
fn reasons_in_their_order() {
    let rack = |rack: &str| json!([{"matchLabels": {"rack": rack}}]);
    let mut told = bare();
    told.node("a", "rack=1");
    told.service(Service {
        labels: labels("team=red"),
        ..local(balancer("s", "10.0.0.1"))
    });
    let reason = |told: &Told| why(told, "a", "s", "10.0.0.1");
    assert_eq!(reason(&told), "notOwner", "no advertisement");
    advertise(&mut told, "x", json!({"nodeSelectors": rack("2")}));
    assert_eq!(reason(&told), "notOwner");
    let blue = json!([{"matchLabels": {"team": "blue"}}]);
    let red = json!([{"matchLabels": {"team": "red"}}]);
    advertise(&mut told, "x", json!({"serviceSelectors": blue}));
    assert_eq!(reason(&told), "noMatchingAdvertisement");
    advertise(&mut told, "x", json!({"serviceSelectors": red}));
    advertise(
        &mut told,
        "y",
        json!({"serviceSelectors": red, "localPref": 5}),
    );
    assert_eq!(reason(&told), "conflictingAdvertisements");
    advertise(
        &mut told,
        "y",
        json!({"serviceSelectors": blue, "localPref": 5}),
    );
    let unavailable = Node {
        network_unavailable: true,
        labels: labels(&format!("rack=1 {EXCLUDE_LABEL}=")),
        ..Node::default()
    };
    let node = |form: Node| Event::Node {
        name: "a".into(),
        form: Some(form),
    };
    told.tell(node(unavailable.clone()));
    assert_eq!(reason(&told), "nodeNetworkUnavailable");
    assert_eq!(routes(&told, "a"), [""; 0]);
    told.tell(node(Node {
        network_unavailable: false,
        ..unavailable
    }));
    assert_eq!(reason(&told), "nodeLabeledExcludeBalancers");
    told.node("a", "rack=1");
    let draining = |draining| Event::State {
        node: "a".into(),
        form: Some(NodeState {
            draining,
            ..state(if draining { 90 } else { 91 }, "eth0:")
        }),
    };
    told.tell(draining(true));
    assert_eq!(reason(&told), "nodeDraining");
    told.tell(draining(false));
    assert_eq!(reason(&told), "noLocalEndpoints");
    told.slice("s", slice("s", "10.244.0.1@a"));
    assert_eq!(reason(&told), "r 10.0.0.1/32");
    advertise(
        &mut told,
        "x",
        json!({"serviceSelectors": red, "peers": ["nobody"]}),
    );
    assert_eq!(reason(&told), "noPeers");
    assert_eq!(why(&told, "a", "s", "10.0.0.2"), "ipNotAllowed");
    told.service(balancer("s", "192.0.2.1"));
    assert_eq!(why(&told, "a", "s", "192.0.2.1"), "ipNotAllowed");
    assert_eq!(why(&told, "gone", "s", "192.0.2.1"), "notOwner");
}

#[test]
fn an_aggregate_stays_while_somebody_needs_it() {
    let mut told = bare();
    let wide = json!({"aggregationLength": 24, "aggregationLengthV6": 64});
    advertise(&mut told, "wide", wide);
    told.served(balancer("s1", "10.0.0.1"));
    told.served(balancer("s2", "10.0.0.200"));
    told.served(balancer("s3", "10.0.1.1 2001:db8::1"));
    assert_eq!(routes(&told, "a"), ["r 10.0.0.0/24", "r 10.0.1.0/24"]);
    told.slice("s1", slice("s1", ""));
    assert_eq!(routes(&told, "a"), ["r 10.0.0.0/24", "r 10.0.1.0/24"]);
    told.slice("s2", slice("s2", ""));
    assert_eq!(routes(&told, "a"), ["r 10.0.1.0/24"]);
    // Both lengths at once, each with its own attributes.
    advertise(
        &mut told,
        "narrow",
        json!({"localPref": 100, "communities": ["64500:1"]}),
    );
    let want = ["r 10.0.1.0/24", "r 10.0.1.1/32 pref=100 64500:1"];
    assert_eq!(routes(&told, "a"), want);
}

#[test]
fn communities_unite_for_each_peer() {
    let mut told = bare();
    peer(&mut told, "q", "10.9.0.2", json!({}));
    told.configure(
        "Community",
        "names",
        json!({"communities": [{"name": "no-export", "value": "65535:65281"}]}),
    );
    told.served(balancer("s", "10.0.0.1"));
    advertise(
        &mut told,
        "x",
        json!({"communities": ["no-export", "64500:2"]}),
    );
    advertise(
        &mut told,
        "y",
        json!({"communities": ["large:64500:1:2", "64500:2", "64500:1"], "peers": ["r"]}),
    );
    assert_eq!(
        routes(&told, "a"),
        [
            "q 10.0.0.1/32 64500:2 65535:65281",
            "r 10.0.0.1/32 64500:1 64500:2 65535:65281 large:64500:1:2",
        ]
    );
    // Of several Services behind one prefix alike.
    let red = json!([{"matchLabels": {"team": "red"}}]);
    advertise(
        &mut told,
        "y",
        json!({"communities": ["1:1"], "serviceSelectors": red}),
    );
    let shared = |name: &str, port, team: &str| {
        let mut service = balancer(name, "10.0.0.9");
        service
            .annotations
            .insert("metallb.io/allow-shared-ip".into(), "k".into());
        service.ports[0].port = port;
        service.labels = labels(team);
        service
    };
    told.served(shared("t", 1, ""));
    told.served(shared("u", 2, "team=red"));
    let of_nine = |told: &Told| {
        let mut routes = routes(told, "a");
        routes.retain(|route| route.starts_with("r 10.0.0.9"));
        routes
    };
    assert_eq!(of_nine(&told), ["r 10.0.0.9/32 1:1 64500:2 65535:65281"]);
    told.slice("u", slice("u", ""));
    assert_eq!(of_nine(&told), ["r 10.0.0.9/32 64500:2 65535:65281"]);
}

/// Two pools meet within one prefix, and their advertisements differ: the most attractive holds.
#[test]
fn one_prefix_of_several_wishes() {
    let mut told = Told::new(settings(), &["10.0.0.1-10.0.0.4"], "a b");
    peer(&mut told, "r", "10.9.0.1", json!({}));
    told.configure(
        "IPAddressPool",
        "other",
        json!({"addresses": ["9.255.255.254-10.0.0.0"]}),
    );
    let ad = |name: &str, pool: &str, pref: u32, med: u32, prepend: u8| {
        configured(own(
            "Advertisement",
            name,
            json!({"pools": [pool], "bgp": {"aggregationLength": 31, "localPref": pref,
                "med": med, "prepend": prepend}}),
        ))
    };
    told.tell(ad("x", "pool", 50, 7, 1));
    told.tell(ad("y", "other", 0, 5, 3));
    told.served(balancer("s", "10.0.0.1"));
    assert_eq!(
        routes(&told, "a"),
        ["r 10.0.0.0/31 pref=50 med=7 prepend=1"]
    );
    told.served(balancer("t", "10.0.0.0"));
    // Not set is 100, which is more than 50.
    assert_eq!(routes(&told, "a"), ["r 10.0.0.0/31 med=5 prepend=1"]);
    told.tell(ad("y", "other", 200, 5, 3));
    assert_eq!(
        routes(&told, "a"),
        ["r 10.0.0.0/31 pref=200 med=5 prepend=1"]
    );
    told.slice("s", slice("s", ""));
    assert_eq!(
        routes(&told, "a"),
        ["r 10.0.0.0/31 pref=200 med=5 prepend=3"]
    );
}

#[test]
fn a_session_carries_its_own_family() {
    let mut told = common();
    peer(&mut told, "six", "2001:db8:9::1", json!({}));
    peer(
        &mut told,
        "both",
        "10.9.0.3",
        json!({"dualStackAddressFamily": true}),
    );
    told.configure(
        "BGPPeer",
        "link",
        json!({"myASN": 64500, "dynamicASN": "external", "interface": "eth9"}),
    );
    told.served(balancer("s", "10.0.0.1 2001:db8::1"));
    assert_eq!(
        routes(&told, "a"),
        [
            "both 10.0.0.1/32",
            "both 2001:db8::1/128",
            "link 10.0.0.1/32",
            "link 2001:db8::1/128",
            "r 10.0.0.1/32",
            "six 2001:db8::1/128",
        ]
    );
    let peers: Vec<Name> = peers_of(&told.world, "a", &key("s")).into_iter().collect();
    assert_eq!(peers, ["both", "link", "r", "six"].map(Name::from));
    told.service(balancer("s", "2001:db8::1"));
    let peers = peers_of(&told.world, "a", &key("s"));
    assert!(!peers.contains("r") && peers.contains("six"), "{peers:?}");
}

#[test]
fn nodes_are_selected_by_label() {
    let rack = |rack: &str| json!([{"matchLabels": {"rack": rack}}]);
    let mut told = bare();
    peer(
        &mut told,
        "one",
        "10.9.0.2",
        json!({"nodeSelectors": rack("1")}),
    );
    peer(
        &mut told,
        "two",
        "10.9.0.3",
        json!({"nodeSelectors": [{"matchLabels": {"rack": "2"}}, {"matchLabels": {"rack": "3"}}]}),
    );
    advertise(
        &mut told,
        "x",
        json!({"nodeSelectors": rack("1"), "peers": ["one", "r"]}),
    );
    advertise(
        &mut told,
        "y",
        json!({"communities": ["1:1"], "peers": ["two"]}),
    );
    told.served(balancer("s", "10.0.0.1"));
    let table: [(&str, &[&str], &[&str]); 4] = [
        ("", &["r"], &[]),
        (
            "rack=1",
            &["one", "r"],
            &["one 10.0.0.1/32", "r 10.0.0.1/32"],
        ),
        ("rack=2", &["r", "two"], &["two 10.0.0.1/32 1:1"]),
        ("rack=3", &["r", "two"], &["two 10.0.0.1/32 1:1"]),
    ];
    let mut kept = bgp(&told, "a");
    for (labels, sessions, want) in table {
        let dirty = told.node("a", labels);
        kept.replan(&told.world, "a", &dirty);
        assert_eq!(routes(&told, "a"), want, "{labels}");
        let names: Vec<&str> = kept.peers.keys().map(|name| &**name).collect();
        assert_eq!(names, sessions, "{labels}");
        assert_eq!(kept, bgp(&told, "a"), "{labels}");
    }
}

#[test]
fn a_drain_asks_to_be_left() {
    let mut told = common();
    told.served(balancer("s", "10.0.0.1"));
    let shut = ["r 10.0.0.1/32 pref=0 65535:0"];
    let plain = ["r 10.0.0.1/32"];
    told.node("a", &format!("{EXCLUDE_LABEL}="));
    assert_eq!(routes(&told, "a"), shut);
    assert_eq!(drains(&told, "a"), ["r Excluded"]);
    assert_eq!(routes(&told, "b"), plain);
    // Meanwhile what cannot be served is withdrawn.
    told.slice("s", slice("s", ""));
    assert_eq!(routes(&told, "a"), [""; 0]);
    told.slice("s", slice("s", "10.244.0.1"));
    told.node("a", "");
    assert_eq!(routes(&told, "a"), plain);
    let draining = NodeState {
        draining: true,
        ..state(99, "eth0:")
    };
    let mut kept = bgp(&told, "a");
    let dirty = told.tell(Event::State {
        node: "a".into(),
        form: Some(draining),
    });
    let changes = kept.replan(&told.world, "a", &dirty);
    let begins = Change::Drain {
        peer: "r".into(),
        drain: Some(Drain::Asked),
    };
    assert_eq!(changes[0], begins);
    assert_eq!(changes.len(), 2);
    assert_eq!(routes(&told, "a"), shut);

    // The label may be of no account.
    let mut told = under(Settings {
        ignore_exclude_label: true,
        ..settings()
    });
    advertise(&mut told, "all", json!({}));
    told.served(balancer("s", "10.0.0.1"));
    told.node("a", &format!("{EXCLUDE_LABEL}="));
    assert_eq!(routes(&told, "a"), plain);
    assert_eq!(drains(&told, "a"), [""; 0]);
}

fn drains(told: &Told, node: &str) -> Vec<String> {
    let peers = bgp(told, node).peers;
    let drains = peers
        .iter()
        .filter_map(|(name, peer)| Some((name, peer.drain?)));
    drains
        .map(|(name, drain)| format!("{name} {drain:?}"))
        .collect()
}

/// Where it is configured, cordon drains.
#[test]
fn a_cordoned_node() {
    let mut told = common();
    told.served(balancer("s", "10.0.0.1"));
    let careful = json!({"myASN": 64500, "peerASN": 2, "peerAddress": "10.9.0.2",
        "drainOnCordon": true});
    told.tell(configured(own("Peer", "careful", careful)));
    let mut kept = bgp(&told, "a");
    for (cordoned, want) in [
        (
            true,
            ["careful 10.0.0.1/32 pref=0 65535:0", "r 10.0.0.1/32"],
        ),
        (false, ["careful 10.0.0.1/32", "r 10.0.0.1/32"]),
    ] {
        let dirty = told.tell(Event::Node {
            name: "a".into(),
            form: Some(Node {
                cordoned,
                ..Node::default()
            }),
        });
        let changes = kept.replan(&told.world, "a", &dirty);
        assert_eq!(changes.len(), 2, "its drain and its route: {changes:?}");
        assert_eq!(routes(&told, "a"), want);
        let drained: &[&str] = if cordoned { &["careful Cordoned"] } else { &[] };
        assert_eq!(drains(&told, "a"), drained);
        assert_eq!(kept, bgp(&told, "a"));
        let peers = peers_of(&told.world, "a", &key("s"));
        assert_eq!(peers.contains("careful"), !cordoned);
    }
}

#[test]
fn who_is_no_balancer_is_not_advertised() {
    let mut told = common();
    told.served(balancer("s", "10.0.0.1"));
    assert_eq!(routes(&told, "a").len(), 1);
    told.service(Service {
        kind: crate::world::ServiceType::ClusterIP,
        ..balancer("s", "10.0.0.1")
    });
    assert_eq!(routes(&told, "a"), [""; 0]);
    told.service(Service {
        class: Some("other".into()),
        ..balancer("s", "10.0.0.1")
    });
    assert_eq!(routes(&told, "a"), [""; 0]);
    told.service(balancer("s", ""));
    assert_eq!(routes(&told, "a"), [""; 0]);
    told.service(balancer("s", "10.0.0.1"));
    assert_eq!(routes(&told, "a").len(), 1);
    told.tell(Event::Service {
        key: ServiceKey::new("default", "s"),
        form: None,
    });
    assert_eq!(routes(&told, "a"), [""; 0]);
}

/// What a change costs: its own prefixes, and of other nodes nothing.
#[test]
fn changes_are_of_what_changed() {
    let mut told = common();
    for n in 1..100 {
        told.served(balancer(&format!("s{n}"), &format!("10.0.0.{n}")));
    }
    let mut kept = bgp(&told, "a");
    let dirty = told.slice("s7", slice("s7", ""));
    assert_eq!(
        dirty.routes.iter().copied().collect::<Vec<_>>(),
        [ip("10.0.0.7")]
    );
    assert!(!dirty.bgp && dirty.nodes.is_empty());
    let changes = kept.replan(&told.world, "a", &dirty);
    let withdrawn = Change::Route {
        peer: "r".into(),
        prefix: "10.0.0.7/32".parse().expect("a prefix"),
        attributes: None,
    };
    assert_eq!(changes, [withdrawn]);
    // Numbers of endpoints decide nothing where nobody weighs.
    let more = "10.244.0.1 10.244.0.2";
    assert!(told.slice("s8", slice("s8", more)).routes.is_empty());
    // Another node, its life and its labels.
    for dirty in [told.node("b", "x=y"), told.member("b", false)] {
        assert!(dirty.routes.is_empty() && !dirty.bgp && !dirty.nodes.contains("a"));
        assert_eq!(kept.replan(&told.world, "a", &dirty), []);
    }
    // A new peer gets everything, after its session; one that goes takes all with it.
    let dirty = peer(&mut told, "q", "10.9.0.2", json!({}));
    let changes = kept.replan(&told.world, "a", &dirty);
    assert_eq!(changes.len(), 1 + 98);
    assert!(matches!(
        &changes[0],
        Change::Session {
            session: Some(_),
            ..
        }
    ));
    let dirty = told.tell(Event::Config {
        object: config::ObjectRef {
            kind: config::ObjectKind::BGPPeer,
            namespace: NAMESPACE.into(),
            name: "q".into(),
        },
        form: None,
    });
    let gone = Change::Session {
        peer: "q".into(),
        session: None,
    };
    assert_eq!(kept.replan(&told.world, "a", &dirty), [gone]);
    // Another length replaces all routes.
    let dirty = advertise(&mut told, "all", json!({"aggregationLength": 24}));
    let changes = kept.replan(&told.world, "a", &dirty);
    assert_eq!(changes.len(), 99);
    assert_eq!(kept, bgp(&told, "a"));
    assert_eq!(routes(&told, "a"), ["r 10.0.0.0/24"]);
}
