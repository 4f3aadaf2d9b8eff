use std::collections::BTreeSet;

use api::metallb::{ConfigurationResult, ConfigurationStateStatus, IPAddressPoolStatus};
use serde_json::json;

use super::*;
use crate::announce::l2::{Announcement, Interfaces};
use crate::config;
use crate::ipam;
use crate::name::{Name, ServiceKey};
use crate::world::tests::{NAMESPACE, Told, balancer, configured, ip, key, object, settings};
use crate::world::{Event, World};

fn status(v4: (i64, i64), v6: (i64, i64)) -> IPAddressPoolStatus {
    IPAddressPoolStatus {
        assigned_ipv4: v4.0,
        assigned_ipv6: v6.0,
        available_ipv4: v4.1,
        available_ipv6: v6.1,
    }
}

/// Decides for a Service as the controller does.
fn decide(world: &mut World, name: &str) {
    let service = world.service(&key(name)).expect("the Service");
    let decision = ipam::decide(world.allocator(), service, None, &world.ipam_options());
    world.apply(Event::Decided {
        service: key(name),
        decision: Box::new(decision),
    });
}

#[test]
fn counters_follow_what_is_given() {
    let mut told = Told::new(settings(), &["192.0.2.0/30", "2001:db8::/64"], "");
    let of = |told: &Told| pools(&told.world)["pool"].clone();
    assert_eq!(of(&told), status((0, 4), (0, i64::MAX)));
    told.service(balancer("a", ""));
    decide(&mut told.world, "a");
    assert_eq!(of(&told), status((1, 3), (0, i64::MAX)));
    told.tell(Event::Service {
        key: key("a"),
        form: None,
    });
    assert_eq!(of(&told), status((0, 4), (0, i64::MAX)));
}

#[test]
fn a_pool_that_is_not_in_force_has_no_counters() {
    let mut told = Told::new(settings(), &["192.0.2.0/30"], "");
    told.configure("IPAddressPool", "bad", json!({"addresses": ["nonsense"]}));
    let names: Vec<Name> = pools(&told.world).into_keys().collect();
    assert_eq!(names, ["pool".into()]);
    // Its last good form stays in force, and counts.
    told.configure("IPAddressPool", "pool", json!({"addresses": ["nonsense"]}));
    assert_eq!(pools(&told.world)["pool"], status((0, 4), (0, 0)));
}

