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
                self.seen.wrote();
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use linux::namespace::{Sandbox, in_sandbox};
    use plan::forward::{Element, FrontendKind, ServicePort};
    use plan::name::ServiceKey;
    use plan::net::{Family, Protocol};

    use super::super::layout::{Bytes, Kind, SetId};
    use super::*;

    fn work(name: &str, element: Encoded) -> Work {
        let key = PortKey {
            service: ServiceKey::new("default", name),
            port: "p".into(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        };
        Work {
            group: 0,
            owner: Some(Arc::new(key)),
            delete: Vec::new(),
            add: vec![element],
        }
    }

    /// What the kernel refuses is named and left out; the rest of the batch is applied.
    #[test]
    fn a_culprit_is_named_and_the_others_are_written() {
        if !in_sandbox() {
            let test = "nft::write::tests::a_culprit_is_named_and_the_others_are_written";
            let sandbox = Sandbox::current_exe()
                .expect("path")
                .arg(test)
                .arg("--exact");
            match sandbox.spawn() {
                Ok(mut child) => {
                    let status = child.wait_timeout(Duration::from_secs(60)).expect("wait");
                    assert!(status.is_some_and(|s| s.success()), "{status:?}");
                }
                Err(e) if e.is_denied() && std::env::var_os("CI").is_none() => {
                    println!("skipped: {e}");
                }
                Err(e) => panic!("{e}"),
            }
            return;
        }
        let mut nft = Nft::open().expect("open");
        nft.adopt(&BTreeMap::new()).expect("adopt");
        let good = |host| Encoded::new(&Element::ClusterIp([10, 0, 0, host].into()));
        let bad = Encoded {
            set: SetId(Kind::ClusterIp, Family::V4),
            key: Bytes::read(&[1, 2, 3, 4, 5, 6, 7, 8]).expect("short"),
            key_end: None,
            data: Bytes::EMPTY,
        };
        let mut works = vec![
            work("a", good(1)),
            work("b", bad),
            work("c", good(3)),
            work("d", bad),
        ];
        let mut report = Report::default();
        nft.write_without_culprits(&mut works, &mut report)
            .expect("the others");
        assert_eq!((report.batches, report.added), (1, 2));
        let denied: Vec<_> = nft
            .denied
            .iter()
            .map(|(k, v)| format!("{k}: {v}"))
            .collect();
        assert_eq!(denied.len(), 2, "{denied:?}");
        assert!(
            denied[0].starts_with("default/b:p/TCP/IPv4: Invalid argument"),
            "{denied:?}"
        );
        // Whoever was refused is read and compared again with the next change, of whatever port.
        let front = plan::forward::Frontend {
            address: [10, 0, 0, 101].into(),
            port: 80,
            kind: FrontendKind::LoadBalancer,
            policy: plan::world::Policy::Cluster,
        };
        let endpoint = SocketAddr::from(([10, 1, 0, 2], 8080));
        let port = ServicePort {
            frontends: vec![front],
            cluster: vec![endpoint],
            local: vec![endpoint],
            usable_anywhere: true,
            ..ServicePort::default()
        };
        let key = PortKey::clone(work("e", good(1)).owner.as_ref().expect("owner"));
        let report = nft.apply(&[(key, Some(port))]).expect("apply");
        assert!(report.refused.is_empty(), "{report:?}");
        assert_eq!(report.removed, 2, "what nobody wants is gone");
        assert_eq!(report.added, 3);
    }
}
