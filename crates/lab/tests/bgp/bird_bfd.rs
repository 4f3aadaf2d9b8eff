//! BFD with BIRD on the other side: a dead path, more hops than one, and who has to begin.

use std::net::SocketAddr;

use lab::router::Bird;
use lab::{Host, wait_for, wait_until};

use crate::bird::shows;
use crate::sessions::says;
use crate::stage::{Outcome, SOON, Stage, object};

/// The node finds a dead path in 3 s, BIRD in a time that is far longer.
const NEAR: &str = "\
router id 10.0.0.1;
log stderr all;
debug protocols all;
protocol device {}
protocol bfd liveness { interface \"*\" { interval 300 ms; multiplier 10; }; }
protocol bgp near {
  local 10.0.0.1 as 64501; neighbor 10.0.0.11 as 64500;
  passive on; strict bind on; bfd on; error wait time 1, 2;
  ipv4 { import all; export none; };
}
";

/// Behind the router; it waits for the node's first packet.
const FAR: &str = "\
router id 10.9.0.9;
log stderr all;
debug protocols all;
protocol device {}
protocol bfd liveness { multihop { interval 300 ms; multiplier 10; passive on; }; }
protocol bgp far {
  local 10.9.0.9 as 64509; neighbor 10.0.0.11 as 64500;
  multihop 3; passive on; strict bind on; bfd on; error wait time 1, 2;
  ipv4 { import all; export none; };
}
";

fn objects(near_more: &str) -> String {
    let peer = "myASN: 64500, connectTime: 1s";
    let profile = "receiveInterval: 300, transmitInterval: 300, detectMultiplier: 50";
    object("IPAddressPool", "pool", "addresses: [192.168.1.0/24]")
        + &object("Advertisement", "all", "pools: [pool], bgp: {}")
        + &object("BFDProfile", "near", &format!("{profile}, passiveMode: true"))
        // BIRD sends with the system's TTL, as RFC 5883 lets it: one router on, that is 63.
        + &object("BFDProfile", "far", &format!("{profile}, minimumTtl: 63"))
        + &object("Peer", "near", &format!("{peer}, peerASN: 64501, peerAddress: 10.0.0.1{near_more}"))
        + &object(
            "Peer",
            "far",
            &format!("{peer}, peerASN: 64509, peerAddress: 10.9.0.9, multihop: true, bfdProfile: far"),
        )
}

fn nft(host: &Host, rules: &str) -> Outcome {
    assert!(
        host.command("nft")?.arg(rules).status()?.success(),
        "{rules}"
    );
    Ok(())
}

/// Waits until BIRD's BFD session is up, and it has the route.
async fn alive(bird: &Bird, name: &str) -> Outcome {
    shows(bird, "show bfd sessions", "the node up", |said| {
        let mut lines = said.lines().filter(|line| line.contains("10.0.0.11"));
        lines.any(|line| line.contains("Up"))
    })
    .await?;
    let route = format!("show route protocol {name}");
    shows(bird, &route, "the route", |said| {
        said.contains("192.168.1.1/32")
    })
    .await
}

#[test]
fn bird_and_the_node_watch_the_path() {
    lab::run("bird_bfd::bird_and_the_node_watch_the_path", async |lab| {
        let stage = Stage::of(&lab, 1).await?;
        let mut near = Bird::start(&stage.router, NEAR).await?;
        let far = Bird::start(&stage.outside, FAR).await?;
        stage.write("objects.yaml", &objects(", bfdProfile: near"))?;
        stage.label_nodes(&[""])?;
        stage.serve("web", "192.168.1.1", "externalTrafficPolicy: Cluster", &[0])?;
        let agent = stage.start()?.pop().expect("one");
        // One side of each waits for the other's first packet.
        alive(&far, "far").await?;
        alive(&near, "near").await?;

        // The path to one is dead, that to the other gets longer by a router, as the node sees it.
        // The far one hears that BFD is down, and may be faster to end the session than the node.
        let bad = "table ip bad { \
            chain out { type filter hook output priority 0; udp dport 3784 drop; }; \
            chain in { type filter hook input priority 0; udp dport 3784 drop; }; \
            chain through { type filter hook forward priority 0; \
            ip saddr 10.9.0.9 udp dport 4784 ip ttl set 62; }; }";
        nft(&stage.router, bad)?;
        let node = &stage.scene.nodes[0].host;
        wait_for(SOON, "packets dropped for their TTL", async || {
            let at = SocketAddr::from(([127, 0, 0, 1], 17472));
            let text = node.http_get(at, "/metrics").await;
            let text = text.map_err(|error| error.to_string())?.body;
            let dropped = "corten_bfd_packets_dropped_total{reason=\"ttl\"} ";
            let mut lines = text.lines();
            let found = lines.any(|line| line.starts_with(dropped));
            found.then_some(()).ok_or(text)
        })
        .await?;
        for router in ["10.0.0.1", "10.9.0.9"] {
            says(&agent, router, "control detection time expired").await?;
        }
        // RFC 9384; this BIRD has no words for it.
        says(&agent, "near", "BFD says that the path is down").await?;
        wait_until(SOON, "the reason at BIRD", async || {
            let log = near.process().log();
            log.contains("near: Received: Unknown error 6.10")
        })
        .await?;
        nft(&stage.router, "delete table ip bad")?;
        alive(&far, "far").await?;
        alive(&near, "near").await?;

        // The object asks for BFD no more, and BIRD is told. This one takes that for a failure: the
        // session of BGP comes back without BFD.
        stage.write("objects.yaml", &objects(""))?;
        wait_until(SOON, "an end on purpose at BIRD", async || {
            let log = near.process().log();
            log.contains("CTL received from 10.0.0.11 [AdminDown]")
        })
        .await?;
        says(&agent, "10.0.0.1", "which is no failure").await?;
        let route = "show route protocol near";
        shows(&near, route, "the route", |said| {
            said.contains("192.168.1.1/32")
        })
        .await
    });
}
