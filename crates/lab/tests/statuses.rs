//! What Corten says of itself on a real API server: pool counters, `ConfigurationState`,
//! `ServiceL2Status`, `ServiceBGPStatus`; each right, mended when edited or deleted, and not written without a change.

#[allow(dead_code)]
#[path = "cluster/stage.rs"]
mod stage;

#[path = "statuses/bgp.rs"]
mod bgp;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lab::controlplane::{Patch, PodName, binary_or_skip};
use lab::{Outcome, Process, wait_for};
use serde_json::{Value, json};
use stage::{Fault, MINUTES, SOON, Stage, turn};

const ROOT: &str = "/apis/metallb.io/v1beta1/namespaces/metallb-system";
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 101));

#[test]
fn statuses_are_right_and_stay_so() {
    let name = "statuses_are_right_and_stay_so";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    let _turn = turn();
    lab::run_for(name, MINUTES, async |lab| {
        let stage = Stage::build(lab, &binary, 3).await?;
        // The Pod that the controller says it runs in.
        let pod = PodName {
            namespace: "metallb-system",
            name: "api",
        };
        let pod_ip: IpAddr = "10.244.9.2".parse()?;
        stage
            .plane
            .api()
            .run_pod("node-1", pod, &[], &[pod_ip])
            .await?;
        let controller = stage.controller(&stage.api_host)?;
        let mut agents = Vec::new();
        for node in &stage.scene.nodes {
            agents.push(stage.agent(node)?);
        }
        counters(&stage).await?;
        states(&stage).await?;
        let processes: Vec<&Process> = agents.iter().chain([&controller]).collect();
        secrets(&stage, &processes).await?;
        announced(&stage, &mut agents).await?;
        quiet(&stage).await?;
        Ok(())
    });
}

#[test]
fn what_is_advertised_is_shown() {
    let name = "what_is_advertised_is_shown";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    let _turn = turn();
    lab::run_for(name, MINUTES, async |lab| {
        let router = lab.router("router").await?;
        let stage = Stage::build(lab, &binary, 2).await?;
        stage.scene.lan.attach(&router, &["10.0.0.1/24"]).await?;
        let frr = lab::router::Frr::start(&router, bgp::ROUTER, "").await?;
        let _controller = stage.controller(&stage.api_host)?;
        let mut agents = Vec::new();
        for node in &stage.scene.nodes {
            agents.push(stage.agent(node)?);
        }
        bgp::story(&stage, &frr).await
    });
}

const SYSTEM: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: pool, namespace: metallb-system}
spec: {addresses: [10.0.0.101-10.0.0.110, 'fd00:1::/64']}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: adv, namespace: metallb-system}
";

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{type: LoadBalancer, selector: {{app: myapp}}, ports: [{{port: 80}}]}}\n"
    )
}

/// Waits until an object's status holds all of `wanted`.
async fn shows(stage: &Stage, path: &str, wanted: Value) -> Result<Value, lab::WaitError> {
    wait_for(SOON, &format!("{path} to show {wanted}"), async || {
        let found = stage.plane.api().get(&format!("{ROOT}/{path}")).await;
        let found = found.map_err(|error| error.to_string())?;
        let wanted = wanted.as_object().into_iter().flatten();
        for (field, value) in wanted {
            if found["status"][field] != *value {
                return Err(found["status"].to_string());
            }
        }
        Ok(found)
    })
    .await
}

fn counted(used: i64) -> Value {
    json!({
        "assignedIPv4": used, "assignedIPv6": 0,
        "availableIPv4": 10 - used, "availableIPv6": i64::MAX,
    })
}

