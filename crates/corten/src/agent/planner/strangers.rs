//! Addresses that strangers have: which are probed for before they are announced, whose a MAC
//! address is, and what people are told (`proto::conflict`, docs/adr/0011).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use linux::netlink::{Interface, Netlink, NetlinkError};
use plan::announce::l2::Announcement;
use plan::announce::owners::Owners;
use plan::announce::stations::Stations;
use plan::name::ServiceKey;
use plan::world::NodeState;
use proto::conflict::{Act, Conflicts, Whose};
use proto::ethernet::Mac;

use super::Planner;
use crate::agent::port::Claim;

/// Between two looks at the kernel's neighbours.
const LOOK: Duration = Duration::from_secs(1);

/// What is known of strangers and of those who are none.
pub(super) struct Strangers {
    start: Instant,
    owners: Owners,
    pub(super) stations: Stations,
    conflicts: Conflicts,
    /// Addresses that are to be probed for once nothing else keeps them back.
    wary: BTreeSet<IpAddr>,
    /// Announcements that wait for probes, or are withheld.
    held: BTreeMap<IpAddr, Announcement>,
    /// What the agent before this one said.
    before: Option<NodeState>,
    /// Where the kernel has reached nodes, by MAC address; and when that was last looked at.
    neighbours: BTreeSet<[u8; 6]>,
    looked: Option<Instant>,
}

impl Strangers {
    pub(super) fn new(before: Option<NodeState>) -> Self {
        Self {
            start: Instant::now(),
            owners: Owners::default(),
            stations: Stations::default(),
            conflicts: Conflicts::default(),
            wary: BTreeSet::new(),
            held: BTreeMap::new(),
            before,
            neighbours: BTreeSet::new(),
            looked: None,
        }
    }

    /// What the agent before this one withheld is probed for first.
    pub(super) fn succeed(&mut self, before: NodeState) {
        self.before = Some(before);
    }

    /// When [`Planner::look_for_strangers`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.conflicts.poll_timeout().map(|due| self.start + due)
    }

    /// The addresses that are not announced as strangers have them.
    pub(super) fn withheld(&self) -> BTreeSet<IpAddr> {
        self.conflicts.found(false).collect()
    }

    /// The address is not to be announced.
    pub(super) fn forget(&mut self, address: IpAddr) {
        self.conflicts.remove(address);
        self.wary.remove(&address);
        self.held.remove(&address);
    }
}

impl Planner {
    /// Takes in who has these addresses now.
    pub(super) fn look_for_owners(&mut self, addresses: &BTreeSet<IpAddr>) {
        let Strangers {
            owners,
            wary,
            before,
            ..
        } = &mut self.strangers;
        let me = &self.parts.agent.node;
        let addresses = addresses.iter().copied();
        wary.extend(owners.look(&self.world, me, self.met, before.as_ref(), addresses));
        if self.met {
            *before = None;
        }
    }

    /// Keeps back what must be probed for first, or is withheld; returns the rest.
    pub(super) fn hold_back(
        &mut self,
        ready: Vec<(IpAddr, Announcement)>,
    ) -> Vec<(IpAddr, Announcement)> {
        let mut rest = Vec::new();
        for (address, announcement) in ready {
            let wary = self.strangers.wary.remove(&address);
            let near =
                |it: &Interface| announcement.interfaces.contains(&it.name) && is_near(it, address);
            if wary && self.snapshot.iter().any(near) {
                let now = self.strangers.start.elapsed();
                self.strangers.conflicts.begin(now, address);
            }
            if self.strangers.conflicts.waits(address) {
                self.strangers.held.insert(address, announcement);
            } else {
                rest.push((address, announcement));
            }
        }
        rest
    }

