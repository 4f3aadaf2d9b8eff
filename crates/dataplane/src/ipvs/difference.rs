//! What has to be asked of the kernel so that a virtual server is as wanted. Pure.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use linux::ipvs::{
    Destination, PERSISTENT, Request, SCHEDULER_1, SCHEDULER_2, ServerKey, Settings,
};
use plan::forward::Front;
use plan::forward::ipvs::Server;
use plan::net::Protocol;

/// The bit of a virtual server's flags that says that it is ours. The kernel has no meaning for it
/// and keeps it.
pub(crate) const OURS: u32 = 1 << 30;

/// What to ask, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) requests: Vec<Request>,
    /// Destinations that are not wanted get nothing new, and wait until nobody uses them.
    pub(super) drains: bool,
}

pub(super) fn key(front: &Front) -> ServerKey {
    ServerKey {
        address: front.address,
        protocol: front.protocol.number(),
        port: front.port,
    }
}

/// As the kernel should have it.
pub(super) fn settings(server: &Server) -> Settings {
    let scheduling = server.scheduling;
    let mut flags = OURS;
    for (has, flag) in [
        (server.keep.is_some(), PERSISTENT),
        (scheduling.has_fallback(), SCHEDULER_1),
        (scheduling.uses_port(), SCHEDULER_2),
    ] {
        flags |= if has { flag } else { 0 };
    }
    Settings {
        scheduler: scheduling.name().to_owned(),
        flags,
        timeout: server.keep.unwrap_or(0),
    }
}

/// From what is there to what is wanted.
pub(super) fn difference(
    front: &Front,
    wanted: &Server,
    there: Option<&Settings>,
    found: &[Destination],
) -> Difference {
    let key = key(front);
    let mut out = Difference::default();
    let settings = settings(wanted);
    match there {
        None => out.requests.push(Request::AddServer(key, settings)),
        Some(there) if *there != settings => {
            out.requests.push(Request::SetServer(key, settings));
        }
        Some(_) => {}
    }
    // A datagram's sender notices nothing when another destination answers the next one.
    let waits = front.protocol != Protocol::Udp;
    let mut known: BTreeSet<SocketAddr> = BTreeSet::new();
    for destination in found {
        let at = destination.at;
        known.insert(at);
        match wanted.destinations.get(&at) {
            Some(weight) => {
                if destination.weight != *weight || !destination.translated {
                    out.requests.push(Request::SetDestination(key, at, *weight));
                }
            }
            None if waits && destination.weight > 0 => {
                out.requests.push(Request::SetDestination(key, at, 0));
                out.drains = true;
            }
            None if waits && destination.active + destination.inactive > 0 => out.drains = true,
            None => out.requests.push(Request::DeleteDestination(key, at)),
        }
    }
    let new = wanted.destinations.iter();
    let new = new.filter(|(at, _)| !known.contains(at));
    out.requests
        .extend(new.map(|(at, weight)| Request::AddDestination(key, *at, *weight)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 1, 0, host], 8080))
    }

    fn front(protocol: Protocol) -> Front {
        Front {
            address: [10, 96, 0, 1].into(),
            protocol,
            port: 80,
        }
    }

    fn wanted(hosts: &[u8]) -> Server {
        Server {
            scheduling: "mh,mh-port".parse().unwrap(),
            keep: Some(60),
            destinations: hosts.iter().map(|host| (at(*host), 1)).collect(),
            is_nodes: false,
        }
    }

    fn there(host: u8, weight: u32, connections: u32) -> Destination {
        Destination {
            at: at(host),
            weight,
            translated: true,
            active: connections / 2,
            inactive: connections - connections / 2,
        }
    }

    #[test]
    fn what_is_right_is_left_alone() {
        let front = front(Protocol::Tcp);
        let settings = settings(&wanted(&[2]));
        let found = [there(2, 1, 7)];
        let nothing = difference(&front, &wanted(&[2]), Some(&settings), &found);
        assert_eq!(nothing, Difference::default());
        let other = Settings {
            scheduler: "rr".to_owned(),
            ..settings.clone()
        };
        let changed = difference(&front, &wanted(&[2]), Some(&other), &found);
        assert_eq!(
            changed.requests,
            [Request::SetServer(key(&front), settings)]
        );
    }

    #[test]
    fn what_is_missing_comes() {
        let front = front(Protocol::Tcp);
        let made = difference(&front, &wanted(&[2]), None, &[]);
        let key = key(&front);
        let settings = Settings {
            scheduler: "mh".to_owned(),
            flags: OURS | PERSISTENT | SCHEDULER_2,
            timeout: 60,
        };
        let wanted = [
            Request::AddServer(key, settings),
            Request::AddDestination(key, at(2), 1),
        ];
        assert_eq!(made.requests, wanted);
    }

    #[test]
    fn endpoints_leave_with_their_last_connection() {
        for (protocol, weight, connections, drains) in [
            (Protocol::Tcp, 1, 0, true),
            (Protocol::Tcp, 1, 1, true),
            (Protocol::Tcp, 0, 1, true),
            (Protocol::Sctp, 0, 2, true),
            (Protocol::Tcp, 0, 0, false),
            (Protocol::Udp, 1, 1, false),
        ] {
            let front = front(protocol);
            let settings = settings(&wanted(&[2]));
            let found = [there(2, 1, 0), there(3, weight, connections)];
            let left = difference(&front, &wanted(&[2]), Some(&settings), &found);
            let key = key(&front);
            let requests = match (drains, weight) {
                (true, 0) => vec![],
                (true, _) => vec![Request::SetDestination(key, at(3), 0)],
                (false, _) => vec![Request::DeleteDestination(key, at(3))],
            };
            assert_eq!(left, Difference { requests, drains });
            // Back before it was gone: it is used again.
            let back = difference(&front, &wanted(&[2, 3]), Some(&settings), &found);
            assert!(!back.drains);
            let again = (weight == 0).then(|| Request::SetDestination(key, at(3), 1));
            assert_eq!(back.requests, Vec::from_iter(again));
        }
    }
}
