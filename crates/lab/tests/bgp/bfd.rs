//! BFD with FRR's bfdd on the other side.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lab::router::Frr;
use lab::{Lab, Process, wait_for, wait_until};
use serde_json::Value;

use crate::stage::{Outcome, SOON, Stage};

const PREFIX: &str = "192.168.10.0/32";
/// Clearly less than what is left of the hold time of 9 s when a neighbour falls silent, which is
/// 6 s at least; far more than the 150 ms of BFD.
const BEFORE_HOLD: Duration = Duration::from_secs(4);

/// The settings of both sides, under this name.
struct Profile {
    name: &'static str,
    /// Milliseconds.
    interval: u32,
    multiplier: u8,
    echo: bool,
}

/// Three missed packets in 150 ms.
const FAST: Profile = Profile {
    name: "fast",
    interval: 50,
    multiplier: 3,
    echo: false,
};

/// Only an end on purpose takes these sessions down on a busy machine.
const CALM: Profile = Profile {
    name: "calm",
    interval: 500,
    multiplier: 20,
    echo: false,
};

/// The router and the manifests; no agent runs yet.
async fn build(lab: &Lab, profile: &Profile) -> Outcome<Scene> {
    let Profile {
        name: profile,
        interval,
        multiplier,
        echo,
    } = *profile;
    let stage = Stage::build(lab).await?;
    let mut bgpd = "\
frr defaults datacenter
router bgp 64501
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 timers bgp 3 9
 coalesce-time 0
"
    .to_owned();
    for node in &stage.scene.nodes {
        let ip = node.ip;
        bgpd += &format!(
            " neighbor {ip} remote-as 64500\n neighbor {ip} passive\n \
             neighbor {ip} bfd profile {profile}\n"
        );
    }
    bgpd += " address-family ipv4 unicast\n  maximum-paths 16\n";
    let mut bfdd = format!(
        "bfd\n profile {profile}\n  detect-multiplier {multiplier}\n  \
         transmit-interval {interval}\n  receive-interval {interval}\n"
    );
    if echo {
        bfdd += &format!(
            "  echo-mode\n  echo transmit-interval {interval}\n  \
             echo receive-interval {interval}\n"
        );
    }
    let frr = Frr::start(&stage.router, &bgpd, &bfdd).await?;
    stage.example()?;
    // FRR's connection attempts find nobody; ours come at once.
    stage.write(
        "sample.yaml",
        &format!(
            "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\n\
             metadata: {{name: sample, namespace: metallb-system}}\n\
             spec: {{myASN: 64500, peerASN: 64501, peerAddress: 10.0.0.1, connectTime: 1s, \
             bfdProfile: {profile}}}\n---\n\
             apiVersion: metallb.io/v1beta1\nkind: BFDProfile\n\
             metadata: {{name: {profile}, namespace: metallb-system}}\n\
             spec: {{receiveInterval: {interval}, transmitInterval: {interval}, \
             detectMultiplier: {multiplier}, echoMode: {echo}, echoInterval: {interval}}}\n"
        ),
    )?;
    Ok(Scene {
        stage,
        frr,
        processes: Vec::new(),
    })
}

struct Scene {
    stage: Stage,
    frr: Frr,
    processes: Vec<Process>,
}

impl Scene {
    fn start(&mut self) -> Outcome {
        self.processes = self.stage.start()?;
        Ok(())
    }

    fn ip(&self, node: usize) -> String {
        self.stage.scene.nodes[node].ip.to_string()
    }

    /// FRR's BFD session with a node.
    fn bfd(&self, node: usize) -> Result<Value, String> {
        let ip = self.ip(node);
        let found = self.frr.json("show bfd peers json");
        let found = found.map_err(|error| error.to_string())?;
        let mut peers = found.as_array().into_iter().flatten();
        let peer = peers.find(|peer| peer["peer"] == *ip);
        peer.cloned().ok_or_else(|| format!("no {ip} in {found}"))
    }

