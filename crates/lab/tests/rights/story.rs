//! What Corten does, so that each of its rights has its use.

use std::net::IpAddr;

use lab::chart::NAMESPACE;
use lab::controlplane::Patch;
use lab::router::Frr;
use lab::{Process, bin, wait_for};
use serde_json::{Value, json};

use crate::stage::{Fault, SOON, Stage};

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 101));
const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/\
    validatingwebhookconfigurations/metallb-webhook-configuration";
const WEB: &str = "/api/v1/namespaces/default/services/web";

pub(crate) async fn play(stage: &Stage) -> Result<Vec<Process>, Fault> {
    let mut leader = stage.replica(&stage.controller).await?;
    let mut agents = Vec::new();
    for node in &stage.scene.nodes {
        agents.push(stage.agent(&node.host).await?);
    }
    webhook(stage).await?;
    let standby = stage.replica(&stage.standby).await?;
    conversion(stage).await?;
    service(stage).await?;
    native_kinds(stage).await?;
    bgp(stage).await?;
    bad_object(stage).await?;
    repeated_events(stage).await?;
    move_away_and_back(stage).await?;
    metrics(stage).await?;
    certificates(stage).await?;

    // The leader goes, the other one takes over.
    leader.terminate();
    leader.wait(SOON).await?;
    let lease =
        format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/corten-controller");
    stage
        .shows(&lease, "the standby leads", |lease| {
            let holder = lease["spec"]["holderIdentity"].as_str();
            holder.is_some_and(|holder| holder.contains("standby"))
        })
        .await?;
    stage.say("the standby leads");
    for agent in &mut agents {
        let ended = agent.try_wait()?;
        assert!(ended.is_none(), "{}", agent.log());
    }
    agents.push(standby);
    Ok(agents)
}

fn bundles(configuration: &Value) -> Vec<&Value> {
    let entries = configuration["webhooks"].as_array().into_iter().flatten();
    entries
        .map(|entry| &entry["clientConfig"]["caBundle"])
        .collect()
}

/// The controller makes the webhook's Secret, and tells the API server of it.
async fn webhook(stage: &Stage) -> Result<(), Fault> {
    stage
        .shows(CONFIGURATION, "six binding entries", |found| {
            let entries = found["webhooks"].as_array();
            let entries = entries.map(Vec::as_slice).unwrap_or_default();
            entries.len() == 6 && entries.iter().all(|entry| entry["failurePolicy"] == "Fail")
        })
        .await?;
    stage.say("the webhook is registered");
    Ok(())
}

/// Conversion by webhook, for which the CRD's bundle is the controller's to write.
async fn conversion(stage: &Stage) -> Result<(), Fault> {
    let mut crds = stage.controller.command(bin("corten")?)?;
    crds.args(["crds", "--conversion-webhook"])
        .arg(format!("{NAMESPACE}/metallb-webhook-service"));
    let printed = String::from_utf8(crds.output()?.stdout)?;
    stage.apply(&printed).await?;
    let crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/bgppeers.metallb.io";
    stage
        .shows(crd, "the conversion's bundle", |crd| {
            let client = &crd["spec"]["conversion"]["webhook"]["clientConfig"];
            client["caBundle"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        })
        .await?;
    stage.say("the CRD has the bundle");
    Ok(())
}

fn pool(name: &str, range: &str) -> String {
    format!(
        "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
         metadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
         spec: {{addresses: [{range}]}}\n---\n"
    )
}

/// A Service gets its address, a node answers for it, and all of it is said.
async fn service(stage: &Stage) -> Result<(), Fault> {
    stage
        .apply(&format!(
            "{}apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\n\
             metadata: {{name: l2, namespace: {NAMESPACE}}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n\
             spec: {{type: LoadBalancer, selector: {{app: web}}, ports: [{{port: 80}}]}}\n",
            pool("pool", "10.0.0.101-10.0.0.150")
        ))
        .await?;
    stage
        .shows(WEB, "10.0.0.101", |service| {
            service["status"]["loadBalancer"]["ingress"][0]["ip"] == "10.0.0.101"
        })
        .await?;
    // With --forward=off a node needs ready endpoints to know of, none to reach.
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
        "endpoints": [{
            "addresses": ["10.244.1.2"], "nodeName": "node-1", "conditions": {"ready": true},
        }],
    });
    stage.apply(&slice.to_string()).await?;
    owner(stage, "a node to answer", |_| true).await?;
    stage.say("a Service is announced");
    Ok(())
}

