//! MetalLB's own Pods beside Corten, and what is left to them while they live (docs/adr/0009).
//!
//! Two camps of speakers would elect two owners of an address, and two controllers would each give
//! addresses of its own. So while a controller of MetalLB lives, Corten's does not lead; while any
//! speaker lives, agents answer nothing in layer 2; and a node on which one lives holds no BGP
//! sessions, as the router has one place for it (`spec/bgp.md` T4).

use std::collections::BTreeMap;

use api::core as k8s;
use serde::{Deserialize, Serialize};

use crate::name::{Name, ServiceKey};

/// Namespace and name of a Pod.
pub type PodKey = ServiceKey;

/// What Corten's Pods bear and no other's: MetalLB's labels they bear too, for tools that select by
/// those (docs/adr/0008).
const OURS: &str = "corten.dev/component";
const NAME: &str = "app.kubernetes.io/name";
const COMPONENT: &str = "app.kubernetes.io/component";

/// A part of MetalLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// It gives addresses.
    Controller,
    /// It announces them.
    Speaker,
}

impl Part {
    fn named(name: &str) -> Option<Self> {
        match name {
            "controller" => Some(Self::Controller),
            "speaker" => Some(Self::Speaker),
            _ => None,
        }
    }
}

/// A living Pod of MetalLB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rival {
    /// Which part of MetalLB it is.
    pub part: Part,
    /// Where it runs.
    pub node: Name,
    /// What made it, as kubectl names it, like `daemonset/speaker`.
    pub workload: Name,
}

impl Rival {
    /// The Pod as a rival: `None` when it is none of MetalLB's, or does not live.
    pub fn of(pod: &k8s::Pod) -> Option<Self> {
        let part = part(pod).filter(|_| lives(pod))?;
        Some(Self {
            part,
            node: pod.spec.node_name.as_str().into(),
            workload: workload(pod).into(),
        })
    }
}

/// By the labels of the chart, or by those of the plain manifests, or, where the chart was given
/// other names, by the image.
fn part(pod: &k8s::Pod) -> Option<Part> {
    let labels = &pod.metadata.labels;
    let label = |key: &str| labels.get(key).map(String::as_str);
    if labels.contains_key(OURS) || label(NAME) == Some("corten") {
        return None;
    }
    if label(NAME).or_else(|| label("app")) == Some("metallb") {
        return Part::named(label(COMPONENT).or_else(|| label("component"))?);
    }
    let mut containers = pod.spec.containers.iter();
    containers.find_map(|container| {
        let part = Part::named(&container.name)?;
        let (registry, last) = container.image.rsplit_once('/')?;
        let repository = last.split([':', '@']).next()?;
        let of = registry.rsplit('/').next()?;
        (of == "metallb" && repository == container.name).then_some(part)
    })
}

/// Whether its processes may run. Of one that is being deleted this ends with its readiness: on a
/// node that is lost nobody confirms its end.
fn lives(pod: &k8s::Pod) -> bool {
    let ready = || {
        let mut conditions = pod.status.conditions.iter();
        conditions.any(|found| found.type_ == "Ready" && found.status == "True")
    };
    let going = pod.metadata.deletion_timestamp.is_some();
    matches!(pod.status.phase.as_str(), "Running" | "Unknown") && (!going || ready())
}

fn workload(pod: &k8s::Pod) -> String {
    let metadata = &pod.metadata;
    let mut owners = metadata.owner_references.iter();
    match owners.find(|owner| owner.controller == Some(true)) {
        // A Deployment's ReplicaSet bears its name and a hash.
        Some(owner) if owner.kind == "ReplicaSet" => {
            let name = owner
                .name
                .rsplit_once('-')
                .map_or(&*owner.name, |(it, _)| it);
            format!("deployment/{name}")
        }
        Some(owner) => format!("{}/{}", owner.kind.to_lowercase(), owner.name),
        None => format!("pod/{}", metadata.name),
    }
}

