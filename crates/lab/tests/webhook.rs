//! The webhook on a real API server, with the manifests and rights of `deploy/`: objects before,
//! with and after it; conversion; certificates that change under load; who may read the metrics.
//!
//! There is no kube-proxy: the controller's host has the Service's ClusterIP as an address of its
//! own, and listens on the Service's port.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::controlplane::{Account, ControlPlane, Patch, binary_or_skip};
use lab::{Host, Lab, Process, bin, wait_for};
use serde_json::{Value, json};

const MINUTES: Duration = Duration::from_secs(240);
const SOON: Duration = Duration::from_secs(20);
/// The keeper looks every 30 s.
const NEXT_LOOK: Duration = Duration::from_secs(50);
const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/\
    validatingwebhookconfigurations/metallb-webhook-configuration";
const PEER_CRD: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/bgppeers.metallb.io";
const SECRET: &str = "/api/v1/namespaces/metallb-system/secrets/metallb-webhook-cert";

type Fault = Box<dyn std::error::Error + Send + Sync>;

#[test]
fn objects_are_judged_whenever_they_can_be() {
    let name = "objects_are_judged_whenever_they_can_be";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    lab::run_for(name, MINUTES, async |lab| {
        let lan = lab.segment("lan").await?;
        let (api, controller) = (lab.host("api").await?, lab.host("controller").await?);
        lan.attach(&api, &["10.0.0.5/24"]).await?;
        lan.attach(&controller, &["10.0.0.10/24"]).await?;
        let plane = ControlPlane::start(&binary, &lab, &api, api.address(false)?).await?;
        let story = Story {
            lab: lab.clone(),
            plane,
            api,
            controller,
        };
        story.install().await?;
        story.before().await?;
        let mut process = story.start().await?;
        story.registered().await?;
        story.each_kind().await?;
        story.conversion().await?;
        story.metrics().await?;
        story.rotation().await?;
        story.after(&mut process).await?;
        story.plane.stop();
        Ok(())
    });
}

struct Story {
    lab: Lab,
    plane: ControlPlane,
    api: Host,
    controller: Host,
}

fn root(path: &str) -> String {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join(path).display().to_string()
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    let version = if kind == "BGPPeer" {
        "v1beta2"
    } else {
        "v1beta1"
    };
    json!({
        "apiVersion": format!("metallb.io/{version}"),
        "kind": kind,
        "metadata": {"name": name, "namespace": "metallb-system"},
        "spec": spec,
    })
}

fn pool(name: &str, range: &str) -> Value {
    object("IPAddressPool", name, json!({"addresses": [range]}))
}

impl Story {
    async fn kubectl(&self, args: &[&str]) -> Result<String, Fault> {
        Ok(self.plane.kubectl_ok(&self.api, args, "").await?)
    }

    /// What kubectl says to an object: Ok, or why not.
    async fn apply(&self, object: &Value) -> Result<Result<String, String>, Fault> {
        let args = ["apply", "-f", "-"];
        let text = object.to_string();
        let output = self.plane.kubectl(&self.api, &args, &text).await?;
        let said = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
        Ok(match output.status.success() {
            true => Ok(said(&output.stdout)),
            false => Err(said(&output.stderr)),
        })
    }

    async fn accepted(&self, object: &Value) -> Result<(), Fault> {
        match self.apply(object).await? {
            Ok(_) => Ok(()),
            Err(why) => Err(format!("{object} was refused: {why}").into()),
        }
    }

    /// Refused by the webhook itself, with these words.
    async fn refused(&self, object: &Value, words: &str) -> Result<(), Fault> {
        match self.apply(object).await? {
            Err(why) if why.contains(words) && why.contains("denied the request") => Ok(()),
            Err(why) => Err(format!("{words:?} is not in the webhook's {why:?}").into()),
            Ok(said) => Err(format!("{said}: not refused, {words:?} expected").into()),
        }
    }

