//! Admission: what is said of one object that is to be created, changed or deleted.
//!
//! Pure: [`review`] takes the request and the objects that exist. The incoming object takes its
//! place among them and all are compiled as they would be in force. It counts as the youngest, so
//! that of two that conflict it is the incoming one that is refused, whatever their ages. What
//! refers to an object that may not exist yet (`bfdProfile`, `passwordSecret`, community aliases)
//! is left out first (`spec/metallb.md` §1.12).

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use plan::config::{self, Context, Finding, Object, ObjectKind, ObjectRef, Objects, Verdict};
use plan::name::Name;
use plan::world::Node;
use serde::Deserialize;
use serde_json::{Value, json};

#[cfg(test)]
mod tests;

/// Later than any object: RFC 3339, text order is time order.
const YOUNGEST: &str = "9999-12-31T23:59:59Z";
/// The name that the controller tries to create without effect, to see whether the API server
/// reaches this webhook. It is always refused, so that no such object exists.
pub const PROBE: &str = "corten-webhook-probe";
/// What the refusal of the probe says.
pub const PROBE_ANSWER: &str = "the webhook was reached";

/// A kind that the webhook judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The kind.
    pub kind: ObjectKind,
    /// Lower case, in paths and names.
    pub singular: &'static str,
    /// Resource in URLs.
    pub plural: &'static str,
    /// The version that is judged.
    pub version: &'static str,
    /// When the API server asks.
    pub operations: [&'static str; 2],
    /// The kinds that it is judged against.
    pub against: &'static [ObjectKind],
    /// What else counts.
    pub cluster: Cluster,
}

/// What a kind is judged against besides other objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// Nothing.
    Nothing,
    /// The labels of nodes: what is refused depends on them.
    Nodes,
    /// Addresses of nodes, ranges of Pods and of ClusterIPs: for a warning, if they can be had.
    Ranges,
}

/// What is there already.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Objects of the kinds that the subject is judged against.
    pub objects: Objects,
    /// Every node, where they count.
    pub nodes: BTreeMap<Name, Node>,
    /// Ranges of ClusterIPs by ServiceCIDR, where they count.
    pub service_ranges: BTreeMap<Name, Vec<IpNet>>,
}

/// What the objects are held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The namespace that configuration objects live in.
    pub namespace: String,
    /// `METALLB_BGP_TYPE=native`.
    pub native_bgp: bool,
}

const ON_CHANGE: [&str; 2] = ["CREATE", "UPDATE"];

/// The six kinds.
pub const SUBJECTS: [Subject; 6] = [
    Subject {
        kind: ObjectKind::BGPPeer,
        singular: "bgppeer",
        plural: "bgppeers",
        version: "v1beta2",
        operations: ON_CHANGE,
        against: &[ObjectKind::BGPPeer, ObjectKind::Peer],
        cluster: Cluster::Nodes,
    },
    Subject {
        kind: ObjectKind::IPAddressPool,
        singular: "ipaddresspool",
        plural: "ipaddresspools",
        version: "v1beta1",
        operations: ON_CHANGE,
        against: &[ObjectKind::IPAddressPool, ObjectKind::AddressPool],
        cluster: Cluster::Ranges,
    },
    Subject {
        kind: ObjectKind::BGPAdvertisement,
        singular: "bgpadvertisement",
        plural: "bgpadvertisements",
        version: "v1beta1",
        operations: ON_CHANGE,
        against: &[
            ObjectKind::BGPAdvertisement,
            ObjectKind::Advertisement,
            ObjectKind::IPAddressPool,
            ObjectKind::AddressPool,
        ],
        cluster: Cluster::Nodes,
    },
    Subject {
        kind: ObjectKind::Community,
        singular: "community",
        plural: "communities",
        version: "v1beta1",
        operations: ON_CHANGE,
        against: &[ObjectKind::Community],
        cluster: Cluster::Nothing,
    },
    Subject {
        kind: ObjectKind::BFDProfile,
        singular: "bfdprofile",
        plural: "bfdprofiles",
        version: "v1beta1",
        operations: ["CREATE", "DELETE"],
        against: &[ObjectKind::BGPPeer, ObjectKind::Peer],
        cluster: Cluster::Nothing,
    },
    Subject {
        kind: ObjectKind::L2Advertisement,
        singular: "l2advertisement",
        plural: "l2advertisements",
        version: "v1beta1",
        operations: ON_CHANGE,
        against: &[
            ObjectKind::L2Advertisement,
            ObjectKind::Advertisement,
            ObjectKind::IPAddressPool,
            ObjectKind::AddressPool,
        ],
        cluster: Cluster::Nothing,
    },
];

