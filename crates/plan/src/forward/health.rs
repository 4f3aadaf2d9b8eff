//! Who answers the health checks of an outer load balancer (`spec/dataplane.md` §1.9).

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::select::forwarded;
use super::{Mode, NodePorts};
use crate::name::{Name, ServiceKey};
use crate::net::Family;
use crate::world::{Policy, Service, ServiceType, World};

/// A port of the node that says whether a Service has endpoints here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// `spec.healthCheckNodePort`.
    pub port: u16,
    /// How many ready endpoints of the Service are on this node.
    pub endpoints: usize,
    /// Where that is answered; `None`: on all addresses.
    #[serde(default)]
    pub listen: Option<Vec<IpAddr>>,
    /// The Service's UID; events refer to it.
    pub uid: Name,
}

/// The health check of `service` on node `me`: in a service proxy's place, and where the policy is
/// Local.
pub fn health_check(
    world: &World,
    me: &str,
    mode: Mode,
    node_ports: &NodePorts,
    service: &ServiceKey,
) -> Option<HealthCheck> {
    let service = world.service(service)?;
    let wanted = mode == Mode::All
        && forwarded(service, mode)
        && service.kind == ServiceType::LoadBalancer
        && service.external_policy == Policy::Local
        && service.health_check_node_port != 0;
    wanted.then(|| {
        // A Pod with addresses of both families is one endpoint.
        let count = |family| ready(world, service, family, me);
        HealthCheck {
            port: service.health_check_node_port,
            endpoints: count(Family::V4).max(count(Family::V6)),
            listen: node_ports.listen(world.node(me)),
            uid: service.uid.clone(),
        }
    })
}

/// How many addresses here are ready at some port.
fn ready(world: &World, service: &Service, family: Family, me: &str) -> usize {
    let sockets = world.endpoints().sockets(&service.key, family, me);
    let sockets = sockets.values().flatten();
    let ready = sockets.filter(|(_, it)| it.ready && it.node.as_deref() == Some(me));
    ready
        .map(|((address, _), _)| address)
        .collect::<BTreeSet<_>>()
        .len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::tests::{Told, balancer, key, slice};
    use crate::world::{Service, Slice};

    #[test]
    fn under_policy_local_ready_endpoints_on_this_node_count() {
        let local = Service {
            external_policy: Policy::Local,
            health_check_node_port: 30_001,
            ..balancer("s", "10.0.0.1")
        };
        let cases: [(Service, Mode, &str, Option<usize>); 9] = [
            (local.clone(), Mode::All, "", Some(0)),
            (local.clone(), Mode::All, "10.244.0.1@n", Some(1)),
            (
                local.clone(),
                Mode::All,
                "10.244.0.1@n 10.244.0.2@n 10.244.0.3@m",
                Some(2),
            ),
            // Serving while it terminates is not enough.
            (local.clone(), Mode::All, "~10.244.0.1@n", Some(0)),
            (local.clone(), Mode::Vips, "10.244.0.1@n", None),
            (local.clone(), Mode::Off, "10.244.0.1@n", None),
            (
                Service {
                    health_check_node_port: 0,
                    ..local.clone()
                },
                Mode::All,
                "10.244.0.1@n",
                None,
            ),
            (
                Service {
                    external_policy: Policy::Cluster,
                    ..local.clone()
                },
                Mode::All,
                "10.244.0.1@n",
                None,
            ),
            (
                Service {
                    other_proxy: true,
                    ..local
                },
                Mode::All,
                "10.244.0.1@n",
                None,
            ),
        ];
        for (service, mode, endpoints, wanted) in cases {
            let mut told = Told::common("n m");
            told.service(service);
            told.slice("s", slice("s", endpoints));
            let found = health_check(&told.world, "n", mode, &NodePorts::default(), &key("s"));
            let found = found.map(|check| {
                assert_eq!(check.port, 30_001);
                check.endpoints
            });
            assert_eq!(found, wanted, "{mode:?} {endpoints:?}");
        }
    }

    /// Endpoints of several slices, and of slices without ports.
    #[test]
    fn an_address_counts_once_where_it_can_be_reached() {
        let count = |slices: &[Slice]| {
            let mut told = Told::common("n");
            told.service(Service {
                external_policy: Policy::Local,
                health_check_node_port: 30_001,
                ..balancer("s", "10.0.0.1")
            });
            for (number, slice) in slices.iter().enumerate() {
                told.slice(&format!("s-{number}"), slice.clone());
            }
            let ports = NodePorts::default();
            health_check(&told.world, "n", Mode::All, &ports, &key("s")).map(|it| it.endpoints)
        };
        let two = || slice("s", "10.244.0.1@n 10.244.0.2@n");
        let mut other_port = two();
        other_port.ports[0].port = 8081;
        let mut none = two();
        none.ports.clear();
        assert_eq!(count(&[two(), two()]), Some(2));
        assert_eq!(count(&[two(), other_port]), Some(2));
        assert_eq!(count(&[none]), Some(0));
        // A Pod elsewhere has the address now.
        let moved = slice("s", "10.244.0.1@m");
        assert_eq!(count(&[slice("s", "~10.244.0.1@n"), moved]), Some(0));
    }

    #[test]
    fn a_pod_of_two_families_is_one_endpoint() {
        let mut told = Told::common("n");
        told.service(Service {
            external_policy: Policy::Local,
            health_check_node_port: 30_001,
            ..balancer("s", "10.0.0.1")
        });
        let four = slice("s", "10.244.0.1@n");
        let mut six: Slice = four.clone();
        six.family = Family::V6;
        for endpoint in &mut six.endpoints {
            endpoint.address = crate::world::tests::ip("fd00::1");
        }
        told.slice("s-4", four);
        told.slice("s-6", six);
        let check = health_check(
            &told.world,
            "n",
            Mode::All,
            &NodePorts::default(),
            &key("s"),
        );
        assert_eq!(check.map(|check| check.endpoints), Some(1));
    }
}
