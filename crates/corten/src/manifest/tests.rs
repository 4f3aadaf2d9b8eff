use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parsed(text: &str) -> Parsed {
    parse("f.yaml", text.as_bytes())
}

/// The problems as `line: object: field: message`.
fn problems(text: &str) -> Vec<String> {
    let shown = |problem: &Problem| {
        assert!(!problem.remedy.is_empty(), "{problem}");
        let text = problem.to_string();
        let text = text.strip_prefix("f.yaml:").expect("the file");
        text.strip_suffix(&format!(" ({})", problem.remedy))
            .expect("the remedy")
            .to_owned()
    };
    parsed(text).problems.iter().map(shown).collect()
}

const POOL: &str = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata:\n  name: p\n  \
                    namespace: metallb-system\n";

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: s\n";

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: s\n";

#[test]
fn the_examples_are_good() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let files = [
        ("l2/ip-pool.yaml", "IPAddressPool metallb-system/ip-pool"),
        ("l2/l2adver.yaml", "L2Advertisement metallb-system/l2adver"),
        ("l2/service.yaml", "Service default/myapp-svc"),
        ("bgp/sample.yaml", "BGPPeer metallb-system/sample"),
        (
            "bgp/first-pool.yaml",
            "IPAddressPool metallb-system/first-pool",
        ),
        (
            "bgp/bgpadver.yaml",
            "BGPAdvertisement metallb-system/bgpadver",
        ),
        ("bgp/service.yaml", "Service default/myapp-svc"),
    ];
    for (file, want) in files {
        let parsed = read(&dir.join(file)).expect(file);
        assert_eq!(parsed.problems, [], "{file}");
        let [manifest] = parsed.manifests.as_slice() else {
            panic!("{file}: {parsed:?}")
        };
        let object = &manifest.object;
        let named = format!("{} {}/{}", object.kind(), object.namespace(), object.name());
        assert_eq!(named, want);
        assert_eq!(
            manifest.at.line, 2,
            "{file} begins with one line of comment"
        );
    }
}

#[test]
fn one_bad_document_leaves_the_others() {
    let text = format!(
        "# comment\n---\n{POOL}spec: {{addresses: [10.0.0.0/24]}}\n---\nkind: [broken\n---\n{NAMESPACE}\
         ---\n--- # empty\n"
    );
    let parsed = parsed(&text);
    let kinds: Vec<_> = parsed
        .manifests
        .iter()
        .map(|m| m.object.kind().to_owned())
        .collect();
    assert_eq!(kinds, ["IPAddressPool", "Namespace"]);
    let [problem] = parsed.problems.as_slice() else {
        panic!("{parsed:?}")
    };
    assert!(problem.message.starts_with("invalid YAML"), "{problem}");
    // The bracket is missed where the document ends.
    assert!((10..=11).contains(&problem.line), "{problem}");
}

#[test]
fn problems_have_the_line_of_the_field() {
    let cases = [
        (
            format!("{POOL}spec:\n  adresses:\n  - 10.0.0.0/24\n"),
            vec![
                "6: IPAddressPool metallb-system/p: spec.addresses: Required value",
                "7: IPAddressPool metallb-system/p: spec.adresses: unknown field \"spec.adresses\"",
            ],
        ),
        (
            format!("{POOL}spec:\n  addresses: [10.0.0.0/24]\n  autoAssign: no\n"),
            vec![
                "8: IPAddressPool metallb-system/p: spec.autoAssign: Invalid value: \"string\": must be \
                 of type boolean: \"string\"",
            ],
        ),
        (
            format!("{SERVICE}spec:\n  ports:\n  - port: 80\n  - port: 70000\n    foo: 1\n"),
            vec![
                "8: Service default/s: spec.ports[1].port: invalid value: integer `70000`, expected \
                 u16",
            ],
        ),
        (
            format!("{SERVICE}spec:\n  ports:\n  - port: 80\n    foo: 1\n  type: ClusterIP\n"),
            vec!["8: Service default/s: spec.ports[0].foo: unknown field \"spec.ports[0].foo\""],
        ),
        (
            format!(
                "{SERVICE}spec:\n  type: ClusterIP\n  type: NodePort\n  ports: [{{port: 80}}]\n"
            ),
            vec!["7: Service default/s: spec.type: duplicate field \"spec.type\""],
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  labels: {}\n".to_owned(),
            vec!["3: Namespace: metadata.name: Required value"],
        ),
        (
            "kind: Service\nmetadata: {name: s}\n".to_owned(),
            vec!["1: Service s: apiVersion: not set"],
        ),
        (
            format!("{SERVICE}  labels: {{a.b/c: 5}}\n"),
            vec![
                "5: Service default/s: metadata.labels.a.b/c: invalid type: integer `5`, expected a \
                 string",
            ],
        ),
        ("- a\n".to_owned(), vec!["1: not a Kubernetes object"]),
        ("text\n".to_owned(), vec!["1: not a Kubernetes object"]),
        (
            "apiVersion: v1\nkind: Node\nmetadata: {name: My_Svc}\n".to_owned(),
            vec![
                "3: Node My_Svc: metadata.name: Invalid value: \"My_Svc\": a lowercase \
                 RFC 1123 subdomain is wanted",
            ],
        ),
    ];
    for (text, want) in cases {
        assert_eq!(problems(&text), want, "{text}");
    }
}

