//! Batches of elements, and who is to blame when one is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use linux::nft::{self, Batch};
use plan::forward::{Delta, PortKey};

use super::error::writing;
use super::layout::Encoded;
use super::{Error, Nft, Report, TABLE};

/// A batch is sent when it has this many elements: about 2 ms of the kernel's time.
pub const BATCH_ELEMENTS: usize = 1024;

/// Changes that belong together, and whose they are.
#[derive(Clone, Debug)]
pub(super) struct Work {
    /// Works of one group follow each other: what one loses, another may get.
    pub(super) group: usize,
    /// `None`: elements that nobody wants.
    pub(super) owner: Option<Arc<PortKey>>,
    /// In the order of sets; deleted from the last to the first.
    pub(super) delete: Vec<Encoded>,
    /// In the order of sets.
    pub(super) add: Vec<Encoded>,
}

impl Work {
    pub(super) fn of(group: usize, delta: &Delta) -> Self {
        Self {
            group,
            owner: Some(Arc::clone(&delta.key)),
            delete: delta.removed.iter().map(Encoded::new).collect(),
            add: delta.added.iter().map(Encoded::new).collect(),
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.delete.len() + self.add.len()
    }

    fn delete_from(&self, batch: &mut Batch, sets: &super::Sets) {
        let mut rest = self.delete.as_slice();
        while let Some(last) = rest.last() {
            let start = rest.partition_point(|element| element.set < last.set);
            let (before, run) = rest.split_at(start);
            let elements = run.iter().map(|element| element.element(false));
            batch.delete_elements(sets.name(last.set), elements);
            rest = before;
        }
    }

    fn add_to(&self, batch: &mut Batch, sets: &super::Sets) {
        for run in self.add.chunk_by(|a, b| a.set == b.set) {
            if let Some(first) = run.first() {
                let elements = run.iter().map(|element| element.element(true));
                batch.add_elements(sets.name(first.set), elements);
            }
        }
    }
}

impl Nft {
    /// Writes `works` in one batch, each group's deletions first.
    pub(super) fn write(&mut self, works: &[Work], report: &mut Report) -> Result<(), Failure> {
        let mut batch = Batch::new(TABLE);
        // The first message of each work's part; messages up to the next one are its own.
        let mut owners: BTreeMap<u32, usize> = BTreeMap::new();
        let mut start = 0;
        for group in works.chunk_by(|a, b| a.group == b.group) {
            for (number, work) in group.iter().enumerate() {
                owners.insert(batch.next_number(), start + number);
                work.delete_from(&mut batch, &self.sets);
            }
            for (number, work) in group.iter().enumerate() {
                owners.insert(batch.next_number(), start + number);
                work.add_to(&mut batch, &self.sets);
            }
            start += group.len();
        }
        if batch.is_empty() {
            return Ok(());
        }
        match self.socket.commit(batch) {
            Ok(()) => {
                report.batches += 1;
                report.removed += works.iter().map(|work| work.delete.len()).sum::<usize>();
                report.added += works.iter().map(|work| work.add.len()).sum::<usize>();
                Ok(())
            }
            Err(nft::Error::Refused(refused)) => {
                let mut culprits = BTreeMap::new();
                for error in &refused {
                    if let Some((_, number)) = owners.range(..=error.seq).next_back() {
                        culprits.entry(*number).or_insert_with(|| error.to_string());
                    }
                }
                Err(Failure {
                    culprits,
                    error: writing(nft::Error::Refused(refused)),
                })
            }
            Err(error) => Err(Failure {
                culprits: BTreeMap::new(),
                error: writing(error),
            }),
        }
    }

    /// Writes `works`, leaving out those that the kernel refuses by name; they are remembered in
    /// `denied`.
    pub(super) fn write_without_culprits(
        &mut self,
        works: &mut Vec<Work>,
        report: &mut Report,
    ) -> Result<(), Error> {
        while let Err(failure) = self.write(works, report) {
            if failure.culprits.is_empty() {
                return Err(failure.error);
            }
            // From the last, so that the numbers of the others stay.
            for (number, reason) in failure.culprits.into_iter().rev() {
                match works.remove(number).owner {
                    Some(key) => {
                        tracing::warn!(service_port = %key, reason, "nf_tables refuses the elements");
                        self.denied.insert(PortKey::clone(&key), reason);
                    }
                    None => return Err(failure.error),
                }
            }
        }
        works.clear();
        Ok(())
    }
}

/// A batch that took no effect.
#[derive(Debug)]
pub(super) struct Failure {
    /// Numbers of the works whose messages were refused, with the kernel's words.
    culprits: BTreeMap<usize, String>,
    error: Error,
}
