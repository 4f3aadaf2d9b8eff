//! `CustomResourceDefinition`s of every kind that Corten serves, made from the Rust types.
//!
//! Field names, types, ranges and texts come from the structs; what a struct cannot say (rules
//! in CEL, printer columns) is in `rules` and in the table here. Sources: `MetalLB` API
//! reference; Kubernetes "structural schemas" and "validation rules".
//!
//! `BGPPeer` is served in two versions with conversion strategy None: the API server changes
//! `apiVersion` and prunes what the version lacks. The fields of v1beta1 are a subset of those
//! of v1beta2 with the same names and meaning, so reading and writing v1beta2 loses nothing, and
//! v1beta1 shows and keeps what `MetalLB`'s converter keeps: an update through v1beta1 drops
//! the newer fields, there as here. One value needs care: v1beta1 may say port 0, which is
//! stored as it is; readers take it as 179.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::Kind;
use crate::metallb::{v1beta1, v1beta2};

mod native;
mod rules;
mod structural;
pub mod yaml;

#[cfg(test)]
mod tests;

/// One served version of a kind.
struct Version {
    name: &'static str,
    description: &'static str,
    spec: Option<Value>,
    status: Option<Value>,
    columns: Value,
    /// Users cannot leave the spec out.
    spec_required: bool,
    /// Set for a version that is served but no longer stored.
    deprecated: Option<&'static str>,
}

/// Every definition, by group and name.
pub fn all() -> Vec<Value> {
    let mut all = native::all();
    all.extend([
        one::<v1beta1::BFDProfile>(Version {
            spec: Some(schema_of::<v1beta1::BFDProfileSpec>()),
            status: empty(),
            columns: columns(&[
                ("Passive Mode", ".spec.passiveMode", 0),
                ("Transmit Interval", ".spec.transmitInterval", 0),
                ("Receive Interval", ".spec.receiveInterval", 0),
                ("Multiplier", ".spec.detectMultiplier", 0),
            ]),
            ..version(
                "v1beta1",
                "Settings of the BFD sessions that go with BGP sessions.",
            )
        }),
        one::<v1beta1::BGPAdvertisement>(Version {
            spec: Some(rules::bgp_advertisement(schema_of::<
                v1beta1::BGPAdvertisementSpec,
            >())),
            status: empty(),
            columns: columns(&[
                ("IPAddressPools", ".spec.ipAddressPools", 0),
                ("IPAddressPool Selectors", ".spec.ipAddressPoolSelectors", 0),
                ("Peers", ".spec.peers", 0),
                ("Node Selectors", ".spec.nodeSelectors", 10),
            ]),
            ..version(
                "v1beta1",
                "Advertises the addresses of the selected pools over BGP.",
            )
        }),
        bgp_peer(),
        one::<v1beta1::Community>(Version {
            spec: Some(rules::community(schema_of::<v1beta1::CommunitySpec>())),
            status: empty(),
            ..version("v1beta1", "Names for BGP communities.")
        }),
        one::<v1beta1::ConfigurationState>(Version {
            status: Some(schema_of::<v1beta1::ConfigurationStateStatus>()),
            columns: json!([
                {"jsonPath": ".status.result", "name": "Result", "type": "string"},
                {"jsonPath": ".status.errorSummary", "name": "ErrorSummary", "type": "string"},
                {"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"},
            ]),
            ..version(
                "v1beta1",
                "Whether a component could use the configuration.",
            )
        }),
        one::<v1beta1::IPAddressPool>(Version {
            spec: Some(rules::ip_address_pool(schema_of::<
                v1beta1::IPAddressPoolSpec,
            >())),
            status: Some(schema_of::<v1beta1::IPAddressPoolStatus>()),
            columns: json!([
                {"jsonPath": ".spec.autoAssign", "name": "Auto Assign", "type": "boolean"},
                {"jsonPath": ".spec.avoidBuggyIPs", "name": "Avoid Buggy IPs", "type": "boolean"},
                {"jsonPath": ".spec.addresses", "name": "Addresses", "type": "string"},
            ]),
            spec_required: true,
            ..version(
                "v1beta1",
                "A pool of addresses for Services of type LoadBalancer.",
            )
        }),
        one::<v1beta1::L2Advertisement>(Version {
            spec: Some(rules::l2_advertisement(schema_of::<
                v1beta1::L2AdvertisementSpec,
            >())),
            status: empty(),
            columns: columns(&[
                ("IPAddressPools", ".spec.ipAddressPools", 0),
                ("IPAddressPool Selectors", ".spec.ipAddressPoolSelectors", 0),
                ("Interfaces", ".spec.interfaces", 0),
                ("Node Selectors", ".spec.nodeSelectors", 10),
            ]),
            ..version(
                "v1beta1",
                "Advertises the addresses of the selected pools by ARP and NDP.",
            )
        }),
        one::<v1beta1::ServiceBGPStatus>(Version {
            spec: empty(),
            status: Some(rules::service_status(schema_of::<
                v1beta1::ServiceBGPStatusStatus,
            >())),
            columns: columns(&[
                ("Node", ".status.node", 0),
                ("Service Name", ".status.serviceName", 0),
                ("Service Namespace", ".status.serviceNamespace", 0),
            ]),
            ..version(
                "v1beta1",
                "To which peers a node hands the prefixes of a Service.",
            )
        }),
        one::<v1beta1::ServiceL2Status>(Version {
            spec: empty(),
            status: Some(rules::service_status(schema_of::<
                v1beta1::ServiceL2StatusStatus,
            >())),
            columns: columns(&[
                ("Allocated Node", ".status.node", 0),
                ("Service Name", ".status.serviceName", 0),
                ("Service Namespace", ".status.serviceNamespace", 0),
            ]),
            ..version("v1beta1", "Which node announces a Service in layer 2.")
        }),
    ]);
    all
}