/// MetalLB's living Pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rivals(BTreeMap<PodKey, Rival>);

impl Rivals {
    /// Takes in a Pod's new form.
    pub fn set(&mut self, pod: PodKey, form: Option<Rival>) {
        match form {
            Some(form) => self.0.insert(pod, form),
            None => self.0.remove(&pod),
        };
    }

    /// One of them.
    pub fn get(&self, pod: &PodKey) -> Option<&Rival> {
        self.0.get(pod)
    }

    /// Whether a Pod of this part lives.
    pub fn any(&self, part: Part) -> bool {
        self.of(part).next().is_some()
    }

    /// Whether a speaker lives on this node.
    pub fn speaker_on(&self, node: &str) -> bool {
        self.on(node).is_some()
    }

    fn of(&self, part: Part) -> impl Iterator<Item = (&PodKey, &Rival)> {
        self.0.iter().filter(move |(_, rival)| rival.part == part)
    }

    fn on(&self, node: &str) -> Option<(&PodKey, &Rival)> {
        self.of(Part::Speaker)
            .find(|(_, rival)| *rival.node == *node)
    }

    /// Why the controller stands by, if it does, with the remedy.
    pub fn over_controller(&self) -> Option<String> {
        let found = self.of(Part::Controller).next()?;
        Some(said(
            "standing by",
            "MetalLB's controller runs",
            found,
            "gives no addresses until it is gone",
        ))
    }

    /// Why the agent of `node` stands by, if it does, with the remedy.
    pub fn over_agent(&self, node: &str) -> Option<String> {
        Some(match self.on(node) {
            Some(found) => said(
                "standing by in layer 2 and BGP",
                "a speaker of MetalLB runs on this node",
                found,
                "answers no ARP and NDP until MetalLB's last speaker is gone, and holds no BGP \
                 sessions until this one is",
            ),
            None => said(
                "standing by in layer 2",
                "a speaker of MetalLB runs",
                self.of(Part::Speaker).next()?,
                "answers no ARP and NDP until the last is gone",
            ),
        })
    }
}

