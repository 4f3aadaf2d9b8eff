//! This node's interfaces, followed by netlink.

use std::net::IpAddr;
use std::sync::Arc;

use linux::netlink::{Changes, Interface, Netlink, NetlinkError};
use plan::world::NodeState;
use tokio::sync::watch;

/// All interfaces, as of one moment.
pub type Snapshot = Arc<Vec<Interface>>;

/// Name prefixes of interfaces that are never announced on: MetalLB's default exclude list
/// (`spec/metallb.md` §4.3).
const EXCLUDED: [&str; 12] = [
    "docker",
    "cbr",
    "dummy",
    "virbr",
    "lxcbr",
    "veth",
    "cali",
    "tunl",
    "flannel",
    "kube-ipvs",
    "cni",
    "nodelocaldns",
];

/// Lists the interfaces.
pub async fn snapshot() -> Result<Snapshot, NetlinkError> {
    Ok(Arc::new(Netlink::open()?.interfaces().await?))
}

/// Lists anew on every change, until nobody listens.
pub async fn follow(out: watch::Sender<Snapshot>) -> Result<(), NetlinkError> {
    let mut changes = Changes::open()?;
    let netlink = Netlink::open()?;
    loop {
        // Listed after the listener was opened: nothing falls between.
        let found = Arc::new(netlink.interfaces().await?);
        out.send_if_modified(|known| {
            let changed = *known != found;
            *known = found;
            changed
        });
        tokio::select! {
            change = changes.next() => { change?; }
            () = out.closed() => return Ok(()),
        }
    }
}

/// Whether addresses may be announced on the interface.
pub fn fit(interface: &Interface) -> bool {
    let excluded = EXCLUDED
        .iter()
        .any(|prefix| interface.name.starts_with(prefix))
        || interface.name.starts_with("lxc");
    !excluded
        && interface.up
        && interface.carrier
        && interface.master.is_none()
        && interface.mac.is_some()
        && !interface.flags.noarp
        && !interface.flags.loopback
        && interface.flags.broadcast
}

/// What the agent says of its node's interfaces: those that are, or could be, announced on.
/// Addresses that it `placed` there itself say nothing of subnets.
pub fn state(
    interfaces: &[Interface],
    placed: impl Fn(IpAddr) -> bool,
    incarnation: u64,
    version: u64,
) -> NodeState {
    let interfaces = interfaces
        .iter()
        .filter(|interface| fit(interface))
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
                plan::world::Interface { up: true, subnets },
            )
        })
        .collect();
    NodeState {
        interfaces,
        draining: false,
        incarnation,
        version,
    }
}
