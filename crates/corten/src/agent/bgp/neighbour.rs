//! Where a peer is: at its address, or wherever its interface hears a router.
//!
//! A peer on an interface (unnumbered, RFC 7938) has no address in its object. FRR dials and takes
//! connections there only after it has heard a router advertisement, so a task sends ours on the
//! interface and hears the peer's ([`proto::router`]). The interface may come later, go, and come
//! again.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use linux::icmpv6::Icmpv6;
use linux::netlink::Interface;
use plan::announce::bgp::PeerSession;
use plan::config::Neighbour;
use plan::name::Name;
use proto::ethernet::Mac;
use proto::router::{ADVERTISEMENT, ALL_ROUTERS, Discovery, SOLICITATION};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::super::interfaces::Snapshot;

/// After this long a socket that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Larger than an advertisement with the options of this world.
const BUFFER: usize = 1500;

/// What an interface tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// Who was heard last, and all.
    newest: Option<SocketAddrV6>,
    all: BTreeSet<SocketAddrV6>,
    /// The interface works.
    works: bool,
    /// Why there is nobody.
    why: String,
}

impl Heard {
    fn nobody(works: bool, why: String) -> Self {
        Self {
            newest: None,
            all: BTreeSet::new(),
            works,
            why,
        }
    }
}

/// Finds the peer of a session.
#[derive(Debug)]
pub(super) enum Locator {
    Address(SocketAddr),
    Interface {
        heard: watch::Receiver<Heard>,
        /// Ends with it.
        _task: JoinSet<()>,
    },
}

impl Locator {
    pub(super) fn new(session: &PeerSession, interfaces: watch::Receiver<Snapshot>) -> Self {
        let port = session.port;
        match &session.neighbour {
            Neighbour::Address(ip) => Self::Address(SocketAddr::new(*ip, port)),
            Neighbour::Interface(name) => {
                let first = match link(name, &interfaces.borrow()) {
                    Ok(_) => Heard::nobody(true, silence(name)),
                    Err(why) => Heard::nobody(false, why),
                };
                let (tell, heard) = watch::channel(first);
                let mut task = JoinSet::new();
                task.spawn(follow(name.clone(), port, interfaces, tell));
                Self::Interface { heard, _task: task }
            }
        }
    }

    /// Where to connect to, or why nowhere.
    pub(super) fn find(&self) -> Result<SocketAddr, String> {
        match self {
            Self::Address(address) => Ok(*address),
            Self::Interface { heard, .. } => {
                let heard = heard.borrow();
                heard
                    .newest
                    .map(Into::into)
                    .ok_or_else(|| heard.why.clone())
            }
        }
    }

    /// Whether what is connected to `peer` cannot live: the interface is gone or down, or only
    /// others are heard there.
    pub(super) fn has_lost(&self, peer: SocketAddr) -> bool {
        match (self, peer) {
            (Self::Interface { heard, .. }, SocketAddr::V6(peer)) => {
                let heard = heard.borrow();
                // Flow labels are no part of who it is.
                let peer = SocketAddrV6::new(*peer.ip(), peer.port(), 0, peer.scope_id());
                !heard.works || (!heard.all.is_empty() && !heard.all.contains(&peer))
            }
            _ => false,
        }
    }

    /// Waits until there is something new.
    pub(super) async fn changed(&mut self) {
        let known = match self {
            Self::Address(_) => false,
            Self::Interface { heard, .. } => heard.changed().await.is_ok(),
        };
        if !known {
            std::future::pending().await
        }
    }
}

/// The interface as it must stay while its socket is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    index: u32,
    mac: Option<Mac>,
    /// The first link-local address, which advertisements come from.
    address: Ipv6Addr,
}

/// The interface if it can be used, or why not.
fn link(name: &str, interfaces: &[Interface]) -> Result<Link, String> {
    let found = interfaces.iter().find(|it| it.name == name);
    let found = found.ok_or_else(|| format!("this node has no interface {name}"))?;
    if !found.up || !found.carrier {
        let what = if found.up {
            "has no carrier"
        } else {
            "is down"
        };
        return Err(format!("interface {name} {what}"));
    }
    let mut addresses = found.addresses.iter();
    let address = addresses.find_map(|(ip, _)| match ip {
        std::net::IpAddr::V6(ip) if ip.is_unicast_link_local() => Some(*ip),
        _ => None,
    });
    Ok(Link {
        index: found.index,
        mac: found.mac.map(Mac),
        address: address.ok_or_else(|| {
            format!("interface {name} has no IPv6 link-local address: is IPv6 off there?")
        })?,
    })
}

fn silence(name: &str) -> String {
    format!(
        "no router advertisement heard on {name}: is its interface a BGP neighbour there \
         (unnumbered)?"
    )
}

