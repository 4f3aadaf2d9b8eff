//! Tables: who announces an address, and where. Cases after MetalLB's TestSortL2Candidates,
//! TestShouldAnnounceEPSlices, TestShouldAnnounceFromNodes, TestL2ServiceSelectors,
//! TestL2SharedIP, TestL2AdsForService, TestFilterCandidates, TestL2PreferredNode and its scenarios
//! ClusterPolicy, ElectionConsistent, NoMatchingAd, SplitBrain and Failover (Apache-2.0), with data
//! of our own.
//!
//! For 10.0.0.1 the order is node-b, node-a, node-c; for 10.0.0.2 it is node-b, node-c, node-a
//! (`spec/metallb.md` §4.2).

use serde_json::{Value, json};

use super::l2::{Claim, Interfaces, Withheld, plan};
use crate::forward::Mode;
use crate::name::{Name, ServiceKey};
use crate::world::tests::{Told, balancer, ip, labels, local, settings, slice, state};
use crate::world::{EXCLUDE_LABEL, Event, Node, NodeState, Part, Policy, Rival, Service, Settings};

mod linux;
mod owners;
mod stays;

const NODES: &str = "node-a node-b node-c";

fn node(told: &mut Told, name: &str, node: Node) {
    told.tell(Event::Node {
        name: name.into(),
        form: Some(node),
    });
}

/// A Service that shares its address, on this port.
fn sharing(mut service: Service, port: u16) -> Service {
    let annotations = &mut service.annotations;
    annotations.insert("metallb.io/allow-shared-ip".to_owned(), "key".to_owned());
    service.ports[0].port = port;
    service
}

/// The candidates of `address`, best first, as they take over from each other.
fn order(mut told: Told, address: &str) -> String {
    let mut order = Vec::new();
    loop {
        let owners: Vec<String> = told
            .announcers(address)
            .into_iter()
            .map(ToOwned::to_owned)
            .collect();
        match owners.as_slice() {
            [] => return order.join(" "),
            [owner] => {
                told.member(owner, false);
                order.push(owner.clone());
            }
            many => panic!("{address} has owners {many:?}"),
        }
    }
}

fn withheld(told: &Told, service: &str, address: &str) -> Option<Withheld> {
    let service = told
        .world
        .service(&crate::world::tests::key(service))
        .expect("the Service");
    Claim::of(&told.world, service, ip(address)).err()
}

#[test]
fn endpoints_decide_whether_and_under_policy_local_where() {
    let table = [
        (Policy::Cluster, "", ""),
        (Policy::Cluster, "10.244.0.1@node-c", "node-b"),
        (Policy::Cluster, "!10.244.0.1@node-b", ""),
        (
            Policy::Cluster,
            "!10.244.0.1@node-b 10.244.0.2@node-c",
            "node-b",
        ),
        (Policy::Cluster, "~10.244.0.1@node-a", "node-b"),
        (Policy::Cluster, "-10.244.0.1@node-a", ""),
        (Policy::Cluster, "10.244.0.1", "node-b"),
        (Policy::Cluster, "10.244.0.1@elsewhere", "node-b"),
        (Policy::Local, "", ""),
        (Policy::Local, "10.244.0.1@node-a", "node-a"),
        (
            Policy::Local,
            "10.244.0.1@node-a 10.244.0.2@node-b",
            "node-b",
        ),
        (
            Policy::Local,
            "10.244.0.1@node-a !10.244.0.2@node-b",
            "node-a",
        ),
        (Policy::Local, "!10.244.0.1@node-a !10.244.0.2@node-b", ""),
        (
            Policy::Local,
            "!10.244.0.1@node-b 10.244.0.2@node-b 10.244.0.3@node-c",
            "node-b",
        ),
        (Policy::Local, "10.244.0.1", ""),
        (Policy::Local, "10.244.0.1@elsewhere", ""),
        // Serving while it terminates counts as much as ready.
        (
            Policy::Local,
            "~10.244.0.1@node-b 10.244.0.2@node-a",
            "node-b",
        ),
        (
            Policy::Local,
            "-10.244.0.1@node-b 10.244.0.2@node-a",
            "node-a",
        ),
    ];
    for (policy, endpoints, owner) in table {
        let service = Service {
            external_policy: policy,
            ..balancer("s", "10.0.0.1")
        };
        for split in [false, true] {
            let mut told = Told::common(NODES);
            told.service(service.clone());
            if split {
                for (n, endpoint) in endpoints.split_whitespace().enumerate() {
                    told.slice(&format!("s-{n}"), slice("s", endpoint));
                }
            } else {
                told.slice("s", slice("s", endpoints));
            }
            let owners = told.announcers("10.0.0.1").join(" ");
            assert_eq!(owners, owner, "{policy:?} {endpoints:?}");
            if endpoints.is_empty() {
                let reason = withheld(&told, "s", "10.0.0.1");
                assert_eq!(reason, Some(Withheld::NotOwner));
            }
        }
    }
}