/// The native kinds say whether they are in force.
async fn native_kinds(stage: &Stage) -> Result<(), Fault> {
    let metadata = format!("metadata: {{name: own, namespace: {NAMESPACE}}}");
    stage
        .apply(&format!(
            "apiVersion: corten.dev/v1alpha1\nkind: AddressPool\n{metadata}\n\
             spec: {{addresses: [10.0.0.160-10.0.0.170]}}\n---\n\
             apiVersion: corten.dev/v1alpha1\nkind: Advertisement\n{metadata}\n\
             spec: {{layer2: {{}}}}\n---\n\
             apiVersion: corten.dev/v1alpha1\nkind: Peer\n{metadata}\n\
             spec: {{myASN: 64512, peerASN: 64513, peerAddress: 10.0.0.1}}\n"
        ))
        .await?;
    for kind in ["addresspools", "advertisements", "peers"] {
        let path = format!("/apis/corten.dev/v1alpha1/namespaces/{NAMESPACE}/{kind}/own");
        stage
            .shows(&path, "a condition", |object| {
                object["status"]["conditions"][0]["type"] == "Accepted"
            })
            .await?;
    }
    stage.say("the native kinds are in force");
    Ok(())
}

/// A router's neighbours; nothing of the scene speaks BGP otherwise.
const ROUTER: &str = "\
router bgp 64513
 no bgp ebgp-requires-policy
 neighbor NODES peer-group
 neighbor NODES remote-as 64512
 bgp listen range 10.0.0.0/24 peer-group NODES
";

/// Nodes say to which peers they hand a Service, and take that back.
async fn bgp(stage: &Stage) -> Result<(), Fault> {
    let _router = Frr::start(&stage.standby, ROUTER, "").await?;
    let metadata = format!("metadata: {{name: router, namespace: {NAMESPACE}}}");
    let advertisement =
        format!("apiVersion: metallb.io/v1beta1\nkind: BGPAdvertisement\n{metadata}\n");
    stage
        .apply(&format!(
            "{advertisement}---\napiVersion: metallb.io/v1beta2\nkind: BGPPeer\n{metadata}\n\
             spec: {{myASN: 64512, peerASN: 64513, peerAddress: 10.0.0.8}}\n"
        ))
        .await?;
    let statuses = format!("/apis/metallb.io/v1beta1/namespaces/{NAMESPACE}/servicebgpstatuses");
    stage
        .shows(&statuses, "a word of each node", |list| {
            let all = list["items"].as_array().map_or(&[][..], Vec::as_slice);
            let names_it = |one: &Value| {
                let peers = one["status"]["peers"].as_array();
                peers.is_some_and(|peers| peers.contains(&json!("router")))
            };
            all.len() == 2 && all.iter().all(names_it)
        })
        .await?;
    let kind = format!("/apis/metallb.io/v1beta1/namespaces/{NAMESPACE}/bgpadvertisements/router");
    stage.plane.api().delete(&kind).await?;
    stage
        .shows(&statuses, "no word any more", |list| {
            list["items"].as_array().is_some_and(Vec::is_empty)
        })
        .await?;
    stage.say("a Service is advertised by BGP, and no more");
    Ok(())
}

/// A pool goes bad while no webhook is asked; its last good form is kept.
async fn bad_object(stage: &Stage) -> Result<(), Fault> {
    stage.apply(&pool("first", "10.0.0.200-10.0.0.210")).await?;
    stage.apply(&pool("later", "10.0.0.220-10.0.0.230")).await?;
    let kept = format!("/apis/corten.dev/v1alpha1/namespaces/{NAMESPACE}/acceptedconfigs/accepted");
    // The controller puts the entries back, and the API server may not have seen that they are gone.
    wait_for(SOON, "a bad pool to pass", async || {
        let none = json!({"webhooks": null});
        let emptied = stage.plane.api().patch(CONFIGURATION, Patch::Merge, &none);
        emptied.await.map_err(|error| error.to_string())?;
        let bad = stage.apply(&pool("later", "10.0.0.205-10.0.0.230")).await;
        bad.map_err(|error| error.to_string())
    })
    .await?;
    stage
        .shows(&kept, "the good form", |found| {
            found["spec"]["objects"]
                .as_array()
                .is_some_and(|all| all.len() == 1)
        })
        .await?;
    stage.apply(&pool("later", "10.0.0.220-10.0.0.230")).await?;
    stage
        .shows(&kept, "nothing", |found| {
            found["spec"]["objects"] == json!([])
        })
        .await?;
    webhook(stage).await?;
    stage.say("a bad pool, and mended");
    Ok(())
}

