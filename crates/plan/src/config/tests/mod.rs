//! Verdicts of single objects by table, then objects against each other, then properties.

mod accepted;
mod bgp;
mod native;

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ipam::Allocator;
use crate::world::Labels;

const NAMESPACE: &str = "metallb-system";

/// An object of `metallb.io` with this spec.
fn object(kind: &str, name: &str, spec: Value) -> Object {
    let version = if kind == "BGPPeer" {
        "v1beta2"
    } else {
        "v1beta1"
    };
    manifest(json!({
        "apiVersion": format!("metallb.io/{version}"),
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }))
}

/// An object of `corten.dev` with this spec.
fn own(kind: &str, name: &str, spec: Value) -> Object {
    manifest(json!({
        "apiVersion": "corten.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }))
}

fn manifest(value: Value) -> Object {
    let decoded = api::object::Object::decode(value).expect("an object");
    assert_eq!(decoded.unknown_fields, [""; 0]);
    Object::try_from(decoded.object).expect("a configuration object")
}

fn pool(name: &str, addresses: &[&str]) -> Object {
    object("IPAddressPool", name, json!({ "addresses": addresses }))
}

fn created(mut object: Object, time: &str) -> Object {
    let metadata = object.metadata_mut();
    metadata.creation_timestamp = Some(format!("2026-01-01T00:00:{time}Z"));
    object
}

fn objects(list: impl IntoIterator<Item = Object>) -> Objects {
    let entry = |object: Object| (object.reference(), Arc::new(object));
    list.into_iter().map(entry).collect()
}

fn fresh(list: impl IntoIterator<Item = Object>) -> Compiled {
    compile(&objects(list), &Objects::new(), NAMESPACE)
}

fn verdict<'a>(compiled: &'a Compiled, name: &str) -> &'a Verdict {
    let found = compiled
        .verdicts
        .iter()
        .find(|(reference, _)| *reference.name == *name);
    found.expect("a verdict").1
}

fn blocks(compiled: &Compiled, name: &str) -> String {
    let pool = compiled.config.pools.get(name);
    pool.map_or_else(
        || "absent".to_owned(),
        |pool| {
            pool.blocks
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        },
    )
}

/// The documents' two examples.
fn examples() -> Vec<Object> {
    vec![
        pool("ip-pool", &["10.0.0.101-10.0.0.150"]),
        object("L2Advertisement", "l2adver", json!({})),
        object(
            "BGPPeer",
            "sample",
            json!({"myASN": 64500, "peerASN": 64501, "peerAddress": "10.0.0.1"}),
        ),
        pool("first-pool", &["192.168.10.0/24"]),
        object("BGPAdvertisement", "bgpadver", json!({})),
    ]
}

#[test]
fn the_examples_are_good() {
    let compiled = fresh(examples());
    for (reference, verdict) in &compiled.verdicts {
        assert_eq!(*verdict, Verdict::Good, "{reference}");
    }
    let advertisement = &compiled.config.l2["l2adver"];
    let reached: Vec<&str> = advertisement.pools.iter().map(|name| &**name).collect();
    assert_eq!(reached, ["first-pool", "ip-pool"]);
    assert_eq!(compiled.accepted, objects(examples()));
}

/// Cases after MetalLB's TestParse (Apache-2.0), among others. `""`: good; `w:`: a warning; each
/// with the field and a part of the message.
#[test]
fn single_objects() {
    let selector = json!({"matchLabels": {"a": "b"}});
    let twice = json!([selector, selector]);
    let same_values =
        json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "b"]}]});
    let same_expressions = json!({"matchExpressions": [
        {"key": "a", "operator": "In", "values": ["b", "c"]},
        {"key": "a", "operator": "In", "values": ["c", "b"]}]});
    let bad_operator =
        json!({"matchExpressions": [{"key": "a", "operator": "Is", "values": ["b"]}]});
    let with = |base: Value, field: &str, value: Value| {
        let mut spec = base;
        spec[field] = value;
        spec
    };
    let pool =
        |field: &str, value: Value| with(json!({"addresses": ["192.0.2.0/24"]}), field, value);
    let given = |field: &str, value: Value| {
        with(
            json!({"addresses": ["192.0.2.0/24"]}),
            "serviceAllocation",
            json!({field: value}),
        )
    };
    let l2 = |field: &str, value: Value| json!({field: value});
    let peer = |field: &str, value: Value| {
        with(
            json!({"myASN": 64500, "peerASN": 64501, "peerAddress": "10.0.0.1"}),
            field,
            value,
        )
    };
    let table: Vec<(&str, Value, &str, &str)> = vec![
        (
            "IPAddressPool",
            json!({"addresses": []}),
            "spec.addresses",
            "pool has no prefixes defined",
        ),
        (
            "IPAddressPool",
            json!({}),
            "spec.addresses",
            "pool has no prefixes defined",
        ),
        (
            "IPAddressPool",
            pool("addresses", json!(["100.200.300.400/24"])),
            "spec.addresses[0]",
            "invalid CIDR",
        ),
        (
            "IPAddressPool",
            pool("addresses", json!(["192.0.2.0/24", "10.0.0.1"])),
            "spec.addresses[1]",
            "invalid CIDR \"10.0.0.1\"",
        ),
        (
            "IPAddressPool",
            pool("addresses", json!(["1.2.3.10-1.2.3.1"])),
            "spec.addresses[0]",
            "is after the end",
        ),
        (
            "IPAddressPool",
            pool("addresses", json!(["1.2.3.1-2001:db8::1"])),
            "spec.addresses[0]",
            "different families",
        ),
        (
            "IPAddressPool",
            pool("addresses", json!(["10.0.0.0/16", "10.0.50.0/24"])),
            "spec.addresses[1]",
            "overlaps",
        ),
        (
            "IPAddressPool",
            pool("addresses", json!(["10.0.0.0/24", "10.0.0.0/24"])),
            "spec.addresses[1]",
            "overlaps",
        ),
        (
            "IPAddressPool",
            pool("addresses", json!(["10.0.0.1 - 10.0.0.9", "fc00::/64"])),
            "",
            "",
        ),
        ("IPAddressPool", pool("avoidBuggyIPs", json!(true)), "", ""),
        (
            "IPAddressPool",
            given("namespaces", json!(["a", "b"])),
            "",
            "",
        ),
        (
            "IPAddressPool",
            given("namespaces", json!(["a", "a"])),
            "spec.serviceAllocation.namespaces[1]",
            "duplicate definition of namespaces",
        ),
        (
            "IPAddressPool",
            given("namespaceSelectors", twice.clone()),
            "spec.serviceAllocation.namespaceSelectors[1]",
            "duplicate",
        ),
        (
            "IPAddressPool",
            given("serviceSelectors", twice.clone()),
            "spec.serviceAllocation.serviceSelectors[1]",
            "duplicate",
        ),
        (
            "IPAddressPool",
            given("serviceSelectors", json!([same_values])),
            "spec.serviceAllocation.serviceSelectors[0].matchExpressions[0].values[1]",
            "duplicate",
        ),
        (
            "IPAddressPool",
            given("serviceSelectors", json!([same_expressions])),
            "spec.serviceAllocation.serviceSelectors[0].matchExpressions[1]",
            "duplicate",
        ),
        (
            "IPAddressPool",
            given("serviceSelectors", json!([bad_operator])),
            "spec.serviceAllocation.serviceSelectors[0].matchExpressions[0].operator",
            "not a valid selector operator",
        ),
        (
            "IPAddressPool",
            given("priority", json!(-1)),
            "w:spec.serviceAllocation.priority",
            "counts as unset",
        ),
        ("L2Advertisement", json!({}), "", ""),
        (
            "L2Advertisement",
            l2("ipAddressPools", json!(["x", "x"])),
            "spec.ipAddressPools[1]",
            "duplicate definition of ipAddressPools: \"x\"",
        ),
        (
            "L2Advertisement",
            l2("ipAddressPools", json!(["x"])),
            "w:spec.ipAddressPools[0]",
            "no IPAddressPool \"x\" is in force",
        ),
        (
            "L2Advertisement",
            l2("ipAddressPoolSelectors", json!([selector])),
            "w:spec.ipAddressPoolSelectors[0]",
            "no IPAddressPool in force",
        ),
        (
            "L2Advertisement",
            l2("ipAddressPoolSelectors", twice.clone()),
            "spec.ipAddressPoolSelectors[1]",
            "duplicate",
        ),
        (
            "L2Advertisement",
            l2("nodeSelectors", twice.clone()),
            "spec.nodeSelectors[1]",
            "duplicate",
        ),
        (
            "L2Advertisement",
            l2("nodeSelectors", json!([{"matchLabels": {"a b": "c"}}])),
            "spec.nodeSelectors[0].matchLabels",
            "label key",
        ),
        (
            "L2Advertisement",
            l2("serviceSelectors", twice.clone()),
            "spec.serviceSelectors[1]",
            "duplicate",
        ),
        (
            "L2Advertisement",
            l2("interfaces", json!(["eth0", "eth0"])),
            "spec.interfaces[1]",
            "duplicate",
        ),
        (
            "L2Advertisement",
            l2(
                "preferredNodeSelectors",
                json!([{"weight": 100, "preference": selector}]),
            ),
            "",
            "",
        ),
        (
            "L2Advertisement",
            l2(
                "preferredNodeSelectors",
                json!([{"weight": 0, "preference": selector}]),
            ),
            "spec.preferredNodeSelectors[0].weight",
            "1-100",
        ),
        (
            "L2Advertisement",
            l2(
                "preferredNodeSelectors",
                json!([{"weight": 101, "preference": selector}]),
            ),
            "spec.preferredNodeSelectors[0].weight",
            "1-100",
        ),
        (
            "L2Advertisement",
            l2(
                "preferredNodeSelectors",
                json!([{"weight": 1, "preference": selector}, {"weight": 2, "preference": selector}]),
            ),
            "spec.preferredNodeSelectors[1]",
            "duplicate",
        ),
        (
            "BGPPeer",
            peer("myASN", json!(0)),
            "spec.myASN",
            "missing local ASN",
        ),
        (
            "BGPPeer",
            peer("peerASN", json!(0)),
            "spec.peerASN",
            "missing peer ASN and dynamicASN",
        ),
        (
            "BGPPeer",
            peer("dynamicASN", json!("internal")),
            "spec.dynamicASN",
            "both peer ASN and dynamicASN",
        ),
        (
            "BGPPeer",
            peer("localASN", json!(0)),
            "spec.localASN",
            "invalid local ASN",
        ),
        (
            "BGPPeer",
            peer("peerAddress", json!("")),
            "spec.peerAddress",
            "missing peer address",
        ),
        (
            "BGPPeer",
            peer("peerAddress", json!("1.2.3.400")),
            "spec.peerAddress",
            "invalid BGPPeer address \"1.2.3.400\"",
        ),
        (
            "BGPPeer",
            peer("interface", json!("eth0")),
            "spec.interface",
            "both peer address and interface",
        ),
        (
            "BGPPeer",
            peer("sourceAddress", json!("x")),
            "spec.sourceAddress",
            "invalid source IP \"x\"",
        ),
        (
            "BGPPeer",
            peer("routerID", json!("oh god how do I BGP")),
            "spec.routerID",
            "invalid router ID",
        ),
        (
            "BGPPeer",
            peer("peerPort", json!(0)),
            "spec.peerPort",
            "1-16384",
        ),
        (
            "BGPPeer",
            peer("peerPort", json!(16385)),
            "spec.peerPort",
            "1-16384",
        ),
        (
            "BGPPeer",
            peer("holdTime", json!("1s")),
            "spec.holdTime",
            "must be 0 or >=3s",
        ),
        (
            "BGPPeer",
            peer("holdTime", json!("-3s")),
            "spec.holdTime",
            "must be 0 or >=3s",
        ),
        ("BGPPeer", peer("holdTime", json!("0s")), "", ""),
        ("BGPPeer", peer("holdTime", json!("180s")), "", ""),
        ("BGPPeer", peer("keepaliveTime", json!("1s")), "", ""),
        (
            "BGPPeer",
            with(peer("holdTime", json!("9s")), "keepaliveTime", json!("10s")),
            "spec.keepaliveTime",
            "must be lower",
        ),
        (
            "BGPPeer",
            peer("connectTime", json!("1500ms")),
            "spec.connectTime",
            "whole seconds",
        ),
        (
            "BGPPeer",
            peer("connectTime", json!("65536s")),
            "spec.connectTime",
            "whole seconds",
        ),
        ("BGPPeer", peer("connectTime", json!("10s")), "", ""),
        (
            "BGPPeer",
            peer("nodeSelectors", twice),
            "spec.nodeSelectors[1]",
            "duplicate",
        ),
        (
            "BGPPeer",
            with(
                peer("password", json!("x")),
                "passwordSecret",
                json!({"name": "y"}),
            ),
            "spec.passwordSecret",
            "both password and secret",
        ),
        (
            "BGPPeer",
            with(peer("ebgpMultiHop", json!(true)), "peerASN", json!(64500)),
            "spec.ebgpMultiHop",
            "ibgp",
        ),
        (
            "BGPPeer",
            peer("disableMP", json!(true)),
            "w:spec.disableMP",
            "no effect",
        ),
        (
            "BGPAdvertisement",
            json!({"aggregationLength": 33}),
            "spec.aggregationLength",
            "invalid aggregation length 33 for IPv4",
        ),
        (
            "BGPAdvertisement",
            json!({"aggregationLengthV6": 129}),
            "spec.aggregationLengthV6",
            "for IPv6",
        ),
        (
            "BGPAdvertisement",
            json!({"aggregationLength": 24, "serviceSelectors": [selector]}),
            "spec.serviceSelectors",
            "aggregationLength",
        ),
        (
            "BGPAdvertisement",
            json!({"communities": ["1234:5678", "large:1:2:3"]}),
            "",
            "",
        ),
        (
            "BGPAdvertisement",
            json!({"communities": ["1234:5678", "alias"]}),
            "spec.communities[1]",
            "invalid community \"alias\" in BGP advertisement",
        ),
        (
            "BGPAdvertisement",
            json!({"peers": ["nobody"]}),
            "w:spec.peers",
            "no BGPPeer \"nobody\" is in force",
        ),
        (
            "BGPPeer",
            peer("bfdProfile", json!("none")),
            "spec.bfdProfile",
            "referencing non existing bfd profile none",
        ),
        (
            "BGPPeer",
            peer("routerID", json!("2001:db8::1")),
            "spec.routerID",
            "it has 32 bits",
        ),
        (
            "BGPPeer",
            peer("vrf", json!("red\nblue")),
            "spec.vrf",
            "contains invalid characters",
        ),
        (
            "BGPAdvertisement",
            json!({"communities": ["1234:99999"]}),
            "spec.communities[0]",
            "invalid section \"99999\"",
        ),
        (
            "BGPAdvertisement",
            json!({"communities": ["1:2", "1:2"]}),
            "spec.communities[1]",
            "duplicate",
        ),
        (
            "BGPAdvertisement",
            json!({"peers": ["a", "a"]}),
            "spec.peers[1]",
            "duplicate definition of peers",
        ),
        (
            "BGPAdvertisement",
            json!({"ipAddressPools": ["a", "a"]}),
            "spec.ipAddressPools[1]",
            "duplicate",
        ),
        ("BFDProfile", json!({}), "", ""),
        (
            "BFDProfile",
            json!({"receiveInterval": 9}),
            "spec.receiveInterval",
            "10-60000",
        ),
        (
            "BFDProfile",
            json!({"transmitInterval": 60001}),
            "spec.transmitInterval",
            "10-60000",
        ),
        (
            "BFDProfile",
            json!({"detectMultiplier": 1}),
            "spec.detectMultiplier",
            "2-255",
        ),
        (
            "BFDProfile",
            json!({"minimumTtl": 255}),
            "spec.minimumTtl",
            "1-254",
        ),
        (
            "BFDProfile",
            json!({"echoInterval": 50, "echoMode": true}),
            "",
            "",
        ),
        (
            "Community",
            json!({"communities": [{"name": "a", "value": "1:2"}]}),
            "",
            "",
        ),
        (
            "Community",
            json!({"communities": [{"name": "a", "value": "1"}]}),
            "spec.communities[0].value",
            "invalid community format",
        ),
        (
            "Community",
            json!({"communities": [{"name": "a", "value": "1:2"}, {"name": "a", "value": "1:3"}]}),
            "spec.communities[1].name",
            "duplicate definition of community \"a\"",
        ),
    ];
    for (kind, spec, field, message) in table {
        let text = format!("{kind} {spec}");
        let compiled = fresh([object(kind, "it", spec)]);
        let got = verdict(&compiled, "it");
        let (warned, field) = match field.strip_prefix("w:") {
            Some(field) => (true, field),
            None => (false, field),
        };
        assert_eq!(
            got.in_force(),
            warned || field.is_empty(),
            "{text}: {got:?}"
        );
        match got.findings() {
            [] => assert_eq!(field, "", "{text}: nothing found"),
            [finding] => {
                assert_eq!(finding.field, field, "{text}");
                assert!(finding.message.contains(message), "{text}: {finding}");
                assert!(!finding.remedy.is_empty(), "{text}");
            }
            more => panic!("{text}: {more:?}"),
        }
        assert_eq!(
            compiled.accepted.len(),
            usize::from(got.in_force()),
            "{text}"
        );
    }
}

