//! Service addresses on this node's own interfaces, as PureLB has them: on the LAN's interface with
//! a lifetime that is renewed while this agent lives, or on `kube-lb0`, where a routing daemon finds
//! them (`spec/purelb-openelb-kubevip.md` A.4).
//!
//! The task owns what is on `kube-lb0` while the link bears its mark; addresses there outlive the
//! agent, and the next one goes on from what it finds. What is on the LAN goes by itself.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use linux::netlink::{AddressFlags, Interface, Netlink, NetlinkError};
use plan::announce::linux::DEVICE;
use plan::name::Name;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::interfaces::Snapshot;
use super::member::Silence;
use crate::backoff::Backoff;
use crate::cli::chain;
use crate::http::Metrics;
use crate::status::Health;

/// How long an address on the LAN lasts, seconds: the kernel answers for it that long after this
/// agent has died.
const LIFETIME: u32 = 2;
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_millis(500);
/// Who made an address (`ip -d address` shows it as proto): the number of our routes.
const PROTOCOL: u8 = 155;
/// The mark of a link that is ours.
const ALIAS: &str = "corten";
/// Commands that may wait.
const QUEUE: usize = 256;
/// Bounds of the time until what failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

enum Command {
    /// On the LAN: the interface and the prefix length of its subnet.
    Lan(IpAddr, Name, u8),
    /// Not on the LAN any more; answered when they are gone.
    OffLan(Vec<IpAddr>, oneshot::Sender<()>),
    /// On `kube-lb0` with this prefix length, or no longer.
    Device(IpAddr, Option<u8>),
    /// Everything that belongs on `kube-lb0` was said: what else is there goes.
    Settle,
}

/// A handle on the task.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    commands: mpsc::Sender<Command>,
}

impl Addresses {
    /// Puts an address on the interface `name` of the LAN.
    pub(super) async fn put_on_lan(&self, address: IpAddr, (name, length): (Name, u8)) {
        let _ = self
            .commands
            .send(Command::Lan(address, name, length))
            .await;
    }

    /// Takes addresses off the LAN's interfaces; returns when they are gone.
    pub(super) async fn take_off_lan(&self, addresses: Vec<IpAddr>) {
        if addresses.is_empty() {
            return;
        }
        let (done, gone) = oneshot::channel();
        let _ = self.commands.send(Command::OffLan(addresses, done)).await;
        let _ = gone.await;
    }

    /// Puts an address on `kube-lb0` with this prefix length, or takes it off.
    pub(super) async fn place(&self, address: IpAddr, length: Option<u8>) {
        let _ = self.commands.send(Command::Device(address, length)).await;
    }

    /// Everything has been said once: what an earlier agent left on `kube-lb0` besides goes.
    pub(super) async fn settle(&self) {
        let _ = self.commands.send(Command::Settle).await;
    }
}

/// What the task works with.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) interfaces: watch::Receiver<Snapshot>,
    pub(super) silence: Silence,
    pub(super) health: Health,
    pub(super) metrics: Metrics,
}

/// The handle, and the task to run.
pub(super) fn start(context: Context) -> (Addresses, impl Future<Output = ()> + Send) {
    let (commands, inbox) = mpsc::channel(QUEUE);
    let task = Task {
        context,
        netlink: None,
        lan: BTreeMap::new(),
        device: BTreeMap::new(),
        settled: false,
        backoff: Backoff::new(RETRY.0, RETRY.1),
        retry: None,
    };
    (Addresses { commands }, task.run(inbox))
}

/// Takes `kube-lb0` away if it is ours: Corten is being removed.
pub(super) async fn remove() -> Result<(), NetlinkError> {
    let netlink = Netlink::open()?;
    let index = match netlink.index_of(DEVICE).await {
        Ok(index) => index,
        Err(error) if error.is_missing() => return Ok(()),
        Err(error) => return Err(error),
    };
    if is_ours(&netlink, index).await? {
        netlink.del_link(index).await?;
    }
    Ok(())
}

