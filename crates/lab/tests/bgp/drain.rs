//! What makes a node drain, and what its router sees of that.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use lab::router::Frr;
use lab::{Host, Process, bin, wait_for, wait_until};
use tokio::task::JoinHandle;

use crate::graceful::Reader;
use crate::stage::{Outcome, SOON, Stage, next_hops, object};

const PREFIX: &str = "192.168.1.1/32";
const LAYER2: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 200));

/// A router that tells every message. Its neighbours are named: those of a range are forgotten with
/// their session.
fn router(nodes: &[IpAddr]) -> String {
    let mut text = "\
frr defaults datacenter
debug bgp updates in
debug bgp neighbor-events
router bgp 64501
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 bgp bestpath as-path multipath-relax
 bgp graceful-restart
 timers bgp 3 9
 coalesce-time 0
"
    .to_owned();
    for node in nodes {
        let _ = writeln!(text, " neighbor {node} remote-as 64500");
        let _ = writeln!(text, " neighbor {node} passive");
    }
    text + " address-family ipv4 unicast\n  maximum-paths 16\n"
}

/// The Nodes, each with something in its manifest.
fn nodes(stage: &Stage, special: &[(&str, &str)]) -> Outcome {
    let mut text = String::new();
    for node in &stage.scene.nodes {
        let name = node.host.name();
        let mut more = special.iter().filter(|(of, _)| *of == name);
        let more = more.next().map_or("", |(_, more)| more);
        let condition = match more {
            "shutdown" => {
                "{type: Ready, status: \"False\", reason: KubeletNotReady, \
                 message: node is shutting down}"
            }
            _ => "{type: Ready, status: \"True\", message: kubelet is posting ready status}",
        };
        let labels = match more {
            "exclude" => "node.kubernetes.io/exclude-from-external-load-balancers: \"\"",
            _ => "",
        };
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n\
             spec: {{unschedulable: {}}}\n\
             status: {{addresses: [{{type: InternalIP, address: {}}}], conditions: [{condition}]}}\n",
            more == "cordon",
            node.ip,
        );
    }
    stage.write("nodes.yaml", &text)
}

fn drain(stage: &Stage, node: &str, more: &[&str]) -> Outcome<Process> {
    // From another host, with the directory at hand.
    let mut command = stage.outside.command(bin("corten")?)?;
    command.args(["drain", node, "--dir"]).arg(&stage.dir);
    command.args(more);
    Ok(stage.outside.spawn("drain", command)?)
}

fn read(host: &Host, service: SocketAddr) -> (Arc<Reader>, JoinHandle<Vec<String>>) {
    let reader = Arc::new(Reader::default());
    let task = {
        let (reader, host) = (reader.clone(), host.clone());
        tokio::spawn(async move { reader.read(host, service).await })
    };
    (reader, task)
}

/// What the router's log has of a neighbour: what it was told, in order.
fn told(frr: &mut Frr, node: IpAddr) -> Vec<&'static str> {
    let log = frr.daemon("bgpd").log();
    let mut told = Vec::new();
    for line in log.lines().filter(|line| line.contains(&node.to_string())) {
        let word = if line.contains("NOTIFICATION(Hard Reset)") {
            "hard reset"
        } else if line.contains("graceful-shutdown") {
            "asks"
        } else if line.contains(PREFIX) && line.contains("withdrawn") {
            "withdrawn"
        } else {
            continue;
        };
        if told.last() != Some(&word) {
            told.push(word);
        }
    }
    told
}

