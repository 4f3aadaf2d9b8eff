//! Corten on a real cluster, with what `deploy/` publishes, as a user meets it: installed by the
//! README's own lines, upgraded under load, its nodes and API server lost, removed, installed anew.
//!
//! One cluster for the whole story, told in order; each step's errors bear its name.

use std::time::Duration;

use lab::chart::Chart;
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

/// Only these steps, for work on one of them; the first is always needed, and "outage" by "removed".
const STEPS: &str = "LAB_INSTALL_STEPS";

fn wanted(step: &str) -> bool {
    std::env::var(STEPS).map_or(true, |steps| steps.split(',').any(|one| one == step))
}

#[test]
fn installed_used_upgraded_and_removed() {
    let name = "installed_used_upgraded_and_removed";
    let (Some(parts), Some(chart)) = (Parts::or_skip(name), Chart::or_skip(name)) else {
        return;
    };
    lab::run_for(name, MINUTES, async |lab| {
        let cluster = Cluster::up(&lab, &parts, Options::default()).await?;
        let mut stage = Stage::set(lab, cluster).await?;
        step("quick start", quickstart::story(&stage)).await?;
        if wanted("scaled") {
            step("scaled", scale::story(&stage)).await?;
        }
        if wanted("upgraded") {
            step("upgraded", upgrade::story(&stage)).await?;
        }
        if wanted("outage") {
            step("outage", outage::story(&mut stage)).await?;
        }
        if wanted("removed") {
            step("removed", removal::story(&stage, &chart)).await?;
            step("another order", order::story(&stage)).await?;
            step("bad input", bad::story(&stage)).await?;
        }
        Ok(())
    });
}
