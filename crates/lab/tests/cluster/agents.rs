//! The main story: a Service gets its address, the network finds it, the page answers; nodes die,
//! the API server goes and comes back, the Service is deleted.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use lab::controlplane::{Account, binary_or_skip};
use lab::{Outcome, Process, Target, bin, wait_for, wait_until};

use crate::stage::{Fault, MINUTES, SOON, Stage, root, turn};

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 101));
const SERVICE: &str = "myapp-svc";

#[test]
fn a_service_is_announced_and_forwarded() {
    let name = "agents::a_service_is_announced_and_forwarded";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    let _turn = turn();
    lab::run_for(name, MINUTES, async |lab| {
        let mut stage = Stage::build(lab, &binary, 3).await?;
        let _controller = stage.controller(&stage.api_host)?;
        let mut agents = Vec::new();
        for node in &stage.scene.nodes {
            agents.push(stage.agent(node)?);
        }
        stage.ready(&stage.api_host).await?;
        for node in &stage.scene.nodes {
            stage.ready(&node.host).await?;
        }
        stage.say("controller and agents are ready");
        the_page(&stage).await?;
        explained(&stage).await?;
        node_states(&stage).await?;
        deletion(&stage).await?;
        dual_stack(&stage).await?;
        away(&mut stage, &mut agents).await?;
        Ok(())
    });
}

/// The documents' example: kubectl shows the address, one node answers, every pod serves.
async fn the_page(stage: &Stage) -> Outcome {
    stage
        .kubectl(&["apply", "-f", &root("examples/l2")], "")
        .await?;
    let applied = Instant::now();
    stage.has(SERVICE, &["10.0.0.101"]).await?;
    stage.say(format!(
        "the status has 10.0.0.101, {} ms after kubectl",
        applied.elapsed().as_millis()
    ));
    let shown = stage.kubectl(&["get", "svc", SERVICE], "").await?;
    let row = shown.lines().nth(1).unwrap_or_default();
    let columns: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(columns[1], "LoadBalancer", "{shown}");
    assert_eq!(columns[3], "10.0.0.101", "{shown}");
    let service = stage.service(SERVICE).await?;
    let annotations = &service["metadata"]["annotations"];
    assert_eq!(annotations["metallb.io/ip-allocated-from-pool"], "ip-pool");

    let owner = stage.scene.owner(ADDRESS).await?.host.name().to_owned();
    let first = stage.scene.page(ADDRESS).await?;
    stage.say(format!("{owner} answers ARP; the page comes from {first}"));
    let pods = stage.spread(ADDRESS, 60).await?;
    assert_eq!(pods.len(), 3, "{pods:?}");

    let announced = format!("announcing from node \"{owner}\" with protocol \"layer2\"");
    // Controller and agent tell when they come to it, in either order.
    let given = "IPAllocated metallb-controller: ";
    let given = stage.event(SERVICE, given).await?;
    assert!(given.contains("10.0.0.101"), "{given}");
    let node = format!("nodeAssigned metallb-speaker: {announced}");
    stage.event(SERVICE, &node).await?;
    let events = stage.events(SERVICE).await?;
    assert_eq!(events.len(), 2, "one event per change: {events:#?}");
    let described = stage.kubectl(&["describe", "svc", SERVICE], "").await?;
    for word in ["IPAllocated", "metallb-controller", &announced] {
        assert!(described.contains(word), "{word}: {described}");
    }
    stage.say("kubectl shows address and events");
    Ok(())
}

/// `corten l2` says what the wire shows: who answers, and with which MAC address.
async fn explained(stage: &Stage) -> Outcome {
    let owner = stage.scene.owner(ADDRESS).await?.host.clone();
    let [a, b, c, d, e, f] = owner.mac("eth0").await?;
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    let kubeconfig = stage.plane.kubeconfig(Account::Admin);
    wait_for(SOON, "corten l2 to say the same", async || {
        let look = async || -> Result<serde_json::Value, Fault> {
            let mut command = stage.scene.client.command(bin("corten")?)?;
            command.args(["l2", "-o", "json", "--kubeconfig"]);
            let output = command.arg(&kubeconfig).output()?;
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into());
            }
            Ok(serde_json::from_slice(&output.stdout)?)
        };
        let shown = look().await.map_err(|error| error.to_string())?;
        let item = &shown["items"][0];
        let interfaces = item["interfaces"].as_array().into_iter().flatten();
        let eth0 = interfaces.filter(|it| it["name"] == "eth0");
        let right = item["address"] == ADDRESS.to_string()
            && item["node"] == owner.name()
            && item["announcedBy"] == serde_json::json!([owner.name()])
            && item["why"] == "first in order"
            && item["next"].as_array().is_some_and(|next| next.len() == 2)
            && eth0.map(|it| &it["mac"]).eq([&mac]);
        let nodes = shown["nodes"].as_array().into_iter().flatten();
        let has = |it: &&serde_json::Value| it["addresses"] == 1 && it["node"] == owner.name();
        match right && nodes.filter(has).count() == 1 {
            true => Ok(()),
            false => Err(shown.to_string()),
        }
    })
    .await?;
    stage.say("corten l2 says the same");
    Ok(())
}

