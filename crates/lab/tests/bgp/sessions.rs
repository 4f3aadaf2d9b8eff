//! Sessions: what a peer's object says of them, and what is said when there is none.

use lab::router::{Bird, Frr};
use lab::{Process, wait_for, wait_until};

use crate::stage::{Outcome, SOON, Stage, known, object};

/// A neighbour on each of its addresses, each in another way. None of them dials. BIRD takes an
/// address of ours once only, so that most have a source address of their own.
const BIRD: &str = "\
router id 10.0.0.1;
protocol device {}
template bgp corten {
  passive on;
  strict bind on;
  ipv4 { import all; export none; };
}
protocol bgp with_password from corten { local 10.0.0.21 as 64501; password \"right\"; neighbor 10.0.0.11 as 64500; }
protocol bgp with_other_password from corten { local 10.0.0.22 as 64501; password \"other\"; neighbor 10.0.0.122 as 64500; }
protocol bgp with_other_as from corten { local 10.0.0.23 as 64999; neighbor 10.0.0.123 as 64500; }
protocol bgp with_external from corten { local 10.0.0.24 as 64777; neighbor 10.0.0.124 as 64512; }
protocol bgp with_internal from corten { local 10.0.0.25 as 64500; neighbor 10.0.0.125 as 64500; }
protocol bgp with_not_internal from corten { local 10.0.0.26 as 64501; neighbor 10.0.0.126 as 64500; }
protocol bgp with_source from corten { local 10.0.0.27 as 64501; neighbor 10.0.0.127 as 64500; }
protocol bgp with_port from corten { local 10.0.0.28 port 1790 as 64501; hold time 30; neighbor 10.0.0.128 as 64500; }
protocol bgp with_gtsm from corten { local 10.0.0.29 as 64501; ttl security on; neighbor 10.0.0.129 as 64500; }
";

/// Behind the router.
const FAR: &str = "\
router id 10.9.0.9;
protocol device {}
template bgp corten {
  passive on;
  strict bind on;
  multihop 3;
  ipv4 { import all; export none; };
}
protocol bgp with_far from corten { local 10.9.0.9 as 64501; neighbor 10.0.0.11 as 64500; }
protocol bgp with_too_far from corten { local 10.9.0.8 as 64501; neighbor 10.0.0.130 as 64500; }
";

fn peers() -> String {
    let mut text = String::new();
    for (name, spec) in [
        (
            "password",
            "peerAddress: 10.0.0.21, peerASN: 64501, password: right",
        ),
        (
            "other-password",
            "peerAddress: 10.0.0.22, sourceAddress: 10.0.0.122, peerASN: 64501, password: right",
        ),
        (
            "other-as",
            "peerAddress: 10.0.0.23, sourceAddress: 10.0.0.123, peerASN: 64501",
        ),
        (
            "external",
            "peerAddress: 10.0.0.24, sourceAddress: 10.0.0.124, dynamicASN: external, localASN: 64512",
        ),
        (
            "internal",
            "peerAddress: 10.0.0.25, sourceAddress: 10.0.0.125, dynamicASN: internal",
        ),
        (
            "not-internal",
            "peerAddress: 10.0.0.26, sourceAddress: 10.0.0.126, dynamicASN: internal",
        ),
        (
            "source",
            "peerAddress: 10.0.0.27, sourceAddress: 10.0.0.127, peerASN: 64501",
        ),
        (
            "port",
            "peerAddress: 10.0.0.28, sourceAddress: 10.0.0.128, peerASN: 64501, peerPort: 1790, holdTime: 9s, keepaliveTime: 2s",
        ),
        (
            "far",
            "peerAddress: 10.9.0.9, peerASN: 64501, ebgpMultiHop: true",
        ),
        (
            "too-far",
            "peerAddress: 10.9.0.8, sourceAddress: 10.0.0.130, peerASN: 64501",
        ),
    ] {
        let spec = format!("myASN: 64500, connectTime: 1s, {spec}");
        text += &object("BGPPeer", name, &spec);
    }
    let gtsm = "myASN: 64500, connectTime: 1s, peerAddress: 10.0.0.29, sourceAddress: 10.0.0.129, peerASN: 64501";
    text + &object("Peer", "gtsm", &format!("{gtsm}, ttlSecurityHops: 1"))
}

pub(crate) fn one_service(stage: &Stage, peers: &str) -> Outcome {
    let pool = object("IPAddressPool", "pool", "addresses: [192.168.1.0/24]");
    let all = object("BGPAdvertisement", "all", "");
    stage.write("objects.yaml", &(pool + &all))?;
    stage.write("peers.yaml", peers)?;
    stage.label_nodes(&[""])?;
    stage.serve("web", "192.168.1.1", "internalTrafficPolicy: Cluster", &[0])
}

/// Waits until the agent says something of a peer.
pub(crate) async fn says(agent: &Process, peer: &str, what: &str) -> Outcome {
    let peer = format!("\"peer\":\"{peer}\"");
    let awaited = format!("{what} of {peer}");
    let found = wait_for(SOON, &awaited, async || {
        let log = agent.log();
        let mut lines = log.lines().filter(|line| line.contains(&peer));
        if lines.any(|line| line.contains(what)) {
            return Ok(());
        }
        let last = log.lines().rfind(|line| line.contains(&peer));
        Err(last.unwrap_or_default().to_owned())
    });
    Ok(found.await?)
}

#[test]
fn a_session_is_as_its_object_says() {
    lab::run("sessions::a_session_is_as_its_object_says", async |lab| {
        let stage = Stage::of(&lab, 1).await?;
        for last in 21..30 {
            let address = format!("10.0.0.{last}/24");
            stage.router.add_address("eth0", &address).await?;
        }
        let outside = &stage.outside;
        outside.add_address("eth0", "10.9.0.8/24").await?;
        let node = &stage.scene.nodes[0].host;
        for last in 122..131 {
            node.add_address("eth0", &format!("10.0.0.{last}/24"))
                .await?;
        }
        let bird = Bird::start(&stage.router, BIRD).await?;
        let far = Bird::start(outside, FAR).await?;
        one_service(&stage, &peers())?;
        let agent = stage.start()?.pop().expect("one");

        let established = async |bird: &Bird, name: &str| {
            wait_for(SOON, &format!("the session {name}"), async || {
                let command = format!("show protocols all with_{name}");
                let said = bird.ask(&command).map_err(|error| error.to_string())?;
                if said.contains("Established") {
                    Ok(said)
                } else {
                    Err(said)
                }
            })
            .await
        };
        for name in ["password", "external", "internal", "source", "gtsm"] {
            established(&bird, name).await?;
        }
        let port = established(&bird, "port").await?;
        // The lower of both hold times.
        assert!(port.contains("/9\n"), "{port}");
        established(&far, "far").await?;
        // Each has the route, from our AS or the one that stands in its place.
        for (name, path) in [("password", "64500"), ("external", "64512")] {
            let command = format!("show route 192.168.1.1/32 protocol with_{name} all");
            wait_until(SOON, &format!("the route on {name}"), async || {
                let said = bird.ask(&command).unwrap_or_default();
                said.contains(&format!("BGP.as_path: {path}\n"))
            })
            .await?;
        }

        // What keeps the others from being there is named.
        for (peer, what) in [
            ("other-password", "no answer: check password"),
            ("other-as", "wrong AS: expected 64501, got 64999"),
            ("not-internal", "wrong AS: expected our own, got 64501"),
            ("too-far", "cannot connect: unreachable"),
        ] {
            says(&agent, peer, what).await?;
        }
        for name in ["other_password", "other_as", "not_internal"] {
            let said = bird.ask(&format!("show protocols with_{name}"))?;
            assert!(!said.contains("Established"), "{said}");
        }
        let said = far.ask("show protocols with_too_far")?;
        assert!(!said.contains("Established"), "{said}");
        Ok(())
    });
}

fn frr(asn: u32, id: &str, more: &str) -> String {
    format!(
        "frr defaults datacenter\nrouter bgp {asn}\n bgp router-id {id}\n \
         no bgp ebgp-requires-policy\n coalesce-time 0\n \
         neighbor 10.0.0.11 remote-as 64500\n neighbor 10.0.0.11 passive\n {more}\n"
    )
}

/// How often the router's session with the node came up.
pub(crate) fn times_up(frr: &Frr) -> Outcome<Option<u64>> {
    let found = frr.json("show bgp neighbors 10.0.0.11 json")?;
    Ok(found["10.0.0.11"]["connectionsEstablished"].as_u64())
}

/// How many KEEPALIVEs the router has from the node.
fn keepalives(frr: &Frr) -> Outcome<u64> {
    let found = frr.json("show bgp neighbors 10.0.0.11 json")?;
    let count = found["10.0.0.11"]["messageStats"]["keepalivesRecv"].as_u64();
    Ok(count.unwrap_or_default())
}

#[test]
fn a_change_resets_its_own_session_and_a_router_comes_back() {
    lab::run(
        "sessions::a_change_resets_its_own_session_and_a_router_comes_back",
        async |lab| {
            let stage = Stage::of(&lab, 1).await?;
            let (first_as, second_as) = (frr(64501, "10.0.0.1", ""), frr(64502, "10.0.0.2", ""));
            let first = Frr::start(&stage.router, &first_as, "").await?;
            let beside = lab.router("beside").await?;
            stage.scene.lan.attach(&beside, &["10.0.0.2/24"]).await?;
            let second = Frr::start(&beside, &second_as, "").await?;
            let peers = |more: &str| {
                let peer = "myASN: 64500, connectTime: 1s";
                let first = format!("{peer}, peerAddress: 10.0.0.1, peerASN: 64501, {more}");
                let second = format!("{peer}, peerAddress: 10.0.0.2, peerASN: 64502");
                object("BGPPeer", "first", &first) + &object("BGPPeer", "second", &second)
            };
            one_service(&stage, &peers(""))?;
            let agent = stage.start()?.pop().expect("one");
            let there = ["10.0.0.11 as=64500"];
            known(&first, "192.168.1.1/32", &there).await?;
            known(&second, "192.168.1.1/32", &there).await?;

            // Another hold time: the session is made anew, and it alone.
            stage.write("peers.yaml", &peers("holdTime: 6s, keepaliveTime: 2s"))?;
            wait_for(SOON, "the new hold time", async || {
                let found = first.json("show bgp neighbors 10.0.0.11 json");
                let found = found.map_err(|error| error.to_string())?;
                let peer = &found["10.0.0.11"];
                let is =
                    peer["bgpTimerHoldTimeMsecs"] == 6_000 && peer["bgpState"] == "Established";
                is.then_some(()).ok_or_else(|| peer["bgpState"].to_string())
            })
            .await?;
            known(&first, "192.168.1.1/32", &there).await?;
            assert_eq!(times_up(&first)?, Some(2));
            // How long to wait before the next attempt is nothing that an open session minds.
            let same = "holdTime: 6s, keepaliveTime: 1s, connectTime: 2s";
            stage.write(
                "peers.yaml",
                &peers(same).replacen("connectTime: 1s, ", "", 1),
            )?;
            says(&agent, "first", "an open one stays open").await?;
            // More KEEPALIVEs come, on the same session.
            let heard = keepalives(&first)?;
            wait_until(SOON, "KEEPALIVEs", async || {
                keepalives(&first).is_ok_and(|now| now > heard.saturating_add(3))
            })
            .await?;
            assert_eq!(times_up(&first)?, Some(2));

            // The router asks for a password, then the object has it.
            let configure = ["configure terminal", "router bgp 64501"];
            let password = "neighbor 10.0.0.11 password new";
            first.ask(&[configure[0], configure[1], password])?;
            says(&agent, "first", "no answer").await?;
            assert_eq!(times_up(&first)?, Some(2));
            known(&first, "192.168.1.1/32", &[]).await?;
            stage.write(
                "peers.yaml",
                &peers("holdTime: 6s, keepaliveTime: 2s, password: old"),
            )?;
            says(&agent, "first", "no answer: check password").await?;
            stage.write(
                "peers.yaml",
                &peers("holdTime: 6s, keepaliveTime: 2s, password: new"),
            )?;
            known(&first, "192.168.1.1/32", &there).await?;

            // A router that dies and comes back.
            drop(first);
            let with_password = frr(64501, "10.0.0.1", password);
            let first = Frr::start(&stage.router, &with_password, "").await?;
            known(&first, "192.168.1.1/32", &there).await?;

            // Nobody else saw any of it.
            known(&second, "192.168.1.1/32", &there).await?;
            assert_eq!(times_up(&second)?, Some(1));
            Ok(())
        },
    );
}