impl Subject {
    /// Its path on our server.
    pub fn path(&self) -> String {
        format!("/validate-metallb-io-{}-{}", self.version, self.singular)
    }
}

/// What happens to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// It is new.
    Create,
    /// It changes.
    Update,
    /// It goes.
    Delete,
    /// Never asked for.
    Connect,
}

/// `request` of an `AdmissionReview`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Copied into the answer.
    pub uid: String,
    /// What happens.
    pub operation: Operation,
    /// The object's name; empty where the API server is still to make one.
    #[serde(default)]
    pub name: String,
    /// The object's namespace.
    #[serde(default)]
    pub namespace: String,
    /// The new form; null on deletion.
    #[serde(default)]
    pub object: Value,
    /// The old form; null on creation.
    #[serde(default)]
    pub old_object: Value,
}

/// What the API server is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Why not; `None` lets it pass.
    pub denied: Option<String>,
    /// Shown to the user by kubectl.
    pub warnings: Vec<String>,
}

impl Answer {
    fn denied(why: impl Into<String>) -> Self {
        Self {
            denied: Some(why.into()),
            ..Self::default()
        }
    }

    /// As an `AdmissionReview`.
    pub fn into_review(self, uid: &str) -> Value {
        let mut response = json!({"uid": uid, "allowed": self.denied.is_none()});
        if let Some(why) = self.denied {
            response["status"] = json!({"code": 403, "reason": "Forbidden", "message": why});
        }
        if !self.warnings.is_empty() {
            response["warnings"] = json!(self.warnings);
        }
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": response,
        })
    }
}

/// Whether the request can be answered without knowing other objects; then the answer.
pub fn without_others(subject: Subject, request: &Request) -> Option<Answer> {
    if request.name == PROBE {
        return Some(Answer::denied(PROBE_ANSWER));
    }
    if request.operation == Operation::Delete {
        return (subject.kind != ObjectKind::BFDProfile).then(Answer::default);
    }
    let new = match decode(subject, &request.object) {
        Ok(object) => object,
        Err(why) => return Some(Answer::denied(why)),
    };
    // One that is going is only to lose its finalizers.
    if new.metadata().deletion_timestamp.is_some() {
        return Some(Answer::default());
    }
    // Labels, annotations and finalizers of an object that was judged before, or is known to be
    // bad: nothing that a rule reads has changed.
    let old = decode(subject, &request.old_object).ok()?;
    (request.operation == Operation::Update && new.same_form(&old)).then(Answer::default)
}

/// Judges a request against what is there already.
pub fn review(subject: Subject, request: &Request, known: Known, rules: &Rules) -> Answer {
    if let Some(answer) = without_others(subject, request) {
        return answer;
    }
    if request.operation == Operation::Delete {
        return deletion(request, &known.objects, rules);
    }
    let incoming = match decode(subject, &request.object) {
        Ok(object) => youngest(object, request),
        Err(why) => return Answer::denied(why),
    };
    let reference = incoming.reference();
    let existing = known.objects.into_iter();
    let mut objects: Objects = existing
        .map(|(reference, object)| (reference, Arc::new(alone((*object).clone()))))
        .collect();
    objects.insert(reference.clone(), Arc::new(alone(incoming)));
    let context = Context {
        native_bgp: rules.native_bgp,
        ..Context::of_cluster(&rules.namespace, &known.nodes, &known.service_ranges)
    };
    judge(&objects, &reference, context)
}

