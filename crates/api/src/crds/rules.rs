//! Rules that the types cannot say: CEL expressions, unique lists, and the bounds that keep the
//! expressions within the API server's cost budget.
//!
//! Texts follow `MetalLB`'s, which its end-to-end tests compare in part. Rules across objects
//! (overlapping pools, sessions that clash) cannot be said here; `plan` has them, and also the
//! order of the ends of an IPv6 range, for which CEL has no operator.

use serde_json::{Value, json};

pub(super) mod native;

/// The most entries of a pool. The cost of a rule is counted for a list of this length.
const MAX_ADDRESSES: u64 = 4096;
/// The most selectors in a list, and the most expressions in a selector.
const MAX_SELECTORS: u64 = 1024;
const MAX_EXPRESSIONS: u64 = 64;

/// A rule and what it says when it fails.
fn rule(expression: &str, message: &str) -> Value {
    json!({"rule": expression, "message": message})
}

/// Adds rules to the schema at a path like `spec/items`; the names are in our own types, so a
/// wrong one is a fault that the first test finds.
fn add(schema: &mut Value, path: &str, rules: Vec<Value>) {
    let list = &mut at(schema, path)["x-kubernetes-validations"];
    if list.is_null() {
        *list = json!([]);
    }
    if let Value::Array(list) = list {
        list.extend(rules);
    }
}

fn set(schema: &mut Value, path: &str, key: &str, value: Value) {
    at(schema, path)[key] = value;
}

/// The schema of a field: `a.b[]` is the item of list b in object a; empty is the schema itself.
fn at<'a>(schema: &'a mut Value, path: &str) -> &'a mut Value {
    let mut here = schema;
    for name in path.split('.').filter(|name| !name.is_empty()) {
        let field = name.trim_end_matches("[]");
        here = &mut here["properties"][field];
        assert!(here.is_object(), "no field {field} in {path}");
        if name.ends_with("[]") {
            here = &mut here["items"];
        }
    }
    here
}

/// No entry twice.
fn unique(schema: &mut Value, paths: &[&str]) {
    for path in paths {
        set(schema, path, "x-kubernetes-list-type", json!("set"));
    }
}

/// A list of selectors: no selector twice, and each of them well-formed.
fn selectors(schema: &mut Value, paths: &[&str]) {
    unique(schema, paths);
    for path in paths {
        set(schema, path, "maxItems", json!(MAX_SELECTORS));
        selector(schema, &format!("{path}[]"));
    }
}

fn selector(schema: &mut Value, path: &str) {
    let expressions = format!("{path}.matchExpressions");
    set(schema, &expressions, "maxItems", json!(MAX_EXPRESSIONS));
    set(
        schema,
        &format!("{expressions}[].operator"),
        "enum",
        json!(["In", "NotIn", "Exists", "DoesNotExist"]),
    );
    add(
        schema,
        &format!("{expressions}[]"),
        vec![rule(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            "values must be given for In and NotIn, and only for them",
        )],
    );
}

pub(super) fn ip_address_pool(mut schema: Value) -> Value {
    unique(&mut schema, &["addresses", "serviceAllocation.namespaces"]);
    selectors(
        &mut schema,
        &[
            "serviceAllocation.namespaceSelectors",
            "serviceAllocation.serviceSelectors",
        ],
    );
    set(&mut schema, "addresses", "maxItems", json!(MAX_ADDRESSES));
    set(&mut schema, "addresses[]", "maxLength", json!(96));
    let start = "self.split('-')[0].trim()";
    let end = "self.split('-')[1].trim()";
    let number = |address: &str| {
        let octet = |i: u32| format!("int({address}.split('.')[{i}])");
        format!(
            "{} * 16777216 + {} * 65536 + {} * 256 + {}",
            octet(0),
            octet(1),
            octet(2),
            octet(3)
        )
    };
    let range = format!("size(self.split('-')) == 2 && isIP({start}) && isIP({end})");
    add(
        &mut schema,
        "addresses[]",
        vec![
            rule(
                "self.contains('-') || isCIDR(self)",
                "invalid CIDR: write a prefix, or a range as start-end",
            ),
            rule(
                &format!(
                    "!self.contains('-') || ({range} && ip({start}).family() == ip({end}).family())"
                ),
                "invalid IP range: both ends must be addresses of one family",
            ),
            rule(
                &format!(
                    "!({range} && !self.contains(':')) || {} <= {}",
                    number(start),
                    number(end)
                ),
                "invalid IP range: start IP is after the end IP",
            ),
        ],
    );
    schema
}