    /// Waits until FRR's BFD session is as `wanted` (key and value).
    async fn bfd_is(&self, node: usize, wanted: &[(&str, Value)]) -> Outcome {
        let what = format!("BFD of {} with {wanted:?}", self.ip(node));
        wait_for(SOON, &what, async || {
            let peer = self.bfd(node)?;
            let is = |(key, value): &(&str, Value)| peer[*key] == *value;
            if wanted.iter().all(is) {
                Ok(())
            } else {
                Err(peer.to_string())
            }
        })
        .await?;
        Ok(())
    }

    async fn logs(&self, node: usize, text: &str) -> Outcome {
        let what = format!("{text:?} in the log of {}", self.ip(node));
        wait_until(SOON, &what, async || {
            self.processes[node].log().contains(text)
        })
        .await?;
        Ok(())
    }

    /// Waits until FRR has the route by the node, or not.
    async fn routed(&self, node: usize, wanted: bool) -> Outcome {
        let ip = self.ip(node);
        let what = format!("{PREFIX} by {ip}: {wanted}");
        wait_for(SOON, &what, async || match self.frr.next_hops(PREFIX) {
            Ok(hops) if hops.contains(&ip) == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
        Ok(())
    }

    fn neighbour(&self, node: usize) -> Outcome<Value> {
        let ip = self.ip(node);
        let found = self.frr.json(&format!("show bgp neighbors {ip} json"))?;
        Ok(found[&ip].clone())
    }
}

#[test]
fn a_silent_path_is_found_long_before_the_hold_time() {
    lab::run(
        "bfd::a_silent_path_is_found_long_before_the_hold_time",
        async |lab| {
            let mut scene = build(&lab, &FAST).await?;
            scene.start()?;
            for node in 0..3 {
                let up = [
                    ("status", "up".into()),
                    ("transmit-interval", 50.into()),
                    ("remote-transmit-interval", 50.into()),
                    ("remote-receive-interval", 50.into()),
                    ("remote-detect-multiplier", 3.into()),
                ];
                scene.logs(node, "BFD session up").await?;
                scene.routed(node, true).await?;
                scene.bfd_is(node, &up).await?;
            }

            scene.bfd_is(1, &[("status", "up".into())]).await?;
            let cut = Instant::now();
            scene.stage.scene.nodes[1].host.cut().await?;
            scene.routed(1, false).await?;
            let gone = cut.elapsed();
            lab.say(format!("cut: route gone after {gone:?}"));
            assert!(gone < BEFORE_HOLD, "{gone:?}");
            scene.logs(1, "BFD: the path has failed").await?;
            scene.logs(1, "BFD says that the path is down").await?;
            // RFC 9384, from whichever side.
            let log = scene.frr.daemon("bgpd").log();
            let mut lines = log
                .lines()
                .filter(|line| line.contains("neighbor 10.0.0.12"));
            assert!(
                lines.any(|line| line.contains("6/10 (Cease/BFD Down)")),
                "{log}"
            );

            // Neither side waits for BFD before it speaks BGP again.
            scene.stage.scene.nodes[1].host.heal().await?;
            scene.routed(1, true).await?;
            scene.bfd_is(1, &[("status", "up".into())]).await?;
            Ok(())
        },
    );
}

#[test]
fn an_end_on_purpose_is_no_failure() {
    lab::run("bfd::an_end_on_purpose_is_no_failure", async |lab| {
        let mut scene = build(&lab, &CALM).await?;
        scene.start()?;
        for node in 0..3 {
            scene.bfd_is(node, &[("status", "up".into())]).await?;
            scene.routed(node, true).await?;
        }

        // Ours: FRR is told, after the session of BGP has ended.
        scene.processes[2].terminate();
        scene.processes[2].wait(SOON).await?;
        let told = [
            ("status", "down".into()),
            ("diagnostic", "neighbor signaled session down".into()),
            ("remote-diagnostic", "administratively down".into()),
        ];
        scene.bfd_is(2, &told).await?;
        scene.routed(2, false).await?;
        let log = scene.frr.daemon("bgpd").log();
        let down = log.lines().filter(|line| line.contains("Down "));
        let down: Vec<&str> = down.filter(|line| line.contains("10.0.0.13")).collect();
        let last = down.last().expect("a line");
        assert!(last.ends_with("BGP Notification received"), "{down:?}");

        // FRR's: BGP goes on. On a busy machine FRR may have made its session anew before, when
        // BGP came up, which looks like a failure.
        let dropped = scene.neighbour(0)?["connectionsDropped"].clone();
        let failures = |scene: &Scene| {
            let log = scene.processes[0].log();
            log.matches("the path has failed").count()
        };
        let failed = failures(&scene);
        let shut = ["configure terminal", "bfd", "profile calm", "shutdown"];
        scene.frr.ask(&shut)?;
        scene.logs(0, "which is no failure").await?;
        let neighbour = scene.neighbour(0)?;
        assert_eq!(neighbour["bgpState"], "Established", "{neighbour:#}");
        assert_eq!(neighbour["connectionsDropped"], dropped, "{neighbour:#}");
        assert_eq!(failures(&scene), failed);
        Ok(())
    });
}

#[test]
fn a_port_in_use_is_named_and_bgp_goes_on() {
    lab::run("bfd::a_port_in_use_is_named_and_bgp_goes_on", async |lab| {
        let mut scene = build(&lab, &CALM).await?;
        let host = &scene.stage.scene.nodes[1].host;
        let other = host.run(|| UdpSocket::bind("0.0.0.0:3784"))??;
        scene.start()?;
        scene.logs(1, "another BFD daemon has the port").await?;
        scene.routed(1, true).await?;
        // FRR hears us, so that it may be "init" there.
        assert_ne!(scene.bfd(1)?["status"], "up");

        drop(other);
        scene.bfd_is(1, &[("status", "up".into())]).await?;
        Ok(())
    });
}

#[test]
fn control_packets_do_where_echo_is_asked_for() {
    lab::run(
        "bfd::control_packets_do_where_echo_is_asked_for",
        async |lab| {
            let echo = Profile {
                name: "echo",
                interval: 200,
                echo: true,
                ..CALM
            };
            let mut scene = build(&lab, &echo).await?;
            scene.start()?;
            scene.bfd_is(0, &[("status", "up".into())]).await?;

            scene.logs(0, "echo mode is not served yet").await?;
            let host = &scene.stage.scene.nodes[0].host;
            wait_for(SOON, "the metrics of the session", async || {
                let at = SocketAddr::from(([127, 0, 0, 1], 17472));
                let text = host.http_get(at, "/metrics").await;
                let text = text.map_err(|error| error.to_string())?.body;
                let count = |name: &str| {
                    let name = format!("metallb_bfd_{name}{{peer=\"10.0.0.1\",vrf=\"default\"}} ");
                    let found = text.lines().find_map(|line| line.strip_prefix(&name));
                    found.and_then(|count| count.parse::<u64>().ok())
                };
                let enough = |name| count(name).is_some_and(|count| count > 5);
                if count("session_up") == Some(1)
                    && enough("control_packet_input")
                    && enough("control_packet_output")
                    && count("session_up_events") >= Some(1)
                    && count("zebra_notifications") >= Some(1)
                    // There from the start: tools compare them (`spec/metallb.md` §5).
                    && count("session_down_events") == Some(0)
                    && count("echo_packet_input") == Some(0)
                    && count("echo_packet_output") == Some(0)
                {
                    Ok(())
                } else {
                    Err(text.clone())
                }
            })
            .await?;
            scene.bfd_is(0, &[("status", "up".into())]).await?;
            assert!(!scene.processes[0].log().contains("the path has failed"));
            Ok(())
        },
    );
}
