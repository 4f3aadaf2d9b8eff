//! The nftables back end: brings service ports to the table `inet corten`.
//!
//! The rules are constant ([`rules`]); a change of a Service changes elements of a few sets
//! ([`layout`]), one message per Service and set in one batch, so that an error names the culprit.
//! One `inet` table holds both families: its hooks and the choice of class are shared, only keys
//! differ, and one owner and one generation cover it all.
//!
//! [`Nft`] owns the netlink socket and what it believes to be in the kernel
//! ([`plan::forward::Table`]). All calls block; run it on a thread of its own, made in the network
//! namespace that it is for. A batch holds at most [`BATCH_ELEMENTS`] elements (about 2 ms in the
//! kernel) and may stop there: whoever is killed between two batches, or between any two
//! instructions, leaves a table that [`Nft::adopt`] mends. A caller with urgent work passes
//! changes to [`Nft::apply`] in slices and looks at its queue in between.
//!
//! After a failed batch nothing is assumed: the kernel is read again and compared
//! ([`Nft::check`]). That also repairs a table that somebody flushed or changed; [`Nft::look`] says
//! when it is due.
//!
//! Where the kernel can (6.9), the table belongs to the socket and persists: nobody else can change
//! or flush it while the agent runs, it outlives the process, and the next one claims it.
//!
//! Whom session affinity has led where stands in maps that packets fill; they are kept as they are.
//!
//! Conntrack entries are not touched here.

mod adopt;
mod error;
mod layout;
mod look;
pub mod reply;
mod rules;
mod structure;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use linux::nft::Socket;
use plan::forward::{Locality, PortKey, ServicePort, Table};

pub use error::Error;
pub(crate) use error::{EINTR, ENOENT, EPERM, errno};
use layout::Sets;
pub use look::Look;
use look::Seen;
use rules::Rules;
pub use write::BATCH_ELEMENTS;
use write::Work;

/// The name of the table in family `inet`.
pub const TABLE: &str = "corten";

/// Kubernetes' default timeout of session affinity, in seconds.
const USUAL_TIMEOUT: u32 = 10_800;

/// What a call did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Elements written.
    pub added: usize,
    /// Elements deleted.
    pub removed: usize,
    /// Transactions.
    pub batches: usize,
    /// The rules or a set were missing or of another version, and were replaced.
    pub rules_replaced: bool,
    /// Service ports that are not, or not wholly, forwarded, with the reason: all there are now.
    pub refused: Vec<(PortKey, String)>,
}

impl Report {
    /// Nothing was written.
    pub const fn is_zero(&self) -> bool {
        self.batches == 0 && self.added == 0 && self.removed == 0
    }
}

/// The executor for one network namespace.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
    sets: Sets,
    rules: Rules,
    /// Timeouts of session affinity, in seconds, that there are rules for.
    timeouts: BTreeSet<u32>,
    /// What sources change.
    locality: Locality,
    /// Virtual servers balance in the rules' place.
    with_ipvs: bool,
    table: Table,
    /// What a new table is made with.
    flags: u32,
    /// Ports whose elements the kernel refused, with its words.
    denied: BTreeMap<PortKey, String>,
    /// The kernel may hold something else than `table` says.
    doubtful: bool,
    seen: Seen,
}

impl Nft {
    /// Opens the executor in the calling thread's network namespace. Changes nothing: the kernel
    /// is asked whether it could load the rule set.
    pub fn open() -> Result<Self, Error> {
        Self::open_for(false)
    }

    /// The same for the rules beside virtual servers: the table is the same one, so that a change
    /// of the back end is a change of rules.
    pub(crate) fn open_for_ipvs() -> Result<Self, Error> {
        Self::open_for(true)
    }

    fn open_for(with_ipvs: bool) -> Result<Self, Error> {
        structure::check_kernel()?;
        let socket = Socket::open().map_err(|source| match errno(&source) {
            Some(EPERM) => Error::Denied,
            _ if error::is_missing(&source, 0) => Error::Missing { source },
            _ => Error::Netlink {
                action: "open a socket to",
                source,
            },
        })?;
        let sets = Sets::new();
        // With the usual timeout, so that the kernel is asked whether it can keep clients at all.
        let timeouts = BTreeSet::from([USUAL_TIMEOUT]);
        let locality = Locality::default();
        let rules = Rules::new(&sets, &timeouts, &locality, with_ipvs);
        let mut nft = Self {
            socket,
            sets,
            rules,
            timeouts,
            locality,
            with_ipvs,
            table: Table::default(),
            flags: 0,
            denied: BTreeMap::new(),
            doubtful: true,
            seen: Seen::default(),
        };
        nft.probe()?;
        Ok(nft)
    }

