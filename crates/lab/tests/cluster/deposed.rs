//! A leader is stopped in the middle of a write, and goes on after another one leads: the write
//! lands and gives an address to a second Service. Nobody on the network notices, and the new
//! leader clears it within a second (design.md §4.9).

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use lab::controlplane::{Patch, binary_or_skip};
use lab::{Outcome, Relay, wait_for, wait_until};
use serde_json::{Value, json};

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
kind: IPAddressPool
metadata: {name: warm, namespace: metallb-system}
spec: {addresses: [10.0.0.160-10.0.0.189], autoAssign: false}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: all, namespace: metallb-system}
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
        let _agents = [
            stage.agent(&stage.scene.nodes[0])?,
            stage.agent(&stage.scene.nodes[1])?,
        ];
        for node in &stage.scene.nodes {
            stage.ready(&node.host).await?;
        }
        // Many writes at the same time leave it with many open connections.
        for n in 0..20 {
            create(&stage, &format!("warm-{n}"), Some("warm"), None).await?;
        }
        for n in 0..20 {
            let events = format!("warm-{n}");
            stage.event(&events, "IPAllocated").await?;
        }
        let _new_leader = stage.controller(&new)?;
        stage.ready(&new).await?;
        stage.say("one leads, another stands by");

        relay.hold();
        create(&stage, LATE, None, Some(stage.scene.nodes[1].pod_ip)).await?;
        // The status, the event and the Lease.
        wait_until(SOON, "three requests to be held", async || {
            relay.held() >= 3
        })
        .await?;
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
        stage.say(format!(
            "the other leads and serves {} ms after the first was stopped",
            took_over.as_millis()
        ));
        assert!(took_over < Duration::from_secs(5), "{took_over:?}");
        stage.event(LATE, "AllocationFailed").await?;
        stage.scene.owner(ADDRESS).await?;
        assert_eq!(stage.scene.page(ADDRESS).await?, "pod-1");

        let watched = Watched::default();
        let story = async {
            // Let it be watched before, while and after.
            watched.rounds(3).await?;
            relay.release();
            old_leader.thaw();
            let landed = Instant::now();
            let told = stage.event(LATE, "ClearAssignment").await?;
            wait_for(SOON, "no second holder", async || {
                let found = stage.addresses(LATE).await;
                if found.is_empty() { Ok(()) } else { Err(found) }
            })
            .await?;
            let cleared = landed.elapsed();
            stage.say(format!("cleared after {} ms: {told}", cleared.as_millis()));
            assert!(cleared < Duration::from_secs(1), "{cleared:?}");
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
#[derive(Debug, Default)]
struct Watched {
    over: Cell<bool>,
    asked: Cell<u32>,
    answered: Cell<u32>,
    pods: RefCell<BTreeSet<String>>,
}

impl Watched {
    /// Waits for so many more rounds of ARP.
    async fn rounds(&self, count: u32) -> Outcome {
        let until = self.asked.get() + count;
        wait_until(SOON, "rounds of ARP", async || self.asked.get() >= until).await?;
        Ok(())
    }

    /// Asks again and again who has the address: one answers, always the same.
    async fn arp(&self, stage: &Stage) -> Outcome {
        let owner = stage.scene.owner(ADDRESS).await?.host.name().to_owned();
        while !self.over.get() {
            let answering = stage.scene.answering(ADDRESS).await?;
            let names: Vec<&str> = answering.iter().map(|node| node.host.name()).collect();
            if names != [owner.as_str()] {
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
            let to = SocketAddr::new(ADDRESS, 80);
            let answer = stage.scene.client.http_get(to, "/").await?;
            self.pods.borrow_mut().insert(answer.backend().to_owned());
            self.answered.set(self.answered.get() + 1);
        }
        Ok(())
    }
}