#[test]
fn a_fault_names_object_field_and_remedy() {
    let mut told = Told::new(settings(), &["192.0.2.0/30"], "");
    let controller = Component::Controller;
    assert_eq!(configuration(&told.world, &controller).message, "");
    told.configure("IPAddressPool", "bad", json!({"addresses": ["nonsense"]}));
    let said = configuration(&told.world, &controller).message;
    assert!(said.starts_with("configuration error: "), "{said}");
    for part in [
        "(IPAddressPool metallb-system/bad, spec.addresses[0]; ",
        "; it is left out)",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // A second fault is a second line; the first stays.
    told.configure("IPAddressPool", "worse", json!({"addresses": ["nonsense"]}));
    let both = configuration(&told.world, &controller).message;
    let lines: Vec<&str> = both.lines().collect();
    assert_eq!(lines.len(), 2, "{both}");
    assert_eq!(lines[0], said);
    assert!(lines[1].contains("metallb-system/worse"), "{both}");
    assert_eq!(both.matches("configuration error").count(), 1, "{both}");
}

#[test]
fn an_object_that_turned_bad_says_what_is_in_force() {
    let mut told = Told::new(settings(), &["192.0.2.0/30"], "");
    told.configure("IPAddressPool", "pool", json!({"addresses": ["nonsense"]}));
    let said = configuration(&told.world, &Component::Controller).message;
    assert!(said.contains("its last good form stays"), "{said}");
    told.configure(
        "IPAddressPool",
        "pool",
        json!({"addresses": ["192.0.2.0/29"]}),
    );
    assert_eq!(
        configuration(&told.world, &Component::Controller),
        Configuration::default()
    );
}

#[test]
fn each_component_judges_what_it_reads() {
    let mut told = Told::new(settings(), &["192.0.2.0/30"], "");
    told.node("a", "rack=1");
    told.node("b", "rack=2");
    told.advertise("bad", json!({"interfaces": ["eth0", "eth0"]}));
    let says = |told: &Told, component: &Component| configuration(&told.world, component).message;
    let (a, b) = (
        Component::Speaker("a".into()),
        Component::Speaker("b".into()),
    );
    assert_eq!(says(&told, &Component::Controller), "");
    assert!(says(&told, &a).contains("L2Advertisement"));
    assert_eq!(says(&told, &a), says(&told, &b));
    told.advertise("bad", json!({}));
    assert_eq!(says(&told, &a), "");

    // A BGP advertisement of other nodes does not make this node's configuration bad.
    let spec = json!({
        "aggregationLength": 64,
        "nodeSelectors": [{"matchLabels": {"rack": "1"}}],
    });
    told.configure("BGPAdvertisement", "bgp", spec);
    assert!(
        says(&told, &a).contains("BGPAdvertisement"),
        "{}",
        says(&told, &a)
    );
    assert_eq!(says(&told, &b), "");
    told.node("b", "rack=1");
    assert_eq!(says(&told, &b), says(&told, &a));
}

/// Whole texts, as MetalLB's end-to-end tests compare them.
#[test]
fn the_summary_is_what_metallb_would_say() {
    let mut told = Told::new(settings(), &["192.0.2.0/30"], "n1");
    let speaker = Component::Speaker("n1".into());
    let summary = |told: &Told| configuration(&told.world, &speaker).summary;
    let peer = |address: &str, more: serde_json::Value| {
        let mut spec = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": address});
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field.as_str()] = value.clone();
        }
        spec
    };
    let secret = |basic_auth, has_password| Event::Secret {
        namespace: NAMESPACE.into(),
        name: "hidden".into(),
        form: Some(config::SecretFacts {
            basic_auth,
            password: bool::then(has_password, || config::Hidden::from(&b"x"[..])),
        }),
    };
    assert_eq!(summary(&told), "");

    told.configure(
        "BGPPeer",
        "peer1",
        peer("192.168.1.1", json!({"passwordSecret": {"name": "hidden"}})),
    );
    assert_eq!(
        summary(&told),
        "configuration error: parsing peer peer1 secret ref not found for peer config \
         \"metallb-system\"/\"peer1\"\nfailed to parse peer peer1 password secret"
    );
    told.tell(secret(false, true));
    assert_eq!(
        summary(&told),
        "configuration error: parsing peer peer1 secret type mismatch on \
         \"metallb-system\"/\"hidden\", type \"kubernetes.io/basic-auth\" is expected \
         \nfailed to parse peer peer1 password secret"
    );
    let message = configuration(&told.world, &speaker).message;
    let parts = ["BGPPeer metallb-system/peer1, spec.passwordSecret; delete the Secret"];
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    told.tell(secret(true, false));
    assert_eq!(
        summary(&told),
        "configuration error: parsing peer peer1 password not specified in the secret \
         \"metallb-system\"/\"hidden\"\nfailed to parse peer peer1 password secret"
    );
    told.tell(secret(true, true));
    assert_eq!(summary(&told), "");

    // Two bad peers: the first one's fault alone.
    told.configure(
        "BGPPeer",
        "bgp-bfd",
        peer("192.168.100.3", json!({"bfdProfile": "bfd-profile"})),
    );
    told.configure(
        "BGPPeer",
        "bgp-secret-fail",
        peer("192.168.200.5", json!({"passwordSecret": {"name": "none"}})),
    );
    assert_eq!(
        summary(&told),
        "configuration error: peer bgp-bfd referencing non existing bfd profile bfd-profile"
    );
    assert_eq!(
        configuration(&told.world, &Component::Controller).summary,
        ""
    );
    told.configure("BFDProfile", "bfd-profile", json!({}));
    told.configure(
        "BGPPeer",
        "bgp-secret-fail",
        peer("192.168.1.1", json!({"passwordSecret": {"name": "hidden"}})),
    );
    // Which of two of the same age is the younger one, its name says.
    assert_eq!(
        summary(&told),
        "configuration error: peer 192.168.1.1 already exists, FRR mode doesn't support duplicate \
         BGPPeers selecting the same node"
    );
    told.configure(
        "BGPPeer",
        "bgp-secret-fail",
        peer("192.168.1.2", json!({"vrf": "red"})),
    );

    told.configure(
        "BGPAdvertisement",
        "advert-community-test",
        json!({"ipAddressPools": ["pool"], "communities": ["my-valid-alias"]}),
    );
    assert_eq!(
        summary(&told),
        "configuration error: invalid community format: my-valid-alias\n\
         invalid community \"my-valid-alias\" in BGP advertisement"
    );
    told.configure(
        "IPAddressPool",
        "other",
        json!({"addresses": ["192.0.2.0/24"]}),
    );
    assert_eq!(
        summary(&told),
        "configuration error: CIDR \"192.0.2.0/30\" in pool \"pool\" overlaps with already \
         defined CIDR \"192.0.2.0/24\""
    );
    told.configure("IPAddressPool", "other", json!({"addresses": ["nonsense"]}));
    assert_eq!(
        summary(&told),
        "configuration error: parsing address pool other: invalid CIDR \"nonsense\" in pool \
         \"other\": invalid CIDR \"nonsense\""
    );
}

