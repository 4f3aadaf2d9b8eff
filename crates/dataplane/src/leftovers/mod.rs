//! What kube-proxy has left in the kernel: found, and removed on request.
//!
//! | mode | what | how it is known |
//! |---|---|---|
//! | nftables | tables `ip kube-proxy`, `ip6 kube-proxy` | their names |
//! | iptables | chains in the tables of iptables-nft, and the rules that lead to them | their names ([`names`]) |
//! | IPVS | virtual servers | where they are and lead to ([`servers`]) |
//! | | interface `kube-ipvs0`, sets of ipset | their names |
//!
//! That is what its own `--cleanup` removes, but for virtual servers of others. The kubelet's chains
//! stay. Tables and chains go in one transaction: all or nothing. What is found is removed as it was
//! found; should others write meanwhile, it is looked for anew.
//!
//! `iptables-legacy` has tables of its own in the kernel, which are only looked at.

mod chains;
mod error;
mod names;
mod servers;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use linux::ipset::Sets;
use linux::iptables;
use linux::ipvs::{Request, ServerKey, Socket as Ipvs};
use linux::netlink::Netlink;
use linux::nft::{Batch, Family, Socket};
use tokio::runtime::Runtime;

use chains::{Doomed, doomed};
pub use error::Error;
use error::{rules, servers as refused};

use crate::nft::{EINTR, ENOENT, errno};

/// `EBUSY`: something leads to a chain by now.
const EBUSY: i32 = 16;
const FAMILIES: [(Family, &str); 2] = [(Family::Ip, "ip"), (Family::Ip6, "ip6")];
/// Others' changes may come between a look and what follows from it, so many times.
const ATTEMPTS: u32 = 8;

/// What goes of a table of iptables'.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Iptables {
    family: (Family, &'static str),
    table: &'static str,
    doomed: Doomed,
}

/// What kube-proxy has left in the calling thread's network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    tables: Vec<(Family, &'static str)>,
    iptables: Vec<Iptables>,
    servers: Vec<ServerKey>,
    foreign_servers: Vec<ServerKey>,
    device: bool,
    sets: Vec<String>,
    /// Chains in tables of `iptables-legacy`, by program and table.
    legacy: Vec<(&'static str, String, usize)>,
}

impl Leftovers {
    /// Looks for them. Blocks; not within a runtime.
    pub fn find() -> Result<Self, Error> {
        let mut found = Self::default();
        for family in FAMILIES {
            found.find_rules(family)?;
        }
        found.find_ipvs()?;
        // Asking for them would load the module.
        if Path::new("/sys/module/ip_set").exists() {
            let names = Sets::open().and_then(|mut sets| sets.names());
            found.sets = names.map_err(rules("list"))?;
            found.sets.retain(|name| names::is_set(name));
        }
        for (ipv6, program) in [(false, "iptables-legacy"), (true, "ip6tables-legacy")] {
            let chains = iptables::chains(ipv6)?.into_iter();
            let chains: Vec<_> = chains.filter(|(_, chain)| names::is_chain(chain)).collect();
            for table in names::IPTABLES {
                let count = chains.iter().filter(|(of, _)| of == table).count();
                if count > 0 {
                    found.legacy.push((program, table.to_owned(), count));
                }
            }
        }
        Ok(found)
    }

    /// There is nothing of kube-proxy's: nothing to remove, and nothing in tables that are out of
    /// reach.
    pub fn is_empty(&self) -> bool {
        self.is_removable_empty() && self.legacy.is_empty()
    }

    /// There is nothing that [`Leftovers::remove`] would remove.
    pub fn is_removable_empty(&self) -> bool {
        self.tables.is_empty()
            && self.iptables.iter().all(|it| it.doomed.is_nothing())
            && self.servers.is_empty()
            && !self.device
            && self.sets.is_empty()
    }

