//! This node's interfaces, followed by netlink.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use linux::netlink::{Change, Changes, Interface, Netlink, NetlinkError};
use plan::world::NodeState;
use tokio::sync::{mpsc, watch};

use super::exclude::Exclude;

/// Interfaces that moved and may wait.
pub const QUEUE: usize = 64;

/// All interfaces, as of one moment.
pub type Snapshot = Arc<Vec<Interface>>;

/// Lists the interfaces.
pub async fn snapshot() -> Result<Snapshot, NetlinkError> {
    Ok(Arc::new(Netlink::open()?.interfaces().await?))
}

/// Lists anew on every change, until nobody listens. What is told of this host is to be told again on
/// the interfaces that `moved`, by index.
pub async fn follow(
    out: watch::Sender<Snapshot>,
    moved: mpsc::Sender<u32>,
) -> Result<(), NetlinkError> {
    let mut changes = Changes::open()?;
    let netlink = Netlink::open()?;
    let mut lost = false;
    loop {
        // Listed after the listener was opened: nothing falls between.
        let found = Arc::new(netlink.interfaces().await?);
        for interface in found.iter().filter(|_| lost) {
            // Full: the manager has more to do than it can, and repeats what it tells.
            let _ = moved.try_send(interface.index);
        }
        out.send_if_modified(|known| {
            let changed = *known != found;
            *known = found;
            changed
        });
        tokio::select! {
            change = changes.next() => match change? {
                Change::Moved { index } => {
                    tracing::info!(index, "an interface has another way to its network");
                    let _ = moved.try_send(index);
                    lost = false;
                }
                change => lost = change == Change::Lost,
            },
            () = out.closed() => return Ok(()),
        }
    }
}

/// Whether addresses may be announced on the interface.
pub fn fit(interface: &Interface, exclude: &Exclude) -> bool {
    !exclude.has(&interface.name)
        && interface.up
        && interface.carrier
        && interface.master.is_none()
        && interface.mac.is_some()
        && !interface.flags.noarp
        && !interface.flags.loopback
        && interface.flags.broadcast
}

/// The host's addresses that clients elsewhere may use, without those of Services: `ours`, and what
/// is on the interfaces for them.
pub fn own_addresses(interfaces: &[Interface], ours: impl Fn(&IpAddr) -> bool) -> BTreeSet<IpAddr> {
    let of_services = |name: &str| {
        [
            plan::announce::linux::DEVICE,
            dataplane::ipvs::DEVICE,
            "kube-ipvs0",
        ]
        .contains(&name)
    };
    let link_local = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    interfaces
        .iter()
        .filter(|interface| !of_services(&interface.name))
        .flat_map(|interface| &interface.addresses)
        .map(|(address, _)| *address)
        .filter(|address| !address.is_loopback() && !link_local(address) && !ours(address))
        .collect()
}

/// What the agent says of its node's interfaces: those that are, or could be, announced on.
/// Addresses that it `placed` there itself say nothing of subnets.
pub fn state(
    interfaces: &[Interface],
    exclude: &Exclude,
    placed: impl Fn(IpAddr) -> bool,
    incarnation: u64,
    version: u64,
) -> NodeState {
    let interfaces = interfaces
        .iter()
        .filter(|interface| fit(interface, exclude))
        .map(|interface| {
            let subnets = interface
                .addresses
                .iter()
                .filter(|(ip, _)| !placed(*ip))
                .filter_map(|(ip, prefix)| ipnet::IpNet::new(*ip, *prefix).ok())
                .filter(|net| net.prefix_len() < net.max_prefix_len())
                .map(|net| net.trunc())
                .collect();
            (
                interface.name.as_str().into(),
                plan::world::Interface {
                    up: true,
                    subnets,
                    mac: interface.mac,
                },
            )
        })
        .collect();
    NodeState {
        interfaces,
        incarnation,
        version,
        ..NodeState::default()
    }
}

#[cfg(test)]
mod tests {
    use linux::netlink::LinkFlags;

    use super::*;

    #[test]
    fn excluded_and_unfit_interfaces_are_not_used() {
        let good = |name: &str| Interface {
            index: 2,
            name: name.to_owned(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            up: true,
            carrier: true,
            flags: LinkFlags {
                broadcast: true,
                ..LinkFlags::default()
            },
            master: None,
            mtu: 1500,
            addresses: Vec::new(),
        };
        let list = Exclude::default();
        assert!(fit(&good("eth0"), &list));
        assert!(!fit(&good("docker0"), &list));
        assert!(fit(&good("docker0"), &Exclude::nothing()));
        for spoil in [
            |it: &mut Interface| it.up = false,
            |it: &mut Interface| it.carrier = false,
            |it: &mut Interface| it.master = Some(3),
            |it: &mut Interface| it.mac = None,
            |it: &mut Interface| it.flags.noarp = true,
            |it: &mut Interface| it.flags.loopback = true,
            |it: &mut Interface| it.flags.broadcast = false,
        ] {
            let mut unfit = good("eth0");
            spoil(&mut unfit);
            assert!(!fit(&unfit, &list), "{unfit:?}");
        }
        let both = [good("eth0"), good("cali1")];
        let said = state(&both, &list, |_| false, 1, 1);
        let names: Vec<&str> = said.interfaces.keys().map(|name| &**name).collect();
        assert_eq!(names, ["eth0"]);
    }
}