#[test]
fn a_very_long_message_is_cut() {
    let mut told = Told::new(settings(), &["192.0.2.0/30"], "");
    let addresses: Vec<String> = (0..400).map(|n| format!("nonsense-{n}")).collect();
    told.configure("IPAddressPool", "bad", json!({"addresses": addresses}));
    let said = configuration(&told.world, &Component::Controller).message;
    assert!((30_000..=32_768).contains(&said.len()), "{}", said.len());
    assert!(said.ends_with("see the log)"), "{said}");
}

#[test]
fn a_written_status_changes_nothing_that_is_planned() {
    let spec = json!({"addresses": ["192.0.2.0/30"]});
    let mut told = Told::new(settings(), &["192.0.2.0/30"], "");
    let config::Object::IPAddressPool(mut pool) = object("IPAddressPool", "pool", "", spec) else {
        panic!("a pool");
    };
    pool.metadata.resource_version = "2".to_owned();
    pool.status = status((1, 3), (0, 0));
    assert!(told.tell(configured(pool.into())).is_empty());
}

fn due(
    message: &str,
    observed: Option<&ConfigurationStateStatus>,
    now: &str,
) -> Option<ConfigurationStateStatus> {
    let configuration = Configuration {
        message: message.to_owned(),
        summary: message.to_owned(),
    };
    configuration.due(&Component::Controller, observed, now)
}

#[test]
fn a_state_is_written_when_it_differs_and_only_then() {
    let good = due("", None, "t1").expect("nothing is there");
    assert_eq!(good.result, Some(ConfigurationResult::Valid));
    let condition = &good.conditions[0];
    assert_eq!(
        (&*condition.type_, &*condition.status, &*condition.reason),
        ("poolReconcilerValid", "True", "Reconciled")
    );
    assert_eq!(due("", Some(&good), "t2"), None);

    let bad = due("x", Some(&good), "t2").expect("it differs");
    assert_eq!(bad.result, Some(ConfigurationResult::Invalid));
    assert_eq!(bad.error_summary, "x");
    let condition = &bad.conditions[0];
    assert_eq!(
        (&*condition.status, &*condition.reason, &*condition.message),
        ("False", "ConfigurationError", "x")
    );
    assert_eq!(condition.last_transition_time.as_deref(), Some("t2"));
    assert_eq!(due("x", Some(&bad), "t3"), None);

    // Another fault, but no transition.
    let other = due("y", Some(&bad), "t3").expect("it differs");
    assert_eq!(
        other.conditions[0].last_transition_time.as_deref(),
        Some("t2")
    );

    // Edits are put right; a stranger's condition is left alone.
    let mut edited = bad.clone();
    edited.error_summary = "edited".to_owned();
    assert_eq!(due("x", Some(&edited), "t4"), Some(bad.clone()));
    let mut more = bad.clone();
    more.conditions.push(api::meta::Condition {
        type_: "other".to_owned(),
        ..api::meta::Condition::default()
    });
    assert_eq!(due("x", Some(&more), "t4"), None);
}

#[test]
fn names_and_labels_are_metallbs() {
    let speaker = Component::Speaker("n1".into());
    assert_eq!(speaker.object(), "speaker-n1");
    assert_eq!(speaker.manager(), "configReconciler");
    assert_eq!(speaker.labels()["metallb.io/component-type"], "speaker");
    assert_eq!(speaker.labels()["metallb.io/node-name"], "n1");
    assert_eq!(Component::Controller.object(), "controller");
    assert_eq!(Component::Controller.manager(), "poolReconciler");
    assert_eq!(Component::Controller.labels().len(), 1);
}

fn announcement(interfaces: &[&str], services: &[&str]) -> Announcement {
    let names: BTreeSet<Name> = interfaces.iter().map(|name| Name::from(*name)).collect();
    Announcement {
        interfaces: if names.is_empty() {
            Interfaces::All
        } else {
            Interfaces::Only(names)
        },
        services: services.iter().map(|name| key(name)).collect(),
        placed: None,
        mac: None,
    }
}

fn keys(names: &[&str]) -> BTreeSet<ServiceKey> {
    names.iter().map(|name| key(name)).collect()
}