#[test]
fn every_fault_is_named() {
    let spec = json!({"addresses": ["x", "192.0.2.0/24", "y"], "serviceAllocation": {"namespaces": ["a", "a"]}});
    let compiled = fresh([object("IPAddressPool", "p", spec)]);
    let fields: Vec<&str> = verdict(&compiled, "p")
        .findings()
        .iter()
        .map(|f| &*f.field)
        .collect();
    assert_eq!(
        fields,
        [
            "spec.addresses[0]",
            "spec.addresses[2]",
            "spec.serviceAllocation.namespaces[1]"
        ]
    );
}

#[test]
fn another_namespace_is_not_ours() {
    let mut stray = pool("p", &["192.0.2.0/24"]);
    if let Object::IPAddressPool(pool) = &mut stray {
        pool.metadata.namespace = "default".into();
    }
    let compiled = fresh([stray, pool("q", &["192.0.2.0/24"])]);
    let found = verdict(&compiled, "p").findings();
    assert_eq!(
        found[0].message,
        "resource must be created in metallb-system namespace"
    );
    assert_eq!(
        (blocks(&compiled, "p"), blocks(&compiled, "q")),
        ("absent".into(), "192.0.2.0/24".into())
    );
}

#[test]
fn of_two_pools_that_overlap_the_younger_is_left_out() {
    let wide = ["192.0.2.0/24"];
    let narrow = ["198.51.100.0/24", "192.0.2.128-192.0.2.140"];
    // time of a, time of b, who stays
    for (a, b, stays) in [("10", "20", "a"), ("20", "10", "b"), ("10", "10", "a")] {
        let compiled = fresh([created(pool("a", &wide), a), created(pool("b", &narrow), b)]);
        let leaves = if stays == "a" { "b" } else { "a" };
        assert!(verdict(&compiled, stays).in_force());
        let finding = &verdict(&compiled, leaves).findings()[0];
        assert_eq!(blocks(&compiled, leaves), "absent");
        assert!(
            finding
                .message
                .contains("overlaps with already defined CIDR"),
            "{finding}"
        );
        assert!(
            finding.message.contains(&format!("older pool \"{stays}\"")),
            "{finding}"
        );
        let entry = if leaves == "b" { 1 } else { 0 };
        assert_eq!(finding.field, format!("spec.addresses[{entry}]"));
    }
}

