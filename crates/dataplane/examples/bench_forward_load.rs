//! Loads many Services into nftables and measures it: `cargo xtask bench forward-load`.
//!
//! Runs in a network namespace of its own, so it needs root or user namespaces. Prints a table,
//! and as its last line one JSON object with the same numbers.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dataplane::nft::{Nft, Report};
use linux::namespace::{Sandbox, in_sandbox};
use plan::forward::{Frontend, FrontendKind, PortKey, ServicePort};
use plan::name::ServiceKey;
use plan::net::{Family, Protocol};
use plan::world::Policy;

type Desired = BTreeMap<PortKey, ServicePort>;

fn main() -> ExitCode {
    let result = if in_sandbox() { bench() } else { enter() };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench forward-load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts this program again in a sandbox.
fn enter() -> Result<(), Box<dyn Error>> {
    let status = Sandbox::current_exe()?.spawn()?.wait()?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("in the sandbox: {status}").into()),
    }
}

/// Service number `n`: a cluster IP and a VIP, each other one a load balancer, two endpoints.
fn service(n: u32) -> (PortKey, ServicePort) {
    let [_, a, b, c] = n.to_be_bytes();
    let key = PortKey {
        service: ServiceKey::new("bench", &format!("service-{n}")),
        port: "http".into(),
        protocol: Protocol::Tcp,
        family: Family::V4,
    };
    let mut frontends = vec![Frontend {
        address: [10, 128 + a, b, c].into(),
        port: 80,
        kind: FrontendKind::ClusterIp,
        policy: Policy::Cluster,
    }];
    if n.is_multiple_of(2) {
        frontends.push(Frontend {
            address: [11, a, b, c].into(),
            port: 80,
            kind: FrontendKind::LoadBalancer,
            policy: Policy::Cluster,
        });
    }
    let endpoint = |net: u8| SocketAddr::from(([net, a, b, c], 8080));
    let port = ServicePort {
        frontends,
        cluster: vec![endpoint(12), endpoint(13)],
        usable_anywhere: true,
        ..ServicePort::default()
    };
    (key, port)
}

fn services(count: u32) -> Desired {
    (0..count).map(service).collect()
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A field of `/proc/self/status` in MiB.
fn memory(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// A quantile of sorted durations.
fn quantile(sorted: &[Duration], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().map_or(0.0, milliseconds)
}

fn load(count: u32) -> Result<(Nft, Desired, Duration, Report), Box<dyn Error>> {
    let desired = services(count);
    let mut nft = Nft::open()?;
    let start = Instant::now();
    let report = nft.adopt(&desired)?;
    Ok((nft, desired, start.elapsed(), report))
}

fn bench() -> Result<(), Box<dyn Error>> {
    let mut rows: Vec<(&str, &str, f64)> = Vec::new();

    let base = memory("VmRSS:");
    let (mut nft, desired, loaded, report) = load(20_000)?;
    rows.push((
        "load_20k_s",
        "20k Services x 2 endpoints, empty kernel",
        seconds(loaded),
    ));
    rows.push((
        "load_20k_elements",
        "  elements written",
        report.added as f64,
    ));
    rows.push(("load_20k_batches", "  batches", report.batches as f64));
    let start = Instant::now();
    let again = nft.check()?;
    if !again.is_zero() {
        return Err(format!("a second look wrote something: {again:?}").into());
    }
    rows.push((
        "adopt_20k_s",
        "read and compare all of it again",
        seconds(start.elapsed()),
    ));
    nft.remove()?;
    drop((nft, desired));

    let (mut nft, desired, loaded, report) = load(45_000)?;
    rows.push((
        "load_45k_s",
        "45k Services x 2 endpoints, empty kernel",
        seconds(loaded),
    ));
    rows.push((
        "load_45k_elements",
        "  elements written",
        report.added as f64,
    ));
    rows.push((
        "rss_45k_mib",
        "  memory of this process, desired state twice",
        memory("VmRSS:") - base,
    ));
    rows.push(("rss_peak_mib", "  highest so far", memory("VmHWM:")));

    let mut added = Vec::new();
    let mut removed = Vec::new();
    for n in 0..200 {
        let (key, port) = service(45_000 + n);
        let start = Instant::now();
        let report = nft.apply(&[(key.clone(), Some(port))])?;
        added.push(start.elapsed());
        if report.batches != 1 {
            return Err(format!("one Service took {} batches", report.batches).into());
        }
        let start = Instant::now();
        nft.apply(&[(key, None)])?;
        removed.push(start.elapsed());
    }
    added.sort_unstable();
    removed.sort_unstable();
    rows.push((
        "one_at_45k_ms",
        "one Service added, median of 200",
        quantile(&added, 0.5),
    ));
    rows.push((
        "one_at_45k_p99_ms",
        "  99th percentile",
        quantile(&added, 0.99),
    ));
    rows.push((
        "one_removed_at_45k_ms",
        "one Service removed, median",
        quantile(&removed, 0.5),
    ));
    rows.push((
        "one_removed_at_45k_p99_ms",
        "  99th percentile",
        quantile(&removed, 0.99),
    ));
    nft.remove()?;
    drop(desired);

    for (_, what, figure) in &rows {
        println!("{what:<50} {figure:>12.3}");
    }
    let figures: Vec<_> = rows
        .iter()
        .map(|(name, _, figure)| format!("\"{name}\":{figure:.4}"))
        .collect();
    println!(
        "{{\"bench\":\"forward-load\",\"figures\":{{{}}}}}",
        figures.join(",")
    );
    Ok(())
}