#[test]
fn an_endpoint_that_says_nothing_of_itself_is_ready() {
    let endpoint = |conditions: Value| {
        let manifest = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "s", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "s"}},
            "ports": [{"name": "http", "port": 80}],
            "endpoints": [{"addresses": ["10.244.0.1"], "conditions": conditions}],
        });
        let slice = serde_json::from_value(manifest).expect("a slice");
        crate::world::Slice::of(slice)
            .expect("a slice of a Service")
            .endpoints[0]
            .usable()
    };
    assert!(endpoint(json!({})));
    assert!(endpoint(json!({"ready": true})));
    assert!(!endpoint(json!({"ready": false})));
    assert!(endpoint(
        json!({"ready": false, "serving": true, "terminating": true})
    ));
    assert!(!endpoint(
        json!({"ready": false, "serving": false, "terminating": true})
    ));
}

#[test]
fn nodes_stand_only_while_they_are_able() {
    let unavailable = Node {
        network_unavailable: true,
        ..Node::default()
    };
    let excluded = Node {
        labels: labels(&format!("{EXCLUDE_LABEL}=")),
        ..Node::default()
    };
    let off = Node {
        out_of_service: true,
        ..Node::default()
    };
    let unreachable = Node {
        unreachable: true,
        ..Node::default()
    };
    type Change<'a> = Box<dyn Fn(&mut Told) + 'a>;
    let dead = |name: &'static str| -> Change<'_> {
        Box::new(move |told| {
            told.member(name, false);
        })
    };
    let is = |name: &'static str, form: &Node| -> Change<'_> {
        let form = form.clone();
        Box::new(move |told| node(told, name, form.clone()))
    };
    let on = |name: &'static str, interfaces: &'static str| -> Change<'_> {
        Box::new(move |told| {
            told.interfaces(name, interfaces);
        })
    };
    let drained: Change<'_> = Box::new(|told| {
        let form = NodeState {
            draining: true,
            ..state(99, "eth0:")
        };
        told.tell(Event::State {
            node: "node-b".into(),
            form: Some(form),
        });
    });
    let gone: Change<'_> = Box::new(|told| {
        told.tell(Event::Node {
            name: "node-b".into(),
            form: None,
        });
    });
    let no_agent: Change<'_> = Box::new(|told| {
        told.tell(Event::State {
            node: "node-b".into(),
            form: None,
        });
    });
    let forgotten = || -> Change<'_> {
        Box::new(|told| {
            told.member("node-b", false);
            told.tell(Event::Member {
                node: "node-b".into(),
                alive: None,
            });
        })
    };
    let back = || -> Change<'_> {
        Box::new(|told| {
            told.member("node-b", false);
            told.member("node-b", true);
        })
    };
    let table: Vec<(&str, Vec<Change<'_>>, &str)> = vec![
        ("all well", vec![], "node-b node-a node-c"),
        (
            "unavailable",
            vec![is("node-b", &unavailable)],
            "node-a node-c",
        ),
        ("excluded", vec![is("node-b", &excluded)], "node-a node-c"),
        ("off", vec![is("node-b", &off)], "node-a node-c"),
        (
            "neither the API nor anybody else hears it",
            vec![forgotten(), is("node-b", &unreachable)],
            "node-a node-c",
        ),
        (
            "its peers hear it, though the API does not",
            vec![back(), is("node-b", &unreachable)],
            "node-b node-a node-c",
        ),
        (
            "two excluded",
            vec![is("node-b", &excluded), is("node-a", &excluded)],
            "node-c",
        ),
        (
            "one of each",
            vec![
                is("node-b", &excluded),
                is("node-a", &unavailable),
                dead("node-c"),
            ],
            "",
        ),
        ("dead", vec![dead("node-b")], "node-a node-c"),
        ("dead and back", vec![back()], "node-b node-a node-c"),
        ("nobody looks", vec![forgotten()], "node-b node-a node-c"),
        ("draining", vec![drained], "node-a node-c"),
        ("no Node", vec![gone], "node-a node-c"),
        ("no agent", vec![no_agent], "node-a node-c"),
        ("link down", vec![on("node-b", "!eth0:")], "node-a node-c"),
        (
            "one of two links",
            vec![on("node-b", "!eth0: eth1:")],
            "node-b node-a node-c",
        ),
        ("no interface", vec![on("node-b", "")], "node-a node-c"),
    ];
    for (name, changes, expected) in table {
        let mut told = Told::common(NODES);
        told.served(balancer("s", "10.0.0.1"));
        for change in changes {
            change(&mut told);
        }
        assert_eq!(order(told, "10.0.0.1"), expected, "{name}");
    }
    let lenient = Settings {
        ignore_exclude_label: true,
        ..settings()
    };
    let mut told = Told::new(lenient, &["10.0.0.0/16"], NODES);
    told.advertise("all", json!({}));
    told.served(balancer("s", "10.0.0.1"));
    node(&mut told, "node-b", excluded);
    assert_eq!(order(told, "10.0.0.1"), "node-b node-a node-c");
}