#[test]
fn the_last_good_form_stays_and_a_pool_is_frozen() {
    let good = objects([
        pool("p", &["192.0.2.0/24"]),
        pool("q", &["198.51.100.0/24"]),
    ]);
    let before = compile(&good, &Objects::new(), NAMESPACE);
    let ad = |name: &str| {
        object(
            "L2Advertisement",
            "ad",
            json!({"interfaces": [name, "eth1"]}),
        )
    };
    let ads = compile(&objects([ad("eth0")]), &Objects::new(), NAMESPACE);

    let now = objects([
        pool("p", &["192.0.2.0/24", "nonsense"]),
        pool("q", &["198.51.100.0/24"]),
    ]);
    let after = compile(&now, &before.accepted, NAMESPACE);
    assert!(matches!(
        verdict(&after, "p"),
        Verdict::Bad {
            last_good: true,
            ..
        }
    ));
    assert_eq!(blocks(&after, "p"), "192.0.2.0/24");
    assert!(after.config.pools["p"].frozen && !after.config.pools["q"].frozen);
    // It does not wear off.
    assert_eq!(compile(&now, &after.accepted, NAMESPACE), after);
    assert_eq!(after.accepted, before.accepted);
    // Without the last good form it is absent; mended it thaws; deleted it is gone.
    let lost = compile(&now, &Objects::new(), NAMESPACE);
    assert!(matches!(
        verdict(&lost, "p"),
        Verdict::Bad {
            last_good: false,
            ..
        }
    ));
    assert_eq!(blocks(&lost, "p"), "absent");
    assert_eq!(compile(&good, &after.accepted, NAMESPACE), before);
    let rest = compile(
        &objects([pool("q", &["198.51.100.0/24"])]),
        &after.accepted,
        NAMESPACE,
    );
    assert_eq!((rest.config.pools.len(), rest.accepted.len()), (1, 1));

    let bad_ad = compile(&objects([ad("eth1")]), &ads.accepted, NAMESPACE);
    assert!(!verdict(&bad_ad, "ad").in_force());
    assert_eq!(bad_ad.config, ads.config);
}

