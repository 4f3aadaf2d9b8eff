//! Which MAC addresses are members': what their states say, and said.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::mac::VirtualMac;
use crate::name::Name;
use crate::world::{NodeState, World};

/// The MAC addresses of all members that were ever heard of. One that is dead, cut off or gone from
/// the cluster may still answer; nothing is forgotten while the agent runs.
#[derive(Clone, Debug, Default)]
pub struct Stations {
    macs: BTreeSet<[u8; 6]>,
    /// Of these nodes they are known.
    nodes: BTreeSet<Name>,
}

impl Stations {
    /// Takes in what a node says.
    pub fn note(&mut self, node: &Name, state: &NodeState) {
        let before = self.macs.len();
        self.macs
            .extend(state.interfaces.values().filter_map(|it| it.mac));
        let told = state.interfaces.values().any(|it| it.mac.is_some());
        if told && (self.macs.len() > before || !self.nodes.contains(node)) {
            self.nodes.insert(node.clone());
        }
    }

    /// Whether a frame that ties `address` to `mac` may come from a member.
    pub fn has(&self, address: IpAddr, mac: [u8; 6]) -> bool {
        VirtualMac::from(address).0 == mac || self.macs.contains(&mac)
    }

    /// Whether some member has interfaces, and has told no MAC address: agents of earlier versions
    /// did not by beats.
    pub fn lacks_some(&self, world: &World) -> bool {
        world.node_names().any(|node| {
            let state = world.node_state(node);
            state.is_some_and(|it| !it.interfaces.is_empty()) && !self.nodes.contains(node)
        })
    }
}
