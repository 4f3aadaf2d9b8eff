//! Tables of what is let pass and what is refused; the cases of MetalLB's end-to-end suite
//! (`spec/metallb.md` §7.3) are among them.

use super::*;

const NAMESPACE: &str = "metallb-system";

fn rules() -> Rules {
    Rules {
        namespace: NAMESPACE.to_owned(),
        native_bgp: false,
    }
}

fn subject(kind: &str) -> Subject {
    let found = SUBJECTS
        .iter()
        .find(|subject| format!("{:?}", subject.kind) == kind);
    *found.expect(kind)
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("metallb.io/{}", subject(kind).version),
        "kind": kind,
        "metadata": {
            "name": name, "namespace": NAMESPACE, "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": spec,
    })
}

fn pool(name: &str, range: &str) -> Value {
    object("IPAddressPool", name, json!({"addresses": [range]}))
}

fn peer(name: &str, more: Value) -> Value {
    let mut spec = json!({"myASN": 64500, "peerASN": 64501, "peerAddress": "10.0.0.1"});
    for (field, value) in more.as_object().expect("fields") {
        spec[field.as_str()] = value.clone();
    }
    object("BGPPeer", name, spec)
}

fn community(name: &str, aliases: &[(&str, &str)]) -> Value {
    let aliases = aliases
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}));
    object(
        "Community",
        name,
        json!({"communities": aliases.collect::<Value>()}),
    )
}

fn known(objects: &[Value]) -> Known {
    let decoded = objects.iter().map(|value| {
        let decoded = api::object::Object::decode(value.clone()).expect("decoded");
        let object = Object::try_from(decoded.object).expect("configuration");
        (object.reference(), Arc::new(object))
    });
    let node = |name: &str, rack: &str| {
        let node = Node {
            labels: [("rack".to_owned(), rack.to_owned())].into(),
            addresses: vec!["10.9.0.1".parse().expect("an address")],
            pod_ranges: vec!["10.244.0.0/24".parse().expect("a range")],
            ..Node::default()
        };
        (name.into(), node)
    };
    Known {
        objects: decoded.collect(),
        nodes: [node("n1", "a"), node("n2", "b")].into(),
        service_ranges: [(
            "kubernetes".into(),
            vec!["10.96.0.0/12".parse().expect("a range")],
        )]
        .into(),
    }
}

