//! Several controllers, many Services: one leads, another takes over, nobody's address changes;
//! what happened while nobody listened is found out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lab::controlplane::{ApiError, binary_or_skip};
use lab::{Host, Outcome, Process, WaitError, wait_for};
use serde_json::{Value, json};

use crate::stage::{Fault, MINUTES, SOON, Stage, ingress, memory_kib, turn};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const LEASE: &str =
    "/apis/coordination.k8s.io/v1/namespaces/metallb-system/leases/corten-controller";
const POOL: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: many, namespace: metallb-system}
spec: {addresses: [10.0.8.0/21]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: all, namespace: metallb-system}
";

#[test]
fn one_leads_and_nothing_is_lost() {
    let name = "controllers::one_leads_and_nothing_is_lost";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    let _turn = turn();
    lab::run_for(name, MINUTES, async |lab| {
        let stage = Stage::build(lab, &binary, 1).await?;
        let mut replicas = Vec::new();
        for (name, address) in [("ctl-1", "10.0.0.6/24"), ("ctl-2", "10.0.0.7/24")] {
            let host = stage.lab.host(name).await?;
            stage.scene.lan.attach(&host, &[address]).await?;
            let process = stage.controller(&host)?;
            replicas.push((host, process));
        }
        let agent = stage.agent(&stage.scene.nodes[0])?;
        let mut cast = Cast {
            stage,
            replicas,
            agent,
        };
        let first = cast.leader_other_than("").await?;
        for (host, _) in &cast.replicas {
            cast.stage.ready(host).await?;
        }
        cast.stage.ready(&cast.stage.scene.nodes[0].host).await?;
        cast.stage
            .say(format!("{first} leads; the standby is ready"));
        cast.many().await?;
        cast.killed().await?;
        cast.stopped().await?;
        cast.restarted().await?;
        cast.deaf().await?;
        cast.memory().await
    });
}

struct Cast {
    stage: Stage,
    replicas: Vec<(Host, Process)>,
    agent: Process,
}

