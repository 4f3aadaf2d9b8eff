//! Definitions of the kinds of `corten.dev`.

use serde_json::{Value, json};

use super::{Version, columns, one, rules, schema_of, version};
use crate::corten::v1alpha1::{
    AcceptedConfig, AcceptedConfigSpec, AddressPool, AddressPoolStatus, Advertisement,
    AdvertisementSpec, NodeState, NodeStateStatus, ObjectStatus, Peer, PeerSpec,
};
use crate::metallb::IPAddressPoolSpec;

pub(super) fn all() -> Vec<Value> {
    vec![
        one::<AcceptedConfig>(Version {
            spec: Some(schema_of::<AcceptedConfigSpec>()),
            ..version(
                "v1alpha1",
                "Last good forms of objects whose newest form is bad; written by the controller.",
            )
        }),
        one::<AddressPool>(Version {
            spec: Some(described(
                rules::ip_address_pool(schema_of::<IPAddressPoolSpec>()),
                "What the pool holds, and for whom.",
            )),
            status: Some(schema_of::<AddressPoolStatus>()),
            columns: with_verdict(&columns(&[
                ("Addresses", ".spec.addresses", 0),
                ("Assigned IPv4", ".status.assignedIPv4", 0),
                ("Available IPv4", ".status.availableIPv4", 0),
                ("Assigned IPv6", ".status.assignedIPv6", 10),
                ("Available IPv6", ".status.availableIPv6", 10),
            ])),
            spec_required: true,
            ..version(
                "v1alpha1",
                "A pool of addresses for Services of type LoadBalancer.",
            )
        }),
        one::<Advertisement>(Version {
            spec: Some(rules::native::advertisement(
                schema_of::<AdvertisementSpec>(),
            )),
            status: Some(schema_of::<ObjectStatus>()),
            columns: with_verdict(&columns(&[
                ("Pools", ".spec.pools", 0),
                ("Device", ".spec.linux.device", 10),
                ("Peers", ".spec.bgp.peers", 10),
                ("Interfaces", ".spec.layer2.interfaces", 10),
            ])),
            spec_required: true,
            ..version(
                "v1alpha1",
                "How the network learns of the addresses of some pools.",
            )
        }),
        one::<NodeState>(Version {
            status: Some(schema_of::<NodeStateStatus>()),
            columns: columns(&[
                ("Forward", ".status.forward", 0),
                ("Draining", ".status.draining", 0),
                ("Agent", ".status.agentVersion", 0),
            ]),
            ..version(
                "v1alpha1",
                "What a node can do just now, as its agent says.",
            )
        }),
        one::<Peer>(Version {
            spec: Some(rules::native::peer(schema_of::<PeerSpec>())),
            status: Some(schema_of::<ObjectStatus>()),
            columns: with_verdict(&columns(&[
                ("Address", ".spec.peerAddress", 0),
                ("ASN", ".spec.peerASN", 0),
                ("BFD Profile", ".spec.bfdProfile", 0),
                ("Multihop", ".spec.multihop", 10),
            ])),
            spec_required: true,
            ..version("v1alpha1", "A router to hold a BGP session with.")
        }),
    ]
}

/// The columns, then whether the object is in force and since when it exists.
fn with_verdict(columns: &Value) -> Value {
    let mut all: Vec<Value> = columns.as_array().cloned().unwrap_or_default();
    all.push(json!({
        "jsonPath": ".status.conditions[?(@.type=='Accepted')].status",
        "name": "Accepted",
        "type": "string",
    }));
    all.push(json!({
        "jsonPath": ".metadata.creationTimestamp",
        "name": "Age",
        "type": "date",
    }));
    Value::Array(all)
}

fn described(mut schema: Value, text: &str) -> Value {
    schema["description"] = json!(text);
    schema
}
