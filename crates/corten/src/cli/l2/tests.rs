use api::corten::v1alpha1::Interface;
use plan::config::Object;
use std::sync::Arc;

use super::*;

fn told(world: &mut World, manifests: &[Value]) {
    for manifest in manifests {
        let decoded = api::object::Object::decode(manifest.clone()).expect("an object");
        let object = decoded.object;
        let event = match Object::try_from(object) {
            Ok(object) => Event::Config {
                object: object.reference(),
                form: Some(Arc::new(object)),
            },
            Err(_) => panic!("no configuration: {manifest}"),
        };
        world.apply(event);
    }
}

/// Two nodes; what the first has is known of its agent, the second has none.
fn known(announced: Option<&[(&str, &str)]>) -> Known {
    let mut world = World::new(Settings {
        namespace: "metallb-system".into(),
        ..Settings::default()
    });
    let state = NodeStateStatus {
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            up: true,
            mac: Some("02:00:00:00:00:01".to_owned()),
            subnets: vec!["10.0.0.0/24".to_owned()],
        }],
        ..NodeStateStatus::default()
    };
    for node in ["node-1", "node-2"] {
        world.apply(Event::Node {
            name: node.into(),
            form: Some(plan::world::Node::default()),
        });
    }
    world.apply(Event::State {
        node: "node-1".into(),
        form: Some(state.clone().into()),
    });
    let meta = |name: &str| json!({"name": name, "namespace": "metallb-system"});
    told(
        &mut world,
        &[
            json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
                "metadata": meta("pool"), "spec": {"addresses": ["10.0.0.100/30"]}}),
            json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
                "metadata": meta("routed"), "spec": {"addresses": ["10.9.0.0/30"]}}),
            json!({"apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement",
                "metadata": meta("l2"), "spec": {"ipAddressPools": ["pool"]}}),
            json!({"apiVersion": "metallb.io/v1beta1", "kind": "BGPAdvertisement",
                "metadata": meta("bgp"), "spec": {"ipAddressPools": ["routed"]}}),
        ],
    );
    for (name, address) in [
        ("web", "10.0.0.101"),
        ("idle", "10.0.0.102"),
        ("far", "10.9.0.1"),
    ] {
        let service: api::core::Service = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "ipFamilies": ["IPv4"],
                "ports": [{"port": 80}]},
            "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
        }))
        .expect("a Service");
        let service = plan::world::Service::from(service);
        world.apply(Event::Service {
            key: service.key.clone(),
            form: Some(Box::new(service)),
        });
    }
    let slice: api::core::EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"port": 80}],
        "endpoints": [{"addresses": ["10.244.0.1"]}],
    }))
    .expect("a slice");
    let slice = plan::world::Slice::of(slice).expect("a slice of a Service");
    world.apply(Event::Slice {
        key: plan::world::SliceKey {
            namespace: "default".into(),
            name: "web".into(),
        },
        form: Some(slice),
    });
    world.apply(Event::Synced);
    let status = |(service, node): &(&str, &str)| {
        let status = json!({"status": {"node": node, "serviceName": service,
            "serviceNamespace": "default"}});
        serde_json::from_value(status).expect("a status")
    };
    Known {
        world,
        states: BTreeMap::from([("node-1".to_owned(), state)]),
        announced: announced.map(|list| by_service(list.iter().map(status).collect())),
    }
}

#[test]
fn tables_say_who_why_and_how_many() {
    let known = known(None);
    let shown = known.explained(&[]);
    assert_eq!(
        aligned(&known.table(&shown, false)),
        "ADDRESS      SERVICE        NODE     INTERFACES   NEXT   WHY\n\
         10.0.0.101   default/web    node-1   eth0                alone able\n\
         10.0.0.102   default/idle   <none>                       no endpoint is usable\n"
    );
    let wide = aligned(&known.table(&shown, true));
    assert!(wide.contains("02:00:00:00:00:01"), "{wide}");
    assert!(wide.contains("  node-2 (no agent)\n"), "{wide}");
    assert_eq!(
        aligned(&known.spread(&[])),
        "NODE     ADDRESSES   STATE\n\
         node-1   1           able\n\
         node-2   0           no agent\n"
    );
    // One node: what it has, and itself.
    let only = ["node-2".to_owned()];
    assert!(known.explained(&only).is_empty());
    assert_eq!(known.spread(&only).len(), 2);
    let only = ["node-1".to_owned()];
    assert_eq!(known.explained(&only).len(), 1);
}

#[test]
fn what_agents_say_otherwise_is_shown() {
    for (announced, wanted) in [
        (&[("web", "node-1")][..], "alone able"),
        (&[], "alone able; it does not say that it announces it"),
        (
            &[("web", "node-1"), ("web", "node-2")],
            "alone able; node-2 says that it announces it",
        ),
    ] {
        let known = known(Some(announced));
        let shown = known.explained(&[]);
        assert_eq!(known.why(&shown[0]), wanted);
    }
}

#[test]
fn what_a_stranger_has_is_shown() {
    let mut known = known(None);
    for state in known.states.values_mut() {
        state.withheld = vec!["10.0.0.101".to_owned()];
    }
    let shown = known.explained(&[]);
    assert_eq!(
        known.why(&shown[0]),
        "alone able; withheld: a station that is no node has it"
    );
}

#[test]
fn values_for_programs() {
    let known = known(Some(&[("web", "node-1")]));
    let items = known.items(&known.explained(&[]), &[]);
    assert_eq!(
        items["items"][0],
        json!({
            "address": "10.0.0.101", "services": ["default/web"], "node": "node-1",
            "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01"}], "virtualMac": null,
            "next": [], "why": "alone able", "announcedBy": ["node-1"],
            "notAble": [{"node": "node-2", "why": "no agent"}],
        })
    );
    assert_eq!(items["items"][1]["node"], Value::Null);
    assert_eq!(
        items["nodes"],
        json!([{"node": "node-1", "addresses": 1, "notAble": null},
            {"node": "node-2", "addresses": 0, "notAble": "no agent"}])
    );
    let text = yaml::emit(&items);
    assert!(text.contains("10.0.0.101"), "{text}");
}

#[test]
fn an_address_with_a_mac_address_of_its_own_is_at_that() {
    let mut known = known(None);
    let own = json!({"apiVersion": "corten.dev/v1alpha1", "kind": "Advertisement",
        "metadata": {"name": "own", "namespace": "metallb-system"},
        "spec": {"pools": ["pool"], "layer2": {"mac": "Virtual"}}});
    told(&mut known.world, &[own]);
    let shown = known.explained(&[]);
    let wide = aligned(&known.table(&shown, true));
    assert!(wide.contains("  02:c0:0a:00:00:65 (virtual)  "), "{wide}");
    assert!(!wide.contains("02:00:00:00:00:01"), "{wide}");
    let items = known.items(&shown, &[]);
    let mac = "02:c0:0a:00:00:65";
    assert_eq!(items["items"][0]["virtualMac"], mac);
    assert_eq!(
        items["items"][0]["interfaces"],
        json!([{"name": "eth0", "mac": mac}])
    );
}
