//! Objects of any dialect become one [`Config`], with one verdict per object.
//!
//! [`compile`] judges each object by itself, then the pools against each other from the oldest to
//! the youngest, then the advertisements against the pools. A bad object is left out and the rest
//! stays in force. Where an earlier form of it was good, that form stays in force instead; a pool's
//! is frozen. The forms in force come back as [`Compiled::accepted`]: the caller hands them in
//! again next time and keeps those of bad objects over a restart.
//!
//! Rules: MetalLB's (its `internal/config` and CRDs, release 0.16). Where it refuses the whole
//! configuration because of one object, here only that object is left out; what it ignores
//! silently (unknown pool names) is a warning here.
//!
//! Not yet here: the rules of the BGP kinds that need other objects (aggregation against pools,
//! local preferences, peers that share a node, BFD profiles, aliases, Secrets). They come with BGP.

mod address;
mod bgp;
mod community;
mod l2;
mod object;
mod pool;
mod selector;
#[cfg(test)]
mod tests;
mod verdict;

pub use community::{CommunityError, CommunityValue};
pub use l2::{L2Advertisement, Preference};
pub use object::{Object, ObjectKind, ObjectRef, Objects};
pub use selector::{Requirement, Selector, any_matches};
pub use verdict::{Finding, Verdict};

use std::collections::BTreeMap;
use std::sync::Arc;

use address::Blocks;
use l2::PoolChoice;
use pool::Draft;
use serde::{Deserialize, Serialize};
use verdict::Findings;

use crate::ipam::Pool;
use crate::name::Name;
use crate::world::Labels;

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Pools, frozen ones among them. No two blocks overlap.
    pub pools: BTreeMap<Name, Pool>,
    /// Layer 2 advertisements with their pools resolved.
    pub l2: BTreeMap<Name, L2Advertisement>,
}

/// A configuration and how it came about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// What is in force.
    pub config: Config,
    /// One verdict for each object.
    pub verdicts: BTreeMap<ObjectRef, Verdict>,
    /// The forms in force: the newest of a good object, the last good one of a bad object.
    pub accepted: Objects,
}

/// An object that stands so far, and what was found about its newest form.
struct Judged<T> {
    reference: ObjectRef,
    /// Of the newest form; text order is time order.
    created: Option<String>,
    /// The form that `parsed` was made of.
    form: Arc<Object>,
    /// The newest form was bad; this is the last good one.
    last_good: bool,
    parsed: T,
    found: Findings,
}

/// Judges `objects` and makes a configuration of those in force.
///
/// `last_good` are the forms that were in force before ([`Compiled::accepted`]); `namespace` is
/// the one that MetalLB's objects live in.
pub fn compile(objects: &Objects, last_good: &Objects, namespace: &str) -> Compiled {
    let mut pass = Compiler {
        last_good,
        namespace,
        compiled: Compiled::default(),
    };
    let (mut pools, mut l2) = (Vec::new(), Vec::new());
    for (reference, object) in objects {
        match &**object {
            Object::IPAddressPool(_) => pools.extend(pass.judge(reference, object, draft_of)),
            Object::L2Advertisement(_) => l2.extend(pass.judge(reference, object, l2_of)),
            _ => {
                if let Some(judged) = pass.judge(reference, object, others) {
                    pass.accept(judged);
                }
            }
        }
    }
    let labels = pass.pools(pools);
    for mut judged in l2 {
        let (choice, advertisement) = &mut judged.parsed;
        advertisement.pools = choice.resolve(&labels, &mut judged.found);
        let advertisement = advertisement.clone();
        pass.compiled
            .config
            .l2
            .insert(advertisement.name.clone(), advertisement);
        pass.accept(judged);
    }
    pass.compiled
}

struct Compiler<'a> {
    last_good: &'a Objects,
    namespace: &'a str,
    compiled: Compiled,
}

