//! What a directory says, and how that differs from what was told.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use api::core::{LoadBalancerIngress, Service};
use api::object::Object;
use plan::world::Event;

use crate::manifest::{self, Problem};
use crate::source::kinds;
use crate::state::{self, Holdings};

/// Which object: kind, namespace, name.
type Id = (String, String, String);

fn id(object: &Object) -> Id {
    (
        object.kind().to_owned(),
        object.namespace().to_owned(),
        object.name().to_owned(),
    )
}

/// When a file was last changed, and its size: enough to see an edit.
type Stamp = (Option<SystemTime>, u64);

struct FileState {
    stamp: Stamp,
    objects: BTreeMap<Id, Object>,
}

/// The directory, as last read.
pub(super) struct Directory {
    dir: PathBuf,
    files: BTreeMap<PathBuf, FileState>,
    told: BTreeMap<Id, Object>,
    holdings: Holdings,
    /// The last error of the directory or the state file, so that it is logged once.
    trouble: Option<String>,
}

impl Directory {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            files: BTreeMap::new(),
            told: BTreeMap::new(),
            holdings: Holdings::new(),
            trouble: None,
        }
    }

    /// Reads what has changed and says how the objects differ from what was told before. Where the
    /// directory or the state file cannot be read, what was told stays.
    pub(super) fn read(&mut self) -> Vec<Event> {
        let result = self.read_files().and_then(|()| {
            self.holdings = state::load(&self.dir).map_err(|error| crate::cli::chain(&error))?;
            Ok(())
        });
        match result {
            Ok(()) => self.trouble = None,
            Err(trouble) => {
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::error!("{trouble}; what was read before stays in force");
                }
                self.trouble = Some(trouble);
                return Vec::new();
            }
        }
        self.differences()
    }

    fn read_files(&mut self) -> Result<(), String> {
        let unreadable =
            |error: std::io::Error| format!("directory {}: {error}", self.dir.display());
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.dir).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if !super::is_manifest(&path) {
                continue;
            }
            // Gone between listing and looking: it is gone.
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            if metadata.is_file() {
                found.insert(path, (metadata.modified().ok(), metadata.len()));
            }
        }
        self.files.retain(|path, _| found.contains_key(path));
        for (path, stamp) in found {
            if self
                .files
                .get(&path)
                .is_some_and(|known| known.stamp == stamp)
            {
                continue;
            }
            // Gone between looking and reading: it is gone.
            let Ok(bytes) = fs::read(&path) else { continue };
            let read = manifest::parse(&path.display().to_string(), &bytes);
            for problem in &read.problems {
                log(problem);
            }
            let mut objects: BTreeMap<Id, Object> = BTreeMap::new();
            for manifest in read.manifests {
                objects.insert(id(&manifest.object), manifest.object);
            }
            if !read.problems.is_empty() {
                // What a broken document meant to replace stays in force.
                let before = self.files.remove(&path).map(|known| known.objects);
                for (id, object) in before.unwrap_or_default() {
                    objects.entry(id).or_insert(object);
                }
            }
            self.files.insert(path, FileState { stamp, objects });
        }
        Ok(())
    }

    fn differences(&mut self) -> Vec<Event> {
        let mut now: BTreeMap<Id, Object> = BTreeMap::new();
        for (path, file) in &self.files {
            for (id, object) in &file.objects {
                if now.contains_key(id) {
                    tracing::warn!(
                        file = %path.display(),
                        kind = id.0, namespace = id.1, name = id.2,
                        "defined in another file as well; that one holds"
                    );
                    continue;
                }
                let mut object = object.clone();
                if let Object::Service(service) = &mut object {
                    complete(service, &self.holdings);
                }
                now.insert(id.clone(), object);
            }
        }
        let mut events = Vec::new();
        for (id, object) in &self.told {
            if !now.contains_key(id) {
                events.extend(kinds::gone(object));
            }
        }
        for (id, object) in &now {
            if self.told.get(id) != Some(object) {
                events.extend(kinds::applied(object.clone()));
            }
        }
        self.told = now;
        events
    }
}

/// Does what an API server would: defaults of the families, and the status from the state file.
fn complete(service: &mut Service, holdings: &Holdings) {
    let spec = &mut service.spec;
    if spec.ip_families.is_empty() && spec.cluster_ips.is_empty() && spec.cluster_ip.is_empty() {
        spec.ip_families.push(api::core::IpFamily::IPv4);
        let dual = spec.ip_family_policy == Some(api::core::IpFamilyPolicy::RequireDualStack)
            || spec.ip_family_policy == Some(api::core::IpFamilyPolicy::PreferDualStack);
        if dual {
            spec.ip_families.push(api::core::IpFamily::IPv6);
        }
    }
    let key = format!("{}/{}", service.metadata.namespace, service.metadata.name);
    let holding = holdings.get(&key);
    service.status.load_balancer.ingress = holding
        .into_iter()
        .flat_map(|holding| &holding.addresses)
        .map(|address| LoadBalancerIngress {
            ip: address.to_string(),
            ..LoadBalancerIngress::default()
        })
        .collect();
    let annotations = &mut service.metadata.annotations;
    match holding.and_then(|holding| holding.pool.clone()) {
        Some(pool) => {
            annotations.insert(api::annotations::IP_ALLOCATED_FROM_POOL.to_owned(), pool);
        }
        None => {
            annotations.remove(api::annotations::IP_ALLOCATED_FROM_POOL);
        }
    }
}

fn log(problem: &Problem) {
    tracing::error!("{problem}");
}
