//! Who had each address last, as far as this node knows: whether an address that comes to it was
//! somebody's before.
//!
//! What nobody had is probed for before it is announced, as a stranger on the link may have it. What
//! another node had, or this one before it started anew, is announced at once: clients wait, and
//! that node gives way. An exception is an address that its last owner withheld, as a stranger has
//! it. When in doubt nothing waits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::name::Name;
use crate::world::{NodeState, Standing, World};

/// Who had each address last.
#[derive(Clone, Debug, Default)]
pub struct Owners(BTreeMap<IpAddr, Name>);

impl Owners {
    /// Takes in who has these addresses now; returns those that `me` comes to have and should probe
    /// for first.
    ///
    /// Until `settled` this node has only begun to look: whatever it did not see before may have
    /// been somebody's. `before` is what the agent before this one said of this node.
    pub fn look(
        &mut self,
        world: &World,
        me: &str,
        settled: bool,
        before: Option<&NodeState>,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> BTreeSet<IpAddr> {
        let mut news = BTreeSet::new();
        for address in addresses {
            let Some(owner) = world.standing(address).and_then(Standing::owner) else {
                // Without endpoints, say, it is still somebody's.
                if world.holders(address).next().is_none() {
                    self.0.remove(&address);
                }
                continue;
            };
            let last = self.0.insert(address, owner.clone());
            if **owner != *me || last.as_ref() == Some(owner) {
                continue;
            }
            let withheld = |state: &NodeState| state.withheld.contains(&address);
            let probes = match last {
                Some(last) => world.node_state(&last).is_some_and(withheld),
                None if settled => true,
                None => {
                    let mut nodes = world.node_names().filter_map(|it| world.node_state(it));
                    before.is_some_and(withheld) || nodes.any(withheld)
                }
            };
            if probes {
                news.insert(address);
            }
        }
        news
    }
}
