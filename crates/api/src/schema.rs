//! A small validator over the CRDs' own schemas, so that `corten check` finds without an API
//! server what one would refuse. Rules in CEL are not run here: `plan` has the same rules.
//!
//! Messages are those of the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::LazyLock;

use serde_json::Value;

#[cfg(test)]
mod tests;

/// A value that the schema refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the value, like `spec.peerPort`.
    pub path: String,
    /// What the API server says of it.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

type Schemas = BTreeMap<(String, String), Value>;

/// Schema of each kind and `group/version`, made once.
static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut schemas = BTreeMap::new();
    for crd in crate::crds::all() {
        let spec = &crd["spec"];
        for version in spec["versions"].as_array().into_iter().flatten() {
            let api_version = format!("{}/{}", text(&spec["group"]), text(&version["name"]));
            let schema = version["schema"]["openAPIV3Schema"].clone();
            schemas.insert((text(&spec["names"]["kind"]), api_version), schema);
        }
    }
    schemas
});

/// What the schema of the kind refuses in the object; nothing for a kind without a schema.
/// `api_version` is `group/version` as in the manifest.
pub fn validate(kind: &str, api_version: &str, object: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    if let Some(schema) = SCHEMAS.get(&(kind.to_owned(), api_version.to_owned())) {
        check(schema, object, "", &mut found);
    }
    found
}

fn check(schema: &Value, value: &Value, path: &str, found: &mut Vec<Violation>) {
    let mut report = |message: String| {
        found.push(Violation {
            path: path.to_owned(),
            message,
        });
    };
    let want = schema["type"].as_str().unwrap_or_default();
    if !has_type(want, value) {
        report(format!(
            // The type, not the value: it may be a password.
            "Invalid value: {}: must be of type {want}: {}",
            type_name(value),
            type_name(value)
        ));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        report(format!(
            "Unsupported value: {value}: supported values: {}",
            allowed.join(", ")
        ));
    }
    match value {
        Value::Number(_) => number(schema, value, &mut report),
        Value::String(text) => string(schema, text, &mut report),
        Value::Array(items) => {
            list_size(schema, items, &mut report);
            if schema["x-kubernetes-list-type"] == "set" {
                let mut seen = BTreeSet::new();
                for (i, item) in items.iter().enumerate() {
                    if !seen.insert(item.to_string()) {
                        found.push(Violation {
                            path: format!("{path}[{i}]"),
                            message: format!("Duplicate value: {item}"),
                        });
                    }
                }
            }
            for (i, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{path}[{i}]"), found);
            }
        }
        Value::Object(members) => {
            let inside = |name: &str| {
                if path.is_empty() {
                    name.to_owned()
                } else {
                    format!("{path}.{name}")
                }
            };
            for name in schema["required"].as_array().into_iter().flatten() {
                let name = name.as_str().unwrap_or_default();
                if !members.contains_key(name) {
                    found.push(Violation {
                        path: inside(name),
                        message: "Required value".to_owned(),
                    });
                }
            }
            for (name, member) in members {
                let schema = match &schema["properties"][name.as_str()] {
                    Value::Null => &schema["additionalProperties"],
                    property => property,
                };
                // A null for a field with a default is pruned, then defaulted.
                if schema.is_object() && !(member.is_null() && schema.get("default").is_some()) {
                    check(schema, member, &inside(name), found);
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn number(schema: &Value, value: &Value, report: &mut impl FnMut(String)) {
    let Some(number) = value.as_f64() else { return };
    if let Some(least) = schema["minimum"].as_f64()
        && number < least
    {
        report(format!(
            "Invalid value: {value}: should be greater than or equal to {}",
            schema["minimum"]
        ));
    }
    if let Some(most) = schema["maximum"].as_f64()
        && number > most
    {
        report(format!(
            "Invalid value: {value}: should be less than or equal to {}",
            schema["maximum"]
        ));
    }
}

fn string(schema: &Value, text: &str, report: &mut impl FnMut(String)) {
    let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
    if let Some(most) = schema["maxLength"].as_u64()
        && length > most
    {
        report(format!("Too long: may not be more than {most} bytes"));
    }
    if let Some(least) = schema["minLength"].as_u64()
        && length < least
    {
        report(format!(
            "Invalid value: {text:?}: should be at least {least} chars long"
        ));
    }
}

fn list_size(schema: &Value, items: &[Value], report: &mut impl FnMut(String)) {
    let length = u64::try_from(items.len()).unwrap_or(u64::MAX);
    if let Some(least) = schema["minItems"].as_u64()
        && length < least
    {
        report(format!(
            "Invalid value: {length}: should have at least {least} items"
        ));
    }
    if let Some(most) = schema["maxItems"].as_u64()
        && length > most
    {
        report(format!(
            "Too many: {length}: must have at most {most} items"
        ));
    }
}

fn has_type(want: &str, value: &Value) -> bool {
    match want {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "\"null\"",
        Value::Bool(_) => "\"boolean\"",
        Value::Number(number) if number.is_f64() => "\"number\"",
        Value::Number(_) => "\"integer\"",
        Value::String(_) => "\"string\"",
        Value::Array(_) => "\"array\"",
        Value::Object(_) => "\"object\"",
    }
}
