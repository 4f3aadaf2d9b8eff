//! Tables: addresses that stay with their owners (`handBack: false`).
//!
//! For 10.0.0.1 the order is node-b, node-a, node-c.

use std::collections::BTreeSet;

use serde_json::json;

use super::super::tenure::{self, Terms};
use super::*;
use crate::world::Tenures;

const ADDRESS: &str = "10.0.0.1";

/// The nodes' agents on one World, each saying what it has, as `corten::agent` does.
struct Agents {
    told: Told,
    versions: u64,
    terms: Terms,
    company: bool,
    /// They run.
    up: BTreeSet<&'static str>,
}

impl Agents {
    fn new(hand_back: bool) -> Self {
        let mut told = Told::new(settings(), &["10.0.0.0/16", "2001:db8::/32"], NODES);
        told.native("ad", json!({"layer2": {"handBack": hand_back}}));
        told.served(balancer("s", ADDRESS));
        let mut agents = Self {
            told,
            versions: 100,
            terms: Terms::default(),
            company: true,
            up: NODES.split_whitespace().collect(),
        };
        agents.settle();
        agents
    }

    fn say(&mut self, node: &str, change: impl FnOnce(&mut NodeState)) {
        let mut form = self
            .told
            .world
            .node_state(node)
            .cloned()
            .unwrap_or_default();
        self.versions += 1;
        form.version = self.versions;
        change(&mut form);
        self.terms.note(&form);
        self.told.tell(Event::State {
            node: node.into(),
            form: Some(form),
        });
    }