impl Cast {
    async fn create(&self, name: &str) -> Result<(), ApiError> {
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {
                "type": "LoadBalancer",
                // The range of node ports is smaller than the crowd.
                "allocateLoadBalancerNodePorts": false,
                "selector": {"app": "myapp"},
                "ports": [{"port": 80}],
            },
        });
        let api = self.stage.plane.api();
        api.create(SERVICES, &service).await.map(drop)
    }

    async fn delete(&self, name: &str) -> Result<(), ApiError> {
        let api = self.stage.plane.api();
        api.delete(&format!("{SERVICES}/{name}")).await.map(drop)
    }

    /// Every LoadBalancer Service with its addresses.
    async fn held(&self) -> Result<BTreeMap<String, Vec<String>>, ApiError> {
        let list = self.stage.plane.api().get(SERVICES).await?;
        Ok(list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|service| service["spec"]["type"] == "LoadBalancer")
            .map(|service| {
                let name = service["metadata"]["name"].as_str().unwrap_or_default();
                (name.to_owned(), ingress(service))
            })
            .collect())
    }

    /// Waits until `count` Services have an address each, all different.
    async fn all_held(&self, count: usize) -> Result<BTreeMap<String, Vec<String>>, WaitError> {
        let what = format!("{count} Services with an address each");
        wait_for(SOON, &what, async || {
            let held = self.held().await.map_err(|error| error.to_string())?;
            let served = held.values().filter(|addresses| addresses.len() == 1);
            let different: BTreeSet<_> = served.clone().collect();
            match (served.count(), different.len()) {
                (a, b) if a == count && b == count => Ok(held),
                (a, b) => Err(format!("{a} have one, {b} different")),
            }
        })
        .await
    }

    async fn leader_other_than(&self, old: &str) -> Result<String, WaitError> {
        wait_for(SOON, "another leader", async || {
            let lease = self.stage.plane.api().get(LEASE).await;
            let lease = lease.map_err(|error| error.to_string())?;
            match lease["spec"]["holderIdentity"].as_str() {
                Some(holder) if !holder.is_empty() && holder != old => Ok(holder.to_owned()),
                _ => Err(lease["spec"].to_string()),
            }
        })
        .await
    }

    fn replica(&mut self, name: &str) -> Result<&mut (Host, Process), Fault> {
        let mut replicas = self.replicas.iter_mut();
        let found = replicas.find(|(host, _)| host.name() == name);
        found.ok_or_else(|| format!("no replica {name}").into())
    }

    /// 500 Services wait for a pool; then it comes.
    async fn many(&mut self) -> Outcome {
        for n in 0..500 {
            self.create(&format!("s{n:04}")).await?;
        }
        self.stage.say("500 Services created");
        let start = Instant::now();
        self.stage.apply(POOL).await?;
        self.all_held(500).await?;
        let written = start.elapsed();
        let allocated = wait_for(SOON, "500 IPAllocated events", async || {
            let events = self.reasons().await.map_err(|error| error.to_string())?;
            match events.get("IPAllocated") {
                Some(500) => Ok(events),
                // On a machine so busy that the Lease is not renewed in time a term ends, and what
                // it had still to tell with it.
                Some(1..500) if self.deposed() => Ok(events),
                _ => Err(format!("{events:?}")),
            }
        })
        .await?;
        let told = start.elapsed();
        self.stage.say(format!(
            "500 statuses written {} ms after kubectl began to apply the pool ({:.0}/s), 500 \
             events {} ms; all events: {allocated:?}",
            written.as_millis(),
            500.0 / written.as_secs_f64(),
            told.as_millis(),
        ));
        let node = &self.stage.scene.nodes[0].host;
        self.announced(node, 500.0).await?;
        self.stage.say("all announced by the agent");
        Ok(())
    }

    /// A leader found out that it leads no more, and was not asked to.
    fn deposed(&self) -> bool {
        let mut replicas = self.replicas.iter();
        replicas.any(|(_, process)| process.log().contains("no longer leading"))
    }

    async fn reasons(&self) -> Result<BTreeMap<String, usize>, ApiError> {
        let api = self.stage.plane.api();
        let list = api.get("/api/v1/namespaces/default/events").await?;
        let mut reasons = BTreeMap::new();
        for event in list["items"].as_array().into_iter().flatten() {
            let reason = event["reason"].as_str().unwrap_or_default();
            *reasons.entry(reason.to_owned()).or_default() += 1;
        }
        Ok(reasons)
    }

    async fn announced(&self, node: &Host, count: f64) -> Result<(), WaitError> {
        wait_for(SOON, &format!("{count} addresses announced"), async || {
            let found = self.stage.metric(node, "metallb_speaker_announced{").await;
            match found.map_err(|error| error.to_string())? {
                found if found == count => Ok(()),
                found => Err(found.to_string()),
            }
        })
        .await
    }

    /// The leader is killed: the other waits for the Lease to expire, and serves.
    async fn killed(&mut self) -> Outcome {
        // How long it takes while somebody leads.
        let at = Instant::now();
        self.create("before-kill").await?;
        self.stage.has("before-kill", &["10.0.9.244"]).await?;
        let peace = at.elapsed();
        self.delete("before-kill").await?;
        let before = self.all_held(500).await?;
        let first = self.leader_other_than("").await?;
        let at = Instant::now();
        self.replica(&first)?.1.kill();
        self.create("after-kill").await?;
        let second = self.leader_other_than(&first).await?;
        let led = at.elapsed();
        self.stage.has("after-kill", &["10.0.9.244"]).await?;
        let served = at.elapsed();
        self.stage.say(format!(
            "{first} killed: {second} leads after {} ms, a new Service is served after {} ms \
             ({} ms in peace)",
            led.as_millis(),
            served.as_millis(),
            peace.as_millis(),
        ));
        // The bound; where a Service takes long in peace, all that a new leader does first
        // takes as much longer.
        let slow = match peace {
            peace if peace < Duration::from_millis(100) => Duration::ZERO,
            peace => 20 * peace,
        };
        assert!(served < Duration::from_secs(5) + slow, "{served:?}");
        let mut after = self.held().await?;
        after.remove("after-kill");
        assert_eq!(before, after);
        Ok(())
    }

    /// The leader is stopped: it gives the Lease back.
    async fn stopped(&mut self) -> Outcome {
        let before = self.held().await?;
        let leader = self.leader_other_than("").await?;
        let other = if leader == "ctl-1" { "ctl-2" } else { "ctl-1" };
        let host = self.replica(other)?.0.clone();
        let process = self.stage.controller(&host)?;
        self.replica(other)?.1 = process;
        self.stage.ready(&host).await?;
        let at = Instant::now();
        let process = &mut self.replica(&leader)?.1;
        process.terminate();
        let status = process.wait(SOON).await?;
        assert!(status.success(), "{status}");
        self.create("after-stop").await?;
        assert_eq!(self.leader_other_than(&leader).await?, other);
        self.stage.has("after-stop", &["10.0.9.245"]).await?;
        let served = at.elapsed();
        self.stage.say(format!(
            "{leader} stopped: {other} leads, a new Service is served after {} ms",
            served.as_millis()
        ));
        // Nobody waits until the Lease expires: that takes three seconds and more.
        assert!(served < Duration::from_secs(3), "{served:?}");
        let mut after = self.held().await?;
        after.remove("after-stop");
        assert_eq!(before, after);
        Ok(())
    }

    /// Agent and controller are killed and started again: nothing changes.
    async fn restarted(&mut self) -> Outcome {
        let before = self.held().await?;
        let leader = self.leader_other_than("").await?;
        let host = self.replica(&leader)?.0.clone();
        self.replica(&leader)?.1.kill();
        self.agent.kill();
        let process = self.stage.controller(&host)?;
        self.replica(&leader)?.1 = process;
        self.agent = self.stage.agent(&self.stage.scene.nodes[0])?;
        let node = self.stage.scene.nodes[0].host.clone();
        self.stage.ready(&node).await?;
        self.announced(&node, 502.0).await?;
        self.create("after-restart").await?;
        self.stage.has("after-restart", &["10.0.9.246"]).await?;
        let mut after = self.held().await?;
        after.remove("after-restart");
        assert_eq!(before, after);
        self.stage
            .say("controller and agent restarted: same addresses");
        Ok(())
    }

    /// The API server is restarted, and Services are deleted, while nobody of ours runs.
    async fn deaf(&mut self) -> Outcome {
        let api_host = self.stage.api_host.clone();
        self.stage.plane.stop_api_server();
        self.agent.freeze();
        self.replicas
            .iter()
            .for_each(|(_, process)| process.freeze());
        self.stage.plane.start_api_server(&api_host).await?;
        for n in 0..20 {
            self.delete(&format!("s{n:04}")).await?;
        }
        self.agent.thaw();
        self.replicas.iter().for_each(|(_, process)| process.thaw());
        let at = Instant::now();
        let node = self.stage.scene.nodes[0].host.clone();
        self.announced(&node, 483.0).await?;
        let agent = at.elapsed();
        // The lowest address is free again, and goes to the next one.
        self.create("after-deaf").await?;
        self.stage.has("after-deaf", &["10.0.8.0"]).await?;
        self.stage.say(format!(
            "20 deletions missed: the agent has noticed {} ms after it could, the controller {} ms",
            agent.as_millis(),
            at.elapsed().as_millis()
        ));
        Ok(())
    }

    /// What 1,000 Services take.
    async fn memory(&mut self) -> Outcome {
        for n in 504..1020 {
            self.create(&format!("s{n:04}")).await?;
        }
        self.all_held(1000).await?;
        let node = self.stage.scene.nodes[0].host.clone();
        self.announced(&node, 1000.0).await?;
        let leader = self.leader_other_than("").await?;
        let controller = &self.replica(&leader)?.1;
        let controller = [
            memory_kib(controller, "VmRSS"),
            memory_kib(controller, "RssAnon"),
        ];
        let agent = [
            memory_kib(&self.agent, "VmRSS"),
            memory_kib(&self.agent, "RssAnon"),
        ];
        let [controller, agent] = [controller, agent].map(|kib| kib.map(|kib| kib >> 10));
        self.stage.say(format!(
            "1,000 Services: agent {} MiB resident ({} its own), controller {} ({})",
            agent[0], agent[1], controller[0], controller[1],
        ));
        // What a debug build's pages add is the program's text.
        assert!(agent[1] <= 20, "{agent:?} MiB");
        let lease: Value = self.stage.plane.api().get(LEASE).await?;
        self.stage.say(format!("the Lease: {}", lease["spec"]));
        Ok(())
    }
}
