//! Peers on an interface, without any address in their objects: on a segment that has none.

use std::net::{IpAddr, SocketAddr};

use lab::router::{Bird, Frr};
use lab::{Lab, Segment, wait_for};

use crate::sessions::{one_service, says};
use crate::stage::{Outcome, SOON, Stage, object};

/// `eth2` of the router is on the fabric.
const FRR: &str = "\
frr defaults datacenter
router bgp 64501
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 timers bgp 3 9
 coalesce-time 0
 neighbor eth2 interface v6only remote-as external
 neighbor eth2 bfd profile calm
 address-family ipv6 unicast
  neighbor eth2 activate
 exit-address-family
";

const BFDD: &str = "\
bfd
 profile calm
  detect-multiplier 20
  transmit-interval 500
  receive-interval 500
";

const BIRD: &str = "\
router id 10.0.0.1;
protocol device {}
protocol radv { interface \"eth2\" { max ra interval 5; }; }
protocol bgp fabric {
  local as 64501;
  neighbor range fe80::/10 external;
  interface \"eth2\";
  hold time 9;
  ipv4 { import all; export none; extended next hop on; };
  ipv6 { import all; export none; };
}
";

const PEER: &str = "myASN: 64500, dynamicASN: external, interface: eth1, connectTime: 1s, \
                    holdTime: 9s, keepaliveTime: 3s";

/// A router on a segment that no node is on yet.
async fn build(lab: &Lab) -> Outcome<(Stage, Segment)> {
    let stage = Stage::of(lab, 1).await?;
    let fabric = lab.segment("fabric").await?;
    assert_eq!(fabric.attach(&stage.router, &[]).await?, "eth2");
    Ok((stage, fabric))
}

/// The link-local address of the node on the fabric.
async fn own(stage: &Stage) -> Outcome<String> {
    let host = &stage.scene.nodes[0].host;
    let found = wait_for(SOON, "a link-local address", async || {
        let interface = host.interface("eth1").await;
        let interface = interface.map_err(|error| error.to_string())?;
        let mut all = interface.addresses.iter().map(|(ip, _)| *ip);
        let found = all.find(|ip| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()));
        found.ok_or_else(|| format!("{interface:?}"))
    });
    Ok(found.await?.to_string())
}

async fn page(stage: &Stage) -> Outcome {
    let service = SocketAddr::from(([192, 168, 1, 1], 80));
    let page = wait_for(SOON, "a page", async || {
        let answer = stage.router.http_get(service, "/").await;
        answer.map(drop).map_err(|error| error.to_string())
    });
    Ok(page.await?)
}

#[test]
fn frr_is_found_on_an_interface_that_comes_later() {
    lab::run(
        "unnumbered::frr_is_found_on_an_interface_that_comes_later",
        async |lab| {
            let (stage, fabric) = build(&lab).await?;
            let frr = Frr::start(&stage.router, FRR, BFDD).await?;
            let profile = "receiveInterval: 500, transmitInterval: 500, detectMultiplier: 20";
            let objects = object("BGPPeer", "fabric", &format!("{PEER}, bfdProfile: calm"))
                + &object("BFDProfile", "calm", profile);
            one_service(&stage, &objects)?;
            let agent = stage.start()?.pop().expect("one");
            says(&agent, "fabric", "this node has no interface eth1").await?;

            let node = &stage.scene.nodes[0].host;
            assert_eq!(fabric.attach(node, &[]).await?, "eth1");
            let own = own(&stage).await?;
            let there = async |prefix: &str| {
                let what = format!("{prefix} by {own}");
                wait_for(SOON, &what, async || match frr.next_hops(prefix) {
                    Ok(hops) if hops == [own.clone()] => Ok(()),
                    other => Err(format!("{other:?}")),
                })
                .await
            };
            there("192.168.1.1/32").await?;
            page(&stage).await?;
            wait_for(SOON, "BFD", async || {
                let found = frr.json("show bfd peers json");
                let found = found.map_err(|error| error.to_string())?;
                let peer = &found[0];
                let up = peer["status"] == "up" && peer["peer"] == *own;
                up.then_some(()).ok_or_else(|| found.to_string())
            })
            .await?;

            // The cable is pulled: that is seen at once, and mended when it is back.
            fabric.unplug(node).await?;
            says(&agent, "fabric", "the interface is down").await?;
            says(&agent, "fabric", "interface eth1 has no carrier").await?;
            fabric.heal(node).await?;
            wait_for(SOON, "the session to be back", async || {
                let log = agent.log();
                let ups = log.matches("session established").count();
                (ups > 1).then_some(()).ok_or_else(|| ups.to_string())
            })
            .await?;
            there("192.168.1.1/32").await?;
            page(&stage).await?;
            Ok(())
        },
    );
}

#[test]
fn bird_takes_who_comes_from_the_link() {
    lab::run(
        "unnumbered::bird_takes_who_comes_from_the_link",
        async |lab| {
            let (stage, fabric) = build(&lab).await?;
            one_service(&stage, &object("BGPPeer", "fabric", PEER))?;
            let node = &stage.scene.nodes[0].host;
            assert_eq!(fabric.attach(node, &[]).await?, "eth1");
            let agent = stage.start()?.pop().expect("one");
            says(&agent, "fabric", "no router advertisement heard on eth1").await?;

            let bird = Bird::start(&stage.router, BIRD).await?;
            let own = own(&stage).await?;
            wait_for(SOON, "the route at BIRD", async || {
                let said = bird.ask("show route for 192.168.1.1/32 all");
                let said = said.map_err(|error| error.to_string())?;
                let is = said.contains(&format!("via {own} on eth2"))
                    && said.contains("BGP.as_path: 64500\n");
                if is { Ok(()) } else { Err(said) }
            })
            .await?;
            Ok(())
        },
    );
}
