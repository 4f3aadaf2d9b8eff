//! Routes that routers give to a node: which enter the kernel, and when they leave it.

use std::net::{IpAddr, SocketAddr};

use lab::router::{Bird, Frr};
use lab::{Host, Lab, Process, wait_for, wait_until};

use crate::stage::{Outcome, SOON, Stage, object};

/// The protocol number of our routes.
const PROTOCOL: u8 = 155;

/// FRR as 10.0.0.1 of AS 64501, announcing these networks. It restarts gracefully.
fn frr(networks: &[&str]) -> String {
    let of = |v6: bool| {
        let networks = networks.iter().filter(|it| it.contains(':') == v6);
        let lines: String = networks.map(|it| format!("  network {it}\n")).collect();
        lines
    };
    format!(
        "frr defaults datacenter\nrouter bgp 64501\n bgp router-id 10.0.0.1\n \
         no bgp ebgp-requires-policy\n no bgp network import-check\n \
         bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n coalesce-time 0\n \
         neighbor 10.0.0.11 remote-as 64500\n neighbor 10.0.0.11 passive\n \
         address-family ipv4 unicast\n{} exit-address-family\n \
         address-family ipv6 unicast\n  neighbor 10.0.0.11 activate\n{} exit-address-family\n",
        of(false),
        of(true),
    )
}

/// BIRD as 10.0.0.2 of AS 64502. One of its routes leads to a next hop that is on no link.
const BIRD: &str = "\
router id 10.0.0.2;
protocol device {}
protocol static {
  ipv4;
  route 172.20.0.0/16 blackhole;
  route 172.22.0.0/16 blackhole;
  route 172.23.0.0/16 blackhole;
}
protocol bgp corten {
  local 10.0.0.2 as 64502;
  neighbor 10.0.0.11 as 64500;
  passive on;
  error wait time 1, 2;
  error forget time 1;
  ipv4 {
    import none;
    export filter {
      if net = 172.23.0.0/16 then bgp_next_hop = 10.99.0.1;
      accept;
    };
  };
}
";

fn peer(name: &str, router: u8, more: &str) -> String {
    let spec = format!(
        "myASN: 64500, connectTime: 1s, peerASN: 6450{router}, peerAddress: 10.0.0.{router}, \
         gracefulRestart: true, {more}"
    );
    object("Peer", name, &spec)
}

/// One node, and a second router beside the first.
async fn build(lab: &Lab) -> Outcome<(Stage, Host)> {
    let stage = Stage::of(lab, 1).await?;
    let beside = lab.router("beside").await?;
    stage.scene.lan.attach(&beside, &["10.0.0.2/24"]).await?;
    stage.label_nodes(&[""])?;
    Ok((stage, beside))
}

/// What the kernel has of ours in a table, a line for each route. Link-local next hops differ from
/// run to run.
pub(crate) async fn learned(host: &Host, table: u32) -> Outcome<Vec<String>> {
    let routes = host.netlink().routes().await?.into_iter();
    let ours = routes.filter(|route| route.protocol == PROTOCOL && route.table == table);
    let mut lines: Vec<String> = ours
        .map(|route| {
            let mut line = format!("{}/{}", route.to.0, route.to.1);
            for hop in route.next_hops() {
                line += &match hop.via {
                    IpAddr::V6(ip) if ip.is_unicast_link_local() => " link-local".to_owned(),
                    ip => format!(" {ip}"),
                };
            }
            line
        })
        .collect();
    lines.sort_unstable();
    Ok(lines)
}

pub(crate) async fn has(host: &Host, table: u32, wanted: &[&str]) -> Outcome {
    let what = format!("{wanted:?} in table {table}");
    let found = wait_for(SOON, &what, async || {
        let found = learned(host, table).await;
        let found = found.map_err(|error| error.to_string())?;
        match found == wanted {
            true => Ok(()),
            false => Err(format!("{found:?}")),
        }
    });
    Ok(found.await?)
}

/// Waits until a line of the metrics is there.
pub(crate) async fn metric(host: &Host, line: &str) -> Outcome {
    let at = SocketAddr::from(([127, 0, 0, 1], 17472));
    let found = wait_for(SOON, line, async || {
        let text = host.http_get(at, "/metrics").await;
        let text = text.map_err(|error| error.to_string())?.body;
        match text.lines().any(|it| it == line) {
            true => Ok(()),
            false => Err(text
                .lines()
                .filter(|it| it.contains("prefixes"))
                .collect::<String>()),
        }
    });
    Ok(found.await?)
}

