//! Tables: which addresses are probed for before they are announced, and whose a MAC address is.
//!
//! For 10.0.0.1 the order is node-b, node-a, node-c.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::owners::Owners;
use super::super::stations::Stations;
use super::*;
use crate::world::Interface;

const ADDRESS: &str = "10.0.0.1";

/// A node's view of who had the address.
struct View {
    told: Told,
    owners: Owners,
    me: &'static str,
}

impl View {
    /// Of a node that has met the others.
    fn new(me: &'static str, told: Told) -> Self {
        let mut view = Self {
            told,
            owners: Owners::default(),
            me,
        };
        view.look_as(false, None);
        view
    }

    fn look_as(&mut self, settled: bool, before: Option<&NodeState>) -> bool {
        let addresses = [ip(ADDRESS)];
        let world = &self.told.world;
        let found = self.owners.look(world, self.me, settled, before, addresses);
        assert!(found.is_empty() || found == BTreeSet::from(addresses));
        !found.is_empty()
    }

    /// Whether it is to be probed for now.
    fn probes(&mut self) -> bool {
        self.look_as(true, None)
    }

    fn withhold(&mut self, node: &str, withheld: &[&str]) {
        let form = NodeState {
            withheld: withheld.iter().map(|it| ip(it)).collect(),
            ..state(1000, "eth0:")
        };
        self.told.tell(Event::State {
            node: node.into(),
            form: Some(form),
        });
    }
}

fn served() -> Told {
    let mut told = Told::common(NODES);
    told.served(balancer("s", ADDRESS));
    told
}

#[test]
fn what_nobody_had_is_probed_for_by_its_owner_alone() {
    for (me, probes) in [("node-b", true), ("node-a", false)] {
        let mut view = View::new(me, Told::common(NODES));
        view.told.served(balancer("s", ADDRESS));
        assert_eq!(view.probes(), probes, "{me}");
        assert!(!view.probes(), "once");
    }
    // It was allocated before it had endpoints.
    let mut told = Told::common(NODES);
    told.service(balancer("s", ADDRESS));
    let mut view = View::new("node-b", told);
    assert!(!view.probes());
    view.told.slice("s", slice("s", "10.244.0.1"));
    assert!(view.probes());
}

#[test]
fn what_somebody_had_is_not_waited_for() {
    // This agent has just started: it had it itself perhaps.
    let mut view = View::new("node-b", served());
    assert!(!view.probes());

    // Its owner dies, and comes back.
    let mut view = View::new("node-a", served());
    view.told.member("node-b", false);
    assert!(!view.probes());
    view.told.member("node-b", true);
    assert!(!view.probes());
    view.told.member("node-b", false);
    assert!(!view.probes());

    // Its endpoints go and come.
    let mut view = View::new("node-b", served());
    view.told.slice("s", slice("s", ""));
    assert!(!view.probes());
    view.told.slice("s", slice("s", "10.244.0.1"));
    assert!(!view.probes());
    // Its first owner dies before it was heard of.
    let mut view = View::new("node-a", Told::common(NODES));
    view.told.served(balancer("s", ADDRESS));
    assert!(!view.probes());
    view.told.member("node-b", false);
    assert!(!view.probes());
}

#[test]
fn what_its_last_owner_withheld_is_probed_for() {
    let mut view = View::new("node-a", served());
    view.withhold("node-b", &[ADDRESS, "10.0.0.2"]);
    view.told.member("node-b", false);
    assert!(view.probes());
    assert!(!view.probes(), "once");
    // The next one takes it from a node that does not withhold it, whatever is known of the first.
    let mut view = View::new("node-c", served());
    view.withhold("node-b", &[ADDRESS]);
    view.told.member("node-b", false);
    assert!(!view.probes());
    view.told.member("node-a", false);
    assert!(!view.probes());
    view.told.member("node-a", true);
    view.withhold("node-a", &[ADDRESS]);
    assert!(!view.probes());
    view.told.member("node-a", false);
    assert!(view.probes());

    // An agent starts anew: it withheld it itself, or the one did that stood in for it.
    let before = NodeState {
        withheld: [ip(ADDRESS)].into(),
        ..NodeState::default()
    };
    let start = |told: Told, before: Option<&NodeState>| {
        let mut view = View {
            told,
            owners: Owners::default(),
            me: "node-b",
        };
        view.look_as(false, before)
    };
    assert!(start(served(), Some(&before)));
    assert!(!start(served(), Some(&NodeState::default())));
    let mut view = View::new("node-b", served());
    view.withhold("node-a", &[ADDRESS]);
    assert!(start(view.told, None));
}

#[test]
fn a_service_that_is_gone_has_left_nothing() {
    let mut view = View::new("node-b", served());
    view.told.tell(Event::Service {
        key: crate::world::tests::key("s"),
        form: None,
    });
    assert!(!view.probes());
    view.told.served(balancer("other", ADDRESS));
    assert!(view.probes());
}

#[test]
fn mac_addresses_are_members_for_good() {
    let address: IpAddr = ip(ADDRESS);
    let mac = |n: u8| [2, 0, 0, 0, 0, n];
    let with = |mac: Option<[u8; 6]>| {
        let interface = Interface {
            up: true,
            mac,
            ..Interface::default()
        };
        NodeState {
            interfaces: [("eth0".into(), interface)].into(),
            ..NodeState::default()
        }
    };
    let mut world = Told::common("node-a node-b").world;
    let mut stations = Stations::default();
    // Of both there are states, from agents that tell no MAC addresses.
    assert!(stations.lacks_some(&world));
    stations.note(&"node-a".into(), &with(Some(mac(1))));
    stations.note(&"node-b".into(), &with(None));
    assert!(stations.lacks_some(&world));
    stations.note(&"node-b".into(), &with(Some(mac(2))));
    assert!(!stations.lacks_some(&world));
    // Another network card, and none for a while.
    stations.note(&"node-b".into(), &with(Some(mac(3))));
    stations.note(&"node-b".into(), &with(None));
    assert!(!stations.lacks_some(&world));
    for n in 1..=3 {
        assert!(stations.has(address, mac(n)), "{n}");
    }
    assert!(!stations.has(address, mac(4)));
    // The address's own, but no other's.
    assert!(stations.has(address, [0x02, 0xc0, 10, 0, 0, 1]));
    assert!(!stations.has(address, [0x02, 0xc0, 10, 0, 0, 2]));
    // One without an agent is not asked.
    world.apply(Event::Node {
        name: "node-c".into(),
        form: Some(Node::default()),
    });
    assert!(!stations.lacks_some(&world));
}
