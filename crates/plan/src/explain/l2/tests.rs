use serde_json::json;

use super::*;
use crate::world::tests::{Told, balancer, ip, labels, local, slice, state};
use crate::world::{EXCLUDE_LABEL, Event, Node, NodeState};

const NODES: &str = "node-a node-b node-c node-d";

fn world() -> Told {
    let mut told = Told::common(NODES);
    told.served(balancer("s", "10.0.0.1"));
    told
}

fn said(told: &Told) -> Explained {
    address(&told.world, ip("10.0.0.1"))
}

fn owner(said: &Explained) -> String {
    match &said.owner {
        Some((node, why)) => format!("{node} {why}, then {}", said.next.join(" ")),
        None => said.nobody().unwrap_or_default(),
    }
}

#[test]
fn who_has_it_why_and_who_is_next() {
    type Change = fn(&mut Told);
    // For 10.0.0.1 the order is node-b, node-a, node-d, node-c.
    let table: [(Change, &str); 7] = [
        (|_| {}, "node-b first in order, then node-a node-d"),
        (
            |told| {
                told.node("node-c", "rack=x");
                let prefer = json!([{"weight": 7, "preference": {"matchLabels": {"rack": "x"}}}]);
                told.advertise("all", json!({ "preferredNodeSelectors": prefer }));
            },
            "node-c preferred (+7), then node-b node-a",
        ),
        (
            |told| {
                told.service(local(balancer("s", "10.0.0.1")));
                told.slice("s", slice("s", "10.244.0.1@node-c"));
            },
            "node-c alone able, then ",
        ),
        (
            |told| {
                told.native("stay", json!({"layer2": {"handBack": false}}));
                let form = NodeState {
                    tenures: [(ip("10.0.0.1"), 6)].into(),
                    ..state(99, "eth0:")
                };
                told.tell(Event::State {
                    node: "node-a".into(),
                    form: Some(form),
                });
            },
            "node-a stays (handBack: false), then node-b node-d",
        ),
        (
            |told| {
                told.slice("s", slice("s", ""));
            },
            "no endpoint is usable",
        ),
        (
            |told| {
                let none = json!({"ipAddressPools": ["other"]});
                told.advertise("all", none);
            },
            "no layer 2 advertisement reaches its pool and Service",
        ),
        (
            |told| {
                for node in NODES.split_whitespace() {
                    told.member(node, false);
                }
            },
            "no node is able: node-a: not heard of; node-b: not heard of; node-c: not heard of; \
             node-d: not heard of",
        ),
    ];
    for (change, wanted) in table {
        let mut told = world();
        change(&mut told);
        assert_eq!(owner(&said(&told)), wanted);
    }
    let told = world();
    let said = said(&told);
    assert_eq!(said.interfaces, ["eth0".into()]);
    assert!(said.unfit.is_empty() && !said.local, "{said:?}");
    assert_eq!(said.services, [crate::world::tests::key("s")]);
    let free = address(&told.world, ip("10.0.0.9"));
    assert_eq!(
        free.nobody().as_deref(),
        Some("no Service of ours holds it")
    );
}

#[test]
fn an_address_with_a_mac_address_of_its_own_says_so() {
    let mut told = world();
    assert_eq!(said(&told).mac, None);
    told.native("own", json!({"layer2": {"mac": "Virtual"}}));
    let mac = said(&told).mac.map(|mac| mac.to_string());
    assert_eq!(mac.as_deref(), Some("02:c0:0a:00:00:01"));
    // On the interface itself the kernel answers, with the interface's.
    told.native("lan", json!({"linux": {"device": "lan"}}));
    told.interfaces("node-b", "eth0:10.0.0.0/24");
    assert_eq!(said(&told).mac, None);
}

#[test]
fn every_reason_not_to_stand_has_its_name() {
    let is = |told: &mut Told, form: Node| {
        told.tell(Event::Node {
            name: "node-b".into(),
            form: Some(form),
        });
    };
    type Change<'a> = &'a dyn Fn(&mut Told);
    let table: [(Unfit, Change<'_>); 10] = [
        (Unfit::NoAgent, &|told| {
            told.tell(Event::State {
                node: "node-b".into(),
                form: None,
            });
        }),
        (Unfit::Unheard, &|told| {
            told.member("node-b", false);
        }),
        (Unfit::OutOfService, &|told| {
            is(
                told,
                Node {
                    out_of_service: true,
                    ..Node::default()
                },
            );
        }),
        (Unfit::NoNetwork, &|told| {
            is(
                told,
                Node {
                    network_unavailable: true,
                    ..Node::default()
                },
            );
        }),
        (Unfit::Drains, &|told| {
            let form = NodeState {
                draining: true,
                ..state(99, "eth0:")
            };
            told.tell(Event::State {
                node: "node-b".into(),
                form: Some(form),
            });
        }),
        (Unfit::Excluded, &|told| {
            is(
                told,
                Node {
                    labels: labels(&format!("{EXCLUDE_LABEL}=")),
                    ..Node::default()
                },
            );
        }),
        (Unfit::NoEndpoint, &|told| {
            told.service(local(balancer("s", "10.0.0.1")));
            told.slice("s", slice("s", "10.244.0.1@node-c"));
        }),
        (Unfit::NotAdvertised, &|told| {
            told.node("node-c", "rack=x");
            let only = json!([{"matchLabels": {"rack": "x"}}]);
            told.advertise("all", json!({ "nodeSelectors": only }));
        }),
        (Unfit::NoInterface, &|told| {
            told.interfaces("node-b", "!eth0:");
        }),
        (Unfit::NoSubnet, &|told| {
            told.interfaces("node-c", "eth0:10.0.0.0/24");
        }),
    ];
    for (why, change) in table {
        let mut told = world();
        change(&mut told);
        let said = said(&told);
        let of_b = said.unfit.iter().find(|(node, _)| &**node == "node-b");
        assert_eq!(of_b.map(|(_, why)| *why), Some(why), "{said:?}");
        // What is said of a node agrees with the election.
        let standing = told.world.standing(ip("10.0.0.1"));
        let ranked = standing.is_some_and(|it| it.best.iter().any(|(_, node)| &**node == "node-b"));
        assert!(!ranked, "{why:?}");
        let of_all = node(&told.world, &"node-b".into());
        let node_itself = [
            Unfit::NoAgent,
            Unfit::Unheard,
            Unfit::OutOfService,
            Unfit::NoNetwork,
            Unfit::Drains,
            Unfit::Excluded,
        ];
        assert_eq!(of_all, node_itself.contains(&why).then_some(why));
    }
}
