//! Label selectors, compiled: Kubernetes' `LabelSelector` with its meaning.

use std::collections::BTreeSet;

use api::meta::LabelSelector;
use serde::{Deserialize, Serialize};

use crate::world::Labels;

/// One demand on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Requirement {
    /// The label exists and has one of these values.
    In(String, BTreeSet<String>),
    /// The label is missing or has none of these values.
    NotIn(String, BTreeSet<String>),
    /// The label exists.
    Exists(String),
    /// The label is missing.
    Missing(String),
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::Missing(key) => !labels.contains_key(key),
        }
    }
}

/// All requirements must hold; without any, every object matches.
///
/// Sorted and without duplicates, so that two selectors that were written differently and mean the
/// same are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Selector(BTreeSet<Requirement>);

impl Selector {
    /// A selector of these requirements.
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        Self(requirements.into_iter().collect())
    }

    /// `key=value`.
    pub fn label(key: &str, value: &str) -> Self {
        Self::new([Requirement::In(
            key.to_owned(),
            BTreeSet::from([value.to_owned()]),
        )])
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }
}

/// Whether `selectors` choose an object with these labels; an empty list chooses all.
pub fn chooses(selectors: &[Selector], labels: &Labels) -> bool {
    selectors.is_empty() || any_matches(selectors, labels)
}

/// Whether one of `selectors` matches; an empty list matches nothing.
pub fn any_matches(selectors: &[Selector], labels: &Labels) -> bool {
    selectors.iter().any(|selector| selector.matches(labels))
}

impl Selector {
    /// Compiles `selector`; the fault is a path within it and a message.
    pub fn compile(selector: &LabelSelector) -> Result<Self, (String, String)> {
        selector
            .validate()
            .map_err(|text| match text.split_once(": ") {
                Some((path, message)) => (path.to_owned(), message.to_owned()),
                None => (String::new(), text),
            })?;
        let one = |value: &String| BTreeSet::from([value.clone()]);
        let labels = selector
            .match_labels
            .iter()
            .map(|(key, value)| Requirement::In(key.clone(), one(value)));
        let expressions = selector.match_expressions.iter().map(|expression| {
            let key = expression.key.clone();
            let values = || expression.values.iter().cloned().collect();
            match expression.operator.as_str() {
                "In" => Requirement::In(key, values()),
                "NotIn" => Requirement::NotIn(key, values()),
                "Exists" => Requirement::Exists(key),
                // Others were refused above.
                _ => Requirement::Missing(key),
            }
        });
        Ok(Self::new(labels.chain(expressions)))
    }
}
