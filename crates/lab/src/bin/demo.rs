//! `cargo xtask demo`: a Service gets its address, the network finds it, the page answers; and
//! when the node that answers dies, another one does.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lab::narrate::{manifests, note, spread, step};
use lab::scene::Scene;
use lab::{Lab, Outcome, Target, wait_for, wait_until};

const SERVICE: &str = "default/myapp-svc";
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 101));
const SOON: Duration = Duration::from_secs(15);
/// Pages fetched to see the spread.
const PAGES: u32 = 300;

fn main() -> ExitCode {
    lab::main("demo", play)
}

async fn play(lab: Lab) -> Outcome {
    let begun = Instant::now();
    step(
        1,
        "A LAN with three nodes, a pod on each, and a client (network namespaces of our own)",
    );
    let scene = Scene::build(&lab, 3).await?;
    for node in &scene.nodes {
        note(format!(
            "{}  {}  with {} at {}",
            node.host.name(),
            node.ip,
            node.pod.name(),
            node.pod_ip
        ));
    }
    note("client  10.0.0.9");

    step(
        2,
        "The manifests of examples/l2, and what a cluster would add: Nodes and endpoints",
    );
    let dir = manifests(&scene, "l2", SERVICE)?;

    step(
        3,
        "corten run DIR on node-1, corten agent --dir DIR on the others",
    );
    let _processes = scene.start_on_directory(&dir, "default")?;
    let state = dir.join(".corten/state.json");
    let started = Instant::now();
    wait_for(SOON, "the Service to get 10.0.0.101", async || {
        let text = fs::read_to_string(&state).unwrap_or_default();
        if text.contains("\"10.0.0.101\"") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await?;
    note(format!(
        "Service {SERVICE} got {ADDRESS} from pool ip-pool, {} ms after the start",
        started.elapsed().as_millis()
    ));

    step(4, "Who has 10.0.0.101? The client asks by ARP");
    let owner = scene.owner(ADDRESS).await?;
    let mac = owner.host.mac("eth0").await?;
    let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
    note(format!(
        "{} answers, and nobody else: {ADDRESS} is at {mac}",
        owner.host.name()
    ));

    step(5, "curl http://10.0.0.101/ from the client");
    let first = scene.page(ADDRESS).await?;
    note(format!("200 OK from {first}"));
    let at = SocketAddr::new(ADDRESS, 80);
    spread(&scene.client, at, PAGES, scene.nodes.len()).await?;

    step(
        6,
        &format!(
            "Power off {}, which answers, while the client connects every millisecond",
            owner.host.name()
        ),
    );
    let prober = scene
        .client
        .probe(Target::Tcp(SocketAddr::new(ADDRESS, 80)))?;
    wait_until(SOON, "answers before the death", async || {
        prober.answered() > 200
    })
    .await?;
    owner.host.kill().await?;
    let next = wait_for(SOON, "another node to answer", async || {
        match scene
            .answering(ADDRESS)
            .await
            .map_err(|error| error.to_string())?
            .as_slice()
        {
            [next] if next.host.name() != owner.host.name() => Ok(next.host.name().to_owned()),
            others => Err(format!("{} answer", others.len())),
        }
    })
    .await?;
    let answered = prober.answered();
    wait_until(SOON, "answers after the death", async || {
        prober.answered() > answered + 200
    })
    .await?;
    let gaps = prober.stop().await?;
    note(format!(
        "{next} answers now; the client heard nothing for {} ms",
        gaps.longest.as_millis()
    ));
    if gaps.longest > Duration::from_secs(2) {
        return Err(format!("the gap of {:?} is longer than 2 s", gaps.longest).into());
    }
    println!(
        "\nEverything worked, in {:.1} s. Nothing of the lab is left when this program has ended.",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}
