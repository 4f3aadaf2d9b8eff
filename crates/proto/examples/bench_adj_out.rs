//! What sending all routes to four peers costs this process: a table, and as its last line one JSON
//! object. Wall time of one thread: diff and encoding, without sockets.
// The library has no clock; what measures it does.
#![allow(clippy::disallowed_methods)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::bgp::fsm::{Config, RemoteAs};
use proto::bgp::{AdjOut, Asn, Attributes, LocalAddresses, Negotiated, Nlri, Path, Prefix};

const PEERS: usize = 4;
/// As the agent hands them to the kernel.
const BATCH: usize = 1 << 16;

fn main() {
    let ten = run(10_000);
    let hundred = run(100_000);
    println!("{:>10}  {:>8}  {:>10}", "prefixes", "ms", "bytes");
    for (prefixes, (took, bytes)) in [(10_000, ten), (100_000, hundred)] {
        println!("{prefixes:>10}  {:>8.1}  {bytes:>10}", millis(took));
    }
    println!(
        "{{\"bench\": \"adj-out\", \"figures\": {{\"encode_10k_x4_ms\": {:.1}, \
         \"encode_100k_x4_ms\": {:.1}}}}}",
        millis(ten.0),
        millis(hundred.0)
    );
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

/// The best of five: what it costs when nothing else runs.
fn run(prefixes: u32) -> (Duration, usize) {
    let runs = (0..5).map(|_| once(prefixes));
    runs.min().unwrap_or_default()
}

fn once(prefixes: u32) -> (Duration, usize) {
    let open = |asn| Config::new(Asn(asn), Ipv4Addr::LOCALHOST, RemoteAs::Any).open();
    let session = Arc::new(Negotiated::new(&open(64500), &open(64501), false));
    let local = LocalAddresses {
        ipv4: Some(Ipv4Addr::LOCALHOST),
        ..LocalAddresses::default()
    };
    let path = Arc::new(Path {
        attributes: Attributes {
            med: Some(0),
            ..Attributes::default()
        },
        next_hop: None,
    });
    let host = |n| IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + n));
    let mut bytes = Vec::with_capacity(2 * BATCH);
    let mut total = 0;
    let start = Instant::now();
    for _ in 0..PEERS {
        let mut out = AdjOut::new();
        out.set_ready(true);
        for n in 0..prefixes {
            out.announce(Nlri::from(Prefix::host(host(n))), &path);
        }
        out.up(session.clone(), local);
        loop {
            let more = out.poll(&mut bytes, BATCH);
            total += bytes.len();
            bytes.clear();
            if !more {
                break;
            }
        }
        assert_eq!(out.counts().sent, prefixes as usize);
    }
    (start.elapsed(), total)
}
