//! Frames for MAC addresses of the addresses' own: the kernel is made to take them for this host's
//! (docs/adr/0010).
//!
//! Two things per interface. Its hardware must let the frames in: the MAC address is added to the
//! device's unicast filter. And the kernel must not discard them as another station's: a rule that
//! sees a frame before all else does calls it this host's (`meta pkttype set host`), for the MAC
//! addresses in a set. Nothing else changes: the frames come in on the interface itself, so that
//! every rule, route and filter for it holds.
//!
//! The rules are in a table of their own, of family `netdev`, one for each agent, so that an agent
//! and its successor do not stand in each other's way. It outlives the process; the next agent
//! takes it away once it has announced everything itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use linux::netlink::{Netlink, NetlinkError};
use linux::nft::{
    self, Base, Batch, Data, Element, Expr, Family, Meta, Reg, Socket, TABLE_OWNER, TABLE_PERSIST,
};
use proto::ethernet::Mac;
use tokio::sync::{mpsc, oneshot};

use crate::cli::chain;

/// What the names of our tables begin with; the netlink port of their maker follows.
const PREFIX: &str = "corten-mac-";
/// Before the rules of others.
const PRIORITY: i32 = -500;
/// `PACKET_HOST`.
const HOST: u32 = 0;
/// Commands that may wait.
const QUEUE: usize = 16;
/// How often it is looked whether the table is there still, and what an earlier agent left.
const LOOK: Duration = Duration::from_secs(30);

/// Which MAC addresses to receive on one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stations {
    pub(super) name: String,
    pub(super) macs: BTreeSet<Mac>,
}

/// By the interface's index; interfaces without any are not in it.
pub(super) type Wanted = BTreeMap<u32, Stations>;

enum Command {
    /// Receive for these and no others; answered when it is so, or with what is wrong.
    Want(Wanted, oneshot::Sender<Result<(), String>>),
    /// Everything was wanted once: what earlier agents left goes.
    Settle,
    /// Take everything away.
    Remove(oneshot::Sender<()>),
}

/// A handle on the task.
#[derive(Clone, Debug)]
pub(super) struct Reception {
    commands: mpsc::Sender<Command>,
}

impl Reception {
    /// Receives for these MAC addresses and for no others. In an error's case for none of those
    /// that are new.
    pub(super) async fn want(&self, wanted: Wanted) -> Result<(), String> {
        let (done, brought) = oneshot::channel();
        let _ = self.commands.send(Command::Want(wanted, done)).await;
        brought.await.unwrap_or(Ok(()))
    }

    /// Everything has been wanted once.
    pub(super) async fn settle(&self) {
        let _ = self.commands.send(Command::Settle).await;
    }

    /// Takes away what any agent of this node has left: Corten is being removed.
    pub(super) async fn remove(&self) {
        let (done, removed) = oneshot::channel();
        let _ = self.commands.send(Command::Remove(done)).await;
        let _ = removed.await;
    }
}

/// The handle, and the task to run.
pub(super) fn start() -> (Reception, impl Future<Output = ()> + Send) {
    let (commands, inbox) = mpsc::channel(QUEUE);
    let task = Task {
        netlink: None,
        tables: None,
        wanted: Wanted::new(),
        stations: BTreeSet::new(),
        brought: false,
        used: false,
        settled: false,
    };
    (Reception { commands }, task.run(inbox))
}