/// Which Services count: type, class, pool, address.
#[test]
fn services_that_are_announced() {
    let class = |class: Option<&str>| Service {
        class: class.map(Name::from),
        ..balancer("s", "10.0.0.1")
    };
    let table = [
        (balancer("s", "10.0.0.1"), None, "node-b"),
        (balancer("s", ""), None, ""),
        (balancer("s", "192.0.2.1"), None, ""),
        (
            Service {
                kind: crate::world::ServiceType::ClusterIP,
                ..balancer("s", "10.0.0.1")
            },
            None,
            "",
        ),
        (class(Some("x")), None, ""),
        (class(Some("x")), Some("x"), "node-b"),
        (class(Some("y")), Some("x"), ""),
        (class(None), Some("x"), ""),
    ];
    for (service, lb_class, owner) in table {
        let settings = Settings {
            lb_class: lb_class.map(Name::from),
            ..settings()
        };
        let mut told = Told::new(settings, &["10.0.0.0/16"], NODES);
        told.advertise("all", json!({}));
        let address = service.assigned().next();
        told.served(service);
        let Some(address) = address else {
            continue;
        };
        let owners = told.announcers(&address.to_string()).join(" ");
        assert_eq!(owners, owner, "{address} {lb_class:?}");
    }
    let mut told = Told::common(NODES);
    told.served(balancer("s", "192.0.2.1"));
    assert_eq!(
        withheld(&told, "s", "192.0.2.1"),
        Some(Withheld::IpNotAllowed)
    );
}

/// Preferences first, then the hash; weights add up over all advertisements that match the node and
/// the Service, and count only on nodes that the advertisement allows.
#[test]
fn preferences() {
    let rack = |rack: &str| json!({"matchLabels": {"rack": rack}});
    let prefer =
        |weight: u32, rack_name: &str| json!({"weight": weight, "preference": rack(rack_name)});
    let table: Vec<(Vec<Value>, &str)> = vec![
        (vec![json!({})], "node-b node-a node-c"),
        (
            vec![json!({"preferredNodeSelectors": [prefer(1, "c")]})],
            "node-c node-b node-a",
        ),
        (
            vec![json!({"preferredNodeSelectors": [prefer(1, "c"), prefer(100, "a")]})],
            "node-a node-c node-b",
        ),
        // Equal scores: the hash.
        (
            vec![json!({"preferredNodeSelectors": [prefer(50, "c"), prefer(50, "a")]})],
            "node-a node-c node-b",
        ),
        // Sums over entries and over advertisements.
        (
            vec![
                json!({"preferredNodeSelectors": [prefer(60, "a")]}),
                json!({"preferredNodeSelectors": [prefer(40, "c"), {"weight": 30,
                    "preference": {"matchExpressions": [{"key": "rack", "operator": "In", "values": ["c"]}]}}]}),
            ],
            "node-c node-a node-b",
        ),
        // A preference outside the nodes of its own advertisement counts for nothing.
        (
            vec![
                json!({}),
                json!({"nodeSelectors": [rack("a")], "preferredNodeSelectors": [prefer(100, "c")]}),
            ],
            "node-b node-a node-c",
        ),
        // One for other Services does not count either.
        (
            vec![
                json!({}),
                json!({"serviceSelectors": [{"matchLabels": {"team": "blue"}}],
                    "preferredNodeSelectors": [prefer(100, "c")]}),
            ],
            "node-b node-a node-c",
        ),
        (
            vec![
                json!({}),
                json!({"serviceSelectors": [{"matchLabels": {"team": "red"}}],
                    "preferredNodeSelectors": [prefer(100, "c")]}),
            ],
            "node-c node-b node-a",
        ),
        // Soft: the preferred node need not exist.
        (
            vec![json!({"preferredNodeSelectors": [prefer(100, "z")]})],
            "node-b node-a node-c",
        ),
    ];
    for (ads, expected) in table {
        let mut told = Told::new(settings(), &["10.0.0.0/16"], NODES);
        for (n, ad) in ads.iter().enumerate() {
            told.advertise(&format!("ad-{n}"), ad.clone());
        }
        for name in ["a", "b", "c"] {
            told.node(&format!("node-{name}"), &format!("rack={name}"));
        }
        told.served(Service {
            labels: labels("team=red"),
            ..balancer("s", "10.0.0.1")
        });
        assert_eq!(order(told, "10.0.0.1"), expected, "{ads:?}");
    }
}

