//! A leader is stopped in the middle of a write, which lands after another one leads and gives an
//! address to a second Service. Nobody on the network notices, and the new leader clears it within
//! a second (design.md §4.9). Then the first goes on, and stands by.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use lab::controlplane::{Patch, binary_or_skip};
use lab::{Outcome, Process, Relay, wait_for, wait_until};
use serde_json::{Value, json};

use crate::services::logged;
use crate::stage::{Fault, MINUTES, SOON, Stage, turn};

/// The one address of the pool that both Services get.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 150));
/// Its name comes first: by name it would win.
const LATE: &str = "aaa";
const HOLDER: &str = "zzz";
const POOLS: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: one, namespace: metallb-system}
spec: {addresses: [10.0.0.150/32]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: all, namespace: metallb-system}
";
const WARM: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: warm, namespace: metallb-system}
spec: {addresses: [10.0.0.160-10.0.0.189], autoAssign: false}
";

#[test]
fn a_deposed_leaders_write_changes_nothing_on_the_wire() {
    let name = "deposed::a_deposed_leaders_write_changes_nothing_on_the_wire";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    let _turn = turn();
    lab::run_for(name, MINUTES, async |lab| {
        let stage = Stage::build(lab, &binary, 2).await?;
        stage.apply(POOLS).await?;
        // The first replica reaches the API server, under its usual address, through a relay.
        let old = stage.lab.host("ctl-1").await?;
        let new = stage.lab.host("ctl-2").await?;
        stage.scene.lan.attach(&old, &["10.0.0.6/24"]).await?;
        stage.scene.lan.attach(&new, &["10.0.0.7/24"]).await?;
        let server = stage.plane.server();
        old.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
        old.add_address("lo", &format!("{}/32", server.ip()))
            .await?;
        let relay = Relay::start(&old, server, &stage.api_host, server)?;
        let old_leader = stage.controller(&old)?;
        stage.ready(&old).await?;
        let agents = [
            stage.agent(&stage.scene.nodes[0])?,
            stage.agent(&stage.scene.nodes[1])?,
        ];
        for node in &stage.scene.nodes {
            stage.ready(&node.host).await?;
        }
        // Many writes at the same time leave it with many open connections: one event, the pool's,
        // makes them.
        for n in 0..20 {
            create(&stage, &format!("warm-{n}"), Some("warm"), None).await?;
            stage
                .event(&format!("warm-{n}"), "AllocationFailed")
                .await?;
        }
        stage.apply(WARM).await?;
        for n in 0..20 {
            let name = format!("warm-{n}");
            wait_until(SOON, "an address of the warm pool", async || {
                stage.addresses(&name).await.len() == 1
            })
            .await?;
        }
        let _new_leader = stage.controller(&new)?;
        stage.ready(&new).await?;
        stage.say("one leads, another stands by");

        relay.hold();
        create(&stage, LATE, None, Some(stage.scene.nodes[1].pod_ip)).await?;
        // The status, the event, the pool's counters and the Lease.
        logged(&old_leader, &[LATE, "IPAllocated"]).await?;
        wait_until(SOON, "four requests to be held", async || relay.held() >= 4).await?;
        old_leader.freeze();
        let frozen = Instant::now();
        assert!(stage.addresses(LATE).await.is_empty(), "not held");
        stage.say("the leader is stopped; its write is on its way");

        // Whoever leads next may give the address to the other Service only.
        let pool = "/apis/metallb.io/v1beta1/namespaces/metallb-system/ipaddresspools/one";
        let patch = json!({"spec": {"autoAssign": false}});
        stage.plane.api().patch(pool, Patch::Merge, &patch).await?;
        create(
            &stage,
            HOLDER,
            Some("one"),
            Some(stage.scene.nodes[0].pod_ip),
        )
        .await?;
        stage.has(HOLDER, &["10.0.0.150"]).await?;
        let took_over = frozen.elapsed();
        // How long that may take is `controllers`' matter.
        stage.say(format!(
            "the other leads and serves {} ms after the first was stopped",
            took_over.as_millis()
        ));
        stage.event(LATE, "AllocationFailed").await?;
        stage.scene.owner(ADDRESS).await?;
        assert_eq!(stage.scene.page(ADDRESS).await?, "pod-1");

        let watched = Watched::new(&agents);
        let story = async {
            // Let it be watched before, while and after.
            watched.rounds(3).await?;
            relay.release();
            let told = cleared(&stage).await?;
            old_leader.thaw();
            assert!(told.contains(HOLDER), "it names who has it: {told}");
            watched.rounds(5).await?;
            Ok::<_, Fault>(())
        };
        let story = async {
            let told = story.await;
            watched.over.set(true);
            told
        };
        let (story, asked, pages) = tokio::join!(story, watched.arp(&stage), watched.pages(&stage));
        story?;
        asked?;
        pages?;
        assert_eq!(stage.addresses(HOLDER).await, ["10.0.0.150"]);
        assert!(stage.addresses(LATE).await.is_empty());
        let pods = watched.pods.take();
        assert_eq!(pods, BTreeSet::from(["pod-1".to_owned()]));
        stage.say(format!(
            "{} rounds of ARP, {} pages: never two announcers, never the other Service",
            watched.asked.get(),
            watched.answered.get()
        ));
        // The deposed one knows it.
        wait_for(SOON, "the first to stand by", async || {
            let log = old_leader.log();
            match log.contains("no longer leading") {
                true => Ok(()),
                false => Err(log.lines().last().unwrap_or_default().to_owned()),
            }
        })
        .await?;
        Ok(())
    });
}

