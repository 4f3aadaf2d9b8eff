//! Corten on a real cluster, with what `deploy/` publishes, as a user meets it: installed by the
//! README's own lines, upgraded under load, its nodes and API server lost, removed, installed anew.
//!
//! One cluster for the whole story, told in order; each step's errors bear its name.

use std::time::Duration;

use lab::cluster::{Cluster, Options, Parts};

mod bad;
mod load;
mod order;
mod outage;
mod quickstart;
mod removal;
mod scale;
mod stage;
mod upgrade;

use stage::{Stage, step};

/// For the whole story: two minutes on an idle machine.
const MINUTES: Duration = Duration::from_secs(900);

#[test]
fn installed_used_upgraded_and_removed() {
    let name = "installed_used_upgraded_and_removed";
    let Some(parts) = Parts::or_skip(name) else {
        return;
    };
    lab::run_for(name, MINUTES, async |lab| {
        let cluster = Cluster::up(&lab, &parts, Options::default()).await?;
        let mut stage = Stage::set(lab, cluster).await?;
        step("quick start", quickstart::story(&stage)).await?;
        step("scaled", scale::story(&stage)).await?;
        step("upgraded", upgrade::story(&stage)).await?;
        step("outage", outage::story(&mut stage)).await?;
        step("removed", removal::story(&stage)).await?;
        step("another order", order::story(&stage)).await?;
        step("bad input", bad::story(&stage)).await?;
        Ok(())
    });
}
