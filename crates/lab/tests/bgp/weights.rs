//! Weighted ECMP: what FRR makes of the link bandwidth community in its kernel.

use std::fmt::Write as _;

use lab::router::Frr;
use lab::wait_for;

use crate::stage::{Outcome, ROUTER, SOON, Stage, object};

/// The Service's endpoints: so many on each node. Routers count them; nobody asks them anything.
fn endpoints(stage: &Stage, counts: [u8; 2]) -> Outcome {
    let mut text = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata:\n  name: web-more\n  namespace: default\n  \
         labels: {kubernetes.io/service-name: web}\naddressType: IPv4\n\
         ports: [{name: \"\", protocol: TCP, port: 80}]\nendpoints:\n"
        .to_owned();
    for (node, count) in (1..).zip(counts) {
        for n in 1..=count {
            writeln!(
                text,
                "- {{addresses: [\"10.244.{node}.{}\"], nodeName: node-{node}, \
                 conditions: {{ready: true}}}}",
                n + 1
            )?;
        }
    }
    stage.write("endpoints.yaml", &text)
}

/// Waits until the router sends these shares of the Service's traffic to the nodes.
async fn shares(frr: &Frr, wanted: &[(&str, u64)]) -> Outcome {
    let what = format!("{wanted:?} in zebra");
    let found = wait_for(SOON, &what, async || {
        let found = frr.json("show ip route 192.168.1.1/32 json");
        let found = found.map_err(|error| error.to_string())?;
        let hops = found["192.168.1.1/32"][0]["nexthops"].as_array();
        let mut shares: Vec<(&str, u64)> = hops
            .into_iter()
            .flatten()
            .filter(|hop| hop["fib"] == true)
            .filter_map(|hop| Some((hop["ip"].as_str()?, hop["weight"].as_u64()?)))
            .collect();
        shares.sort_unstable();
        (shares == wanted)
            .then_some(())
            .ok_or_else(|| found.to_string())
    });
    Ok(found.await?)
}

#[test]
fn routers_send_each_node_its_share() {
    lab::run("weights::routers_send_each_node_its_share", async |lab| {
        let stage = Stage::of(&lab, 2).await?;
        let frr = Frr::start(&stage.router, ROUTER, "").await?;
        let peer = "myASN: 64500, peerASN: 64501, peerAddress: 10.0.0.1, connectTime: 1s";
        let pool = object("IPAddressPool", "pool", "addresses: [192.168.1.0/24]")
            + &object("Peer", "router", peer);
        let weighted = |weighted: bool| {
            let spec = format!("pools: [pool], bgp: {{weighted: {weighted}}}");
            pool.clone() + &object("Advertisement", "all", &spec)
        };
        stage.write("objects.yaml", &weighted(true))?;
        stage.label_nodes(&["", ""])?;
        stage.serve("web", "192.168.1.1", "externalTrafficPolicy: Local", &[])?;
        endpoints(&stage, [3, 1])?;
        let _agents = stage.start()?;
        shares(&frr, &[("10.0.0.11", 75), ("10.0.0.12", 25)]).await?;
        // One pod more on the other node.
        endpoints(&stage, [3, 2])?;
        shares(&frr, &[("10.0.0.11", 60), ("10.0.0.12", 40)]).await?;
        // Not asked for: every node alike.
        stage.write("objects.yaml", &weighted(false))?;
        shares(&frr, &[("10.0.0.11", 1), ("10.0.0.12", 1)]).await
    });
}