/// Why frames cannot be received.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("cannot change the nftables table of family netdev")]
    Table(#[from] nft::Error),
    #[error("a thread ended")]
    Thread(#[from] tokio::task::JoinError),
}

struct Task {
    netlink: Option<Netlink>,
    tables: Option<Tables>,
    wanted: Wanted,
    /// What the devices' filters were opened for.
    stations: BTreeSet<(u32, Mac)>,
    /// The kernel has what is wanted.
    brought: bool,
    /// Something was wanted at some time.
    used: bool,
    settled: bool,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    None => return,
                    Some(Command::Want(wanted, done)) => {
                        let brought = self.want(wanted).await;
                        let _ = done.send(brought.map_err(|error| words(&error)));
                    }
                    Some(Command::Settle) => {
                        self.settled = true;
                        self.look().await;
                    }
                    Some(Command::Remove(done)) => {
                        self.remove().await;
                        let _ = done.send(());
                    }
                },
                _ = look.tick(), if self.used => self.look().await,
            }
        }
    }

    fn netlink(&mut self) -> Result<Netlink, NetlinkError> {
        if let Some(netlink) = &self.netlink {
            return Ok(netlink.clone());
        }
        Ok(self.netlink.insert(Netlink::open()?).clone())
    }

    /// The device's filter opens before the table, and closes after it.
    async fn want(&mut self, wanted: Wanted) -> Result<(), Error> {
        if self.brought && wanted == self.wanted || wanted.is_empty() && !self.used {
            return Ok(());
        }
        self.used = true;
        self.brought = false;
        let netlink = self.netlink()?;
        self.wanted.clone_from(&wanted);
        let new = pairs(&wanted);
        for (index, mac) in &new {
            if self.stations.contains(&(*index, *mac)) {
                continue;
            }
            match netlink.add_station(*index, mac.0).await {
                // An earlier agent's.
                Err(error) if !error.is_there() => return Err(error.into()),
                _ => self.stations.insert((*index, *mac)),
            };
        }
        self.with_tables(move |tables| tables.bring(&wanted))
            .await?;
        self.brought = true;
        let gone: Vec<_> = self.stations.difference(&new).copied().collect();
        self.close(gone).await
    }

    async fn close(&mut self, gone: Vec<(u32, Mac)>) -> Result<(), Error> {
        let netlink = self.netlink()?;
        for (index, mac) in gone {
            self.stations.remove(&(index, mac));
            match netlink.del_station(index, mac.0).await {
                Err(error) if !error.is_missing() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Mends what somebody took away, and takes away what earlier agents left.
    async fn look(&mut self) {
        let (wanted, settled) = (self.wanted.clone(), self.settled);
        let looked = self.with_tables(move |tables| {
            if !wanted.is_empty() && !tables.is_there()? {
                tables.have = None;
                tables.bring(&wanted)?;
            }
            if settled {
                tables.reap()
            } else {
                Ok(BTreeSet::new())
            }
        });
        let done = match looked.await {
            Ok(left) => {
                let wanted = pairs(&self.wanted);
                self.close(left.difference(&wanted).copied().collect())
                    .await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = done
            && self.used
        {
            tracing::warn!(error = chain(&error), "virtual MAC addresses");
        }
    }

    async fn remove(&mut self) {
        self.settled = true;
        if let Err(error) = self.want(Wanted::new()).await {
            tracing::warn!(error = chain(&error), "virtual MAC addresses stay");
        }
        self.look().await;
    }

    /// nf_tables blocks, as long as another program's transaction takes.
    async fn with_tables<T: Send + 'static>(
        &mut self,
        act: impl FnOnce(&mut Tables) -> Result<T, nft::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let known = self.tables.take();
        let acted = tokio::task::spawn_blocking(move || {
            let mut tables = known.map_or_else(Tables::open, Ok)?;
            let done = act(&mut tables);
            Ok::<_, nft::Error>((tables, done))
        });
        let (tables, done) = acted.await??;
        self.tables = Some(tables);
        Ok(done?)
    }
}

fn words(error: &Error) -> String {
    format!(
        "{}; remedy: a kernel with CONFIG_NF_TABLES_NETDEV, and \
         securityContext.capabilities.add: [NET_ADMIN]",
        chain(error)
    )
}

fn pairs(wanted: &Wanted) -> BTreeSet<(u32, Mac)> {
    let each = |(index, stations): (&u32, &Stations)| {
        let index = *index;
        let macs: Vec<Mac> = stations.macs.iter().copied().collect();
        macs.into_iter().map(move |mac| (index, mac))
    };
    wanted.iter().flat_map(each).collect()
}

/// Name of the chain and of the set of an interface.
fn name_of(index: u32) -> String {
    format!("i{index}")
}

fn index_of(name: &str) -> Option<u32> {
    name.strip_prefix('i')?.parse().ok()
}

/// The tables of family `netdev` whose names say that they are ours.
struct Tables {
    socket: Socket,
    /// This agent's.
    own: String,
    /// What is in it; `None`: that is not known.
    have: Option<Wanted>,
}

impl Tables {
    fn open() -> Result<Self, nft::Error> {
        let socket = Socket::open_for(Family::Netdev)?;
        let own = format!("{PREFIX}{}", socket.port()?);
        Ok(Self {
            socket,
            own,
            have: None,
        })
    }

    fn batch(&self) -> Batch {
        Batch::of(Family::Netdev, &self.own)
    }

    fn is_there(&mut self) -> Result<bool, nft::Error> {
        let tables = self.socket.tables()?;
        Ok(tables.iter().any(|table| table.name == self.own))
    }

    fn bring(&mut self, wanted: &Wanted) -> Result<(), nft::Error> {
        if let Some(have) = self.have.take()
            && have
                .iter()
                .map(|(index, it)| (index, &it.name))
                .eq(wanted.iter().map(|(index, it)| (index, &it.name)))
        {
            let mut batch = self.batch();
            for (index, stations) in wanted {
                let old = have.get(index).map(|it| &it.macs);
                let old = old.cloned().unwrap_or_default();
                let name = name_of(*index);
                let gone = old.difference(&stations.macs).map(element);
                batch.delete_elements(&name, gone);
                let new = stations.macs.difference(&old).map(element);
                batch.add_elements(&name, new);
            }
            // What somebody changed meanwhile is made anew.
            if self.socket.commit(batch).is_ok() {
                self.have = Some(wanted.clone());
                return Ok(());
            }
        }
        // An owned table cannot be flushed by others; before kernel 6.9 it could not stay.
        let owned = self.rebuild(wanted, TABLE_OWNER | TABLE_PERSIST);
        if owned.is_err() {
            self.rebuild(wanted, 0)?;
        }
        self.have = Some(wanted.clone());
        Ok(())
    }

    /// In one transaction, so that no frame is lost.
    fn rebuild(&mut self, wanted: &Wanted, flags: u32) -> Result<(), nft::Error> {
        let mut batch = self.batch();
        batch.add_table(flags);
        batch.delete_table();
        if !wanted.is_empty() {
            batch.add_table(flags);
        }
        let (mac, host) = (Reg(0), Reg(2));
        for (index, stations) in wanted {
            let name = name_of(*index);
            batch.add_mac_set(&name);
            batch.add_elements(&name, stations.macs.iter().map(element));
            batch.add_ingress_chain(&name, &stations.name, PRIORITY);
            let rule = [
                Expr::Payload {
                    base: Base::Link,
                    offset: 0,
                    length: 6,
                    to: mac,
                },
                Expr::Lookup {
                    set: name.clone(),
                    key: mac,
                    to: None,
                },
                Expr::Word {
                    to: host,
                    value: HOST,
                },
                Expr::SetMeta {
                    key: Meta::PacketType,
                    from: host,
                },
            ];
            batch.add_rule(&name, &rule, b"corten");
        }
        self.socket.commit(batch)
    }

    /// Deletes tables of agents that have ended; says what they received.
    fn reap(&mut self) -> Result<BTreeSet<(u32, Mac)>, nft::Error> {
        let tables = self.socket.tables()?;
        let ours = tables.into_iter().filter(|table| {
            table.name.starts_with(PREFIX) && table.name != self.own && table.owner.is_none()
        });
        let mut left = BTreeSet::new();
        for table in ours {
            for set in self.socket.sets(&table.name)? {
                let Some(index) = index_of(&set) else {
                    continue;
                };
                self.socket.elements(&table.name, &set, &mut |element| {
                    left.extend(element.key.try_into().ok().map(|mac| (index, Mac(mac))));
                })?;
            }
            let mut batch = Batch::of(Family::Netdev, &table.name);
            batch.delete_table();
            self.socket.commit(batch)?;
        }
        Ok(left)
    }
}

fn element(mac: &Mac) -> Element<'_> {
    Element {
        key: &mac.0,
        key_end: None,
        data: Data::None,
    }
}