/// What has no CRD schema is held against the API server's rules too.
#[test]
fn core_kinds_are_checked() {
    let service = |spec: &str| format!("{SERVICE}spec: {spec}\n");
    let slice = |rest: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s}}\n{rest}\n"
        )
    };
    let cases = [
        (service("{clusterIP: None}"), ""),
        (service("{type: ExternalName}"), ""),
        (service("{}"), "spec.ports: Required value"),
        (
            service("{ports: [{port: 80, name: a}, {port: 80, protocol: UDP, name: b}]}"),
            "",
        ),
        (
            service("{ports: [{}]}"),
            "ports[0].port: Invalid value: 0: must be between",
        ),
        (
            service("{ports: [{port: 80, targetPort: 0}]}"),
            "targetPort: Invalid value: 0",
        ),
        (
            service("{ports: [{port: 80, name: a}, {port: 81}]}"),
            "spec.ports[1].name: Required",
        ),
        (
            service("{ports: [{port: 80, name: a}, {port: 81, name: a}]}"),
            "Duplicate value: \"a\"",
        ),
        (
            service("{ports: [{port: 80, name: a}, {port: 80, name: b}]}"),
            "Duplicate value: TCP 80",
        ),
        (
            service("{clusterIP: None, externalIPs: [10.0.0.01]}"),
            "must be a valid IP address",
        ),
        (
            service("{clusterIP: None, loadBalancerSourceRanges: [10.0.0.0/8, '::/0']}"),
            "",
        ),
        (
            service("{clusterIP: None, loadBalancerSourceRanges: [10.0.0.0]}"),
            "valid CIDR",
        ),
        (
            service("{clusterIP: None, loadBalancerSourceRanges: [10.0.0.0/33]}"),
            "valid CIDR",
        ),
        (
            slice("addressType: IPv4\nendpoints: [{addresses: [10.0.0.1]}]"),
            "",
        ),
        (
            slice("addressType: FQDN\nendpoints: [{addresses: [a.b]}]"),
            "",
        ),
        (
            slice("addressType: IPv6\nendpoints: [{addresses: [10.0.0.1]}]"),
            "valid IPv6 address",
        ),
        (
            slice("addressType: IPv4\nendpoints: [{}]"),
            "endpoints[0].addresses: Required value",
        ),
    ];
    for (text, want) in cases {
        let found = problems(&text);
        match want {
            "" => assert_eq!(found, [""; 0], "{text}"),
            want => assert!(
                found.len() == 1 && found[0].contains(want),
                "{text}: {found:?}"
            ),
        }
    }
}

#[test]
fn unknown_fields_and_violations_come_together() {
    let text = format!("{POOL}spec: {{addresses: [], foo: 1}}\n");
    assert_eq!(problems(&text).len(), 2, "{:?}", problems(&text));
}

#[test]
fn lists_are_opened() {
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {}\n- apiVersion: v1\n  kind: Node\n  metadata:\n    \
         name: t\n    name: u\n",
        NAMESPACE.trim_end().replace('\n', "\n  ")
    );
    let parsed = parsed(&text);
    assert_eq!(parsed.manifests.len(), 1);
    assert_eq!(parsed.manifests[0].object.name(), "s");
    assert_eq!(
        problems(&text),
        ["12: Node t: metadata.name: duplicate field \"metadata.name\""]
    );
}

#[test]
fn json_is_read_too() {
    let value = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80, "targetPort": "http"}]}});
    for text in [
        value.to_string(),
        serde_json::to_string_pretty(&value).expect("JSON"),
        serde_json::to_string_pretty(&value)
            .expect("JSON")
            .replace("  ", "\t"),
    ] {
        let parsed = parsed(&text);
        assert_eq!(parsed.problems, [], "{text}");
        assert_eq!(parsed.manifests.len(), 1, "{text}");
    }
}

#[test]
fn types_of_scalars_hold() {
    let peer = |asn: &str| {
        format!(
            "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {{name: x}}\nspec:\n  myASN: \
             {asn}\n  peerASN: 64501\n  peerAddress: 10.0.0.1\n"
        )
    };
    assert_eq!(problems(&peer("64500")), [""; 0]);
    assert_eq!(problems(&peer("6.45e4")), [""; 0]);
    assert_eq!(
        problems(&peer("\"64500\"")),
        [
            "5: BGPPeer default/x: spec.myASN: Invalid value: \"string\": must be of type integer: \
             \"string\""
        ]
    );
}

#[test]
fn null_is_unset() {
    let text = "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata:\n  name: a\n  \
                labels:\nspec:\n";
    assert_eq!(problems(text), [""; 0]);
    assert_eq!(parsed(text).manifests.len(), 1);
}

