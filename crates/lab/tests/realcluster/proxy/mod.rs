//! `corten agent --forward all` in kube-proxy's place on every node: what Kubernetes' own tests of
//! Services ask (`spec/dataplane.md` §6.1, §6.2), and the way there and back.
//!
//! Told in order on one cluster; each step's errors bear its name.

mod basics;
pub(crate) mod change;
mod leftovers;
mod life;
mod policies;
mod town;

use std::time::Instant;

use lab::cluster::Cluster;
use lab::{Lab, Outcome};

use change::Users;
use town::Town;

/// Only these steps (names with commas), for work on one of them.
const STEPS: &str = "LAB_PROXY_STEPS";

/// Names the step in its error, and says how long it took.
async fn step(lab: &Lab, name: &str, story: impl Future<Output = Outcome>) -> Outcome {
    let wanted = std::env::var(STEPS);
    if wanted.is_ok_and(|steps| !steps.split(',').any(|one| one == name)) {
        return Ok(());
    }
    let start = Instant::now();
    story.await.map_err(|error| {
        let causes = std::iter::successors(Some(&*error as &dyn std::error::Error), |error| {
            error.source()
        });
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        format!("proxy, {name}: {}", causes.join(": "))
    })?;
    lab.say(format!(
        "proxy, {name} ({:.1} s)",
        start.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// `pods` are the servers' names by node: ports 80 and 81, label `app: web`.
pub(crate) async fn story(lab: &Lab, cluster: &mut Cluster, pods: Vec<String>) -> Outcome {
    for (pod, number) in pods.iter().zip(1..) {
        let label = format!("at=node-{number}");
        cluster.kubectl(&["label", "pod", pod, &label], "").await?;
    }
    let mut town = Town { cluster, pods };
    let users = Users::come(&town).await?;
    let there = change::to_corten(&mut town, &users);
    step(lab, "from kube-proxy to Corten", there).await?;
    step(lab, "endpoints", basics::endpoints(&town)).await?;
    step(lab, "ports", basics::ports(&town)).await?;
    step(lab, "node ports", basics::node_port(&town)).await?;
    step(lab, "affinity", basics::affinity(&town)).await?;
    step(lab, "kinds", basics::kinds(&town)).await?;
    step(lab, "names", basics::names(&town)).await?;
    step(lab, "hairpin", basics::hairpin(&town)).await?;
    step(lab, "rejected", basics::rejected(&town)).await?;
    step(lab, "external policy", policies::local(&town)).await?;
    step(lab, "external address", policies::external_ip(&town)).await?;
    step(lab, "source ranges", policies::sources(&town)).await?;
    step(lab, "recreated", life::recreated(&town)).await?;
    // These wait most of their time, for what is not to happen and for Pods.
    tokio::try_join!(
        step(lab, "labels", basics::labels(&town)),
        step(lab, "internal policy", policies::internal(&town)),
        step(lab, "not ready", policies::unready(&town)),
        step(lab, "rolling update", life::rolled(&town)),
    )?;
    step(lab, "agent and API server", life::restarted(&mut town)).await?;
    let back = change::to_kube_proxy(&mut town, &users);
    step(lab, "from Corten to kube-proxy", back).await?;
    step(lab, "the users", users.leave(&town)).await?;
    step(lab, "vips beside kube-proxy", change::beside(&mut town)).await
}
