//! L2Advertisement, compiled.

use std::collections::{BTreeMap, BTreeSet};

use api::meta::LabelSelector;
use api::metallb::L2AdvertisementSpec;
use serde::{Deserialize, Serialize};

use super::verdict::{Findings, sorted};
use super::{Selector, chooses};
use crate::name::Name;
use crate::world::Labels;

/// Which pools are answered for on which nodes and interfaces.
///
/// MetalLB drops an advertisement that equals another; here both stay, because what counts is
/// their union. Preferences are summed over all, as MetalLB does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct L2Advertisement {
    /// Its name.
    pub name: Name,
    /// The pools it reaches, by name or by label.
    pub pools: BTreeSet<Name>,
    /// Nodes that may announce; empty: all.
    pub node_selectors: Vec<Selector>,
    /// Exact names; empty: all.
    pub interfaces: BTreeSet<Name>,
    /// Services it is for; empty: all.
    pub service_selectors: Vec<Selector>,
    /// Which of its nodes should rather announce.
    pub preferences: Vec<Preference>,
    /// The address is put on the interface whose subnet holds it; a node without one does not
    /// stand.
    #[serde(default)]
    pub on_interface: bool,
    /// The address answers with a MAC address of its own.
    #[serde(default)]
    pub virtual_mac: bool,
    /// A node that would be first takes an address from one that has it. Where one advertisement
    /// says no, the address stays.
    #[serde(default = "yes")]
    pub hand_back: bool,
}

const fn yes() -> bool {
    true
}

/// An entry of `spec.preferredNodeSelectors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preference {
    /// 1 to 100.
    pub weight: u32,
    /// The nodes.
    pub selector: Selector,
}

impl L2Advertisement {
    /// Whether a node with these labels may announce.
    pub fn allows_node(&self, labels: &Labels) -> bool {
        chooses(&self.node_selectors, labels)
    }

    /// Whether it is for a Service with these labels.
    pub fn allows_service(&self, labels: &Labels) -> bool {
        chooses(&self.service_selectors, labels)
    }

    /// How much a node with these labels is preferred; 0 where it may not announce.
    pub fn score(&self, labels: &Labels) -> u32 {
        if !self.allows_node(labels) {
            return 0;
        }
        self.preferences
            .iter()
            .filter(|preference| preference.selector.matches(labels))
            .fold(0, |sum, preference| sum.saturating_add(preference.weight))
    }
}

/// How an advertisement chooses its pools.
#[derive(Clone, Debug, Default)]
pub(super) struct PoolChoice {
    names: Vec<String>,
    selectors: Vec<Selector>,
}

impl PoolChoice {
    pub(super) fn check(
        names: &[String],
        by_label: &[LabelSelector],
        found: &mut Findings,
    ) -> Self {
        found.unique("spec.ipAddressPools", names);
        Self {
            names: names.to_vec(),
            selectors: found.selectors("spec.ipAddressPoolSelectors", by_label),
        }
    }

    /// The pools in force that it reaches; warns of names and selectors that reach none.
    pub(super) fn resolve(
        &self,
        pools: &BTreeMap<Name, Labels>,
        found: &mut Findings,
    ) -> BTreeSet<Name> {
        if self.names.is_empty() && self.selectors.is_empty() {
            return pools.keys().cloned().collect();
        }
        let mut reached = BTreeSet::new();
        for (n, name) in self.names.iter().enumerate() {
            match pools.get_key_value(name.as_str()) {
                Some((name, _)) => {
                    reached.insert(name.clone());
                }
                None => found.warning(
                    format!("spec.ipAddressPools[{n}]"),
                    format!("no IPAddressPool {name:?} is in force"),
                    "create the pool, or correct the name",
                ),
            }
        }
        for (n, selector) in self.selectors.iter().enumerate() {
            let mut any = false;
            for (name, _) in pools.iter().filter(|(_, labels)| selector.matches(labels)) {
                any = true;
                reached.insert(name.clone());
            }
            if !any {
                found.warning(
                    format!("spec.ipAddressPoolSelectors[{n}]"),
                    "no IPAddressPool in force has these labels",
                    "label a pool, or correct the selector",
                );
            }
        }
        reached
    }
}

/// The rules that need no other object; the pools are resolved later.
pub(super) fn check(
    name: &str,
    spec: &L2AdvertisementSpec,
    found: &mut Findings,
) -> (PoolChoice, L2Advertisement) {
    let choice = PoolChoice::check(
        &spec.ip_address_pools,
        &spec.ip_address_pool_selectors,
        found,
    );
    found.unique("spec.interfaces", &spec.interfaces);
    let preferred = &spec.preferred_node_selectors;
    let selectors: Vec<_> = preferred.iter().map(|p| sorted(&p.preference)).collect();
    found.unique("spec.preferredNodeSelectors", &selectors);
    let mut preferences: Vec<Preference> = Vec::new();
    for (n, preferred) in preferred.iter().enumerate() {
        let field = format!("spec.preferredNodeSelectors[{n}]");
        let weight = u32::try_from(preferred.weight).unwrap_or(0);
        if !(1..=100).contains(&weight) {
            found.error(
                format!("{field}.weight"),
                format!(
                    "invalid weight {}, must be in the range 1-100",
                    preferred.weight
                ),
                "choose a weight from 1 to 100",
            );
        }
        let selector = found.selector(&format!("{field}.preference"), &preferred.preference);
        preferences.extend(selector.map(|selector| Preference { weight, selector }));
    }
    let advertisement = L2Advertisement {
        name: name.into(),
        pools: BTreeSet::new(),
        node_selectors: found.selectors("spec.nodeSelectors", &spec.node_selectors),
        interfaces: spec
            .interfaces
            .iter()
            .map(|name| Name::from(name.as_str()))
            .collect(),
        service_selectors: found.selectors("spec.serviceSelectors", &spec.service_selectors),
        preferences,
        on_interface: false,
        virtual_mac: false,
        hand_back: true,
    };
    (choice, advertisement)
}
