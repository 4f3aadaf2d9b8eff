use std::net::Ipv4Addr;

use super::{super::*, *};

mod behaviour;
mod simulation;

fn secs(value: u64) -> Duration {
    Duration::from_secs(value)
}

/// Two peers of different systems; the second has the greater identifier.
fn config(index: u32) -> Config {
    let other = RemoteAs::Number(Asn(64513 - index));
    let id = Ipv4Addr::from_bits(0x0a00_0001 + index);
    Config {
        hold_time: 9,
        connect_retry: secs(30),
        host: Some(format!("node-{index}")),
        ..Config::new(Asn(64512 + index), id, other)
    }
}

fn graceful() -> Graceful {
    Graceful {
        restart_time: 120,
        restarting: false,
        families: Families::ALL,
        forwarding: Families::ALL,
        long_lived: None,
        stale_time: secs(360),
    }
}

fn outputs(peer: &mut Peer) -> Vec<Output> {
    std::iter::from_fn(|| peer.poll()).collect()
}