fn judge(objects: &Objects, reference: &ObjectRef, context: Context<'_>) -> Answer {
    let compiled = config::compile(objects, &Objects::new(), context);
    let Some(verdict) = compiled.verdicts.get(reference) else {
        return Answer::default();
    };
    let told = |wanted: &dyn Fn(&Finding) -> bool| -> Vec<String> {
        let findings = verdict.findings().iter().filter(|finding| wanted(finding));
        findings.map(ToString::to_string).collect()
    };
    let denied = matches!(verdict, Verdict::Bad { .. }) && !verdict.transient();
    Answer {
        denied: denied.then(|| told(&|finding| !finding.warning && !finding.transient).join("; ")),
        warnings: told(&|finding| finding.warning && !refers(&finding.field)),
    }
}

/// Names of other objects: those may come later.
fn refers(field: &str) -> bool {
    let names = [
        "spec.ipAddressPools",
        "spec.ipAddressPoolSelectors",
        "spec.peers",
    ];
    names.iter().any(|name| field.starts_with(name))
}

/// A BFDProfile that a peer names is kept.
fn deletion(request: &Request, existing: &Objects, rules: &Rules) -> Answer {
    if request.namespace != rules.namespace {
        return Answer::default();
    }
    let profile = ObjectRef {
        kind: ObjectKind::BFDProfile,
        namespace: request.namespace.as_str().into(),
        name: request.name.as_str().into(),
    };
    match config::deletion_denied(existing, &profile) {
        Some(why) => Answer::denied(format!(
            "{why} (take it out of spec.bfdProfile there first)"
        )),
        None => Answer::default(),
    }
}

fn decode(subject: Subject, value: &Value) -> Result<Object, String> {
    let decoded = api::object::Object::decode(value.clone()).map_err(|error| error.to_string())?;
    match Object::try_from(decoded.object) {
        Ok(object) if object.kind() == subject.kind => Ok(object),
        Ok(object) => Err(format!(
            "this path judges {:?}, not {:?}",
            subject.kind,
            object.kind()
        )),
        Err(other) => Err(format!(
            "this path judges {:?}, not {}",
            subject.kind,
            other.kind()
        )),
    }
}

/// The object as judged: it has name and namespace, and is younger than any other.
fn youngest(mut object: Object, request: &Request) -> Object {
    let metadata = metadata_mut(&mut object);
    if metadata.namespace.is_empty() {
        metadata.namespace.clone_from(&request.namespace);
    }
    if metadata.name.is_empty() {
        // generateName: no other object's name, as a space cannot be in one.
        metadata.name = format!("{} ", metadata.generate_name.as_deref().unwrap_or("new"));
    }
    metadata.creation_timestamp = Some(YOUNGEST.to_owned());
    object
}

fn metadata_mut(object: &mut Object) -> &mut api::meta::ObjectMeta {
    match object {
        Object::IPAddressPool(object) => &mut object.metadata,
        Object::L2Advertisement(object) => &mut object.metadata,
        Object::BGPAdvertisement(object) => &mut object.metadata,
        Object::BGPPeer(object) => &mut object.metadata,
        Object::BFDProfile(object) => &mut object.metadata,
        Object::Community(object) => &mut object.metadata,
        Object::AddressPool(object) => &mut object.metadata,
        Object::Advertisement(object) => &mut object.metadata,
        Object::Peer(object) => &mut object.metadata,
    }
}

/// The object without what refers to objects that may not exist yet.
fn alone(mut object: Object) -> Object {
    match &mut object {
        Object::BGPPeer(peer) => {
            peer.spec.bfd_profile.clear();
            // Both at once is an error that does not need the Secret.
            if peer.spec.password.is_empty() {
                peer.spec.password_secret = Default::default();
            }
        }
        Object::Peer(peer) => peer.spec.bfd_profile.clear(),
        Object::BGPAdvertisement(advertisement) => {
            let communities = &mut advertisement.spec.communities;
            communities.retain(|community| community.contains(':'));
        }
        _ => {}
    }
    object
}
