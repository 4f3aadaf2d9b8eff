//! One change of what is known.

use std::sync::Arc;

use ipnet::IpNet;

use super::{Labels, Node, NodeState, PodKey, Rival, Service, Slice, SliceKey};
use crate::config::{Kept, Object, ObjectRef, SecretFacts};
use crate::ipam::Decision;
use crate::name::{Name, ServiceKey};

/// One change; `None` in `form` means that the thing is gone.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A configuration object.
    Config {
        /// Which.
        object: ObjectRef,
        /// Its new form.
        form: Option<Arc<Object>>,
    },
    /// A namespace's labels; pools select by them.
    Namespace {
        /// Its name.
        name: Name,
        /// Its labels.
        labels: Option<Labels>,
    },
    /// A Service.
    Service {
        /// Its key.
        key: ServiceKey,
        /// Its new form.
        form: Option<Box<Service>>,
    },
    /// An EndpointSlice.
    Slice {
        /// Its key.
        key: SliceKey,
        /// Its new form; `None` also for a slice that belongs to no Service.
        form: Option<Slice>,
    },
    /// A Node.
    Node {
        /// Its name.
        name: Name,
        /// Its new form.
        form: Option<Node>,
    },
    /// A ServiceCIDR: ranges of ClusterIPs.
    ServiceRange {
        /// Its name.
        name: Name,
        /// Its ranges.
        form: Option<Vec<IpNet>>,
    },
    /// A Secret: what peers need to know of it.
    Secret {
        /// Its namespace; only the configuration's counts.
        namespace: Name,
        /// Its name.
        name: Name,
        /// What is known of it, never its content.
        form: Option<SecretFacts>,
    },
    /// Last good forms from before the start (`AcceptedConfig`, or the state file), told before
    /// [`Event::Synced`].
    LastGood(Kept),
    /// What an agent says of its node, from the API or from its beats; an older form than the known
    /// one changes nothing.
    State {
        /// The node.
        node: Name,
        /// Its new form.
        form: Option<NodeState>,
    },
    /// Failure detection's word on a node; `None` when it no longer looks.
    Member {
        /// The node.
        node: Name,
        /// Alive, or dead or gone.
        alive: Option<bool>,
    },
    /// A Pod of MetalLB beside Corten.
    Rival {
        /// Which.
        pod: PodKey,
        /// What is known of it; `None` also for one that does not live, or is none of MetalLB's.
        form: Option<Rival>,
    },
    /// A decision of the allocator: it enters World before its write is sent.
    Decided {
        /// The Service.
        service: ServiceKey,
        /// What was decided.
        decision: Box<Decision>,
    },
    /// All that existed at the start has been told.
    Synced,
}