/// A pool's counters follow what is given, and an edit is undone.
async fn counters(stage: &Stage) -> Outcome {
    stage.apply(SYSTEM).await?;
    shows(stage, "ipaddresspools/pool", counted(0)).await?;
    stage.apply(&service("a")).await?;
    stage.has("a", &["10.0.0.101"]).await?;
    shows(stage, "ipaddresspools/pool", counted(1)).await?;
    let found = stage.service("a").await?;
    let entry = &found["status"]["loadBalancer"]["ingress"][0];
    assert_eq!(entry["ipMode"], "VIP", "{found}");

    let edit = json!({"status": {"assignedIPv4": 7, "availableIPv6": 1}});
    let path = format!("{ROOT}/ipaddresspools/pool/status");
    stage.plane.api().patch(&path, Patch::Merge, &edit).await?;
    shows(stage, "ipaddresspools/pool", counted(1)).await?;

    let many: Vec<String> = (0..8).map(|n| service(&format!("many-{n}"))).collect();
    stage.apply(&many.join("---\n")).await?;
    shows(stage, "ipaddresspools/pool", counted(9)).await?;
    for n in 0..8 {
        let path = format!("/api/v1/namespaces/default/services/many-{n}");
        stage.plane.api().delete(&path).await?;
    }
    shows(stage, "ipaddresspools/pool", counted(1)).await?;
    stage.say("counters are right, and edits are undone");
    Ok(())
}

const NAMES: [&str; 4] = [
    "controller",
    "speaker-node-1",
    "speaker-node-2",
    "speaker-node-3",
];

fn condition<'a>(state: &'a Value, type_: &str) -> &'a Value {
    let conditions = state["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let found = conditions.find(|found| found["type"] == type_);
    found.unwrap_or(&Value::Null)
}

/// Who owns the status of an object, as far as server-side apply knows.
fn managers(state: &Value) -> BTreeSet<&str> {
    let managed = state["metadata"]["managedFields"].as_array();
    let managed = managed.into_iter().flatten();
    managed
        .filter(|entry| entry["subresource"] == "status")
        .filter_map(|entry| entry["manager"].as_str())
        .collect()
}

