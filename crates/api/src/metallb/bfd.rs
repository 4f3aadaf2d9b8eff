//! `BFDProfile`: settings of BFD sessions.

use serde::{Deserialize, Serialize};

use crate::de::is_default;
use crate::kind::kind;
use crate::meta::ObjectMeta;

/// Settings of BFD sessions, used by name from a `BGPPeer`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BFDProfile {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: BFDProfileSpec,
}
kind!(
    BFDProfile,
    "metallb.io",
    "v1beta1",
    "bfdprofiles",
    true,
    [spec]
);

/// BFDProfileSpec defines the desired state of BFDProfile. The defaults of unset fields are
/// those of FRR.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct BFDProfileSpec {
    /// Least interval between received packets, in milliseconds; 300 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crds", schemars(range(min = 10, max = 60000)))]
    pub receive_interval: Option<u32>,
    /// Least interval between sent packets, in milliseconds; 300 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crds", schemars(range(min = 10, max = 60000)))]
    pub transmit_interval: Option<u32>,
    /// How many packets may be missed; 3 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crds", schemars(range(min = 2, max = 255)))]
    pub detect_multiplier: Option<u32>,
    /// Least interval between echo packets, in milliseconds; 50 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crds", schemars(range(min = 10, max = 60000)))]
    pub echo_interval: Option<u32>,
    /// Whether echo packets are sent; not for multihop sessions, nor for IPv6.
    #[serde(skip_serializing_if = "is_default")]
    pub echo_mode: bool,
    /// Whether to wait for the neighbour to begin.
    #[serde(skip_serializing_if = "is_default")]
    pub passive_mode: bool,
    /// Least TTL of packets of multihop sessions; 254 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crds", schemars(range(min = 1, max = 254)))]
    pub minimum_ttl: Option<u32>,
}
