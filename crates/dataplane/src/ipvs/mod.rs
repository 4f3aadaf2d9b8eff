//! The IPVS back end: virtual servers balance, the rule set of [`crate::nft`] does all else.
//!
//! | what | who |
//! |---|---|
//! | choice of an endpoint, session affinity, open connections to endpoints that leave | virtual servers |
//! | source ranges, rejections, masquerading, short cuts, other ports of Services' addresses | table `inet corten` |
//! | Services' addresses are this host's | interface [`DEVICE`] |
//!
//! No ipset, no iptables, no packet mark. Virtual servers are marked as ours by a bit of their
//! flags; others are never touched, and one that is in the way is told as a refusal.
//!
//! Each change is compared with what the kernel has at that address: nothing is remembered but what
//! is wanted, so that a restart goes on where the process ended. A new Service gets its rules first,
//! then its virtual server, its address last; it leaves the other way round.
//!
//! An endpoint that leaves gets nothing new (weight 0), and goes when no connection uses it:
//! [`Ipvs::tick`] looks.

mod device;
mod difference;
mod error;
mod leaving;
mod look;
mod settings;

use std::collections::{BTreeMap, BTreeSet};

pub use linux::ipvs::Timeouts;
use linux::ipvs::{Request, Server as Found, ServerKey, Socket};
use plan::forward::ipvs::{Changes, Scheduling, Servers, scheduling};
use plan::forward::{Front, Locality, PortKey, ServicePort, Table};

use crate::nft::{Nft, Report};
use device::Device;
pub(crate) use difference::OURS;
use difference::{Difference, difference, key};
pub use error::Error;
use error::failed;
pub use leaving::{Leaving, leave};
use look::Watch;

/// The interface with the Services' addresses.
pub const DEVICE: &str = "corten-ipvs0";
/// Its mark.
const ALIAS: &str = "corten";

/// Why a virtual server is not as wanted.
#[derive(Debug)]
enum Denied {
    /// Somebody else's is there.
    Foreign,
    /// The kernel said no.
    Refused(String),
}

/// The executor for one network namespace. All calls block.
#[derive(Debug)]
pub struct Ipvs {
    nft: Nft,
    socket: Socket,
    device: Device,
    usual: Scheduling,
    servers: Servers,
    /// Virtual servers with endpoints that are leaving.
    draining: BTreeSet<Front>,
    /// Those that are not as wanted, and why.
    denied: BTreeMap<Front, Denied>,
    watch: Watch,
    /// The kernel may have something else than is wanted.
    doubtful: bool,
}

impl Ipvs {
    /// Opens the executor in the calling thread's network namespace; Services that say nothing
    /// else are balanced by `usual`. Changes nothing but the kernel's settings.
    pub fn open(usual: Scheduling) -> Result<Self, Error> {
        let (nft, socket) = parts()?;
        Ok(Self {
            nft,
            socket,
            device: Device::open()?,
            usual,
            servers: Servers::new(usual),
            draining: BTreeSet::new(),
            denied: BTreeMap::new(),
            watch: Watch::default(),
            doubtful: true,
        })
    }

    /// For how long IPVS knows connections, others' in this network namespace too; those that are 0
    /// stay as they are.
    pub fn set_timeouts(&mut self, wanted: Timeouts) -> Result<(), Error> {
        if wanted == Timeouts::default() {
            return Ok(());
        }
        let set = self.socket.set_timeouts(wanted);
        set.map_err(failed("set the timeouts of"))
    }

    /// What sources change; see [`Nft::set_locality`].
    pub fn set_locality(&mut self, locality: Locality) {
        self.nft.set_locality(locality);
    }

    /// Makes the kernel forward `desired` and nothing else: reads what is there, keeps what is
    /// right, mends the rest.
    pub fn adopt(&mut self, desired: &BTreeMap<PortKey, ServicePort>) -> Result<Report, Error> {
        self.servers = Servers::new(self.usual);
        for (key, port) in desired {
            complain(key, port);
            self.servers.set(key, Some(port.clone()));
        }
        self.doubtful = true;
        let mut report = self.nft.adopt(desired)?;
        self.bring_all(&mut report)?;
        Ok(report)
    }

    /// Reads the kernel's state, compares it with what it should be, and mends what differs.
    pub fn check(&mut self) -> Result<Report, Error> {
        self.doubtful = true;
        let mut report = self.nft.check()?;
        self.bring_all(&mut report)?;
        Ok(report)
    }

    /// Applies changes of service ports; `None` removes one.
    pub fn apply(&mut self, changes: &[(PortKey, Option<ServicePort>)]) -> Result<Report, Error> {
        let mut fronts = Changes::new();
        for (key, port) in changes {
            if let Some(port) = port {
                complain(key, port);
            }
            fronts.extend(self.servers.set(key, port.clone()));
        }
        // Until all of it is done.
        let in_doubt = std::mem::replace(&mut self.doubtful, true);
        let (mut gone, mut come) = (BTreeSet::new(), BTreeSet::new());
        if !in_doubt {
            for (front, server) in &fronts {
                let needed = self.servers.needs(front.address);
                if !needed {
                    gone.insert(front.address);
                } else if server.is_some() {
                    come.insert(front.address);
                }
            }
            for address in gone {
                self.device.remove_address(address)?;
            }
        }
        let mut report = self.nft.apply(changes)?;
        if in_doubt {
            self.bring_all(&mut report)?;
            return Ok(report);
        }
        for front in fronts.keys() {
            self.bring(front, &mut report)?;
        }
        for address in come {
            self.device.add_address(address)?;
        }
        self.doubtful = false;
        self.tell(&mut report);
        Ok(report)
    }