/// What was said before is counted, not said anew.
async fn repeated_events(stage: &Stage) -> Result<(), Fault> {
    let waits = |pool: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: waits\n  \
             annotations: {{metallb.io/address-pool: {pool}}}\n\
             spec: {{type: LoadBalancer, selector: {{app: web}}, ports: [{{port: 80}}]}}\n"
        )
    };
    let events = "/api/v1/namespaces/default/events\
        ?fieldSelector=involvedObject.name%3Dwaits,reason%3DAllocationFailed";
    for (pool, count) in [("none", 1), ("neither", 1), ("none", 2)] {
        stage.apply(&waits(pool)).await?;
        let quoted = format!("{pool}\"");
        stage
            .shows(events, &format!("{pool} {count} times"), |list| {
                let events = list["items"].as_array().into_iter().flatten();
                events.into_iter().any(|event| {
                    let said = event["message"].as_str().unwrap_or_default();
                    // More where it was told again before we looked.
                    said.contains(&quoted) && event["count"].as_u64() >= Some(count)
                })
            })
            .await?;
    }
    stage.say("an event is counted");
    Ok(())
}

/// Waits until one node answers for the address, and it is a wanted one; gives its name.
async fn owner(
    stage: &Stage,
    what: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<String, lab::WaitError> {
    wait_for(SOON, what, async || {
        let now = stage.scene.owner(ADDRESS).await;
        let now = now.map_err(|error| error.to_string())?.host.name();
        match wanted(now) {
            true => Ok(now.to_owned()),
            false => Err(now.to_owned()),
        }
    })
    .await
}

/// The Service leaves its node and comes back: agents take each other's word down, and count theirs.
async fn move_away_and_back(stage: &Stage) -> Result<(), Fault> {
    let first = owner(stage, "a node to answer", |_| true).await?;
    let node = format!("/api/v1/nodes/{first}");
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    for (value, here) in [(json!(""), false), (Value::Null, true)] {
        let patch = json!({"metadata": {"labels": {label: value}}});
        stage.plane.api().patch(&node, Patch::Merge, &patch).await?;
        owner(stage, "the address to move", |now| (now == first) == here).await?;
        let statuses = format!("/apis/metallb.io/v1beta1/namespaces/{NAMESPACE}/servicel2statuses");
        stage
            .shows(&statuses, "one word, of the owner", |list| {
                let all = list["items"].as_array().map(Vec::as_slice);
                matches!(all, Some([one]) if (one["status"]["node"] == first.as_str()) == here)
            })
            .await?;
    }
    stage.say("away and back");
    Ok(())
}

/// Who asks for metrics, and may they?
async fn metrics(stage: &Stage) -> Result<(), Fault> {
    for server in [
        "10.0.0.7:9120",
        "10.0.0.8:9120",
        "10.0.0.11:9122",
        "10.0.0.12:9122",
    ] {
        let server = format!("--server=https://{server}");
        let ask = [
            "--kubeconfig=/dev/null",
            &server,
            "--insecure-skip-tls-verify",
            "--token=lab-admin",
            "get",
            "--raw=/metrics",
        ];
        wait_for(SOON, &format!("metrics {server}"), async || {
            stage.kubectl(&ask, "").await.map_err(|e| e.to_string())
        })
        .await?;
    }
    stage.say("metrics are read");
    Ok(())
}

/// Somebody empties the webhook's Secret: it is filled again.
async fn certificates(stage: &Stage) -> Result<(), Fault> {
    let before = stage.plane.api().get(CONFIGURATION).await?;
    let secret = format!("/api/v1/namespaces/{NAMESPACE}/secrets/metallb-webhook-cert");
    let emptied = json!({"data": {"ca.crt": "", "ca.key": "", "tls.crt": "", "tls.key": ""}});
    stage
        .plane
        .api()
        .patch(&secret, Patch::Merge, &emptied)
        .await?;
    stage
        .shows(CONFIGURATION, "other bundles", |now| {
            bundles(now)
                .iter()
                .zip(bundles(&before))
                .all(|(now, then)| now.is_string() && **now != *then)
        })
        .await?;
    stage.say("new certificates");
    Ok(())
}
