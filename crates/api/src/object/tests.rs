use serde_json::json;

use super::*;

fn decode(value: Value) -> Decoded {
    Object::decode(value).expect("decodes")
}

#[test]
fn every_kind_goes_there_and_back() {
    let cases = [
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "myapp-svc", "namespace": "default"},
            "spec": {"type": "LoadBalancer", "selector": {"app": "myapp"},
                "ports": [{"port": 80, "targetPort": 80}, {"name": "dns", "protocol": "UDP",
                    "port": 53, "targetPort": "dns", "nodePort": 30053}],
                "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack", "externalIPs": ["1.2.3.4"],
                "loadBalancerIP": "10.0.0.101", "loadBalancerClass": "a/b",
                "loadBalancerSourceRanges": ["10.0.0.0/8"], "externalTrafficPolicy": "Local",
                "internalTrafficPolicy": "Local", "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}},
                "healthCheckNodePort": 30000, "allocateLoadBalancerNodePorts": false,
                "publishNotReadyAddresses": true},
            "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.101", "ipMode": "VIP"}]}}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "s-1", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv6",
            "endpoints": [{"addresses": ["fd00::1"], "nodeName": "n", "zone": "z",
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "hints": {"forZones": [{"name": "z"}], "forNodes": [{"name": "n"}]}}],
            "ports": [{"name": "http", "port": 8080}]}),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
            "spec": {"podCIDRs": ["10.1.0.0/24"], "unschedulable": true,
                "taints": [{"key": "k", "effect": "NoSchedule"}]},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.2"}],
                "conditions": [{"type": "Ready", "status": "True"}]}}),
        json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "n", "labels": {"a": "b"}}}),
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": "p", "namespace": "metallb-system"},
            "spec": {"addresses": ["10.0.0.0/24"], "autoAssign": false, "avoidBuggyIPs": true,
                "serviceAllocation": {"priority": 1, "namespaces": ["a"],
                    "namespaceSelectors": [{"matchLabels": {"a": "b"}}],
                    "serviceSelectors": [{"matchExpressions": [
                        {"key": "a", "operator": "In", "values": ["b"]}]}]}},
            "status": {"assignedIPv4": 1, "assignedIPv6": 0, "availableIPv4": 255,
                "availableIPv6": 0}}),
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement",
            "metadata": {"name": "a", "namespace": "metallb-system"},
            "spec": {"ipAddressPools": ["p"], "ipAddressPoolSelectors": [{}],
                "nodeSelectors": [{}], "interfaces": ["eth0"], "serviceSelectors": [{}],
                "preferredNodeSelectors": [{"weight": 5, "preference": {}}]}}),
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "BGPAdvertisement",
            "metadata": {"name": "a", "namespace": "metallb-system"},
            "spec": {"aggregationLength": 24, "aggregationLengthV6": 64, "localPref": 100,
                "communities": ["1:2"], "ipAddressPools": ["p"], "ipAddressPoolSelectors": [{}],
                "nodeSelectors": [{}], "peers": ["x"], "serviceSelectors": [{}]}}),
        json!({"apiVersion": "metallb.io/v1beta2", "kind": "BGPPeer",
            "metadata": {"name": "sample", "namespace": "metallb-system"},
            "spec": {"myASN": 64500, "peerASN": 64501, "dynamicASN": "internal", "localASN": 1,
                "peerAddress": "10.0.0.1", "interface": "eth0", "sourceAddress": "10.0.0.2",
                "peerPort": 1179, "holdTime": "1m30s", "keepaliveTime": "30s",
                "connectTime": "10s", "routerID": "1.1.1.1", "nodeSelectors": [{}],
                "password": "x", "passwordSecret": {"name": "s", "namespace": "n"},
                "bfdProfile": "b", "enableGracefulRestart": true, "ebgpMultiHop": true,
                "vrf": "red", "disableMP": true, "dualStackAddressFamily": true}}),
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "BFDProfile",
            "metadata": {"name": "b", "namespace": "metallb-system"},
            "spec": {"receiveInterval": 10, "transmitInterval": 20, "detectMultiplier": 2,
                "echoInterval": 30, "echoMode": true, "passiveMode": true, "minimumTtl": 1}}),
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "Community",
            "metadata": {"name": "c", "namespace": "metallb-system"},
            "spec": {"communities": [{"name": "a", "value": "1:2"}]}}),
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "ServiceL2Status",
            "metadata": {"generateName": "l2-", "namespace": "metallb-system"},
            "status": {"node": "n", "serviceName": "s", "serviceNamespace": "d",
                "interfaces": [{"name": "eth0"}]}}),
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "ServiceBGPStatus",
            "metadata": {"generateName": "bgp-", "namespace": "metallb-system"},
            "status": {"node": "n", "serviceName": "s", "serviceNamespace": "d",
                "peers": ["p"]}}),
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "ConfigurationState",
            "metadata": {"name": "controller", "namespace": "metallb-system"},
            "status": {"result": "Valid", "errorSummary": "e", "conditions": [{
                "type": "t", "status": "True", "reason": "r", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}),
        json!({"apiVersion": "corten.dev/v1alpha1", "kind": "NodeState",
            "metadata": {"name": "n"},
            "status": {"interfaces": [{"name": "eth0", "up": true, "mac": "02:00:00:00:00:01",
                "subnets": ["10.0.0.0/24"]}], "forward": "vips", "standingBy": "why", "draining": false,
                "incarnation": 7, "version": 3, "agentVersion": "0.1.0"}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]}}),
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "metallb-system"},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}]}}),
        json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "s", "namespace": "metallb-system"},
            "type": "kubernetes.io/basic-auth", "data": {"password": "aHVzaA=="},
            "stringData": {"username": "hush"}}),
        json!({"apiVersion": "corten.dev/v1alpha1", "kind": "AddressPool",
            "metadata": {"name": "p", "namespace": "metallb-system"},
            "spec": {"addresses": ["10.0.0.0/24"], "autoAssign": false, "avoidBuggyIPs": true,
                "serviceAllocation": {"priority": 1, "namespaces": ["a"]}},
            "status": {"conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted",
                "message": "", "observedGeneration": 3,
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "assignedIPv4": 1, "assignedIPv6": 0, "availableIPv4": 255, "availableIPv6": 0}}),
        json!({"apiVersion": "corten.dev/v1alpha1", "kind": "Advertisement",
            "metadata": {"name": "a", "namespace": "metallb-system"},
            "spec": {"pools": ["p"], "poolSelectors": [{}], "nodeSelectors": [{}],
                "serviceSelectors": [{}], "layer2": {"interfaces": ["eth0"], "mac": "Virtual",
                "handBack": false, "preferredNodeSelectors": [{"weight": 5, "preference": {}}]}}}),
        json!({"apiVersion": "corten.dev/v1alpha1", "kind": "Advertisement",
            "metadata": {"name": "b", "namespace": "metallb-system"},
            "spec": {"bgp": {"peers": ["x"], "aggregationLength": 24, "aggregationLengthV6": 64,
                "localPref": 100, "communities": ["1:2"], "med": 5, "prepend": 2,
                "weighted": true}}}),
        json!({"apiVersion": "corten.dev/v1alpha1", "kind": "Advertisement",
            "metadata": {"name": "c", "namespace": "metallb-system"},
            "spec": {"linux": {"device": "kube-lb0", "aggregationLength": 24,
                "aggregationLengthV6": 64}}}),
        json!({"apiVersion": "corten.dev/v1alpha1", "kind": "Peer",
            "metadata": {"name": "sample", "namespace": "metallb-system"},
            "spec": {"myASN": 64500, "peerASN": 64501, "dynamicASN": "external", "localASN": 1,
                "peerAddress": "10.0.0.1", "interface": "eth0", "sourceAddress": "10.0.0.2",
                "peerPort": 1179, "holdTime": "1m30s", "keepaliveTime": "30s",
                "connectTime": "10s", "routerID": "1.1.1.1", "nodeSelectors": [{}],
                "passwordSecret": {"name": "s"}, "bfdProfile": "b", "gracefulRestart": true,
                "multihop": true, "vrf": "red", "dualStack": true, "ttlSecurityHops": 1,
                "listen": {"port": 1790}, "nextHop": {"ipv4": "10.0.0.9", "ipv6": "fd00::9"},
                "addPath": true, "linkBandwidth": "NonTransitive",
                "role": "Customer", "strictRole": true,
                "receive": {"prefixes": ["10.0.0.0/8"], "maxPrefixes": 100, "table": 7},
                "drainOnCordon": true}}),
        json!({"apiVersion": "corten.dev/v1alpha1", "kind": "AcceptedConfig",
            "metadata": {"name": "accepted", "namespace": "metallb-system"},
            "spec": {"objects": [{"form": {"kind": "BGPPeer", "spec": {"myASN": 1}},
                "passwordDigest": "00ff"}]}}),
    ];
    for value in cases {
        let decoded = decode(value.clone());
        assert_eq!(decoded.unknown_fields, Vec::<String>::new(), "{value}");
        assert_eq!(decoded.object.kind(), value["kind"].as_str().expect("kind"));
        assert_eq!(encode(&decoded.object), value);
    }
}

