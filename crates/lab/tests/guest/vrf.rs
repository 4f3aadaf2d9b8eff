//! BGP and BFD in a VRF, beside a router outside of it that has the very same address.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use lab::router::Bird;
use lab::{Host, Lab, Outcome, bin, wait_for};

use crate::kernel::ip;

/// Long enough for an emulated machine.
const SOON: Duration = Duration::from_secs(120);

const MANIFESTS: &str = "\
apiVersion: v1
kind: Node
metadata: {name: node}
status: {addresses: [{type: InternalIP, address: 10.0.0.11}]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: pool, namespace: metallb-system}
spec: {addresses: [192.168.10.0/24]}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: inside, namespace: metallb-system}
spec: {peers: [inside]}
---
apiVersion: metallb.io/v1beta1
kind: BFDProfile
metadata: {name: calm, namespace: metallb-system}
spec: {receiveInterval: 1000, transmitInterval: 1000, detectMultiplier: 30}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: inside, namespace: metallb-system}
spec: {myASN: 64500, peerASN: 64501, peerAddress: 10.0.0.1, connectTime: 1s, vrf: red,
  password: secret, bfdProfile: calm}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: outside, namespace: metallb-system}
spec: {myASN: 64500, peerASN: 64502, peerAddress: 10.0.0.1, connectTime: 1s}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: LoadBalancer, ports: [{protocol: TCP, port: 80, targetPort: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: \"\", protocol: TCP, port: 80}]
endpoints: [{addresses: [10.244.1.2], nodeName: node, conditions: {ready: true}}]
";

/// A router of this AS that waits for the node.
fn router(asn: u32, more: &str) -> String {
    format!(
        "router id 10.0.0.1;\nprotocol device {{}}\n\
         protocol bfd {{ interface \"*\" {{ interval 1 s; multiplier 30; }}; }}\n\
         protocol bgp node {{ local 10.0.0.1 as {asn}; neighbor 10.0.0.11 as 64500; passive; \
         {more} ipv4 {{ import all; export none; }}; }}\n"
    )
}

async fn metrics(node: &Host) -> Result<String, String> {
    let at = SocketAddr::from(([127, 0, 0, 1], 17472));
    let answer = node.http_get(at, "/metrics").await;
    Ok(answer.map_err(|error| error.to_string())?.body)
}

/// Waits until the metrics have all these lines.
async fn shows(node: &Host, lines: &[&str]) -> Outcome {
    wait_for(SOON, &format!("{lines:?} in the metrics"), async || {
        let text = metrics(node).await?;
        let missing = lines.iter().find(|line| !text.lines().any(|l| l == **line));
        match missing {
            None => Ok(()),
            Some(line) => {
                let sessions = text.lines().filter(|line| line.contains("session_up{"));
                Err(format!("no {line}, but {:?}", sessions.collect::<Vec<_>>()))
            }
        }
    })
    .await?;
    Ok(())
}

async fn story(lab: Lab) -> Outcome {
    let (red, lan) = (lab.segment("red").await?, lab.segment("lan").await?);
    let node = lab.node("node").await?;
    let (inside, outside) = (lab.router("inside").await?, lab.router("outside").await?);
    for (segment, router) in [(&red, &inside), (&lan, &outside)] {
        segment.attach(router, &["10.0.0.1/24"]).await?;
        segment.attach(&node, &["10.0.0.11/24"]).await?;
    }
    ip(&node, "link add red type vrf table 100")?;
    ip(&node, "link set red up")?;
    ip(&node, "link set eth0 master red")?;

    // The router outside of the VRF would take either session for its own.
    let beside = Bird::start(&outside, &router(64502, "")).await?;
    let dir = lab.dir().join("manifests");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("all.yaml"), MANIFESTS)?;
    let mut agent = node.command(bin("corten")?)?;
    agent.arg("run").arg(&dir);
    // Each module of nftables that the kernel has to ask for costs a second here.
    agent.args(["--node-name", "node", "--forward", "off"]);
    let agent = node.spawn("run", agent)?;
    let up = "metallb_bgp_session_up{peer=\"10.0.0.1:179\",vrf=";
    shows(
        &node,
        &[&format!("{up}\"default\"}} 1"), &format!("{up}\"red\"}} 0")],
    )
    .await?;
    lab.say("a session outside of the VRF, none inside");

    // The one inside, with a password and BFD: each socket of both has to be in the VRF.
    let config = router(64501, "password \"secret\"; bfd on;");
    let within = Bird::start(&inside, &config).await?;
    shows(
        &node,
        &[
            &format!("{up}\"default\"}} 1"),
            &format!("{up}\"red\"}} 1"),
            "metallb_bfd_session_up{peer=\"10.0.0.1\",vrf=\"red\"} 1",
        ],
    )
    .await?;
    wait_for(SOON, "the route at the router inside", async || {
        let routes = within.ask("show route 192.168.10.0/32");
        let routes = routes.map_err(|error| error.to_string())?;
        match routes.contains("via 10.0.0.11") {
            true => Ok(()),
            false => Err(routes),
        }
    })
    .await?;
    lab.say("a session, BFD and a route inside");
    let sessions = within.ask("show bfd sessions")?;
    assert!(sessions.contains("10.0.0.11"), "{sessions}");
    assert!(within.ask("show protocols all node")?.contains("64500"));

    // Neither answers for the other: the outside has no route, and goes alone.
    let routes = beside.ask("show route")?;
    assert!(!routes.contains("192.168.10.0"), "{routes}");
    drop(beside);
    shows(
        &node,
        &[&format!("{up}\"default\"}} 0"), &format!("{up}\"red\"}} 1")],
    )
    .await?;
    drop(agent);
    Ok(())
}

#[test]
fn a_session_in_a_vrf_is_that_of_the_vrf() {
    let name = "vrf::a_session_in_a_vrf_is_that_of_the_vrf";
    lab::guest::run(name, &["bridge", "veth", "vrf"], story);
}
