//! How long the allocator takes: a table, and as its last line one JSON object.
//!
//! Every figure includes the decision and its recording, as the controller makes them.
// The library has no clock; what measures it does.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use plan::ipam::{Allocator, Options, Pool, decide};
use plan::name::ServiceKey;
use plan::net::{Family, Protocol};
use plan::world::{FamilyPolicy, Policy, Port, Service, ServiceType};

const POOL_SIZE: usize = 65536;

fn service(n: usize, family: Family) -> Service {
    Service {
        key: ServiceKey::new("default", &format!("service-{n}")),
        uid: "".into(),
        resource_version: "".into(),
        created: "".into(),
        labels: BTreeMap::new(),
        other_proxy: false,
        annotations: BTreeMap::new(),
        kind: ServiceType::LoadBalancer,
        class: None,
        cluster_ips: Vec::new(),
        families: vec![family],
        family_policy: FamilyPolicy::SingleStack,
        load_balancer_ip: None,
        external_ips: Vec::new(),
        source_ranges: Vec::new(),
        external_policy: Policy::Cluster,
        internal_policy: Policy::Cluster,
        health_check_node_port: 0,
        affinity_seconds: None,
        selector: "".into(),
        ports: vec![Port {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: 0,
        }],
        ingress: Vec::new(),
    }
}

fn pool(block: &str, avoid_buggy_ips: bool) -> Pool {
    Pool {
        name: "pool".into(),
        blocks: vec![block.parse().expect("a block")],
        auto_assign: true,
        avoid_buggy_ips,
        allocation: None,
        frozen: false,
    }
}

/// Gives every Service its address; seconds.
fn fill(allocator: &mut Allocator, services: &[Service]) -> f64 {
    let options = Options::default();
    let start = Instant::now();
    for service in services {
        let decision = decide(allocator, service, None, &options);
        allocator
            .commit(&service.key, &decision)
            .expect("no conflict");
    }
    start.elapsed().as_secs_f64()
}

fn main() {
    let v4: Vec<Service> = (0..POOL_SIZE).map(|n| service(n, Family::V4)).collect();
    let mut allocator = Allocator::new();
    allocator.set_pools([pool("10.0.0.0/16", false)]);
    let pool_fill_s = fill(&mut allocator, &v4);
    let used = allocator.counters("pool").map_or(0, |c| c.assigned_v4);
    assert_eq!(used, POOL_SIZE as u64, "every address is in use");

    // One more address, given back and found again somewhere in a full pool.
    let options = Options::default();
    let rounds = 20_000;
    let start = Instant::now();
    for round in 0..rounds {
        let service = &v4[(round * 7919) % POOL_SIZE];
        allocator.forget(&service.key);
        let decision = decide(&allocator, service, None, &options);
        allocator
            .commit(&service.key, &decision)
            .expect("no conflict");
    }
    let alloc_us = start.elapsed().as_secs_f64() * 1e6 / f64::from(rounds as u32);

    let start = Instant::now();
    for service in &v4 {
        black_box(decide(&allocator, service, None, &options));
    }
    let replan_us = start.elapsed().as_secs_f64() * 1e6 / POOL_SIZE as f64;

    let v6: Vec<Service> = (0..POOL_SIZE).map(|n| service(n, Family::V6)).collect();
    let mut allocator = Allocator::new();
    allocator.set_pools([pool("2001:db8::/64", false)]);
    let v6_s = fill(&mut allocator, &v6);

    // The worst for sharing: one key and one port for all.
    let keyed: Vec<Service> = v4
        .iter()
        .cloned()
        .map(|mut service| {
            let key = api::annotations::ALLOW_SHARED_IP.to_owned();
            service.annotations.insert(key, "key".to_owned());
            service
        })
        .collect();
    let mut allocator = Allocator::new();
    allocator.set_pools([pool("10.0.0.0/16", false)]);
    let shared_s = fill(&mut allocator, &keyed);

    println!("{POOL_SIZE} Services, decision and recording");
    println!("{:<44} {pool_fill_s:>10.3} s", "fill a /16");
    println!("{:<44} {v6_s:>10.3} s", "the same from an IPv6 /64");
    println!(
        "{:<44} {shared_s:>10.3} s",
        "the same, one sharing key and port for all"
    );
    println!(
        "{:<44} {alloc_us:>10.2} us",
        "free and give one in a full /16"
    );
    println!(
        "{:<44} {replan_us:>10.2} us",
        "decide again, nothing changed"
    );
    println!(
        "{{\"bench\":\"alloc\",\"figures\":{{\"pool_fill_s\":{pool_fill_s:.4},\"alloc_us\":{alloc_us:.3},\
         \"replan_us\":{replan_us:.3},\"fill_v6_s\":{v6_s:.4},\"fill_shared_s\":{shared_s:.4},\
         \"pool_size\":{POOL_SIZE}}}}}"
    );
}
