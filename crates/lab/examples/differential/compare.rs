//! Where two views differ, and which differences are known and why.
//!
//! The named exceptions, all of them:
//! - [`Known::Order`]: MetalLB compares held and requested addresses by sorting both in place, so
//!   that two requested addresses end in the order of their texts (`11010 < 2001`). Corten keeps
//!   the order of the request.
//! - [`Known::Contended`]: one step left several Services to decide about. MetalLB goes through
//!   them in the order of a Go map; whoever comes first has the choice.
//! - [`Known::Stolen`]: MetalLB started again gives a PreferDualStack Service that has one address
//!   a second one before it has read who holds it, and whoever held it gets another. Corten takes
//!   nothing away ([`Step::taken`]).
//! - [`Known::Repeated`]: MetalLB tells some events again at every pass; Corten once.
//! - [`Known::Deprecated`]: MetalLB warns of an annotation with the old prefix at every pass (the
//!   API server gives each address an `ipMode`, which it takes for a change); Corten when the
//!   Service gets or loses an address.
//! - [`Known::Cut`]: MetalLB's event recorder lets 25 events of an object pass, then one in five
//!   minutes.
//! - [`Known::BuggyTwice`]: where `.0` and `.255` are avoided, MetalLB counts a block that is one
//!   such address as minus one address.
//! - [`Known::NoPool`]: with no pool at all MetalLB clears without an event; Corten tells why.

use std::collections::{BTreeMap, BTreeSet};

use crate::view::{Events, Key, Pool, Shown, View};

/// A difference that is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Known {
    Order,
    Contended,
    Stolen,
    Repeated,
    Deprecated,
    Cut,
    BuggyTwice,
    NoPool,
}

/// What was passed over, and how often.
pub(crate) type Passed = BTreeMap<Known, u64>;

/// Reasons that MetalLB repeats.
const REPEATED: [&str; 4] = [
    "AllocationFailed",
    "AdditionalAssignFailed",
    "LoadBalancerFailed",
    "not enough clusterips",
];

/// The burst of client-go's event recorder.
const BURST: u64 = 25;

/// The two sides before and after a step.
pub(crate) struct Step<'a> {
    pub(crate) before: [&'a View; 2],
    pub(crate) after: [&'a View; 2],
    /// Whether the pools' counters are compared: Corten writes them once a second.
    pub(crate) counters: bool,
    pub(crate) kind: Kind,
}

/// What the step was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One object changed.
    Change,
    /// Several Services were created, one soon after the other: first come, first served.
    Burst,
    /// The controllers were started again: what they had told they may tell again.
    Restart,
    /// There is no pool any more.
    NoPool,
}

/// A difference that no exception covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// `None`: the pools' counters.
    pub(crate) service: Option<Key>,
    /// Its status and annotations are the same, its events are not.
    pub(crate) events: bool,
    pub(crate) text: String,
}