pub(super) fn l2_advertisement(mut schema: Value) -> Value {
    unique(&mut schema, &["ipAddressPools", "interfaces"]);
    selectors(
        &mut schema,
        &[
            "ipAddressPoolSelectors",
            "nodeSelectors",
            "serviceSelectors",
        ],
    );
    set(
        &mut schema,
        "preferredNodeSelectors",
        "maxItems",
        json!(MAX_SELECTORS),
    );
    selector(&mut schema, "preferredNodeSelectors[].preference");
    schema
}

pub(super) fn bgp_advertisement(mut schema: Value) -> Value {
    unique(&mut schema, &["ipAddressPools", "peers", "communities"]);
    selectors(
        &mut schema,
        &[
            "ipAddressPoolSelectors",
            "nodeSelectors",
            "serviceSelectors",
        ],
    );
    let none = "!has(self.serviceSelectors) || size(self.serviceSelectors) == 0";
    add(
        &mut schema,
        "",
        vec![
            rule(
                &format!("{none} || !has(self.aggregationLength) || self.aggregationLength == 32"),
                "serviceSelectors and aggregationLength are mutually exclusive, both cannot be set",
            ),
            rule(
                &format!(
                    "{none} || !has(self.aggregationLengthV6) || self.aggregationLengthV6 == 128"
                ),
                "serviceSelectors and aggregationLengthV6 are mutually exclusive, both cannot be set",
            ),
        ],
    );
    set(&mut schema, "communities", "maxItems", json!(1024));
    set(&mut schema, "communities[]", "maxLength", json!(253));
    add(
        &mut schema,
        "communities[]",
        vec![rule(
            &format!("!self.contains(':') || {}", community_syntax()),
            COMMUNITY_MESSAGE,
        )],
    );
    schema
}

pub(super) fn community(mut schema: Value) -> Value {
    set(&mut schema, "communities", "maxItems", json!(1024));
    set(&mut schema, "communities[].value", "maxLength", json!(64));
    add(
        &mut schema,
        "communities[].value",
        vec![rule(&community_syntax(), COMMUNITY_MESSAGE)],
    );
    schema
}

const COMMUNITY_MESSAGE: &str = "invalid community format: write 1234:1 with two numbers up to \
                                 65535, or large:1234:1:2 with three numbers up to 4294967295";

fn community_syntax() -> String {
    let part = |i: u32, max: u32| format!("int(self.split(':')[{i}]) <= {max}");
    format!(
        "(self.matches('^[0-9]{{1,5}}:[0-9]{{1,5}}$') && {} && {}) || \
         (self.matches('^large:[0-9]{{1,10}}:[0-9]{{1,10}}:[0-9]{{1,10}}$') && {} && {} && {})",
        part(0, 65535),
        part(1, 65535),
        part(1, u32::MAX),
        part(2, u32::MAX),
        part(3, u32::MAX),
    )
}

pub(super) fn bgp_peer_v1beta1(mut schema: Value) -> Value {
    selectors(&mut schema, &["nodeSelectors"]);
    peer_addresses(&mut schema);
    timers(&mut schema);
    add(
        &mut schema,
        "peerASN",
        vec![rule("self != 0", "missing peer ASN")],
    );
    schema
}

