//! Label selectors with the meaning of `apimachinery`'s `LabelSelectorAsSelector`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A query over labels; `matchLabels` and `matchExpressions` are `ANDed`. Empty matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crds", schemars(extend("x-kubernetes-map-type" = "atomic")))]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// A map of key and value pairs; each means: the label has this value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements on labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crds", schemars(extend("x-kubernetes-list-type" = "atomic")))]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// One requirement on one label.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crds", schemars(extend("required" = ["key", "operator"])))]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelectorRequirement {
    /// The label that the requirement is about.
    pub key: String,
    /// Relation of the label to the values: In, NotIn, Exists or DoesNotExist.
    pub operator: String,
    /// For In and NotIn at least one value; for Exists and DoesNotExist none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crds", schemars(extend("x-kubernetes-list-type" = "atomic")))]
    pub values: Vec<String>,
}

impl LabelSelector {
    /// Whether these labels satisfy the selector. A requirement with an unknown operator
    /// matches nothing; [`validate`](Self::validate) names it.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self
                .match_expressions
                .iter()
                .all(|requirement| requirement.matches(labels))
    }

    /// Says what the API server would refuse, the first fault only, as `path: message`.
    pub fn validate(&self) -> Result<(), String> {
        for (key, value) in &self.match_labels {
            label_key(key).map_err(|e| format!("matchLabels: {e}"))?;
            label_value(value).map_err(|e| format!("matchLabels[{key}]: {e}"))?;
        }
        for (i, requirement) in self.match_expressions.iter().enumerate() {
            requirement
                .validate()
                .map_err(|e| format!("matchExpressions[{i}].{e}"))?;
        }
        Ok(())
    }
}

impl LabelSelectorRequirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator.as_str() {
            "In" => value.is_some_and(|v| self.values.contains(v)),
            // As in Kubernetes, an absent label is not in the values.
            "NotIn" => value.is_none_or(|v| !self.values.contains(v)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }

    fn validate(&self) -> Result<(), String> {
        match self.operator.as_str() {
            "In" | "NotIn" if self.values.is_empty() => {
                return Err(
                    "values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
                        .to_owned(),
                );
            }
            "Exists" | "DoesNotExist" if !self.values.is_empty() => {
                return Err(
                    "values: Forbidden: may not be specified when `operator` is 'Exists' \
                            or 'DoesNotExist'"
                        .to_owned(),
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                return Err(format!(
                    "operator: Invalid value: {other:?}: not a valid selector operator"
                ));
            }
        }
        label_key(&self.key).map_err(|e| format!("key: {e}"))?;
        for (i, value) in self.values.iter().enumerate() {
            label_value(value).map_err(|e| format!("values[{i}]: {e}"))?;
        }
        Ok(())
    }
}

/// A qualified name: an optional DNS prefix, a slash, a name of at most 63 characters.
fn label_key(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let subdomain = |p: &str| {
        p.len() <= 253
            && p.split('.').all(|part| {
                let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
                edges(part, alnum) && part.bytes().all(|b| alnum(b) || b == b'-')
            })
    };
    if prefix.is_some_and(|p| !subdomain(p)) || name.is_empty() || !name_part(name) {
        return Err(format!("Invalid value: {key:?}: not a valid label key"));
    }
    Ok(())
}

fn label_value(value: &str) -> Result<(), String> {
    if value.is_empty() || name_part(value) {
        return Ok(());
    }
    Err(format!("Invalid value: {value:?}: not a valid label value"))
}

fn name_part(name: &str) -> bool {
    name.len() <= 63
        && edges(name, |b| b.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Whether the text is not empty and its first and last bytes pass.
fn edges(text: &str, pass: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(&pass) && bytes.last().copied().is_some_and(&pass)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split_whitespace()
            .map(|pair| pair.split_once('=').expect("key=value"))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    fn selector(json: &str) -> LabelSelector {
        serde_json::from_str(json).expect("a selector")
    }

    #[test]
    fn matching() {
        let cases = [
            ("{}", "", true),
            ("{}", "a=b", true),
            (r#"{"matchLabels":{"a":"b"}}"#, "a=b c=d", true),
            (r#"{"matchLabels":{"a":"b"}}"#, "a=c", false),
            (r#"{"matchLabels":{"a":"b","c":"d"}}"#, "a=b", false),
            (
                r#"{"matchExpressions":[{"key":"a","operator":"In","values":["b","c"]}]}"#,
                "a=c",
                true,
            ),
            (
                r#"{"matchExpressions":[{"key":"a","operator":"In","values":["b"]}]}"#,
                "",
                false,
            ),
            (
                r#"{"matchExpressions":[{"key":"a","operator":"NotIn","values":["b"]}]}"#,
                "",
                true,
            ),
            (
                r#"{"matchExpressions":[{"key":"a","operator":"NotIn","values":["b"]}]}"#,
                "a=b",
                false,
            ),
            (
                r#"{"matchExpressions":[{"key":"a","operator":"Exists"}]}"#,
                "a=",
                true,
            ),
            (
                r#"{"matchExpressions":[{"key":"a","operator":"Exists"}]}"#,
                "b=",
                false,
            ),
            (
                r#"{"matchExpressions":[{"key":"a","operator":"DoesNotExist"}]}"#,
                "b=",
                true,
            ),
            (
                r#"{"matchExpressions":[{"key":"a","operator":"Gt","values":["1"]}]}"#,
                "a=2",
                false,
            ),
            (
                r#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"c","operator":"Exists"}]}"#,
                "a=b",
                false,
            ),
        ];
        for (json, text, want) in cases {
            assert_eq!(
                selector(json).matches(&labels(text)),
                want,
                "{json} on {text:?}"
            );
        }
    }

    #[test]
    fn validating() {
        let good = [
            "{}",
            r#"{"matchLabels":{"example.com/a_b.c":""}}"#,
            r#"{"matchExpressions":[{"key":"a","operator":"In","values":["B-1"]}]}"#,
        ];
        for json in good {
            assert_eq!(selector(json).validate(), Ok(()), "{json}");
        }
        let bad = [
            (r#"{"matchLabels":{"-a":"b"}}"#, "label key"),
            (r#"{"matchLabels":{"Ex.com/a":"b"}}"#, "label key"),
            (r#"{"matchLabels":{"":"b"}}"#, "label key"),
            (r#"{"matchLabels":{"a":"b c"}}"#, "label value"),
            (
                r#"{"matchExpressions":[{"key":"a","operator":"In"}]}"#,
                "Required value",
            ),
            (
                r#"{"matchExpressions":[{"key":"a","operator":"Exists","values":["b"]}]}"#,
                "Forbidden",
            ),
            (
                r#"{"matchExpressions":[{"key":"a","operator":"in","values":["b"]}]}"#,
                "operator",
            ),
        ];
        for (json, want) in bad {
            let error = selector(json).validate().expect_err(json);
            assert!(error.contains(want), "{json}: {error}");
        }
    }
}