    /// Each agent that runs says what it has, until nobody has anything new to say.
    fn settle(&mut self) {
        for _ in 0..10 {
            let mut quiet = true;
            for node in self.up.clone() {
                let world = &self.told.world;
                let Some(known) = world.node_state(node) else {
                    continue;
                };
                let addresses: Vec<_> = world
                    .addresses()
                    .chain(known.tenures.keys().copied())
                    .collect();
                let says: Tenures = addresses
                    .into_iter()
                    .filter_map(|ip| {
                        let announced = plan(world, node, ip).is_some();
                        Some((
                            ip,
                            tenure::of(world, node, ip, announced, self.company, &self.terms)?,
                        ))
                    })
                    .collect();
                if says != known.tenures {
                    quiet = false;
                    self.say(node, |form| form.tenures = says);
                }
            }
            if quiet {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn dies(&mut self, node: &'static str) {
        self.told.member(node, false);
        self.up.remove(node);
        self.settle();
    }

    fn returns(&mut self, node: &'static str) {
        // It has heard the others before it says anything, and has nothing.
        self.say(node, |form| form.tenures.clear());
        self.told.member(node, true);
        self.up.insert(node);
        self.settle();
    }

    fn owner(&self) -> String {
        self.told.announcers(ADDRESS).join(" ")
    }

    fn term(&self, node: &str) -> Option<u32> {
        let state = self.told.world.node_state(node)?;
        state.tenures.get(&ip(ADDRESS)).copied()
    }
}

#[test]
fn a_node_that_comes_back_takes_its_address_only_where_it_is_handed_back() {
    for (hand_back, after) in [(true, "node-b"), (false, "node-a")] {
        let mut agents = Agents::new(hand_back);
        assert_eq!(agents.owner(), "node-b");
        agents.dies("node-b");
        assert_eq!(agents.owner(), "node-a");
        agents.returns("node-b");
        assert_eq!(agents.owner(), after, "handBack: {hand_back}");
        assert_eq!(agents.term("node-a"), (!hand_back).then_some(10));
        assert_eq!(agents.term("node-b"), None);
    }
}

#[test]
fn an_address_moves_when_its_owner_dies_drains_or_is_not_able() {
    type Change = fn(&mut Agents);
    let table: [(&str, Change); 6] = [
        ("dead", |agents| agents.dies("node-a")),
        ("draining", |agents| {
            agents.say("node-a", |form| form.draining = true);
        }),
        ("no interface", |agents| {
            agents.say("node-a", |form| form.interfaces.clear());
        }),
        ("excluded", |agents| {
            agents.told.node("node-a", &format!("{EXCLUDE_LABEL}="));
        }),
        ("handed back", |agents| {
            agents.told.native("ad", json!({"layer2": {}}));
        }),
        ("no endpoint of its own", |agents| {
            agents.told.service(local(balancer("s", ADDRESS)));
            agents.told.slice("s", slice("s", "10.244.0.1@node-b"));
        }),
    ];
    for (name, change) in table {
        let mut agents = Agents::new(false);
        agents.dies("node-b");
        agents.returns("node-b");
        assert_eq!(agents.owner(), "node-a", "{name}");
        change(&mut agents);
        agents.settle();
        assert_eq!(agents.owner(), "node-b", "{name}");
        if name != "dead" {
            assert_eq!(agents.term("node-a"), None, "{name}");
        }
        assert_eq!(agents.term("node-b"), (name != "handed back").then_some(14));
    }
}

#[test]
fn preferences_endpoints_and_nodes_that_join_move_nothing() {
    type Change = fn(&mut Agents);
    let table: [(&str, Change); 4] = [
        ("another node is preferred", |agents| {
            agents.told.node("node-c", "rack=a");
            let prefer = json!([{"weight": 100, "preference": {"matchLabels": {"rack": "a"}}}]);
            let layer2 = json!({"handBack": false, "preferredNodeSelectors": prefer});
            agents.told.native("ad", json!({ "layer2": layer2 }));
        }),
        ("the last endpoint goes and one comes", |agents| {
            agents.told.slice("s", slice("s", ""));
            agents.settle();
            assert_eq!(agents.owner(), "");
            agents.told.slice("s", slice("s", "10.244.0.9"));
        }),
        ("one of two advertisements hands back", |agents| {
            agents.told.advertise("other", json!({}));
        }),
        ("a second address", |agents| {
            let both = Service {
                ingress: crate::world::tests::ingress("10.0.0.1 2001:db8::1"),
                ..balancer("s", ADDRESS)
            };
            agents.told.service(both);
            agents.settle();
            assert_eq!(agents.told.announcers("2001:db8::1"), ["node-a"]);
        }),
    ];
    for (name, change) in table {
        let mut agents = Agents::new(false);
        agents.dies("node-b");
        agents.returns("node-b");
        change(&mut agents);
        agents.settle();
        assert_eq!(agents.owner(), "node-a", "{name}");
    }
}

/// Of two that say that they have it, as after a split, the later has it; of equals the first.
#[test]
fn of_two_that_have_it_the_later_keeps_it_and_of_equals_the_first() {
    for (terms, owner) in [
        // Who took it over from whom.
        ((6, 10), "node-c"),
        ((10, 6), "node-a"),
        // Both sides of a split took it from a third.
        ((6, 6), "node-a"),
        // Its owner, and one that was alone.
        ((5, 6), "node-c"),
        // An owner that was silent, and one that was alone.
        ((4, 5), "node-c"),
    ] {
        let mut agents = Agents::new(false);
        for (node, term) in [
            ("node-b", None),
            ("node-a", Some(terms.0)),
            ("node-c", Some(terms.1)),
        ] {
            agents.say(node, |form| {
                form.tenures = term.map(|term| (ip(ADDRESS), term)).into_iter().collect();
            });
        }
        agents.settle();
        assert_eq!(agents.owner(), owner, "{terms:?}");
        let keep = ["node-a", "node-c"].map(|node| agents.term(node).is_some());
        assert_eq!(keep, [owner == "node-a", owner == "node-c"], "{terms:?}");
    }
}

#[test]
fn terms_say_how_an_address_was_come_by() {
    let mut agents = Agents::new(false);
    agents.company = false;
    agents.dies("node-b");
    // Alone: it may be that its owner lives.
    assert_eq!(
        (agents.owner().as_str(), agents.term("node-a")),
        ("node-a", Some(5))
    );
    agents.company = true;
    agents.settle();
    assert_eq!(agents.term("node-a"), Some(10));
    let shaken = tenure::shaken(10);
    assert_eq!(shaken, Some(8));
    assert_eq!((tenure::shaken(8), tenure::shaken(9)), (Some(8), None));
    assert_eq!([8, 9, 10].map(tenure::is_firm), [false, false, true]);
    // Whoever has started anew, or was silent, has it still where nobody took it.
    agents.company = false;
    agents.say("node-a", |form| {
        form.tenures = shaken.map(|term| (ip(ADDRESS), term)).into_iter().collect();
    });
    agents.settle();
    assert_eq!(
        (agents.owner().as_str(), agents.term("node-a")),
        ("node-a", Some(8))
    );
    agents.company = true;
    agents.settle();
    assert_eq!(agents.term("node-a"), Some(14));
}

/// What is said of addresses that nobody holds, or that are handed back, counts for nothing.
#[test]
fn no_tenure_without_need() {
    let mut agents = Agents::new(false);
    assert_eq!(agents.term("node-b"), Some(6));
    agents.told.tell(Event::Service {
        key: crate::world::tests::key("s"),
        form: None,
    });
    agents.settle();
    assert_eq!(agents.term("node-b"), None);
    let mut agents = Agents::new(true);
    agents.say("node-c", |form| {
        form.tenures.insert(ip(ADDRESS), 10);
    });
    agents.settle();
    assert_eq!(
        (agents.owner().as_str(), agents.term("node-c")),
        ("node-b", None)
    );
    // A tenure touches the address it is of, and its Service's other one, and nothing else.
    agents
        .told
        .native("ad", json!({"layer2": {"handBack": false}}));
    agents.told.served(balancer("other", "10.0.0.2"));
    agents.settle();
    let form = NodeState {
        tenures: [(ip(ADDRESS), 18)].into(),
        version: 10_000,
        ..agents
            .told
            .world
            .node_state("node-c")
            .cloned()
            .unwrap_or_default()
    };
    let dirty = agents.told.tell(Event::State {
        node: "node-c".into(),
        form: Some(form),
    });
    assert_eq!(dirty.addresses, BTreeSet::from([ip(ADDRESS)]));
    assert_eq!(agents.owner(), "node-c");
}