/// Each agent says what its node is, and says it anew when that changes.
async fn node_states(stage: &Stage) -> Outcome {
    let node = &stage.scene.nodes[0];
    let shown = stage.kubectl(&["get", "nodestates"], "").await?;
    assert_eq!(shown.lines().count(), 4, "{shown}");
    let path = "/apis/corten.dev/v1alpha1/nodestates/node-1";
    let state = stage.plane.api().get(path).await?;
    assert_eq!(state["status"]["forward"], "all", "{state}");
    let subnets = subnets(&state);
    assert!(subnets.contains(&"10.0.0.0/24".to_owned()), "{state}");
    node.host.add_address("eth0", "10.77.0.1/24").await?;
    wait_for(SOON, "the new subnet in the NodeState", async || {
        let state = stage.plane.api().get(path).await;
        let state = state.map_err(|error| error.to_string())?;
        if subnets_has(&state, "10.77.0.0/24") {
            Ok(())
        } else {
            Err(state.to_string())
        }
    })
    .await?;
    stage.say("NodeStates follow the interfaces");
    Ok(())
}

fn subnets(state: &serde_json::Value) -> Vec<String> {
    let interfaces = state["status"]["interfaces"].as_array();
    let interfaces = interfaces.into_iter().flatten();
    interfaces
        .flat_map(|interface| interface["subnets"].as_array().cloned().unwrap_or_default())
        .filter_map(|subnet| subnet.as_str().map(str::to_owned))
        .collect()
}

fn subnets_has(state: &serde_json::Value, subnet: &str) -> bool {
    subnets(state).iter().any(|found| found == subnet)
}

/// A deleted Service's address is neither answered for nor forwarded, and goes to who waits.
async fn deletion(stage: &Stage) -> Outcome {
    // A pool of one address: the second Service waits for the first.
    stage
        .apply(
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
             metadata: {name: one, namespace: metallb-system}\n\
             spec: {addresses: [10.0.0.200/32], autoAssign: false}\n",
        )
        .await?;
    let address: IpAddr = "10.0.0.200".parse()?;
    let service = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  \
             annotations: {{metallb.io/address-pool: one}}\n\
             spec: {{type: LoadBalancer, selector: {{app: myapp}}, ports: [{{port: 80}}]}}\n"
        )
    };
    stage.apply(&service("first")).await?;
    stage.has("first", &["10.0.0.200"]).await?;
    stage.scene.page(address).await?;
    stage.apply(&service("second")).await?;
    let failed = stage.event("second", "AllocationFailed").await?;
    assert!(failed.contains("no available IPs"), "{failed}");
    stage
        .plane
        .api()
        .delete("/api/v1/namespaces/default/services/first")
        .await?;
    let deleted = Instant::now();
    stage.has("second", &["10.0.0.200"]).await?;
    stage.say(format!(
        "the freed address is the waiting Service's {} ms after the deletion",
        deleted.elapsed().as_millis()
    ));
    stage.scene.page(address).await?;
    assert_eq!(stage.spread(address, 60).await?.len(), 3);
    let prober = stage
        .scene
        .client
        .probe(Target::Tcp(SocketAddr::new(address, 80)))?;
    wait_until(SOON, "answers before the deletion", async || {
        prober.answered() > 100
    })
    .await?;
    stage
        .plane
        .api()
        .delete("/api/v1/namespaces/default/services/second")
        .await?;
    let deleted = Instant::now();
    wait_until(SOON, "nobody to serve the deleted Service", async || {
        prober.silence() > Duration::from_millis(500)
    })
    .await?;
    let unserved = deleted.elapsed().saturating_sub(prober.silence());
    prober.stop().await?;
    wait_for(
        SOON,
        "nobody to answer for the address",
        async || match stage.scene.answering(address).await {
            Ok(nodes) if nodes.is_empty() => Ok(()),
            Ok(nodes) => Err(format!("{} answer", nodes.len())),
            Err(error) => Err(error.to_string()),
        },
    )
    .await?;
    stage.say(format!(
        "deleted: the last connection {} ms after it, and no ARP answers",
        unserved.as_millis()
    ));
    assert!(unserved < Duration::from_secs(1), "{unserved:?}");
    Ok(())
}