/// Everything that happens to the host's IPv4 routes from now on.
fn monitor(host: &Host) -> Outcome<Process> {
    let mut command = host.command("ip")?;
    command.args(["-4", "monitor", "route"]);
    Ok(host.spawn("routes", command)?)
}

#[test]
fn routes_come_stay_over_restarts_and_go() {
    lab::run(
        "receive::routes_come_stay_over_restarts_and_go",
        async |lab| {
            let (stage, beside) = build(&lab).await?;
            let node = &stage.scene.nodes[0].host;
            let networks = [
                "172.20.0.0/16",
                "172.21.0.0/16",
                "10.77.0.0/16",
                "2001:db8:20::/48",
            ];
            let first = Frr::start(&stage.router, &frr(&networks), "").await?;
            let second = Bird::start(&beside, BIRD).await?;
            let receive = "receive: {prefixes: [\"172.16.0.0/12\", \"2001:db8::/32\"]}";
            let frr_peer = peer("first", 1, &format!("dualStack: true, {receive}"));
            let bird_peer = peer("second", 2, receive);
            stage.write("peers.yaml", &(frr_peer.clone() + &bird_peer))?;
            let mut agent = stage.start()?.pop().expect("one");
            let v6 = "2001:db8:20::/48 link-local";
            let both = "172.20.0.0/16 10.0.0.1 10.0.0.2";
            let of_bird = "172.22.0.0/16 10.0.0.2";
            has(node, 254, &[both, "172.21.0.0/16 10.0.0.1", of_bird, v6]).await?;
            for (peer, reason) in [("10.0.0.1:179", "policy"), ("10.0.0.2:179", "next-hop")] {
                let labels = format!("peer=\"{peer}\",reason=\"{reason}\"");
                let name = "corten_bgp_received_prefixes_dropped_total";
                metric(node, &format!("{name}{{{labels}}} 1")).await?;
            }
            metric(node, "corten_bgp_routes_installed 4").await?;

            // The agent is killed, and a route ends meanwhile: the next agent takes away that one,
            // and touches no other.
            let watch = monitor(node)?;
            agent.kill();
            has(node, 254, &[both, "172.21.0.0/16 10.0.0.1", of_bird, v6]).await?;
            first.ask(&[
                "configure terminal",
                "router bgp 64501",
                "address-family ipv4 unicast",
                "no network 172.21.0.0/16",
            ])?;
            let agent = stage.start()?.pop().expect("one");
            has(node, 254, &[both, of_bird, v6]).await?;
            wait_until(SOON, "the end of a route in the log", async || {
                watch.log().contains("Deleted 172.21.0.0/16")
            })
            .await?;
            let log = watch.log();
            assert!(!log.contains("172.20.0.0/16"), "{log}");
            assert!(!log.contains("172.22.0.0/16"), "{log}");

            // BIRD asks nobody to keep its routes; FRR does.
            drop(second);
            has(node, 254, &["172.20.0.0/16 10.0.0.1", v6]).await?;
            drop(first);
            wait_until(SOON, "an attempt to connect to FRR", async || {
                let log = agent.log();
                let mut lines = log.lines().filter(|it| it.contains("\"peer\":\"first\""));
                lines.any(|line| line.contains("connection refused"))
            })
            .await?;
            has(node, 254, &["172.20.0.0/16 10.0.0.1", v6]).await?;
            // Back with other routes: End-of-RIB ends the stale ones.
            let networks = ["172.24.0.0/16", "172.20.0.0/16"];
            let first = Frr::start(&stage.router, &frr(&networks), "").await?;
            has(
                node,
                254,
                &["172.20.0.0/16 10.0.0.1", "172.24.0.0/16 10.0.0.1"],
            )
            .await?;

            // The one that was there all the time was touched once, when BIRD left it.
            let log = watch.log();
            let touched = log.lines().filter(|line| line.contains("172.20.0.0/16"));
            assert_eq!(touched.count(), 1, "{log}");

            // Into another table, then nowhere.
            let moved = frr_peer.replace("receive: {", "receive: {table: 77, ");
            stage.write("peers.yaml", &moved)?;
            has(
                node,
                77,
                &["172.20.0.0/16 10.0.0.1", "172.24.0.0/16 10.0.0.1"],
            )
            .await?;
            has(node, 254, &[]).await?;
            stage.write("peers.yaml", &peer("first", 1, "dualStack: true"))?;
            has(node, 77, &[]).await?;
            assert_eq!(first.session("10.0.0.11")?, "Established");
            Ok(())
        },
    );
}

