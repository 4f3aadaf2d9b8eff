//! Addresses that strangers have: hosts on the LAN that are no nodes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lab::{Host, wait_for};

use crate::support::{Outcome, POOL, SOON, Stage, ip, service, slice};

const WITHHELD: &str = "corten_layer2_occupied_addresses{state=\"withheld\"}";
const CONTESTED: &str = "corten_layer2_occupied_addresses{state=\"contested\"}";
const CONFLICTS: &str = "corten_layer2_address_conflicts_total";
/// A stranger that was found is looked for again after 2, 4, 8, 16 and then every 30 s.
const LATER: Duration = Duration::from_secs(40);

async fn counts(stage: &Stage, node: &str, metric: &str, count: u64) -> Outcome {
    let what = format!("{metric} of {node} to be {count}");
    let counted = wait_for(LATER, &what, async || {
        match stage.metric(node, metric).await {
            Ok(found) if found == count => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    Ok(counted.await?)
}

/// Who answers for `ip`, as [`Stage::answering`] names them.
async fn only(stage: &Stage, ip: IpAddr, wanted: &str) -> Outcome {
    let what = format!("only {wanted} to answer for {ip}");
    let found = wait_for(SOON, &what, async || {
        let window = Duration::from_millis(300);
        match stage.answering(ip, window).await {
            Ok(names) if names == [wanted] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    Ok(found.await?)
}

/// The text of a line in the log of any of these nodes, and the node.
async fn told(stage: &mut Stage, parts: &[&str]) -> Outcome<String> {
    let nodes = stage.others("");
    let what = format!("{parts:?} of some node");
    let found = wait_for(LATER, &what, async || {
        for node in &nodes {
            let log = stage.on(node).log();
            let mut lines = log.lines();
            if lines.any(|line| parts.iter().all(|part| line.contains(part))) {
                return Ok(node.clone());
            }
        }
        Err("nobody says so")
    });
    Ok(found.await?)
}

async fn attach(stage: &Stage, lab: &lab::Lab, addresses: &[&str]) -> Outcome<(Host, String)> {
    let stranger = lab.host("stranger").await?;
    stage.scene.lan.attach(&stranger, addresses).await?;
    let name = format!("{:02x?}", stranger.mac("eth0").await?);
    Ok((stranger, name))
}

#[test]
fn what_a_stranger_has_is_not_announced_until_he_is_gone() {
    lab::run(
        "strangers::what_a_stranger_has_is_not_announced_until_he_is_gone",
        async |lab| {
            let mut stage = Stage::build(&lab, 2).await?;
            stage.write(
                "pool.yaml",
                &(POOL.to_owned() + "  - fd00::101-fd00::150\n"),
            )?;
            let (v4, v6) = (ip("10.0.0.101"), ip("fd00::101"));
            let (stranger, name) = attach(&stage, &lab, &["10.0.0.101/24", "fd00::101/64"]).await?;
            stage.start()?;
            for node in ["node-1", "node-2"] {
                stage.ready(node).await?;
            }
            let dual = "ipFamilyPolicy: PreferDualStack\n  ipFamilies: [IPv4, IPv6]";
            let nodes = &stage.scene.nodes;
            let text = service("one", dual) + &slice("one", false, nodes);
            stage.write("one.yaml", &text)?;

            let owner = told(
                &mut stage,
                &["AddressConflict", "10.0.0.101", "is not announced"],
            )
            .await?;
            stage
                .logged(
                    &owner,
                    &["AddressConflict", "fd00::101", "is not announced"],
                )
                .await?;
            counts(&stage, &owner, WITHHELD, 2).await?;
            counts(&stage, &owner, CONFLICTS, 2).await?;
            only(&stage, v4, &name).await?;
            only(&stage, v6, &name).await?;

            // Its next agent announces nothing either, not for a moment.
            stage.on(&owner).kill();
            stage.start_on(&owner)?;
            stage.ready(&owner).await?;
            counts(&stage, &owner, WITHHELD, 2).await?;
            for address in [v4, v6] {
                only(&stage, address, &name).await?;
                for node in ["node-1", "node-2"] {
                    let sent = "metallb_layer2_gratuitous_sent";
                    assert_eq!(stage.counted(node, sent, address).await?, 0, "{node}");
                }
            }

            // The stranger goes.
            let device = stranger.netlink().index_of("eth0").await?;
            stranger.netlink().del_address(device, v4, 24).await?;
            stranger.netlink().del_address(device, v6, 64).await?;
            for address in ["10.0.0.101", "fd00::101"] {
                told(&mut stage, &["AddressConflictOver", address]).await?;
            }
            counts(&stage, &owner, WITHHELD, 0).await?;
            only(&stage, v4, &owner).await?;
            only(&stage, v6, &owner).await?;
            stage
                .logged(&owner, &["nodeAssigned", "with protocol"])
                .await?;
            stage.scene.page(v4).await?;
            Ok(())
        },
    );
}

#[test]
fn who_comes_later_takes_nothing_away() {
    lab::run(
        "strangers::who_comes_later_takes_nothing_away",
        async |lab| {
            let mut stage = Stage::build(&lab, 2).await?;
            stage.serve("one")?;
            stage.start()?;
            let address = ip("10.0.0.101");
            let owner = stage.owner(address).await?;
            let node = stage.scene.node(&owner).ip;
            let (stranger, _) = attach(&stage, &lab, &["10.0.0.101/24"]).await?;
            // It asks for the node, from this address.
            stranger.http_get(SocketAddr::new(node, 1), "/").await.ok();
            told(
                &mut stage,
                &["AddressConflict", "10.0.0.101", "all the same"],
            )
            .await?;
            counts(&stage, &owner, CONTESTED, 1).await?;
            counts(&stage, &owner, CONFLICTS, 1).await?;
            assert_eq!(stage.metric(&owner, WITHHELD).await?, 0);
            let answering = stage.answering(address, Duration::from_millis(300)).await?;
            assert!(answering.contains(&owner), "{answering:?}");
            stranger.cut().await?;
            stage.logged(&owner, &["AddressConflictOver"]).await?;
            counts(&stage, &owner, CONTESTED, 0).await?;
            only(&stage, address, &owner).await
        },
    );
}