pub(super) fn bgp_peer(mut schema: Value) -> Value {
    selectors(&mut schema, &["nodeSelectors"]);
    peer_addresses(&mut schema);
    timers(&mut schema);
    connect_time(&mut schema);
    peer_ends(&mut schema);
    let asn = "has(self.peerASN) && self.peerASN != 0";
    add(
        &mut schema,
        "",
        vec![
            rule(
                "!has(self.password) || self.password == '' || !has(self.passwordSecret) || \
                 !has(self.passwordSecret.name) || self.passwordSecret.name == ''",
                "can not have both password and secret ref set in peer config",
            ),
            rule(
                &format!(
                    "!({asn} && self.peerASN == self.myASN && has(self.ebgpMultiHop) && \
                     self.ebgpMultiHop)"
                ),
                "invalid ebgp-multihop parameter set for an ibgp peer",
            ),
            rule(
                "(has(self.enableGracefulRestart) && self.enableGracefulRestart) == \
                 (has(oldSelf.enableGracefulRestart) && oldSelf.enableGracefulRestart)",
                "EnableGracefulRestart cannot be changed after creation",
            ),
        ],
    );
    for field in ["interface", "vrf"] {
        one_line(&mut schema, field);
    }
    schema
}

fn connect_time(schema: &mut Value) {
    set(schema, "connectTime", "maxLength", json!(64));
    add(
        schema,
        "connectTime",
        vec![
            rule(
                "duration(self).getSeconds() >= 1 && duration(self).getSeconds() <= 65535",
                "connect time should be between 1 seconds to 65535",
            ),
            rule(
                "duration(self).getMilliseconds() % 1000 == 0",
                "connect time should contain a whole number of seconds",
            ),
        ],
    );
}

/// The neighbour's AS and where it is, each said in one way.
fn peer_ends(schema: &mut Value) {
    let asn = "has(self.peerASN) && self.peerASN != 0";
    let address = "has(self.peerAddress) && self.peerAddress != ''";
    let interface = "has(self.interface) && self.interface != ''";
    add(
        schema,
        "",
        vec![
            rule(
                &format!("({asn}) || has(self.dynamicASN)"),
                "missing peer ASN and dynamicASN",
            ),
            rule(
                &format!("!({asn} && has(self.dynamicASN))"),
                "both peer ASN and dynamicASN specified",
            ),
            rule(
                &format!("({address}) || ({interface})"),
                "peer has no Address or Interface specified",
            ),
            rule(
                &format!("!({address} && {interface})"),
                "peer has both Address and Interface specified",
            ),
        ],
    );
}

fn peer_addresses(schema: &mut Value) {
    session(schema);
    one_line(schema, "password");
}

/// Addresses and AS number of a session.
fn session(schema: &mut Value) {
    for (field, message) in [
        ("peerAddress", "invalid BGPPeer address"),
        ("sourceAddress", "invalid source IP"),
        ("routerID", "invalid router ID"),
    ] {
        set(schema, field, "maxLength", json!(64));
        add(
            schema,
            field,
            vec![rule("self == '' || isIP(self)", message)],
        );
    }
    add(
        schema,
        "myASN",
        vec![rule("self != 0", "missing local ASN")],
    );
}

/// What goes into a router's configuration stays on its line.
fn one_line(schema: &mut Value, field: &str) {
    set(schema, field, "maxLength", json!(1024));
    add(
        schema,
        field,
        vec![rule(
            "!self.contains('\\n') && !self.contains('\\r')",
            "contains invalid characters",
        )],
    );
}

fn timers(schema: &mut Value) {
    for field in ["holdTime", "keepaliveTime"] {
        set(schema, field, "maxLength", json!(64));
    }
    add(
        schema,
        "holdTime",
        // Less than a second counts as 0.
        vec![rule(
            "duration(self) >= duration('3s') || (duration(self) >= duration('0s') && \
             duration(self) < duration('1s'))",
            "invalid hold time: must be 0 or >=3s",
        )],
    );
    add(
        schema,
        "keepaliveTime",
        vec![rule(
            "duration(self) >= duration('0s')",
            "invalid keepaliveTime: must not be negative",
        )],
    );
    add(
        schema,
        "",
        vec![rule(
            "!has(self.holdTime) || !has(self.keepaliveTime) || \
             duration(self.keepaliveTime) <= duration(self.holdTime)",
            "invalid keepaliveTime, must be lower than holdTime",
        )],
    );
}

/// A status object is for one Service on one node, for good.
pub(super) fn service_status(mut schema: Value) -> Value {
    for field in ["node", "serviceName", "serviceNamespace"] {
        add(
            &mut schema,
            field,
            vec![rule("self == oldSelf", "Value is immutable")],
        );
    }
    schema
}