async fn is_ours(netlink: &Netlink, index: u32) -> Result<bool, NetlinkError> {
    Ok(netlink.alias_of(index).await?.as_deref() == Some(ALIAS))
}

struct Task {
    context: Context,
    netlink: Option<Netlink>,
    lan: BTreeMap<IpAddr, (Name, u8)>,
    device: BTreeMap<IpAddr, u8>,
    settled: bool,
    backoff: Backoff,
    /// Something failed on `kube-lb0`.
    retry: Option<Instant>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut renewal = tokio::time::interval(RENEWAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        loop {
            let retry = self.retry;
            let due = async move {
                match retry {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let mut look = true;
            tokio::select! {
                count = inbox.recv_many(&mut batch, QUEUE) => {
                    if count == 0 {
                        return;
                    }
                    look = false;
                    for command in batch.drain(..) {
                        look |= self.take(command).await;
                    }
                }
                _ = renewal.tick(), if !self.lan.is_empty() => {
                    self.renew().await;
                    look = false;
                }
                changed = self.context.interfaces.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.context.interfaces.borrow_and_update();
                }
                () = due => {}
            }
            if look {
                self.bring().await;
            }
        }
    }

    fn netlink(&mut self) -> Result<Netlink, NetlinkError> {
        if let Some(netlink) = &self.netlink {
            return Ok(netlink.clone());
        }
        Ok(self.netlink.insert(Netlink::open()?).clone())
    }

    /// Says whether `kube-lb0` is to be looked at.
    async fn take(&mut self, command: Command) -> bool {
        match command {
            Command::Lan(address, name, length) => {
                let old = self.lan.insert(address, (name.clone(), length));
                if let Some(old) = old.filter(|old| *old != (name.clone(), length)) {
                    self.take_off(address, &old).await;
                }
                if let Err(error) = self.put(address).await {
                    self.said("lan addresses", Err(words(&error)));
                }
                false
            }
            Command::OffLan(addresses, done) => {
                for address in addresses {
                    if let Some(place) = self.lan.remove(&address) {
                        self.take_off(address, &place).await;
                    }
                }
                let _ = done.send(());
                false
            }
            Command::Device(address, length) => {
                match length {
                    Some(length) => self.device.insert(address, length),
                    None => self.device.remove(&address),
                };
                true
            }
            Command::Settle => {
                self.settled = true;
                true
            }
        }
    }

    /// The index of an interface, as last heard.
    fn index(&self, name: &str) -> Option<u32> {
        let interfaces = self.context.interfaces.borrow();
        let found = interfaces.iter().find(|interface| interface.name == name)?;
        Some(found.index)
    }

    /// All of them; of several troubles the first is told.
    async fn renew(&mut self) {
        let addresses: Vec<IpAddr> = self.lan.keys().copied().collect();
        let mut all = Ok(());
        for address in addresses {
            let done = self.put(address).await;
            all = all.and_then(|()| done.map_err(|error| words(&error)));
        }
        self.said("lan addresses", all);
    }

    /// Puts an address on the LAN, or lets it last longer. Not in silence: others may have it.
    async fn put(&mut self, address: IpAddr) -> Result<(), NetlinkError> {
        let Some((name, length)) = self.lan.get(&address).cloned() else {
            return Ok(());
        };
        let Some(index) = self.index(&name).filter(|_| !self.context.silence.holds()) else {
            return Ok(());
        };
        let flags = AddressFlags {
            // The owner before may have it still; strangers are looked for in layer 2.
            nodad: true,
            no_prefix_route: true,
            lifetime: Some(LIFETIME),
            protocol: Some(PROTOCOL),
        };
        let netlink = self.netlink()?;
        netlink.add_address(index, address, length, flags).await
    }

    async fn take_off(&mut self, address: IpAddr, (name, length): &(Name, u8)) {
        let (Some(index), Ok(netlink)) = (self.index(name), self.netlink()) else {
            return;
        };
        if let Err(error) = netlink.del_address(index, address, *length).await
            && !error.is_missing()
        {
            // It goes by itself.
            tracing::warn!(%address, interface = %name, error = chain(&error), "not removed");
        }
    }

    /// Brings `kube-lb0` in line with what is wanted.
    async fn bring(&mut self) {
        self.retry = None;
        let done = self.bring_device().await;
        match &done {
            Ok(()) => self.backoff = Backoff::new(RETRY.0, RETRY.1),
            Err(_) => self.retry = Some(Instant::now() + self.backoff.next()),
        }
        self.said("kube-lb0", done.map_err(|error| words(&error)));
    }

    async fn bring_device(&mut self) -> Result<(), NetlinkError> {
        let netlink = self.netlink()?;
        let mut found = find(&netlink).await?;
        if found.is_none() && !self.device.is_empty() {
            make(&netlink).await?;
            found = find(&netlink).await?;
        }
        let Some(link) = found else {
            return Ok(());
        };
        if !link.up && !self.device.is_empty() {
            netlink.set_up(link.index).await?;
        }
        let clears = self.settled && is_ours(&netlink, link.index).await?;
        let there = link.addresses.iter().copied();
        let there: Vec<(IpAddr, u8)> = there.filter(|(address, _)| !is_of_link(*address)).collect();
        for (address, length) in &there {
            let wanted = self.device.get(address);
            // Of another length it would stand in the way of the right one.
            let wrong = wanted.is_some_and(|wanted| wanted != length);
            if wrong || (clears && wanted.is_none()) {
                let gone = netlink.del_address(link.index, *address, *length).await;
                gone.or_else(|error| error.is_missing().then_some(()).ok_or(error))?;
            }
        }
        let flags = AddressFlags {
            nodad: true,
            protocol: Some(PROTOCOL),
            ..AddressFlags::default()
        };
        for (address, length) in &self.device {
            if !there.contains(&(*address, *length)) {
                let added = netlink
                    .add_address(link.index, *address, *length, flags)
                    .await;
                added.or_else(|error| error.is_there().then_some(()).ok_or(error))?;
            }
        }
        self.context
            .metrics
            .device_addresses
            .set(i64::try_from(self.device.len()).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Tells what is wrong, once, and when it is right again.
    fn said(&self, kind: &'static str, done: Result<(), String>) {
        if let Err(words) = &done {
            let known = self.context.health.obstacles();
            if !known.contains(words) {
                tracing::error!("{words}");
            }
        }
        self.context.health.set_obstacle(kind, done.err());
    }
}

/// What is wrong, and what to do about it.
fn words(error: &NetlinkError) -> String {
    let kind = error
        .errno()
        .map(|number| io::Error::from_raw_os_error(number).kind());
    let remedy = match kind {
        Some(io::ErrorKind::PermissionDenied) => "securityContext.capabilities.add: [NET_ADMIN]",
        _ => "`ip -d address` on this node shows what is there",
    };
    format!("{}; remedy: {remedy}", chain(error))
}

/// An address that the kernel gave by itself.
fn is_of_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

async fn find(netlink: &Netlink) -> Result<Option<Interface>, NetlinkError> {
    let interfaces = netlink.interfaces().await?;
    Ok(interfaces.into_iter().find(|it| it.name == DEVICE))
}

/// Makes `kube-lb0`: a dummy, or a bridge without ports where the kernel has none.
async fn make(netlink: &Netlink) -> Result<(), NetlinkError> {
    match netlink.add_dummy(DEVICE).await {
        Err(error) if error.is_unknown() => netlink.add_bridge(DEVICE).await?,
        made => made?,
    }
    let index = netlink.index_of(DEVICE).await?;
    netlink.set_alias(index, ALIAS).await?;
    netlink.keep_secondaries(index).await?;
    netlink.set_up(index).await
}
