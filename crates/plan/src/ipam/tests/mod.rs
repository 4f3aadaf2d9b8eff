//! Builders for the tables and properties.

mod controller;
mod metallb;
mod properties;
mod sequences;
mod tables;
mod waiters;

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::propose::Asker;
use super::*;
use crate::config::Selector;
use crate::name::{Name, ServiceKey};
use crate::net::{Family, Protocol};
use crate::world::{self, FamilyPolicy, Ingress, Policy, Service, ServiceType};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn ips(text: &str) -> Vec<IpAddr> {
    text.split_whitespace().map(ip).collect()
}

/// A Service of type LoadBalancer, IPv4, without ports.
fn lb(name: &str) -> Service {
    Service {
        key: ServiceKey::new("default", name),
        uid: "".into(),
        resource_version: "".into(),
        created: "".into(),
        labels: BTreeMap::new(),
        other_proxy: false,
        annotations: BTreeMap::new(),
        kind: ServiceType::LoadBalancer,
        class: None,
        cluster_ips: vec![ip("10.96.0.1")],
        families: vec![Family::V4],
        family_policy: FamilyPolicy::SingleStack,
        load_balancer_ip: None,
        external_ips: Vec::new(),
        source_ranges: Vec::new(),
        external_policy: Policy::Cluster,
        internal_policy: Policy::Cluster,
        health_check_node_port: 0,
        affinity_seconds: None,
        selector: "".into(),
        ports: Vec::new(),
        ingress: Vec::new(),
    }
}

/// Changes to a Service, chained.
trait With: Sized {
    fn annotation(self, key: &str, value: &str) -> Self;
    fn field(self, ip: &str) -> Self;
    fn status(self, ips: &str) -> Self;
    fn v6(self) -> Self;
    fn dual(self, policy: FamilyPolicy) -> Self;
    fn namespace(self, namespace: &str) -> Self;
    fn label(self, key: &str, value: &str) -> Self;
    fn ports(self, ports: &str) -> Self;
    fn sharing(self, key: &str, backend: &str) -> Self;
    fn kind(self, kind: ServiceType) -> Self;

    fn ips(self, ips: &str) -> Self {
        self.annotation("metallb.io/loadBalancerIPs", ips)
    }
    fn pool(self, pool: &str) -> Self {
        self.annotation("metallb.io/address-pool", pool)
    }
}

impl With for Service {
    fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }
    fn field(mut self, ip: &str) -> Self {
        self.load_balancer_ip = Some(ip.into());
        self
    }
    fn status(mut self, text: &str) -> Self {
        self.ingress = ips(text)
            .into_iter()
            .map(|ip| Ingress {
                ip: Some(ip),
                proxy: false,
            })
            .collect();
        self
    }
    fn v6(mut self) -> Self {
        self.families = vec![Family::V6];
        self
    }
    fn dual(mut self, policy: FamilyPolicy) -> Self {
        self.families = vec![Family::V4, Family::V6];
        self.family_policy = policy;
        self
    }
    fn namespace(mut self, namespace: &str) -> Self {
        self.key.namespace = namespace.into();
        self
    }
    fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }
    /// `tcp/80 udp/53`.
    fn ports(mut self, text: &str) -> Self {
        self.ports = text
            .split_whitespace()
            .map(|port| {
                let (protocol, number) = port.split_once('/').expect("protocol/port");
                world::Port {
                    name: port.into(),
                    protocol: match protocol {
                        "tcp" => Protocol::Tcp,
                        "udp" => Protocol::Udp,
                        other => panic!("protocol {other}"),
                    },
                    port: number.parse().expect("a port"),
                    node_port: 0,
                }
            })
            .collect();
        self
    }
    fn sharing(mut self, key: &str, backend: &str) -> Self {
        if !backend.is_empty() {
            self.external_policy = Policy::Local;
            self.selector = backend.into();
        }
        if key.is_empty() {
            return self;
        }
        self.annotation("metallb.io/allow-shared-ip", key)
    }
    fn kind(mut self, kind: ServiceType) -> Self {
        self.kind = kind;
        self
    }
}

fn pool(name: &str, blocks: &str) -> Pool {
    Pool {
        name: name.into(),
        blocks: blocks
            .split_whitespace()
            .map(|block| block.parse().expect("a block"))
            .collect(),
        auto_assign: true,
        avoid_buggy_ips: false,
        allocation: None,
        frozen: false,
    }
}

fn manual(name: &str, blocks: &str) -> Pool {
    Pool {
        auto_assign: false,
        ..pool(name, blocks)
    }
}

fn avoiding(name: &str, blocks: &str) -> Pool {
    Pool {
        avoid_buggy_ips: true,
        ..pool(name, blocks)
    }
}

fn frozen(pool: Pool) -> Pool {
    Pool {
        frozen: true,
        ..pool
    }
}

fn pinned(
    name: &str,
    blocks: &str,
    priority: u32,
    namespaces: &str,
    services: &[Selector],
) -> Pool {
    Pool {
        allocation: Some(ServiceAllocation {
            priority,
            namespaces: namespaces.split_whitespace().map(Name::from).collect(),
            namespace_selectors: Vec::new(),
            service_selectors: services.to_vec(),
        }),
        ..pool(name, blocks)
    }
}

fn allocator(pools: impl IntoIterator<Item = Pool>) -> Allocator {
    let mut allocator = Allocator::new();
    allocator.set_pools(pools);
    allocator
}

fn asker(service: &Service) -> Asker<'_> {
    Asker {
        service,
        namespace_labels: None,
    }
}

/// Decides, commits, and writes the status as the controller would.
fn step(allocator: &mut Allocator, service: &mut Service) -> (Decision, Vec<ServiceKey>) {
    let decision = decide(allocator, service, None, &Options::default());
    let helped = allocator
        .commit(&service.key, &decision)
        .expect("no conflict");
    write(service, &decision);
    (decision, helped)
}

fn write(service: &mut Service, decision: &Decision) {
    service.ingress = decision
        .ingress
        .iter()
        .map(|ip| Ingress {
            ip: Some(*ip),
            proxy: false,
        })
        .collect();
    let key = api::annotations::IP_ALLOCATED_FROM_POOL;
    match &decision.pool_annotation {
        Some(pool) => service.annotations.insert(key.into(), pool.to_string()),
        None => service.annotations.remove(key),
    };
}

fn reasons(decision: &Decision) -> Vec<&'static str> {
    decision
        .notes
        .iter()
        .map(|note| note.reason.as_str())
        .collect()
}