fn encode(object: &Object) -> Value {
    match object {
        Object::Service(o) => serde_json::to_value(o),
        Object::EndpointSlice(o) => serde_json::to_value(o),
        Object::Node(o) => serde_json::to_value(o),
        Object::Namespace(o) => serde_json::to_value(o),
        Object::IPAddressPool(o) => serde_json::to_value(o),
        Object::L2Advertisement(o) => serde_json::to_value(o),
        Object::BGPAdvertisement(o) => serde_json::to_value(o),
        Object::BGPPeer(o) => serde_json::to_value(o),
        Object::BFDProfile(o) => serde_json::to_value(o),
        Object::Community(o) => serde_json::to_value(o),
        Object::ServiceL2Status(o) => serde_json::to_value(o),
        Object::ServiceBGPStatus(o) => serde_json::to_value(o),
        Object::ConfigurationState(o) => serde_json::to_value(o),
        Object::Secret(o) => serde_json::to_value(o),
        Object::Pod(o) => serde_json::to_value(o),
        Object::ServiceCIDR(o) => serde_json::to_value(o),
        Object::AddressPool(o) => serde_json::to_value(o),
        Object::Advertisement(o) => serde_json::to_value(o),
        Object::Peer(o) => serde_json::to_value(o),
        Object::AcceptedConfig(o) => serde_json::to_value(o),
        Object::NodeState(o) => serde_json::to_value(o),
        Object::Foreign { .. } => Ok(Value::Null),
    }
    .expect("encodes")
}

