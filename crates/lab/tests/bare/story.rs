//! The demo's story.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use lab::{Target, wait_until};

use crate::support::{SOON, Stage, ip};

/// The bound on the gap when an owner dies.
const BOUND: Duration = Duration::from_secs(2);

#[test]
fn a_service_gets_its_address_and_outlives_the_node_that_answers() {
    lab::run(
        "story::a_service_gets_its_address_and_outlives_the_node_that_answers",
        async |lab| {
            let mut stage = Stage::build(&lab, 3).await?;
            let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/l2");
            for entry in fs::read_dir(examples)? {
                let path = entry?.path();
                let name = path.file_name().expect("a file's name");
                fs::copy(&path, stage.dir.join(name))?;
            }
            // The example has these.
            stage.remove("pool.yaml")?;
            let cluster = stage.scene.cluster_manifests("default/myapp-svc");
            stage.write("nodes.yaml", &cluster)?;
            stage.profile = "default";
            stage.start()?;
            stage.holds("myapp-svc", &["10.0.0.101"]).await?;

            let address = ip("10.0.0.101");
            let owner = stage.owner(address).await?;
            stage.scene.page(address).await?;
            let mut spread: BTreeMap<String, u32> = BTreeMap::new();
            for _ in 0..200 {
                let answer = stage.client().http_get(SocketAddr::new(address, 80), "/");
                *spread
                    .entry(answer.await?.backend().to_owned())
                    .or_default() += 1;
            }
            // 200 of 3 pods: 67 each, standard deviation 6.7.
            assert!(
                spread.len() == 3 && spread.values().all(|pages| *pages > 33),
                "{spread:?}"
            );

            let prober = stage
                .client()
                .probe(Target::Tcp(SocketAddr::new(address, 80)))?;
            wait_until(SOON, "answers before", async || prober.answered() > 200).await?;
            stage.scene.node(&owner).host.kill().await?;
            let next = stage.owner_but(address, &owner).await?;
            let before = prober.answered();
            wait_until(SOON, "answers after", async || {
                prober.answered() > before + 200
            })
            .await?;
            let gaps = prober.stop().await?;
            lab.say(format!("{owner} died, {next} answers: {gaps:?}"));
            assert!(gaps.longest < BOUND, "{gaps:?}");
            Ok(())
        },
    );
}