impl Step<'_> {
    /// The differences, Corten's side first; what was passed over is counted.
    pub(crate) fn differences(&self, passed: &mut Passed) -> Vec<Difference> {
        let [corten, metallb] = self.after;
        let mut found = Vec::new();
        let keys: BTreeSet<&Key> = corten
            .services
            .keys()
            .chain(metallb.services.keys())
            .collect();
        let nothing = Shown::default();
        for key in keys {
            let side = |view: &View| view.services.get(key).unwrap_or(&nothing).clone();
            let (ours, theirs) = (side(corten), side(metallb));
            if ours != theirs && !same_but_for_order(&ours, &theirs) {
                found.push(Difference {
                    service: Some(key.clone()),
                    events: false,
                    text: format!("corten:  {ours:?}\nmetallb: {theirs:?}"),
                });
            } else if ours != theirs {
                *passed.entry(Known::Order).or_default() += 1;
            }
        }
        if found.is_empty() {
            // Events of Services that differ would only repeat it.
            for key in corten.services.keys() {
                found.extend(self.events(key, passed));
            }
        }
        let theirs = counted_once(&metallb.pools);
        if self.counters && theirs != metallb.pools {
            *passed.entry(Known::BuggyTwice).or_default() += 1;
        }
        if found.is_empty() && self.counters && counted(&corten.pools) != counted(&theirs) {
            found.push(Difference {
                service: None,
                events: false,
                text: format!("corten:  {:?}\nmetallb: {:?}", corten.pools, metallb.pools),
            });
        }
        found
    }

    /// The Services that had to be decided about anew, when there are several: who among them
    /// gets what is MetalLB's chance.
    pub(crate) fn contenders(&self) -> BTreeSet<Key> {
        let mut contenders = BTreeSet::new();
        for (before, after) in self.before.iter().zip(self.after) {
            for (key, shown) in &after.services {
                let (had, has) = (before.addresses(key), shown.addresses());
                if had != has || (has.is_empty() && shown.balanced) {
                    contenders.insert(key.clone());
                }
            }
        }
        // In a burst it is the first; one alone has nobody to lose to.
        if contenders.len() < 2 || self.kind == Kind::Burst {
            contenders.clear();
        }
        contenders
    }

    /// The Services that Corten's controller, started again, took an address from.
    pub(crate) fn taken(&self) -> Vec<Key> {
        let (before, after) = (self.before[0], self.after[0]);
        let lost = |key: &&Key| {
            let has = after.addresses(key);
            before.addresses(key).iter().any(|ip| !has.contains(ip))
        };
        if self.kind != Kind::Restart {
            return Vec::new();
        }
        after.services.keys().filter(lost).cloned().collect()
    }

    fn events(&self, key: &Key, passed: &mut Passed) -> Option<Difference> {
        let none = Events::new();
        let told =
            |views: [&View; 2], side: usize| views[side].events.get(key).unwrap_or(&none).clone();
        let new = |side: usize| -> Events {
            let before = told(self.before, side);
            let after = told(self.after, side).into_iter();
            after
                .map(|(what, count)| {
                    let old = before.get(&what).copied().unwrap_or(0);
                    (what, count.saturating_sub(old))
                })
                .filter(|(_, count)| *count > 0)
                .collect()
        };
        let (ours, theirs) = (new(0), new(1));
        let (all_ours, all_theirs) = (told(self.after, 0), told(self.after, 1));
        let mut wrong = Vec::new();
        for what in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            let count = |events: &Events| events.get(what).copied().unwrap_or(0);
            let (we, they) = (count(&ours), count(&theirs));
            let repeated = REPEATED.contains(&what.1.as_str());
            // A pass of MetalLB's that has not seen its own last write decides the same again, too.
            let again = (they > we && (we > 0 || (repeated && count(&all_ours) > 0)))
                || ((repeated || what.1 == "deprecatedAnnotation") && self.kind == Kind::Restart);
            let known = if we == they {
                continue;
            } else if self.kind == Kind::NoPool {
                Known::NoPool
            } else if what.1 == "deprecatedAnnotation" && they > we {
                Known::Deprecated
            } else if again {
                Known::Repeated
            } else if all_theirs.values().sum::<u64>() + 3 >= BURST {
                Known::Cut
            } else {
                wrong.push(format!("{what:?}: corten {we}, metallb {they}"));
                continue;
            };
            *passed.entry(known).or_default() += 1;
        }
        (!wrong.is_empty()).then(|| Difference {
            service: Some(key.clone()),
            events: true,
            text: format!(
                "events of this step: {}\ncorten:  {ours:?}\nmetallb: {theirs:?}",
                wrong.join("; ")
            ),
        })
    }
}

/// MetalLB's counters with each address that is avoided taken off once.
fn counted_once(pools: &BTreeMap<String, Pool>) -> BTreeMap<String, Pool> {
    let mut pools = pools.clone();
    for pool in pools.values_mut().filter(|pool| pool.avoids) {
        let single = |entry: &&String| entry.ends_with(".0/32") || entry.ends_with(".255/32");
        let twice = pool.entries.iter().filter(single).count() as i64;
        if let Some(count) = pool.status["availableIPv4"].as_i64() {
            pool.status["availableIPv4"] = (count + twice).into();
        }
    }
    pools
}

/// A status that says 0 of everything is as none: neither writes the first one.
fn counted(pools: &BTreeMap<String, Pool>) -> BTreeMap<String, Pool> {
    let mut pools = pools.clone();
    for pool in pools.values_mut() {
        let counts = pool.status.as_object();
        if counts.is_some_and(|counts| counts.values().all(|count| count.as_i64() == Some(0))) {
            pool.status = serde_json::Value::Null;
        }
    }
    pools
}

/// Two addresses that were asked for, in another order.
fn same_but_for_order(ours: &Shown, theirs: &Shown) -> bool {
    let set = |shown: &Shown| -> BTreeSet<String> {
        shown.addresses().into_iter().map(str::to_owned).collect()
    };
    ours.asks() && ours.annotations == theirs.annotations && set(ours) == set(theirs)
}
