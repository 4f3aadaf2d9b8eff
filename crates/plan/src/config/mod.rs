//! Objects of any dialect become one [`Config`], with one verdict per object.
//!
//! [`compile`] judges each object by itself, then places the good ones from the oldest to the
//! youngest: Communities and BFD profiles, then pools, then peers and advertisements. Of two that
//! conflict the younger is left out. A bad object is left out and the rest stays in force. Where
//! an earlier form of it was good, that form stays in force instead, as far as it conflicts with
//! nothing older: a pool is frozen and keeps the addresses that no other pool has, an
//! advertisement keeps its other pools. The last good forms come back as [`Compiled::accepted`]:
//! the caller hands them in again next time; [`Compiled::kept`] and [`Kept`] carry those of bad
//! objects over a restart.
//!
//! Rules: MetalLB's (its `internal/config`, its webhooks and CRDs, release 0.16), the union of
//! what its modes accept except that peers of one node are held to those of its modes with FRR
//! ([`Context::native_bgp`] lifts what FRR alone demands). Where it refuses the whole
//! configuration because of one object, here only that object is left out; what it ignores
//! silently (unknown names of pools and peers) is a warning here, and so are two equal
//! advertisements, which it means to refuse and does not.
//!
//! Whether a peer's Secret exists is not looked at here: the shell that reads it says so.

mod accepted;
mod address;
mod bfd;
mod bgp;
mod community;
mod compiler;
mod context;
mod l2;
mod linux;
mod native;
mod object;
mod peer;
mod pool;
mod receive;
mod secret;
mod selector;
#[cfg(test)]
mod tests;
mod verdict;

pub use accepted::{Kept, KeptError, password_digest};
pub use bfd::{BfdProfile, deletion_denied};
pub(crate) use bgp::agree;
pub use bgp::{Bgp, BgpAdvertisement, compatible};
pub use community::{CommunityError, CommunityValue};
pub use context::{Context, KnownRange, Purpose};
pub use l2::{L2Advertisement, Preference};
pub use linux::LinuxAdvertisement;
pub use object::{Object, ObjectKind, ObjectRef, Objects};
pub use peer::{LocalRole, Neighbour, NextHops, Password, Peer, RemoteAs, Timers};
pub use receive::Receive;
pub use secret::{Hidden, SecretFacts};
pub use selector::{Requirement, Selector, any_matches, chooses};
pub use verdict::{ACCEPTED, Finding, Verdict};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ipam::Pool;
use crate::name::Name;
use compiler::Compiler;
use verdict::Findings;

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Pools, frozen ones among them. No two blocks overlap.
    pub pools: BTreeMap<Name, Pool>,
    /// Layer 2 advertisements with their pools resolved.
    pub l2: BTreeMap<Name, L2Advertisement>,
    /// Advertisements on `kube-lb0` with their pools resolved.
    #[serde(default)]
    pub linux: BTreeMap<Name, LinuxAdvertisement>,
    /// Peers, BGP advertisements and BFD profiles.
    pub bgp: Bgp,
}

impl Config {
    /// Whether some addresses of layer 2 stay with their owners.
    pub fn stays(&self) -> bool {
        self.l2.values().any(|ad| !ad.hand_back)
    }
}

/// A configuration and how it came about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// What is in force.
    pub config: Config,
    /// One verdict for each object.
    pub verdicts: BTreeMap<ObjectRef, Verdict>,
    /// The last good form of each object that had one: of a good object the newest. That of a bad
    /// object is in force unless something older is in its way.
    pub accepted: Objects,
}

/// Judges `objects` and makes a configuration of those in force.
///
/// `last_good` are the last good forms so far ([`Compiled::accepted`]); `context` is what else is
/// known, at least the namespace that MetalLB's objects live in.
pub fn compile<'a>(
    objects: &Objects,
    last_good: &Objects,
    context: impl Into<Context<'a>>,
) -> Compiled {
    Compiler::new(last_good, context.into()).run(objects)
}

/// An object that is good by itself, in the terms of the configuration.
#[derive(Clone, Debug)]
enum Draft {
    Pool(pool::Draft),
    Aliases(Vec<community::Alias>),
    Profile(BfdProfile),
    Peer(Box<Peer>),
    L2(l2::PoolChoice, L2Advertisement),
    Linux(l2::PoolChoice, LinuxAdvertisement),
    Bgp(Box<bgp::Draft>),
}

/// The rules that need no other object.
fn draft(object: &Object, found: &mut Findings) -> Option<Draft> {
    let name = object.metadata().name.as_str();
    Some(match object {
        Object::IPAddressPool(object) => Draft::Pool(pool::check(name, &object.spec, found)),
        Object::AddressPool(object) => Draft::Pool(pool::check(name, &object.spec, found)),
        Object::L2Advertisement(object) => {
            let (choice, advertisement) = l2::check(name, &object.spec, found);
            Draft::L2(choice, advertisement)
        }
        Object::BGPAdvertisement(object) => {
            Draft::Bgp(Box::new(bgp::check(name, &object.spec, found)))
        }
        Object::Advertisement(object) => native::advertisement(object, found)?,
        Object::BGPPeer(object) => {
            let namespace = &object.metadata.namespace;
            Draft::Peer(Box::new(peer::check(name, namespace, &object.spec, found)?))
        }
        Object::Peer(object) => Draft::Peer(Box::new(native::peer(object, found)?)),
        Object::BFDProfile(object) => Draft::Profile(bfd::check(name, &object.spec, found)),
        Object::Community(object) => Draft::Aliases(community::check(&object.spec, found)),
    })
}
