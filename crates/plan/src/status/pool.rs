//! The counters in a pool's status.

use std::collections::BTreeMap;

use api::metallb::IPAddressPoolStatus;

use crate::config::ObjectKind;
use crate::ipam::Counters;
use crate::name::Name;
use crate::world::World;

/// The statuses that the `IPAddressPool` objects should have, by name. A pool that is not in force
/// has none: what it says stays.
pub fn pools(world: &World) -> BTreeMap<Name, IPAddressPoolStatus> {
    let namespace = &world.settings().namespace;
    world
        .verdicts()
        .keys()
        .filter(|object| object.kind == ObjectKind::IPAddressPool && object.namespace == *namespace)
        .filter_map(|object| {
            let found = world.allocator().counters(&object.name)?;
            Some((object.name.clone(), counters(found)))
        })
        .collect()
}

/// Counters as a status has them: an enormous range is `i64::MAX`.
pub fn counters(counters: Counters) -> IPAddressPoolStatus {
    let shown = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    IPAddressPoolStatus {
        assigned_ipv4: shown(counters.assigned_v4),
        assigned_ipv6: shown(counters.assigned_v6),
        available_ipv4: shown(counters.available_v4),
        available_ipv6: shown(counters.available_v6),
    }
}
