//! Last good forms through the memory and back.

use super::*;

fn with_uid(mut object: Object, uid: &str) -> Object {
    object.metadata_mut().uid = uid.to_owned();
    object
}

fn peer(password: &str, port: u32) -> Object {
    let spec = json!({"myASN": 1, "peerASN": 2, "peerAddress": "10.0.0.1", "peerPort": port,
        "password": password});
    with_uid(object("BGPPeer", "r", spec), "u")
}

/// What a program that restarts knows: the objects, and what was written.
fn restarted(now: &Objects, compiled: &Compiled) -> Compiled {
    let written = serde_json::to_value(compiled.kept()).expect("writes");
    let read = serde_json::from_value(written).expect("reads");
    let (kept, errors) = Kept::read(&read);
    assert_eq!(errors, []);
    assert_eq!(Kept::read(&kept.spec()), (kept.clone(), Vec::new()));
    compile(now, &kept.resolve(now), NAMESPACE)
}

#[test]
fn what_is_good_is_not_kept() {
    let compiled = fresh(examples());
    assert_eq!(compiled.kept().objects, []);
    assert_eq!(restarted(&objects(examples()), &compiled), compiled);
}

#[test]
fn the_last_good_form_survives_a_restart() {
    let labelled = |name: &str, addresses: &[&str]| {
        let mut pool = created(with_uid(pool(name, addresses), "u"), "10");
        pool.metadata_mut().labels.insert("zone".into(), "a".into());
        pool
    };
    let before = fresh([
        labelled("p", &["10.0.0.0/24"]),
        labelled("q", &["10.1.0.0/24"]),
        object("L2Advertisement", "ad", json!({"interfaces": ["eth0"]})),
    ]);
    let now = objects([
        labelled("p", &["10.0.0.0/24", "x"]),
        labelled("q", &["10.1.0.0/24"]),
        object(
            "L2Advertisement",
            "ad",
            json!({"interfaces": ["eth0", "eth0"]}),
        ),
        object(
            "BGPAdvertisement",
            "never",
            json!({"aggregationLength": 99}),
        ),
    ]);
    let after = compile(&now, &before.accepted, NAMESPACE);
    let kept = after.kept();
    let names: Vec<&Value> = kept
        .objects
        .iter()
        .map(|o| &o.form["metadata"]["name"])
        .collect();
    assert_eq!(names, ["p", "ad"]);
    assert_eq!(restarted(&now, &after).config, after.config);
    assert_eq!(restarted(&now, &after).verdicts, after.verdicts);
    assert_eq!(after.config.pools.len(), 2);

    // An object that was made anew since then is another one.
    let mut anew = now.clone();
    let p = with_uid(pool("p", &["x"]), "another");
    anew.insert(p.reference(), Arc::new(p));
    assert_eq!(blocks(&restarted(&anew, &after), "p"), "absent");
    // One that is gone stays gone, one that is mended is as new.
    let mended = objects([labelled("p", &["10.2.0.0/24"])]);
    let compiled = restarted(&mended, &after);
    assert_eq!(
        (blocks(&compiled, "p").as_str(), compiled.config.l2.len()),
        ("10.2.0.0/24", 0)
    );
}

#[test]
fn passwords_are_not_written() {
    let before = fresh([peer("hunter2", 179)]);
    let now = objects([peer("hunter2", 60000)]);
    let after = compile(&now, &before.accepted, NAMESPACE);
    assert_eq!(after.config, before.config);
    let written = serde_json::to_string(&after.kept()).expect("writes");
    assert!(
        written.contains("passwordDigest") && !written.contains("hunter2"),
        "{written}"
    );
    // The newest form still has the password.
    let again = restarted(&now, &after);
    assert_eq!(again.config, after.config);
    assert_eq!(again.password("r"), Some("hunter2"));
    // It has another one: the old one is lost with the process.
    let changed = objects([peer("other", 60000)]);
    let after = compile(&changed, &before.accepted, NAMESPACE);
    assert_eq!(after.password("r"), Some("hunter2"));
    assert!(restarted(&changed, &after).config.bgp.peers.is_empty());
}

#[test]
fn what_cannot_be_read_is_told() {
    let spec = serde_json::from_value(json!({"objects": [
        {"form": {"kind": "x"}},
        {"form": {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}},
        {"form": {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": "p", "namespace": NAMESPACE},
            "spec": {"addresses": ["10.0.0.0/24"]}}},
    ]}))
    .expect("reads");
    let (kept, errors) = Kept::read(&spec);
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "spec.objects[0].form",
            "spec.objects[1].form: Service is no configuration",
        ]
    );
    let now = objects([pool("p", &["x"])]);
    assert_eq!(kept.resolve(&now).len(), 1);
}
