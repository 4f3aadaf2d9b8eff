//! Corten's own kinds, group `corten.dev`.
//!
//! `AddressPool`, `Advertisement` and `Peer` say what MetalLB's kinds say and what those cannot;
//! both may stand side by side. `NodeState` and `AcceptedConfig` are written by Corten itself.

mod accepted;
mod advertisement;
mod node_state;
mod peer;
mod pool;

/// Version v1alpha1.
pub mod v1alpha1 {
    pub use super::accepted::{AcceptedConfig, AcceptedConfigSpec, AcceptedForm};
    pub use super::advertisement::{
        Advertisement, AdvertisementSpec, BgpAnnouncement, Layer2, LinuxDevice, LinuxNative,
        MacMode,
    };
    pub use super::node_state::{
        BgpSession, DrainPhase, ForwardMode, Interface, NodeState, NodeStateStatus, SessionState,
        Tenure,
    };
    pub use super::peer::{
        LinkBandwidth, Listen, NextHop, Peer, PeerSpec, ReceivePolicy, Role, SecretName,
    };
    pub use super::pool::{AddressPool, AddressPoolStatus};

    use serde::{Deserialize, Serialize};

    use crate::meta::Condition;

    /// Status of an object that a user writes.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
    #[serde(default)]
    pub struct ObjectStatus {
        /// Whether the newest form is in force (type Accepted), and if not, why.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[cfg_attr(
            feature = "crds",
            schemars(extend(
                "x-kubernetes-list-type" = "map",
                "x-kubernetes-list-map-keys" = ["type"]
            ))
        )]
        pub conditions: Vec<Condition>,
    }
}
