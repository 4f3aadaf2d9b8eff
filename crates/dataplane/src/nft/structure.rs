//! The table itself, its sets, chains and rules: probed, compared, replaced.

use std::collections::BTreeSet;

use linux::nft::{self, Batch, Data, Element, Refused, TABLE_OWNER, TABLE_PERSIST};

use super::error::{ENOENT, EPERM, errno, is_missing, reading};
use super::{Error, Nft, Report, TABLE};

/// The table that a probe pretends to make.
const PROBE: &str = "corten-probe";

/// What stands in the kernel.
pub(super) enum Found {
    /// No table.
    Nothing,
    /// A table that has these of our sets.
    Table {
        /// Its flags.
        flags: u32,
        /// Names of all sets.
        sets: BTreeSet<String>,
        /// The rules are ours, all of them.
        rules_right: bool,
    },
}

/// Refuses kernels below the floor.
pub(super) fn check_kernel() -> Result<(), Error> {
    let found = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match release(&found) {
        Some(version) if version < (5, 13) => Err(Error::Kernel {
            found: found.trim().to_owned(),
        }),
        // A release that cannot be read is left to the probe.
        _ => Ok(()),
    }
}

fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

impl Nft {
    /// Asks the kernel whether it could load everything, without loading it, and whether a table
    /// can be owned and stay: without both flags (kernel 6.9) it is made without owner, since an
    /// owned table that does not stay would end with the process.
    pub(super) fn probe(&mut self) -> Result<(), Error> {
        let mut batch = Batch::new(PROBE);
        batch.add_table(TABLE_OWNER | TABLE_PERSIST);
        if self.socket.check(batch).is_ok() {
            self.flags = TABLE_OWNER | TABLE_PERSIST;
        }
        let mut batch = Batch::new(PROBE);
        let labels = self.build(&mut batch, 0, &BTreeSet::new());
        let Err(error) = self.socket.check(batch) else {
            return Ok(());
        };
        if errno(&error) == Some(EPERM) {
            return Err(Error::Denied);
        }
        if is_missing(&error, labels.len()) {
            return Err(Error::Missing { source: error });
        }
        let nft::Error::Refused(refused) = &error else {
            return Err(Error::Netlink {
                action: "probe",
                source: error,
            });
        };
        let (what, needs) = self.blame(&labels, refused);
        Err(Error::Unsupported {
            what,
            needs,
            source: error,
        })
    }

    /// Names what the first refused message was, and the expressions in refused rules that occur
    /// in no accepted one.
    fn blame(&self, labels: &[String], refused: &[Refused]) -> (String, String) {
        let label = |seq: u32| (seq as usize).checked_sub(1).and_then(|at| labels.get(at));
        let what = refused.first().and_then(|r| label(r.seq));
        let bad: BTreeSet<&String> = refused.iter().filter_map(|r| label(r.seq)).collect();
        let (mut suspect, mut known) = (BTreeSet::new(), BTreeSet::new());
        for (number, rule) in self.rules.rules.iter().enumerate() {
            let names = rule.exprs.iter().map(nft::Expr::kernel_name);
            if bad.contains(&rule_label(number, &rule.chain)) {
                suspect.extend(names);
            } else {
                known.extend(names);
            }
        }
        let options: Vec<_> = suspect
            .difference(&known)
            .map(|name| option(name))
            .collect();
        let needs = if options.is_empty() {
            "CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT and CONFIG_NF_CONNTRACK".to_owned()
        } else {
            options.join(", ")
        };
        (what.cloned().unwrap_or_default(), needs)
    }

    /// Looks for the table and makes it ours, if it is an owned one whose owner has ended; says
    /// its flags. A table made without owner stays as it is.
    fn claim(&mut self) -> Result<Option<u32>, Error> {
        let tables = self.socket.tables().map_err(reading)?;
        let Some(table) = tables.into_iter().find(|table| table.name == TABLE) else {
            return Ok(None);
        };
        match table.owner {
            Some(port) if port != self.socket.port().map_err(reading)? => {
                return Err(Error::Owned {
                    table: TABLE.to_owned(),
                    port,
                });
            }
            // The kernel takes the owner flag away with the owner.
            None if table.flags & TABLE_PERSIST != 0 => {
                let mut batch = Batch::new(TABLE);
                batch.add_table(TABLE_OWNER | TABLE_PERSIST);
                let claimed = self.socket.commit(batch);
                claimed.map_err(|source| Error::Structure {
                    action: "claim",
                    table: TABLE.to_owned(),
                    source,
                })?;
                return Ok(Some(TABLE_OWNER | TABLE_PERSIST));
            }
            _ => {}
        }
        Ok(Some(table.flags))
    }

    /// Reads what there is of the table.
    pub(super) fn find(&mut self) -> Result<Found, Error> {
        let Some(flags) = self.claim()? else {
            return Ok(Found::Nothing);
        };
        let sets: BTreeSet<_> = self
            .socket
            .sets(TABLE)
            .map_err(reading)?
            .into_iter()
            .collect();
        let rules_right = self.rules_right(&sets)?;
        Ok(Found::Table {
            flags,
            sets,
            rules_right,
        })
    }

