//! What BGP scenes have beside the nodes: a router on their LAN, a client behind it.

use crate::scene::Scene;
use crate::{Host, Lab, LabError};

/// FRR as the router of examples/bgp: 10.0.0.1, AS 64501. It takes every node as a neighbour, and
/// all their routes at once (`multipath-relax`, `maximum-paths`).
pub const FRR: &str = "\
frr defaults datacenter
router bgp 64501
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp bestpath as-path multipath-relax
 timers bgp 3 9
 coalesce-time 0
 neighbor NODES peer-group
 neighbor NODES remote-as 64500
 bgp listen range 10.0.0.0/24 peer-group NODES
 address-family ipv4 unicast
  neighbor NODES activate
  maximum-paths 16
 exit-address-family
";

/// The router and the client behind it.
#[derive(Debug, Clone)]
pub struct Uplink {
    /// 10.0.0.1 on the LAN, 10.9.0.1 outside.
    pub router: Host,
    /// 10.9.0.9.
    pub outside: Host,
}

impl Uplink {
    /// Adds both to a scene, with routes.
    pub async fn build(lab: &Lab, scene: &Scene) -> Result<Self, LabError> {
        let router = lab.router("router").await?;
        scene.lan.attach(&router, &["10.0.0.1/24"]).await?;
        let far = lab.segment("far").await?;
        let outside = lab.host("outside").await?;
        far.attach(&router, &["10.9.0.1/24"]).await?;
        far.attach(&outside, &["10.9.0.9/24"]).await?;
        outside.add_route("0.0.0.0/0", "10.9.0.1").await?;
        for node in &scene.nodes {
            node.host.add_route("10.9.0.0/24", "10.0.0.1").await?;
        }
        // Each connection its own way, not each pair of hosts.
        router.sysctl("net.ipv4.fib_multipath_hash_policy", "1")?;
        Ok(Self { router, outside })
    }
}