#[test]
fn an_older_pool_that_grows_takes_addresses_but_freezes_the_younger() {
    let old = |addresses: &[&str]| created(pool("old", addresses), "10");
    let young = created(pool("young", &["192.0.2.0/24"]), "20");
    let before = fresh([old(&["198.51.100.0/24"]), young.clone()]);
    let after = compile(
        &objects([old(&["198.51.100.0/24", "192.0.2.64/26"]), young.clone()]),
        &before.accepted,
        NAMESPACE,
    );
    assert_eq!(blocks(&after, "old"), "198.51.100.0/24 192.0.2.64/26");
    assert_eq!(blocks(&after, "young"), "192.0.2.0/26 192.0.2.128/25");
    assert!(after.config.pools["young"].frozen);
    // The younger one grows over the older: it keeps what it had.
    let grown = created(pool("young", &["192.0.2.0/24", "198.51.100.0/25"]), "20");
    let after = compile(
        &objects([old(&["198.51.100.0/24"]), grown]),
        &before.accepted,
        NAMESPACE,
    );
    assert_eq!(blocks(&after, "young"), "192.0.2.0/24");
    assert!(after.config.pools["young"].frozen && verdict(&after, "old").in_force());
}

#[test]
fn advertisements_reach_pools_by_name_and_label() {
    let labelled = |name: &str, block: &str, label: &str| {
        manifest(json!({
            "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"zone": label}},
            "spec": {"addresses": [block]},
        }))
    };
    let zone = |zone: &str| json!({"matchLabels": {"zone": zone}});
    let compiled = fresh([
        labelled("a", "192.0.2.0/26", "x"),
        labelled("b", "192.0.2.64/26", "y"),
        labelled("c", "192.0.2.128/26", "z"),
        labelled("bad", "192.0.2.0/33", "x"),
        object("L2Advertisement", "all", json!({})),
        object(
            "L2Advertisement",
            "none",
            json!({"ipAddressPools": ["missing"]}),
        ),
        object(
            "L2Advertisement",
            "union",
            json!({
            "ipAddressPools": ["a", "c", "bad"], "ipAddressPoolSelectors": [zone("y"), zone("x")]}),
        ),
        object(
            "L2Advertisement",
            "label",
            json!({"ipAddressPoolSelectors": [zone("x")]}),
        ),
    ]);
    for (name, want) in [
        ("all", "a b c"),
        ("none", ""),
        ("union", "a b c"),
        ("label", "a"),
    ] {
        let pools: Vec<&str> = compiled.config.l2[name]
            .pools
            .iter()
            .map(|pool| &**pool)
            .collect();
        assert_eq!(pools.join(" "), want, "{name}");
    }
    assert!(matches!(verdict(&compiled, "union"), Verdict::Warned(found) if found.len() == 1));
    assert!(matches!(verdict(&compiled, "none"), Verdict::Warned(_)));
}

