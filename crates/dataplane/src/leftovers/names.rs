//! What kube-proxy calls its things, in all of its modes: what its own `--cleanup` removes
//! (`pkg/proxy/{iptables,ipvs,nftables}`, Kubernetes 1.20 to 1.37).
//!
//! The kubelet's chains are not among them, though kube-proxy makes some of them, too: `KUBE-FIREWALL`,
//! `KUBE-MARK-DROP`, `KUBE-IPTABLES-HINT`, `KUBE-KUBELET-CANARY`. Nor is what other programs name
//! alike (`KUBE-ROUTER-…`, `KUBE-NWPLCY-…`).

/// The nftables table of its own, in families `ip` and `ip6`.
pub(super) const TABLE: &str = "kube-proxy";
/// The interface of its IPVS mode.
pub(super) const DEVICE: &str = "kube-ipvs0";

/// Tables of iptables that it has chains in.
pub(super) const IPTABLES: [&str; 3] = ["nat", "filter", "mangle"];

/// What the built-in chains of iptables are called: rules there that lead to [`ENTRIES`] are
/// kube-proxy's.
pub(super) const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// Chains that built-in ones lead to.
const ENTRIES: [&str; 9] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL",
    // IPVS.
    "KUBE-NODE-PORT",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
];
/// Those that only these lead to, and the one by which it sees that others flushed the rules.
const INNER: [&str; 5] = [
    "KUBE-MARK-MASQ",
    "KUBE-PROXY-CANARY",
    "KUBE-LOAD-BALANCER",
    "KUBE-FIRE-WALL",
    "KUBE-SOURCE-RANGES-FIREWALL",
];
/// Before the hash of a Service's port or of an endpoint.
const PREFIXES: [&str; 6] = [
    "KUBE-SVC-",
    "KUBE-SVL-",
    "KUBE-SEP-",
    "KUBE-FW-",
    "KUBE-EXT-",
    "KUBE-XLB-",
];

/// A packet that was marked in the first is masqueraded in the second.
pub(super) const MARK: &str = "KUBE-MARK-MASQ";
pub(super) const MASQUERADE: &str = "KUBE-POSTROUTING";

pub(super) fn is_entry(chain: &str) -> bool {
    ENTRIES.contains(&chain)
}

/// Whether a chain of iptables is its.
pub(super) fn is_chain(name: &str) -> bool {
    is_entry(name)
        || INNER.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A pattern for `grep -E` that finds them, and no others, in what `iptables-save` prints.
pub(super) fn pattern() -> String {
    let bare = |name: &&'static str| name.trim_start_matches("KUBE-");
    let hashed: Vec<&str> = PREFIXES.iter().map(bare).collect();
    let named: Vec<&str> = ENTRIES.iter().chain(&INNER).map(bare).collect();
    let (hashed, named) = (hashed.join("|"), named.join("|"));
    format!("KUBE-(({hashed})[A-Z0-9]+|{named})( |$)")
}

/// Sets of ipset.
const SETS: [&str; 17] = [
    "KUBE-LOOP-BACK",
    "KUBE-CLUSTER-IP",
    "KUBE-EXTERNAL-IP",
    "KUBE-EXTERNAL-IP-LOCAL",
    "KUBE-LOAD-BALANCER",
    "KUBE-LOAD-BALANCER-FW",
    "KUBE-LOAD-BALANCER-LOCAL",
    "KUBE-LOAD-BALANCER-SOURCE-IP",
    "KUBE-LOAD-BALANCER-SOURCE-CIDR",
    "KUBE-NODE-PORT-TCP",
    "KUBE-NODE-PORT-LOCAL-TCP",
    "KUBE-NODE-PORT-UDP",
    "KUBE-NODE-PORT-LOCAL-UDP",
    "KUBE-NODE-PORT-SCTP-HASH",
    "KUBE-NODE-PORT-LOCAL-SCTP-HASH",
    "KUBE-HEALTH-CHECK-NODE-PORT",
    "KUBE-IPVS-IPS",
];
/// Bytes that a set's name may have: those of IPv6 are cut there.
const SET_NAME: usize = 31;

/// Whether a set of ipset is its.
pub(super) fn is_set(name: &str) -> bool {
    SETS.iter().any(|set| {
        let six = set.replacen("KUBE-", "KUBE-6-", 1);
        name == *set || name == six.get(..SET_NAME).unwrap_or(&six)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kube_proxys() {
        for (name, is) in [
            ("KUBE-SERVICES", true),
            ("KUBE-SVC-ERIFXISQEP7F7OF4", true),
            ("KUBE-SEP-6RLR7GMXHKSBV5ON", true),
            ("KUBE-PROXY-CANARY", true),
            ("KUBE-MARK-MASQ", true),
            ("KUBE-FIRE-WALL", true),
            ("KUBE-FIREWALL", false),
            ("KUBE-MARK-DROP", false),
            ("KUBE-IPTABLES-HINT", false),
            ("KUBE-KUBELET-CANARY", false),
            ("KUBE-ROUTER-INPUT", false),
            ("KUBE-NWPLCY-DEFAULT", false),
            ("KUBE-POD-FW-V2HQ3XXQ", false),
            ("KUBE-SERVICES-OTHER", false),
            ("PREROUTING", false),
        ] {
            assert_eq!(is_chain(name), is, "{name}");
        }
        for (name, is) in [
            ("KUBE-CLUSTER-IP", true),
            ("KUBE-6-CLUSTER-IP", true),
            ("KUBE-6-LOAD-BALANCER-SOURCE-CID", true),
            ("KUBE-6-LOAD-BALANCER-SOURCE-CIDR", false),
            ("KUBE-DST-V2HQ3XXQ", false),
            ("kube-router-pod-ips", false),
        ] {
            assert_eq!(is_set(name), is, "{name}");
        }
    }

    #[test]
    fn the_pattern_names_them_all() {
        let pattern = pattern();
        assert_eq!(
            pattern.split_once('|').map(|(first, _)| first),
            Some("KUBE-((SVC-")
        );
        for name in ENTRIES.iter().chain(&INNER).chain(&PREFIXES) {
            let name = name.trim_start_matches("KUBE-");
            assert!(pattern.contains(name), "{name} is not in {pattern}");
        }
    }
}
