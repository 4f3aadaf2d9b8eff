//! What a directory says, and how that differs from what was told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use api::annotations::DRAIN;
use api::core::{IpFamily, IpFamilyPolicy, LoadBalancerIngress, Node, Service};
use api::object::Object;
use plan::name::ServiceKey;
use plan::world::Event;

use super::Duties;
use super::files::{Files, Id};
use crate::manifest::{self, Problem};
use crate::nodes;
use crate::source::kinds;
use crate::state::{self, Holdings, State};

/// The directory, as last read.
pub(super) struct Directory {
    dir: PathBuf,
    namespace: String,
    duties: Duties,
    files: Files,
    told: BTreeMap<Id, Object>,
    holdings: Holdings,
    /// The last good forms of before the start have been told.
    begun: bool,
    /// It was told that nothing is decided yet.
    waiting: bool,
    complete: bool,
    /// The last error of the directory or the state file, so that it is logged once.
    trouble: Option<String>,
    /// Objects that are in more than one file, with the file that does not count.
    doubles: BTreeSet<(PathBuf, Id)>,
    /// What was last wrong between objects.
    faults: Vec<Problem>,
    /// Holdings without a Service that the planner was told of.
    orphans: BTreeSet<ServiceKey>,
}

impl Directory {
    pub(super) fn new(dir: &Path, namespace: &str, duties: Duties) -> Self {
        Self {
            dir: dir.to_owned(),
            namespace: namespace.to_owned(),
            duties,
            files: Files::new(dir, duties),
            told: BTreeMap::new(),
            holdings: Holdings::new(),
            begun: false,
            waiting: false,
            complete: false,
            trouble: None,
            doubles: BTreeSet::new(),
            faults: Vec::new(),
            orphans: BTreeSet::new(),
        }
    }

    /// Reads what has changed and says how the objects differ from what was told before. Where the
    /// directory or the state file cannot be read, what was told stays.
    pub(super) fn read(&mut self) -> Vec<Event> {
        let files = self
            .files
            .read()
            .map_err(|error| format!("directory {}: {error}", self.dir.display()));
        let result = files.and_then(|changed| {
            let state = state::load(&self.dir).map_err(|error| crate::cli::chain(&error))?;
            Ok((changed, state))
        });
        match result {
            Ok((changed, State { services, accepted })) => {
                self.trouble = None;
                self.holdings = services;
                if self.complete {
                    self.files.settle();
                }
                if changed {
                    self.judge();
                }
                // Of use at the start alone: later the planner knows what was good.
                let first = !std::mem::replace(&mut self.begun, true);
                let mut events = Vec::from_iter(first.then(|| kinds::last_good(&accepted)));
                events.extend(self.differences());
                events
            }
            Err(trouble) => {
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::error!("{trouble}; what was read before stays in force");
                }
                self.trouble = Some(trouble);
                Vec::new()
            }
        }
    }

    /// Whether all that decisions need has been told. Who allocates decides nothing while addresses
    /// are held and it is not known what a broken file said before the start: the pool, or the very
    /// Service, that an address belongs to may have been in it. Once complete, always complete.
    pub(super) fn is_complete(&mut self) -> bool {
        if self.complete || !self.begun {
            return self.complete;
        }
        let unknown = self.files.unknown();
        let Some(file) = unknown.filter(|_| self.duties.keeps && !self.holdings.is_empty()) else {
            self.complete = true;
            self.files.settle();
            return true;
        };
        if !std::mem::replace(&mut self.waiting, true) {
            tracing::error!(
                file = %file.display(),
                "the file is broken and it is not known what it said before: no address is given or \
                 taken back until it is mended or removed; who holds one keeps it"
            );
        }
        false
    }

    /// Tells what is wrong between objects, where it is; the planner knows no files.
    fn judge(&mut self) {
        let manifests = self
            .files
            .iter()
            .flat_map(|(_, file)| file.manifests.values());
        let faults = manifest::together(manifests, &self.namespace).problems;
        for fault in faults.iter().filter(|fault| !self.faults.contains(fault)) {
            self.files.tell(fault);
        }
        self.faults = faults;
    }

    fn differences(&mut self) -> Vec<Event> {
        let mut now: BTreeMap<Id, Object> = BTreeMap::new();
        let mut doubles = BTreeSet::new();
        let draining = nodes::asked_to_drain(&self.dir);
        for (path, file) in self.files.iter() {
            for (id, manifest) in &file.manifests {
                if now.contains_key(id) {
                    doubles.insert((path.clone(), id.clone()));
                    continue;
                }
                let mut object = manifest.object.clone();
                match &mut object {
                    Object::Service(service) => complete(service, &self.holdings),
                    Object::Node(Node { metadata, .. }) if draining.contains(&metadata.name) => {
                        let asked = (DRAIN.to_owned(), "true".to_owned());
                        metadata.annotations.extend([asked]);
                    }
                    _ => {}
                }
                now.insert(id.clone(), object);
            }
        }
        for (path, (kind, namespace, name)) in doubles.difference(&self.doubles) {
            tracing::warn!(
                file = %path.display(), kind, namespace, name,
                "defined in another file as well; that one holds"
            );
        }
        self.doubles = doubles;
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
        events.extend(self.orphaned());
        events
    }

    /// Services that were deleted while nobody looked hold addresses still: tells that they are
    /// gone. Not while a file is broken, as they may be in it.
    fn orphaned(&mut self) -> Vec<Event> {
        if self.files.any_broken() {
            return Vec::new();
        }
        let mut orphans = BTreeSet::new();
        for key in self.holdings.keys() {
            let Some((namespace, name)) = key.split_once('/') else {
                continue;
            };
            let id = ("Service".to_owned(), namespace.to_owned(), name.to_owned());
            if !self.told.contains_key(&id) {
                orphans.insert(ServiceKey::new(namespace, name));
            }
        }
        let new = orphans.difference(&self.orphans).cloned();
        let events = new.map(|key| Event::Service { key, form: None }).collect();
        self.orphans = orphans;
        events
    }
}

/// Does what an API server would: defaults of the families, and the status from the state file.
fn complete(service: &mut Service, holdings: &Holdings) {
    let spec = &mut service.spec;
    if spec.ip_families.is_empty() && spec.cluster_ips.is_empty() && spec.cluster_ip.is_empty() {
        spec.ip_families.push(IpFamily::IPv4);
    }
    let dual = matches!(
        spec.ip_family_policy,
        Some(IpFamilyPolicy::RequireDualStack | IpFamilyPolicy::PreferDualStack)
    );
    if let (true, [first]) = (dual, spec.ip_families.as_slice()) {
        let second = match first {
            IpFamily::IPv4 => IpFamily::IPv6,
            _ => IpFamily::IPv4,
        };
        spec.ip_families.push(second);
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

#[cfg(test)]
mod tests;