    /// See [`Nft::loopback_connections`].
    pub fn loopback_connections(&mut self) -> Result<Option<u64>, Error> {
        Ok(self.nft.loopback_connections()?)
    }

    /// The service ports that should be in force.
    pub const fn table(&self) -> &Table {
        self.nft.table()
    }

    /// Endpoints are leaving: [`Ipvs::tick`] has something to look at.
    pub fn drains(&self) -> bool {
        !self.draining.is_empty()
    }

    /// Lets endpoints go that nobody uses any more.
    pub fn tick(&mut self) -> Result<(), Error> {
        let mut report = Report::default();
        for front in std::mem::take(&mut self.draining) {
            self.bring(&front, &mut report)?;
        }
        Ok(())
    }

    /// Deletes all that is ours.
    pub fn remove(&mut self) -> Result<(), Error> {
        self.servers = Servers::new(self.usual);
        self.doubtful = true;
        self.device.remove()?;
        delete_servers(&mut self.socket, |_| true)?;
        Ok(self.nft.remove()?)
    }

    /// All virtual servers and addresses, after the rule set.
    fn bring_all(&mut self, report: &mut Report) -> Result<(), Error> {
        self.draining.clear();
        self.denied.clear();
        let wanted: BTreeSet<ServerKey> = self.servers.iter().map(|(it, _)| key(it)).collect();
        let stale = |found: &Found| !wanted.contains(&found.key);
        // What nobody wants gets nothing more before its servers go.
        let addresses = self.servers.addresses();
        report.removed += delete_servers(&mut self.socket, stale)?;
        let fronts: Vec<Front> = self.servers.iter().map(|(front, _)| *front).collect();
        for front in &fronts {
            self.bring(front, report)?;
        }
        let (come, gone) = self.device.bring(&addresses)?;
        report.added += come;
        report.removed += gone;
        self.doubtful = false;
        self.watch.soon();
        self.tell(report);
        Ok(())
    }

    /// Makes the virtual server at `front` as wanted.
    fn bring(&mut self, front: &Front, report: &mut Report) -> Result<(), Error> {
        self.denied.remove(front);
        self.draining.remove(front);
        // A destination that is told to take nothing new may turn out to be idle.
        for _ in 0..2 {
            let there = self
                .socket
                .server(&key(front))
                .map_err(failed("read"))?
                .map(|server| server.settings);
            let foreign = there.as_ref().is_some_and(|it| it.flags & OURS == 0);
            let wanted = self.servers.get(front);
            if foreign {
                if wanted.is_some() {
                    self.denied.insert(*front, Denied::Foreign);
                }
                return Ok(());
            }
            let Difference { requests, drains } = match wanted {
                Some(wanted) => {
                    let found = match there {
                        Some(_) => self.socket.destinations(&key(front)),
                        None => Ok(Vec::new()),
                    };
                    let found = found.map_err(failed("read"))?;
                    difference(front, wanted, there.as_ref(), &found)
                }
                None => Difference {
                    requests: Vec::from_iter(there.map(|_| Request::DeleteServer(key(front)))),
                    drains: false,
                },
            };
            let refused = self.socket.change(&requests).map_err(failed("write"))?;
            for (request, error) in requests.iter().zip(refused) {
                match error {
                    None if is_removal(request) => report.removed += 1,
                    None => report.added += 1,
                    Some(error) => {
                        let words = format!(
                            "IPVS refused to {}: {error}; change the Service or its scheduler",
                            request.what()
                        );
                        let denied = self.denied.entry(*front);
                        denied.or_insert(Denied::Refused(words));
                    }
                }
            }
            match drains {
                true => self.draining.insert(*front),
                false => self.draining.remove(front),
            };
            if !drains || requests.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn tell(&self, report: &mut Report) {
        for (front, denied) in &self.denied {
            let words = match denied {
                Denied::Foreign => format!(
                    "another program has a virtual server at {front}; `ipvsadm` shows and deletes it"
                ),
                Denied::Refused(words) => words.clone(),
            };
            if let Some(key) = self.servers.holder(front) {
                report.refused.push((key.clone(), words));
            }
        }
    }
}

/// Whether the kernel can do all this. Makes its settings right.
pub fn check() -> Result<(), Error> {
    parts().map(drop)
}

fn parts() -> Result<(Nft, Socket), Error> {
    let nft = Nft::open_for_ipvs()?;
    let socket = Socket::open().map_err(failed("open a socket to"))?;
    settings::ensure()?;
    Ok((nft, socket))
}

/// Deletes those of our virtual servers that are `stale`; how many.
fn delete_servers(socket: &mut Socket, stale: impl Fn(&Found) -> bool) -> Result<usize, Error> {
    let found = socket.servers().map_err(failed("list"))?;
    let ours = found.into_iter().filter(|it| it.settings.flags & OURS != 0);
    let requests: Vec<Request> = ours
        .filter(stale)
        .map(|server| Request::DeleteServer(server.key))
        .collect();
    // Who deleted one before us did right.
    socket.change(&requests).map_err(failed("delete"))?;
    Ok(requests.len())
}

const fn is_removal(request: &Request) -> bool {
    matches!(
        request,
        Request::DeleteServer(_) | Request::DeleteDestination(..)
    )
}

/// Says what is wrong with what a Service asks for.
fn complain(key: &PortKey, port: &ServicePort) {
    if let Some(Err(error)) = scheduling(port) {
        tracing::warn!(port = %key, %error, "the Service's scheduler is left out");
    }
    if let Some(part) = port.weights.as_ref().and_then(|it| it.bad.as_ref()) {
        tracing::warn!(
            port = %key,
            "{part:?} is left out of the Service's weights: they are like node-1=3,10.244.1.2=5, \
             0 to 65535"
        );
    }
}
