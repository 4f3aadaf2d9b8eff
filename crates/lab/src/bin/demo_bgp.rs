//! `cargo xtask demo bgp`: every node advertises a Service's address to the router, traffic comes
//! over all of them; one leaves in peace, and one dies.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lab::narrate::{manifests, note, spread, step};
use lab::router::Frr;
use lab::scene::Scene;
use lab::uplink::{FRR, Uplink};
use lab::{Lab, Outcome, Target, wait_for, wait_until};

const SERVICE: &str = "default/myapp-svc";
const PREFIX: &str = "192.168.10.0/32";
const ADDRESS: SocketAddr =
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 10, 0)), 80);
/// A hold time of 9 s is among it.
const SOON: Duration = Duration::from_secs(30);
/// Pages fetched to see the spread.
const PAGES: u32 = 300;

fn main() -> ExitCode {
    lab::main("demo-bgp", play)
}

async fn play(lab: Lab) -> Outcome {
    let begun = Instant::now();
    step(
        1,
        "Three nodes with a pod each, a router (FRR, AS 64501) on their LAN, a client behind it",
    );
    let scene = Scene::build(&lab, 3).await?;
    let uplink = Uplink::build(&lab, &scene).await?;
    let router = Frr::start(&uplink.router, FRR, "").await.map_err(|error| {
        format!("{error}: the demo needs the Debian package frr (apt-get install frr)")
    })?;
    for node in &scene.nodes {
        let (name, pod) = (node.host.name(), node.pod.name());
        note(format!(
            "{name}  {}  with {pod} at {}",
            node.ip, node.pod_ip
        ));
    }
    note("router  10.0.0.1 and 10.9.0.1");
    note("client  10.9.0.9");

    step(
        2,
        "The manifests of examples/bgp, and what a cluster would add: Nodes and endpoints",
    );
    let dir = manifests(&scene, "bgp", SERVICE)?;

    step(
        3,
        "corten run DIR on node-1, corten agent --dir DIR on the others: they dial the router",
    );
    let started = Instant::now();
    let mut processes = scene.start_on_directory(&dir, "default")?;
    let all: Vec<IpAddr> = scene.nodes.iter().map(|node| node.ip).collect();
    routes(&router, &all).await?;
    note(format!(
        "{} ms after the start the router has {PREFIX} by all three:",
        started.elapsed().as_millis()
    ));
    for line in router.ask(&["show ip route 192.168.10.0/32"])?.lines() {
        if line.contains("via") {
            note(format!("  {}", line.trim()));
        }
    }

    step(
        4,
        "curl http://192.168.10.0/ from the client behind the router",
    );
    let prober = uplink.outside.probe(Target::Tcp(ADDRESS))?;
    wait_until(SOON, "answers", async || prober.answered() > 100).await?;
    spread(&uplink.outside, ADDRESS, PAGES, 3).await?;

    step(
        5,
        "node-3's agent is stopped, while the client connects every millisecond",
    );
    let before = prober.answered();
    if let Some(last) = processes.pop() {
        last.terminate();
        let stopped = Instant::now();
        routes(&router, all.get(..2).unwrap_or_default()).await?;
        note(format!(
            "its routes ask to be left (65535:0): {} ms after the signal the router uses the others",
            stopped.elapsed().as_millis()
        ));
    }
    wait_until(SOON, "more answers", async || {
        prober.answered() > before + 200
    })
    .await?;
    let gaps = prober.stop().await?;
    note(format!(
        "the client's longest wait for an answer: {} ms",
        gaps.longest.as_millis()
    ));

    step(
        6,
        "Power off node-2: the router finds out by the hold time, 9 s",
    );
    let died = Instant::now();
    if let Some(node) = scene.nodes.get(1) {
        node.host.kill().await?;
    }
    routes(&router, all.get(..1).unwrap_or_default()).await?;
    note(format!(
        "its route was gone {:.1} s after it",
        died.elapsed().as_secs_f64()
    ));
    // One of the three pods died with its node, and no control plane is there to take it out.
    let answer = wait_for(SOON, "a page of a pod that lives", async || {
        let answer = uplink.outside.http_get(ADDRESS, "/").await;
        answer.map_err(|error| error.to_string())
    })
    .await?;
    note(format!("{} OK from {}", answer.status, answer.backend()));
    println!(
        "\nEverything worked, in {:.1} s. Nothing of the lab is left when this program has ended.",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Waits until the router has the Service's address by these nodes.
async fn routes(router: &Frr, nodes: &[IpAddr]) -> Result<(), lab::WaitError> {
    let mut wanted: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    wanted.sort_unstable();
    wait_for(
        SOON,
        &format!("{PREFIX} by {wanted:?}"),
        async || match router.next_hops(PREFIX) {
            Ok(found) if found == wanted => Ok(()),
            Ok(found) => Err(format!("{found:?}")),
            Err(error) => Err(error.to_string()),
        },
    )
    .await
}
