//! Addresses that stay with their owners: `handBack: false`.

use std::net::IpAddr;

use lab::wait_for;
use serde_json::Value;

use crate::support::{Outcome, SOON, Stage, ip};

const STAY: &str = "\
apiVersion: corten.dev/v1alpha1
kind: Advertisement
metadata: {name: stay, namespace: metallb-system}
spec: {layer2: {handBack: false}}
";

/// The node that says that it has `address`, in company; `None`: nobody, or several do.
fn says(stage: &Stage, address: IpAddr) -> Option<String> {
    let files = std::fs::read_dir(stage.dir.join(".corten/nodes")).ok()?;
    let mut found = Vec::new();
    for path in files.filter_map(|file| Some(file.ok()?.path())) {
        let Some(node) = path.file_name()?.to_str()?.strip_suffix(".json") else {
            continue;
        };
        let state: Value = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
        let tenures = state["tenures"].as_array().into_iter().flatten();
        let mut of_it = tenures.filter(|it| it["address"] == address.to_string());
        let firm = |it: &Value| it["term"].as_u64().is_some_and(|term| term % 4 == 2);
        found.extend(of_it.any(firm).then(|| node.to_owned()));
    }
    if found.len() == 1 { found.pop() } else { None }
}

/// Waits until `node` says that it has the address, and alone answers for it.
async fn settled(stage: &Stage, address: IpAddr, node: &str) -> Outcome {
    let what = format!("{node} to have {address}");
    wait_for(SOON, &what, async || match says(stage, address) {
        Some(found) if found == node => Ok(()),
        found => Err(format!("{found:?}")),
    })
    .await?;
    let owner = stage.owner(address).await?;
    assert_eq!(owner, node);
    stage.scene.page(address).await?;
    Ok(())
}

#[test]
fn an_address_stays_until_its_owner_is_lost() {
    lab::run(
        "stays::an_address_stays_until_its_owner_is_lost",
        async |lab| {
            let mut stage = Stage::build(&lab, 3).await?;
            stage.remove("l2adver.yaml")?;
            stage.write("stay.yaml", STAY)?;
            stage.serve("one")?;
            stage.start()?;
            let address = ip("10.0.0.101");
            let first = stage.owner(address).await?;
            settled(&stage, address, &first).await?;

            // Its owner is cut off, and goes on alone there; then it hears the others again.
            let host = stage.scene.node(&first).host.clone();
            host.cut().await?;
            let second = stage.owner_but(address, &first).await?;
            host.heal().await?;
            stage.logged(&second, &["alive", &first]).await?;
            settled(&stage, address, &second).await?;

            // The second dies: it moves, to the one that stands first; and stays there when the
            // second starts again.
            stage.on(&second).kill();
            let third = stage.owner_but(address, &second).await?;
            assert_eq!(third, first);
            stage.start_on(&second)?;
            stage.ready(&second).await?;
            stage.logged(&second, &["alive", &first]).await?;
            settled(&stage, address, &first).await?;

            // Handed back it goes home, and here it is.
            stage.write("stay.yaml", &STAY.replace("false", "true"))?;
            wait_for(SOON, "nobody to say that he has it", async || {
                let nobody = says(&stage, address).is_none();
                if nobody { Ok(()) } else { Err("somebody does") }
            })
            .await?;
            assert_eq!(stage.owner(address).await?, first);
            Ok(())
        },
    );
}
