//! Keeps what MetalLB's controller decided, for the tests of `plan`, which need no cluster.
//!
//! A line is a step: the objects that changed or went, without what controllers wrote; and the
//! addresses and pool of each Service where they changed. Services whose share was chance are
//! named: there is nothing to compare.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use lab::controlplane::Api;
use serde_json::{Value, json};

use crate::compare::Kind;
use crate::side::{NAMESPACES, POOLS, items};
use crate::step::SPACES;
use crate::view::{Key, View};
use crate::{Fault, MARKER};

const POOL_ANNOTATION: &str = "metallb.io/ip-allocated-from-pool";
/// The fields of a Service's spec that decide.
const SPEC: [&str; 9] = [
    "type",
    "clusterIPs",
    "ipFamilies",
    "ipFamilyPolicy",
    "externalTrafficPolicy",
    "selector",
    "ports",
    "loadBalancerIP",
    "loadBalancerClass",
];

pub(crate) struct Record {
    file: BufWriter<File>,
    objects: BTreeMap<(String, String, String), Value>,
    shown: BTreeMap<String, Value>,
}

impl Record {
    pub(crate) fn create(path: &Path) -> Result<Self, Fault> {
        Ok(Self {
            file: BufWriter::new(File::create(path)?),
            objects: BTreeMap::new(),
            shown: BTreeMap::new(),
        })
    }

    pub(crate) async fn step(
        &mut self,
        api: &Api,
        kind: Kind,
        view: &View,
        chance: &BTreeSet<Key>,
    ) -> Result<(), Fault> {
        let mut objects = BTreeMap::new();
        for (path, kind, version) in [
            (NAMESPACES, "Namespace", "v1"),
            (POOLS, "IPAddressPool", "metallb.io/v1beta1"),
            ("/api/v1/services", "Service", "v1"),
        ] {
            for object in items(api, path).await? {
                if let Some((name, object)) = slim(kind, version, &object) {
                    objects.insert(name, object);
                }
            }
        }
        let mut changed: Vec<(_, &Value)> = objects
            .iter()
            .filter(|(name, object)| self.objects.get(*name) != Some(*object))
            .collect();
        // Namespaces, pools, then Services in the order of their creation.
        changed.sort_by_key(|((kind, _, name), _)| (rank(kind), number(name)));
        let changed: Vec<&Value> = changed.into_iter().map(|(_, object)| object).collect();
        let gone: Vec<Value> = self
            .objects
            .iter()
            .filter(|(name, _)| !objects.contains_key(*name))
            .map(|(_, object)| object.clone())
            .collect();
        let shown: BTreeMap<String, Value> = view
            .services
            .iter()
            .map(|((namespace, name), shown)| {
                let pool = shown.annotations.get(POOL_ANNOTATION);
                let says = json!({"ips": shown.addresses(), "pool": pool});
                (format!("{namespace}/{name}"), says)
            })
            .collect();
        let news: BTreeMap<&String, &Value> = shown
            .iter()
            .filter(|(key, says)| self.shown.get(*key) != Some(*says))
            .collect();
        let chance: Vec<String> = chance
            .iter()
            .map(|(namespace, name)| format!("{namespace}/{name}"))
            .collect();
        let restart = kind == Kind::Restart;
        let line = json!({
            "restart": restart, "changed": changed, "gone": gone, "shown": news, "chance": chance,
        });
        writeln!(self.file, "{line}")?;
        self.file.flush()?;
        self.objects = objects;
        self.shown = shown;
        Ok(())
    }
}

fn rank(kind: &str) -> u8 {
    match kind {
        "Namespace" => 0,
        "IPAddressPool" => 1,
        _ => 2,
    }
}

/// The number in a Service's name.
fn number(name: &str) -> u64 {
    let digits: String = name.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

fn slim(kind: &str, version: &str, object: &Value) -> Option<((String, String, String), Value)> {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str()?;
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    let place = if kind == "Namespace" { name } else { namespace };
    if name == MARKER || (kind != "IPAddressPool" && !SPACES.contains(&place)) {
        return None;
    }
    let mut kept = json!({"name": name});
    for field in ["namespace", "labels", "annotations"] {
        if !metadata[field].is_null() {
            kept[field] = metadata[field].clone();
        }
    }
    if let Some(annotations) = kept.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(POOL_ANNOTATION);
    }
    let mut slim = json!({"apiVersion": version, "kind": kind, "metadata": kept});
    match kind {
        "Service" => {
            for field in SPEC {
                if !object["spec"][field].is_null() {
                    slim["spec"][field] = object["spec"][field].clone();
                }
            }
        }
        "IPAddressPool" => slim["spec"] = object["spec"].clone(),
        _ => {}
    }
    let name = (kind.to_owned(), namespace.to_owned(), name.to_owned());
    Some((name, slim))
}
