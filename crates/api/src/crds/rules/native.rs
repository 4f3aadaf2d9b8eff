//! Rules of the kinds of `corten.dev`.

use serde_json::{Value, json};

use super::{
    COMMUNITY_MESSAGE, MAX_SELECTORS, add, community_syntax, connect_time, one_line, peer_ends,
    rule, selector, selectors, session, set, timers, unique,
};

pub(in crate::crds) fn advertisement(mut schema: Value) -> Value {
    unique(
        &mut schema,
        &["pools", "layer2.interfaces", "bgp.peers", "bgp.communities"],
    );
    selectors(
        &mut schema,
        &["poolSelectors", "nodeSelectors", "serviceSelectors"],
    );
    let preferred = "layer2.preferredNodeSelectors";
    set(&mut schema, preferred, "maxItems", json!(MAX_SELECTORS));
    selector(&mut schema, &format!("{preferred}[].preference"));
    set(&mut schema, "bgp.communities", "maxItems", json!(1024));
    set(&mut schema, "bgp.communities[]", "maxLength", json!(253));
    add(
        &mut schema,
        "bgp.communities[]",
        vec![rule(
            &format!("!self.contains(':') || {}", community_syntax()),
            COMMUNITY_MESSAGE,
        )],
    );
    let ways = "[has(self.layer2), has(self.bgp), has(self.linux)].filter(given, given).size()";
    let every = "!has(self.serviceSelectors) || size(self.serviceSelectors) == 0 || \
                 !has(self.bgp)";
    add(
        &mut schema,
        "",
        vec![
            rule(
                &format!("{ways} == 1"),
                "exactly one of layer2, bgp and linux must be given",
            ),
            rule(
                &format!(
                    "{every} || !has(self.bgp.aggregationLength) || \
                     self.bgp.aggregationLength == 32"
                ),
                "serviceSelectors and aggregationLength are mutually exclusive, both cannot be set",
            ),
            rule(
                &format!(
                    "{every} || !has(self.bgp.aggregationLengthV6) || \
                     self.bgp.aggregationLengthV6 == 128"
                ),
                "serviceSelectors and aggregationLengthV6 are mutually exclusive, both cannot be \
                 set",
            ),
        ],
    );
    schema
}

pub(in crate::crds) fn peer(mut schema: Value) -> Value {
    selectors(&mut schema, &["nodeSelectors"]);
    session(&mut schema);
    timers(&mut schema);
    connect_time(&mut schema);
    peer_ends(&mut schema);
    add(
        &mut schema,
        "",
        vec![
            rule(
                "!(has(self.peerASN) && self.peerASN == self.myASN && has(self.multihop) && \
                 self.multihop)",
                "multihop is for peers of another AS",
            ),
            rule(
                "!(has(self.ttlSecurityHops) && has(self.multihop) && self.multihop)",
                "ttlSecurityHops and multihop are mutually exclusive",
            ),
            rule(
                "!has(self.role) || !(has(self.dynamicASN) && self.dynamicASN == 'internal' || \
                 has(self.peerASN) && self.peerASN == (has(self.localASN) ? self.localASN : \
                 self.myASN))",
                "role is for peers of another AS",
            ),
            rule(
                "!(has(self.strictRole) && self.strictRole) || has(self.role)",
                "strictRole needs role",
            ),
            rule(
                "!(has(self.listen) && has(self.interface) && self.interface != '')",
                "listen and interface are mutually exclusive",
            ),
            rule(
                "!(has(self.receive) && has(self.vrf) && self.vrf != '') || \
                 (has(self.receive.table) && self.receive.table != 0)",
                "receive in a VRF needs the number of the VRF's table",
            ),
        ],
    );
    for (field, family) in [("nextHop.ipv4", 4), ("nextHop.ipv6", 6)] {
        set(&mut schema, field, "maxLength", json!(64));
        add(
            &mut schema,
            field,
            vec![rule(
                &format!("self == '' || (isIP(self) && ip(self).family() == {family})"),
                &format!("must be an IPv{family} address"),
            )],
        );
    }
    unique(&mut schema, &["receive.prefixes"]);
    set(&mut schema, "receive.prefixes", "maxItems", json!(1024));
    set(&mut schema, "receive.prefixes[]", "maxLength", json!(64));
    add(
        &mut schema,
        "receive.prefixes[]",
        vec![rule("isCIDR(self)", "must be a prefix in CIDR form")],
    );
    add(
        &mut schema,
        "receive.table",
        vec![rule("self != 255", "table 255 is the kernel's own")],
    );
    for field in ["interface", "vrf"] {
        one_line(&mut schema, field);
    }
    schema
}