/// Both families have an address, an answer and the page.
async fn dual_stack(stage: &Stage) -> Outcome {
    stage
        .apply(
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
             metadata: {name: both, namespace: metallb-system}\n\
             spec: {addresses: [10.0.0.210-10.0.0.219, 'fd00::210-fd00::219'], autoAssign: false}\n\
             ---\n\
             apiVersion: v1\nkind: Service\nmetadata:\n  name: both\n  \
             annotations: {metallb.io/address-pool: both}\n\
             spec: {type: LoadBalancer, ipFamilyPolicy: RequireDualStack, \
             selector: {app: myapp}, ports: [{port: 80}]}\n",
        )
        .await?;
    stage.has("both", &["10.0.0.210", "fd00::210"]).await?;
    for address in ["10.0.0.210", "fd00::210"] {
        let address: IpAddr = address.parse()?;
        stage.scene.owner(address).await?;
        stage.scene.page(address).await?;
        assert_eq!(stage.spread(address, 60).await?.len(), 3, "{address}");
    }
    stage.say("a dual-stack Service serves both families");
    Ok(())
}

/// The API server dies, then a node: the rest goes on. Then it is back, and all catch up.
async fn away(stage: &mut Stage, agents: &mut [Process]) -> Outcome {
    let index = |stage: &Stage, name: &str| {
        let mut nodes = stage.scene.nodes.iter();
        nodes.position(|node| node.host.name() == name)
    };
    // A process that is killed says nothing; its node's address moves.
    let owner = stage.scene.owner(ADDRESS).await?.host.name().to_owned();
    let killed = index(stage, &owner).ok_or("no such node")?;
    let at = Instant::now();
    agents[killed].kill();
    let next = other_than(stage, &owner).await?;
    let took = at.elapsed();
    stage.say(format!(
        "agent of {owner} killed: {next} answers after at most {} ms",
        took.as_millis()
    ));
    assert!(took < Duration::from_secs(2), "{took:?}");
    let announced = format!("nodeAssigned metallb-speaker: announcing from node \"{next}\"");
    stage.event(SERVICE, &announced).await?;
    agents[killed] = stage.agent(&stage.scene.nodes[killed])?;
    stage.ready(&stage.scene.nodes[killed].host).await?;
    wait_for(
        SOON,
        "the first node to have its address back",
        async || {
            let now = stage.scene.owner(ADDRESS).await;
            let now = now.map_err(|error| error.to_string())?.host.name();
            if now == owner {
                Ok(())
            } else {
                Err(now.to_owned())
            }
        },
    )
    .await?;
    stage.say("restarted: it answers again");

    stage.plane.stop_api_server();
    let prober = stage
        .scene
        .client
        .probe(Target::Tcp(SocketAddr::new(ADDRESS, 80)))?;
    wait_until(SOON, "answers without an API server", async || {
        prober.answered() > 300
    })
    .await?;
    let scene = stage.scene.clone();
    scene.node(&owner).host.kill().await?;
    let next = other_than(stage, &owner).await?;
    let answered = prober.answered();
    wait_until(SOON, "answers after the death", async || {
        prober.answered() > answered + 300
    })
    .await?;
    let gaps = prober.stop().await?;
    stage.say(format!(
        "no API server and {owner} powered off: {next} answers, the longest silence was {} ms",
        gaps.longest.as_millis()
    ));
    assert!(gaps.longest < Duration::from_secs(2), "{gaps:?}");

    let api_host = stage.api_host.clone();
    stage.plane.start_api_server(&api_host).await?;
    let back = Instant::now();
    let announced = format!("nodeAssigned metallb-speaker: announcing from node \"{next}\"");
    stage.event(SERVICE, &announced).await?;
    stage
        .apply(
            "apiVersion: v1\nkind: Service\nmetadata: {name: later}\n\
             spec: {type: LoadBalancer, selector: {app: myapp}, ports: [{port: 80}]}\n",
        )
        .await?;
    stage.has("later", &["10.0.0.102"]).await?;
    stage.scene.page("10.0.0.102".parse()?).await?;
    stage.say(format!(
        "the API server is back: a new Service is served {} ms later",
        back.elapsed().as_millis()
    ));
    Ok(())
}

/// Waits until exactly one node answers for the address, and it is another one.
async fn other_than(stage: &Stage, owner: &str) -> Result<String, lab::WaitError> {
    wait_for(SOON, "another node to answer", async || {
        let nodes = stage.scene.answering(ADDRESS).await;
        match nodes.map_err(|error| error.to_string())?.as_slice() {
            [next] if next.host.name() != owner => Ok(next.host.name().to_owned()),
            others => Err(format!("{} answer", others.len())),
        }
    })
    .await
}