    /// What [`Leftovers::remove`] removes, for people, a line each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (_, family) in &self.tables {
            lines.push(format!("nftables: table {family} {}", names::TABLE));
        }
        for it in self.iptables.iter().filter(|it| !it.doomed.is_nothing()) {
            let (family, table) = (it.family.1, it.table);
            let chains = count(it.doomed.chains.len(), "chain");
            let rules = count(it.doomed.rules.len(), "rule");
            lines.push(format!(
                "iptables: {chains} of table {family} {table}, {rules} that led there"
            ));
        }
        if !self.servers.is_empty() {
            let servers = count(self.servers.len(), "virtual server");
            lines.push(format!("IPVS: {servers}"));
        }
        if self.device {
            lines.push(format!("IPVS: interface {}", names::DEVICE));
        }
        if !self.sets.is_empty() {
            lines.push(format!("ipset: {}", count(self.sets.len(), "set")));
        }
        lines
    }

    /// What stays though it looks like kube-proxy's, and why, a line each.
    pub fn kept(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for it in &self.iptables {
            for (chain, why) in &it.doomed.kept {
                let (family, table) = (it.family.1, it.table);
                lines.push(format!("chain {chain} of table {family} {table}: {why}"));
            }
        }
        for server in &self.foreign_servers {
            lines.push(format!(
                "virtual server {server}: it leads elsewhere than kube-proxy's"
            ));
        }
        lines
    }

    /// What is out of reach, with the remedy, a line each.
    pub fn out_of_reach(&self) -> Vec<String> {
        let line = |(program, table, chains): &(&str, String, usize)| {
            let chains = count(*chains, "chain");
            format!(
                "{chains} of kube-proxy's in table {table} of {program}, which only that program can \
                 remove; remedy, as root on this node: {program}-save -c -t {table} | \
                 grep -vE '{}' | {program}-restore -c",
                names::pattern()
            )
        };
        self.legacy.iter().map(line).collect()
    }

    /// Removes them. True: nothing of what was found is there any more. False: others changed the
    /// rules meanwhile, and nothing was removed of these; look again.
    pub fn remove(&self) -> Result<bool, Error> {
        match self.remove_rules() {
            Ok(()) => {}
            Err(Error::Rules { source, .. }) if matches!(errno(&source), Some(ENOENT | EBUSY)) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        self.remove_ipvs()?;
        if !self.sets.is_empty() {
            let mut sets = Sets::open().map_err(rules("open a socket for"))?;
            let left = sets.destroy(&self.sets).map_err(rules("remove"))?;
            for (name, error) in self.sets.iter().zip(left) {
                stays(|| format!("set {name} of ipset"), error)?;
            }
        }
        Ok(true)
    }

    /// Finds and removes, until both see the same rules; what was removed.
    pub fn clean() -> Result<Self, Error> {
        for _ in 0..ATTEMPTS {
            let found = Self::find()?;
            if found.remove()? {
                return Ok(found);
            }
        }
        Err(Error::Busy { attempts: ATTEMPTS })
    }

    fn find_rules(&mut self, family: (Family, &'static str)) -> Result<(), Error> {
        let mut socket = Socket::open_for(family.0).map_err(rules("open a socket for"))?;
        for attempt in 1.. {
            let found = find_rules(&mut socket, family);
            match found {
                // Somebody writes right now.
                Err(error) if errno(&error) == Some(EINTR) && attempt < ATTEMPTS => {}
                Err(error) => return Err(rules("list")(error)),
                Ok((table, iptables)) => {
                    self.tables.extend(table.then_some(family));
                    self.iptables.extend(iptables);
                    break;
                }
            }
        }
        Ok(())
    }

    fn remove_rules(&self) -> Result<(), Error> {
        // The name is given with each turn.
        let mut batch = Batch::of(Family::Ip, names::TABLE);
        for it in &self.iptables {
            batch.turn_to(it.family.0, it.table);
            for (chain, handle) in &it.doomed.rules {
                batch.delete_rule(chain, *handle);
            }
            // They lead to each other.
            for chain in &it.doomed.chains {
                batch.flush_chain(chain);
            }
            for chain in &it.doomed.chains {
                batch.delete_chain(chain);
            }
        }
        for (family, _) in &self.tables {
            batch.turn_to(*family, names::TABLE);
            batch.delete_table();
        }
        let mut socket = Socket::open().map_err(rules("open a socket for"))?;
        socket.commit(batch).map_err(rules("remove"))
    }

    fn find_ipvs(&mut self) -> Result<(), Error> {
        let addresses = Links::open()?.addresses()?;
        self.device = addresses.is_some();
        // Asking for it would load it.
        if !Path::new("/proc/thread-self/net/ip_vs").exists() {
            return Ok(());
        }
        let mut ipvs = Ipvs::open().map_err(refused("open a socket for"))?;
        let mut found = Vec::new();
        for server in ipvs.servers().map_err(refused("list"))? {
            let to = ipvs.destinations(&server.key).map_err(refused("list"))?;
            found.push((server, to));
        }
        (self.servers, self.foreign_servers) =
            servers::part(&found, &addresses.unwrap_or_default());
        Ok(())
    }

    fn remove_ipvs(&self) -> Result<(), Error> {
        if !self.servers.is_empty() {
            let mut ipvs = Ipvs::open().map_err(refused("open a socket for"))?;
            let requests = self.servers.iter().copied().map(Request::DeleteServer);
            let requests: Vec<Request> = requests.collect();
            let left = ipvs.change(&requests).map_err(refused("remove"))?;
            for (server, error) in self.servers.iter().zip(left) {
                // Who removed it before us did right.
                let error = error.filter(|error| error.raw_os_error() != Some(ESRCH));
                stays(|| format!("virtual server {server}"), error)?;
            }
        }
        // Last: by its addresses the servers are known.
        match self.device {
            true => Links::open()?.remove(),
            false => Ok(()),
        }
    }
}

/// `ESRCH`: IPVS knows no such server.
const ESRCH: i32 = 3;

impl Doomed {
    fn is_nothing(&self) -> bool {
        self.chains.is_empty() && self.rules.is_empty()
    }
}

fn stays(what: impl FnOnce() -> String, why: Option<std::io::Error>) -> Result<(), Error> {
    match why {
        Some(source) => Err(Error::Stays {
            what: what(),
            source,
        }),
        None => Ok(()),
    }
}

/// Whether the family has kube-proxy's own table, and what it has in tables of iptables.
fn find_rules(
    socket: &mut Socket,
    family: (Family, &'static str),
) -> Result<(bool, Vec<Iptables>), linux::nft::Error> {
    let tables = socket.tables()?;
    let has = |name: &str| tables.iter().any(|table| table.name == name);
    let mut found = Vec::new();
    for table in names::IPTABLES.into_iter().filter(|table| has(table)) {
        let doomed = doomed(&socket.chains(table)?, &socket.rules(table)?);
        if doomed != Doomed::default() {
            found.push(Iptables {
                family,
                table,
                doomed,
            });
        }
    }
    Ok((has(names::TABLE), found))
}

/// `3 rules`.
fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Interfaces, by calls that block.
struct Links {
    runtime: Runtime,
    netlink: Netlink,
}

impl Links {
    fn open() -> Result<Self, Error> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_io().build().map_err(Error::Runtime)?;
        let netlink = runtime.block_on(async { Netlink::open() })?;
        Ok(Self { runtime, netlink })
    }

    /// The addresses of kube-proxy's interface, if it is there.
    fn addresses(&self) -> Result<Option<BTreeSet<IpAddr>>, Error> {
        let interfaces = self.runtime.block_on(self.netlink.interfaces())?;
        let found = interfaces.into_iter().find(|it| it.name == names::DEVICE);
        Ok(found.map(|it| it.addresses.into_iter().map(|(ip, _)| ip).collect()))
    }

    fn remove(&self) -> Result<(), Error> {
        let removed = self.runtime.block_on(async {
            let index = self.netlink.index_of(names::DEVICE).await?;
            self.netlink.del_link(index).await
        });
        match removed {
            Err(error) if !error.is_missing() => Err(error.into()),
            _ => Ok(()),
        }
    }
}
