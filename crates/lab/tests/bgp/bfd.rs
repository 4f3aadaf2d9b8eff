//! BFD with FRR's bfdd on the other side.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lab::router::Frr;
use lab::{Host, Lab, Process, wait_for, wait_until};
use serde_json::Value;

use crate::stage::{Outcome, SOON, Stage, object};

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
    /// Milliseconds between echo packets.
    echo: Option<u32>,
}

/// Three missed packets in 150 ms.
const FAST: Profile = Profile {
    name: "fast",
    interval: 50,
    multiplier: 3,
    echo: None,
};

/// Only an end on purpose takes these sessions down on a busy machine.
const CALM: Profile = Profile {
    name: "calm",
    interval: 500,
    multiplier: 20,
    echo: None,
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
    let mut echo_mode = String::new();
    if let Some(echo) = echo {
        bfdd += &format!(
            "  echo-mode\n  echo transmit-interval {echo}\n  echo receive-interval {echo}\n"
        );
        echo_mode = format!(", echoMode: true, echoInterval: {echo}");
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
             detectMultiplier: {multiplier}{echo_mode}}}\n"
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

/// Control packets would need 10 s to find a dead path, echo packets need 2 s.
const ECHO: Profile = Profile {
    name: "echo",
    interval: 200,
    multiplier: 10,
    echo: Some(200),
};

const METRICS: [&str; 8] = [
    "control_packet_input",
    "control_packet_output",
    "echo_packet_input",
    "echo_packet_output",
    "session_down_events",
    "session_up",
    "session_up_events",
    "zebra_notifications",
];

