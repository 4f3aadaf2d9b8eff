//! What is not of a Service's families: it is left out, and said (`spec/dataplane.md` §1.1).
//!
//! kube-proxy works for each family apart, and looks at a Service where that has a cluster IP of the
//! family. What its other fields name of another family leads nowhere, though it looks as if it did.

use std::net::IpAddr;

use super::Mode;
use super::select::forwarded;
use crate::name::ServiceKey;
use crate::net::Family;
use crate::world::{Service, World, subnet};

/// The reason of the events about it, kube-proxy's.
pub const INCORRECT_IP_VERSION: &str = "KubeProxyIncorrectIPVersion";

/// What events say of `service`, in kube-proxy's words, where another proxy than ourselves does not
/// say it.
pub fn foreign(world: &World, mode: Mode, service: &ServiceKey) -> Vec<String> {
    let service = world.service(service);
    let Some(service) = service.filter(|it| mode == Mode::All && forwarded(it, mode)) else {
        return Vec::new();
    };
    let is_foreign = |family: Family| !service.families.contains(&family);
    let of = |addresses: &mut dyn Iterator<Item = IpAddr>| -> Vec<String> {
        let foreign = addresses.filter(|address| is_foreign(Family::of(*address)));
        foreign.map(|address| address.to_string()).collect()
    };
    let ranges = service.source_ranges.iter().filter(|text| {
        let range = subnet(text);
        range.is_some_and(|range| is_foreign(Family::of(range.addr())))
    });
    let balanced = service.ingress.iter().filter(|entry| !entry.proxy);
    let mut endpoints = of_slices(world, service);
    endpoints.sort_unstable();
    endpoints.dedup();
    let fields = [
        ("externalIPs", of(&mut service.external_ips.iter().copied())),
        (
            "loadBalancerSourceRanges",
            ranges.map(ToString::to_string).collect(),
        ),
        (
            "loadBalancer ingress",
            of(&mut balanced.filter_map(|entry| entry.ip)),
        ),
        (
            "endpointslice",
            endpoints.iter().map(ToString::to_string).collect(),
        ),
    ];
    let fields = fields.into_iter().filter(|(_, values)| !values.is_empty());
    fields
        .map(|(field, values)| format!("{} in {field} has incorrect IP version", values.join(",")))
        .collect()
}

/// Endpoints that are not of their slice's family.
fn of_slices(world: &World, service: &Service) -> Vec<IpAddr> {
    let slices = world.endpoints().slices(&service.key);
    let foreign = slices.filter_map(|slice| slice.foreign.as_deref());
    foreign.flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::tests::{Told, balancer, ingress, ip, key, slice};
    use crate::world::{Ingress, ServiceType, Slice};

    fn said(service: &Service, endpoints: Option<&str>, mode: Mode) -> String {
        let mut told = Told::common("");
        told.service(service.clone());
        let foreign = endpoints.map(|text| text.split(' ').map(ip).collect());
        let form = Slice {
            foreign,
            ..slice("s", "10.244.0.1@me")
        };
        told.slice("s", form);
        foreign_of(&told, mode)
    }

    fn foreign_of(told: &Told, mode: Mode) -> String {
        foreign(&told.world, mode, &key("s")).join("\n")
    }

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(ip).collect()
    }

    #[test]
    fn fields_of_another_family_are_named() {
        let v4 = Service {
            families: vec![Family::V4],
            ..balancer("s", "10.0.0.1")
        };
        let dual = Service {
            families: vec![Family::V4, Family::V6],
            ..v4.clone()
        };
        let external = |service: &Service, addresses: &str| Service {
            external_ips: ips(addresses),
            ..service.clone()
        };
        let ranges = |service: &Service, ranges: &str| Service {
            source_ranges: ranges.split_whitespace().map(Into::into).collect(),
            ..service.clone()
        };
        let assigned = |addresses: &str| Service {
            ingress: ingress(addresses),
            ..v4.clone()
        };
        let table = [
            (v4.clone(), None, ""),
            (external(&v4, "192.0.2.1"), None, ""),
            (
                external(&v4, "192.0.2.1 2001:db8::1 2001:db8::2"),
                None,
                "2001:db8::1,2001:db8::2 in externalIPs has incorrect IP version",
            ),
            (external(&dual, "192.0.2.1 2001:db8::1"), None, ""),
            (
                ranges(&v4, "10.0.0.0/8 fd00::/8 nonsense"),
                None,
                "fd00::/8 in loadBalancerSourceRanges has incorrect IP version",
            ),
            (ranges(&dual, "10.0.0.0/8 fd00::/8"), None, ""),
            (
                assigned("10.0.0.1 2001:db8::9"),
                None,
                "2001:db8::9 in loadBalancer ingress has incorrect IP version",
            ),
            (
                Service {
                    ingress: vec![Ingress {
                        ip: Some(ip("2001:db8::9")),
                        proxy: true,
                    }],
                    ..v4.clone()
                },
                None,
                "",
            ),
            (
                v4.clone(),
                Some("fd00::2 fd00::1 fd00::2"),
                "fd00::1,fd00::2 in endpointslice has incorrect IP version",
            ),
            (
                ranges(&external(&v4, "fd00::1"), "fd00::/8"),
                None,
                "fd00::1 in externalIPs has incorrect IP version\n\
                 fd00::/8 in loadBalancerSourceRanges has incorrect IP version",
            ),
            (
                Service {
                    kind: ServiceType::ExternalName,
                    ..external(&v4, "fd00::1")
                },
                None,
                "",
            ),
            (
                Service {
                    other_proxy: true,
                    ..external(&v4, "fd00::1")
                },
                None,
                "",
            ),
        ];
        for (service, endpoints, expected) in table {
            assert_eq!(said(&service, endpoints, Mode::All), expected);
            // Beside kube-proxy it is kube-proxy's to say.
            for mode in [Mode::Vips, Mode::Off] {
                assert_eq!(said(&service, endpoints, mode), "");
            }
        }
    }
}