fn request(operation: Operation, object: &Value, old: Value) -> Request {
    let text = |field: &str| {
        object["metadata"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let deleted = operation == Operation::Delete;
    Request {
        uid: "u".to_owned(),
        operation,
        name: text("name"),
        namespace: text("namespace"),
        object: if deleted { Value::Null } else { object.clone() },
        old_object: if deleted { object.clone() } else { old },
    }
}

fn subject_of(object: &Value) -> Subject {
    subject(object["kind"].as_str().expect("kind"))
}

fn create(object: &Value, existing: &[Value]) -> Answer {
    let request = request(Operation::Create, object, Value::Null);
    review(subject_of(object), &request, known(existing), &rules())
}

/// An update of the first of the existing objects.
fn update(object: &Value, existing: &[Value]) -> Answer {
    let request = request(Operation::Update, object, existing[0].clone());
    review(subject_of(object), &request, known(existing), &rules())
}

fn delete(object: &Value, existing: &[Value]) -> Answer {
    let request = request(Operation::Delete, object, Value::Null);
    review(subject_of(object), &request, known(existing), &rules())
}

#[track_caller]
fn refused(answer: Answer, fragments: &[&str]) {
    let why = answer.denied.expect("refused");
    for fragment in fragments {
        assert!(why.contains(fragment), "{fragment:?} is not in {why:?}");
    }
}

#[track_caller]
fn passes(answer: Answer) {
    assert_eq!(answer, Answer::default());
}

#[test]
fn pools_that_overlap_are_refused_on_create_and_update() {
    let first = pool("webhooks-test1", "1.1.1.1-1.1.1.100");
    let second = pool("webhooks-test2", "1.1.1.101-1.1.1.200");
    let fragment = "overlaps with already defined CIDR";
    refused(
        create(
            &pool("webhooks-test2", "1.1.1.15-1.1.1.20"),
            std::slice::from_ref(&first),
        ),
        &["spec.addresses[0]", fragment, "("],
    );
    passes(create(&second, std::slice::from_ref(&first)));
    refused(
        update(
            &pool("webhooks-test2", "1.1.1.0/24"),
            &[second.clone(), first.clone()],
        ),
        &[fragment],
    );
    // The older one is edited into the younger one's range: it is the edit that is refused.
    let mut younger = second.clone();
    younger["metadata"]["creationTimestamp"] = json!("2026-06-01T00:00:00Z");
    refused(
        update(
            &pool("webhooks-test1", "1.1.1.0/24"),
            &[first.clone(), younger],
        ),
        &[fragment],
    );
    // Names do not decide either: this one is first in the alphabet.
    refused(
        create(&pool("a", "1.1.1.15-1.1.1.20"), &[first]),
        &[fragment],
    );
}

#[test]
fn a_bad_object_that_exists_holds_nothing_else_up() {
    let bad = pool("bad", "1.1.1.300/24");
    passes(create(
        &pool("good", "1.1.1.0/24"),
        std::slice::from_ref(&bad),
    ));
    refused(create(&bad, &[]), &["spec.addresses[0]"]);
    // Labels and finalizers of the bad one may change; its spec only for the better.
    let mut labelled = bad.clone();
    labelled["metadata"]["finalizers"] = json!([]);
    labelled["metadata"]["annotations"] = json!({"a": "b"});
    passes(update(&labelled, std::slice::from_ref(&bad)));
    refused(
        update(&pool("bad", "1.1.1.301/24"), std::slice::from_ref(&bad)),
        &["spec.addresses[0]"],
    );
    passes(update(
        &pool("bad", "1.1.2.0/24"),
        std::slice::from_ref(&bad),
    ));
    let mut going = pool("bad", "1.1.1.302/24");
    going["metadata"]["deletionTimestamp"] = json!("2026-06-01T00:00:00Z");
    passes(update(&going, &[bad]));
}

#[test]
fn advertisements() {
    let existing = [pool("pool-webhooks-test", "1.1.1.0/28")];
    let ad = |spec| object("BGPAdvertisement", "adv-webhooks-test", spec);
    refused(
        create(
            &ad(json!({"aggregationLength": 26, "ipAddressPools": ["pool-webhooks-test"]})),
            &existing,
        ),
        &[
            "invalid aggregation length 26: prefix 28 in this pool is more specific than the \
             aggregation length for addresses 1.1.1.0/28",
        ],
    );
    passes(create(
        &ad(json!({"aggregationLength": 28, "ipAddressPools": ["pool-webhooks-test"]})),
        &existing,
    ));
    refused(
        create(
            &ad(json!({
                "aggregationLength": 30, "serviceSelectors": [{"matchLabels": {"a": "b"}}],
            })),
            &existing,
        ),
        &["serviceSelectors"],
    );
    // Pools, peers and aliases that do not exist yet are nobody's fault.
    passes(create(
        &ad(json!({"ipAddressPools": ["later"], "peers": ["later"], "communities": ["later"]})),
        &existing,
    ));
    refused(
        create(&ad(json!({"communities": ["1:2:3"]})), &existing),
        &["spec.communities[0]"],
    );
    let l2 = |spec| object("L2Advertisement", "l2", spec);
    passes(create(&l2(json!({"ipAddressPools": ["later"]})), &existing));
    refused(
        create(&l2(json!({"interfaces": ["eth0", "eth0"]})), &existing),
        &["spec.interfaces[1]", "duplicate"],
    );
}

#[test]
fn peers() {
    refused(
        create(&peer("p", json!({"peerAddress": "1.1.1"})), &[]),
        &["spec.peerAddress", "invalid BGPPeer address"],
    );
    let on = |rack: &str| json!([{"matchLabels": {"rack": rack}}]);
    let first = peer("first", json!({"nodeSelectors": on("a")}));
    refused(
        create(
            &peer("second", json!({"holdTime": "30s"})),
            std::slice::from_ref(&first),
        ),
        &["first"],
    );
    passes(create(
        &peer(
            "second",
            json!({"holdTime": "30s", "nodeSelectors": on("b")}),
        ),
        std::slice::from_ref(&first),
    ));
    // Profile and Secret may come later; a peer that waits for its profile is a peer all the same.
    let waiting = peer(
        "w",
        json!({
            "bfdProfile": "later", "passwordSecret": {"name": "later"}, "nodeSelectors": on("a"),
        }),
    );
    passes(create(&waiting, &[]));
    refused(create(&first, &[waiting]), &["w"]);
    refused(
        create(
            &peer(
                "p",
                json!({"password": "hunter2", "passwordSecret": {"name": "s"}}),
            ),
            &[],
        ),
        &["passwordSecret"],
    );
}

#[test]
fn a_deprecated_field_is_a_warning_and_everything_else_is_still_judged() {
    let answer = create(&peer("p", json!({"disableMP": true})), &[]);
    assert_eq!(answer.denied, None);
    assert_eq!(answer.warnings.len(), 1, "{answer:?}");
    assert!(
        answer.warnings[0].contains("disableMP is deprecated"),
        "{answer:?}"
    );
    let answer = create(
        &peer("p", json!({"disableMP": true, "peerAddress": "1.1.1"})),
        &[],
    );
    assert_eq!(answer.warnings.len(), 1, "{answer:?}");
    refused(answer, &["invalid BGPPeer address"]);
}

#[test]
fn communities() {
    let name = "community-webhooks-test";
    let empty = object("Community", name, json!({}));
    let invalid = community(name, &[("INVALID_COMMUNITY", "99999999:1")]);
    refused(
        create(&invalid, &[]),
        &["invalid community value: invalid section"],
    );
    refused(
        update(&invalid, &[empty]),
        &["invalid community value: invalid section"],
    );
    let large = community(name, &[("INVALID_COMMUNITY", "large:1:2:99999999999")]);
    refused(create(&large, &[]), &["community"]);
    let duplicate = "duplicate definition of community";
    for value in ["1111:2222", "large:1111:2222:3333"] {
        let one = ("DUP_COMMUNITY", value);
        refused(create(&community(name, &[one, one]), &[]), &[duplicate]);
        refused(
            create(&community("second", &[one]), &[community(name, &[one])]),
            &[duplicate],
        );
        passes(create(
            &community("second", &[("OTHER", value)]),
            &[community(name, &[one])],
        ));
    }
}

#[test]
fn profiles_in_use_stay() {
    let profile = object("BFDProfile", "fast", json!({}));
    refused(
        delete(&profile, &[peer("p", json!({"bfdProfile": "fast"}))]),
        &["failed to delete BFDProfile fast, used by BGPPeer p"],
    );
    passes(delete(
        &profile,
        &[peer("p", json!({"bfdProfile": "slow"}))],
    ));
    let mut elsewhere = profile.clone();
    elsewhere["metadata"]["namespace"] = json!("default");
    passes(delete(
        &elsewhere,
        &[peer("p", json!({"bfdProfile": "fast"}))],
    ));
    passes(create(&profile, &[]));
    // Nobody asks of the others, but an answer is an answer.
    passes(delete(&pool("a", "1.1.1.0/24"), &[]));
}

#[test]
fn each_kind_lives_in_one_namespace() {
    for (kind, spec) in [
        ("IPAddressPool", json!({"addresses": ["1.1.1.0/24"]})),
        ("L2Advertisement", json!({})),
        ("BGPAdvertisement", json!({})),
        (
            "BGPPeer",
            json!({"myASN": 1, "peerASN": 2, "peerAddress": "1.1.1.1"}),
        ),
        ("BFDProfile", json!({})),
        ("Community", json!({})),
    ] {
        let mut elsewhere = object(kind, "a", spec.clone());
        elsewhere["metadata"]["namespace"] = json!("default");
        refused(
            create(&elsewhere, &[]),
            &["resource must be created in metallb-system namespace"],
        );
        passes(create(&object(kind, "a", spec), &[]));
    }
}

#[test]
fn the_name_may_be_still_to_come() {
    let mut generated = pool("", "1.1.1.0/24");
    generated["metadata"] = json!({"generateName": "pool-", "namespace": NAMESPACE});
    passes(create(&generated, &[]));
    refused(
        create(&generated, &[pool("b", "1.1.1.0/24")]),
        &["overlaps"],
    );
}

#[test]
fn what_is_not_of_this_path_is_refused() {
    let request = request(Operation::Create, &pool("a", "1.1.1.0/24"), Value::Null);
    refused(
        review(subject("BGPPeer"), &request, Known::default(), &rules()),
        &["this path judges BGPPeer, not IPAddressPool"],
    );
    let mut broken = request.clone();
    broken.object["spec"]["addresses"] = json!(7);
    refused(
        review(
            subject("IPAddressPool"),
            &broken,
            Known::default(),
            &rules(),
        ),
        &["spec.addresses"],
    );
}

#[test]
fn the_probe_never_comes_to_be() {
    let probe = crate::webhook::registration::probe(NAMESPACE);
    refused(create(&probe, &[]), &[PROBE_ANSWER]);
}

#[test]
fn answers_are_admission_reviews() {
    let answer = Answer {
        denied: Some("why".to_owned()),
        warnings: vec!["careful".to_owned()],
    };
    assert_eq!(
        answer.into_review("u"),
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": {
                "uid": "u",
                "allowed": false,
                "status": {"code": 403, "reason": "Forbidden", "message": "why"},
                "warnings": ["careful"],
            },
        })
    );
    assert_eq!(
        Answer::default().into_review("u")["response"],
        json!({"uid": "u", "allowed": true})
    );
}

#[test]
fn a_pool_over_the_clusters_own_ranges_is_warned_of_and_passes() {
    for (range, words) in [
        (
            "10.9.0.0/24",
            "the address 10.9.0.1 of Node \"n1\" and 1 more",
        ),
        (
            "10.244.0.128-10.244.0.140",
            "the Pod range 10.244.0.0/24 of Node \"n1\"",
        ),
        (
            "10.100.0.0/24",
            "the Service range 10.96.0.0/12 of ServiceCIDR \"kubernetes\"",
        ),
    ] {
        let answer = create(&pool("a", range), &[]);
        assert_eq!(answer.denied, None, "{range}");
        let told = answer
            .warnings
            .iter()
            .any(|warning| warning.contains(words));
        assert!(told, "{range}: {:?}", answer.warnings);
    }
    passes(create(&pool("a", "192.0.2.0/24"), &[]));
    // Of somebody else's pool nothing is said.
    passes(create(
        &pool("b", "192.0.2.0/24"),
        &[pool("a", "10.9.0.0/24")],
    ));
}