    async fn refused_by_cel(&self, object: &Value, field: &str) -> Result<(), Fault> {
        match self.apply(object).await? {
            Err(why) if why.contains(field) && !why.contains("denied the request") => Ok(()),
            other => Err(format!("{field:?} expected from the CRD's rules: {other:?}").into()),
        }
    }

    async fn install(&self) -> Result<(), Fault> {
        let crds = root("deploy/crds");
        let (rbac, webhook) = (root("deploy/rbac.yaml"), root("deploy/webhook.yaml"));
        self.kubectl(&["apply", "-f", &crds, "-f", &rbac, "-f", &webhook])
            .await?;
        self.kubectl(&["wait", "--for=condition=Established", "-f", &crds])
            .await?;
        let address = self
            .kubectl(&[
                "get",
                "service",
                "metallb-webhook-service",
                "-n",
                "metallb-system",
                "-o",
                "jsonpath={.spec.clusterIP}",
            ])
            .await?;
        let address = format!("{}/32", address.trim());
        self.controller.add_address("eth0", &address).await?;
        self.api.add_route(&address, "10.0.0.10").await?;
        Ok(())
    }

    /// No controller yet: good objects can be created, and the CRDs' rules hold.
    async fn before(&self) -> Result<(), Fault> {
        self.accepted(&pool("first", "1.1.1.1-1.1.1.100")).await?;
        self.refused_by_cel(&pool("bad", "1.1.1.300/24"), "spec.addresses")
            .await?;
        self.lab.say("before: creatable, CEL holds");
        Ok(())
    }

    async fn start(&self) -> Result<Process, Fault> {
        let mut command = self.controller.command(bin("corten")?)?;
        command
            .args(["controller", "--webhook-port", "443", "--pod-name", "c1"])
            .args([
                "--ml-secret-name=corten-memberlist",
                "--webhook-http2=false",
                "--log-level=debug",
            ])
            .env("METALLB_BGP_TYPE", "frr")
            .arg("--kubeconfig")
            .arg(self.plane.kubeconfig(Account::Controller));
        Ok(self.controller.spawn("controller", command)?)
    }

    /// `FailurePolicy bundles` of all entries.
    async fn entries(&self) -> Result<Vec<(String, String)>, Fault> {
        let there = self.plane.api().get(CONFIGURATION).await?;
        let entries = there["webhooks"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(entries
            .map(|entry| {
                (
                    text(&entry["failurePolicy"]),
                    text(&entry["clientConfig"]["caBundle"]),
                )
            })
            .collect())
    }

    async fn registered(&self) -> Result<(), Fault> {
        wait_for(SOON, "six entries with policy Fail", async || {
            let entries = self.entries().await.map_err(|error| error.to_string())?;
            let good = entries
                .iter()
                .all(|(policy, bundle)| policy == "Fail" && !bundle.is_empty());
            if entries.len() == 6 && good {
                Ok(())
            } else {
                Err(format!("{entries:?}"))
            }
        })
        .await?;
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
        let overlaps = "overlaps with already defined CIDR";
        self.refused(&pool("second", "1.1.1.15-1.1.1.20"), overlaps)
            .await?;
        self.accepted(&pool("second", "1.1.1.128/28")).await?;
        self.refused(&pool("second", "1.1.1.0/24"), overlaps)
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
        self.accepted(&old("by-webhook", "10.0.0.3")).await?;
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

    /// kubectl as an HTTPS client with a token.
    async fn scrape(&self, token: &str) -> Result<Result<String, String>, Fault> {
        let args = [
            "--kubeconfig=/dev/null",
            "--server=https://10.0.0.10:9120",
            "--insecure-skip-tls-verify",
            &format!("--token={token}"),
            "get",
            "--raw=/metrics",
        ];
        let output = self.plane.kubectl(&self.api, &args, "").await?;
        let said = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
        Ok(match output.status.success() {
            true => Ok(said(&output.stdout)),
            false => Err(said(&output.stderr)),
        })
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
            self.refused(&overlapping, "overlaps with already defined CIDR")
                .await?;
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
            self.refused(&overlapping, "overlaps with already defined CIDR")
                .await?;
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