#[test]
fn a_limit_ends_the_session_and_a_wider_policy_asks_again() {
    lab::run(
        "receive::a_limit_ends_the_session_and_a_wider_policy_asks_again",
        async |lab| {
            let (stage, beside) = build(&lab).await?;
            let node = &stage.scene.nodes[0].host;
            let networks = ["172.20.0.0/16", "172.21.0.0/16", "172.22.0.0/16"];
            let first = Frr::start(&stage.router, &frr(&networks), "").await?;
            let second = Bird::start(&beside, BIRD).await?;
            let policy = |most: u32, prefix: &str| {
                let receive = format!("receive: {{maxPrefixes: {most}, prefixes: [{prefix}]}}");
                peer("first", 1, &receive) + &peer("second", 2, &receive)
            };
            stage.write("peers.yaml", &policy(2, "172.16.0.0/12"))?;
            let agent = stage.start()?.pop().expect("one");
            wait_for(SOON, "the reason at FRR", async || {
                let found = first.json("show bgp neighbors 10.0.0.11 json");
                let found = found.map_err(|error| error.to_string())?;
                let said = &found["10.0.0.11"]["lastNotificationReason"];
                let wanted = "Cease/Maximum Number of Prefixes Reached";
                (said == wanted)
                    .then_some(())
                    .ok_or_else(|| said.to_string())
            })
            .await?;
            wait_for(SOON, "the reason at BIRD", async || {
                let said = second.ask("show protocols all corten");
                let said = said.map_err(|error| error.to_string())?;
                let named = said.contains("Maximum number of prefixes reached");
                named.then_some(()).ok_or(said)
            })
            .await?;
            wait_until(SOON, "the reason in the log", async || {
                agent.log().contains("the peer sends more than 2 prefixes")
            })
            .await?;

            // Fewer are wanted, then others more: the sessions live, and the routers are asked.
            stage.write("peers.yaml", &policy(2, "172.20.0.0/15"))?;
            let (both, one) = ("172.20.0.0/16 10.0.0.1 10.0.0.2", "172.21.0.0/16 10.0.0.1");
            has(node, 254, &[both, one]).await?;
            let ups = || {
                let found = first.json("show bgp neighbors 10.0.0.11 json")?;
                let times = found["10.0.0.11"]["connectionsEstablished"].as_u64();
                Ok::<_, lab::LabError>(times)
            };
            let before = ups()?;
            stage.write("peers.yaml", &policy(3, "172.16.0.0/12"))?;
            let last = "172.22.0.0/16 10.0.0.1 10.0.0.2";
            has(node, 254, &[both, one, last]).await?;
            stage.write("peers.yaml", &policy(3, "172.22.0.0/16"))?;
            has(node, 254, &[last]).await?;
            assert_eq!(ups()?, before);

            // What somebody takes away comes back when a link changes, as it may have been the
            // kernel; a link that goes takes its routes along.
            let eth0 = node.interface("eth0").await?.index;
            node.netlink().set_down(eth0).await?;
            has(node, 254, &[]).await?;
            node.netlink().set_up(eth0).await?;
            has(node, 254, &[last]).await?;
            Ok(())
        },
    );
}

