//! Objects judged together: what is wrong between them, at the lines it is at.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::object::Object;
use plan::config::{self, Context, Objects, Verdict};
use plan::name::Name;
use plan::world::{self, Node};

use super::{Manifest, ObjectRef, Problem};

/// What [`together`] finds.
#[derive(Debug, Default)]
pub struct Judged<'m> {
    /// Manifests without a fault; all that are no configuration are among them.
    pub good: Vec<&'m Manifest>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What is good, but may not be meant.
    pub warnings: Vec<Problem>,
}

/// Judges the configuration objects as a cluster that has them all would, in `namespace`.
pub fn together<'m>(
    manifests: impl IntoIterator<Item = &'m Manifest>,
    namespace: &str,
) -> Judged<'m> {
    let mut judged = Judged::default();
    let mut objects = Objects::new();
    let mut places = BTreeMap::new();
    let (mut nodes, mut service_ranges) = (BTreeMap::new(), BTreeMap::new());
    for manifest in manifests {
        let name = || Name::from(manifest.object.name());
        match &manifest.object {
            Object::Node(node) => {
                nodes.insert(name(), Node::from(node.clone()));
            }
            Object::ServiceCIDR(object) => {
                service_ranges.insert(name(), world::service_ranges(object));
            }
            _ => {}
        }
        let Ok(object) = config::Object::try_from(manifest.object.clone()) else {
            judged.good.push(manifest);
            continue;
        };
        let reference = object.reference();
        if places.insert(reference.clone(), manifest).is_some() {
            judged.problems.push(problem(
                manifest,
                "metadata.name",
                "the object is defined twice",
                "leave out one of the two",
            ));
        }
        objects.insert(reference, Arc::new(object));
    }
    let context = Context::of_cluster(namespace, &nodes, &service_ranges);
    let compiled = config::compile(&objects, &Objects::new(), context);
    for (reference, verdict) in &compiled.verdicts {
        let Some(manifest) = places.get(reference) else {
            continue;
        };
        let problems = verdict
            .findings()
            .iter()
            .map(|finding| problem(manifest, &finding.field, &finding.message, &finding.remedy));
        match verdict {
            Verdict::Good => judged.good.push(manifest),
            Verdict::Warned(_) => {
                judged.warnings.extend(problems);
                judged.good.push(manifest);
            }
            Verdict::Bad { .. } => {
                let findings = verdict.findings().iter();
                for (problem, finding) in problems.zip(findings) {
                    if finding.warning {
                        judged.warnings.push(problem);
                    } else {
                        judged.problems.push(problem);
                    }
                }
            }
        }
    }
    judged
}

/// A finding at the line of its field.
fn problem(manifest: &Manifest, field: &str, message: &str, remedy: &str) -> Problem {
    let at = manifest.position(field);
    Problem {
        file: manifest.file.clone(),
        line: at.line,
        column: Some(at.column),
        object: Some(ObjectRef::of(&manifest.object)),
        field: Some(field.to_owned()),
        message: message.to_owned(),
        remedy: remedy.to_owned(),
    }
}
