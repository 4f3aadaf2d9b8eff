//! What a change costs, in ranks computed and keys touched: the same whatever the time it takes.

use super::*;
use crate::announce::election::count;
use crate::desired::{Agent, Desired};
use crate::forward::Mode;

/// `nodes` nodes and `services` Services, each with an address and an endpoint.
fn cluster(nodes: usize, services: usize) -> Told {
    let names: Vec<String> = (0..nodes).map(|n| format!("node-{n}")).collect();
    let mut told = Told::common(&names.join(" "));
    for n in 0..services {
        let address = format!("10.0.{}.{}", n / 250, n % 250 + 1);
        told.served(balancer(&format!("s-{n}"), &address));
    }
    count::take();
    told
}

fn ranked(told: &Told, node: &str) -> BTreeSet<IpAddr> {
    told.world.ranking.ranking(node).collect()
}

#[test]
fn an_endpoint_costs_its_service_only() {
    let mut told = cluster(20, 1000);
    let dirty = told.slice("s-7", slice("s-7", "!10.244.0.1"));
    assert_eq!(dirty.addresses, BTreeSet::from([ip("10.0.0.8")]));
    assert_eq!(dirty.forward, BTreeSet::from([key("s-7")]));
    assert!(dirty.services.is_empty() && dirty.objects.is_empty() && !dirty.members);
    assert_eq!(count::take(), 0, "nobody stands");
    told.slice("s-7", slice("s-7", "10.244.0.1"));
    assert_eq!(count::take(), 20, "one for each node");
    // Under policy Cluster one endpoint more decides nothing.
    let dirty = told.slice("s-7", slice("s-7", "10.244.0.1 10.244.0.2"));
    assert_eq!(count::take(), 0);
    assert!(dirty.addresses.is_empty());
    assert_eq!(dirty.forward, BTreeSet::from([key("s-7")]));
}

#[test]
fn a_death_costs_the_addresses_that_rank_the_node() {
    let mut told = cluster(20, 1000);
    let hit = ranked(&told, "node-4");
    // Three of twenty nodes are ranked by each address.
    assert!((100..200).contains(&hit.len()), "{}", hit.len());
    let dirty = told.member("node-4", false);
    assert_eq!(dirty.addresses, hit);
    assert_eq!(count::take(), hit.len() * 19);
    assert_eq!(ranked(&told, "node-4"), BTreeSet::new());
    for address in told.world.addresses() {
        let standing = told.world.standing(address).expect("candidates");
        assert_eq!(standing.best.len(), DEPTH);
    }
    // It comes back: one for each address.
    let dirty = told.member("node-4", true);
    assert_eq!(count::take(), 1000);
    assert_eq!(dirty.addresses, hit);
    assert_eq!(ranked(&told, "node-4"), hit);
}

/// Where every address ranks every node, the next in order is known already.
#[test]
fn a_death_in_a_small_cluster_costs_no_ranks() {
    let mut told = cluster(3, 200);
    let dirty = told.member("node-1", false);
    assert_eq!(dirty.addresses.len(), 200);
    assert_eq!(count::take(), 0);
    told.member("node-1", true);
    assert_eq!(count::take(), 200);
}

#[test]
fn a_join_costs_one_rank_for_each_address() {
    let mut told = cluster(20, 1000);
    told.node("node-new", "");
    assert_eq!(count::take(), 0, "its agent says nothing yet");
    let dirty = told.interfaces("node-new", "eth0:");
    assert_eq!(count::take(), 1000);
    assert_eq!(dirty.addresses, ranked(&told, "node-new"));
}

#[test]
fn what_says_nothing_new_costs_nothing() {
    let mut told = cluster(5, 50);
    let dirty = told.member("node-1", true);
    assert!(dirty.is_empty(), "it was presumed alive: {dirty:?}");
    let dirty = told.interfaces("node-1", "eth0:");
    assert!(
        dirty.is_empty(),
        "a new version, and nothing else: {dirty:?}"
    );
    told.member("node-1", false);
    count::take();
    let dirty = told.interfaces("node-1", "eth0: eth1:");
    assert!(dirty.is_empty(), "a dead node: {dirty:?}");
    assert_eq!(count::take(), 0);
}