/// Follows the interface until nobody listens.
async fn follow(
    name: Name,
    port: u16,
    mut interfaces: watch::Receiver<Snapshot>,
    tell: watch::Sender<Heard>,
) {
    loop {
        let link = link(&name, &interfaces.borrow_and_update());
        let again = match link {
            Ok(link) => {
                match Icmpv6::open(link.index, &[SOLICITATION, ADVERTISEMENT], &[ALL_ROUTERS]) {
                    Ok(socket) => {
                        let changed = other_link(&name, link, &mut interfaces);
                        tokio::select! {
                            end = changed => if !end { return },
                            error = speak(&name, port, link, &socket, &tell) => {
                                tracing::debug!(%error, interface = &*name, "ICMPv6 cannot be heard");
                            }
                        }
                        continue;
                    }
                    Err(error) => {
                        let why = crate::cli::chain(&error);
                        tell.send_replace(Heard::nobody(true, why));
                        RETRY
                    }
                }
            }
            Err(why) => {
                let new = Heard::nobody(false, why);
                tell.send_if_modified(|old| std::mem::replace(old, new.clone()) != new);
                Duration::MAX
            }
        };
        tokio::select! {
            changed = interfaces.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(again) => {}
        }
    }
}

/// Waits until the interface is not what it was. False: nobody knows any more.
async fn other_link(name: &str, known: Link, interfaces: &mut watch::Receiver<Snapshot>) -> bool {
    let other = |all: &Snapshot| link(name, all) != Ok(known);
    interfaces.wait_for(other).await.is_ok()
}

/// Tells the link that we are here, and hears who else is, until the socket fails.
async fn speak(
    name: &str,
    port: u16,
    link: Link,
    socket: &Icmpv6,
    tell: &watch::Sender<Heard>,
) -> std::io::Error {
    let start = Instant::now();
    let mut discovery = Discovery::new(Duration::ZERO, link.mac, super::peer::seed());
    let mut buffer = [0; BUFFER];
    loop {
        discovery.on_timeout(start.elapsed());
        while let Some((to, message)) = discovery.poll_transmit() {
            if let Err(error) = socket.send(&message, to) {
                tracing::debug!(%error, interface = name, "router discovery is not sent");
            }
        }
        let at = |ip| SocketAddrV6::new(ip, port, 0, link.index);
        let new = Heard {
            newest: discovery.newest().map(at),
            all: discovery.routers().map(at).collect(),
            works: true,
            why: silence(name),
        };
        tell.send_if_modified(|old| std::mem::replace(old, new.clone()) != new);
        let due = start + discovery.poll_timeout();
        tokio::select! {
            received = socket.recv(&mut buffer) => {
                let received = match received {
                    Ok(received) => received,
                    Err(error) => return error,
                };
                let SocketAddr::V6(from) = received.from else { continue };
                if *from.ip() == link.address {
                    continue;
                }
                let message = buffer.get(..received.length).unwrap_or_default();
                let now = start.elapsed();
                if let Err(error) = discovery.on_message(now, *from.ip(), received.ttl, message) {
                    tracing::debug!(%error, %from, interface = name, "dropped");
                }
            }
            () = tokio::time::sleep_until(due.into()) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use linux::netlink::LinkFlags;

    use super::*;

    fn interface() -> Interface {
        Interface {
            index: 7,
            name: "eth1".to_owned(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            up: true,
            carrier: true,
            flags: LinkFlags::default(),
            master: None,
            mtu: 1500,
            addresses: ["10.0.0.1", "fd00::1", "fe80::1", "fe80::2"]
                .map(|ip| (ip.parse().expect("an address"), 64))
                .to_vec(),
        }
    }

    #[test]
    fn an_interface_is_fit_or_it_is_said_why_not() {
        let found = link("eth1", &[interface()]).expect("fit");
        assert_eq!(
            (found.index, found.address.to_string()),
            (7, "fe80::1".into())
        );
        for (change, why) in [
            (
                (|it| it.name = "eth2".into()) as fn(&mut Interface),
                "this node has no interface eth1",
            ),
            (|it| it.up = false, "interface eth1 is down"),
            (|it| it.carrier = false, "interface eth1 has no carrier"),
            (
                |it| it.addresses.truncate(2),
                "interface eth1 has no IPv6 link-local address: is IPv6 off there?",
            ),
        ] {
            let mut interface = interface();
            change(&mut interface);
            assert_eq!(link("eth1", &[interface]), Err(why.to_owned()));
        }
    }

    #[test]
    fn a_session_is_lost_with_its_interface_or_to_another_router() {
        let at = |ip: &str| SocketAddrV6::new(ip.parse().expect("an address"), 179, 0, 7);
        let (tell, heard) = watch::channel(Heard::nobody(true, "why".to_owned()));
        let locator = Locator::Interface {
            heard,
            _task: JoinSet::new(),
        };
        let peer = SocketAddr::from(at("fe80::1"));
        assert_eq!(locator.find(), Err("why".to_owned()));
        // Silence alone ends no session: BFD and the hold time see to that.
        assert!(!locator.has_lost(peer));
        let hears = |all: &[&str]| {
            let all: Vec<_> = all.iter().map(|ip| at(ip)).collect();
            tell.send_replace(Heard {
                newest: all.last().copied(),
                all: all.into_iter().collect(),
                works: true,
                why: String::new(),
            });
        };
        hears(&["fe80::1", "fe80::2"]);
        assert!(!locator.has_lost(peer));
        assert_eq!(locator.find(), Ok(at("fe80::2").into()));
        hears(&["fe80::2"]);
        assert!(locator.has_lost(peer));
        tell.send_replace(Heard::nobody(false, String::new()));
        assert!(locator.has_lost(peer));
        // A peer with an address is where it is.
        let fixed = Locator::Address("10.0.0.1:179".parse().expect("an address"));
        assert!(!fixed.has_lost(peer));
    }
}
