//! The parts of `meta/v1` that Corten uses: object metadata, label selectors, conditions.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

mod selector;

pub use selector::{LabelSelector, LabelSelectorRequirement};

/// Metadata of an object. Fields that Corten does not use (`managedFields`, `finalizers`) are
/// read over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    /// Name, unique within kind and namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Prefix from which the API server makes a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generate_name: Option<String>,
    /// Empty for cluster-scoped kinds.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Differs for an object that was deleted and made again.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Opaque; equal only if the object is unchanged.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Grows with each change of the spec.
    #[serde(skip_serializing_if = "is_zero")]
    pub generation: i64,
    /// Labels.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "crate::de::null_default"
    )]
    pub labels: BTreeMap<String, String>,
    /// Annotations, without the copy of the whole object that `kubectl apply` leaves there:
    /// passwords are in it.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "annotations"
    )]
    pub annotations: BTreeMap<String, String>,
    /// RFC 3339 in UTC with a `Z`, so that text order is time order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// Set while the object waits for its finalizers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    /// Objects whose end ends this one.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::de::null_default"
    )]
    pub owner_references: Vec<OwnerReference>,
}

/// An owner of an object, for garbage collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// `group/version` of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
    /// Uid of the owner.
    pub uid: String,
    /// Whether this owner manages the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    /// Whether the owner waits for the object's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

/// One observation of an object's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "crds",
    schemars(extend("required" = ["lastTransitionTime", "message", "reason", "status", "type"]))
)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Type of the condition in CamelCase.
    #[serde(rename = "type")]
    #[cfg_attr(feature = "crds", schemars(length(max = 316)))]
    pub type_: String,
    /// Status of the condition, one of True, False, Unknown.
    #[cfg_attr(feature = "crds", schemars(extend("enum" = ["True", "False", "Unknown"])))]
    pub status: String,
    /// The metadata.generation that the condition was set from.
    #[serde(skip_serializing_if = "is_zero")]
    #[cfg_attr(feature = "crds", schemars(range(min = 0)))]
    pub observed_generation: i64,
    /// Last time the condition went from one status to another.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crds", schemars(extend("format" = "date-time")))]
    pub last_transition_time: Option<String>,
    /// Reason for the last transition, one CamelCase word.
    #[cfg_attr(feature = "crds", schemars(length(min = 1, max = 1024)))]
    pub reason: String,
    /// Details about the transition, for people. May be empty.
    #[cfg_attr(feature = "crds", schemars(length(max = 32768)))]
    pub message: String,
}

fn annotations<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let mut annotations: BTreeMap<String, String> = crate::de::null_default(deserializer)?;
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    Ok(annotations)
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}
