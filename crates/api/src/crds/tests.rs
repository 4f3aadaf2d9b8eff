use std::path::{Path, PathBuf};

use super::*;

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds")
}

/// The files in `deploy/crds` are what the types say. `UPDATE_GOLDEN=1` rewrites them.
#[test]
fn golden_files() {
    let dir = golden_dir();
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for (name, want) in files() {
        let path = dir.join(&name);
        if update {
            std::fs::create_dir_all(&dir).expect("make the directory");
            std::fs::write(&path, &want).expect("write a golden file");
        }
        let have = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            have == want,
            "{name} differs from the types; UPDATE_GOLDEN=1 rewrites it"
        );
    }
    let count = std::fs::read_dir(&dir).expect("read the directory").count();
    assert_eq!(count, files().len(), "a file in deploy/crds is of no kind");
}

/// Walks all schemas and calls back with the path of each.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    if let Some(Value::Object(properties)) = schema.get("properties") {
        for (name, property) in properties {
            walk(property, &format!("{path}.{name}"), visit);
        }
    }
    for nested in ["items", "additionalProperties"] {
        if let Some(nested) = schema.get(nested) {
            walk(nested, &format!("{path}[]"), visit);
        }
    }
}

fn each_schema(mut visit: impl FnMut(&str, &Value)) {
    for crd in all() {
        let kind = crd["spec"]["names"]["kind"]
            .as_str()
            .expect("kind")
            .to_owned();
        for version in crd["spec"]["versions"].as_array().expect("versions") {
            walk(&version["schema"]["openAPIV3Schema"], &kind, &mut visit);
        }
    }
}

#[test]
fn schemas_are_structural() {
    each_schema(|path, schema| {
        assert!(schema["type"].is_string(), "{path} has no type: {schema}");
        for banned in [
            "$ref",
            "$schema",
            "anyOf",
            "oneOf",
            "allOf",
            "definitions",
            "const",
        ] {
            assert!(schema.get(banned).is_none(), "{path} has {banned}");
        }
        if let Some(format) = schema.get("format").and_then(Value::as_str) {
            assert!(
                matches!(format, "int32" | "int64" | "date-time"),
                "{path}: {format}"
            );
        }
        for required in schema["required"].as_array().into_iter().flatten() {
            let name = required.as_str().expect("a name");
            assert!(
                schema["properties"][name].is_object(),
                "{path} requires {name}"
            );
        }
        if schema["x-kubernetes-list-type"] == "set" && schema["items"]["type"] == "object" {
            assert_eq!(schema["items"]["x-kubernetes-map-type"], "atomic", "{path}");
        }
    });
}

#[test]
fn every_field_of_a_spec_is_described() {
    each_schema(|path, schema| {
        // Items and the plain parts of an object carry no text of their own.
        if path.matches('.').count() == 2 && !path.contains("[]") {
            assert!(
                schema["description"].is_string(),
                "{path} has no description"
            );
        }
    });
}

#[test]
fn defaults_are_those_of_the_types() {
    let mut found = Vec::new();
    each_schema(|path, schema| {
        if let Some(default) = schema.get("default") {
            found.push(format!("{path}={default}"));
        }
    });
    assert_eq!(
        found,
        [
            "AddressPool.spec.autoAssign=true",
            "AddressPool.spec.avoidBuggyIPs=false",
            "Advertisement.spec.bgp.aggregationLength=32",
            "Advertisement.spec.bgp.aggregationLengthV6=128",
            "Advertisement.spec.layer2.handBack=true",
            "Advertisement.spec.layer2.mac=\"Node\"",
            "Advertisement.spec.linux.aggregationLength=32",
            "Advertisement.spec.linux.aggregationLengthV6=128",
            "Peer.spec.peerPort=179",
            "BGPAdvertisement.spec.aggregationLength=32",
            "BGPAdvertisement.spec.aggregationLengthV6=128",
            "BGPPeer.spec.disableMP=false",
            "BGPPeer.spec.dualStackAddressFamily=false",
            "BGPPeer.spec.peerPort=179",
            "IPAddressPool.spec.autoAssign=true",
            "IPAddressPool.spec.avoidBuggyIPs=false",
        ]
    );
    let spec = v1beta2::BGPPeerSpec::default();
    assert_eq!((spec.peer_port, spec.disable_mp), (179, false));
    assert!(v1beta1::IPAddressPoolSpec::default().auto_assign);
    let spec = v1beta1::BGPAdvertisementSpec::default();
    assert_eq!(
        (spec.aggregation_length, spec.aggregation_length_v6),
        (32, 128)
    );
}

#[test]
fn one_version_of_each_kind_is_stored() {
    for crd in all() {
        let versions = crd["spec"]["versions"].as_array().expect("versions");
        let stored = versions.iter().filter(|v| v["storage"] == true).count();
        assert_eq!(stored, 1, "{}", crd["metadata"]["name"]);
    }
}