/// Before all is known nothing is ranked, in whatever order it comes.
#[test]
fn nothing_is_ranked_before_all_is_known() {
    let mut world = World::new(settings());
    count::take();
    let pool = json!({"addresses": ["10.0.0.0/16"]});
    world.apply(configured(object("IPAddressPool", "pool", "", pool)));
    world.apply(configured(object("L2Advertisement", "all", "", json!({}))));
    for n in 0..10 {
        let name = Name::from(format!("node-{n}"));
        world.apply(Event::Node {
            name: name.clone(),
            form: Some(Node::default()),
        });
        world.apply(Event::State {
            node: name,
            form: Some(state(1, "eth0:")),
        });
        let service = balancer(&format!("s-{n}"), &format!("10.0.0.{n}"));
        world.apply(Event::Service {
            key: service.key.clone(),
            form: Some(Box::new(service)),
        });
        world.apply(Event::Slice {
            key: key(&format!("s-{n}")),
            form: Some(slice(&format!("s-{n}"), "10.244.0.1")),
        });
    }
    assert_eq!(count::take(), 0);
    world.apply(Event::Synced);
    assert_eq!(count::take(), 100);
}

/// A take-over changes the plan of the next in order for just the addresses that it takes.
#[test]
fn a_take_over_changes_what_it_takes() {
    let mut told = cluster(5, 100);
    let owned = |told: &Told, node: &str| -> BTreeSet<IpAddr> {
        told.world
            .addresses()
            .filter(|address| {
                told.world.standing(*address).and_then(Standing::owner) == Some(&node.into())
            })
            .collect()
    };
    let agent = Agent {
        node: "node-2".into(),
        mode: Mode::Vips,
        sources: crate::forward::Sources::default(),
        node_ports: crate::forward::NodePorts::default(),
    };
    let mut desired = Desired::default();
    desired.replan(&told.world, &agent, &told.world.everything());
    let before = owned(&told, "node-2");
    assert_eq!(desired.l2.keys().copied().collect::<BTreeSet<_>>(), before);
    let dirty = told.member("node-0", false);
    let changes = desired.replan(&told.world, &agent, &dirty);
    let taken: BTreeSet<IpAddr> = changes.l2.iter().map(|(address, _)| *address).collect();
    let after: BTreeSet<IpAddr> = owned(&told, "node-2")
        .difference(&before)
        .copied()
        .collect();
    assert!(!taken.is_empty());
    assert_eq!(taken, after);
    assert!(changes.forward.is_empty());
}

#[test]
fn old_news_of_a_node_change_nothing() {
    let mut told = cluster(1, 1);
    let tell = |told: &mut Told, incarnation, version, interfaces: &str| {
        let form = NodeState {
            incarnation,
            ..state(version, interfaces)
        };
        told.tell(Event::State {
            node: "node-0".into(),
            form: Some(form),
        })
    };
    tell(&mut told, 5, 3, "eth0:");
    assert!(tell(&mut told, 5, 2, "").is_empty());
    assert!(tell(&mut told, 4, 9, "").is_empty());
    assert_eq!(told.announcers("10.0.0.1"), ["node-0"]);
    tell(&mut told, 6, 1, "");
    assert_eq!(told.announcers("10.0.0.1"), [""; 0]);
}

/// A decision that comes when its Service is gone is not kept.
#[test]
fn a_late_decision_leaves_nothing() {
    let mut told = Told::common("");
    let service = balancer("s", "");
    told.service(service.clone());
    let decision = ipam::decide(
        told.world.allocator(),
        &service,
        None,
        &told.world.ipam_options(),
    );
    assert!(decision.allocation.is_some());
    let late = Event::Decided {
        service: service.key.clone(),
        decision: Box::new(decision),
    };
    told.tell(Event::Service {
        key: service.key.clone(),
        form: None,
    });
    assert!(told.tell(late).is_empty());
    assert_eq!(told.world.allocator().allocations().count(), 0);
}

/// A deleted object's verdict is to be reported, as gone.
#[test]
fn a_deleted_object_is_dirty() {
    let mut told = Told::common("");
    let reference = object("L2Advertisement", "all", "", json!({})).reference();
    let dirty = told.tell(Event::Config {
        object: reference.clone(),
        form: None,
    });
    assert!(dirty.objects.contains(&reference));
    assert!(!told.world.verdicts().contains_key(&reference));
}