/// Node selectors, pools and Service selectors of advertisements.
#[test]
fn advertisements_choose_nodes_pools_and_services() {
    let rack = |rack: &str| json!({"matchLabels": {"rack": rack}});
    let red = json!([{"matchLabels": {"team": "red"}}]);
    let blue = json!([{"matchLabels": {"team": "blue"}}]);
    let table: Vec<(Vec<Value>, &str)> = vec![
        (vec![], ""),
        (vec![json!({"nodeSelectors": [rack("a")]})], "node-a"),
        (
            vec![json!({"nodeSelectors": [rack("a"), rack("c")]})],
            "node-a node-c",
        ),
        (
            vec![
                json!({"nodeSelectors": [rack("a")]}),
                json!({"nodeSelectors": [rack("c")]}),
            ],
            "node-a node-c",
        ),
        (vec![json!({"nodeSelectors": [rack("z")]})], ""),
        (
            vec![json!({"ipAddressPools": ["pool"]})],
            "node-b node-a node-c",
        ),
        (vec![json!({"ipAddressPools": ["other"]})], ""),
        (
            vec![json!({"serviceSelectors": red})],
            "node-b node-a node-c",
        ),
        (vec![json!({"serviceSelectors": blue})], ""),
        (
            vec![
                json!({"serviceSelectors": [{"matchLabels": {"team": "blue"}}, {"matchLabels": {"team": "red"}}]}),
            ],
            "node-b node-a node-c",
        ),
        (
            vec![
                json!({"serviceSelectors": red, "nodeSelectors": [rack("c")]}),
                json!({"serviceSelectors": blue, "nodeSelectors": [rack("a")]}),
            ],
            "node-c",
        ),
        (
            vec![
                json!({"serviceSelectors": red, "nodeSelectors": [rack("c")]}),
                json!({"nodeSelectors": [rack("a")]}),
            ],
            "node-a node-c",
        ),
    ];
    for (ads, expected) in table {
        let mut told = Told::new(settings(), &["10.0.0.0/16"], NODES);
        for (n, ad) in ads.iter().enumerate() {
            told.advertise(&format!("ad-{n}"), ad.clone());
        }
        for name in ["a", "b", "c"] {
            told.node(&format!("node-{name}"), &format!("rack={name}"));
        }
        told.served(Service {
            labels: labels("team=red"),
            ..balancer("s", "10.0.0.1")
        });
        if expected.is_empty() && ads.iter().all(|ad| ad.get("nodeSelectors").is_none()) {
            assert_eq!(
                withheld(&told, "s", "10.0.0.1"),
                Some(Withheld::NoMatchingAdvertisement)
            );
        }
        assert_eq!(order(told, "10.0.0.1"), expected, "{ads:?}");
    }
}

