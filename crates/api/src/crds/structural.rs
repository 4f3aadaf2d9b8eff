//! From `schemars`' JSON Schema to what Kubernetes calls a structural schema: no references, no
//! unions with null, a type at every level, and only formats that the API server knows.

use serde_json::{Map, Value, json};

/// Reworks a schema, all levels of it.
pub(super) fn from_schemars(mut schema: Value) -> Value {
    rework(&mut schema);
    schema
}

fn rework(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for noise in ["$schema", "title", "default"] {
        map.remove(noise);
    }
    // Defaults that are meant are written as `x-default` in the types: those that schemars
    // reads off `Default` are zero values, which the API server need not store.
    if let Some(default) = map.remove("x-default") {
        map.insert("default".to_owned(), default);
    }
    if map.contains_key("x-kubernetes-preserve-unknown-fields") {
        map.remove("additionalProperties");
    }
    collapse_union(map);
    drop_null_type(map);
    rework_number(map);
    if let Some(Value::String(text)) = map.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(rework);
    }
    for nested in ["items", "additionalProperties"] {
        if let Some(nested) = map.get_mut(nested) {
            rework(nested);
        }
    }
}

/// `anyOf: [X, null]` is X; `oneOf` of constants is an enum.
fn collapse_union(map: &mut Map<String, Value>) {
    for keyword in ["anyOf", "oneOf"] {
        let Some(Value::Array(branches)) = map.remove(keyword) else {
            continue;
        };
        let branches: Vec<Value> = branches
            .into_iter()
            .filter(|b| b.get("type") != Some(&json!("null")))
            .collect();
        let constants: Vec<Value> = branches
            .iter()
            .flat_map(|branch| match (branch.get("const"), branch.get("enum")) {
                (Some(constant), _) => vec![constant.clone()],
                (None, Some(Value::Array(values))) => values.clone(),
                _ => Vec::new(),
            })
            .collect();
        if constants.is_empty() {
            if let Some(Value::Object(only)) = branches.into_iter().next() {
                for (key, value) in only {
                    // The field's own text goes before its type's.
                    map.entry(key).or_insert(value);
                }
                // The branch may be a union itself (an optional enum).
                collapse_union(map);
            }
        } else {
            map.insert("type".to_owned(), json!("string"));
            map.insert("enum".to_owned(), Value::Array(constants));
        }
    }
}

fn drop_null_type(map: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = map.get("type") {
        let real = types.iter().find(|t| *t != &json!("null")).cloned();
        map.insert("type".to_owned(), real.unwrap_or_else(|| json!("string")));
    }
    if let Some(Value::Array(values)) = map.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
}

/// The API server knows int32 and int64 only; unsigned kinds become bounds.
fn rework_number(map: &mut Map<String, Value>) {
    let Some(format) = map.get("format").and_then(Value::as_str).map(str::to_owned) else {
        return;
    };
    match format.as_str() {
        "uint32" => {
            map.insert("format".to_owned(), json!("int64"));
            map.entry("maximum").or_insert_with(|| json!(u32::MAX));
        }
        "uint64" => {
            map.insert("format".to_owned(), json!("int64"));
        }
        "uint8" | "uint16" | "int8" | "int16" => {
            map.insert("format".to_owned(), json!("int32"));
        }
        _ => {}
    }
}
