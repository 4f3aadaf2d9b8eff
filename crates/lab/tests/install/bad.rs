//! What a cluster may lack: each is named where people look, with the remedy, and the remedy is
//! enough. Nothing restarts over and over.

use std::collections::BTreeMap;

use lab::{Outcome, wait_for};

use crate::stage::{SOON, SYSTEM, Stage};

pub(crate) async fn story(stage: &Stage) -> Outcome {
    let rule = r#"[{"op": "remove", "path": "/rules/0"}]"#;
    let patch = [
        "patch",
        "clusterrole",
        "corten-agent",
        "--type=json",
        "-p",
        rule,
    ];
    stage.kubectl(&patch).await?;
    waits_behind(
        stage,
        "no right to list and watch services",
        "kubectl apply -f deploy/rbac.yaml",
    )
    .await?;
    stage.lab.say("a rule taken away is named");

    let kind = ["delete", "crd", "l2advertisements.metallb.io"];
    stage.kubectl(&kind).await?;
    // The server serves it for a second yet: an agent of that time reads it, and has all it needs.
    wait_for(SOON, "the kind to be served no more", async || {
        let advertisements = "/apis/metallb.io/v1beta1/l2advertisements";
        match stage.cluster.api().get(advertisements).await {
            Err(error) if error.status() == Some(404) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    named(
        stage,
        "the cluster does not know the kind L2Advertisement",
        "kubectl apply -f deploy/crds",
    )
    .await?;
    stage.lab.say("a missing kind is named");

    // Here the cluster itself says it, in an event of the DaemonSet.
    let level = "pod-security.kubernetes.io/enforce=restricted";
    stage
        .kubectl(&["label", "namespace", SYSTEM, level, "--overwrite"])
        .await?;
    let (pod, _) = agent(stage).await?;
    stage
        .kubectl(&["delete", "pod", "-n", SYSTEM, &pod])
        .await?;
    wait_for(SOON, "an event on the DaemonSet", async || {
        let describe = ["describe", "daemonset", "-n", SYSTEM, "corten-agent"];
        let said = stage.kubectl(&describe).await.map_err(|e| e.to_string())?;
        match said.contains("violates PodSecurity") && said.contains("NET_ADMIN") {
            true => Ok(()),
            false => Err(said),
        }
    })
    .await?;
    stage.lab.say("a level that forbids the agent is named");
    Ok(())
}

/// The first node's agent that is not on its way out, and whether it is ready.
async fn agent(
    stage: &Stage,
) -> Result<(String, serde_json::Value), Box<dyn std::error::Error + Send + Sync>> {
    let pods = format!(
        "/api/v1/namespaces/{SYSTEM}/pods?labelSelector=component%3Dspeaker\
         &fieldSelector=spec.nodeName%3Dnode-1"
    );
    let pods = stage.list(&pods).await?;
    let mut there = pods
        .into_iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let pod = there.next().ok_or("no agent on node-1")?;
    let name = pod["metadata"]["name"].as_str().ok_or("no name")?;
    Ok((
        name.to_owned(),
        pod["status"]["containerStatuses"][0].clone(),
    ))
}

/// A node's next agent, which cannot follow the one before it, says this in its own events and log,
/// is not ready though the one before it is, and follows after the remedy, without a restart.
async fn waits_behind(stage: &Stage, what: &str, remedy: &str) -> Outcome {
    let restart = ["rollout", "restart", "-n", SYSTEM, "daemonset/corten-agent"];
    stage.kubectl(&restart).await?;
    wait_for(SOON, &format!("{what:?} to be said"), async || {
        let pods = pair(stage).await.map_err(|e| e.to_string())?;
        let [(old, before), (new, state)] = pods.as_slice() else {
            return Err(format!("{pods:?}"));
        };
        if before["ready"] != true || state["started"] != false || state["ready"] != false {
            return Err(format!("{old}: {before}; {new}: {state}"));
        }
        said(
            stage,
            new,
            "Startup probe failed: corten: not started",
            what,
        )
        .await
    })
    .await?;
    stage.line(remedy).await?;
    stage.rolled_out().await?;
    let (_, state) = agent(stage).await?;
    assert_eq!(state["restartCount"], 0, "{state}");
    Ok(())
}

/// The agents of the node that has two, the older first, with the state of their containers.
async fn pair(
    stage: &Stage,
) -> Result<Vec<(String, serde_json::Value)>, Box<dyn std::error::Error + Send + Sync>> {
    let pods = format!("/api/v1/namespaces/{SYSTEM}/pods?labelSelector=component%3Dspeaker");
    let mut nodes: BTreeMap<String, Vec<serde_json::Value>> = BTreeMap::new();
    for pod in stage.list(&pods).await? {
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        nodes.entry(node.to_owned()).or_default().push(pod);
    }
    let pair = nodes.into_values().find(|pods| pods.len() == 2);
    let mut pair = pair.ok_or("no node has two agents")?;
    pair.sort_by_key(|pod| pod["metadata"]["creationTimestamp"].to_string());
    let named = pair.iter().map(|pod| {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        (
            name.to_owned(),
            pod["status"]["containerStatuses"][0].clone(),
        )
    });
    Ok(named.collect())
}

/// The Pod's events say this, beginning so, and its log does.
async fn said(stage: &Stage, pod: &str, beginning: &str, what: &str) -> Result<(), String> {
    let describe = ["describe", "pod", "-n", SYSTEM, pod];
    let told = stage.kubectl(&describe).await.map_err(|e| e.to_string())?;
    let told_so = told
        .lines()
        .any(|line| line.contains(beginning) && line.contains(what));
    if !told_so {
        return Err(told);
    }
    let log = ["logs", "-n", SYSTEM, pod];
    let log = stage.kubectl(&log).await.map_err(|e| e.to_string())?;
    match log.contains("this kind; trying again") && log.contains("remedy") {
        true => Ok(()),
        false => Err(log),
    }
}

/// A new agent says this, in its log and in an event, and is ready after the remedy without a
/// restart. It may be ready before: after five seconds it goes on from what the one before it kept.
async fn named(stage: &Stage, what: &str, remedy: &str) -> Outcome {
    let (old, _) = agent(stage).await?;
    stage
        .kubectl(&["delete", "pod", "-n", SYSTEM, &old])
        .await?;
    wait_for(SOON, &format!("{what:?} to be said"), async || {
        let (pod, state) = agent(stage).await.map_err(|e| e.to_string())?;
        if pod == old {
            return Err(format!("{pod}: {state}"));
        }
        said(stage, &pod, "corten", what).await
    })
    .await?;
    stage.line(remedy).await?;
    stage.rolled_out().await?;
    let (_, state) = agent(stage).await?;
    assert_eq!(state["restartCount"], 0, "{state}");
    Ok(())
}
