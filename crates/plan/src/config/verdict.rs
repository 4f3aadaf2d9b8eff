//! What is said about an object.

use std::fmt;

use api::meta::LabelSelector;
use serde::{Deserialize, Serialize};

use super::Selector;

/// One fault of an object, or something odd about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// The field, like `spec.addresses[0]`.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.field, self.message, self.remedy)
    }
}

/// What came of judging an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// In force.
    Good,
    /// In force, but perhaps not what was meant.
    Warned(Vec<Finding>),
    /// This form is not in force.
    Bad {
        /// Why.
        findings: Vec<Finding>,
        /// The object's last good form is in force instead; a pool's is frozen.
        last_good: bool,
    },
}

impl Verdict {
    /// Whether the object's newest form is in force.
    pub const fn in_force(&self) -> bool {
        !matches!(self, Self::Bad { .. })
    }

    /// What was found.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Good => &[],
            Self::Warned(findings) | Self::Bad { findings, .. } => findings,
        }
    }
}

/// Collects what is found about one object.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
}

impl Findings {
    pub(super) fn error(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.errors.push(Finding {
            field: field.into(),
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    pub(super) fn warning(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.warnings.push(Finding {
            field: field.into(),
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    /// The verdict of a form that is in force unless it has errors.
    pub(super) fn verdict(self, last_good: bool) -> Verdict {
        let Self {
            mut errors,
            warnings,
        } = self;
        if !errors.is_empty() {
            errors.extend(warnings);
            Verdict::Bad {
                findings: errors,
                last_good,
            }
        } else if warnings.is_empty() {
            Verdict::Good
        } else {
            Verdict::Warned(warnings)
        }
    }

    /// Every entry of a list once.
    pub(super) fn unique<T: PartialEq + Serialize>(&mut self, field: &str, list: &[T]) {
        let name = field.rsplit('.').next().unwrap_or(field);
        for (n, entry) in list.iter().enumerate() {
            if list.iter().take(n).any(|earlier| earlier == entry) {
                self.error(
                    format!("{field}[{n}]"),
                    format!("duplicate definition of {name}: {}", shown(entry)),
                    "leave out one of the two",
                );
            }
        }
    }

    /// Compiles one selector; its expressions and their values must be unique.
    pub(super) fn selector(&mut self, field: &str, selector: &LabelSelector) -> Option<Selector> {
        let before = self.errors.len();
        let expressions = sorted(selector).match_expressions;
        self.unique(&format!("{field}.matchExpressions"), &expressions);
        for (n, expression) in selector.match_expressions.iter().enumerate() {
            let field = format!("{field}.matchExpressions[{n}].values");
            self.unique(&field, &expression.values);
        }
        match Selector::compile(selector) {
            Ok(selector) => (self.errors.len() == before).then_some(selector),
            Err((path, message)) => {
                let dot = if path.is_empty() { "" } else { "." };
                self.error(
                    format!("{field}{dot}{path}"),
                    message,
                    "write it as a Kubernetes label selector",
                );
                None
            }
        }
    }

    /// Compiles a list of selectors, each written differently from the others.
    pub(super) fn selectors(&mut self, field: &str, list: &[LabelSelector]) -> Vec<Selector> {
        self.unique(field, &list.iter().map(sorted).collect::<Vec<_>>());
        let compiled = list.iter().enumerate();
        compiled
            .filter_map(|(n, selector)| self.selector(&format!("{field}[{n}]"), selector))
            .collect()
    }
}

/// An entry as it stands in a manifest.
fn shown(entry: &impl Serialize) -> String {
    serde_json::to_string(entry).unwrap_or_default()
}

/// The same selector with the values of its expressions in order: what MetalLB compares.
pub(super) fn sorted(selector: &LabelSelector) -> LabelSelector {
    let mut selector = selector.clone();
    for expression in &mut selector.match_expressions {
        expression.values.sort();
    }
    selector
}
