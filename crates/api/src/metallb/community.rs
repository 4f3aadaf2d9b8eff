//! `Community`: names for BGP communities.

use serde::{Deserialize, Serialize};

use crate::kind::kind;
use crate::meta::ObjectMeta;

/// A set of aliases; aliases are unique over all Community objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Community {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: CommunitySpec,
}
kind!(
    Community,
    "metallb.io",
    "v1beta1",
    "communities",
    true,
    [spec]
);

/// CommunitySpec defines the desired state of Community.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct CommunitySpec {
    /// Aliases.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<CommunityAlias>,
}

/// A name for a community.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct CommunityAlias {
    /// Name of the alias.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The community: 1234:1 or large:1234:1:2.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
}
