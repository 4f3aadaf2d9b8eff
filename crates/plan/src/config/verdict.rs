//! What is said about an object.

use std::fmt;

use api::meta::{Condition, LabelSelector};
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
    /// MetalLB's whole text for this fault, where it is not [`Self::message`] in the frame that
    /// MetalLB puts around what is wrong within an object of this kind.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub upstream: String,
    /// It goes away when an object comes that is named here and missing: an admission webhook
    /// lets it pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transient: bool,
    /// It alone keeps nothing out of force.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warning: bool,
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

    /// Whether everything that keeps the newest form out of force goes away when an object comes
    /// that is named in it.
    pub fn transient(&self) -> bool {
        let Self::Bad { findings, .. } = self else {
            return false;
        };
        findings
            .iter()
            .filter(|finding| !finding.warning)
            .all(|finding| finding.transient)
    }

    /// The condition `Accepted` of an object of this generation. `previous` is the one it bears;
    /// `now` is written when the status changes.
    pub fn condition(&self, generation: i64, previous: Option<&Condition>, now: &str) -> Condition {
        let (status, reason) = match self {
            Self::Good => ("True", "Accepted"),
            Self::Warned(_) => ("True", "AcceptedWithWarnings"),
            Self::Bad {
                last_good: true, ..
            } => ("False", "LastGoodInForce"),
            Self::Bad { .. } if self.transient() => ("False", "Incomplete"),
            Self::Bad { .. } => ("False", "Invalid"),
        };
        let message: Vec<String> = self.findings().iter().map(ToString::to_string).collect();
        Condition {
            type_: ACCEPTED.to_owned(),
            status: status.to_owned(),
            observed_generation: generation,
            last_transition_time: previous
                .filter(|previous| previous.status == status)
                .and_then(|previous| previous.last_transition_time.clone())
                .or_else(|| Some(now.to_owned())),
            reason: reason.to_owned(),
            message: cut(message.join("\n")),
        }
    }

    /// Adds a warning.
    pub(super) fn warn(&mut self, finding: Finding) {
        match self {
            Self::Good => *self = Self::Warned(vec![finding]),
            Self::Warned(findings) | Self::Bad { findings, .. } => findings.push(finding),
        }
    }
}

/// Type of the condition that says whether an object's newest form is in force.
pub const ACCEPTED: &str = "Accepted";

/// As much of a message as a condition may hold.
fn cut(mut message: String) -> String {
    const MOST: usize = 32_768;
    if message.len() > MOST {
        message.truncate(message.floor_char_boundary(MOST));
    }
    message
}

/// Collects what is found about one object.
#[derive(Clone, Debug, Default)]
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
        self.errors.push(finding(field, message, remedy));
    }

    /// A fault that another object would mend, which may be still to come.
    pub(super) fn transient(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.errors.push(Finding {
            transient: true,
            ..finding(field, message, remedy)
        });
    }

    pub(super) fn warning(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.warnings.push(Finding {
            warning: true,
            ..finding(field, message, remedy)
        });
    }

    /// MetalLB's whole text for the error that was found last ([`Finding::upstream`]).
    pub(super) fn upstream(&mut self, text: impl Into<String>) {
        if let Some(last) = self.errors.last_mut() {
            last.upstream = text.into();
        }
    }

    /// The same findings under other names of their fields: pairs of what a field is called where
    /// the rule is, and in the object's kind.
    pub(super) fn renamed(mut self, names: &[(&str, &str)]) -> Self {
        for found in self.errors.iter_mut().chain(&mut self.warnings) {
            for (from, to) in names {
                let Some(rest) = found.field.strip_prefix(from) else {
                    continue;
                };
                if rest.is_empty() || rest.starts_with(['.', '[']) {
                    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
                    found.message = found.message.replace(&last(from), &last(to));
                    found.field = format!("{to}{rest}");
                    break;
                }
            }
        }
        self
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

pub(super) fn finding(
    field: impl Into<String>,
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> Finding {
    Finding {
        field: field.into(),
        message: message.into(),
        remedy: remedy.into(),
        upstream: String::new(),
        transient: false,
        warning: false,
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
