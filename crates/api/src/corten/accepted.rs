//! `AcceptedConfig`: the last good forms of objects whose newest form is bad.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kind::kind;
use crate::meta::ObjectMeta;

/// The memory of last good forms, written by the controller that leads and read by everyone at
/// the start, so that a program that restarts decides as its neighbours do. There is one, in the
/// namespace of the configuration, and users leave it alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AcceptedConfig {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// The forms.
    pub spec: AcceptedConfigSpec,
}
kind!(
    AcceptedConfig,
    "corten.dev",
    "v1alpha1",
    "acceptedconfigs",
    true,
    [spec]
);

impl AcceptedConfig {
    /// The name of the one object.
    pub const NAME: &str = "accepted";
}

/// The last good forms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct AcceptedConfigSpec {
    /// One for each object whose newest form is bad and that had a good one, in the order of
    /// their kinds and names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<AcceptedForm>,
}

/// The last good form of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crds", schemars(extend("required" = ["form"])))]
#[serde(rename_all = "camelCase", default)]
pub struct AcceptedForm {
    /// The object as a manifest, without status and without a password.
    #[cfg_attr(
        feature = "crds",
        schemars(extend("x-kubernetes-preserve-unknown-fields" = true))
    )]
    pub form: Map<String, Value>,
    /// Stands for a password that was written in the object itself: the object's newest form
    /// must still have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_digest: Option<String>,
}
