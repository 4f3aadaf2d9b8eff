//! `v1` Secret.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::kind::kind;
use crate::meta::ObjectMeta;

/// The type that MetalLB wants of a Secret with a BGP password.
pub const BASIC_AUTH: &str = "kubernetes.io/basic-auth";

/// A Secret. Its Debug shows no content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Secret {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What it is for, like [`BASIC_AUTH`].
    #[serde(rename = "type")]
    pub type_: String,
    /// Its content in base64.
    pub data: BTreeMap<String, Content>,
    /// Its content as text, in manifests; the API server makes [`Self::data`] of it.
    pub string_data: BTreeMap<String, Content>,
}
kind!(
    Secret,
    "",
    "v1",
    "secrets",
    true,
    [type_ = "type", data, string_data = "stringData"]
);

/// A value of a Secret.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Content(String);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

impl Secret {
    /// Whether it has something, be it empty, under this key.
    pub fn has(&self, key: &str) -> bool {
        self.data.contains_key(key) || self.string_data.contains_key(key)
    }
}