/// A Service that may share its address is not announced by advertisements that select Services.
#[test]
fn shared_addresses_and_service_selectors() {
    let red = json!({"serviceSelectors": [{"matchLabels": {"team": "red"}}]});
    let blue = json!({"serviceSelectors": [{"matchLabels": {"team": "blue"}}]});
    let table = [
        (None, vec![red.clone()], "node-b"),
        (Some("metallb.io/allow-shared-ip"), vec![red.clone()], ""),
        // Presence counts, not the value, and the old key too.
        (
            Some("metallb.universe.tf/allow-shared-ip"),
            vec![red.clone()],
            "",
        ),
        (Some("metallb.io/allow-shared-ip"), vec![json!({}), red], ""),
        // One that does not select this Service is no matter.
        (
            Some("metallb.io/allow-shared-ip"),
            vec![json!({}), blue],
            "node-b",
        ),
        (
            Some("metallb.io/allow-shared-ip"),
            vec![json!({})],
            "node-b",
        ),
    ];
    for (annotation, ads, owner) in table {
        let mut told = Told::new(settings(), &["10.0.0.0/16"], NODES);
        for (n, ad) in ads.iter().enumerate() {
            told.advertise(&format!("ad-{n}"), ad.clone());
        }
        let mut service = Service {
            labels: labels("team=red"),
            ..balancer("s", "10.0.0.1")
        };
        service
            .annotations
            .extend(annotation.map(|key| (key.to_owned(), String::new())));
        told.served(service);
        assert_eq!(
            told.announcers("10.0.0.1").join(" "),
            owner,
            "{annotation:?} {ads:?}"
        );
        if owner.is_empty() {
            let reason = withheld(&told, "s", "10.0.0.1");
            assert_eq!(reason, Some(Withheld::SharedIpWithServiceSelector));
        }
    }
}

/// Services that share an address have one owner; it announces for those that have endpoints.
#[test]
fn sharers_have_one_owner() {
    let mut told = Told::common(NODES);
    let services = |told: &Told| -> Vec<String> {
        plan(&told.world, "node-b", ip("10.0.0.1")).map_or_else(Vec::new, |announcement| {
            announcement
                .services
                .iter()
                .map(ToString::to_string)
                .collect()
        })
    };
    told.served(sharing(balancer("one", "10.0.0.1"), 80));
    told.service(sharing(balancer("two", "10.0.0.1"), 81));
    assert_eq!(services(&told), ["default/one"]);
    let dirty = told.slice("two", slice("two", "10.244.0.2"));
    assert!(dirty.addresses.contains(&ip("10.0.0.1")));
    assert_eq!(services(&told), ["default/one", "default/two"]);
    told.slice("one", slice("one", "!10.244.0.1"));
    assert_eq!(services(&told), ["default/two"]);
    assert_eq!(order(told, "10.0.0.1"), "node-b node-a node-c");
}

/// Two Services that may not share: who was known first is served, whatever its name, until it
/// leaves. So a deposed leader's late write changes nothing on the wire (design.md §4.9).
#[test]
fn who_was_known_first_keeps_an_address_that_was_given_twice() {
    let mut told = Told::common(NODES);
    let served = |told: &Told| {
        let announced = plan(&told.world, "node-b", ip("10.0.0.1"));
        let announced = announced.map_or_else(Vec::new, |announcement| announcement.services);
        let mut table = crate::forward::Table::default();
        for name in ["a", "m", "z"] {
            let key = crate::world::tests::key(name);
            let node_ports = crate::forward::NodePorts::default();
            let ports = crate::forward::plan(&told.world, "node-b", Mode::Vips, &node_ports, &key);
            for (key, port) in ports {
                table.set(&key, Some(port));
            }
        }
        let forwards = |name: &&str| {
            let mut keys = table.keys().filter(|key| *key.service.name == **name);
            keys.any(|key| {
                let elements = table.elements(key);
                elements
                    .iter()
                    .any(|element| matches!(element, crate::forward::Element::Front { .. }))
            })
        };
        let forwarded: Vec<&str> = ["a", "m", "z"].into_iter().filter(forwards).collect();
        (announced, forwarded)
    };
    let only = |name: &'static str| (vec![crate::world::tests::key(name)], vec![name]);
    told.served(balancer("m", "10.0.0.1"));
    assert_eq!(served(&told), only("m"));
    told.served(balancer("a", "10.0.0.1"));
    told.served(balancer("z", "10.0.0.1"));
    assert_eq!(served(&told), only("m"));
    // An edit of the holder changes nothing.
    let mut edited = balancer("m", "10.0.0.1");
    edited.resource_version = "2".into();
    told.service(edited);
    assert_eq!(served(&told), only("m"));
    // It leaves: one of the others comes, and both are looked at again.
    let dirty = told.service(balancer("m", "10.0.0.2"));
    let again: Vec<&str> = dirty.forward.iter().map(|key| &*key.name).collect();
    assert_eq!(again, ["a", "m"]);
    assert_eq!(served(&told).0, only("a").0);
    assert_eq!(served(&told).1, ["a", "m"]);
}

