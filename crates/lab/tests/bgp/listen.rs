//! Neighbours that connect to us.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use lab::router::{Bird, Frr};
use lab::{wait_for, wait_until};

use crate::stage::{Outcome, SOON, Stage, known, object};

const PREFIX: &str = "192.168.1.1/32";

/// It connects from two addresses whose Peers wait on one port, from one that nobody waits for, and
/// to a port that somebody else has at first.
const BIRD: &str = "\
router id 10.0.0.2;
protocol device {}
template bgp corten {
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  error forget time 1;
  strict bind on;
  ipv4 { import all; export none; };
}
protocol bgp with_password from corten { local 10.0.0.21 as 64502; password \"right\"; neighbor 10.0.0.11 port 1790 as 64500; }
protocol bgp with_gtsm from corten { local 10.0.0.22 as 64503; ttl security on; neighbor 10.0.0.122 port 1790 as 64500; }
protocol bgp stranger from corten { local 10.0.0.23 as 64504; neighbor 10.0.0.123 port 1790 as 64500; }
protocol bgp with_conflict from corten { local 10.0.0.24 as 64505; neighbor 10.0.0.124 port 1791 as 64500; }
protocol bgp with_other_password from corten { local 10.0.0.25 as 64506; password \"other\"; neighbor 10.0.0.125 port 1790 as 64500; }
";

const FRR: &str = "\
frr defaults datacenter
router bgp 64501
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 coalesce-time 0
 neighbor 10.0.0.11 remote-as 64500
 neighbor 10.0.0.11 port 1790
 neighbor 10.0.0.11 password first
 neighbor 10.0.0.11 timers connect 1
";

fn peers(first: &str) -> String {
    let mut text = String::new();
    for (name, spec) in [
        ("frr", format!("peerAddress: 10.0.0.1, peerASN: 64501, passwordSecret: {{name: {first}}}, listen: {{port: 1790}}")),
        ("password", "peerAddress: 10.0.0.21, peerASN: 64502, passwordSecret: {name: right}, listen: {port: 1790}".to_owned()),
        ("gtsm", "peerAddress: 10.0.0.22, peerASN: 64503, ttlSecurityHops: 1, listen: {port: 1790}".to_owned()),
        ("conflict", "peerAddress: 10.0.0.24, peerASN: 64505, listen: {port: 1791}".to_owned()),
        ("other", "peerAddress: 10.0.0.25, peerASN: 64506, passwordSecret: {name: right}, listen: {port: 1790}".to_owned()),
    ] {
        text += &object("Peer", name, &format!("myASN: 64500, {spec}"));
    }
    for name in ["first", "second", "right"] {
        text += &format!(
            "---\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/basic-auth\n\
             metadata: {{name: {name}, namespace: metallb-system}}\n\
             stringData: {{password: {name}}}\n"
        );
    }
    text
}

#[test]
fn neighbours_connect_and_strangers_are_refused() {
    lab::run(
        "listen::neighbours_connect_and_strangers_are_refused",
        async |lab| {
            let stage = Stage::of(&lab, 1).await?;
            let node = &stage.scene.nodes[0].host;
            for last in 122..126 {
                node.add_address("eth0", &format!("10.0.0.{last}/24"))
                    .await?;
            }
            let beside = lab.router("beside").await?;
            let own: Vec<String> = (21..26).map(|last| format!("10.0.0.{last}/24")).collect();
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            stage.scene.lan.attach(&beside, &own).await?;
            let pool = object("IPAddressPool", "pool", "addresses: [192.168.1.0/24]");
            stage.write(
                "objects.yaml",
                &(pool + &object("BGPAdvertisement", "all", "")),
            )?;
            stage.write("peers.yaml", &peers("first"))?;
            stage.label_nodes(&[""])?;
            stage.serve("web", "192.168.1.1", "internalTrafficPolicy: Cluster", &[0])?;
            let taken = node.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 1791)))??;
            let agent = stage.start()?.pop().expect("one");
            let bird = Bird::start(&beside, BIRD).await?;
            let frr = Frr::start(&stage.router, FRR, "").await?;

            let says = async |protocol: &str, what: &str| -> Outcome {
                let awaited = format!("{what} of {protocol}");
                let said = wait_for(SOON, &awaited, async || {
                    let said = bird.ask(&format!("show protocols all {protocol}"));
                    let said = said.map_err(|error| error.to_string())?;
                    said.contains(what).then_some(()).ok_or(said)
                });
                Ok(said.await?)
            };
            known(&frr, PREFIX, &["10.0.0.11 as=64500"]).await?;
            says("with_password", "Established").await?;
            says("with_gtsm", "Established").await?;
            says("stranger", "Connection rejected").await?;
            let at = SocketAddr::from(([127, 0, 0, 1], 17472));
            wait_until(SOON, "the strangers in the metrics", async || {
                let text = node.http_get(at, "/metrics").await;
                let name = "corten_bgp_connections_refused_total{reason=\"stranger\"} ";
                text.is_ok_and(|text| text.body.contains(name))
            })
            .await?;

            // A port that another program has is named with the remedy, and taken when it is free.
            wait_until(SOON, "the conflict in the log", async || {
                let log = agent.log();
                let mut lines = log
                    .lines()
                    .filter(|it| it.contains("\"peer\":\"conflict\""));
                lines.any(|line| {
                    line.contains("another program has port 1791 of this node")
                        && line.contains("spec.listen.port")
                })
            })
            .await?;
            drop(taken);
            says("with_conflict", "Established").await?;

            // Another password: that session alone is made anew, and only with it.
            let ups = |frr: &Frr| {
                let found = frr.json("show bgp neighbors 10.0.0.11 json")?;
                Ok::<_, lab::LabError>(found["10.0.0.11"]["connectionsEstablished"].as_u64())
            };
            let before = ups(&frr)?;
            stage.write("peers.yaml", &peers("second"))?;
            known(&frr, PREFIX, &[]).await?;
            frr.ask(&[
                "configure terminal",
                "router bgp 64501",
                "neighbor 10.0.0.11 password second",
            ])?;
            known(&frr, PREFIX, &["10.0.0.11 as=64500"]).await?;
            assert!(ups(&frr)? > before);
            let said = bird.ask("show protocols all with_password")?;
            assert!(said.contains("Established"), "{said}");
            // Nobody came in with a wrong one.
            let said = bird.ask("show protocols all with_other_password")?;
            assert!(!said.contains("Established"), "{said}");
            Ok(())
        },
    );
}