/// Cases after MetalLB's TestPreferredNodeScores (Apache-2.0).
#[test]
fn preferences_are_summed_within_the_nodes_of_the_advertisement() {
    let label = |key: &str| json!({"matchLabels": {key: "yes"}});
    let spec = json!({
        "nodeSelectors": [label("edge")],
        "serviceSelectors": [label("public")],
        "preferredNodeSelectors": [
            {"weight": 100, "preference": label("fast")},
            {"weight": 7, "preference": label("new")},
        ],
    });
    let compiled = fresh([object("L2Advertisement", "ad", spec)]);
    let ad = &compiled.config.l2["ad"];
    let labels = |keys: &str| -> Labels {
        keys.split_whitespace()
            .map(|key| (key.to_owned(), "yes".to_owned()))
            .collect()
    };
    for (keys, score) in [
        ("edge", 0),
        ("edge fast", 100),
        ("edge fast new", 107),
        ("fast new", 0),
        ("", 0),
    ] {
        assert_eq!(ad.score(&labels(keys)), score, "{keys}");
        assert_eq!(
            ad.allows_node(&labels(keys)),
            keys.contains("edge"),
            "{keys}"
        );
    }
    assert!(ad.allows_service(&labels("public")) && !ad.allows_service(&labels("edge")));
}

