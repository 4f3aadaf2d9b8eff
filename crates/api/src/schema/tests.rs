use serde_json::json;

use super::*;

fn violations(kind: &str, version: &str, spec: Value) -> Vec<String> {
    let object = json!({"metadata": {"name": "x"}, "spec": spec});
    validate(kind, &format!("metallb.io/{version}"), &object)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn what_the_api_server_would_say() {
    let peer = json!({"myASN": 64500, "peerASN": 64501, "peerAddress": "10.0.0.1"});
    let with = |name: &str, value: Value| {
        let mut peer = peer.clone();
        peer[name] = value;
        peer
    };
    let cases = [
        ("BGPPeer", peer.clone(), ""),
        (
            "BGPPeer",
            with("peerPort", json!(70000)),
            "spec.peerPort: Invalid value: 70000: should be less than or equal to 16384",
        ),
        (
            "BGPPeer",
            with("peerPort", json!(0)),
            "spec.peerPort: Invalid value: 0: should be greater than or equal to 1",
        ),
        (
            "BGPPeer",
            with("myASN", json!("64500")),
            "spec.myASN: Invalid value: \"string\": must be of type integer: \"string\"",
        ),
        (
            "BGPPeer",
            with("myASN", json!(4_294_967_296_u64)),
            "spec.myASN: Invalid value: 4294967296: should be less than or equal to 4294967295",
        ),
        (
            "BGPPeer",
            with("dynamicASN", json!("any")),
            "spec.dynamicASN: Unsupported value: \"any\": supported values: \"internal\", \"external\"",
        ),
        ("BGPPeer", json!({}), "spec.myASN: Required value"),
        ("BGPPeer", with("peerPort", Value::Null), ""),
        ("IPAddressPool", json!({}), "spec.addresses: Required value"),
        (
            "IPAddressPool",
            json!({"addresses": []}),
            "spec.addresses: Invalid value: 0: should have at least 1 items",
        ),
        (
            "IPAddressPool",
            json!({"addresses": ["10.0.0.0/24", "10.0.0.0/24"]}),
            "spec.addresses[1]: Duplicate value: \"10.0.0.0/24\"",
        ),
        (
            "IPAddressPool",
            json!({"addresses": ["a"], "autoAssign": "no"}),
            "spec.autoAssign: Invalid value: \"string\": must be of type boolean: \"string\"",
        ),
        (
            "L2Advertisement",
            json!({"preferredNodeSelectors": [{"weight": 101, "preference": {}}]}),
            "spec.preferredNodeSelectors[0].weight: Invalid value: 101: should be less than or \
             equal to 100",
        ),
        (
            "L2Advertisement",
            json!({"nodeSelectors": [{"matchExpressions": [{"key": "a", "operator": "in"}]}]}),
            "spec.nodeSelectors[0].matchExpressions[0].operator: Unsupported value: \"in\": \
             supported values: \"In\", \"NotIn\", \"Exists\", \"DoesNotExist\"",
        ),
        (
            "L2Advertisement",
            json!({"nodeSelectors": [{"matchLabels": {"a": 1}}]}),
            "spec.nodeSelectors[0].matchLabels.a: Invalid value: \"integer\": must be of type string: \
             \"integer\"",
        ),
        (
            "L2Advertisement",
            Value::Null,
            "spec: Invalid value: \"null\": must be of type object: \"null\"",
        ),
        ("Unheard", json!({"a": 1}), ""),
    ];
    for (kind, spec, want) in cases {
        let version = if kind == "BGPPeer" {
            "v1beta2"
        } else {
            "v1beta1"
        };
        assert_eq!(violations(kind, version, spec).join("\n"), want);
    }
}

#[test]
fn versions_have_their_own_schema() {
    let spec = json!({"myASN": 1});
    assert_eq!(violations("BGPPeer", "v1beta2", spec.clone()), [""; 0]);
    assert_eq!(
        violations("BGPPeer", "v1beta1", spec),
        [
            "spec.peerASN: Required value",
            "spec.peerAddress: Required value"
        ]
    );
}

/// One line of `testdata/judged.jsonl`: an object and what a real API server does with it. The
/// lab's test `crds` holds the same lines against one.
fn judged() -> impl Iterator<Item = Value> {
    include_str!("../../testdata/judged.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
}

#[test]
fn judged_as_the_api_server_does() {
    let mut seen = 0;
    for line in judged() {
        let object = &line["object"];
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let found = validate(&text(&object["kind"]), &text(&object["apiVersion"]), object);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        // Rules in CEL are not run offline.
        if line["expect"] == "schema" {
            let says = text(&line["says"]);
            assert!(
                found.iter().any(|message| message.contains(&says)),
                "{line}: {found:?}"
            );
        } else {
            assert!(found.is_empty(), "{line}: {found:?}");
        }
        seen += 1;
    }
    assert!(seen > 80, "{seen} lines");
}

#[test]
fn what_is_good_decodes_without_unknown_fields() {
    for line in judged().filter(|line| line["expect"] == "good") {
        let decoded = crate::object::Object::decode(line["object"].clone()).expect("decodes");
        assert_eq!(decoded.unknown_fields, [""; 0], "{line}");
    }
}