impl Compiler<'_> {
    /// The rules that need no other object. `None`: nothing of the object is in force.
    fn judge<T>(
        &mut self,
        reference: &ObjectRef,
        object: &Arc<Object>,
        check: impl Fn(&Object, &mut Findings) -> Option<T>,
    ) -> Option<Judged<T>> {
        let mut found = Findings::default();
        if *reference.namespace != *self.namespace {
            found.error(
                "metadata.namespace",
                format!("resource must be created in {} namespace", self.namespace),
                format!("move it to the namespace {}", self.namespace),
            );
            self.refuse(reference, found);
            return None;
        }
        let created = object.metadata().creation_timestamp.clone();
        let parsed = check(object, &mut found);
        let good = found.errors.is_empty();
        if let Some(parsed) = parsed.filter(|_| good) {
            return Some(Judged {
                reference: reference.clone(),
                created,
                form: object.clone(),
                last_good: false,
                parsed,
                found,
            });
        }
        match self.earlier(reference, check) {
            Some((form, parsed)) => Some(Judged {
                reference: reference.clone(),
                created,
                form,
                last_good: true,
                parsed,
                found,
            }),
            None => {
                self.refuse(reference, found);
                None
            }
        }
    }

    /// The last good form, if it still is one.
    fn earlier<T>(
        &self,
        reference: &ObjectRef,
        check: impl Fn(&Object, &mut Findings) -> Option<T>,
    ) -> Option<(Arc<Object>, T)> {
        let form = self.last_good.get(reference)?;
        let mut found = Findings::default();
        let parsed = check(form, &mut found)?;
        found.errors.is_empty().then(|| (form.clone(), parsed))
    }

    /// Pools against each other, the oldest first; the labels of those in force.
    fn pools(&mut self, mut drafts: Vec<Judged<Draft>>) -> BTreeMap<Name, Labels> {
        // Of two that conflict the one that comes later is left out.
        drafts
            .sort_by(|a, b| (&a.created, &a.reference.name).cmp(&(&b.created, &b.reference.name)));
        let mut taken: Blocks<Name> = Blocks::default();
        let mut labels = BTreeMap::new();
        for mut judged in drafts {
            if !judged.last_good {
                pool::check_overlaps(&judged.parsed, &taken, &mut judged.found);
                if !judged.found.errors.is_empty() {
                    let Some((form, parsed)) = self.earlier(&judged.reference, draft_of) else {
                        self.refuse(&judged.reference, judged.found);
                        continue;
                    };
                    (judged.form, judged.parsed, judged.last_good) = (form, parsed, true);
                }
            }
            let draft = judged.parsed.clone();
            let pool = if judged.last_good {
                pool::freeze(draft, &taken)
            } else {
                draft.pool
            };
            for block in &pool.blocks {
                taken.insert(*block, pool.name.clone());
            }
            labels.insert(pool.name.clone(), judged.form.metadata().labels.clone());
            self.compiled.config.pools.insert(pool.name.clone(), pool);
            self.accept(judged);
        }
        labels
    }

    fn accept<T>(&mut self, judged: Judged<T>) {
        let verdict = judged.found.verdict(judged.last_good);
        self.compiled
            .accepted
            .insert(judged.reference.clone(), judged.form);
        self.compiled.verdicts.insert(judged.reference, verdict);
    }

    fn refuse(&mut self, reference: &ObjectRef, found: Findings) {
        let verdict = found.verdict(false);
        self.compiled.verdicts.insert(reference.clone(), verdict);
    }
}

fn draft_of(object: &Object, found: &mut Findings) -> Option<Draft> {
    match object {
        Object::IPAddressPool(object) => Some(pool::check(object, found)),
        _ => None,
    }
}

fn l2_of(object: &Object, found: &mut Findings) -> Option<(PoolChoice, L2Advertisement)> {
    match object {
        Object::L2Advertisement(object) => Some(l2::check(object, found)),
        _ => None,
    }
}

fn others(object: &Object, found: &mut Findings) -> Option<()> {
    match object {
        Object::BGPPeer(object) => bgp::peer(object, found),
        Object::BGPAdvertisement(object) => bgp::advertisement(object, found),
        Object::BFDProfile(object) => bgp::bfd_profile(object, found),
        Object::Community(object) => bgp::community(object, found),
        Object::IPAddressPool(_) | Object::L2Advertisement(_) => return None,
    }
    Some(())
}