fn said(what: &str, why: &str, (pod, rival): (&PodKey, &Rival), until: &str) -> String {
    let (namespace, workload) = (&pod.namespace, &rival.workload);
    format!(
        "{what}: {why} (Pod {pod}), and Corten {until}; remedy: kubectl delete -n {namespace} \
         {workload}"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(metadata: Value, phase: &str) -> k8s::Pod {
        let pod = json!({"metadata": metadata, "spec": {"nodeName": "n1"}, "status": {
            "phase": phase, "conditions": [{"type": "Ready", "status": "True"}],
        }});
        serde_json::from_value(pod).expect("a Pod")
    }

    fn labelled(labels: Value) -> k8s::Pod {
        pod(json!({"name": "p", "labels": labels}), "Running")
    }

    #[test]
    fn metallb_s_pods_are_told_from_ours_and_others() {
        let helm = |name: &str, part: &str| json!({NAME: name, COMPONENT: part});
        let ours = |name: &str| {
            json!({NAME: name, COMPONENT: "speaker", "app": "metallb", "component": "speaker",
                OURS: "speaker"})
        };
        let table = [
            (
                json!({"app": "metallb", "component": "speaker"}),
                Some(Part::Speaker),
            ),
            (
                json!({"app": "metallb", "component": "controller"}),
                Some(Part::Controller),
            ),
            (helm("metallb", "speaker"), Some(Part::Speaker)),
            (helm("metallb", "controller"), Some(Part::Controller)),
            (json!({"app": "metallb"}), None),
            (json!({"app": "metallb", "component": "other"}), None),
            (helm("frr-k8s", "speaker"), None),
            (helm("ingress-nginx", "controller"), None),
            (json!({"component": "speaker"}), None),
            // Corten's, whatever the chart was told to call it; the last is of a version before
            // there was a label of our own.
            (ours("corten"), None),
            (ours("metallb"), None),
            (ours("lb"), None),
            (
                json!({NAME: "corten", "app": "metallb", "component": "speaker"}),
                None,
            ),
        ];
        for (labels, want) in table {
            let found = Rival::of(&labelled(labels.clone()));
            assert_eq!(found.map(|found| found.part), want, "{labels}");
        }
    }

    #[test]
    fn other_labels_but_the_image_is_metallb_s() {
        let table = [
            ("speaker", "quay.io/metallb/speaker:v0.15.2", true),
            (
                "speaker",
                "registry:5000/mirror/metallb/speaker@sha256:ab",
                true,
            ),
            ("speaker", "metallb/speaker", true),
            ("speaker", "quay.io/other/speaker", false),
            ("speaker", "speaker:v1", false),
            ("web", "quay.io/metallb/speaker", false),
        ];
        for (name, image, want) in table {
            let mut pod = labelled(json!({NAME: "lb", COMPONENT: "speaker"}));
            pod.spec.containers = vec![k8s::Container {
                name: name.to_owned(),
                image: image.to_owned(),
            }];
            assert_eq!(Rival::of(&pod).is_some(), want, "{name} {image}");
        }
    }

    #[test]
    fn only_what_may_run_lives() {
        let metadata = json!({"name": "p", "labels": {"app": "metallb", "component": "speaker"}});
        for (phase, lives) in [
            ("Running", true),
            ("Unknown", true),
            ("Pending", false),
            ("Succeeded", false),
            ("Failed", false),
            ("", false),
        ] {
            let pod = pod(metadata.clone(), phase);
            assert_eq!(Rival::of(&pod).is_some(), lives, "{phase}");
        }
        let mut going = pod(metadata, "Running");
        going.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".to_owned());
        assert!(Rival::of(&going).is_some(), "it has its grace");
        going.status.conditions[0].status = "False".to_owned();
        assert_eq!(Rival::of(&going), None, "nobody confirms its end");
    }

    #[test]
    fn the_words_name_pod_and_remedy() {
        let owned = |name: &str, part: &str, kind: &str, owner: &str, node: &str| {
            let mut pod = pod(
                json!({"name": name, "namespace": "metallb-system",
                    "labels": {"app": "metallb", "component": part},
                    "ownerReferences": [{"kind": kind, "name": owner, "controller": true}]}),
                "Running",
            );
            pod.spec.node_name = node.to_owned();
            let key = PodKey::new("metallb-system", name);
            (key, Rival::of(&pod))
        };
        let mut rivals = Rivals::default();
        assert_eq!(
            (rivals.over_controller(), rivals.over_agent("n1")),
            (None, None)
        );
        let (key, rival) = owned("c-5b8f-x", "controller", "ReplicaSet", "c-5b8f", "n1");
        rivals.set(key.clone(), rival);
        assert_eq!(
            rivals.over_controller().as_deref(),
            Some(
                "standing by: MetalLB's controller runs (Pod metallb-system/c-5b8f-x), and Corten \
                 gives no addresses until it is gone; remedy: kubectl delete -n metallb-system \
                 deployment/c"
            )
        );
        assert_eq!(
            rivals.over_agent("n1"),
            None,
            "agents announce what it gives"
        );
        rivals.set(key, None);
        assert_eq!(rivals.over_controller(), None);
        let (key, rival) = owned("s-x", "speaker", "DaemonSet", "s", "n1");
        rivals.set(key, rival);
        let words = rivals.over_agent("n2").expect("words");
        assert!(words.starts_with("standing by in layer 2: "), "{words}");
        assert!(
            words.ends_with("delete -n metallb-system daemonset/s"),
            "{words}"
        );
        let words = rivals.over_agent("n1").expect("words");
        assert!(
            words.starts_with("standing by in layer 2 and BGP: "),
            "{words}"
        );
        assert_eq!(
            rivals.over_controller(),
            None,
            "its addresses may be announced"
        );
    }
}
