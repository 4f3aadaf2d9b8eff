//! Writes as values: random stories plan them, send them and tell of them.

use serde_json::{Map, Value};

use super::{Api, ApiError, Patch};

/// How a write is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Of a new object.
    Create,
    /// A JSON merge patch.
    Patch,
    /// Without a grace period.
    Delete,
}

/// One request to the API server that changes something.
#[derive(Clone, Debug)]
pub struct Write {
    /// How it is sent.
    pub verb: Verb,
    /// The collection of a new object, else the object.
    pub path: String,
    /// The object or the patch.
    pub body: Value,
}

impl Write {
    /// A new object in the collection `path`.
    pub fn create(path: impl Into<String>, body: Value) -> Self {
        let (verb, path) = (Verb::Create, path.into());
        Self { verb, path, body }
    }

    /// A change of the object `path`.
    pub fn patch(path: impl Into<String>, body: Value) -> Self {
        let (verb, path) = (Verb::Patch, path.into());
        Self { verb, path, body }
    }

    /// The end of the object `path`.
    pub fn delete(path: impl Into<String>) -> Self {
        let (verb, path) = (Verb::Delete, path.into());
        let body = Value::Null;
        Self { verb, path, body }
    }
}

impl Api {
    /// Sends a write. Fields of a new object that are null are not there, as in a patch: the API
    /// server would take a label that is null for an empty one.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn write(&self, write: &Write) -> Result<(), ApiError> {
        let Write { verb, path, body } = write;
        let done = match verb {
            Verb::Create => self.create(path, &without_null(body)).await,
            Verb::Patch => self.patch(path, Patch::Merge, body).await,
            Verb::Delete => self.delete(path).await,
        };
        done.map(drop)
    }
}

fn without_null(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), without_null(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(without_null).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_null_is_not_there() {
        let object = json!({
            "a": null, "b": {"c": null, "d": 1}, "e": [{"f": null}, null, 2], "g": "",
        });
        let expected = json!({"b": {"d": 1}, "e": [{}, null, 2], "g": ""});
        assert_eq!(without_null(&object), expected);
    }
}
