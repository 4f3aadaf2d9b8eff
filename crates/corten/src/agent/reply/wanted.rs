//! What the kernel should have, from its interfaces and routes. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use linux::netlink::{Hop, Interface, Route, Rule, TABLE_MAIN};

use super::choice::{Choice, NUMBERS};

/// Protocol number of our routes and rules.
pub(super) const PROTOCOL: u8 = 155;
/// Of our rules: before those that CNIs make, which ask for nothing so particular.
const PRIORITY: u32 = 155;
/// The table of number 0, which no interface has.
const TABLE: u32 = 15_500;
/// `RT_TABLE_LOCAL`.
const TABLE_LOCAL: u32 = 255;
/// Routes of one interface that are taken over, beside its subnets and defaults.
const MOST: usize = 1024;

/// A destination in a table.
pub(super) type Key = (u32, IpAddr, u8);

/// How to get there; without hops it is on the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    device: u32,
    hops: Vec<IpAddr>,
    onlink: bool,
}

impl Way {
    /// The part of a route that leads over this interface, if one does.
    fn of(route: &Route, device: u32) -> Option<Self> {
        let mut hops: Vec<IpAddr> = match route.multipath.is_empty() {
            true if route.device == Some(device) => route.via.into_iter().collect(),
            true => return None,
            false => {
                let ours = route.multipath.iter().filter(|hop| hop.device == device);
                ours.map(|hop| hop.via).collect()
            }
        };
        if hops.is_empty() && !route.multipath.is_empty() {
            return None;
        }
        hops.sort_unstable();
        Some(Self {
            device,
            hops,
            onlink: route.onlink,
        })
    }

    /// As a route of ours.
    pub(super) fn route(&self, (table, to, length): Key) -> Route {
        let device = self.device;
        let hops: Vec<Hop> = self
            .hops
            .iter()
            .map(|via| Hop { via: *via, device })
            .collect();
        let mut route = Route::new(to, length);
        route.table = table;
        route.protocol = PROTOCOL;
        route.onlink = self.onlink;
        match hops.is_empty() {
            true => route.device(device),
            false => route.hops(&hops),
        }
    }

    pub(super) const fn is_on_link(&self) -> bool {
        self.hops.is_empty()
    }
}

/// Our routes of the kernel's.
pub(super) fn ours(routes: &[Route]) -> BTreeMap<Key, Way> {
    let ours = routes
        .iter()
        .filter(|it| is_ours(it.table) && it.protocol == PROTOCOL);
    let keyed = ours.filter_map(|route| {
        let device = route
            .device
            .or_else(|| Some(route.multipath.first()?.device))?;
        let (to, length) = route.to;
        Some(((route.table, to, length), Way::of(route, device)?))
    });
    keyed.collect()
}

/// Whether the table is one of ours.
pub(super) fn is_ours(table: u32) -> bool {
    (TABLE + 1..=TABLE + NUMBERS).contains(&table)
}

/// Whether the rule is one of ours.
pub(super) const fn is_our_rule(rule: &Rule) -> bool {
    rule.protocol == PROTOCOL && rule.priority == PRIORITY
}

/// Which number an interface has. It keeps it while there is room: connections bear it.
#[derive(Debug, Default)]
pub(super) struct Numbers(BTreeMap<String, u32>);

impl Numbers {
    /// Goes on with the numbers that an earlier agent gave: by the marks' map, else by the routes.
    pub(super) fn adopt(
        &mut self,
        interfaces: &[Interface],
        links: impl IntoIterator<Item = (u32, u32)>,
        routes: &[Route],
    ) {
        let by_routes = ours(routes)
            .into_iter()
            .map(|((table, ..), way)| (way.device, table - TABLE));
        for (index, number) in links.into_iter().chain(by_routes) {
            let Some(interface) = interfaces.iter().find(|it| it.index == index) else {
                continue;
            };
            if (1..=NUMBERS).contains(&number) && !self.0.values().any(|taken| *taken == number) {
                self.0.entry(interface.name.clone()).or_insert(number);
            }
        }
    }

    /// The numbers of these interfaces; those that get none are said.
    fn give<'i>(
        &mut self,
        chosen: &[&'i Interface],
        largest: u32,
    ) -> (Vec<(&'i Interface, u32)>, Vec<&'i str>) {
        self.0.retain(|_, number| *number <= largest);
        let (mut given, mut without) = (Vec::new(), Vec::new());
        for interface in chosen {
            if !self.0.contains_key(&interface.name) {
                let here = |name: &String| chosen.iter().any(|it| it.name == *name);
                let free = (1..=largest).find(|number| !self.0.values().any(|it| it == number));
                let free = free.or_else(|| {
                    // The number of one that is gone.
                    let gone = self.0.keys().find(|name| !here(name))?.clone();
                    self.0.remove(&gone)
                });
                match free {
                    Some(number) => self.0.insert(interface.name.clone(), number),
                    None => {
                        without.push(interface.name.as_str());
                        continue;
                    }
                };
            }
            if let Some(number) = self.0.get(&interface.name) {
                given.push((*interface, *number));
            }
        }
        (given, without)
    }
}

/// What the kernel should have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Interfaces by index, with their marks.
    pub(super) links: BTreeMap<u32, u32>,
    pub(super) routes: BTreeMap<Key, Way>,
    pub(super) rules: BTreeSet<Rule>,
    /// What will not work, with the remedy.
    pub(super) troubles: Vec<String>,
    /// Interfaces that what is best of the IPv4 default routes does not lead over, though requests
    /// come in by them: a strict reverse path filter there drops these.
    pub(super) beside_default: Vec<String>,
}

