//! Graceful restart (RFC 4724) and route refresh (RFC 2918).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use lab::router::Frr;
use lab::{Host, Process, scene, wait_for, wait_until};

use crate::stage::{Outcome, ROUTER, SOON, Stage, known, next_hops, object};

const PREFIX: &str = "192.168.1.1/32";

/// Someone who asks for one page after another, each in a new connection. A packet that comes late
/// is none that is lost: without a route the router says so at once.
#[derive(Default)]
pub(crate) struct Reader {
    pub(crate) pages: AtomicU64,
    pub(crate) stop: AtomicBool,
}

impl Reader {
    /// Reads until it is to stop; gives what went wrong.
    pub(crate) async fn read(&self, host: Host, service: SocketAddr) -> Vec<String> {
        let mut errors = Vec::new();
        while !self.stop.load(Relaxed) {
            match host.http_get(service, "/").await {
                Ok(_) => _ = self.pages.fetch_add(1, Relaxed),
                Err(error) => errors.push(error.to_string()),
            }
        }
        errors
    }

    pub(crate) async fn more(&self, pages: u64) -> Outcome {
        let wanted = self.pages.load(Relaxed) + pages;
        let enough = async || self.pages.load(Relaxed) >= wanted;
        Ok(wait_until(SOON, "more pages", enough).await?)
    }
}

fn restart(stage: &Stage) -> Outcome<Vec<Process>> {
    let nodes = &stage.scene.nodes;
    Ok(vec![
        scene::run(&nodes[0], &stage.dir)?,
        scene::agent(&nodes[1], &stage.dir)?,
    ])
}

#[test]
fn agents_restart_and_nothing_is_lost() {
    lab::run(
        "graceful::agents_restart_and_nothing_is_lost",
        async |lab| {
            let stage = Stage::of(&lab, 2).await?;
            let frr = Frr::start(&stage.router, ROUTER, "").await?;
            stage.label_nodes(&["", ""])?;
            let peer = "myASN: 64500, peerASN: 64501, peerAddress: 10.0.0.1, connectTime: 1s, \
                    enableGracefulRestart: true";
            let objects = |more: &str| {
                object("BGPPeer", "router", &format!("{peer}{more}"))
                    + &object("IPAddressPool", "pool", "addresses: [192.168.1.0/24]")
                    + &object("BGPAdvertisement", "all", "")
            };
            stage.write("objects.yaml", &objects(""))?;
            let cluster = "externalTrafficPolicy: Cluster";
            stage.serve("web", "192.168.1.1", cluster, &[0, 1])?;
            let mut agents = stage.start()?;
            let nodes: Vec<IpAddr> = stage.scene.nodes.iter().map(|node| node.ip).collect();
            let fresh = ["10.0.0.11 as=64500", "10.0.0.12 as=64500"];
            let stale = [
                "10.0.0.11 as=64500 stale=true",
                "10.0.0.12 as=64500 stale=true",
            ];
            known(&frr, PREFIX, &fresh).await?;

            let service = SocketAddr::from(([192, 168, 1, 1], 80));
            let page = async || stage.outside.http_get(service, "/").await.is_ok();
            wait_until(SOON, "a page", page).await?;
            let reader = Arc::new(Reader::default());
            let reading = {
                let (reader, outside) = (reader.clone(), stage.outside.clone());
                tokio::spawn(async move { reader.read(outside, service).await })
            };
            for gently in [false, true] {
                // All at once: no route is left that is not kept.
                for agent in &mut agents {
                    if gently {
                        agent.terminate();
                        agent.wait(SOON).await?;
                    } else {
                        agent.kill();
                    }
                }
                known(&frr, PREFIX, &stale).await?;
                reader.more(50).await?;
                agents = restart(&stage)?;
                known(&frr, PREFIX, &fresh).await?;
                next_hops(&frr, PREFIX, &nodes).await?;
            }
            reader.more(50).await?;

            // A change that the session must be opened anew for: as over a restart.
            stage.write(
                "objects.yaml",
                &objects(", holdTime: 6s, keepaliveTime: 2s"),
            )?;
            for node in &nodes {
                let what = format!("the new hold time of {node}");
                wait_for(SOON, &what, async || {
                    let found = frr.json(&format!("show bgp neighbors {node} json"));
                    let found = found.map_err(|error| error.to_string())?;
                    let peer = &found[node.to_string()];
                    let is =
                        peer["bgpTimerHoldTimeMsecs"] == 6_000 && peer["bgpState"] == "Established";
                    is.then_some(()).ok_or_else(|| peer["bgpState"].to_string())
                })
                .await?;
            }
            known(&frr, PREFIX, &fresh).await?;
            reader.more(50).await?;
            reader.stop.store(true, Relaxed);
            let errors = reading.await?;
            lab.say(format!("{} pages", reader.pages.load(Relaxed)));
            assert_eq!(errors, [""; 0]);

            // The peer forgets what it was told, and asks again: its new policy meets all routes.
            frr.ask(&[
                "configure terminal",
                "route-map IN permit 10",
                "set local-preference 77",
                "exit",
                "router bgp 64501",
                "address-family ipv4 unicast",
                "neighbor NODES route-map IN in",
            ])?;
            frr.ask(&["clear bgp ipv4 unicast 10.0.0.11 soft in"])?;
            let anew = ["10.0.0.11 as=64500 pref=77", "10.0.0.12 as=64500 pref=77"];
            known(&frr, PREFIX, &anew).await?;
            let neighbour = frr.json("show bgp neighbors 10.0.0.11 json")?;
            let sent = &neighbour["10.0.0.11"]["messageStats"]["routeRefreshSent"];
            assert!(sent.as_u64() > Some(0), "{sent}");
            Ok(())
        },
    );
}
