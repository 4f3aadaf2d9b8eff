//! Addresses with MAC addresses of their own: what clients know stays true whoever has the address.

use std::net::{IpAddr, SocketAddr};

use lab::{Lab, Target, bin, wait_for, wait_until};
use linux::netlink::Mac;
use linux::nft::{Family, Socket};

use crate::support::{ECHO, Outcome, POOL, SOON, Stage, ip, service, slice};

const ADVERTISEMENT: &str = "\
apiVersion: corten.dev/v1alpha1
kind: Advertisement
metadata: {name: own, namespace: metallb-system}
spec: {layer2: {mac: Virtual}}
";
/// Their own MAC addresses, as they are for good (`plan::announce::mac`).
const MAC4: Mac = [0x02, 0xc0, 10, 0, 0, 101];
const MAC6: Mac = [0x12, 0xfd, 0x42, 0x38, 0xe6, 0x79];

/// A scene where the only advertisement is of that kind.
async fn build(lab: &Lab, nodes: u8) -> Outcome<Stage> {
    let stage = Stage::build(lab, nodes).await?;
    stage.remove("l2adver.yaml")?;
    stage.write("own.yaml", ADVERTISEMENT)?;
    Ok(stage)
}

/// A Service over both families by the Pods of all nodes but these.
fn serve_but(stage: &Stage, gone: &[&str]) -> Outcome {
    let nodes = || {
        let all = stage.scene.nodes.iter();
        all.filter(|node| !gone.contains(&node.host.name()))
    };
    let families = "ipFamilyPolicy: PreferDualStack\n  ipFamilies: [IPv4, IPv6]";
    let text =
        service("one", families) + &slice("one", false, nodes()) + &slice("one", true, nodes());
    stage.write("one.yaml", &text)
}

/// Whether the agent on this node announces `ip`, as it says itself.
async fn announces(stage: &Stage, node: &str, ip: IpAddr) -> bool {
    let host = &stage.scene.node(node).host;
    let metrics = SocketAddr::new([127, 0, 0, 1].into(), 17472);
    let Ok(answer) = host.http_get(metrics, "/metrics").await else {
        return false;
    };
    let label = format!("ip=\"{ip}\"");
    let mut lines = answer.body.lines();
    lines.any(|line| line.starts_with("metallb_speaker_announced{") && line.contains(&label))
}

/// Waits until one of these nodes alone announces `ip`.
async fn owner(stage: &Stage, ip: IpAddr, nodes: &[String]) -> Outcome<String> {
    let what = format!("one of {nodes:?} to announce {ip}");
    let found = wait_for(2 * SOON, &what, async || {
        let mut owners = Vec::new();
        for node in nodes {
            if announces(stage, node, ip).await {
                owners.push(node.clone());
            }
        }
        match owners.as_slice() {
            [owner] => Ok(owner.clone()),
            _ => Err(owners),
        }
    });
    Ok(found.await?)
}

/// The MAC address that the client has cached for `ip`.
async fn cached(stage: &Stage, ip: IpAddr) -> Outcome<Option<Mac>> {
    let known = stage.client().netlink().neighbours().await?;
    Ok(known.iter().find(|it| it.ip == ip).and_then(|it| it.mac))
}

/// How many tables of ours the kernel of this node has for it.
fn tables(stage: &Stage, node: &str) -> Outcome<usize> {
    let host = &stage.scene.node(node).host;
    let found = host.run(|| Socket::open_for(Family::Netdev)?.tables())??;
    let ours = found
        .iter()
        .filter(|table| table.name.starts_with("corten-mac-"));
    Ok(ours.count())
}