    /// What sources change. New rules are in force with the next call of [`Nft::adopt`],
    /// [`Nft::apply`] or [`Nft::check`].
    pub fn set_locality(&mut self, locality: Locality) {
        if self.locality != locality {
            self.locality = locality;
            self.rules = self.new_rules();
            self.doubtful = true;
        }
    }

    /// Makes the kernel forward `desired` and nothing else: reads what is there, keeps what is
    /// right, mends the rest. Never flushes first.
    pub fn adopt(&mut self, desired: &BTreeMap<PortKey, ServicePort>) -> Result<Report, Error> {
        let mut table = match self.with_ipvs {
            true => Table::for_ipvs(),
            false => Table::default(),
        };
        self.timeouts = BTreeSet::from([USUAL_TIMEOUT]);
        self.rules = self.new_rules();
        for (key, port) in desired {
            self.knows_timeout(port);
            table.set(key, Some(port.clone()));
        }
        self.table = table;
        self.check()
    }

    /// Reads the kernel's state, compares it with what it should be, and mends what differs.
    pub fn check(&mut self) -> Result<Report, Error> {
        let mut report = Report::default();
        self.doubtful = true;
        self.denied.clear();
        self.mend(&mut report)?;
        self.doubtful = false;
        self.tell(&mut report);
        Ok(report)
    }

    /// Applies changes of service ports; `None` removes one.
    pub fn apply(&mut self, changes: &[(PortKey, Option<ServicePort>)]) -> Result<Report, Error> {
        let mut report = Report::default();
        let mut works: Vec<Work> = Vec::new();
        let mut size = 0;
        let mut changes = changes.iter().enumerate().peekable();
        while let Some((group, (key, port))) = changes.next() {
            let deltas = self.table.set(key, port.clone());
            // The comparison below replaces the rules.
            self.doubtful |= port.as_ref().is_some_and(|port| self.knows_timeout(port));
            if self.doubtful || !self.denied.is_empty() {
                // The comparison below writes them.
                self.doubtful = true;
                continue;
            }
            works.extend(deltas.iter().map(|delta| Work::of(group, delta)));
            size += deltas
                .iter()
                .map(|d| d.added.len() + d.removed.len())
                .sum::<usize>();
            if size >= BATCH_ELEMENTS || changes.peek().is_none() {
                // Ports that lose a front and those that win it stay in one batch.
                self.doubtful = self.write(&works, &mut report).is_err();
                works.clear();
                size = 0;
            }
        }
        if self.doubtful {
            let checked = self.check()?;
            report.added += checked.added;
            report.removed += checked.removed;
            report.batches += checked.batches;
            report.rules_replaced = checked.rules_replaced;
        }
        self.tell(&mut report);
        Ok(report)
    }

    /// Whether this network namespace has a table of an executor's.
    pub fn is_there() -> Result<bool, Error> {
        let tables = Socket::open().and_then(|mut socket| socket.tables());
        let tables = tables.map_err(error::reading)?;
        Ok(tables.iter().any(|table| table.name == TABLE))
    }

    /// Deletes what an executor of this network namespace has left; true when there was something.
    /// A kernel without nf_tables has nothing of it.
    pub fn clear() -> Result<bool, Error> {
        let left = Self::is_there().unwrap_or(false);
        if left {
            Self::open()?.remove()?;
        }
        Ok(left)
    }

    /// Deletes the table and all that is in it.
    pub fn remove(&mut self) -> Result<(), Error> {
        self.table = Table::default();
        self.doubtful = true;
        self.delete()
    }

    /// The connections to node ports on the loopback so far, as the kernel counts them: anew when
    /// the rules are replaced. `None`: there are no such node ports.
    pub fn loopback_connections(&mut self) -> Result<Option<u64>, Error> {
        if self.locality.loopback.is_off() {
            return Ok(None);
        }
        let counted = self.socket.counted(TABLE, rules::loopback::OUTPUT);
        counted.map(Some).map_err(error::reading)
    }

    /// The service ports that should be in force.
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// Has a rule for the port's session affinity from now on; true when it had none.
    fn knows_timeout(&mut self, port: &ServicePort) -> bool {
        let new = port
            .keep()
            .is_some_and(|timeout| self.timeouts.insert(timeout));
        if new {
            self.rules = self.new_rules();
        }
        new
    }

    fn new_rules(&self) -> Rules {
        Rules::new(&self.sets, &self.timeouts, &self.locality, self.with_ipvs)
    }

    fn tell(&self, report: &mut Report) {
        let lost = self
            .table
            .refused()
            .map(|(key, refusal)| (key.clone(), refusal.to_string()));
        let denied = self.denied.iter().map(|(key, why)| {
            let words = format!(
                "the kernel refuses it ({why}), and all other ports are forwarded; change or \
                 delete the Service: it is tried again with each change of any"
            );
            (key.clone(), words)
        });
        report.refused = lost.chain(denied).collect();
    }
}