    /// Takes a frame in that ties one of our addresses to another station.
    pub(super) async fn take_claim(&mut self, claim: Claim) {
        let Claim { index, ip, mac } = claim;
        let concerns = self.told.contains_key(&ip) || self.strangers.conflicts.waits(ip);
        // Where a router answers for all that lies elsewhere, nothing can be told.
        let mut near = self.snapshot.iter().filter(|it| it.index == index);
        let near = near.any(|it| is_near(it, ip));
        if !concerns || !near || !mac.is_unicast() || self.parts.silence.holds() {
            return;
        }
        let mut whose = self.whose(ip, mac);
        if whose == Whose::Stranger && self.strangers.looked.is_none_or(|at| at.elapsed() > LOOK) {
            self.strangers.looked = Some(Instant::now());
            if let Err(error) = self.look_at_neighbours().await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "neighbours not read"
                );
            }
            whose = self.whose(ip, mac);
        }
        let now = self.strangers.start.elapsed();
        let act = self.strangers.conflicts.on_claim(now, ip, mac, whose);
        self.act(act).await;
    }

    /// Does what is due.
    pub(super) async fn look_for_strangers(&mut self) {
        let now = self.strangers.start.elapsed();
        let mut conflicts = std::mem::take(&mut self.strangers.conflicts);
        let acts = conflicts.on_timeout(now, |ip, mac| self.whose(ip, mac));
        self.strangers.conflicts = conflicts;
        self.act(acts).await;
    }

    async fn act(&mut self, acts: impl IntoIterator<Item = Act>) {
        let mut ready = Vec::new();
        for act in acts {
            match act {
                Act::Probe(ip) => {
                    let announcement = self.strangers.held.get(&ip);
                    let interfaces = announcement.map(|it| it.interfaces.clone());
                    self.parts.l2.probe(ip, interfaces).await;
                }
                Act::Defend(ip) => self.parts.l2.defend(ip).await,
                Act::Announce(ip) => {
                    let announcement = self.strangers.held.remove(&ip);
                    ready.extend(announcement.map(|it| (ip, it)));
                }
                Act::Withhold(ip, mac) => {
                    self.parts.metrics.address_conflicts.inc();
                    let message = format!(
                        "\"{ip}\" is not announced: the station {mac}, which is no node, has it; \
                         remedy: give that station another address, or take this one out of the pool"
                    );
                    self.tell_holders(ip, true, "AddressConflict", &message);
                }
                Act::Contest(ip, mac) => {
                    self.parts.metrics.address_conflicts.inc();
                    let message = format!(
                        "the station {mac}, which is no node, claims \"{ip}\" too; it is announced \
                         all the same, but some clients may reach that station; remedy: give it \
                         another address"
                    );
                    self.tell_holders(ip, true, "AddressConflict", &message);
                    self.parts.l2.defend(ip).await;
                }
                Act::Over(ip, mac) => {
                    let message = format!("the station {mac} does not claim \"{ip}\" any more");
                    self.tell_holders(ip, false, "AddressConflictOver", &message);
                }
            }
        }
        if !ready.is_empty() {
            self.announce(ready).await;
        }
        self.count_strangers();
    }

    /// Shows how many addresses strangers have.
    pub(super) fn count_strangers(&self) {
        let gauge = &self.parts.metrics.occupied_addresses;
        for (state, announced) in [("withheld", false), ("contested", true)] {
            let count = self.strangers.conflicts.found(announced).count();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            gauge.with_label_values(&[state]).set(count);
        }
    }

    fn tell_holders(&self, ip: IpAddr, warning: bool, reason: &'static str, message: &str) {
        let held = self.strangers.held.get(&ip).map(|it| &it.services);
        let services: Option<&Vec<ServiceKey>> = held.or_else(|| self.told.get(&ip));
        for service in services.into_iter().flatten() {
            self.report(service, warning, reason, message.to_owned());
        }
    }

    fn whose(&self, ip: IpAddr, mac: Mac) -> Whose {
        let ours = |it: &Interface| it.mac == Some(mac.0);
        let known = self.strangers.stations.has(ip, mac.0)
            || self.strangers.neighbours.contains(&mac.0)
            || self.snapshot.iter().any(ours);
        if known {
            Whose::Member
        } else if self.strangers.stations.lacks_some(&self.world) {
            Whose::Unknown
        } else {
            Whose::Stranger
        }
    }

    /// By the kernel's neighbours, which beats keep fresh, also nodes are known that tell nothing of
    /// themselves.
    async fn look_at_neighbours(&mut self) -> Result<(), NetlinkError> {
        let found = Netlink::open()?.neighbours().await?;
        let nodes = self.world.node_names();
        let nodes = nodes.filter_map(|name| self.world.node(name));
        let addresses: BTreeSet<IpAddr> = nodes.flat_map(|it| &it.addresses).copied().collect();
        let found = found.into_iter().filter(|it| addresses.contains(&it.ip));
        self.strangers
            .neighbours
            .extend(found.filter_map(|it| it.mac));
        Ok(())
    }
}

/// Whether a subnet of the interface holds the address.
fn is_near(interface: &Interface, address: IpAddr) -> bool {
    let mut subnets = interface.addresses.iter();
    subnets.any(|(ip, length)| {
        let net = ipnet::IpNet::new(*ip, *length);
        net.is_ok_and(|net| net.prefix_len() < net.max_prefix_len() && net.contains(&address))
    })
}