async fn states(stage: &Stage) -> Outcome {
    let valid = json!({"result": "Valid"});
    for name in NAMES {
        let state = shows(stage, &format!("configurationstates/{name}"), valid.clone()).await?;
        let (type_, manager) = match name {
            "controller" => ("poolReconcilerValid", "poolReconciler"),
            _ => ("configReconcilerValid", "configReconciler"),
        };
        let found = condition(&state, type_);
        assert_eq!(found["status"], "True", "{state}");
        assert_eq!(found["reason"], "Reconciled", "{state}");
        assert_eq!(managers(&state), BTreeSet::from([manager]), "{state}");
        let labels = &state["metadata"]["labels"];
        match name.strip_prefix("speaker-") {
            Some(node) => {
                assert_eq!(labels["metallb.io/component-type"], "speaker");
                assert_eq!(labels["metallb.io/node-name"], node);
            }
            None => {
                assert_eq!(labels["metallb.io/component-type"], "controller");
                let owner = &state["metadata"]["ownerReferences"][0];
                assert_eq!(
                    (&owner["kind"], &owner["name"]),
                    (&json!("Pod"), &json!("api"))
                );
            }
        }
    }
    stage.say("controller and agents say that the configuration is good");

    // The API server lets it pass; the rule that two pools do not overlap needs both.
    let bad = |address: &str| {
        format!(
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
             metadata: {{name: young, namespace: metallb-system}}\n\
             spec: {{addresses: [{address}], autoAssign: false}}\n"
        )
    };
    stage.apply(&bad("10.0.0.105/32")).await?;
    for name in NAMES {
        let path = format!("configurationstates/{name}");
        let state = shows(stage, &path, json!({"result": "Invalid"})).await?;
        // To the letter what MetalLB would say.
        assert_eq!(
            state["status"]["errorSummary"],
            "configuration error: CIDR \"10.0.0.105/32\" in pool \"young\" overlaps with already \
             defined CIDR \"10.0.0.104/30\""
        );
        let type_ = match name {
            "controller" => "poolReconcilerValid",
            _ => "configReconcilerValid",
        };
        let found = condition(&state, type_);
        assert_eq!(
            (&found["status"], &found["reason"]),
            (&json!("False"), &json!("ConfigurationError"))
        );
        let said = found["message"].as_str().unwrap_or_default();
        for part in [
            "IPAddressPool metallb-system/young",
            "spec.addresses[0]",
            "leave the addresses to one of the two pools",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    stage.say("a bad object: all are invalid, and name object, field and remedy");

    // Deleted ones come back, as bad as they were; an edited one is put right.
    stage
        .kubectl(
            &[
                "delete",
                "configurationstates",
                "--all",
                "-n",
                "metallb-system",
            ],
            "",
        )
        .await?;
    for name in NAMES {
        let path = format!("configurationstates/{name}");
        shows(stage, &path, json!({"result": "Invalid"})).await?;
    }
    let edit = json!({"status": {"result": "Valid", "errorSummary": "edited"}});
    let path = format!("{ROOT}/configurationstates/controller/status");
    stage.plane.api().patch(&path, Patch::Merge, &edit).await?;
    shows(
        stage,
        "configurationstates/controller",
        json!({"result": "Invalid"}),
    )
    .await?;

    stage.apply(&bad("10.0.0.205/32")).await?;
    for name in NAMES {
        let path = format!("configurationstates/{name}");
        let state = shows(stage, &path, json!({"result": "Valid"})).await?;
        assert_eq!(state["status"].get("errorSummary"), None, "{state}");
    }
    stage.say("mended: all are valid");
    Ok(())
}

/// A peer's Secret: looked at by the agents, said by the object, its content nowhere.
async fn secrets(stage: &Stage, processes: &[&Process]) -> Outcome {
    const CONTENT: &str = "not-to-be-seen";
    let peer = "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\n\
        metadata: {name: peer1, namespace: metallb-system}\n\
        spec: {myASN: 64512, peerASN: 64513, peerAddress: 192.168.1.1, \
        passwordSecret: {name: bgp-password}}\n";
    let native = "apiVersion: corten.dev/v1alpha1\nkind: Peer\n\
        metadata: {name: native, namespace: metallb-system}\n\
        spec: {myASN: 64512, peerASN: 64513, peerAddress: 192.168.1.2, \
        passwordSecret: {name: bgp-password}}\n";
    let secret = |type_: &str, key: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\ntype: {type_}\n\
             metadata: {{name: bgp-password, namespace: metallb-system}}\n\
             stringData: {{{key}: {CONTENT}}}\n"
        )
    };
    let gone = || {
        let path = "/api/v1/namespaces/metallb-system/secrets/bgp-password";
        stage.plane.api().delete(path)
    };
    let basic = "kubernetes.io/basic-auth";
    let frame = |fault: &str| {
        format!(
            "configuration error: parsing peer peer1 {fault}\nfailed to parse peer peer1 password \
             secret"
        )
    };
    stage.apply(peer).await?;
    let said = async |summary: String| {
        for name in NAMES.iter().filter(|name| name.starts_with("speaker-")) {
            let path = format!("configurationstates/{name}");
            let wanted = json!({"result": "Invalid", "errorSummary": summary});
            shows(stage, &path, wanted).await?;
        }
        Ok::<(), Fault>(())
    };
    said(frame(
        "secret ref not found for peer config \"metallb-system\"/\"peer1\"",
    ))
    .await?;
    stage.apply(&secret("Opaque", "password")).await?;
    said(frame(&format!(
        "secret type mismatch on \"metallb-system\"/\"bgp-password\", type \"{basic}\" is \
         expected "
    )))
    .await?;
    gone().await?;
    stage.apply(&secret(basic, "username")).await?;
    said(frame(
        "password not specified in the secret \"metallb-system\"/\"bgp-password\"",
    ))
    .await?;
    // A native object says so itself.
    stage.apply(native).await?;
    let accepted = async |status: &str, words: &str| {
        let path = "/apis/corten.dev/v1alpha1/namespaces/metallb-system/peers/native";
        let what = format!("Peer native to be accepted: {status}");
        wait_for(SOON, &what, async || {
            let found = stage.plane.api().get(path).await;
            let found = found.map_err(|error| error.to_string())?;
            let found = condition(&found, "Accepted").clone();
            let message = found["message"].as_str().unwrap_or_default();
            match found["status"] == status && message.contains(words) {
                true => Ok(()),
                false => Err(found.to_string()),
            }
        })
        .await
    };
    accepted("False", "spec.passwordSecret: password not specified").await?;
    gone().await?;
    stage.apply(&secret(basic, "password")).await?;
    for name in NAMES {
        let path = format!("configurationstates/{name}");
        shows(stage, &path, json!({"result": "Valid"})).await?;
    }
    accepted("True", "").await?;
    for process in processes {
        assert!(!process.log().contains(CONTENT), "a log shows the password");
    }
    for path in [
        "metallb.io/v1beta2/namespaces/metallb-system/bgppeers/peer1",
        "corten.dev/v1alpha1/namespaces/metallb-system/peers/native",
    ] {
        stage.plane.api().delete(&format!("/apis/{path}")).await?;
    }
    gone().await?;
    stage.say("a peer's Secret: missing, of the wrong type, without the key, right");
    Ok(())
}