#[test]
fn unknown_fields_by_path() {
    let decoded = decode(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "s", "managedFields": [{}], "lables": {}},
        "spec": {"ports": [{"port": 80, "appProtocol": "http", "foo": 1}],
            "sessionAffinityConfig": {"clientIP": {"timeout": 1}}},
        "extra": {"a": 1}}));
    assert_eq!(
        decoded.unknown_fields,
        [
            "extra",
            "metadata.lables",
            "spec.ports[0].foo",
            "spec.sessionAffinityConfig.clientIP.timeout"
        ]
    );
}

#[test]
fn nulls_are_unset() {
    let decoded = decode(
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"name": "p", "labels": null}, "spec": {"addresses": null,
        "autoAssign": null}, "status": null}),
    );
    let Object::IPAddressPool(pool) = decoded.object else {
        panic!("{decoded:?}")
    };
    assert_eq!(pool.spec, Default::default());
    assert!(pool.spec.auto_assign);

    // What the API server sends for a Service without endpoints, read without `decode`.
    let slice: EndpointSlice =
        serde_json::from_str(r#"{"addressType":"IPv4","endpoints":null,"ports":null}"#)
            .expect("decodes");
    assert_eq!(slice, EndpointSlice::default());
}

#[test]
fn errors_name_the_field() {
    let cases = [
        (json!({"kind": "Service"}), "apiVersion: not set"),
        (json!({"apiVersion": "v1", "kind": 5}), "kind: not a string"),
        (json!([]), ".: not an object"),
        (
            json!({"apiVersion": "v1", "kind": "Service",
                "spec": {"ports": [{"port": 80}, {"port": 70000}]}}),
            "spec.ports[1].port: invalid value: integer `70000`, expected u16",
        ),
        (
            json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
                "spec": {"addresses": "10.0.0.0/24"}}),
            "spec.addresses: invalid type: string \"10.0.0.0/24\", expected a sequence",
        ),
        (
            json!({"apiVersion": "metallb.io/v1beta2", "kind": "BGPPeer",
                "spec": {"holdTime": "90"}}),
            "spec.holdTime: time: missing unit in duration \"90\"",
        ),
    ];
    for (value, want) in cases {
        let error = Object::decode(value).expect_err(want);
        assert_eq!(error.to_string(), want);
    }
}

#[test]
fn the_older_peer_is_converted_and_its_own_fields_hold() {
    let decoded = decode(
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "BGPPeer",
        "metadata": {"name": "p"},
        "spec": {"myASN": 1, "peerASN": 2, "peerAddress": "10.0.0.1", "vrf": "red"}}),
    );
    assert_eq!(decoded.unknown_fields, ["spec.vrf"]);
    let Object::BGPPeer(peer) = decoded.object else {
        panic!("{decoded:?}")
    };
    assert_eq!((peer.spec.my_asn, peer.spec.peer_port), (1, 179));
}

#[test]
fn foreign_kinds_pass() {
    let decoded = decode(json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web"}, "spec": {"replicas": 2}}));
    let object = decoded.object;
    assert_eq!(
        (object.kind(), object.name(), object.namespaced()),
        ("Deployment", "web", None)
    );
}

#[test]
fn nothing_of_a_secret_is_shown() {
    let applied = "kubectl.kubernetes.io/last-applied-configuration";
    let secret = decode(json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "s", "annotations": {applied: "{\"password\": \"hush\"}", "a": "b"}},
        "data": {"password": "aHVzaA=="}, "stringData": {"username": "hush"}}));
    let peer = decode(
        json!({"apiVersion": "metallb.io/v1beta2", "kind": "BGPPeer",
        "metadata": {"name": "p", "annotations": {applied: "{\"password\": \"hush\"}"}},
        "spec": {"myASN": 1, "password": "hush"}}),
    );
    for decoded in [secret, peer] {
        let shown = format!("{decoded:?}");
        assert!(
            !shown.contains("hush") && !shown.contains("aHVzaA"),
            "{shown}"
        );
        assert_eq!(decoded.unknown_fields, Vec::<String>::new());
    }
}