/// The first Service with a candidate decides for all; when an earlier one gets a candidate, it
/// takes over, also from a full standing. The owner announces for no Service under policy Local
/// that it has no endpoint of.
#[test]
fn an_earlier_service_gets_a_candidate() {
    let mut told = Told::common("node-a node-b node-c node-d");
    told.member("node-d", false);
    told.service(sharing(local(balancer("a", "10.0.0.1")), 80));
    told.slice("a", slice("a", "10.244.0.1@node-d"));
    told.service(sharing(local(balancer("b", "10.0.0.1")), 81));
    told.slice("b", slice("b", "10.244.0.2@node-b"));
    let owner = told.announcers("10.0.0.1").join(" ");
    assert_eq!(owner, "node-b");
    let announcement = plan(&told.world, "node-b", ip("10.0.0.1")).expect("announced");
    assert_eq!(announcement.services, [crate::world::tests::key("b")]);
    let dirty = told.member("node-d", true);
    assert_eq!(dirty.addresses.len(), 1);
    assert_eq!(told.announcers("10.0.0.1"), ["node-d"]);
}

/// The interfaces of the advertisements that match the owner, united; none named: all. A node where
/// none of them is up does not stand.
#[test]
fn interfaces() {
    let only = |names: &[&str]| {
        Some(Interfaces::Only(
            names.iter().map(|name| Name::from(*name)).collect(),
        ))
    };
    let on_b = json!([{"matchLabels": {"rack": "b"}}]);
    let on_a = json!([{"matchLabels": {"rack": "a"}}]);
    // Advertisements, interfaces of node-b → its announcement, or that of node-a.
    let table = [
        (vec![json!({})], "eth0:", "node-b", Some(Interfaces::All)),
        (
            vec![json!({"interfaces": ["eth0"]})],
            "eth0: eth1:",
            "node-b",
            only(&["eth0"]),
        ),
        (
            vec![
                json!({"interfaces": ["eth0"]}),
                json!({"interfaces": ["eth1"]}),
            ],
            "eth0:",
            "node-b",
            only(&["eth0", "eth1"]),
        ),
        (
            vec![json!({"interfaces": ["eth0"]}), json!({})],
            "eth0:",
            "node-b",
            Some(Interfaces::All),
        ),
        (
            vec![
                json!({"interfaces": ["eth0"], "nodeSelectors": on_b}),
                json!({"interfaces": ["eth1"], "nodeSelectors": on_a}),
                json!({"interfaces": ["eth9"], "serviceSelectors": [{"matchLabels": {"team": "blue"}}]}),
            ],
            "eth0: eth1:",
            "node-b",
            only(&["eth0"]),
        ),
        // Exact names, and those must be up: node-b does not stand.
        (
            vec![json!({"interfaces": ["eth0"]})],
            "eth00:",
            "node-a",
            only(&["eth0"]),
        ),
        (
            vec![json!({"interfaces": ["eth0"]})],
            "!eth0: eth1:",
            "node-a",
            only(&["eth0"]),
        ),
        (
            vec![
                json!({"interfaces": ["eth0"]}),
                json!({"interfaces": ["eth1"]}),
            ],
            "!eth0: eth1:",
            "node-b",
            only(&["eth0", "eth1"]),
        ),
        (vec![json!({"interfaces": ["eth7"]})], "eth0:", "", None),
    ];
    for (ads, interfaces, owner, expected) in table {
        let mut told = Told::new(settings(), &["10.0.0.0/16"], "node-a");
        for (n, ad) in ads.iter().enumerate() {
            told.advertise(&format!("ad-{n}"), ad.clone());
        }
        told.node("node-a", "rack=a");
        told.node("node-b", "rack=b");
        told.interfaces("node-b", interfaces);
        told.served(balancer("s", "10.0.0.1"));
        assert_eq!(
            told.announcers("10.0.0.1").join(" "),
            owner,
            "{ads:?} {interfaces}"
        );
        let announced = ["node-a", "node-b"]
            .into_iter()
            .find_map(|name| plan(&told.world, name, ip("10.0.0.1")));
        let announced = announced.map(|announcement| announcement.interfaces);
        assert_eq!(announced, expected, "{ads:?} {interfaces}");
    }
}

