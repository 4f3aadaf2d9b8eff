//! Kinds of the group `metallb.io`, both versions, and the conversion between them.
//!
//! `v1beta1` and `v1beta2` hold the kinds under their API versions; this module re-exports the
//! storage version of each.

mod advertisement;
mod bfd;
mod bgp_advertisement;
mod community;
mod convert;
mod peer;
mod peer_v1beta1;
mod pool;
mod status;

/// Version v1beta1: every kind, `BGPPeer` in its deprecated form.
pub mod v1beta1 {
    pub use super::advertisement::{L2Advertisement, L2AdvertisementSpec, PreferredNodeSelector};
    pub use super::bfd::{BFDProfile, BFDProfileSpec};
    pub use super::bgp_advertisement::{BGPAdvertisement, BGPAdvertisementSpec};
    pub use super::community::{Community, CommunityAlias, CommunitySpec};
    pub use super::peer_v1beta1::{BGPPeer, BGPPeerSpec};
    pub use super::pool::{
        IPAddressPool, IPAddressPoolSpec, IPAddressPoolStatus, ServiceAllocation,
    };
    pub use super::status::{
        ConfigurationResult, ConfigurationState, ConfigurationStateStatus, InterfaceInfo,
        ServiceBGPStatus, ServiceBGPStatusStatus, ServiceL2Status, ServiceL2StatusStatus,
    };
}

/// Version v1beta2: `BGPPeer`.
pub mod v1beta2 {
    pub use super::peer::{BGPPeer, BGPPeerSpec, DynamicAsn, SecretReference};
}

pub use v1beta1::{
    BFDProfile, BFDProfileSpec, BGPAdvertisement, BGPAdvertisementSpec, Community, CommunityAlias,
    CommunitySpec, ConfigurationResult, ConfigurationState, ConfigurationStateStatus,
    IPAddressPool, IPAddressPoolSpec, IPAddressPoolStatus, InterfaceInfo, L2Advertisement,
    L2AdvertisementSpec, PreferredNodeSelector, ServiceAllocation, ServiceBGPStatus,
    ServiceBGPStatusStatus, ServiceL2Status, ServiceL2StatusStatus,
};
pub use v1beta2::{BGPPeer, BGPPeerSpec, DynamicAsn, SecretReference};
