//! Which virtual servers are kube-proxy's. Pure.
//!
//! It marks none. Those at an address of its interface are its; so are, at other addresses, those
//! that lead by translation to nothing but the same endpoints: node ports.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use linux::ipvs::{Destination, Server, ServerKey};

use crate::ipvs::OURS;

/// A virtual server with its destinations.
pub(super) type Found = (Server, Vec<Destination>);

/// Where node ports are in a cluster that does not say otherwise.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// Parts them: kube-proxy's, and others' that stay. Corten's own are in neither.
pub(super) fn part(
    found: &[Found],
    its_addresses: &BTreeSet<IpAddr>,
) -> (Vec<ServerKey>, Vec<ServerKey>) {
    let foreign = found
        .iter()
        .filter(|(server, _)| server.settings.flags & OURS == 0);
    let is_at = |server: &Server| its_addresses.contains(&server.key.address);
    let endpoints: BTreeSet<(u8, SocketAddr)> = foreign
        .clone()
        .filter(|(server, _)| is_at(server))
        .flat_map(|(server, to)| to.iter().map(|it| (server.key.protocol, it.at)))
        .collect();
    let (its, others): (Vec<&Found>, Vec<&Found>) = foreign.partition(|(server, to)| {
        let known =
            |it: &Destination| it.translated && endpoints.contains(&(server.key.protocol, it.at));
        let node_port = match to.is_empty() {
            true => !its_addresses.is_empty() && NODE_PORTS.contains(&server.key.port),
            false => to.iter().all(known),
        };
        is_at(server) || node_port
    });
    let keys = |some: Vec<&Found>| some.into_iter().map(|(server, _)| server.key).collect();
    (keys(its), keys(others))
}

#[cfg(test)]
mod tests {
    use linux::ipvs::Settings;

    use super::*;

    fn found(at: &str, flags: u32, to: &[&str], translated: bool) -> Found {
        let at: SocketAddr = at.parse().unwrap();
        let server = Server {
            key: ServerKey {
                address: at.ip(),
                protocol: 6,
                port: at.port(),
            },
            settings: Settings {
                scheduler: "rr".to_owned(),
                flags,
                timeout: 0,
            },
        };
        let to = to.iter().map(|at| Destination {
            at: at.parse().unwrap(),
            weight: 1,
            translated,
            active: 0,
            inactive: 0,
        });
        (server, to.collect())
    }

    #[test]
    fn kube_proxys_are_told_from_others() {
        let (a, b) = ("10.244.1.2:80", "10.244.1.3:80");
        let table = [
            (found("10.96.0.1:80", 0, &[a, b], true), Some(true)),
            (found("10.96.0.2:80", 0, &[], true), Some(true)),
            (found("10.0.0.11:30080", 0, &[a], true), Some(true)),
            (found("10.0.0.11:30081", 0, &[], true), Some(true)),
            (found("10.96.0.1:81", OURS, &[a], true), None),
            (
                found("10.0.0.100:443", 0, &["10.0.0.12:6443"], true),
                Some(false),
            ),
            (
                found("10.0.0.100:80", 0, &[a, "10.0.0.12:80"], true),
                Some(false),
            ),
            (found("10.0.0.100:81", 0, &[a], false), Some(false)),
            (found("10.0.0.100:82", 0, &[], true), Some(false)),
        ];
        let all: Vec<Found> = table.iter().map(|(found, _)| found.clone()).collect();
        let keys = |wanted| {
            let some = table.iter().filter(move |(_, is)| *is == Some(wanted));
            some.map(|((server, _), _)| server.key).collect::<Vec<_>>()
        };
        let its = ["10.96.0.1", "10.96.0.2"].map(|ip| ip.parse().unwrap());
        let parted = part(&all, &BTreeSet::from(its));
        assert_eq!(parted, (keys(true), keys(false)));
        // Without its interface nothing is its.
        let (its, others) = part(&all, &BTreeSet::new());
        assert_eq!((its.len(), others.len()), (0, 8));
    }
}