/// The counters of the session with the router at this address, as a node's metrics show them.
async fn counters(node: &Host, router: &str) -> Result<BTreeMap<String, u64>, String> {
    let at = SocketAddr::from(([127, 0, 0, 1], 17472));
    let text = node.http_get(at, "/metrics").await;
    let text = text.map_err(|error| error.to_string())?.body;
    let labels = format!("{{peer=\"{router}\",vrf=\"default\"}} ");
    let lines = text.lines().filter_map(|line| {
        let line = line.strip_prefix("metallb_bfd_")?;
        let (name, count) = line.split_once(&labels)?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    Ok(lines.collect())
}

/// FRR's side of the same.
fn counted(frr: &Frr, node: &str) -> Result<Value, String> {
    let found = frr.json("show bfd peers counters json");
    let found = found.map_err(|error| error.to_string())?;
    let mut peers = found.as_array().into_iter().flatten();
    peers
        .find(|peer| peer["peer"] == *node)
        .cloned()
        .ok_or_else(|| format!("no {node} in {found}"))
}

/// Whether echo packets of both sides go and come back.
fn round(ours: &BTreeMap<String, u64>, theirs: &Value) -> Result<(), String> {
    let count = |name: &str| ours.get(name).copied().unwrap_or_default();
    let enough = |name: &str| theirs[name].as_u64() > Some(5);
    if count("session_up") == 1
        && count("control_packet_input") > 1
        && count("echo_packet_input") > 5
        && count("echo_packet_output") > 5
        && enough("echo-packet-input")
        && enough("echo-packet-output")
    {
        Ok(())
    } else {
        Err(format!("{ours:?} {theirs}"))
    }
}

#[test]
fn echo_packets_go_round_and_find_a_path_that_control_packets_do_not() {
    lab::run(
        "bfd::echo_packets_go_round_and_find_a_path_that_control_packets_do_not",
        async |lab| {
            let mut scene = build(&lab, &ECHO).await?;
            // Nobody but the agent sends FRR's echo packets back there.
            let quiet = &scene.stage.scene.nodes[1].host;
            quiet.sysctl("net.ipv4.ip_forward", "0")?;
            scene.start()?;
            for node in 0..3 {
                // §6.8.3 of RFC 5880: one second between control packets where echo detects.
                let up = [
                    ("status", "up".into()),
                    ("remote-echo-receive-interval", 200.into()),
                    ("remote-receive-interval", 1000.into()),
                ];
                scene.bfd_is(node, &up).await?;
            }
            for node in 0..2 {
                wait_for(SOON, "echo packets both ways", async || {
                    let host = &scene.stage.scene.nodes[node].host;
                    let ours = counters(host, "10.0.0.1").await?;
                    round(&ours, &counted(&scene.frr, &scene.ip(node))?)
                })
                .await?;
            }

            // All are there from the start: tools compare them (`spec/metallb.md` §5).
            let host = &scene.stage.scene.nodes[2].host;
            wait_for(SOON, "all metrics of a session", async || {
                let names = counters(host, "10.0.0.1").await?.into_keys();
                let names: Vec<String> = names.collect();
                if names == METRICS {
                    Ok(())
                } else {
                    Err(format!("{names:?}"))
                }
            })
            .await?;

            // Echo packets alone are lost, and those of one node: both sides' control packets go on.
            let lossy = "table ip lossy { chain forward { \
                         type filter hook forward priority 0; \
                         ip saddr 10.0.0.11 udp dport 3785 drop; }; }";
            let mut nft = scene.stage.router.command("nft")?;
            assert!(nft.arg(lossy).status()?.success());
            let cut = Instant::now();
            scene.logs(0, "echo function failed").await?;
            lab.say(format!("echo lost: found after {:?}", cut.elapsed()));
            scene.logs(0, "BFD says that the path is down").await?;

            let mut nft = scene.stage.router.command("nft")?;
            assert!(
                nft.args(["delete", "table", "ip", "lossy"])
                    .status()?
                    .success()
            );
            scene.bfd_is(0, &[("status", "up".into())]).await?;
            scene.routed(0, true).await?;
            Ok(())
        },
    );
}

/// FRR behind the router: what comes from there comes with TTL 254.
const FAR: &str = "\
frr defaults datacenter
router bgp 64501
 bgp router-id 10.9.0.9
 no bgp ebgp-requires-policy
 neighbor 10.0.0.11 remote-as 64500
 neighbor 10.0.0.11 passive
 neighbor 10.0.0.11 ebgp-multihop 2
 neighbor 10.0.0.11 bfd profile far
";
const FAR_BFD: &str = "\
bfd
 profile far
  detect-multiplier 10
  transmit-interval 300
  receive-interval 300
  minimum-ttl 254
";

#[test]
fn over_several_hops_the_least_ttl_is_what_the_profile_says() {
    lab::run(
        "bfd::over_several_hops_the_least_ttl_is_what_the_profile_says",
        async |lab| {
            let stage = Stage::of(&lab, 1).await?;
            let frr = Frr::start(&stage.outside, FAR, FAR_BFD).await?;
            stage.example()?;
            let peer = "myASN: 64500, peerASN: 64501, peerAddress: 10.9.0.9, connectTime: 1s, \
                        ebgpMultiHop: true, bfdProfile: far";
            let profile = "receiveInterval: 300, transmitInterval: 300, detectMultiplier: 10, \
                           minimumTtl: 254";
            let objects = object("BGPPeer", "sample", peer) + &object("BFDProfile", "far", profile);
            stage.write("sample.yaml", &objects)?;
            let mut scene = Scene {
                stage,
                frr,
                processes: Vec::new(),
            };
            scene.start()?;
            let up = [("status", "up".into()), ("multihop", true.into())];
            scene.bfd_is(0, &up).await?;

            // As over one router more, in our direction alone.
            let longer = "table ip longer { chain forward { \
                          type filter hook forward priority 0; \
                          ip saddr 10.9.0.9 udp dport 4784 ip ttl set 253; }; }";
            let mut nft = scene.stage.router.command("nft")?;
            assert!(nft.arg(longer).status()?.success());
            let host = &scene.stage.scene.nodes[0].host;
            wait_for(SOON, "packets dropped for their TTL", async || {
                let at = SocketAddr::from(([127, 0, 0, 1], 17472));
                let text = host.http_get(at, "/metrics").await;
                let text = text.map_err(|error| error.to_string())?.body;
                let dropped = "corten_bfd_packets_dropped_total{reason=\"ttl\"} ";
                match text.lines().find_map(|line| line.strip_prefix(dropped)) {
                    Some(_) => Ok(()),
                    None => Err(text),
                }
            })
            .await?;
            scene.logs(0, "control detection time expired").await?;
            Ok(())
        },
    );
}

const SIX: &str = "\
frr defaults datacenter
router bgp 64501
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 neighbor fd00::11 remote-as 64500
 neighbor fd00::11 passive
 neighbor fd00::11 bfd profile echo
 address-family ipv6 unicast
  neighbor fd00::11 activate
";
const SIX_BFD: &str = "\
bfd
 profile echo
  detect-multiplier 10
  transmit-interval 200
  receive-interval 200
  echo-mode
  echo transmit-interval 200
  echo receive-interval 200
";

/// Over IPv6 the daemons send each other's echo packets back.
#[test]
fn echo_packets_of_ipv6_go_from_daemon_to_daemon() {
    lab::run(
        "bfd::echo_packets_of_ipv6_go_from_daemon_to_daemon",
        async |lab| {
            let stage = Stage::of(&lab, 1).await?;
            let frr = Frr::start(&stage.router, SIX, SIX_BFD).await?;
            stage.example()?;
            let peer = "myASN: 64500, peerASN: 64501, peerAddress: \"fd00::1\", connectTime: 1s, \
                        bfdProfile: echo";
            let profile = "receiveInterval: 200, transmitInterval: 200, detectMultiplier: 10, \
                           echoMode: true, echoInterval: 200";
            let objects =
                object("BGPPeer", "sample", peer) + &object("BFDProfile", "echo", profile);
            stage.write("sample.yaml", &objects)?;
            let _agents = stage.start()?;
            let node = &stage.scene.nodes[0].host;
            wait_for(SOON, "echo packets both ways", async || {
                let ours = counters(node, "fd00::1").await?;
                let theirs = counted(&frr, "fd00::11")?;
                round(&ours, &theirs)
            })
            .await?;
            Ok(())
        },
    );
}