/// The owner stays, its labels change the interfaces: the address is dirty.
#[test]
fn a_label_changes_the_interfaces_of_the_owner() {
    let mut told = Told::new(settings(), &["10.0.0.0/16"], "node-b");
    told.interfaces("node-b", "eth0: eth1:");
    told.advertise("one", json!({"interfaces": ["eth0"]}));
    let red = json!([{"matchLabels": {"rack": "red"}}]);
    told.advertise("two", json!({"interfaces": ["eth1"], "nodeSelectors": red}));
    told.served(balancer("s", "10.0.0.1"));
    let dirty = told.node("node-b", "rack=red");
    assert!(dirty.addresses.contains(&ip("10.0.0.1")));
    assert!(!dirty.members, "its addresses are the same");
}

/// design.md §4.4: the subnet test counts only if some candidate passes it.
#[test]
fn subnets() {
    // Interfaces of node-a, node-b, node-c → the order of candidates.
    let table = [
        ("eth0:", "eth0:", "eth0:", "node-b node-a node-c"),
        // It counts as soon as one passes; when that one is dead, nobody passes.
        ("eth0:10.0.0.0/24", "eth0:", "eth0:", "node-a node-b node-c"),
        (
            "eth0:10.0.0.0/24",
            "eth0:",
            "eth0:10.0.0.0/16",
            "node-a node-c node-b",
        ),
        (
            "eth0:",
            "eth0:10.0.0.0/24",
            "eth0:10.0.0.0/24",
            "node-b node-c node-a",
        ),
        // Of a link that is down, or elsewhere.
        (
            "!eth0:10.0.0.0/24 eth1:",
            "eth0:",
            "eth0:",
            "node-b node-a node-c",
        ),
        (
            "eth0:10.0.1.0/24",
            "eth0:10.0.2.0/24",
            "eth0:",
            "node-b node-a node-c",
        ),
        (
            "eth0:10.0.1.0/24,10.0.0.0/24",
            "eth0:",
            "eth0:",
            "node-a node-b node-c",
        ),
        (
            "eth0: eth1:10.0.0.0/24",
            "eth0:",
            "eth0:",
            "node-a node-b node-c",
        ),
        (
            "eth0:2001:db8::/32",
            "eth0:",
            "eth0:",
            "node-b node-a node-c",
        ),
    ];
    for (a, b, c, expected) in table {
        let mut told = Told::common(NODES);
        for (node, interfaces) in [("node-a", a), ("node-b", b), ("node-c", c)] {
            told.interfaces(node, interfaces);
        }
        told.served(balancer("s", "10.0.0.1"));
        assert_eq!(order(told, "10.0.0.1"), expected, "{a} | {b} | {c}");
    }
    // Only interfaces that the advertisement allows pass.
    let mut told = Told::new(settings(), &["10.0.0.0/16"], NODES);
    told.advertise("one", json!({"interfaces": ["eth0"]}));
    told.interfaces("node-a", "eth0: eth1:10.0.0.0/24");
    told.served(balancer("s", "10.0.0.1"));
    assert_eq!(order(told, "10.0.0.1"), "node-b node-a node-c");
}

/// A candidate that does not pass yields to one that joins and does, and comes back after it.
#[test]
fn a_subnet_appears_and_goes() {
    let mut told = Told::common(NODES);
    told.served(balancer("s", "10.0.0.1"));
    assert_eq!(told.announcers("10.0.0.1"), ["node-b"]);
    told.interfaces("node-c", "eth0:10.0.0.0/24");
    assert_eq!(told.announcers("10.0.0.1"), ["node-c"]);
    told.interfaces("node-c", "eth0:");
    assert_eq!(told.announcers("10.0.0.1"), ["node-b"]);
}

