//! `v1` Secret.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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

    /// What it has under this key; `stringData` wins, as at the API server. `None` also for what is
    /// not base64.
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        if let Some(Content(text)) = self.string_data.get(key) {
            return Some(text.clone().into_bytes());
        }
        let Content(text) = self.data.get(key)?;
        STANDARD.decode(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Secret;

    #[test]
    fn values() {
        let secret: Secret = serde_json::from_value(json!({
            "data": {"password": "aHVudGVyMg==", "both": "aHVudGVyMg==", "broken": "?", "raw": "/w=="},
            "stringData": {"text": "plain", "both": "plain"},
        }))
        .expect("a Secret");
        let table: [(&str, Option<&[u8]>); 6] = [
            ("password", Some(b"hunter2")),
            ("text", Some(b"plain")),
            ("both", Some(b"plain")),
            ("raw", Some(&[0xff])),
            ("broken", None),
            ("none", None),
        ];
        for (key, want) in table {
            assert_eq!(secret.value(key).as_deref(), want, "{key}");
        }
        assert!(!format!("{secret:?}").contains("plain"));
    }
}
