//! Adoption: what is in the kernel against what should be.
//!
//! The wanted elements are held as fingerprints of eight bytes; the kernel's are streamed past
//! them. Seen ones are struck off, unknown ones noted for deletion; what is left of the
//! fingerprints is missing and gets written. Fingerprints are keyed at random per run, so that
//! nobody can prepare two elements with one fingerprint.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

use super::error::{EINTR, errno, reading};
use super::layout::{Bytes, Encoded, SetId};
use super::write::{BATCH_ELEMENTS, Work};
use super::{Error, Nft, Report, TABLE};

/// How often a dump is repeated when somebody changes the rule set meanwhile.
const ATTEMPTS: u32 = 8;

/// A hash is its own hash.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

type Fingerprints = HashSet<u64, BuildHasherDefault<Same>>;

impl Nft {
    /// Makes the kernel hold the elements of `table`, reading it first.
    pub(super) fn mend(&mut self, report: &mut Report) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let before = self.socket.generation().ok();
            let batches = report.batches;
            match self.try_mend(report) {
                Err(Error::Netlink { source, .. }) if errno(&source) == Some(EINTR) => {}
                done => {
                    self.seen.compared(before, report.batches - batches);
                    return done;
                }
            }
        }
        Err(Error::Busy { attempts: ATTEMPTS })
    }

    fn try_mend(&mut self, report: &mut Report) -> Result<(), Error> {
        let there = self.make_structure(report)?;
        let keyed = RandomState::new();
        let keys: Vec<_> = self.table.keys().map(Arc::clone).collect();
        let mut missing = Fingerprints::default();
        for key in &keys {
            for element in &self.table.elements(key) {
                missing.insert(keyed.hash_one(Encoded::new(element)));
            }
        }
        let mut extra: HashMap<(SetId, Bytes), Encoded> = HashMap::new();
        for id in SetId::all() {
            let name = self.sets.name(id);
            if !there.contains(name) {
                continue;
            }
            self.socket
                .elements(TABLE, name, &mut |info| {
                    let read = |bytes| Bytes::read(bytes).unwrap_or(Bytes::EMPTY);
                    let element = Encoded {
                        set: id,
                        key: read(info.key),
                        key_end: info.key_end.map(read),
                        data: read(info.data),
                    };
                    if !missing.remove(&keyed.hash_one(element)) {
                        extra.insert((id, element.key), element);
                    }
                })
                .map_err(reading)?;
        }
        self.write_difference(&keys, |e| keyed.hash_one(e), missing, extra, report)
    }

    fn write_difference(
        &mut self,
        keys: &[Arc<plan::forward::PortKey>],
        fingerprint: impl Fn(Encoded) -> u64,
        mut missing: Fingerprints,
        mut extra: HashMap<(SetId, Bytes), Encoded>,
        report: &mut Report,
    ) -> Result<(), Error> {
        // An element whose value changes goes and comes in one batch; so it stays until its turn.
        let mut replaced = HashMap::new();
        if !extra.is_empty() {
            for key in keys {
                for element in &self.table.elements(key) {
                    let element = Encoded::new(element);
                    if missing.contains(&fingerprint(element))
                        && let Some(old) = extra.remove(&(element.set, element.key))
                    {
                        replaced.insert((element.set, element.key), old);
                    }
                }
            }
        }
        // Fronts first: none may lead to slots that are gone.
        let mut stale: Vec<_> = extra.into_values().collect();
        stale.sort_unstable_by_key(|element| element.set);
        while !stale.is_empty() {
            let rest = stale.len().saturating_sub(BATCH_ELEMENTS);
            let work = Work {
                group: 0,
                owner: None,
                delete: stale.split_off(rest),
                add: Vec::new(),
            };
            self.write_without_culprits(&mut vec![work], report)?;
        }
        let mut works: Vec<Work> = Vec::new();
        let mut size = 0;
        for key in keys {
            let mut work = Work {
                group: 0,
                owner: Some(Arc::clone(key)),
                delete: Vec::new(),
                add: Vec::new(),
            };
            for element in &self.table.elements(key) {
                let element = Encoded::new(element);
                if missing.remove(&fingerprint(element)) {
                    work.delete
                        .extend(replaced.remove(&(element.set, element.key)));
                    work.add.push(element);
                }
            }
            if work.len() == 0 {
                continue;
            }
            size += work.len();
            works.push(work);
            if size >= BATCH_ELEMENTS {
                self.write_without_culprits(&mut works, report)?;
                size = 0;
            }
        }
        self.write_without_culprits(&mut works, report)
    }
}