async fn no_tables(stage: &Stage, node: &str) -> Outcome {
    let gone = wait_for(SOON, "no table left", async || match tables(stage, node) {
        Ok(0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    Ok(gone.await?)
}

/// How often this node fell back to its interface's MAC address.
async fn fallbacks(stage: &Stage, node: &str, cause: &str) -> Outcome<u64> {
    let metric = "corten_layer2_virtual_mac_fallbacks_total";
    stage
        .metric(node, &format!("{metric}{{cause=\"{cause}\"}}"))
        .await
}

#[test]
fn no_cache_changes_when_the_owner_does() {
    lab::run(
        "virtual_mac::no_cache_changes_when_the_owner_does",
        async |lab| {
            let mut stage = build(&lab, 3).await?;
            stage.write(
                "pool.yaml",
                &(POOL.to_owned() + "  - fd00::101-fd00::150\n"),
            )?;
            serve_but(&stage, &[])?;
            // Strict source checks, which a second interface on the link would not get past.
            for node in &stage.scene.nodes {
                node.host.sysctl("net.ipv4.conf.all.rp_filter", "1")?;
                node.host.sysctl("net.ipv4.conf.eth0.rp_filter", "1")?;
            }
            let mut watch = stage.client().command("ip")?;
            watch.args(["monitor", "neigh"]);
            let watch = stage.client().spawn("neighbours", watch)?;
            stage.start()?;
            let (address, address6) = (ip("10.0.0.101"), ip("fd00::101"));
            let all: Vec<String> = stage.others("");
            let unchanged = async |stage: &Stage| -> Outcome {
                stage.scene.page(address).await?;
                stage.scene.page(address6).await?;
                assert_eq!(cached(stage, address).await?, Some(MAC4));
                assert_eq!(cached(stage, address6).await?, Some(MAC6));
                Ok(())
            };
            let first = owner(&stage, address, &all).await?;
            unchanged(&stage).await?;
            assert_eq!(
                stage.client().who_has("eth0", address, SOON / 100).await?,
                [MAC4]
            );
            assert_eq!(
                stage.client().who_has("eth0", address6, SOON / 100).await?,
                [MAC6]
            );

            // Its cable is cut; another has both addresses, and then it has them back. Nothing takes
            // the Pods of a node that is gone out of EndpointSlices here: clients would meet them.
            serve_but(&stage, &[&first])?;
            let host = stage.scene.node(&first).host.clone();
            host.cut().await?;
            let second = owner(&stage, address, &stage.others(&first)).await?;
            unchanged(&stage).await?;
            host.heal().await?;
            assert_eq!(
                owner(&stage, address, &all).await?,
                first,
                "it stands first"
            );
            unchanged(&stage).await?;

            // It stops: planned.
            let echo = Target::Udp(SocketAddr::new(address, ECHO));
            let prober = stage.client().probe(echo)?;
            wait_until(SOON, "answers before", async || prober.answered() > 200).await?;
            stage.on(&first).terminate();
            let ended = stage.on(&first).wait(SOON).await?;
            assert!(ended.success(), "{ended}");
            assert_eq!(
                owner(&stage, address, &all).await?,
                second,
                "it stands next"
            );
            let before = prober.answered();
            wait_until(SOON, "answers after", async || {
                prober.answered() > before + 200
            })
            .await?;
            let gaps = prober.stop().await?;
            lab.say(format!(
                "{first} stopped, {second} answers: {} lost, {gaps:?}",
                gaps.lost()
            ));
            // As for MAC addresses of interfaces.
            assert!(gaps.longest.as_millis() < 800, "{gaps:?}");
            unchanged(&stage).await?;
            // Nothing is received there that others have.
            no_tables(&stage, &first).await?;

            // The next one is off at once.
            serve_but(&stage, &[&first, &second])?;
            stage.scene.node(&second).host.kill().await?;
            let left: Vec<String> = stage
                .others(&second)
                .into_iter()
                .filter(|it| *it != first)
                .collect();
            let third = owner(&stage, address, &left).await?;
            unchanged(&stage).await?;

            let log = watch.log();
            let (mac4, mac6) = ("lladdr 02:c0:0a:00:00:65", "lladdr 12:fd:42:38:e6:79");
            for line in log.lines().filter(|line| line.contains("lladdr")) {
                for (address, mac) in [("10.0.0.101 ", mac4), ("fd00::101 ", mac6)] {
                    assert!(!line.starts_with(address) || line.contains(mac), "{line}");
                }
            }
            assert!(log.contains(mac4) && log.contains(mac6), "{log}");
            assert_eq!(fallbacks(&stage, &third, "network").await?, 0);
            assert_eq!(fallbacks(&stage, &third, "kernel").await?, 0);
            stage.no_strangers();
            Ok(())
        },
    );
}

#[test]
fn traffic_goes_on_while_the_agent_is_away() {
    lab::run(
        "virtual_mac::traffic_goes_on_while_the_agent_is_away",
        async |lab| {
            let mut stage = build(&lab, 1).await?;
            stage.serve("one")?;
            stage.start()?;
            let (node, address) = ("node-1", ip("10.0.0.101"));
            stage.scene.page(address).await?;
            assert_eq!(cached(&stage, address).await?, Some(MAC4));
            stage.on(node).kill();
            // What was learned is still right, also of one that was not asked since.
            stage.pin(address, MAC4).await?;
            assert!(stage.answers(address).await);
            stage.start_on(node)?;
            stage.ready(node).await?;
            assert_eq!(owner(&stage, address, &[node.to_owned()]).await?, node);
            let one = wait_for(SOON, "the old agent's table to go", async || {
                match tables(&stage, node) {
                    Ok(1) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
            one.await?;
            assert!(stage.answers(address).await);
            // Somebody else's address, and nobody's: not received.
            stage.pin(address, [0x02, 0xc0, 10, 0, 0, 102]).await?;
            assert!(!stage.answers(address).await);
            stage.pin(address, MAC4).await?;
            assert!(stage.answers(address).await);
            // The rule as people see it; and whoever flushes theirs does not flush ours.
            let host = stage.scene.node(node).host.clone();
            let rules = host.command("nft")?.args(["list", "ruleset"]).output()?;
            let rules = String::from_utf8(rules.stdout)?;
            for part in ["elements = { 02:c0:0a:00:00:65 }", "meta pkttype set host"] {
                assert!(rules.contains(part), "{rules}");
            }
            host.command("nft")?.args(["flush", "ruleset"]).output()?;
            assert!(stage.answers(address).await);
            stage.remove("one.yaml")?;
            no_tables(&stage, node).await?;
            let fdb = stage
                .scene
                .node(node)
                .host
                .command("bridge")?
                .args(["fdb", "show"])
                .output()?;
            let fdb = String::from_utf8(fdb.stdout)?;
            assert!(!fdb.contains("02:c0:0a:00:00:65"), "{fdb}");
            Ok(())
        },
    );
}

#[test]
fn where_the_network_refuses_it_the_interfaces_own_answers() {
    lab::run(
        "virtual_mac::where_the_network_refuses_it_the_interfaces_own_answers",
        async |lab| {
            let mut stage = build(&lab, 2).await?;
            // The switch knows each node's MAC address, and takes no other.
            for node in &stage.scene.nodes {
                let other = stage.scene.nodes.iter().find(|it| it.ip != node.ip);
                node.host
                    .http_get(SocketAddr::new(other.map_or(node.ip, |it| it.ip), 1), "/")
                    .await
                    .ok();
                stage.scene.lan.lock(&node.host, true).await?;
            }
            stage.serve("one")?;
            stage.start()?;
            let address = ip("10.0.0.101");
            let all: Vec<String> = stage.others("");
            let owner = owner(&stage, address, &all).await?;
            let mac = stage.scene.node(&owner).host.mac("eth0").await?;
            let line = stage.logged(&owner, &["VirtualMacRefused", "eth0"]).await?;
            assert!(
                line.contains("10.0.0.101") && line.contains("02:c0:0a:00:00:65"),
                "{line}"
            );
            let asked = wait_for(SOON, "the interface's to answer", async || {
                let found = stage.client().who_has("eth0", address, SOON / 100).await;
                found
                    .map_err(|error| vec![error.to_string()])
                    .and_then(|found| {
                        if found == [mac] {
                            Ok(())
                        } else {
                            Err(vec![format!("{found:02x?}")])
                        }
                    })
            });
            asked.await?;
            stage.scene.page(address).await?;
            assert_eq!(cached(&stage, address).await?, Some(mac));
            assert_eq!(fallbacks(&stage, &owner, "network").await?, 1);

            // The switch learns better, and the interface comes anew.
            stage
                .scene
                .lan
                .lock(&stage.scene.node(&owner).host, false)
                .await?;
            let host = stage.scene.node(&owner).host.clone();
            let device = host.netlink().index_of("eth0").await?;
            host.netlink().set_down(device).await?;
            stage.logged(&owner, &["no longer announcing here"]).await?;
            host.netlink().set_up(device).await?;
            let own = wait_for(2 * SOON, "its own to answer", async || {
                let found = stage.client().who_has("eth0", address, SOON / 100).await;
                match found {
                    Ok(found) if found == [MAC4] => Ok(()),
                    found => Err(format!("{found:02x?}")),
                }
            });
            own.await?;
            stage.scene.page(address).await?;
            Ok(())
        },
    );
}

#[test]
fn where_the_kernel_refuses_it_the_interfaces_own_answers() {
    lab::run(
        "virtual_mac::where_the_kernel_refuses_it_the_interfaces_own_answers",
        async |lab| {
            let stage = build(&lab, 1).await?;
            stage.serve("one")?;
            let node = stage.scene.nodes[0].clone();
            let mut command = node.host.command("setpriv")?;
            command
                .arg("--bounding-set=-net_admin")
                .arg(bin("corten")?)
                .arg("run")
                .arg(&stage.dir)
                .args(["--node-name", node.host.name(), "--forward", "off"]);
            let agent = node.host.spawn("without-rights", command)?;
            let address = ip("10.0.0.101");
            let mac = node.host.mac("eth0").await?;
            let answered = wait_for(SOON, "the interface's to answer", async || {
                let found = stage.client().who_has("eth0", address, SOON / 100).await;
                match found {
                    Ok(found) if found == [mac] => Ok(()),
                    found => Err(format!("{found:02x?}\n{}", agent.log())),
                }
            });
            answered.await?;
            let log = agent.log();
            assert!(
                log.contains("VirtualMacUnavailable") && log.contains("NET_ADMIN"),
                "{log}"
            );
            assert_eq!(fallbacks(&stage, node.host.name(), "kernel").await?, 1);
            Ok(())
        },
    );
}