#[test]
fn each_cause_drains_and_nothing_is_lost() {
    lab::run(
        "drain::each_cause_drains_and_nothing_is_lost",
        async |lab| {
            let stage = Stage::of(&lab, 5).await?;
            let all: Vec<IpAddr> = stage.scene.nodes.iter().map(|node| node.ip).collect();
            let mut frr = Frr::start(&stage.router, &router(&all), "").await?;
            nodes(&stage, &[])?;
            let peer = "myASN: 64500, peerASN: 64501, peerAddress: 10.0.0.1, connectTime: 1s, \
                        gracefulRestart: true, drainOnCordon: true";
            let text = object("Peer", "router", peer)
                + &object("IPAddressPool", "routed", "addresses: [192.168.1.0/24]")
                + &object("BGPAdvertisement", "all", "ipAddressPools: [routed]")
                + &object("IPAddressPool", "near", "addresses: [10.0.0.200/32]")
                + &object("L2Advertisement", "near", "ipAddressPools: [near]");
            stage.write("objects.yaml", &text)?;
            let cluster = "externalTrafficPolicy: Cluster";
            stage.serve("web", "192.168.1.1", cluster, &[0, 1, 2, 3, 4])?;
            stage.serve("near", "10.0.0.200", cluster, &[0, 1, 2, 3, 4])?;
            let _agents = stage.start()?;
            next_hops(&frr, PREFIX, &all).await?;
            let routed = SocketAddr::from(([192, 168, 1, 1], 80));
            let near = SocketAddr::new(LAYER2, 80);
            for (host, service) in [(&stage.outside, routed), (&stage.scene.client, near)] {
                let page = async || host.http_get(service, "/").await.is_ok();
                wait_until(SOON, "a page", page).await?;
            }

            // The node that answers ARP is the one that is asked to drain.
            let asked = stage.scene.owner(LAYER2).await?.clone();
            let name = asked.host.name();
            let others: Vec<_> = stage
                .scene
                .nodes
                .iter()
                .filter(|it| it.ip != asked.ip)
                .collect();
            let readers = [
                read(&stage.outside, routed),
                read(&stage.scene.client, near),
            ];
            for (reader, _) in &readers {
                reader.more(20).await?;
            }
            let causes = ["exclude", "shutdown", "cordon"];
            let special: Vec<(&str, &str)> =
                others.iter().map(|it| it.host.name()).zip(causes).collect();
            nodes(&stage, &special)?;
            let mut draining = drain(&stage, name, &[])?;
            let stays = others.last().ok_or("five nodes")?.ip;
            next_hops(&frr, PREFIX, &[stays]).await?;
            let status = draining.wait(SOON).await?;
            let said = draining.log();
            lab.say(&said);
            assert!(status.success(), "{said}");
            let lines = [
                "asked to drain",
                "layer 2 addresses are handed over",
                "session router (10.0.0.1:179) has ended",
                &format!("{name} is drained"),
            ];
            let at: Vec<Option<usize>> = lines.iter().map(|line| said.find(line)).collect();
            assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{said}");
            for node in stage.scene.nodes.iter().filter(|it| it.ip != stays) {
                let what = format!("{} to ask, withdraw and reset", node.host.name());
                wait_for(SOON, &what, async || match told(&mut frr, node.ip) {
                    told if told == ["asks", "withdrawn", "hard reset"] => Ok(()),
                    told => Err(format!("{told:?}")),
                })
                .await?;
            }
            assert_ne!(stage.scene.owner(LAYER2).await?.ip, asked.ip);
            for (reader, _) in &readers {
                reader.more(20).await?;
            }

            // And back.
            nodes(&stage, &[])?;
            let mut undone = drain(&stage, name, &["--undo"])?;
            let status = undone.wait(SOON).await?;
            assert!(status.success(), "{}", undone.log());
            assert!(undone.log().contains("serves again"), "{}", undone.log());
            next_hops(&frr, PREFIX, &all).await?;
            for (reader, task) in readers {
                reader.more(20).await?;
                reader.stop.store(true, Relaxed);
                // A connection under way ends where its flow comes to another node, which plain ECMP
                // (and a layer 2 take-over) brings with it: that is forwarding's to mend.
                let (refused, cut): (Vec<String>, Vec<String>) = task
                    .await?
                    .into_iter()
                    .partition(|error| error.contains("cannot connect"));
                assert_eq!(refused, [""; 0]);
                let pages = reader.pages.load(Relaxed);
                lab.say(format!("{pages} pages, {} cut", cut.len()));
            }
            Ok(())
        },
    );
}
