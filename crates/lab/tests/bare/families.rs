//! IPv6 and two families at once.

use std::net::SocketAddr;

use crate::support::{POOL, Stage, ip, service, slice};

#[test]
fn both_families_answer_with_tcp_and_udp() {
    lab::run(
        "families::both_families_answer_with_tcp_and_udp",
        async |lab| {
            let mut stage = Stage::build(&lab, 3).await?;
            stage.write(
                "pool.yaml",
                &(POOL.to_owned() + "  - fd00::100-fd00::1ff\n"),
            )?;
            let nodes = &stage.scene.nodes;
            let six = service("six", "ipFamilies: [IPv6]") + &slice("six", true, nodes);
            stage.write("six.yaml", &six)?;
            let both = service(
                "both",
                "ipFamilies: [IPv4, IPv6]\n  ipFamilyPolicy: RequireDualStack",
            ) + &slice("both", false, nodes)
                + &slice("both", true, nodes);
            stage.write("both.yaml", &both)?;
            stage.start()?;
            stage.holds("both", &["10.0.0.101", "fd00::100"]).await?;
            stage.holds("six", &["fd00::101"]).await?;
            for address in ["10.0.0.101", "fd00::100", "fd00::101"].map(ip) {
                stage.owner(address).await?;
                stage.scene.page(address).await?;
                stage.echo(address).await?;
            }
            // Both addresses of one Service are on one node.
            assert_eq!(
                stage.owner(ip("10.0.0.101")).await?,
                stage.owner(ip("fd00::100")).await?
            );
            // Every pod takes part, over IPv6 too.
            let mut pods = std::collections::BTreeSet::new();
            for _ in 0..60 {
                let answer = stage
                    .client()
                    .http_get(SocketAddr::new(ip("fd00::101"), 80), "/");
                pods.insert(answer.await?.backend().to_owned());
            }
            assert_eq!(pods.len(), 3, "{pods:?}");
            let before = stage.owner(ip("fd00::101")).await?;
            stage.scene.node(&before).host.kill().await?;
            stage.owner_but(ip("fd00::101"), &before).await?;
            Ok(())
        },
    );
}
