//! Least rights, proved: controller and agents run with the published manifests, their accounts'
//! rights and nothing else, and do all that they do. The audit log then knows no request of theirs
//! that was denied, and a use for each right. The Pods' own rights are looked at on a real cluster.

#[allow(dead_code)]
#[path = "../install/stage.rs"]
mod install;
mod pods;
mod stage;
mod story;

use std::fs;

use lab::controlplane::binary_or_skip;
use lab::rights::Rights;
use lab::wait_for;
use serde_json::json;

use stage::{Fault, MINUTES, SOON, Stage, turn};

#[test]
fn every_right_is_used_and_none_is_missing() {
    let name = "every_right_is_used_and_none_is_missing";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    let _turn = turn();
    lab::run_for(name, MINUTES, async |lab| {
        let stage = Stage::build(lab, &binary).await?;
        // They run to the end: what they do then is judged, too.
        let _processes = story::play(&stage).await?;
        judged(&stage).await?;
        caught(&stage).await?;
        Ok(())
    });
}

/// Waits until each right was used: some uses come a moment after what is seen of them.
async fn judged(stage: &Stage) -> Result<(), Fault> {
    let rights = Rights::read(stage.plane.api(), lab::chart::NAMESPACE).await?;
    assert!(rights.count() > 60, "{} rights", rights.count());
    let verdict = wait_for(SOON, "a use for each right", async || {
        let verdict = rights.judge(&log(stage)?);
        let verdict = verdict.map_err(|error| error.to_string())?;
        match verdict.unused.is_empty() {
            true => Ok(verdict),
            false => Err(format!("{verdict:#?}")),
        }
    })
    .await?;
    assert!(verdict.denied.is_empty(), "{:#?}", verdict.denied);
    stage.say(format!(
        "{} rights, each used; nothing denied",
        rights.count()
    ));
    Ok(())
}

/// The same log convicts roles that are not the least, or less.
async fn caught(stage: &Stage) -> Result<(), Fault> {
    let api = stage.plane.api();
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rules = json!([{"apiGroups": [""], "resources": ["services"], "verbs": ["delete"]}]);
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "bogus"}, "rules": rules,
    });
    api.create(&format!("{rbac}/clusterroles"), &role).await?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "bogus"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bogus"},
        "subjects": [{
            "kind": "ServiceAccount", "name": "corten-agent", "namespace": lab::chart::NAMESPACE,
        }],
    });
    api.create(&format!("{rbac}/clusterrolebindings"), &binding)
        .await?;
    let rights = Rights::read(api, lab::chart::NAMESPACE).await?;
    let verdict = rights.judge(&log(stage)?)?;
    assert_eq!(verdict.unused.len(), 1, "{verdict:#?}");
    assert!(verdict.unused[0].contains("may delete /services"));

    // And a right that is taken away is missed at once.
    let agent = format!("{rbac}/clusterroles/corten-agent");
    let mut narrower = api.get(&agent).await?;
    let rules = narrower["rules"].as_array_mut().ok_or("no rules")?;
    rules.retain(|rule| rule["resources"] != json!(["nodestates/status"]));
    let rules = json!({"rules": narrower["rules"]});
    api.patch(&agent, lab::controlplane::Patch::Merge, &rules)
        .await?;
    let host = &stage.scene.nodes[0].host;
    host.add_address("eth0", "10.77.0.1/24").await?;
    wait_for(SOON, "the missing right in the log", async || {
        let verdict = rights.judge(&log(stage)?);
        let denied = verdict.map_err(|error| error.to_string())?.denied;
        match denied.iter().any(|said| said.contains("nodestates/status")) {
            true => Ok(()),
            false => Err(format!("{denied:?}")),
        }
    })
    .await?;
    stage.say("a right too many and one too few are caught");
    Ok(())
}

fn log(stage: &Stage) -> Result<String, String> {
    let log = stage.plane.audit_log().ok_or("no audit log")?;
    fs::read_to_string(log).map_err(|error| error.to_string())
}