#[test]
fn a_service_is_announced_where_its_addresses_are() {
    let (v4, v6) = (ip("192.0.2.1"), ip("2001:db8::1"));
    let mut announced = Announced::default();
    let of = |announced: &Announced, name: &str| {
        let names = announced.interfaces(&key(name))?;
        Some(names.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let first = announcement(&["eth1", "eth0"], &["a", "b"]);
    assert_eq!(announced.set(v4, Some(first.clone())), keys(&["a", "b"]));
    assert_eq!(announced.set(v4, Some(first)), keys(&[]));
    assert_eq!(
        of(&announced, "a"),
        Some(vec!["eth0".into(), "eth1".into()])
    );
    announced.set(v6, Some(announcement(&["eth2"], &["a"])));
    assert_eq!(of(&announced, "a").map(|names| names.len()), Some(3));
    assert_eq!(of(&announced, "b").map(|names| names.len()), Some(2));
    announced.set(v6, Some(announcement(&[], &["a"])));
    assert_eq!(of(&announced, "a"), Some(vec![]), "all");
    // The address is no longer for b.
    let less = announcement(&["eth0"], &["a"]);
    assert_eq!(announced.set(v4, Some(less)), keys(&["a", "b"]));
    assert_eq!(of(&announced, "b"), None);
    assert_eq!(announced.set(v4, None), keys(&["a"]));
    assert_eq!(of(&announced, "a"), Some(vec![]));
    assert_eq!(announced.set(v6, None), keys(&["a"]));
    assert_eq!(announced, Announced::default());
}

#[test]
fn an_l2_status_says_node_service_and_interfaces() {
    let said = l2_status(&key("a"), "n1", &["eth0".into()]);
    assert_eq!((&*said.node, &*said.service_name), ("n1", "a"));
    assert_eq!(said.service_namespace, "default");
    assert_eq!(said.interfaces[0].name, "eth0");
}

#[test]
fn a_service_is_advertised_to_the_peers_of_its_addresses() {
    let (v4, v6) = (ip("192.0.2.1"), ip("2001:db8::1"));
    let claims = |of: &[(&str, &[&str])]| -> Claims {
        let peers = |peers: &[&str]| peers.iter().map(|peer| Name::from(*peer)).collect();
        let claims = of
            .iter()
            .map(|(service, names)| (key(service), peers(names)));
        claims.collect()
    };
    let mut table = Advertised::default();
    let news = table.set(v4, claims(&[("a", &["p", "q"]), ("b", &["p"])]));
    assert_eq!(news.began, [key("a"), key("b")]);
    assert_eq!((news.ended.len(), news.touched), (0, keys(&["a", "b"])));
    assert_eq!(table.set(v6, claims(&[("a", &["r"])])).began, [key("a")]);
    let peers = |table: &Advertised, service: &str| {
        let peers = table.peers(&key(service))?;
        Some(
            peers
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "),
        )
    };
    assert_eq!(peers(&table, "a").as_deref(), Some("p q r"));
    assert_eq!(peers(&table, "b").as_deref(), Some("p"));
    // Equal lists are there once, and no longer than they are needed.
    let at = |address, service: &str| table.peers_at(address, &key(service));
    assert_eq!(at(v6, "b"), None);
    assert_eq!(at(v4, "b").map(|peers| peers.len()), Some(1));
    assert!(table.contains(v6) && !table.contains(ip("192.0.2.2")));
    table.set(ip("192.0.2.2"), claims(&[("c", &["p"])]));
    let shared = |service: &str| table.peers(&key(service)).map(|peers| peers.as_ptr());
    assert_eq!(shared("c"), shared("b"));
    table.set(ip("192.0.2.2"), Claims::new());
    // Told once.
    let again = table.set(v4, claims(&[("a", &["p", "q"]), ("b", &["p"])]));
    assert_eq!(again, News::default());
    // Other peers are no new announcement.
    let fewer = table.set(v4, claims(&[("a", &["q"])]));
    assert_eq!((fewer.began.len(), fewer.ended), (0, vec![key("b")]));
    assert_eq!(fewer.touched, keys(&["a", "b"]));
    assert_eq!(peers(&table, "a").as_deref(), Some("q r"));
    assert_eq!(peers(&table, "b"), None);
    table.set(v4, Claims::new());
    table.set(v6, Claims::new());
    assert_eq!(table, Advertised::default());

    let said = bgp_status(&key("a"), "n1", &["p".into(), "q".into()]);
    assert_eq!((&*said.node, &*said.service_name), ("n1", "a"));
    assert_eq!(said.service_namespace, "default");
    assert_eq!(said.peers, ["p", "q"]);
}