/// A text that is sometimes right.
fn entry() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (0u8..8, 24u8..33).prop_map(|(n, len)| format!("192.0.2.{}/{len}", n * 32)),
        4 => (0u8..20, 0u8..20).prop_map(|(a, b)| format!("192.0.2.{a}-192.0.2.{b}")),
        2 => (0u8..9, 120u8..129).prop_map(|(n, len)| format!("2001:db8::{n}/{len}")),
        1 => ".{0,30}",
    ]
}

fn any_object() -> impl Strategy<Value = Object> {
    let name = prop::sample::select(vec!["a", "b", "c", "d"]);
    let selector = (".{0,8}", prop::sample::select(vec!["In", "NotIn", "Exists", ""]), ".{0,8}")
        .prop_map(|(key, operator, value)| {
            json!({"matchExpressions": [{"key": key, "operator": operator, "values": [value]}]})
        });
    prop_oneof![
        4 => (name.clone(), prop::collection::vec(entry(), 0..4), 10u8..15).prop_map(
            |(name, addresses, time)| {
                let spec = json!({ "addresses": addresses });
                created(object("IPAddressPool", name, spec), &time.to_string())
            }
        ),
        1 => (name.clone(), prop::collection::vec(selector, 0..3), ".{0,8}", any::<i32>()).prop_map(
            |(name, selectors, interface, weight)| {
                let preferred: Vec<Value> = selectors
                    .iter()
                    .map(|selector| json!({"weight": weight, "preference": selector}))
                    .collect();
                object("L2Advertisement", name, json!({
                    "ipAddressPools": ["a", interface], "nodeSelectors": selectors,
                    "interfaces": [interface], "preferredNodeSelectors": preferred}))
            }
        ),
        1 => (name.clone(), ".{0,20}", any::<u16>(), any::<i64>()).prop_map(
            |(name, text, port, nanos)| {
                let time = api::duration::Duration::from_nanos(nanos.max(-i64::MAX)).to_string();
                object("BGPPeer", name, json!({
                    "myASN": port, "peerASN": 1, "peerAddress": text, "routerID": text,
                    "peerPort": port, "holdTime": time, "keepaliveTime": time,
                    "connectTime": time}))
            }
        ),
        1 => (name.clone(), ".{0,20}").prop_map(|(name, text)| {
            object("Community", name, json!({"communities": [{"name": text, "value": text}]}))
        }),
        1 => (name.clone(), prop::collection::vec(entry(), 0..3), 10u8..15).prop_map(
            |(name, addresses, time)| {
                let spec = json!({ "addresses": addresses });
                created(own("AddressPool", name, spec), &time.to_string())
            }
        ),
        1 => (name.clone(), prop::sample::select(vec!["1:2", "one"])).prop_map(|(name, alias)| {
            object("Community", name, json!({"communities": [{"name": alias, "value": "1:2"}]}))
        }),
        1 => (name.clone(), any::<bool>()).prop_map(|(name, echo)| {
            object("BFDProfile", name, json!({"echoMode": echo}))
        }),
        3 => (name.clone(), 1u8..4, 1u8..3, prop::option::of(name.clone()), 10u8..15).prop_map(
            |(name, address, asn, profile, time)| {
                created(object("BGPPeer", name, json!({
                    "myASN": asn, "peerASN": 7, "peerAddress": format!("10.0.0.{address}"),
                    "bfdProfile": profile.unwrap_or_default()})), &time.to_string())
            }
        ),
        3 => (name.clone(), 23u8..33, 0u8..3, prop::option::of(name.clone()), any::<bool>(),
              10u8..15).prop_map(
            |(name, length, preference, peer, alias, time)| {
                let communities = if alias { vec!["one"] } else { vec![] };
                let peers: Vec<&str> = peer.into_iter().collect();
                created(object("BGPAdvertisement", name, json!({
                    "aggregationLength": length, "localPref": preference, "peers": peers,
                    "communities": communities})), &time.to_string())
            }
        ),
        1 => (name, prop::sample::select(vec!["layer2", "bgp", "linux"]), 10u8..15).prop_map(
            |(name, way, time)| {
                created(own("Advertisement", name, json!({way: {}})), &time.to_string())
            }
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_objects(
        steps in prop::collection::vec(prop::collection::vec(any_object(), 0..8), 1..6),
    ) {
        let mut accepted = Objects::new();
        for step in steps {
            let objects = objects(step);
            let before = compile(&Objects::new(), &accepted, NAMESPACE);
            prop_assert_eq!(before, Compiled::default(), "what is not there is not in force");
            let compiled = compile(&objects, &accepted, NAMESPACE);
            prop_assert!(compiled.verdicts.keys().eq(objects.keys()), "one verdict for each");
            for (reference, object) in &objects {
                if compiled.verdicts[reference].in_force() {
                    prop_assert_eq!(compiled.accepted.get(reference), Some(object));
                }
                let had = accepted.contains_key(reference);
                let last_good = matches!(
                    compiled.verdicts[reference], Verdict::Bad { last_good: true, .. });
                prop_assert!(had || !last_good);
                prop_assert!(!had || compiled.accepted.contains_key(reference), "nothing is lost");
            }
            // No address is in two pools: the allocator takes every block.
            let mut allocator = Allocator::new();
            allocator.set_pools(compiled.config.pools.values().cloned());
            for pool in compiled.config.pools.values() {
                for block in &pool.blocks {
                    for ip in [block.network(), block.broadcast()] {
                        let owner = allocator.pool_of(ip).map(|owner| &owner.name);
                        prop_assert_eq!(owner, Some(&pool.name));
                    }
                }
            }
            // Compiling again changes nothing.
            prop_assert_eq!(&compile(&objects, &compiled.accepted, NAMESPACE), &compiled);
            accepted = compiled.accepted;
        }
    }

    #[test]
    fn a_bad_object_leaves_the_rest_as_it_was(
        objects_before in prop::collection::vec(any_object(), 0..10),
        kind in prop::sample::select(vec!["pool", "peer", "ad", "alias", "profile", "own"]),
    ) {
        let before = objects(objects_before);
        let bad = match kind {
            "pool" => pool("bad", &["192.0.2.0/24", "x"]),
            "peer" => object("BGPPeer", "bad", json!({"myASN": 0})),
            "ad" => object("BGPAdvertisement", "bad", json!({"aggregationLength": 99})),
            "alias" => object("Community", "bad", json!({"communities": [
                {"name": "one", "value": "x"}]})),
            "profile" => object("BFDProfile", "bad", json!({"receiveInterval": 1})),
            _ => own("Advertisement", "bad", json!({"linux": {"aggregationLength": 24}})),
        };
        let mut after = before.clone();
        after.insert(bad.reference(), Arc::new(bad.clone()));
        let before = compile(&before, &Objects::new(), NAMESPACE);
        let mut after = compile(&after, &Objects::new(), NAMESPACE);
        let verdict = after.verdicts.remove(&bad.reference());
        prop_assert!(verdict.is_some_and(|verdict| !verdict.in_force()));
        prop_assert_eq!(after, before);
    }
}