/// The `ServiceL2Status` objects of a Service, as `name → node`.
async fn l2(stage: &Stage, service: &str) -> Result<BTreeMap<String, String>, Fault> {
    let path = format!(
        "{ROOT}/servicel2statuses?labelSelector=metallb.io/service-name%3D{service},\
         metallb.io/service-namespace%3Ddefault"
    );
    let list = stage.plane.api().get(&path).await?;
    let items = list["items"].as_array().into_iter().flatten();
    Ok(items
        .map(|item| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let node = text(&item["metadata"]["labels"]["metallb.io/node"]);
            let said = text(&item["status"]["node"]);
            let node = if said == node {
                node
            } else {
                format!("{node}/{said}")
            };
            (text(&item["metadata"]["name"]), node)
        })
        .collect())
}

/// Waits until there is exactly one, of this node; gives its name.
async fn one(stage: &Stage, service: &str, node: &str) -> Result<String, lab::WaitError> {
    let what = format!("one ServiceL2Status of {service}, by {node}");
    wait_for(SOON, &what, async || {
        let found = l2(stage, service)
            .await
            .map_err(|error| error.to_string())?;
        let mut found_it = found.iter().filter(|(_, by)| *by == node);
        match (found.len(), found_it.next()) {
            (1, Some((name, _))) => Ok(name.clone()),
            _ => Err(format!("{found:?}")),
        }
    })
    .await
}

async fn announced(stage: &Stage, agents: &mut [Process]) -> Outcome {
    let owner = stage.scene.owner(ADDRESS).await?.host.name().to_owned();
    let name = one(stage, "a", &owner).await?;
    assert!(name.starts_with("l2-"), "{name}");
    let path = format!("{ROOT}/servicel2statuses/{name}");
    let object = stage.plane.api().get(&path).await?;
    let status = json!({"node": owner, "serviceName": "a", "serviceNamespace": "default"});
    assert_eq!(object["status"], status, "all interfaces: none is named");
    stage.say(format!("{owner} says that it announces the Service"));

    // Deleted by somebody: it comes back.
    stage.plane.api().delete(&path).await?;
    wait_for(SOON, "another ServiceL2Status", async || {
        let now = one(stage, "a", &owner).await.map_err(|e| e.to_string())?;
        if now == name { Err(now) } else { Ok(()) }
    })
    .await?;

    // The interfaces of the advertisement, sorted.
    let interfaces = |names: &str| {
        format!(
            "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\n\
             metadata: {{name: adv, namespace: metallb-system}}\nspec: {{interfaces: [{names}]}}\n"
        )
    };
    stage.apply(&interfaces("eth7, eth0")).await?;
    let name = one(stage, "a", &owner).await?;
    let wanted = json!({"interfaces": [{"name": "eth0"}, {"name": "eth7"}]});
    shows(stage, &format!("servicel2statuses/{name}"), wanted).await?;
    stage.apply(&interfaces("")).await?;
    wait_for(SOON, "all interfaces again", async || {
        let path = format!("{ROOT}/servicel2statuses/{name}");
        let found = stage.plane.api().get(&path).await;
        let found = found.map_err(|error| error.to_string())?;
        match found["status"].get("interfaces") {
            None => Ok(()),
            Some(names) => Err(names.to_string()),
        }
    })
    .await?;
    stage.say("its interfaces follow the advertisement");

    // The node dies: its object cannot delete itself.
    let nodes = &stage.scene.nodes;
    let index = nodes.iter().position(|node| node.host.name() == owner);
    let index = index.ok_or("no such node")?;
    agents[index].kill();
    let next = wait_for(SOON, "another node's ServiceL2Status", async || {
        let found = l2(stage, "a").await.map_err(|error| error.to_string())?;
        match found.values().next() {
            Some(node) if found.len() == 1 && *node != owner => Ok(node.clone()),
            _ => Err(format!("{found:?}")),
        }
    })
    .await?;
    stage.say(format!("{owner} killed: {next} says so now, alone"));

    // It returns and takes its address back; the loser deletes its own object.
    agents[index] = stage.agent(&nodes[index])?;
    one(stage, "a", &owner).await?;
    stage.say(format!("{owner} is back, and alone"));

    // A planned stop: the next one takes over.
    agents[index].terminate();
    one(stage, "a", &next).await?;
    stage.say(format!("{owner} left: {next} says so now"));
    agents[index] = stage.agent(&nodes[index])?;
    one(stage, "a", &owner).await?;
    Ok(())
}

