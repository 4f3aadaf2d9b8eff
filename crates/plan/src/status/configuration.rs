//! `ConfigurationState`: whether a component could use the configuration, and if not, which
//! object, which field and what to do.
//!
//! `errorSummary` is what MetalLB would say, to the letter: its parser stops at the first fault,
//! and its end-to-end tests compare whole texts. The condition's message says everything: each
//! fault with object, field, remedy and what is in force. Reason `UnknownError` is MetalLB's word
//! for a handler that failed and tries again; a plan cannot fail, and nothing is said before
//! everything is known, so Corten never writes it.

use std::collections::BTreeMap;

use api::meta::Condition;
use api::metallb::{ConfigurationResult, ConfigurationStateStatus};
use serde::{Deserialize, Serialize};

use super::summary;
use crate::config::{Finding, Object, ObjectKind, ObjectRef, Selector, Verdict, chooses};
use crate::name::Name;
use crate::world::World;

/// What stands before the first error, as MetalLB writes it.
const PREFIX: &str = "configuration error: ";
/// The longest message of a condition that the API takes.
const LONGEST: usize = 32_768;
/// Says that the rest did not fit.
const CUT: &str = "\n(there is more; see the log)";

/// Who says it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Component {
    /// The controller: pools and what they need.
    Controller,
    /// The agent of this node: everything that concerns the node.
    Speaker(Name),
}

impl Component {
    /// The object's name.
    pub fn object(&self) -> String {
        match self {
            Self::Controller => "controller".to_owned(),
            Self::Speaker(node) => format!("speaker-{node}"),
        }
    }

    /// The object's labels.
    pub fn labels(&self) -> BTreeMap<&'static str, String> {
        match self {
            Self::Controller => {
                BTreeMap::from([("metallb.io/component-type", "controller".to_owned())])
            }
            Self::Speaker(node) => BTreeMap::from([
                ("metallb.io/component-type", "speaker".to_owned()),
                ("metallb.io/node-name", node.to_string()),
            ]),
        }
    }

    /// The type of its condition.
    pub const fn condition(&self) -> &'static str {
        match self {
            Self::Controller => "poolReconcilerValid",
            Self::Speaker(_) => "configReconcilerValid",
        }
    }

    /// Who owns the condition, for server-side apply.
    pub const fn manager(&self) -> &'static str {
        match self {
            Self::Controller => "poolReconciler",
            Self::Speaker(_) => "configReconciler",
        }
    }

    /// Whether this component reads the object at all.
    fn reads(&self, world: &World, object: &ObjectRef) -> bool {
        match self {
            Self::Controller => {
                matches!(
                    object.kind,
                    ObjectKind::IPAddressPool | ObjectKind::AddressPool | ObjectKind::Community
                )
            }
            Self::Speaker(node) => concerns(world, node, object),
        }
    }
}

/// Peers and BGP advertisements for other nodes are none of this node's concern.
fn concerns(world: &World, node: &str, object: &ObjectRef) -> bool {
    let selectors = match world.object(object) {
        Some(Object::BGPPeer(peer)) => &peer.spec.node_selectors,
        Some(Object::Peer(peer)) => &peer.spec.node_selectors,
        Some(Object::BGPAdvertisement(advertisement)) => &advertisement.spec.node_selectors,
        _ => return true,
    };
    let Some(node) = world.node(node) else {
        return true;
    };
    let compiled: Result<Vec<Selector>, _> = selectors.iter().map(Selector::compile).collect();
    // A selector that cannot be read may have meant this node.
    compiled.map_or(true, |selectors| chooses(&selectors, &node.labels))
}

/// What a component says of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Empty: it is good. Else one line for each fault.
    pub message: String,
    /// The fault that MetalLB would stop at, in its words; empty when it is good.
    pub summary: String,
}

/// What `component` should say: every fault of every object that it reads.
pub fn configuration(world: &World, component: &Component) -> Configuration {
    let verdicts = world.verdicts().iter();
    let bad =
        verdicts.filter(|(object, verdict)| !verdict.in_force() && component.reads(world, object));
    let summary = summary::of(bad.clone());
    Configuration {
        message: message(bad),
        summary: summary.map_or_else(String::new, |text| format!("{PREFIX}{text}")),
    }
}

fn message<'v>(bad: impl Iterator<Item = (&'v ObjectRef, &'v Verdict)>) -> String {
    let mut message = String::new();
    for (object, verdict) in bad {
        for line in lines(object, verdict) {
            let before = if message.is_empty() { PREFIX } else { "\n" };
            if message.len() + before.len() + line.len() + CUT.len() > LONGEST {
                message.push_str(CUT);
                return message;
            }
            message.push_str(before);
            message.push_str(&line);
        }
    }
    message
}

/// MetalLB's message, then what it does not say: object, field, remedy, and what is in force.
fn lines<'v>(object: &'v ObjectRef, verdict: &'v Verdict) -> impl Iterator<Item = String> + 'v {
    let then = match verdict {
        Verdict::Bad {
            last_good: true, ..
        } => "; its last good form stays in force",
        _ => "; it is left out",
    };
    verdict.findings().iter().map(move |finding| {
        let Finding {
            field,
            message,
            remedy,
            ..
        } = finding;
        let message = message.replace('\n', " ");
        format!("{message} ({object}, {field}; {remedy}{then})")
    })
}

impl Configuration {
    /// The status to write, when it is not what `observed` says. A condition that stays as it is
    /// keeps its time, `now` is that of a transition (RFC 3339).
    pub fn due(
        &self,
        component: &Component,
        observed: Option<&ConfigurationStateStatus>,
        now: &str,
    ) -> Option<ConfigurationStateStatus> {
        let (status, reason) = if self.message.is_empty() {
            ("True", "Reconciled")
        } else {
            ("False", "ConfigurationError")
        };
        let held = observed.and_then(|observed| {
            let mut conditions = observed.conditions.iter();
            conditions.find(|condition| condition.type_ == component.condition())
        });
        let since = held
            .filter(|held| held.status == status)
            .and_then(|held| held.last_transition_time.clone());
        let condition = Condition {
            type_: component.condition().to_owned(),
            status: status.to_owned(),
            observed_generation: 0,
            last_transition_time: Some(since.unwrap_or_else(|| now.to_owned())),
            reason: reason.to_owned(),
            message: self.message.clone(),
        };
        let result = if self.message.is_empty() {
            ConfigurationResult::Valid
        } else {
            ConfigurationResult::Invalid
        };
        let same = held == Some(&condition)
            && observed.is_some_and(|observed| {
                observed.result == Some(result) && observed.error_summary == self.summary
            });
        (!same).then(|| ConfigurationStateStatus {
            conditions: vec![condition],
            result: Some(result),
            error_summary: self.summary.clone(),
        })
    }
}
