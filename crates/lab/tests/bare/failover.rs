//! How long an address is not answered for when its owner is gone.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use lab::scene::Node;
use lab::{Lab, Target, wait_until};

use crate::support::{Outcome, SOON, Stage, ip};

/// On an idle machine it is 150 ms. On a busy one the best of a few must still be below what a
/// timeout of one second would give.
const BOUND: Duration = Duration::from_millis(700);
const TRIES: usize = 3;

/// The longest silence that a client sees while `act` is done and another node takes over.
async fn gap(lab: &Lab, stage: &Stage, address: IpAddr, cut: bool) -> Outcome<(String, Duration)> {
    let owner = stage.owner(address).await?;
    stage.scene.page(address).await?;
    let target = Target::Tcp(SocketAddr::new(address, 80));
    let prober = stage.client().probe(target)?;
    wait_until(SOON, "answers before", async || prober.answered() > 200).await?;
    let host = &stage.scene.node(&owner).host;
    if cut {
        host.cut().await?;
    } else {
        host.kill().await?;
    }
    let next = stage.owner_but(address, &owner).await?;
    let before = prober.answered();
    wait_until(SOON, "answers after", async || {
        prober.answered() > before + 200
    })
    .await?;
    let gaps = prober.stop().await?;
    let what = if cut { "cut off" } else { "killed" };
    lab.say(format!(
        "{owner} {what}, {next} answers: silent for {} ms",
        gaps.longest.as_millis()
    ));
    Ok((owner, gaps.longest))
}

#[test]
fn an_owner_that_is_cut_off_is_followed_soon_and_comes_back() {
    lab::run(
        "failover::an_owner_that_is_cut_off_is_followed_soon_and_comes_back",
        async |lab| {
            let mut stage = Stage::build(&lab, 3).await?;
            stage.profile = "default";
            stage.serve("one")?;
            stage.start()?;
            let address = ip("10.0.0.101");
            let mut gaps = Vec::new();
            while gaps.len() < TRIES && !gaps.iter().any(|gap| *gap < BOUND) {
                let (owner, gap) = gap(&lab, &stage, address, true).await?;
                gaps.push(gap);
                stage.scene.node(&owner).host.heal().await?;
                // It stands first, so it has the address back, alone.
                wait_until(SOON, "the old owner to have it back", async || {
                    stage.owner(address).await.is_ok_and(|now| now == owner)
                })
                .await?;
                stage.scene.page(address).await?;
            }
            assert!(gaps.iter().any(|gap| *gap < BOUND), "{gaps:?}");
            Ok(())
        },
    );
}

#[test]
fn owners_that_die_one_after_another_are_followed_soon() {
    lab::run(
        "failover::owners_that_die_one_after_another_are_followed_soon",
        async |lab| {
            let mut stage = Stage::build(&lab, 4).await?;
            stage.profile = "default";
            stage.serve("one")?;
            stage.start()?;
            let address = ip("10.0.0.101");
            let mut gaps = Vec::new();
            for _ in 0..TRIES {
                gaps.push(gap(&lab, &stage, address, false).await?.1);
            }
            assert!(gaps.iter().any(|gap| *gap < BOUND), "{gaps:?}");
            Ok(())
        },
    );
}

/// A machine on which processes are not run for a while holds living nodes for dead. Each such
/// death heals: in the end one node answers, the first, and a page comes.
#[test]
fn false_deaths_heal() {
    lab::run("failover::false_deaths_heal", async |lab| {
        let mut stage = Stage::build(&lab, 3).await?;
        stage.profile = "fast";
        stage.serve("one")?;
        stage.start()?;
        let address = ip("10.0.0.101");
        let owner = stage.owner(address).await?;
        for name in [owner.clone()].into_iter().chain(stage.others(&owner)) {
            stage.on(&name).freeze();
            if name == owner {
                stage.owner_but(address, &owner).await?;
            }
            let watched = stage.others(&name).remove(0);
            stage.logged(&watched, &["dead", &name]).await?;
            stage.on(&name).thaw();
            stage
                .logged(&name, &["silent until a peer is heard"])
                .await?;
            stage.logged(&name, &["answering again"]).await?;
            wait_until(SOON, "the first to have it back", async || {
                stage.owner(address).await.is_ok_and(|now| now == owner)
            })
            .await?;
        }
        stage.scene.page(address).await?;
        stage.no_strangers();
        counted(&stage, &owner).await
    });
}