/// Nothing is written while nothing changes, and a deleted Service leaves nothing.
async fn quiet(stage: &Stage) -> Outcome {
    let versions = async || -> Result<BTreeMap<String, String>, Fault> {
        let mut versions = BTreeMap::new();
        for kind in ["ipaddresspools", "configurationstates", "servicel2statuses"] {
            let list = stage.plane.api().get(&format!("{ROOT}/{kind}")).await?;
            for item in list["items"].as_array().into_iter().flatten() {
                let text = |field: &str| item["metadata"][field].as_str().unwrap_or_default();
                versions.insert(
                    format!("{kind}/{}", text("name")),
                    text("resourceVersion").to_owned(),
                );
            }
        }
        let service = stage.service("a").await?;
        let version = service["metadata"]["resourceVersion"].as_str();
        versions.insert(
            "service/a".to_owned(),
            version.unwrap_or_default().to_owned(),
        );
        Ok(versions)
    };
    // What the last chapter's restarts have to say is said.
    let mut before = versions().await?;
    let mut since = std::time::Instant::now();
    wait_for(SOON, "two seconds without a write", async || {
        let now = versions().await.map_err(|error| error.to_string())?;
        if now != before {
            (before, since) = (now, std::time::Instant::now());
        }
        match since.elapsed() {
            quiet if quiet.as_secs() >= 2 => Ok(()),
            quiet => Err(format!("{quiet:?}")),
        }
    })
    .await?;
    assert_eq!(before.len(), 2 + 4 + 1 + 1, "{before:#?}");
    // Round trips through controller and agents that take longer than any of them waits to write:
    // Services that no pool may serve, so that no counter changes.
    for n in 0..3 {
        let name = format!("refused-{n}");
        stage
            .apply(&format!(
                "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  \
                 annotations: {{metallb.io/address-pool: nowhere}}\n\
                 spec: {{type: LoadBalancer, selector: {{app: myapp}}, ports: [{{port: 80}}]}}\n"
            ))
            .await?;
        stage.event(&name, "AllocationFailed").await?;
        let path = format!("/api/v1/namespaces/default/services/{name}");
        stage.plane.api().delete(&path).await?;
    }
    let at = std::time::Instant::now();
    wait_for(SOON, "three seconds of nothing", async || {
        let now = versions().await.map_err(|error| error.to_string())?;
        assert_eq!(now, before, "written without a change");
        let passed = at.elapsed();
        if passed.as_secs() >= 3 {
            Ok(())
        } else {
            Err(format!("{passed:?}"))
        }
    })
    .await?;
    stage.say("nothing is written while nothing changes");

    let path = "/api/v1/namespaces/default/services/a";
    stage.plane.api().delete(path).await?;
    wait_for(SOON, "no ServiceL2Status", async || {
        let found = l2(stage, "a").await.map_err(|error| error.to_string())?;
        if found.is_empty() {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await?;
    shows(stage, "ipaddresspools/pool", counted(0)).await?;
    stage.say("the Service is gone, and what was said of it");
    Ok(())
}
