//! The World that an agent keeps: a restart while the API server is away goes on announcing.

use std::net::IpAddr;

use lab::controlplane::binary_or_skip;
use lab::router::Frr;
use lab::{Outcome, wait_for};

use crate::stage::{Fault, MINUTES, SOON, Stage, turn};

const STAYS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 101));

const ROUTER: &str = "\
frr defaults datacenter
router bgp 64501
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 bgp bestpath as-path multipath-relax
 neighbor NODES peer-group
 neighbor NODES remote-as 64500
 neighbor NODES password hunter2
 bgp listen range 10.0.0.0/24 peer-group NODES
";

const SYSTEM: &str = "\
apiVersion: v1
kind: Secret
type: kubernetes.io/basic-auth
metadata: {name: router-password, namespace: metallb-system}
stringData: {password: hunter2}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: pool, namespace: metallb-system}
spec: {addresses: [10.0.0.101-10.0.0.110]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: adv, namespace: metallb-system}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: adv, namespace: metallb-system}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: router, namespace: metallb-system}
spec:
  myASN: 64500
  peerASN: 64501
  peerAddress: 10.0.0.1
  connectTime: 1s
  passwordSecret: {name: router-password}
";

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{type: LoadBalancer, selector: {{app: myapp}}, ports: [{{port: 80}}]}}\n"
    )
}

async fn next_hops(frr: &Frr, prefix: &str, wanted: &[String]) -> Result<(), lab::WaitError> {
    wait_for(
        SOON,
        &format!("{prefix} by {wanted:?}"),
        async || match frr.next_hops(prefix) {
            Ok(hops) if hops == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await
}

/// Waits until every agent's journal says this.
async fn kept(stage: &Stage, what: &str) -> Result<(), lab::WaitError> {
    for node in &stage.scene.nodes {
        let file = node.host.run_dir().join("corten/world");
        wait_for(SOON, &format!("{what} in {}", file.display()), async || {
            let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
            match text.contains(what) {
                true => Ok(()),
                false => Err(format!("{} bytes", text.len())),
            }
        })
        .await?;
    }
    Ok(())
}

/// What an agent says at `/readyz`.
async fn readiness(stage: &Stage, wanted: impl Fn(&str) -> bool) -> Result<(), Fault> {
    for node in &stage.scene.nodes {
        let to = ([127, 0, 0, 1], 17472).into();
        let what = format!("/readyz of {}", node.host.name());
        wait_for(SOON, &what, async || {
            match node.host.http_get(to, "/readyz").await {
                Ok(answer) if answer.status == 200 && wanted(&answer.body) => Ok(()),
                Ok(answer) => Err(format!("{} {}", answer.status, answer.body)),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
    }
    Ok(())
}

#[test]
fn agents_that_restart_without_an_api_server_go_on() {
    let name = "kept::agents_that_restart_without_an_api_server_go_on";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    let _turn = turn();
    lab::run_for(name, MINUTES, async |lab| {
        let router = lab.router("router").await?;
        let mut stage = Stage::build(lab, &binary, 2).await?;
        stage.scene.lan.attach(&router, &["10.0.0.1/24"]).await?;
        let frr = Frr::start(&router, ROUTER, "").await?;
        let _controller = stage.controller(&stage.api_host)?;
        let mut agents = Vec::new();
        for node in &stage.scene.nodes {
            agents.push(stage.agent(node)?);
        }
        go_on(&mut stage, &frr, agents).await
    });
}

async fn go_on(stage: &mut Stage, frr: &Frr, agents: Vec<lab::Process>) -> Outcome {
    stage.apply(SYSTEM).await?;
    stage.apply(&service("stays")).await?;
    stage.has("stays", &["10.0.0.101"]).await?;
    stage.apply(&service("goes")).await?;
    stage.has("goes", &["10.0.0.102"]).await?;
    let nodes: Vec<String> = stage
        .scene
        .nodes
        .iter()
        .map(|it| it.ip.to_string())
        .collect();
    for prefix in ["10.0.0.101/32", "10.0.0.102/32"] {
        next_hops(frr, prefix, &nodes).await?;
    }
    kept(stage, "10.0.0.102").await?;
    stage.say("two Services are announced, and kept");

    // Killed: what they know is what they had written. One Service goes meanwhile.
    drop(agents);
    next_hops(frr, "10.0.0.101/32", &[]).await?;
    let path = "/api/v1/namespaces/default/services/goes";
    stage.plane.api().delete(path).await?;
    stage.plane.stop_api_server();
    let mut agents = Vec::new();
    for node in &stage.scene.nodes {
        agents.push(stage.agent(node)?);
    }
    for prefix in ["10.0.0.101/32", "10.0.0.102/32"] {
        next_hops(frr, prefix, &nodes).await?;
    }
    stage.scene.owner(STAYS).await?;
    stage.scene.page(STAYS).await?;
    readiness(stage, |body| body.contains("World kept")).await?;
    stage.say("without an API server both are announced again");

    let api_host = stage.api_host.clone();
    stage.plane.start_api_server(&api_host).await?;
    next_hops(frr, "10.0.0.102/32", &[]).await?;
    readiness(stage, |body| body == "ok\n").await?;
    next_hops(frr, "10.0.0.101/32", &nodes).await?;
    stage.scene.page(STAYS).await?;
    stage.say("with it, the one that was deleted is not");
    for agent in &mut agents {
        let ended = agent.try_wait()?;
        assert!(ended.is_none(), "{}", agent.log());
    }
    Ok(())
}