#[test]
fn a_session_in_a_new_form_loses_no_route_and_a_peer_without_end_of_rib_holds_none_up() {
    lab::run(
        "receive::a_session_in_a_new_form_loses_no_route_and_a_peer_without_end_of_rib_holds_none_up",
        async |lab| {
            let (stage, beside) = build(&lab).await?;
            let node = &stage.scene.nodes[0].host;
            let first = Frr::start(&stage.router, &frr(&["172.20.0.0/16"]), "").await?;
            // Without the capability, and so without a duty to tell the end.
            let plain = BIRD.replace("passive on;", "passive on;\n  graceful restart off;");
            let second = Bird::start(&beside, &plain).await?;
            let peers = |more: &str| {
                let receive = "receive: {prefixes: [\"172.16.0.0/12\"]}";
                peer("first", 1, &format!("{receive}{more}")) + &peer("second", 2, receive)
            };
            stage.write("peers.yaml", &peers(""))?;
            let mut agent = stage.start()?.pop().expect("one");
            let both = "172.20.0.0/16 10.0.0.1 10.0.0.2";
            has(node, 254, &[both, "172.22.0.0/16 10.0.0.2"]).await?;

            // The session with FRR is opened anew.
            let watch = monitor(node)?;
            stage.write("peers.yaml", &peers(", holdTime: 6s, keepaliveTime: 2s"))?;
            wait_for(SOON, "the new hold time", async || {
                let found = first.json("show bgp neighbors 10.0.0.11 json");
                let found = &found.map_err(|error| error.to_string())?["10.0.0.11"];
                let there =
                    found["bgpTimerHoldTimeMsecs"] == 6_000 && found["bgpState"] == "Established";
                there
                    .then_some(())
                    .ok_or_else(|| found["bgpState"].to_string())
            })
            .await?;
            // What FRR announces from now on has come after all that it had.
            first.ask(&[
                "configure terminal",
                "router bgp 64501",
                "address-family ipv4 unicast",
                "network 172.24.0.0/16",
            ])?;
            let later = "172.24.0.0/16 10.0.0.1";
            has(node, 254, &[both, "172.22.0.0/16 10.0.0.2", later]).await?;
            wait_until(SOON, "the later route in the log", async || {
                watch.log().contains("172.24.0.0/16")
            })
            .await?;
            let log = watch.log();
            assert!(!log.contains("172.20.0.0/16"), "{log}");

            // The agent is killed, and BIRD comes back with less: nobody waits for its last word.
            agent.kill();
            drop(second);
            let less = plain.replace("route 172.22.0.0/16 blackhole;", "");
            let _second = Bird::start(&beside, &less).await?;
            let _agent = stage.start()?.pop().expect("one");
            has(node, 254, &[both, later]).await
        },
    );
}

/// BIRD asks for two seconds of graceful restart, and for an hour of the long-lived kind.
fn long_lived(routes: &[&str]) -> String {
    let routes: String = routes
        .iter()
        .map(|route| format!("  route {route} blackhole;\n"))
        .collect();
    format!(
        "router id 10.0.0.2;\nprotocol device {{}}\nprotocol static {{\n  ipv4;\n{routes}}}\n\
         protocol bgp corten {{\n  local 10.0.0.2 as 64502;\n  neighbor 10.0.0.11 as 64500;\n  \
         passive on;\n  graceful restart on;\n  graceful restart time 2;\n  \
         long lived graceful restart on;\n  long lived stale time 3600;\n  \
         error wait time 1, 2;\n  error forget time 1;\n  \
         ipv4 {{ import none; export all; }};\n}}\n"
    )
}

#[test]
fn long_lived_routes_stay_until_the_router_is_back() {
    lab::run(
        "receive::long_lived_routes_stay_until_the_router_is_back",
        async |lab| {
            let (stage, beside) = build(&lab).await?;
            let node = &stage.scene.nodes[0].host;
            let bird =
                Bird::start(&beside, &long_lived(&["172.20.0.0/16", "172.21.0.0/16"])).await?;
            let receive = "receive: {prefixes: [\"172.16.0.0/12\"]}";
            stage.write("peers.yaml", &peer("second", 2, receive))?;
            let agent = stage.start()?.pop().expect("one");
            let both = ["172.20.0.0/16 10.0.0.2", "172.21.0.0/16 10.0.0.2"];
            has(node, 254, &both).await?;

            // Beyond the restart time.
            drop(bird);
            wait_until(SOON, "the restart time to end", async || {
                agent.log().contains("LongLivedStale(Ipv4)")
            })
            .await?;
            assert_eq!(learned(node, 254).await?, both);

            // Back, without one of them.
            let _bird = Bird::start(&beside, &long_lived(&["172.20.0.0/16"])).await?;
            has(node, 254, &both[..1]).await
        },
    );
}
