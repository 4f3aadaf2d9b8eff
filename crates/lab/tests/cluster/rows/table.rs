//! The rows. Names of Services are used once: events outlive them.

use super::Row;
use super::Step::{
    Edit, From, Has, Label, Namespace, Never, NoPool, NoService, Pool, Service, Silent, Still,
    Stored, Told,
};

const NONE: &str = "{}";
const BOTH: &str = r#"{"ipFamilyPolicy": "RequireDualStack"}"#;
const PREFER: &str = r#"{"ipFamilyPolicy": "PreferDualStack"}"#;
const V4: &[&str] = &["10.1.0.0/28"];
const DUAL: &[&str] = &["10.1.0.0/28", "fd01::/124"];

/// All tables, as the specification has them.
pub(super) fn sections() -> [&'static [Row]; 6] {
    [FIELDS, REQUESTS, SHARING, FAMILIES, CHANGES, CHOICE]
}

/// §2.1: annotations and fields, as far as no other table has them.
const FIELDS: &[Row] = &[
    Row {
        name: "2.1 the deprecated prefix",
        steps: &[
            Pool("p", V4, NONE),
            Service(
                "d1",
                r#"{"metallb.universe.tf/loadBalancerIPs": "10.1.0.5"}"#,
                NONE,
            ),
            Has("d1", &["10.1.0.5"]),
            Told(
                "d1",
                "deprecatedAnnotation",
                "metallb.universe.tf/loadBalancerIPs",
            ),
        ],
    },
    Row {
        name: "2.1 the stable key hides the deprecated one, even when it is empty",
        steps: &[
            Pool("p", V4, NONE),
            Service(
                "d2",
                r#"{"metallb.universe.tf/loadBalancerIPs": "10.1.0.5", "loadBalancerIPs": ""}"#,
                NONE,
            ),
            Has("d2", &["10.1.0.0"]),
        ],
    },
    Row {
        name: "2.1 no load balancer any more: status and annotation are cleared",
        steps: &[
            Pool("p", &["10.1.0.1/32"], NONE),
            Service("d3", NONE, NONE),
            Has("d3", &["10.1.0.1"]),
            From("d3", "p"),
            Edit(
                "d3",
                NONE,
                r#"{"type": "ClusterIP", "allocateLoadBalancerNodePorts": null}"#,
            ),
            From("d3", ""),
            Has("d3", &[]),
            Service("d4", NONE, NONE),
            Has("d4", &["10.1.0.1"]),
        ],
    },
    Row {
        name: "2.1 another class: not ours",
        steps: &[
            Pool("p", V4, NONE),
            Service("d5", NONE, r#"{"loadBalancerClass": "example.com/other"}"#),
            Still("d5", &[]),
            From("d5", ""),
            Silent("d5"),
        ],
    },
];

/// §2.2: explicit requests.
const REQUESTS: &[Row] = &[
    Row {
        name: "2.2 bad syntax, no address yet",
        steps: &[
            Pool("p", V4, NONE),
            Service("q1", r#"{"loadBalancerIPs": "here"}"#, NONE),
            Told(
                "q1",
                "AllocationFailed",
                r#"invalid metallb.io/loadBalancerIPs: "here""#,
            ),
            Still("q1", &[]),
        ],
    },
    Row {
        name: "2.2 bad syntax, the address stays",
        steps: &[
            Pool("p", V4, NONE),
            Service("q2", NONE, NONE),
            Has("q2", &["10.1.0.0"]),
            Edit("q2", r#"{"loadBalancerIPs": "10.1.0.300"}"#, NONE),
            Told("q2", "LoadBalancerFailed", "10.1.0.300"),
            Still("q2", &["10.1.0.0"]),
        ],
    },
    Row {
        name: "2.2 annotation and field",
        steps: &[
            Pool("p", V4, NONE),
            Service(
                "q3",
                r#"{"loadBalancerIPs": "10.1.0.3"}"#,
                r#"{"loadBalancerIP": "10.1.0.3"}"#,
            ),
            Told("q3", "AllocationFailed", "can not have both"),
            Still("q3", &[]),
        ],
    },
    Row {
        name: "2.2 annotation and field, the address stays",
        steps: &[
            Pool("p", V4, NONE),
            Service("q24", NONE, NONE),
            Has("q24", &["10.1.0.0"]),
            Edit(
                "q24",
                r#"{"loadBalancerIPs": "10.1.0.3"}"#,
                r#"{"loadBalancerIP": "10.1.0.3"}"#,
            ),
            Told(
                "q24",
                "LoadBalancerFailed",
                "service can not have both metallb.io/loadBalancerIPs and svc.Spec.LoadBalancerIP",
            ),
            Still("q24", &["10.1.0.0"]),
        ],
    },
    Row {
        name: "2.2 bad syntax of the field",
        steps: &[
            Pool("p", V4, NONE),
            Service("q25", NONE, r#"{"loadBalancerIP": "here"}"#),
            Told(
                "q25",
                "AllocationFailed",
                r#"invalid spec.loadBalancerIP "here""#,
            ),
            Still("q25", &[]),
        ],
    },
    Row {
        name: "2.2 the field alone",
        steps: &[
            Pool("p", V4, NONE),
            Service("q4", NONE, r#"{"loadBalancerIP": "10.1.0.4"}"#),
            Has("q4", &["10.1.0.4"]),
            From("q4", "p"),
            Told("q4", "IPAllocated", "10.1.0.4"),
        ],
    },
    Row {
        name: "2.2 another family",
        steps: &[
            Pool("p", DUAL, NONE),
            Service("q5", r#"{"loadBalancerIPs": "fd01::1"}"#, NONE),
            Told("q5", "AllocationFailed", "does not match the ipFamily"),
            Still("q5", &[]),
        ],
    },
    Row {
        name: "2.2 two for a service of one family",
        steps: &[
            Pool("p", DUAL, NONE),
            Service("q26", r#"{"loadBalancerIPs": "10.1.0.1,fd01::1"}"#, NONE),
            Told("q26", "AllocationFailed", "does not match the ipFamily"),
            Still("q26", &[]),
        ],
    },
    Row {
        name: "2.2 a dual service needs two",
        steps: &[
            Pool("p", DUAL, NONE),
            Service("q6", r#"{"loadBalancerIPs": "10.1.0.1"}"#, BOTH),
            Told("q6", "AllocationFailed", "does not match the ipFamily"),
            Still("q6", &[]),
        ],
    },
    Row {
        name: "2.2 two for a dual service, blanks trimmed",
        steps: &[
            Pool("p", DUAL, NONE),
            Service("q7", r#"{"loadBalancerIPs": " 10.1.0.7 , fd01::7"}"#, BOTH),
            Has("q7", &["10.1.0.7", "fd01::7"]),
            Told("q7", "IPAllocated", r#"["10.1.0.7" "fd01::7"]"#),
        ],
    },
    Row {
        name: "2.2 three addresses",
        steps: &[
            Pool("p", DUAL, NONE),
            Service(
                "q8",
                r#"{"loadBalancerIPs": "10.1.0.1,10.1.0.2,fd01::1"}"#,
                BOTH,
            ),
            Told("q8", "AllocationFailed", "more than two"),
            Still("q8", &[]),
        ],
    },
    Row {
        name: "2.2 two of one family",
        steps: &[
            Pool("p", DUAL, NONE),
            Service("q9", r#"{"loadBalancerIPs": "10.1.0.1,10.1.0.2"}"#, BOTH),
            Told("q9", "AllocationFailed", "has the same family"),
            Still("q9", &[]),
        ],
    },
    Row {
        name: "2.2 not both inside one pool",
        steps: &[
            Pool("p", V4, NONE),
            Pool("p6", &["fd01::/124"], NONE),
            Service("q10", r#"{"loadBalancerIPs": "10.1.0.1,fd01::1"}"#, BOTH),
            Told("q10", "AllocationFailed", "not allowed in config"),
            Still("q10", &[]),
        ],
    },
    Row {
        name: "2.2 .0 where it is avoided",
        steps: &[
            Pool("p", V4, r#"{"avoidBuggyIPs": true}"#),
            Service("q11", r#"{"loadBalancerIPs": "10.1.0.0"}"#, NONE),
            Told("q11", "AllocationFailed", "not allowed in config"),
            Still("q11", &[]),
        ],
    },
    Row {
        name: "2.2 .255 where it is avoided",
        steps: &[
            Pool("p", &["10.1.0.0/24"], r#"{"avoidBuggyIPs": true}"#),
            Service("q23", r#"{"loadBalancerIPs": "10.1.0.255"}"#, NONE),
            Told(
                "q23",
                "AllocationFailed",
                r#"["10.1.0.255"] is not allowed in config"#,
            ),
            Still("q23", &[]),
            Pool("p", &["10.1.0.0/24"], r#"{"avoidBuggyIPs": false}"#),
            Has("q23", &["10.1.0.255"]),
        ],
    },
    Row {
        name: "2.2 in no pool",
        steps: &[
            Pool("p", V4, NONE),
            Service("q12", r#"{"loadBalancerIPs": "10.9.0.1"}"#, NONE),
            Told(
                "q12",
                "AllocationFailed",
                r#"["10.9.0.1"] is not allowed in config"#,
            ),
            Still("q12", &[]),
        ],
    },
    Row {
        name: "2.2 a pool for another namespace",
        steps: &[
            Pool(
                "p",
                V4,
                r#"{"serviceAllocation": {"namespaces": ["elsewhere"]}}"#,
            ),
            Service("q13", r#"{"loadBalancerIPs": "10.1.0.1"}"#, NONE),
            Told(
                "q13",
                "AllocationFailed",
                "pool p not compatible for ip assignment",
            ),
            Still("q13", &[]),
        ],
    },
    Row {
        name: "2.2 a pool for other labels, until the Service has them",
        steps: &[
            Pool(
                "p",
                V4,
                r#"{"serviceAllocation": {"serviceSelectors": [{"matchLabels": {"x": "y"}}]}}"#,
            ),
            Service("q27", r#"{"loadBalancerIPs": "10.1.0.1"}"#, NONE),
            Told(
                "q27",
                "AllocationFailed",
                "pool p not compatible for ip assignment",
            ),
            Service("q28", r#"{"address-pool": "p"}"#, NONE),
            Told(
                "q28",
                "AllocationFailed",
                "pool p not compatible for ip assignment",
            ),
            Still("q27", &[]),
            Label("q27", r#"{"x": "y"}"#),
            Has("q27", &["10.1.0.1"]),
            Still("q28", &[]),
        ],
    },
    Row {
        name: "2.2 an address and another pool",
        steps: &[
            Pool("p", V4, NONE),
            Pool("o", &["10.2.0.0/28"], NONE),
            Service(
                "q14",
                r#"{"loadBalancerIPs": "10.1.0.1", "address-pool": "o"}"#,
                NONE,
            ),
            Told(
                "q14",
                "AllocationFailed",
                "not compatible with requested address pool o",
            ),
            Still("q14", &[]),
        ],
    },
    Row {
        name: "2.2 in use; later free",
        steps: &[
            Pool("p", V4, NONE),
            Service("q15", NONE, NONE),
            Has("q15", &["10.1.0.0"]),
            Service("q16", r#"{"loadBalancerIPs": "10.1.0.0"}"#, NONE),
            Told(
                "q16",
                "AllocationFailed",
                r#"can't change sharing key for "default/q16", address also in use by default/q15"#,
            ),
            Still("q16", &[]),
            NoService("q15"),
            Has("q16", &["10.1.0.0"]),
            Told("q16", "IPAllocated", r#"["10.1.0.0"]"#),
        ],
    },
    Row {
        name: "2.2 changed to a better one, then to one that cannot be",
        steps: &[
            Pool("p", V4, NONE),
            Service("q17", r#"{"loadBalancerIPs": "10.1.0.1"}"#, NONE),
            Has("q17", &["10.1.0.1"]),
            Edit("q17", r#"{"loadBalancerIPs": "10.1.0.2"}"#, NONE),
            Has("q17", &["10.1.0.2"]),
            Told("q17", "IPAllocated", r#"["10.1.0.2"]"#),
            Edit("q17", r#"{"loadBalancerIPs": "10.9.0.2"}"#, NONE),
            Has("q17", &[]),
            From("q17", ""),
            Told(
                "q17",
                "AllocationFailed",
                r#"["10.9.0.2"] is not allowed in config"#,
            ),
        ],
    },
    Row {
        name: "2.2 changed to one in use: the old one is released, and goes to who waits",
        steps: &[
            Pool("p", V4, NONE),
            Service("q29", r#"{"loadBalancerIPs": "10.1.0.1"}"#, NONE),
            Has("q29", &["10.1.0.1"]),
            Service("q30", r#"{"loadBalancerIPs": "10.1.0.2"}"#, NONE),
            Has("q30", &["10.1.0.2"]),
            Service("q31", r#"{"loadBalancerIPs": "10.1.0.2"}"#, NONE),
            Told("q31", "AllocationFailed", "also in use by default/q30"),
            Edit("q30", r#"{"loadBalancerIPs": "10.1.0.1"}"#, NONE),
            Told("q30", "AllocationFailed", "also in use by default/q29"),
            Has("q31", &["10.1.0.2"]),
            Still("q30", &[]),
            NoService("q29"),
            Has("q30", &["10.1.0.1"]),
        ],
    },
    Row {
        name: "2.2 request removed: kept",
        steps: &[
            Pool("p", V4, NONE),
            Service("q18", r#"{"loadBalancerIPs": "10.1.0.9"}"#, NONE),
            Has("q18", &["10.1.0.9"]),
            Edit("q18", r#"{"loadBalancerIPs": null}"#, NONE),
            Still("q18", &["10.1.0.9"]),
        ],
    },
    Row {
        name: "2.2 pool annotation: another pool, none, one that is not there",
        steps: &[
            Pool("p", V4, NONE),
            Pool("o", &["10.2.0.0/28"], r#"{"autoAssign": false}"#),
            Service("q19", NONE, NONE),
            Has("q19", &["10.1.0.0"]),
            Edit("q19", r#"{"address-pool": "o"}"#, NONE),
            Has("q19", &["10.2.0.0"]),
            From("q19", "o"),
            Told("q19", "IPAllocated", r#"["10.2.0.0"]"#),
            Edit("q19", r#"{"address-pool": null}"#, NONE),
            Still("q19", &["10.2.0.0"]),
            Edit("q19", r#"{"address-pool": "lost"}"#, NONE),
            Told("q19", "AllocationFailed", r#"unknown pool "lost""#),
            Has("q19", &[]),
        ],
    },
    Row {
        name: "2.2 a pool that is full; later not",
        steps: &[
            Pool("p", &["10.1.0.1/32"], NONE),
            Service("q20", NONE, NONE),
            Has("q20", &["10.1.0.1"]),
            Service("q21", r#"{"address-pool": "p"}"#, NONE),
            Told(
                "q21",
                "AllocationFailed",
                "no available IPs in pool p for ipv4 IPFamily",
            ),
            Service("q22", NONE, NONE),
            Told("q22", "AllocationFailed", "no available IPs"),
            Pool("p", &["10.1.0.1/32", "10.1.0.2/31"], NONE),
            Has("q21", &["10.1.0.2"]),
            Has("q22", &["10.1.0.3"]),
        ],
    },
];

/// §2.3: sharing.
const SHARING: &[Row] = &[
    Row {
        name: "2.3 one key, other ports: they pack",
        steps: &[
            Pool("p", V4, NONE),
            Service("s1", r#"{"allow-shared-ip": "k"}"#, NONE),
            Has("s1", &["10.1.0.0"]),
            Service(
                "s2",
                r#"{"allow-shared-ip": "k"}"#,
                r#"{"ports": [{"port": 81}]}"#,
            ),
            Has("s2", &["10.1.0.0"]),
            Service(
                "s3",
                r#"{"allow-shared-ip": "k"}"#,
                r#"{"ports": [{"port": 80, "protocol": "UDP"}]}"#,
            ),
            Has("s3", &["10.1.0.0"]),
        ],
    },
    Row {
        name: "2.3 an equal port",
        steps: &[
            Pool("p", V4, NONE),
            Service("s4", r#"{"allow-shared-ip": "k"}"#, NONE),
            Has("s4", &["10.1.0.0"]),
            Service("s5", r#"{"allow-shared-ip": "k"}"#, NONE),
            Has("s5", &["10.1.0.1"]),
            Service(
                "s6",
                r#"{"allow-shared-ip": "k", "loadBalancerIPs": "10.1.0.0"}"#,
                NONE,
            ),
            Told(
                "s6",
                "AllocationFailed",
                r#"port TCP/80 is already in use on "10.1.0.0""#,
            ),
            Still("s6", &[]),
        ],
    },
    Row {
        name: "2.3 another key, an empty key, none",
        steps: &[
            Pool("p", V4, NONE),
            Service(
                "s7",
                r#"{"allow-shared-ip": "k", "loadBalancerIPs": "10.1.0.5"}"#,
                NONE,
            ),
            Has("s7", &["10.1.0.5"]),
            Service(
                "s8",
                r#"{"allow-shared-ip": "l", "loadBalancerIPs": "10.1.0.5"}"#,
                r#"{"ports": [{"port": 81}]}"#,
            ),
            Told(
                "s8",
                "AllocationFailed",
                r#"can't change sharing key for "default/s8", address also in use by default/s7"#,
            ),
            Service(
                "s9",
                r#"{"allow-shared-ip": "", "loadBalancerIPs": "10.1.0.5"}"#,
                r#"{"ports": [{"port": 82}]}"#,
            ),
            Told("s9", "AllocationFailed", "can't change sharing key"),
            Still("s8", &[]),
            Still("s9", &[]),
        ],
    },
    Row {
        name: "2.3 policy Local shares only with the same selector",
        steps: &[
            Pool("p", V4, NONE),
            Service(
                "s10",
                r#"{"allow-shared-ip": "k"}"#,
                r#"{"externalTrafficPolicy": "Local"}"#,
            ),
            Has("s10", &["10.1.0.0"]),
            Service(
                "s11",
                r#"{"allow-shared-ip": "k"}"#,
                r#"{"externalTrafficPolicy": "Local", "ports": [{"port": 81}]}"#,
            ),
            Has("s11", &["10.1.0.0"]),
            Service(
                "s12",
                r#"{"allow-shared-ip": "k"}"#,
                r#"{"externalTrafficPolicy": "Local", "ports": [{"port": 82}], "selector": {"a": "b"}}"#,
            ),
            Has("s12", &["10.1.0.1"]),
            Service(
                "s13",
                r#"{"allow-shared-ip": "k"}"#,
                r#"{"ports": [{"port": 83}]}"#,
            ),
            Has("s13", &["10.1.0.2"]),
        ],
    },
    Row {
        name: "2.3 the only user changes its key, and another comes",
        steps: &[
            Pool("p", &["10.1.0.1/32"], NONE),
            Service("s14", r#"{"allow-shared-ip": "k"}"#, NONE),
            Has("s14", &["10.1.0.1"]),
            Service(
                "s15",
                r#"{"allow-shared-ip": "l"}"#,
                r#"{"ports": [{"port": 81}]}"#,
            ),
            Told("s15", "AllocationFailed", "no available IPs"),
            Edit("s14", r#"{"allow-shared-ip": "l"}"#, NONE),
            Has("s15", &["10.1.0.1"]),
            Still("s14", &["10.1.0.1"]),
        ],
    },
];

/// §2.4: families.
const FAMILIES: &[Row] = &[
    Row {
        name: "2.4 IPv6 alone",
        steps: &[
            Pool("p", DUAL, NONE),
            Service("f1", NONE, r#"{"ipFamilies": ["IPv6"]}"#),
            Has("f1", &["fd01::"]),
        ],
    },
    Row {
        name: "2.4 both, from one pool",
        steps: &[
            Pool("a", V4, NONE),
            Pool("b", &["10.2.0.0/28", "fd02::/124"], NONE),
            Service("f2", NONE, BOTH),
            Has("f2", &["10.2.0.0", "fd02::"]),
            From("f2", "b"),
        ],
    },
    Row {
        name: "2.4 both, and no pool has both",
        steps: &[
            Pool("a", V4, NONE),
            Pool("b", &["fd02::/124"], NONE),
            Service("f3", NONE, BOTH),
            Told("f3", "AllocationFailed", "no available IPs"),
            Still("f3", &[]),
        ],
    },
    Row {
        name: "2.4 both are required, and there is one cluster IP",
        steps: &[
            Pool("p", DUAL, NONE),
            Service("f9", NONE, NONE),
            Has("f9", &["10.1.0.0"]),
            Stored("f9", r#"{"ipFamilyPolicy": "RequireDualStack"}"#),
            Told(
                "f9",
                "not enough clusterips",
                "ipFamilyPolicy RequireDualStack needs two cluster IPs",
            ),
            Has("f9", &[]),
            From("f9", ""),
            Service("f10", NONE, NONE),
            Has("f10", &["10.1.0.0"]),
        ],
    },
    Row {
        name: "2.4 no cluster IP",
        steps: &[
            Pool("p", DUAL, NONE),
            Service("f11", NONE, NONE),
            Has("f11", &["10.1.0.0"]),
            Stored("f11", r#"{"clusterIP": "None", "clusterIPs": ["None"]}"#),
            Told("f11", "noclusterIPsIPFamily", "has no cluster IP"),
            Has("f11", &[]),
        ],
    },
    Row {
        name: "2.4 prefers both: one, then the other from the same pool",
        steps: &[
            Pool("a", V4, NONE),
            Service("f4", NONE, PREFER),
            Has("f4", &["10.1.0.0"]),
            Told(
                "f4",
                "AdditionalAssignFailed",
                "no available IPs in pool a for ipv6 IPFamily",
            ),
            Pool("b", &["10.2.0.0/28", "fd02::/124"], NONE),
            Still("f4", &["10.1.0.0"]),
            Pool("a", DUAL, NONE),
            Has("f4", &["10.1.0.0", "fd01::"]),
            Told("f4", "IPAllocated", r#"Assigned additional IP "fd01::""#),
        ],
    },
    Row {
        name: "2.4 prefers both: the pool with both comes first, then the primary family",
        steps: &[
            Pool("a", V4, NONE),
            Pool("b", &["10.2.0.0/32", "fd02::/128"], NONE),
            Service("f5", NONE, PREFER),
            Has("f5", &["10.2.0.0", "fd02::"]),
            Service(
                "f6",
                NONE,
                r#"{"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}"#,
            ),
            Has("f6", &["10.1.0.0"]),
        ],
    },
    Row {
        name: "2.4 the pool loses a family: another dual pool",
        steps: &[
            Pool("a", DUAL, NONE),
            Service("f7", NONE, BOTH),
            Has("f7", &["10.1.0.0", "fd01::"]),
            Pool("b", &["10.2.0.0/28", "fd02::/124"], NONE),
            Pool("a", V4, NONE),
            Has("f7", &["10.2.0.0", "fd02::"]),
            Told("f7", "ClearAssignment", "not allowed by config"),
        ],
    },
    Row {
        name: "2.4 dual becomes single, and dual again",
        steps: &[
            Pool("a", DUAL, NONE),
            Service("f8", NONE, PREFER),
            Has("f8", &["10.1.0.0", "fd01::"]),
            Edit(
                "f8",
                NONE,
                r#"{"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "clusterIPs": null}"#,
            ),
            Has("f8", &["10.1.0.0"]),
            Edit("f8", NONE, PREFER),
            Has("f8", &["10.1.0.0", "fd01::"]),
        ],
    },
];

/// §2.5: pools change.
const CHANGES: &[Row] = &[
    Row {
        name: "2.5 the pool shrinks",
        steps: &[
            Pool("p", V4, NONE),
            Service("c1", r#"{"loadBalancerIPs": "10.1.0.9"}"#, NONE),
            Has("c1", &["10.1.0.9"]),
            Edit("c1", r#"{"loadBalancerIPs": null}"#, NONE),
            Pool("p", &["10.1.0.0/29"], NONE),
            Has("c1", &["10.1.0.0"]),
            Told("c1", "ClearAssignment", "10.1.0.9"),
            Told("c1", "IPAllocated", "10.1.0.0"),
        ],
    },
    Row {
        name: "2.5 the pool is deleted, another takes the Service",
        steps: &[
            Pool("p", V4, NONE),
            Service("c2", NONE, NONE),
            Has("c2", &["10.1.0.0"]),
            Pool("o", &["10.2.0.0/28"], NONE),
            NoPool("p"),
            Has("c2", &["10.2.0.0"]),
            From("c2", "o"),
            Told("c2", "ClearAssignment", "10.1.0.0"),
        ],
    },
    Row {
        name: "2.5 the last pool is deleted, and comes back",
        steps: &[
            Pool("p", V4, NONE),
            Service("c3", NONE, NONE),
            Has("c3", &["10.1.0.0"]),
            NoPool("p"),
            Has("c3", &[]),
            Told("c3", "AllocationFailed", "no available IPs"),
            Pool("p", V4, NONE),
            Has("c3", &["10.1.0.0"]),
        ],
    },
    Row {
        name: "2.5 all pools are removed, and come back",
        steps: &[
            NoPool("barrier"),
            Pool("p", &["10.1.0.0/31"], NONE),
            Pool("o", &["10.2.0.0/31", "fd02::/127"], NONE),
            Service("c8", r#"{"loadBalancerIPs": "10.1.0.1"}"#, NONE),
            Service("c9", r#"{"loadBalancerIPs": "10.2.0.0,fd02::"}"#, BOTH),
            Service(
                "c10",
                r#"{"loadBalancerIPs": "fd02::1"}"#,
                r#"{"ipFamilies": ["IPv6"]}"#,
            ),
            Has("c8", &["10.1.0.1"]),
            Has("c9", &["10.2.0.0", "fd02::"]),
            Has("c10", &["fd02::1"]),
            NoPool("p"),
            NoPool("o"),
            Has("c8", &[]),
            Has("c9", &[]),
            Has("c10", &[]),
            From("c8", ""),
            From("c9", ""),
            From("c10", ""),
            // Not told as it goes: it may be cleared by either pool's end.
            Told("c8", "AllocationFailed", ""),
            Told("c9", "AllocationFailed", "no IPAddressPool is in force"),
            Told("c10", "AllocationFailed", "no IPAddressPool is in force"),
            Pool("p", &["10.1.0.0/31"], NONE),
            Pool("o", &["10.2.0.0/31", "fd02::/128"], NONE),
            Has("c8", &["10.1.0.1"]),
            Has("c9", &["10.2.0.0", "fd02::"]),
            From("c9", "o"),
            Still("c10", &[]),
            Pool("o", &["10.2.0.0/31", "fd02::/127"], NONE),
            Has("c10", &["fd02::1"]),
            Pool("barrier", &["192.0.2.0/24"], r#"{"autoAssign": false}"#),
        ],
    },
    Row {
        name: "2.5 the pool is renamed: its Services keep their addresses",
        steps: &[
            Pool("p", V4, NONE),
            Service("c11", r#"{"loadBalancerIPs": "10.1.0.9"}"#, NONE),
            Service("c12", NONE, NONE),
            Has("c11", &["10.1.0.9"]),
            Has("c12", &["10.1.0.0"]),
            Edit("c11", r#"{"loadBalancerIPs": null}"#, NONE),
            // Younger, so it is not in force until the other one is gone.
            Pool("q", V4, NONE),
            Still("c11", &["10.1.0.9"]),
            From("c11", "p"),
            NoPool("p"),
            From("c11", "q"),
            From("c12", "q"),
            Still("c11", &["10.1.0.9"]),
            Still("c12", &["10.1.0.0"]),
            Never("c11", "ClearAssignment"),
            Never("c12", "ClearAssignment"),
        ],
    },
    Row {
        name: "2.5 the namespace's labels change",
        steps: &[
            Namespace(r#"{"team": "a"}"#),
            Pool(
                "p",
                V4,
                r#"{"serviceAllocation": {"namespaceSelectors": [{"matchLabels": {"team": "a"}}]}}"#,
            ),
            Service("c13", NONE, NONE),
            Has("c13", &["10.1.0.0"]),
            Namespace(r#"{"team": "b"}"#),
            Has("c13", &[]),
            Told(
                "c13",
                "ClearAssignment",
                "pool p not compatible for ip assignment",
            ),
            Told("c13", "AllocationFailed", "no available IPs"),
            Namespace(r#"{"team": "a"}"#),
            Has("c13", &["10.1.0.0"]),
            Namespace(r#"{"team": null}"#),
            Has("c13", &[]),
        ],
    },
    Row {
        name: "2.5 the Service's labels change",
        steps: &[
            Pool(
                "p",
                V4,
                r#"{"serviceAllocation": {"serviceSelectors": [{"matchLabels": {"x": "y"}}]}}"#,
            ),
            Pool("o", &["10.2.0.0/28"], NONE),
            Service("c14", r#"{"address-pool": "p"}"#, NONE),
            Told("c14", "AllocationFailed", "not compatible"),
            Label("c14", r#"{"x": "y"}"#),
            Has("c14", &["10.1.0.0"]),
            Edit("c14", r#"{"address-pool": null}"#, NONE),
            Label("c14", r#"{"x": "z"}"#),
            Has("c14", &["10.2.0.0"]),
            From("c14", "o"),
            Told("c14", "ClearAssignment", "not compatible"),
        ],
    },
    Row {
        name: "2.5 the pool becomes another namespace's",
        steps: &[
            Pool("p", V4, NONE),
            Pool("o", &["10.2.0.0/28"], NONE),
            Service("c4", r#"{"address-pool": "p"}"#, NONE),
            Has("c4", &["10.1.0.0"]),
            Edit("c4", r#"{"address-pool": null}"#, NONE),
            Pool(
                "p",
                V4,
                r#"{"serviceAllocation": {"namespaces": ["elsewhere"]}}"#,
            ),
            Has("c4", &["10.2.0.0"]),
            Told("c4", "ClearAssignment", "not compatible"),
        ],
    },
    Row {
        name: "2.5 no longer automatic: kept",
        steps: &[
            Pool("p", V4, NONE),
            Service("c5", NONE, NONE),
            Has("c5", &["10.1.0.0"]),
            Pool("p", V4, r#"{"autoAssign": false}"#),
            Still("c5", &["10.1.0.0"]),
        ],
    },
    Row {
        name: "2.5 .0 is avoided from now on",
        steps: &[
            Pool("p", V4, NONE),
            Service("c6", NONE, NONE),
            Has("c6", &["10.1.0.0"]),
            Pool("p", V4, r#"{"avoidBuggyIPs": true}"#),
            Has("c6", &["10.1.0.1"]),
            Told("c6", "ClearAssignment", "10.1.0.0"),
        ],
    },
    Row {
        name: "2.5 a better pool comes: kept",
        steps: &[
            Pool("p", V4, NONE),
            Service("c7", NONE, NONE),
            Has("c7", &["10.1.0.0"]),
            Pool(
                "a",
                &["10.2.0.0/28"],
                r#"{"serviceAllocation": {"priority": 1}}"#,
            ),
            Still("c7", &["10.1.0.0"]),
        ],
    },
];

/// §2.6: the choice of a pool.
const CHOICE: &[Row] = &[
    Row {
        name: "2.6 pinned pools by priority, then the others",
        steps: &[
            Pool("a", &["10.1.0.0/32"], NONE),
            Pool(
                "b",
                &["10.2.0.0/32"],
                r#"{"serviceAllocation": {"priority": 20}}"#,
            ),
            Pool(
                "c",
                &["10.3.0.0/32"],
                r#"{"serviceAllocation": {"priority": 10}}"#,
            ),
            Pool("d", &["10.4.0.0/32"], r#"{"serviceAllocation": {}}"#),
            Service("p1", NONE, NONE),
            Has("p1", &["10.3.0.0"]),
            Service("p2", NONE, NONE),
            Has("p2", &["10.2.0.0"]),
            Service("p3", NONE, NONE),
            Has("p3", &["10.4.0.0"]),
            Service("p4", NONE, NONE),
            Has("p4", &["10.1.0.0"]),
        ],
    },
    Row {
        name: "2.6 pinned to a namespace or to labels",
        steps: &[
            Pool("a", &["10.1.0.0/28"], NONE),
            Pool(
                "b",
                &["10.2.0.0/28"],
                r#"{"serviceAllocation": {"priority": 1, "namespaces": ["elsewhere"]}}"#,
            ),
            Pool(
                "c",
                &["10.3.0.0/28"],
                r#"{"serviceAllocation": {"priority": 2, "serviceSelectors": [{"matchLabels": {"x": "y"}}]}}"#,
            ),
            Service("p5", NONE, NONE),
            Has("p5", &["10.1.0.0"]),
            Pool(
                "b",
                &["10.2.0.0/28"],
                r#"{"serviceAllocation": {"priority": 1, "namespaces": ["default"]}}"#,
            ),
            Service("p6", NONE, NONE),
            Has("p6", &["10.2.0.0"]),
            Still("p5", &["10.1.0.0"]),
        ],
    },
    Row {
        name: "2.6 by namespaces, their labels, the Service's labels, and priority",
        steps: &[
            Namespace(r#"{"team": "a"}"#),
            Pool("all", &["10.1.0.0/32"], NONE),
            Pool(
                "both",
                &["10.2.0.0/32"],
                r#"{"serviceAllocation": {"priority": 4, "namespaceSelectors":
                    [{"matchLabels": {"team": "b"}}, {"matchLabels": {"team": "a"}}]}}"#,
            ),
            Pool(
                "labels",
                &["10.3.0.0/32"],
                r#"{"serviceAllocation": {"priority": 3, "namespaces": ["elsewhere"],
                    "namespaceSelectors": [{"matchLabels": {"team": "a"}}]}}"#,
            ),
            Pool(
                "not-these",
                &["10.4.0.0/32"],
                r#"{"serviceAllocation": {"priority": 1, "namespaces": ["default"],
                    "serviceSelectors": [{"matchLabels": {"x": "y"}}]}}"#,
            ),
            Pool(
                "named",
                &["10.5.0.0/32"],
                r#"{"serviceAllocation": {"priority": 2, "namespaces": ["default", "elsewhere"]}}"#,
            ),
            Pool(
                "elsewhere",
                &["10.6.0.0/32"],
                r#"{"serviceAllocation": {"priority": 1, "namespaces": ["elsewhere"],
                    "namespaceSelectors": [{"matchLabels": {"tier": "c"}}]}}"#,
            ),
            Still("p9", &[]),
            Service("p9", NONE, NONE),
            Has("p9", &["10.5.0.0"]),
            Service("p10", NONE, NONE),
            Has("p10", &["10.3.0.0"]),
            Service("p11", NONE, NONE),
            Has("p11", &["10.2.0.0"]),
            Service("p12", NONE, NONE),
            Has("p12", &["10.1.0.0"]),
            Service("p13", NONE, NONE),
            Told("p13", "AllocationFailed", "no available IPs"),
            Label("p13", r#"{"x": "y"}"#),
            Has("p13", &["10.4.0.0"]),
            From("p13", "not-these"),
            Service("p14", NONE, NONE),
            Told("p14", "AllocationFailed", "no available IPs"),
            Namespace(r#"{"tier": "c"}"#),
            Has("p14", &["10.6.0.0"]),
            From("p14", "elsewhere"),
            Still("p10", &["10.3.0.0"]),
            // Two pools are for this team no more.
            Namespace(r#"{"team": null}"#),
            Has("p10", &[]),
            Has("p11", &[]),
            Still("p14", &["10.6.0.0"]),
            Namespace(r#"{"tier": null}"#),
        ],
    },
    Row {
        name: "2.6 a pool that is not automatic, by its name",
        steps: &[
            Pool("a", &["10.1.0.0/28"], r#"{"autoAssign": false}"#),
            Service("p7", NONE, NONE),
            Told("p7", "AllocationFailed", "no available IPs"),
            Service("p8", r#"{"address-pool": "a"}"#, NONE),
            Has("p8", &["10.1.0.0"]),
            From("p8", "a"),
            Still("p7", &[]),
        ],
    },
];