impl Wanted {
    pub(super) fn new(
        choice: &Choice,
        interfaces: &[Interface],
        routes: &[Route],
        numbers: &mut Numbers,
    ) -> Self {
        let mut chosen: Vec<&Interface> = interfaces.iter().filter(|it| choice.has(it)).collect();
        chosen.sort_by(|a, b| a.name.cmp(&b.name));
        let (given, without) = numbers.give(&chosen, choice.mask.largest());
        let mut wanted = Self::default();
        if !without.is_empty() {
            wanted.troubles.push(format!(
                "replies leave by other interfaces than {}: their number is more than the mask \
                 {:#x} holds; remedy: fewer interfaces in --reply-by-ingress, or more bits in \
                 --reply-mark-mask (four at most)",
                without.join(", "),
                choice.mask.bits()
            ));
        }
        for (interface, number) in given {
            wanted
                .links
                .insert(interface.index, choice.mask.mark(number));
            let mut defaults = 0;
            for v6 in [false, true] {
                let ways = ways(choice, interface, v6, routes);
                defaults += usize::from(ways.contains_key(&any(v6)));
                if !ways.is_empty() {
                    wanted.rules.insert(Rule {
                        v6,
                        priority: PRIORITY,
                        mark: choice.mask.mark(number),
                        mask: choice.mask.bits(),
                        table: TABLE + number,
                        protocol: PROTOCOL,
                    });
                }
                let keyed = ways
                    .into_iter()
                    .map(|((to, length), way)| ((TABLE + number, to, length), way));
                wanted.routes.extend(keyed);
            }
            if defaults == 0 && interface.up && interface.carrier {
                wanted.troubles.push(format!(
                    "replies to clients beyond {name}'s subnets leave by other interfaces: no \
                     default route leads over {name}; remedy: make one, of whatever metric, or give \
                     its gateway: --reply-by-ingress {name}=ADDRESS",
                    name = interface.name
                ));
            }
            let best = best_default(routes);
            if best.is_some_and(|best| Way::of(best, interface.index).is_none()) {
                wanted.beside_default.push(interface.name.clone());
            }
        }
        wanted
    }
}

const fn any(v6: bool) -> (IpAddr, u8) {
    match v6 {
        false => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        true => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    }
}

fn best_default(routes: &[Route]) -> Option<&Route> {
    let defaults = routes
        .iter()
        .filter(|it| it.table == TABLE_MAIN && it.to == any(false));
    defaults.min_by_key(|route| route.metric.unwrap_or(0))
}

/// The ways over one interface: the main table's; a default route also from other tables, as hosts
/// have them that route by source; a gateway that was given before both.
fn ways(
    choice: &Choice,
    interface: &Interface,
    v6: bool,
    routes: &[Route],
) -> BTreeMap<(IpAddr, u8), Way> {
    let mut found: BTreeMap<(IpAddr, u8), (u32, Way)> = BTreeMap::new();
    let mut elsewhere: Option<(u32, Way)> = None;
    for route in routes {
        let metric = route.metric.unwrap_or(0);
        let is_default = route.to == any(v6);
        if route.to.0.is_ipv6() != v6 || is_ours(route.table) || route.table == TABLE_LOCAL {
            continue;
        }
        let Some(way) = Way::of(route, interface.index) else {
            continue;
        };
        if route.table != TABLE_MAIN {
            if is_default && elsewhere.as_ref().is_none_or(|(known, _)| metric < *known) {
                elsewhere = Some((metric, way));
            }
            continue;
        }
        if found
            .get(&route.to)
            .is_none_or(|(known, _)| metric < *known)
        {
            found.insert(route.to, (metric, way));
        }
    }
    let mut ways: BTreeMap<_, _> = found.into_iter().map(|(to, (_, way))| (to, way)).collect();
    if let Some((_, way)) = elsewhere {
        ways.entry(any(v6)).or_insert(way);
    }
    if let Some(gateway) = choice.gateway(&interface.name, v6) {
        let way = Way {
            device: interface.index,
            hops: vec![gateway],
            onlink: false,
        };
        ways.insert(any(v6), way);
    }
    // A full table of the Internet need not be here twice: its widest routes come first.
    let mut narrow: Vec<_> = ways
        .iter()
        .filter(|((_, length), way)| *length > 0 && !way.is_on_link())
        .map(|((to, length), _)| (*length, *to))
        .collect();
    narrow.sort_unstable();
    for (length, to) in narrow.into_iter().skip(MOST) {
        ways.remove(&(to, length));
    }
    ways
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
