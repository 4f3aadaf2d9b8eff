//! One controller's life: objects before, with and after it; conversion; certificates that change
//! under load; who may read the metrics.

use std::time::Instant;

use lab::controlplane::{Patch, binary_or_skip};
use lab::{Process, bin, wait_for};
use serde_json::{Value, json};

use crate::support::{
    CONFIGURATION, Fault, MINUTES, NEXT_LOOK, OVERLAPS, SECRET, SOON, Story, object, pool, turn,
};

const PEER_CRD: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/bgppeers.metallb.io";

/// MetalLB's metrics of its controller (`spec/metallb.md` §5), those of its process among them.
const CONTROLLER_METRICS: [(&str, &str); 18] = [
    ("metallb_allocator_addresses_total", "gauge"),
    ("metallb_allocator_ipv4_addresses_total", "gauge"),
    ("metallb_allocator_ipv6_addresses_total", "gauge"),
    ("metallb_allocator_addresses_in_use_total", "gauge"),
    ("metallb_allocator_ipv4_addresses_in_use_total", "gauge"),
    ("metallb_allocator_ipv6_addresses_in_use_total", "gauge"),
    ("metallb_allocator_services_allocated_total", "gauge"),
    ("metallb_k8s_client_updates_total", "counter"),
    ("metallb_k8s_client_update_errors_total", "counter"),
    ("metallb_k8s_client_config_loaded_bool", "gauge"),
    ("metallb_k8s_client_config_stale_bool", "gauge"),
    ("process_cpu_seconds_total", "counter"),
    ("process_max_fds", "gauge"),
    ("process_open_fds", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_start_time_seconds", "gauge"),
    ("process_threads", "gauge"),
    ("process_virtual_memory_bytes", "gauge"),
];

#[test]
fn objects_are_judged_whenever_they_can_be() {
    let name = "story::objects_are_judged_whenever_they_can_be";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    let _turn = turn();
    lab::run_for(name, MINUTES, async |lab| {
        let story = Story::build(&lab, &binary).await?;
        story.before().await?;
        let mut process = story.start()?;
        story.registered().await?;
        story.member_secret().await?;
        story.each_kind().await?;
        story.own_ranges().await?;
        story.conversion().await?;
        story.metrics().await?;
        story.rotation().await?;
        story.after(&mut process).await?;
        story.plane.stop();
        Ok(())
    });
}

impl Story {
    /// No controller yet: good objects can be created, and the CRDs' rules hold.
    async fn before(&self) -> Result<(), Fault> {
        self.accepted(&pool("first", "1.1.1.1-1.1.1.100")).await?;
        self.refused_by_cel(&pool("bad", "1.1.1.300/24"), "spec.addresses")
            .await?;
        self.lab.say("before: creatable, CEL holds");
        Ok(())
    }

    fn start(&self) -> Result<Process, Fault> {
        let flags = [
            "--ml-secret-name=corten-memberlist",
            "--webhook-http2=false",
        ];
        self.run(&self.controller, "c1", &flags)
    }

    async fn member_secret(&self) -> Result<(), Fault> {
        let members = "/api/v1/namespaces/metallb-system/secrets/corten-memberlist";
        wait_for(SOON, "the member Secret", async || {
            let secret = self.plane.api().get(members).await;
            let secret = secret.map_err(|error| error.to_string())?;
            match secret["data"]["secretkey"].as_str() {
                Some(_) => Ok(()),
                None => Err(secret.to_string()),
            }
        })
        .await?;
        self.lab.say("registered");
        Ok(())
    }

    async fn each_kind(&self) -> Result<(), Fault> {
        self.refused(&pool("second", "1.1.1.15-1.1.1.20"), OVERLAPS)
            .await?;
        self.accepted(&pool("second", "1.1.1.128/28")).await?;
        self.refused(&pool("second", "1.1.1.0/24"), OVERLAPS)
            .await?;

        self.refused(
            &object(
                "BGPAdvertisement",
                "ad",
                json!({"aggregationLength": 26, "ipAddressPools": ["second"]}),
            ),
            "invalid aggregation length 26: prefix 28 in this pool is more specific",
        )
        .await?;
        let l2 = json!({
            "apiVersion": "metallb.io/v1beta1",
            "kind": "L2Advertisement",
            "metadata": {"name": "elsewhere", "namespace": "default"},
        });
        self.refused(&l2, "resource must be created in metallb-system namespace")
            .await?;

        let peer = |more: Value| {
            let mut spec = json!({"myASN": 64500, "peerASN": 64501, "peerAddress": "10.0.0.1"});
            for (field, value) in more.as_object().into_iter().flatten() {
                spec[field.as_str()] = value.clone();
            }
            spec
        };
        self.accepted(&object("BFDProfile", "fast", json!({})))
            .await?;
        self.accepted(&object(
            "BGPPeer",
            "one",
            peer(json!({"bfdProfile": "fast"})),
        ))
        .await?;
        self.refused(
            &object("BGPPeer", "two", peer(json!({"holdTime": "30s"}))),
            "one",
        )
        .await?;
        let profile = "/apis/metallb.io/v1beta1/namespaces/metallb-system/bfdprofiles/fast";
        let kept = self.plane.api().delete(profile).await;
        let kept = kept
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(
            kept.contains("failed to delete BFDProfile fast, used by BGPPeer one"),
            "{kept}"
        );

        let alias = json!({"communities": [{"name": "A", "value": "1111:2222"}]});
        self.accepted(&object("Community", "one", alias.clone()))
            .await?;
        self.refused(
            &object("Community", "two", alias),
            "duplicate definition of community",
        )
        .await?;
        self.lab.say("six kinds refused");
        Ok(())
    }

    /// Creates an object and deletes it; what kubectl said of it on stderr.
    async fn warned(&self, pool: &Value) -> Result<String, Fault> {
        let args = ["create", "-f", "-"];
        let output = self
            .plane
            .kubectl(&self.api, &args, &pool.to_string())
            .await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(said.into());
        }
        let own = "/apis/metallb.io/v1beta1/namespaces/metallb-system/ipaddresspools/own";
        self.plane.api().delete(own).await?;
        Ok(said)
    }

    /// A pool over ranges that the cluster uses itself is created, and kubectl shows the warning.
    async fn own_ranges(&self) -> Result<(), Fault> {
        let node = "10.9.9.1".parse()?;
        self.plane
            .api()
            .create_node("n1", &[node], &["10.244.7.0/24"])
            .await?;
        for (range, words) in [
            ("10.9.9.0/24", "the address 10.9.9.1 of Node \"n1\""),
            (
                "10.244.7.1-10.244.7.9",
                "the Pod range 10.244.7.0/24 of Node \"n1\"",
            ),
            ("10.96.0.0/24", "of ServiceCIDR \"kubernetes\""),
        ] {
            let what = format!("a warning of {range}");
            wait_for(SOON, &what, async || {
                // The API server may be slow, and then the webhook does not wait for its ranges.
                let said = self.warned(&pool("own", range)).await;
                let said = said.map_err(|error| error.to_string())?;
                match said.contains("Warning: ") && said.contains(words) {
                    true => Ok(()),
                    false => Err(said),
                }
            })
            .await?;
        }
        self.lab.say("warned of the cluster's own ranges");
        Ok(())
    }

    /// Both ways of conversion, by the API server itself and by the webhook.
    async fn conversion(&self) -> Result<(), Fault> {
        let old = |name: &str, address: &str| {
            json!({
                "apiVersion": "metallb.io/v1beta1",
                "kind": "BGPPeer",
                "metadata": {"name": name, "namespace": "metallb-system"},
                "spec": {"myASN": 64500, "peerASN": 64501, "peerAddress": address},
            })
        };
        let peer = |version: &str, name: &str| {
            format!("/apis/metallb.io/{version}/namespaces/metallb-system/bgppeers/{name}")
        };
        // A bad one of the older version comes to the webhook of the newer.
        self.refused(&old("same", "10.0.0.1"), "one").await?;
        self.accepted(&old("by-itself", "10.0.0.2")).await?;
        let command = [
            "crds",
            "--conversion-webhook",
            "metallb-system/metallb-webhook-service",
        ];
        let mut crds = self.controller.command(bin("corten")?)?;
        let printed = crds.args(command).output()?;
        let printed = String::from_utf8(printed.stdout)?;
        self.plane
            .kubectl_ok(&self.api, &["apply", "-f", "-"], &printed)
            .await?;
        wait_for(NEXT_LOOK, "the conversion's bundle", async || {
            let crd = self.plane.api().get(PEER_CRD).await;
            let crd = crd.map_err(|error| error.to_string())?;
            let client = &crd["spec"]["conversion"]["webhook"]["clientConfig"];
            match client["caBundle"].as_str() {
                Some(bundle) if !bundle.is_empty() => Ok(()),
                _ => Err(client.to_string()),
            }
        })
        .await?;
        wait_for(SOON, "a conversion by the webhook", async || {
            let read = self.plane.api().get(&peer("v1beta1", "one")).await;
            let read = read.map_err(|error| error.to_string())?;
            // The webhook writes the default port out of what it read; None prunes alone.
            if read["spec"]["peerAddress"] == "10.0.0.1" && read["spec"]["bfdProfile"] == "fast" {
                Ok(())
            } else {
                Err(read.to_string())
            }
        })
        .await?;
        // The API server really asks: the older form in, and out again.
        let asked = self.asked("convert", "converted").await?;
        self.accepted(&old("by-webhook", "10.0.0.3")).await?;
        let up = self.asked("convert", "converted").await?;
        assert!(up > asked, "{asked} conversions, then {up}");
        self.plane.api().get(&peer("v1beta1", "by-webhook")).await?;
        let down = self.asked("convert", "converted").await?;
        assert!(down > up, "{up} conversions, then {down}");
        for name in ["by-itself", "by-webhook"] {
            let new = self.plane.api().get(&peer("v1beta2", name)).await?;
            assert_eq!(new["spec"]["peerPort"], 179, "{new}");
            assert_eq!(
                new["spec"].get("holdTime"),
                None,
                "no timers of zero: {new}"
            );
            let old = self.plane.api().get(&peer("v1beta1", name)).await?;
            assert_eq!(old["spec"]["peerASN"], 64501, "{old}");
        }
        self.lab.say("converted both ways");
        Ok(())
    }

    async fn metrics(&self) -> Result<(), Fault> {
        let unknown = self.scrape("nobody").await?.expect_err("401");
        assert!(unknown.contains("must be logged in"), "{unknown}");
        let known = self.scrape("lab-agent").await?.expect_err("403");
        assert!(known.to_lowercase().contains("forbidden"), "{known}");
        wait_for(SOON, "metrics of the pools", async || {
            let text = self
                .scrape("lab-admin")
                .await
                .map_err(|error| error.to_string())??;
            let wanted = [
                "metallb_allocator_addresses_total{pool=\"first\"} 100",
                "metallb_allocator_addresses_in_use_total{pool=\"second\"} 0",
                "metallb_k8s_client_config_loaded_bool 1",
                "metallb_k8s_client_config_stale_bool 0",
            ];
            match wanted.iter().find(|line| !text.contains(**line)) {
                None => Ok(()),
                Some(line) => Err(format!("no {line} in {text}")),
            }
        })
        .await?;
        let text = self.scrape("lab-admin").await??;
        for (name, kind) in CONTROLLER_METRICS {
            let line = format!("# TYPE {name} {kind}");
            assert!(
                text.lines().any(|found| found == line),
                "no {line:?} in {text}"
            );
        }
        let plain = "10.0.0.10:9120".parse()?;
        let plain = self.api.http_get(plain, "/metrics").await;
        assert!(plain.is_err(), "TLS alone: {plain:?}");
        self.lab.say("metrics: 401, 403, 200");
        Ok(())
    }

    /// Somebody empties the Secret and resets bundles; every object is judged meanwhile.
    async fn rotation(&self) -> Result<(), Fault> {
        let api = self.plane.api();
        let before = self.entries().await?;
        let emptied = json!({"data": {"ca.crt": "", "ca.key": "", "tls.crt": "", "tls.key": ""}});
        api.patch(SECRET, Patch::Merge, &emptied).await?;
        let overlapping = pool("third", "1.1.1.15-1.1.1.20");
        let (started, mut judged) = (Instant::now(), 0);
        loop {
            self.refused(&overlapping, OVERLAPS).await?;
            judged += 1;
            let entries = self.entries().await?;
            let changed = entries
                .iter()
                .zip(&before)
                .all(|(now, then)| now.1 != then.1);
            if changed {
                assert!(
                    entries.iter().all(|(policy, _)| policy == "Fail"),
                    "{entries:?}"
                );
                break;
            }
            if started.elapsed() > NEXT_LOOK {
                return Err("the certificates were not made anew".into());
            }
        }
        // The new leaf is served after the new bundle is there.
        for _ in 0..10 {
            self.refused(&overlapping, OVERLAPS).await?;
            judged += 1;
        }
        self.lab
            .say(format!("rotated; {judged} objects judged meanwhile"));

        // Bundles that somebody has reset come back.
        let entry = "l2advertisementvalidationwebhook.metallb.io";
        let reset = json!({"webhooks": [{"name": entry, "clientConfig": {"caBundle": null}}]});
        api.patch(CONFIGURATION, Patch::Strategic, &reset).await?;
        let reset =
            json!({"spec": {"conversion": {"webhook": {"clientConfig": {"caBundle": null}}}}});
        api.patch(PEER_CRD, Patch::Merge, &reset).await?;
        wait_for(NEXT_LOOK, "every bundle again", async || {
            let entries = self.entries().await.map_err(|error| error.to_string())?;
            let crd = api.get(PEER_CRD).await.map_err(|error| error.to_string())?;
            let conversion = &crd["spec"]["conversion"]["webhook"]["clientConfig"]["caBundle"];
            let missing = entries
                .iter()
                .filter(|(_, bundle)| bundle.is_empty())
                .count();
            if missing == 0 && conversion.is_string() {
                Ok(())
            } else {
                Err(format!("{missing} missing"))
            }
        })
        .await?;
        self.lab.say("bundles repaired");
        Ok(())
    }

    /// A planned stop: objects can be created without the webhook, and the CRDs' rules hold.
    async fn after(&self, process: &mut Process) -> Result<(), Fault> {
        process.terminate();
        wait_for(SOON, "the controller to end", async || {
            match process.try_wait() {
                Ok(Some(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        let entries = self.entries().await?;
        assert!(
            entries.iter().all(|(policy, _)| policy == "Ignore"),
            "{entries:?}"
        );
        // The API server may take a moment to see it.
        wait_for(SOON, "a pool to pass", async || {
            self.accepted(&pool("fourth", "2.2.2.0/24"))
                .await
                .map_err(|error| error.to_string())
        })
        .await?;
        self.refused_by_cel(&pool("bad", "1.1.1.300/24"), "spec.addresses")
            .await?;
        self.lab.say("after: creatable, CEL holds");
        Ok(())
    }
}