/// Metrics tell of it (docs/failure-detection.md).
async fn counted(stage: &Stage, owner: &str) -> Outcome {
    let paused = "corten_member_silences_total{cause=\"paused\"}";
    let healed = "corten_member_false_deaths_healed_total";
    let beats = "corten_member_datagrams_received_total{kind=\"beat\"}";
    for metric in [paused, healed, beats] {
        wait_until(SOON, metric, async || {
            stage
                .metric(owner, metric)
                .await
                .is_ok_and(|count| count > 0)
        })
        .await?;
    }
    Ok(())
}

/// While a link is cut, kernels forget where the other nodes are. Here they would then wait for ten
/// minutes before they ask again, so that it is the agents who do.
#[test]
fn after_a_cut_agents_ask_for_each_other() {
    lab::run(
        "failover::after_a_cut_agents_ask_for_each_other",
        async |lab| {
            let mut stage = Stage::build(&lab, 3).await?;
            stage.profile = "default";
            stage.serve("one")?;
            let mut nodes = String::new();
            for node in &stage.scene.nodes {
                let [four, six] = [node.ip, six(node)];
                let name = node.host.name();
                nodes += &format!(
                    "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nstatus:\n  \
                     addresses: [{{type: InternalIP, address: {four}}}, \
                     {{type: InternalIP, address: \"{six}\"}}]\n"
                );
            }
            stage.write("nodes.yaml", &nodes)?;
            stage.start()?;
            let address = ip("10.0.0.101");
            let owner = stage.owner(address).await?;
            // All know all.
            stage.scene.page(address).await?;
            for node in &stage.scene.nodes {
                for family in ["ipv4", "ipv6"] {
                    let key = format!("net/{family}/neigh/eth0/retrans_time_ms");
                    node.host.sysctl(&key, "600000")?;
                }
            }
            stage.scene.node(&owner).host.cut().await?;
            stage.owner_but(address, &owner).await?;
            for other in stage.others(&owner) {
                stage.logged(&owner, &["dead", &other]).await?;
                stage.logged(&other, &["dead", &owner]).await?;
                forget(&stage, &owner, &other).await?;
                forget(&stage, &other, &owner).await?;
            }
            stage.scene.node(&owner).host.heal().await?;
            wait_until(SOON, "the old owner to have it back, alone", async || {
                stage.owner(address).await.is_ok_and(|now| now == owner)
            })
            .await?;
            for other in stage.others(&owner) {
                known(&stage, &owner, &other).await?;
                known(&stage, &other, &owner).await?;
            }
            stage.scene.page(address).await?;
            Ok(())
        },
    );
}

/// Has a node's kernel forget where another one is, and waits until it has asked in vain.
async fn forget(stage: &Stage, node: &str, other: &str) -> Outcome {
    let (host, other) = (&stage.scene.node(node).host, stage.scene.node(other));
    let device = host.interface("eth0").await?.index;
    for ip in [other.ip, six(other)] {
        // It may not be known.
        let _ = host.netlink().del_neighbour(device, ip).await;
        // The next beat, or this, makes the kernel ask.
        let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        host.run(|| UdpSocket::bind(any)?.send_to(b"?", (ip, 9)))??;
        wait_until(SOON, "the kernel to ask", async || {
            let found = host.netlink().neighbours().await;
            found.is_ok_and(|all| all.iter().any(|it| it.ip == ip && it.mac.is_none()))
        })
        .await?;
    }
    Ok(())
}

/// Waits until a node's kernel knows where another one is, in both families.
async fn known(stage: &Stage, node: &str, other: &str) -> Outcome {
    let (host, other) = (&stage.scene.node(node).host, stage.scene.node(other));
    for ip in [other.ip, six(other)] {
        let what = format!("{node} to know where {ip} is");
        wait_until(SOON, &what, async || {
            let found = host.netlink().neighbours().await;
            found.is_ok_and(|all| all.iter().any(|it| it.ip == ip && it.mac.is_some()))
        })
        .await?;
    }
    Ok(())
}

/// A node's IPv6 address on the LAN.
fn six(node: &Node) -> IpAddr {
    match node.ip {
        IpAddr::V4(four) => {
            let last = format!("{}", four.octets()[3]);
            let last = u16::from_str_radix(&last, 16).unwrap_or_default();
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])
        }
        IpAddr::V6(_) => node.ip,
    }
}
