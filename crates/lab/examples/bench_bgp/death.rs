//! A node falls silent: when the router's kernel has lost its route, with Corten on the node and
//! with FRR; and when Corten has seen that the router is gone. BFD with 50 ms × 3 on both sides.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use lab::router::Frr;
use lab::scene::{self, Scene};
use lab::uplink::Uplink;
use lab::{Host, Lab, Process, narrate, wait_for};

use super::Fault;

const SERVICE: &str = "default/myapp-svc";
/// Corten's address, and FRR's.
const ADDRESSES: [Ipv4Addr; 2] = [
    Ipv4Addr::new(192, 168, 10, 0),
    Ipv4Addr::new(192, 168, 20, 0),
];
const SOON: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_micros(200);
/// What the agent says when BFD has ended.
const FAILED: &str = "BFD: the path has failed";

const BFDD: &str = "\
bfd
 profile fast
  detect-multiplier 3
  transmit-interval 50
  receive-interval 50
";

const ROUTER: &str = "\
frr defaults datacenter
router bgp 64501
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 coalesce-time 0
 neighbor 10.0.0.11 remote-as 64500
 neighbor 10.0.0.11 passive
 neighbor 10.0.0.11 bfd profile fast
 neighbor 10.0.0.12 remote-as 64500
 neighbor 10.0.0.12 passive
 neighbor 10.0.0.12 bfd profile fast
";

const SPEAKER: &str = "\
frr defaults datacenter
router bgp 64500
 bgp router-id 10.0.0.12
 no bgp ebgp-requires-policy
 no bgp network import-check
 coalesce-time 0
 neighbor 10.0.0.1 remote-as 64501
 neighbor 10.0.0.1 timers connect 1
 neighbor 10.0.0.1 bfd profile fast
 address-family ipv4 unicast
  network 192.168.20.0/32
";

const PEER: &str = "\
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: sample, namespace: metallb-system}
spec: {myASN: 64500, peerASN: 64501, peerAddress: 10.0.0.1, connectTime: 1s, bfdProfile: fast}
---
apiVersion: metallb.io/v1beta1
kind: BFDProfile
metadata: {name: fast, namespace: metallb-system}
spec: {receiveInterval: 50, transmitInterval: 50, detectMultiplier: 3}
";

/// Milliseconds of each round.
#[derive(Debug, Default)]
pub(crate) struct Deaths {
    pub(crate) ours: Vec<f64>,
    pub(crate) frr: Vec<f64>,
    pub(crate) detection: Vec<f64>,
}

pub(crate) async fn deaths(lab: &Lab, rounds: u32) -> Result<Deaths, Fault> {
    let scene = Scene::build(lab, 2).await?;
    let uplink = Uplink::build(lab, &scene).await?;
    let [ours, other] = scene.nodes.as_slice() else {
        return Err("not two nodes".into());
    };
    let router = Frr::start(&uplink.router, ROUTER, BFDD).await?;
    let _frr = Frr::start(&other.host, SPEAKER, BFDD).await?;
    let dir = narrate::manifests(&scene, "bgp", SERVICE)?;
    fs::write(dir.join("sample.yaml"), PEER)?;
    let agent = scene::run(ours, &dir)?;
    let mut deaths = Deaths::default();
    for round in 0..rounds {
        for (host, address) in [&ours.host, &other.host].into_iter().zip(ADDRESSES) {
            ready(&router, host, address).await?;
            let corten = address == ADDRESSES[0];
            let watched = corten.then_some(&agent);
            let (gone, seen) = die(&uplink.router, host, address, watched).await?;
            lab.say(format!(
                "round {round}: {} gone after {gone:.1} ms {seen:?}",
                host.name()
            ));
            if corten {
                &mut deaths.ours
            } else {
                &mut deaths.frr
            }
            .push(gone);
            deaths.detection.extend(seen);
            host.heal().await?;
        }
    }
    Ok(deaths)
}

/// Waits until the router's BFD session with the node has its short intervals on both sides, and
/// its kernel has the route.
async fn ready(router: &Frr, node: &Host, address: Ipv4Addr) -> Result<(), Fault> {
    let ip = node.address(false)?.to_string();
    wait_for(SOON, &format!("BFD and the route of {ip}"), async || {
        let found = router
            .json("show bfd peers json")
            .map_err(|e| e.to_string())?;
        let mut peers = found.as_array().into_iter().flatten();
        let peer = peers
            .find(|peer| peer["peer"] == *ip)
            .cloned()
            .unwrap_or_default();
        let fast = peer["status"] == "up"
            && peer["transmit-interval"] == 50
            && peer["remote-transmit-interval"] == 50;
        let routed = router
            .host()
            .run(|| has(address))
            .map_err(|e| e.to_string())?;
        if fast && routed {
            Ok(())
        } else {
            Err(format!("{routed}, {peer}"))
        }
    })
    .await?;
    Ok(())
}

/// Cuts the node off; milliseconds until the route is gone, and until the agent has seen it.
async fn die(
    router: &Host,
    node: &Host,
    address: Ipv4Addr,
    agent: Option<&Process>,
) -> Result<(f64, Option<f64>), Fault> {
    let host = router.clone();
    let gone = tokio::task::spawn_blocking(move || host.run(move || until(|| !has(address))));
    let log: Option<(PathBuf, usize)> = agent.map(|agent| {
        (
            agent.log_path().to_owned(),
            agent.log().matches(FAILED).count(),
        )
    });
    let seen = log.map(|(path, before)| {
        tokio::task::spawn_blocking(move || {
            until(|| {
                let text = fs::read_to_string(&path).unwrap_or_default();
                text.matches(FAILED).count() > before
            })
        })
    });
    // Both are on their way.
    tokio::task::yield_now().await;
    let start = Instant::now();
    node.cut().await?;
    let after = |at: Instant| at.saturating_duration_since(start).as_secs_f64() * 1e3;
    let gone = gone.await??.ok_or("the route stays")?;
    let seen = match seen {
        Some(seen) => Some(after(seen.await?.ok_or("the agent sees nothing")?)),
        None => None,
    };
    Ok((after(gone), seen))
}

/// When it came true.
fn until(condition: impl Fn() -> bool) -> Option<Instant> {
    let start = Instant::now();
    while start.elapsed() < SOON {
        if condition() {
            return Some(Instant::now());
        }
        thread::sleep(LOOK);
    }
    None
}

/// Whether this thread's network has a route to the address alone (proc(5): in the order of the
/// machine's bytes).
fn has(address: Ipv4Addr) -> bool {
    let wanted = format!("{:08X}", u32::from_ne_bytes(address.octets()));
    let table = fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    table
        .lines()
        .any(|line| line.split_whitespace().nth(1) == Some(&wanted))
}