/// Both addresses of a dual-stack Service are ordered by the first one, and go to one node wherever
/// one node reaches both.
#[test]
fn dual_stack() {
    let (v4, v6) = ("10.0.0.1", "2001:db8::1");
    // Interfaces of the nodes → owner of the IPv4, owner of the IPv6 address.
    let table = [
        ("eth0:", "eth0:", "eth0:", "node-b", "node-b"),
        ("eth0:10.0.0.0/24", "eth0:", "eth0:", "node-a", "node-a"),
        ("eth0:2001:db8::/64", "eth0:", "eth0:", "node-a", "node-a"),
        (
            "eth0:10.0.0.0/24",
            "eth0:10.0.0.0/24",
            "eth0:10.0.0.0/24,2001:db8::/64",
            "node-c",
            "node-c",
        ),
        // No node reaches both.
        (
            "eth0:10.0.0.0/24",
            "eth0:",
            "eth0:2001:db8::/64",
            "node-a",
            "node-c",
        ),
    ];
    for (a, b, c, owner4, owner6) in table {
        let mut told = Told::common(NODES);
        for (node, interfaces) in [("node-a", a), ("node-b", b), ("node-c", c)] {
            told.interfaces(node, interfaces);
        }
        told.served(balancer("s", &format!("{v4} {v6}")));
        let owners = [v4, v6].map(|address| told.announcers(address).join(" "));
        assert_eq!(owners, [owner4, owner6], "{a} | {b} | {c}");
    }
    // By the first one: 10.0.0.2 alone would have node-c second, and as second it is not asked.
    let mut told = Told::common(NODES);
    told.served(balancer("s", "2001:db8::1 10.0.0.2"));
    let mut alone = Told::common(NODES);
    alone.served(balancer("s", "2001:db8::1"));
    assert_eq!(order(told, "10.0.0.2"), order(alone, "2001:db8::1"));
}

/// Every node names the same owner, whatever the order in which it heard of the others.
#[test]
fn election_is_consistent() {
    for address in ["10.0.0.1", "10.0.0.2", "10.0.7.200", "2001:db8::7"] {
        let mut orders = Vec::new();
        for nodes in [NODES, "node-c node-b node-a", "node-b node-a node-c"] {
            let mut told = Told::common(nodes);
            told.served(balancer("s", address));
            orders.push(order(told, address));
        }
        assert_eq!(orders[0].split(' ').count(), 3, "{address}");
        assert!(orders.iter().all(|order| *order == orders[0]), "{orders:?}");
    }
}

/// Two halves that do not hear each other have an owner each; together again, one.
#[test]
fn split_brain_and_fail_over() {
    let mut told = Told::common(NODES);
    told.served(balancer("s", "10.0.0.1"));
    assert_eq!(told.announcers("10.0.0.1"), ["node-b"]);
    for dead in ["node-b", "node-a"] {
        told.member(dead, false);
    }
    // What node-c sees alone.
    assert_eq!(told.announcers("10.0.0.1"), ["node-c"]);
    told.member("node-a", true);
    assert_eq!(told.announcers("10.0.0.1"), ["node-a"]);
    told.member("node-b", true);
    assert_eq!(
        told.announcers("10.0.0.1"),
        ["node-b"],
        "it takes its addresses back"
    );
    for dead in ["node-b", "node-a", "node-c"] {
        told.member(dead, false);
    }
    assert_eq!(told.announcers("10.0.0.1"), [""; 0]);
}

#[test]
fn while_a_speaker_of_metallb_lives_nobody_announces() {
    let mut told = Told::common(NODES);
    told.served(balancer("s", "10.0.0.1"));
    let rival = |told: &mut Told, pod: &str, part: Option<Part>| {
        told.tell(Event::Rival {
            pod: ServiceKey::new("metallb-system", pod),
            form: part.map(|part| Rival {
                part,
                node: "node-c".into(),
                workload: "daemonset/speaker".into(),
            }),
        })
    };
    let dirty = rival(&mut told, "controller", Some(Part::Controller));
    assert!(dirty.is_empty(), "{dirty:?}");
    assert_eq!(told.announcers("10.0.0.1"), ["node-b"]);
    let dirty = rival(&mut told, "one", Some(Part::Speaker));
    assert_eq!(dirty.addresses.len(), 1, "{dirty:?}");
    assert_eq!(dirty.forward.len(), 0, "what is forwarded stays: {dirty:?}");
    assert_eq!(told.announcers("10.0.0.1"), [""; 0]);
    assert!(rival(&mut told, "two", Some(Part::Speaker)).is_empty());
    assert!(rival(&mut told, "one", None).is_empty());
    assert_eq!(told.announcers("10.0.0.1"), [""; 0]);
    let dirty = rival(&mut told, "two", None);
    assert_eq!(dirty.addresses.len(), 1, "{dirty:?}");
    assert_eq!(told.announcers("10.0.0.1"), ["node-b"]);
}