/// Waits until the write has landed and is cleared again, and is told; the bound counts from the
/// moment at which it is first seen.
async fn cleared(stage: &Stage) -> Result<String, Fault> {
    let (mut landed, mut took) = (None, None);
    let told = wait_for(SOON, "the write to land, and to be cleared", async || {
        let found = stage.addresses(LATE).await;
        if !found.is_empty() {
            landed.get_or_insert_with(Instant::now);
            return Err(found);
        }
        if let (Some(landed), None) = (landed, took) {
            took = Some(Instant::now().duration_since(landed));
        }
        let events = stage.events(LATE).await;
        let events = events.map_err(|error| vec![error.to_string()])?;
        let told = |event: &&String| event.starts_with("ClearAssignment");
        events.iter().find(told).cloned().ok_or(events)
    })
    .await?;
    // Where it was never seen, it was there for less than a look.
    let took = took.unwrap_or_default();
    stage.say(format!("cleared after {} ms: {told}", took.as_millis()));
    assert!(took < Duration::from_secs(1), "{took:?}");
    Ok(told)
}

/// A Service with the pool that it asks for and the one endpoint that it has.
async fn create(
    stage: &Stage,
    name: &str,
    pool: Option<&str>,
    endpoint: Option<IpAddr>,
) -> Outcome {
    let annotations = pool.map(|pool| json!({"metallb.io/address-pool": pool}));
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    });
    let api = stage.plane.api();
    if let Some(endpoint) = endpoint {
        let slice = slice(name, endpoint);
        api.create(
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            &slice,
        )
        .await?;
    }
    api.create("/api/v1/namespaces/default/services", &service)
        .await?;
    Ok(())
}

fn slice(service: &str, endpoint: IpAddr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-1"),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "protocol": "TCP", "port": 80}],
        "endpoints": [{"addresses": [endpoint], "conditions": {"ready": true}}],
    })
}

/// What the network sees meanwhile.
#[derive(Debug)]
struct Watched<'a> {
    agents: &'a [Process],
    /// Failures that the agents saw, or thought to see, before.
    failures: usize,
    over: Cell<bool>,
    asked: Cell<u32>,
    answered: Cell<u32>,
    pods: RefCell<BTreeSet<String>>,
}

impl<'a> Watched<'a> {
    fn new(agents: &'a [Process]) -> Self {
        Self {
            agents,
            failures: failures(agents),
            over: Cell::new(false),
            asked: Cell::new(0),
            answered: Cell::new(0),
            pods: RefCell::default(),
        }
    }

    /// Waits for so many more rounds of ARP.
    async fn rounds(&self, count: u32) -> Outcome {
        let until = self.asked.get() + count;
        wait_until(SOON, "rounds of ARP", async || {
            self.over.get() || self.asked.get() >= until
        })
        .await?;
        Ok(())
    }

    /// Asks again and again who has the address: one answers, always the same. On a machine so
    /// busy that an agent does not run for a second the address moves: that is told, and right.
    async fn arp(&self, stage: &Stage) -> Outcome {
        let owner = stage.scene.owner(ADDRESS).await?.host.name().to_owned();
        while !self.over.get() {
            let answering = stage.scene.answering(ADDRESS).await?;
            let names: Vec<&str> = answering.iter().map(|node| node.host.name()).collect();
            let right = names == [owner.as_str()];
            if !right && !names.is_empty() && failures(self.agents) == self.failures {
                self.over.set(true);
                return Err(format!("{owner} answered, now {names:?}").into());
            }
            self.asked.set(self.asked.get() + 1);
        }
        Ok(())
    }

    /// Asks for the page again and again.
    async fn pages(&self, stage: &Stage) -> Outcome {
        while !self.over.get() {
            let pod = stage.scene.page(ADDRESS).await?;
            self.pods.borrow_mut().insert(pod);
            self.answered.set(self.answered.get() + 1);
        }
        Ok(())
    }
}

/// How often agents say that another is dead, or that they were not run.
fn failures(agents: &[Process]) -> usize {
    let told = |line: &&str| line.contains("dead: not heard") || line.contains("was not run");
    let count = |agent: &Process| agent.log().lines().filter(told).count();
    agents.iter().map(count).sum()
}