/// File name and block YAML of every definition; the bytes depend on nothing but the types.
pub fn files() -> Vec<(String, String)> {
    let name = |crd: &Value, pointer: &str| {
        crd.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    all()
        .iter()
        .map(|crd| {
            let file = format!(
                "{}_{}.yaml",
                name(crd, "/spec/group"),
                name(crd, "/spec/names/plural")
            );
            (file, format!("---\n{}", yaml::emit(crd)))
        })
        .collect()
}

fn bgp_peer() -> Value {
    let peer_columns = columns(&[
        ("Address", ".spec.peerAddress", 0),
        ("ASN", ".spec.peerASN", 0),
        ("BFD Profile", ".spec.bfdProfile", 0),
        ("Multi Hops", ".spec.ebgpMultiHop", 0),
    ]);
    definition::<v1beta2::BGPPeer>(vec![
        Version {
            spec: Some(rules::bgp_peer_v1beta1(schema_of::<v1beta1::BGPPeerSpec>())),
            status: empty(),
            columns: peer_columns.clone(),
            spec_required: true,
            deprecated: Some("v1beta1 is deprecated, please use v1beta2"),
            ..version("v1beta1", "A router to hold a BGP session with.")
        },
        Version {
            spec: Some(rules::bgp_peer(schema_of::<v1beta2::BGPPeerSpec>())),
            status: empty(),
            columns: peer_columns,
            spec_required: true,
            ..version("v1beta2", "A router to hold a BGP session with.")
        },
    ])
}

fn version(name: &'static str, description: &'static str) -> Version {
    Version {
        name,
        description,
        spec: None,
        status: None,
        columns: Value::Null,
        spec_required: false,
        deprecated: None,
    }
}

fn empty() -> Option<Value> {
    Some(json!({"type": "object"}))
}

fn columns(of: &[(&str, &str, i64)]) -> Value {
    of.iter()
        .map(|(name, path, priority)| {
            let mut column = json!({"jsonPath": path, "name": name, "type": "string"});
            if *priority != 0 {
                column["priority"] = json!(priority);
            }
            column
        })
        .collect()
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|s| s.inline_subschemas = true);
    let schema = SchemaGenerator::new(settings).into_root_schema_for::<T>();
    structural::from_schemars(schema.to_value())
}

fn one<K: Kind>(version: Version) -> Value {
    definition::<K>(vec![version])
}

fn definition<K: Kind>(versions: Vec<Version>) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{}", K::PLURAL, K::GROUP)},
        "spec": {
            "conversion": {"strategy": "None"},
            "group": K::GROUP,
            "names": {
                "kind": K::KIND,
                "listKind": format!("{}List", K::KIND),
                "plural": K::PLURAL,
                "singular": K::KIND.to_lowercase(),
            },
            "scope": if K::NAMESPACED { "Namespaced" } else { "Cluster" },
            "versions": versions.into_iter().map(served).collect::<Value>(),
        },
    })
}

fn served(version: Version) -> Value {
    let mut properties = Map::new();
    properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
    properties.insert("kind".to_owned(), json!({"type": "string"}));
    properties.insert("metadata".to_owned(), json!({"type": "object"}));
    for (name, schema) in [("spec", version.spec), ("status", version.status)] {
        if let Some(schema) = schema {
            properties.insert(name.to_owned(), schema);
        }
    }
    let mut schema = json!({
        "description": version.description,
        "type": "object",
        "properties": properties,
    });
    if version.spec_required {
        schema["required"] = json!(["spec"]);
    }
    let mut served = json!({
        "name": version.name,
        "schema": {"openAPIV3Schema": schema},
        "served": true,
        "storage": version.deprecated.is_none(),
        "subresources": {"status": {}},
    });
    if !version.columns.is_null() {
        served["additionalPrinterColumns"] = version.columns;
    }
    if let Some(warning) = version.deprecated {
        served["deprecated"] = json!(true);
        served["deprecationWarning"] = json!(warning);
    }
    served
}