#[test]
fn anchors_merge_keys_and_directives() {
    let text = "%YAML 1.2\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: s\n  labels: &l\n    \
                app: x\nspec:\n  ports: [{port: 80}]\n  selector:\n    <<: *l\n    tier: y\n";
    let parsed = parsed(text);
    assert_eq!(parsed.problems, []);
    let Object::Service(service) = &parsed.manifests[0].object else {
        panic!("{parsed:?}")
    };
    assert_eq!(service.spec.selector.len(), 2);
}

#[test]
fn positions_of_fields() {
    let text = format!("{POOL}spec:\n  addresses:\n  - 10.0.0.0/24\n  - 10.1.0.0/24\n");
    let parsed = parsed(&text);
    let manifest = &parsed.manifests[0];
    let line = |field: &str| manifest.position(field).line;
    assert_eq!(line("spec.addresses[1]"), 9);
    assert_eq!(line("spec.addresses"), 7);
    assert_eq!(line("spec.addresses[7]"), 7);
    assert_eq!(line("spec.nothing"), 6);
    assert_eq!(line("metadata.namespace"), 5);
    assert_eq!(line("other"), 1);
}

#[test]
fn foreign_kinds_pass() {
    let parsed =
        parsed("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {x: 1}\n");
    assert_eq!(parsed.problems, []);
    assert!(matches!(parsed.manifests[0].object, Object::Foreign { .. }));
}

#[test]
fn a_password_is_not_shown() {
    let text = "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {name: x}\nspec: {myASN: 1, \
                peerASN: 2, peerAddress: 10.0.0.1, password: 271828}\n";
    assert!(!format!("{:?}", parsed(text)).contains("271828"));
    let good = text.replace("271828", "'271828'");
    assert_eq!(parsed(&good).manifests.len(), 1);
    assert!(!format!("{:?}", parsed(&good)).contains("271828"));
}

#[test]
fn faults_are_counted_and_cheap() {
    let fields: String = (0..100_000)
        .map(|i| format!("  f{i}: 1\n  f{i}: 2\n"))
        .collect();
    let found = problems(&format!(
        "{POOL}spec:\n  addresses: [10.0.0.0/24]\n{fields}"
    ));
    assert_eq!(found.len(), node::MAX_FAULTS);
}

#[test]
fn faults_of_a_list_itself_are_told() {
    let text = format!(
        "apiVersion: v1\nkind: List\nkind: List\nitems:\n- {}\n",
        NAMESPACE.trim_end().replace('\n', "\n  ")
    );
    assert_eq!(problems(&text), ["3: List: kind: duplicate field \"kind\""]);
}

#[test]
fn bounds() {
    let cases = [
        (format!("a: {}", "[".repeat(100)), "nested deeper"),
        (format!("a: {}", "{b: ".repeat(100)), "nested deeper"),
        (
            {
                let mut bomb = "a0: &a0 [xxxxxxxxxx]\n".to_owned();
                for i in 1..30 {
                    let use_before = format!("*a{},", i - 1).repeat(10);
                    bomb.push_str(&format!("a{i}: &a{i} [{use_before}]\n"));
                }
                bomb
            },
            "aliases grow",
        ),
        ("a: &a [*a]".to_owned(), "alias"),
        ("[".repeat(1_000_000), "recursion limit"),
        (" ".repeat(MAX_FILE_BYTES + 1), "more than 8388608 bytes"),
    ];
    for (text, want) in cases {
        let found = problems(&text);
        assert!(
            found.len() == 1 && found[0].contains(want),
            "{want}: {found:?} of {}",
            text.chars().take(80).collect::<String>()
        );
    }
    let bytes = parse("f", b"a: b\n\xff\n");
    assert_eq!(
        (bytes.problems[0].line, bytes.problems[0].message.as_str()),
        (2, "not UTF-8 text")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse("f", &bytes);
    }

    /// Texts made of what YAML gives a meaning.
    #[test]
    fn any_yaml_like_text_ends(words in proptest::collection::vec(
        prop::sample::select(vec![
            "a", ":", ": ", "- ", "-", "---", "...", "\n", "\n  ", "\t", "[", "]", "{", "}", ",",
            "&a ", "*a", "!!str ", "!t", "|", ">-", "\"", "'", "#", " #", "? ", "%YAML 1.2", "<<",
            "\\u12", "\\", "\r", "\u{85}", "\u{feff}", "\u{e9}", "\0", "@", "`", "apiVersion: v1\n",
            "kind: List\n", "items:\n", "kind: Service\n", "spec:", "null", "1e999", "0x",
        ]),
        0..60,
    )) {
        let text = words.concat();
        let parsed = parsed(&text);
        // A carriage return alone breaks a line too.
        let lines = text.split(['\n', '\r']).count();
        for problem in &parsed.problems {
            prop_assert!(problem.line >= 1 && problem.line <= lines + 1, "{problem}");
        }
    }
}
