//! An Advertisement with `linux.device: kube-lb0`, compiled.

use std::collections::BTreeSet;

use api::corten::v1alpha1::{AdvertisementSpec, LinuxNative};
use serde::{Deserialize, Serialize};

use super::l2::PoolChoice;
use super::verdict::Findings;
use super::{Selector, bgp, chooses};
use crate::name::Name;
use crate::net::Family;
use crate::world::Labels;

/// Which pools' addresses are put on `kube-lb0`, and on which nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxAdvertisement {
    /// Its name.
    pub name: Name,
    /// The pools it reaches, by name or by label.
    pub pools: BTreeSet<Name>,
    /// Nodes that may have them; empty: all.
    pub node_selectors: Vec<Selector>,
    /// Services it is for; empty: all.
    pub service_selectors: Vec<Selector>,
    /// Prefix length that IPv4 addresses get.
    pub length_v4: u8,
    /// Prefix length that IPv6 addresses get.
    pub length_v6: u8,
}

impl LinuxAdvertisement {
    /// The prefix length that addresses of `family` get.
    pub const fn length(&self, family: Family) -> u8 {
        match family {
            Family::V4 => self.length_v4,
            Family::V6 => self.length_v6,
        }
    }

    /// Whether it is for a node with these labels.
    pub fn allows_node(&self, labels: &Labels) -> bool {
        chooses(&self.node_selectors, labels)
    }

    /// Whether it is for a Service with these labels.
    pub fn allows_service(&self, labels: &Labels) -> bool {
        chooses(&self.service_selectors, labels)
    }
}

/// Where its fields stand.
pub(super) const PLACE: &str = "spec.linux";

/// The rules that need no other object; the pools are resolved later.
pub(super) fn check(
    name: &str,
    spec: &AdvertisementSpec,
    linux: &LinuxNative,
    found: &mut Findings,
) -> (PoolChoice, LinuxAdvertisement) {
    let choice = PoolChoice::check(&spec.pools, &spec.pool_selectors, found);
    let wanted = (linux.aggregation_length, linux.aggregation_length_v6);
    let (length_v4, length_v6) = bgp::lengths(PLACE, wanted, 1, found);
    let advertisement = LinuxAdvertisement {
        name: name.into(),
        pools: BTreeSet::new(),
        node_selectors: found.selectors("spec.nodeSelectors", &spec.node_selectors),
        service_selectors: found.selectors("spec.serviceSelectors", &spec.service_selectors),
        length_v4,
        length_v6,
    };
    (choice, advertisement)
}
