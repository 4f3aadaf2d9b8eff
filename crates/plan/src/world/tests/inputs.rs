//! What reaches the configuration besides its objects: nodes, ranges, and last good forms.

use api::corten::v1alpha1::AcceptedConfigSpec;

use super::*;

fn peer(told: &mut Told, name: &str, asn: u32, rack: &str, created: &str) -> Dirty {
    let manifest = json!({
        "apiVersion": "metallb.io/v1beta2", "kind": "BGPPeer",
        "metadata": {"name": name, "namespace": NAMESPACE, "creationTimestamp": created},
        "spec": {"myASN": asn, "peerASN": 7, "peerAddress": format!("10.9.0.{asn}"),
            "nodeSelectors": [{"matchLabels": {"rack": rack}}]},
    });
    let decoded = api::object::Object::decode(manifest).expect("an object");
    let object = config::Object::try_from(decoded.object).expect("a configuration object");
    told.tell(configured(object))
}

fn in_force(world: &World) -> Vec<&str> {
    let peers = world.config().bgp.peers.keys();
    peers.map(|name| &**name).collect()
}

#[test]
fn a_label_makes_two_peers_conflict_and_another_ends_it() {
    let mut told = Told::new(settings(), &["10.0.0.0/24"], "");
    told.node("n1", "rack=a");
    told.node("n2", "rack=b");
    peer(&mut told, "old", 1, "a", "2026-01-01T00:00:00Z");
    peer(&mut told, "new", 2, "b", "2026-01-02T00:00:00Z");
    assert_eq!(in_force(&told.world), ["new", "old"]);

    // A label that no selector reads changes nothing.
    let dirty = told.node("n2", "rack=b disk=ssd");
    assert!(dirty.objects.is_empty(), "{dirty:?}");

    let dirty = told.node("n2", "rack=a");
    assert!(dirty.objects.is_empty(), "nobody has rack b: {dirty:?}");
    told.node("n1", "rack=b");
    assert_eq!(in_force(&told.world), ["new", "old"]);

    // Two labels cannot be on one node; a second selector brings both peers onto n1.
    let manifest = json!({
        "apiVersion": "metallb.io/v1beta2", "kind": "BGPPeer",
        "metadata": {"name": "wide", "namespace": NAMESPACE,
            "creationTimestamp": "2026-01-03T00:00:00Z"},
        "spec": {"myASN": 3, "peerASN": 7, "peerAddress": "10.9.0.3",
            "nodeSelectors": [{"matchLabels": {"disk": "ssd"}}]},
    });
    let decoded = api::object::Object::decode(manifest).expect("an object");
    let wide = config::Object::try_from(decoded.object).expect("a configuration object");
    let wide_ref = wide.reference();
    told.tell(configured(wide));
    assert_eq!(in_force(&told.world), ["new", "old", "wide"]);

    let dirty = told.node("n1", "rack=b disk=ssd");
    assert_eq!(dirty.objects.iter().collect::<Vec<_>>(), [&wide_ref]);
    assert_eq!(in_force(&told.world), ["new", "old"]);
    let finding = &told.world.verdicts()[&wide_ref].findings()[0];
    assert!(
        finding.message.contains("myAsn different from new"),
        "{finding}"
    );

    let dirty = told.node("n1", "rack=b");
    assert_eq!(dirty.objects.iter().collect::<Vec<_>>(), [&wide_ref]);
    assert_eq!(in_force(&told.world), ["new", "old", "wide"]);

    // A node that joins, and one that goes.
    told.node("n3", "rack=a disk=ssd");
    assert_eq!(in_force(&told.world), ["new", "old"]);
    told.tell(Event::Node {
        name: "n3".into(),
        form: None,
    });
    assert_eq!(in_force(&told.world), ["new", "old", "wide"]);
}

#[test]
fn ranges_come_and_go() {
    let mut told = Told::new(settings(), &["10.0.0.0/16"], "");
    let pool = ObjectRef {
        kind: config::ObjectKind::IPAddressPool,
        namespace: NAMESPACE.into(),
        name: "pool".into(),
    };
    let warnings = |told: &Told| told.world.verdicts()[&pool].findings().len();
    assert_eq!(warnings(&told), 0);
    let ranges = |list: &[&str]| {
        let parse = |text: &&str| text.parse().expect("a range");
        Some(list.iter().map(parse).collect())
    };
    let service = |form| Event::ServiceRange {
        name: "kubernetes".into(),
        form,
    };
    let dirty = told.tell(service(ranges(&["10.0.128.0/24"])));
    assert!(dirty.objects.contains(&pool));
    assert_eq!(warnings(&told), 1);
    let node = |addresses: &[&str], pods: &[&str]| Event::Node {
        name: "n1".into(),
        form: Some(Node {
            addresses: addresses.iter().map(|address| ip(address)).collect(),
            pod_ranges: ranges(pods).unwrap_or_default(),
            ..Node::default()
        }),
    };
    told.tell(node(&["10.0.0.9"], &["10.0.7.0/24"]));
    assert_eq!(warnings(&told), 3);
    told.tell(node(&["192.0.2.9"], &["10.0.7.0/24"]));
    assert_eq!(warnings(&told), 2);
    told.tell(service(None));
    told.tell(node(&["192.0.2.9"], &[]));
    assert_eq!(warnings(&told), 0);
    assert!(!told.world.config().pools["pool"].frozen);
}

