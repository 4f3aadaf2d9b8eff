//! Last good forms outlive the processes: of objects that contradict others, and of files that say
//! nothing any more.

use lab::wait_until;

use crate::support::{Outcome, POOL, SOON, Stage, ip};

/// Made before the pool, so that it has the range.
const OLDER: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: a-pool, namespace: metallb-system}
spec: {addresses: [10.0.0.200-10.0.0.210], autoAssign: false}
";
const ADDRESS: &str = "10.0.0.101";

/// Kills every process, lets `meanwhile` happen, and starts them all.
async fn restart(stage: &mut Stage, meanwhile: impl FnOnce(&Stage) -> Outcome) -> Outcome {
    for name in ["node-1", "node-2"] {
        stage.on(name).kill();
    }
    meanwhile(stage)?;
    stage.start()?;
    for name in ["node-1", "node-2"] {
        stage.ready(name).await?;
    }
    Ok(())
}

/// The Service has its address, one node answers, the page comes.
async fn goes_on(stage: &Stage) -> Outcome {
    stage.owner(ip(ADDRESS)).await?;
    stage.scene.page(ip(ADDRESS)).await?;
    stage.holds("one", &[ADDRESS]).await?;
    Ok(())
}

fn state(stage: &Stage) -> String {
    std::fs::read_to_string(stage.dir.join(".corten/state.json")).unwrap_or_default()
}

#[test]
fn a_bad_object_has_its_last_good_form_after_a_restart() {
    lab::run(
        "forms::a_bad_object_has_its_last_good_form_after_a_restart",
        async |lab| {
            let mut stage = Stage::build(&lab, 2).await?;
            stage.write("older.yaml", OLDER)?;
            stage.serve("one")?;
            stage.start()?;
            goes_on(&stage).await?;
            let bad = POOL.replace("101-10.0.0.150", "205-10.0.0.220");
            stage.write("pool.yaml", &bad)?;
            wait_until(SOON, "the last good form to be kept", async || {
                state(&stage).contains("10.0.0.101-10.0.0.150")
            })
            .await?;
            restart(&mut stage, |_| Ok(())).await?;
            goes_on(&stage).await?;
            let line = stage.logged("node-1", &["ip-pool", "last good"]).await?;
            for word in ["spec.addresses[0]", "a-pool"] {
                assert!(line.contains(word), "{word}: {line}");
            }
            // It gives nothing new.
            stage.serve("two")?;
            stage.logged("node-1", &["two", "AllocationFailed"]).await?;
            goes_on(&stage).await?;
            stage.write("pool.yaml", POOL)?;
            stage.holds("two", &["10.0.0.102"]).await?;
            goes_on(&stage).await?;
            assert!(!state(&stage).contains("accepted"), "{}", state(&stage));
            Ok(())
        },
    );
}

#[test]
fn a_file_broken_while_nothing_ran_means_what_it_meant() {
    lab::run(
        "forms::a_file_broken_while_nothing_ran_means_what_it_meant",
        async |lab| {
            let mut stage = Stage::build(&lab, 2).await?;
            stage.serve("one")?;
            stage.start()?;
            goes_on(&stage).await?;
            restart(&mut stage, |stage| {
                stage.write("pool.yaml", "}{ not YAML\n")?;
                stage.write("one.yaml", "")
            })
            .await?;
            stage.logged("node-1", &["pool.yaml:1"]).await?;
            // A new Service is decided on, and the first one's address is taken.
            stage.serve("two")?;
            stage.holds("two", &["10.0.0.102"]).await?;
            goes_on(&stage).await?;
            // As it still does after the next start.
            restart(&mut stage, |_| Ok(())).await?;
            stage.serve("three")?;
            stage.holds("three", &["10.0.0.103"]).await?;
            goes_on(&stage).await?;
            Ok(())
        },
    );
}

#[test]
fn nobody_loses_an_address_to_a_file_that_nobody_knows() {
    lab::run(
        "forms::nobody_loses_an_address_to_a_file_that_nobody_knows",
        async |lab| {
            let mut stage = Stage::build(&lab, 2).await?;
            stage.serve("one")?;
            stage.start()?;
            goes_on(&stage).await?;
            restart(&mut stage, |stage| {
                std::fs::remove_dir_all(stage.dir.join(".corten/good"))?;
                stage.write("pool.yaml", "}{ not YAML\n")?;
                stage.write("one.yaml", "}{ not YAML\n")?;
                let other = POOL.replace("ip-pool", "other");
                stage.write("other.yaml", &other)?;
                stage.serve("two")
            })
            .await?;
            let words = [".yaml", "not known what it said", "mended or removed"];
            stage.logged("node-1", &words).await?;
            stage.holds("one", &[ADDRESS]).await?;
            stage.remove("other.yaml")?;
            stage.serve("one")?;
            stage.write("pool.yaml", POOL)?;
            stage.holds("two", &["10.0.0.102"]).await?;
            goes_on(&stage).await?;
            Ok(())
        },
    );
}
