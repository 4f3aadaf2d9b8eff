//! The documents' BGP example with FRR as the router.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lab::router::Frr;
use lab::{Target, wait_until};

use crate::stage::{ROUTER, SOON, Stage, next_hops};

#[test]
fn every_node_advertises_and_a_dead_one_no_more() {
    lab::run(
        "story::every_node_advertises_and_a_dead_one_no_more",
        async |lab| {
            let stage = Stage::build(&lab).await?;
            let frr = Frr::start(&stage.router, ROUTER, "").await?;
            stage.example()?;
            let mut processes = stage.start()?;
            let nodes: Vec<IpAddr> = stage.scene.nodes.iter().map(|node| node.ip).collect();
            next_hops(&frr, "192.168.10.0/32", &nodes).await?;

            // As MetalLB's: origin IGP, our AS alone, MED 0.
            let route = frr.json("show bgp ipv4 unicast 192.168.10.0/32 json")?;
            let paths = route["paths"].as_array().expect("paths");
            assert_eq!(paths.len(), 3, "{route:#}");
            for path in paths {
                assert_eq!(path["aspath"]["string"], "64500", "{path:#}");
                assert_eq!(path["origin"], "IGP", "{path:#}");
                // FRR shows it only where the attribute is there.
                assert_eq!(path["metric"], 0, "{path:#}");
            }

            // A client behind the router gets the page over all nodes.
            let service = SocketAddr::from(([192, 168, 10, 0], 80));
            let prober = stage.outside.probe(Target::Tcp(service))?;
            wait_until(SOON, "answers", async || prober.answered() > 50).await?;
            let mut spread: BTreeMap<String, u32> = BTreeMap::new();
            for _ in 0..100 {
                let answer = stage.outside.http_get(service, "/").await?;
                *spread.entry(answer.backend().to_owned()).or_default() += 1;
            }
            assert_eq!(spread.len(), 3, "{spread:?}");

            // An agent that stops says goodbye: routes ask to be left before they go.
            let last = processes.pop().expect("three");
            let before = prober.answered();
            last.terminate();
            next_hops(&frr, "192.168.10.0/32", &nodes[..2]).await?;
            wait_until(SOON, "more answers", async || {
                prober.answered() > before + 50
            })
            .await?;
            let gaps = prober.stop().await?;
            lab.say(format!("an agent stopped: {gaps:?}"));

            // A dead node: the hold time ends its routes.
            stage.scene.nodes[1].host.kill().await?;
            next_hops(&frr, "192.168.10.0/32", &nodes[..1]).await?;
            // Its pod is still an endpoint here, so a page may need another attempt.
            wait_until(SOON, "a page", async || {
                let answer = stage.outside.http_get(service, "/").await;
                answer.is_ok_and(|answer| answer.status == 200)
            })
            .await?;
            Ok(())
        },
    );
}