fn pool(addresses: &[&str]) -> Event {
    configured(object(
        "IPAddressPool",
        "pool",
        "",
        json!({ "addresses": addresses }),
    ))
}

fn kept(addresses: &[&str]) -> Event {
    let form = json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"name": "pool", "namespace": NAMESPACE},
        "spec": {"addresses": addresses}});
    let spec: AcceptedConfigSpec =
        serde_json::from_value(json!({"objects": [{ "form": form }]})).expect("reads");
    let (kept, errors) = Kept::read(&spec);
    assert_eq!(errors, []);
    Event::LastGood(kept)
}

#[test]
fn a_start_goes_on_with_the_last_good_forms() {
    let frozen = |world: &World| {
        let pool = world.config().pools.get("pool")?;
        Some((pool.frozen, pool.blocks[0].to_string()))
    };
    let expected = Some((true, "10.0.0.0/24".to_owned()));
    let before = {
        let mut told = Told::new(settings(), &["10.0.0.0/24"], "");
        told.tell(pool(&["10.0.0.0/24", "x"]));
        told.world
    };
    assert_eq!(frozen(&before), expected);
    // The memory may come before the objects or after them.
    let written = before.compiled().kept();
    for order in [[0, 1], [1, 0]] {
        let mut world = World::new(settings());
        for step in order {
            let (kept, _) = Kept::read(&written);
            world.apply(match step {
                0 => Event::LastGood(kept),
                _ => pool(&["10.0.0.0/24", "x"]),
            });
        }
        world.apply(Event::Synced);
        assert_eq!(world, before);
    }
}

#[test]
fn later_memory_fills_gaps_and_no_more() {
    let mut world = World::new(settings());
    world.apply(pool(&["x"]));
    world.apply(Event::Synced);
    assert!(world.config().pools.is_empty());
    let dirty = world.apply(kept(&["10.0.0.0/24"]));
    assert_eq!(dirty.objects.len(), 1);
    assert!(world.config().pools["pool"].frozen);
    // What it has seen itself holds.
    assert!(world.apply(kept(&["10.1.0.0/24"])).is_empty());
    assert_eq!(
        world.config().pools["pool"].blocks[0].to_string(),
        "10.0.0.0/24"
    );
    world.apply(pool(&["10.2.0.0/24"]));
    world.apply(pool(&["x"]));
    assert!(world.apply(kept(&["10.0.0.0/24"])).is_empty());
    assert_eq!(
        world.config().pools["pool"].blocks[0].to_string(),
        "10.2.0.0/24"
    );
}

#[test]
fn secrets_come_and_go() {
    let mut told = Told::new(settings(), &["10.0.0.0/24"], "");
    let secret = |namespace: &str, known: Option<(bool, bool)>| Event::Secret {
        namespace: namespace.into(),
        name: "s".into(),
        form: known.map(|(basic_auth, has_password)| SecretFacts {
            basic_auth,
            password: has_password.then(|| config::Hidden::from(&b"x"[..])),
        }),
    };
    let spec = json!({"myASN": 1, "peerASN": 2, "peerAddress": "10.9.0.1",
        "passwordSecret": {"name": "s"}});
    told.configure("BGPPeer", "p", spec.clone());
    assert_eq!(in_force(&told.world), Vec::<&str>::new());
    // Another namespace's is another Secret.
    assert!(told.tell(secret("default", Some((true, true)))).is_empty());
    told.tell(secret(NAMESPACE, Some((true, true))));
    assert_eq!(in_force(&told.world), ["p"]);
    // A native peer is judged alike.
    let native = json!({"apiVersion": "corten.dev/v1alpha1", "kind": "Peer",
        "metadata": {"name": "n", "namespace": NAMESPACE},
        "spec": {"myASN": 1, "peerASN": 3, "peerAddress": "10.9.0.2",
            "passwordSecret": {"name": "other"}}});
    let decoded = api::object::Object::decode(native).expect("an object");
    let native = config::Object::try_from(decoded.object).expect("a configuration object");
    let reference = native.reference();
    told.tell(configured(native));
    let verdict = &told.world.verdicts()[&reference];
    assert!(verdict.transient(), "{verdict:?}");
    let condition = verdict.condition(1, None, "now");
    assert_eq!(condition.reason, "Incomplete");
    assert!(
        condition.message.contains("create the Secret \"other\""),
        "{condition:?}"
    );

    // What was good stays in force without its Secret, as it was.
    told.tell(secret(NAMESPACE, None));
    assert_eq!(in_force(&told.world), ["p"]);
    let bad = told
        .world
        .verdicts()
        .values()
        .filter(|verdict| !verdict.in_force());
    assert_eq!(bad.count(), 2);
}
