//! Annotation and label names on Services and status objects (`MetalLB` API).

use std::collections::BTreeMap;

/// Prefix of every current key.
pub const PREFIX: &str = "metallb.io/";
/// Prefix of older releases; used only where the current key is absent.
pub const DEPRECATED_PREFIX: &str = "metallb.universe.tf/";

/// In: take addresses from this pool only.
pub const ADDRESS_POOL: &str = "metallb.io/address-pool";
/// In: comma list of one or two addresses.
pub const LOAD_BALANCER_IPS: &str = "metallb.io/loadBalancerIPs";
/// In: sharing key; Services with equal keys may share an address.
pub const ALLOW_SHARED_IP: &str = "metallb.io/allow-shared-ip";
/// Out: name of the pool that the Service's addresses are from.
pub const IP_ALLOCATED_FROM_POOL: &str = "metallb.io/ip-allocated-from-pool";

/// In, on a Node: `"true"` asks its agent to give everything away (`corten drain`).
pub const DRAIN: &str = "corten.dev/drain";

/// In: the scheduler of the Service's virtual servers where IPVS balances (`lc`, `mh,mh-port`).
pub const IPVS_SCHEDULER: &str = "corten.dev/ipvs-scheduler";
/// In: the weights of the Service's endpoints there, by node or address (`node-1=3,10.244.1.2=5`).
pub const IPVS_WEIGHTS: &str = "corten.dev/ipvs-weights";

/// Label on status objects: the node.
pub const LABEL_NODE: &str = "metallb.io/node";
/// Label on status objects: the Service's name.
pub const LABEL_SERVICE_NAME: &str = "metallb.io/service-name";
/// Label on status objects: the Service's namespace.
pub const LABEL_SERVICE_NAMESPACE: &str = "metallb.io/service-namespace";

/// The annotation's value and whether it came from the deprecated key. `key` is a current key.
/// Presence decides, not the value: an empty current key hides a filled deprecated one.
pub fn get<'a>(annotations: &'a BTreeMap<String, String>, key: &str) -> Option<(&'a str, bool)> {
    if let Some(value) = annotations.get(key) {
        return Some((value, false));
    }
    let name = key.strip_prefix(PREFIX)?;
    let value = annotations.get(&format!("{DEPRECATED_PREFIX}{name}"))?;
    Some((value, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_decides() {
        let of = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let old = ("metallb.universe.tf/address-pool", "old");
        assert_eq!(get(&of(&[]), ADDRESS_POOL), None);
        assert_eq!(get(&of(&[old]), ADDRESS_POOL), Some(("old", true)));
        assert_eq!(
            get(&of(&[(ADDRESS_POOL, ""), old]), ADDRESS_POOL),
            Some(("", false))
        );
        assert_eq!(get(&of(&[old]), "other/address-pool"), None);
    }
}