    /// Chains, rules and constant maps are there as they should be.
    fn rules_right(&mut self, sets: &BTreeSet<String>) -> Result<bool, Error> {
        let mut chains: Vec<_> = self
            .socket
            .chains(TABLE)
            .map_err(reading)?
            .into_iter()
            .map(|chain| (chain.name, chain.hook))
            .collect();
        let mut expected: Vec<_> = self
            .rules
            .chains
            .iter()
            .map(|chain| {
                let hook = chain
                    .base
                    .map(|(_, hook, priority)| (hook as u32, priority));
                (chain.name.clone(), hook)
            })
            .collect();
        chains.sort_unstable();
        expected.sort_unstable();
        if chains != expected {
            return Ok(false);
        }
        let mut rules: Vec<_> = self
            .socket
            .rules(TABLE)
            .map_err(reading)?
            .into_iter()
            .map(|rule| (rule.chain, rule.mark))
            .collect();
        let mut expected: Vec<_> = self
            .rules
            .rules
            .iter()
            .map(|rule| (rule.chain.clone(), rule.mark.clone()))
            .collect();
        // Stable: the order within a chain counts.
        rules.sort_by(|a, b| a.0.cmp(&b.0));
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        if rules != expected {
            return Ok(false);
        }
        let maps: Vec<_> = self
            .rules
            .maps
            .iter()
            .map(|map| (map.spec.name.clone(), map.elements.len()))
            .collect();
        for (name, length) in maps {
            let mut found = 0;
            if sets.contains(&name) {
                self.socket
                    .elements(TABLE, &name, &mut |_| found += 1)
                    .map_err(reading)?;
            }
            if found != length {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes table, sets, chains and rules right in one batch; sets of the right schema keep
    /// their elements. Says which sets were there.
    pub(super) fn make_structure(
        &mut self,
        report: &mut Report,
    ) -> Result<BTreeSet<String>, Error> {
        let (flags, sets, rules_right) = match self.find()? {
            Found::Nothing => (self.flags, None, false),
            Found::Table {
                flags,
                sets,
                rules_right,
            } => (flags, Some(sets), rules_right),
        };
        let ours: BTreeSet<&str> = self.sets.iter().map(|set| set.name.as_str()).collect();
        self.seen.owned = flags & TABLE_OWNER != 0;
        if let Some(sets) = &sets
            && self.is_right(sets, rules_right)
        {
            return Ok(sets.clone());
        }
        let mut batch = Batch::new(TABLE);
        let mut kept = BTreeSet::new();
        if let Some(sets) = sets {
            let (keep, gone): (BTreeSet<_>, BTreeSet<_>) = sets
                .into_iter()
                .partition(|name| ours.contains(name.as_str()));
            batch.add_table(flags);
            batch.delete_rules();
            for name in &gone {
                // Elements hold on to chains until they go.
                batch.flush_set(name);
                batch.delete_set(name);
            }
            for chain in self.socket.chains(TABLE).map_err(reading)? {
                batch.delete_chain(&chain.name);
            }
            kept = keep;
        }
        self.build(&mut batch, flags, &kept);
        self.socket
            .commit(batch)
            .map_err(|source| match errno(&source) {
                Some(EPERM) => Error::Denied,
                _ => Error::Structure {
                    action: "build",
                    table: TABLE.to_owned(),
                    source,
                },
            })?;
        report.batches += 1;
        report.rules_replaced = true;
        Ok(kept)
    }

    /// Everything except the sets in `kept`; returns what each message is.
    fn build(&self, batch: &mut Batch, flags: u32, kept: &BTreeSet<String>) -> Vec<String> {
        let mut labels = vec!["table".to_owned()];
        batch.add_table(flags);
        for set in self.sets.iter().filter(|set| !kept.contains(&set.name)) {
            batch.add_set(set);
            labels.push(format!("set {}", set.name));
        }
        for chain in &self.rules.chains {
            batch.add_chain(chain);
            labels.push(format!("chain {}", chain.name));
        }
        for map in &self.rules.maps {
            batch.add_set(&map.spec);
            labels.push(format!("map {}", map.spec.name));
            let elements = map.elements.iter().map(|(key, verdict)| Element {
                key,
                key_end: None,
                data: Data::Verdict(verdict),
            });
            let numbers = batch.add_elements(&map.spec.name, elements);
            labels.extend(numbers.map(|_| format!("elements of {}", map.spec.name)));
        }
        for (number, rule) in self.rules.rules.iter().enumerate() {
            batch.add_rule(&rule.chain, &rule.exprs, &rule.mark);
            labels.push(rule_label(number, &rule.chain));
        }
        labels
    }

    /// Deletes the table; that it is absent is no error.
    pub(super) fn delete(&mut self) -> Result<(), Error> {
        if self.claim()?.is_none() {
            return Ok(());
        }
        let mut batch = Batch::new(TABLE);
        batch.delete_table();
        match self.socket.commit(batch) {
            Err(error) if errno(&error) != Some(ENOENT) => Err(Error::Structure {
                action: "delete",
                table: TABLE.to_owned(),
                source: error,
            }),
            _ => Ok(()),
        }
    }
}

fn rule_label(number: usize, chain: &str) -> String {
    format!("rule {number}, chain {chain}")
}

/// The kernel option that brings an expression.
fn option(expression: &str) -> &'static str {
    match expression {
        "ct" => "CONFIG_NFT_CT",
        "dynset" => "CONFIG_NF_TABLES with sets that packets change",
        "hash" => "CONFIG_NFT_HASH",
        "fib" => "CONFIG_NFT_FIB_INET",
        "nat" => "CONFIG_NFT_NAT",
        "masq" => "CONFIG_NFT_MASQ",
        "reject" => "CONFIG_NFT_REJECT_INET",
        _ => "CONFIG_NF_TABLES",
    }
}
