//! Addresses that stay with their owners: `handBack: false`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lab::{Target, bin, wait_for, wait_until};
use serde_json::Value;

use crate::support::{ECHO, Outcome, SOON, Stage, ip};

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
            stage.no_strangers();
            Ok(())
        },
    );
}

/// Runs `corten` with these arguments beside the agents; what it printed.
fn corten(stage: &Stage, arguments: &[&str]) -> Outcome<String> {
    let mut command = stage.client().command(bin("corten")?)?;
    let output = command
        .args(arguments)
        .arg("--dir")
        .arg(&stage.dir)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether `corten l2` says that `node` has the address, for it stays.
fn explained(stage: &Stage, address: IpAddr, node: &str) -> Outcome {
    let shown: Value = serde_json::from_str(&corten(stage, &["l2", "-o", "json"])?)?;
    let item = &shown["items"][0];
    assert_eq!(item["address"], address.to_string(), "{shown:#}");
    assert_eq!(item["node"], node, "{shown:#}");
    assert_eq!(item["why"], "stays (handBack: false)", "{shown:#}");
    Ok(())
}

/// Gives a Node the label that excludes it from load balancing, or takes it away.
fn label(stage: &Stage, node: &str, excluded: bool) -> Outcome {
    let plain = format!("{{name: {node}}}");
    let label = "node.kubernetes.io/exclude-from-external-load-balancers: \"\"";
    let labelled = format!("{{name: {node}, labels: {{{label}}}}}");
    let text = std::fs::read_to_string(stage.dir.join("nodes.yaml"))?;
    let (old, new) = match excluded {
        true => (plain, labelled),
        false => (labelled, plain),
    };
    assert!(text.contains(&old), "{text}");
    stage.write("nodes.yaml", &text.replace(&old, &new))
}

#[test]
fn a_node_that_is_to_go_gives_it_away_and_does_not_get_it_back() {
    lab::run(
        "stays::a_node_that_is_to_go_gives_it_away_and_does_not_get_it_back",
        async |lab| {
            let mut stage = Stage::build(&lab, 3).await?;
            stage.remove("l2adver.yaml")?;
            stage.write("stay.yaml", STAY)?;
            stage.serve("one")?;
            stage.start()?;
            let address = ip("10.0.0.101");
            let first = stage.owner(address).await?;
            settled(&stage, address, &first).await?;
            let echo = Target::Udp(SocketAddr::new(address, ECHO));
            let prober = stage.client().probe(echo)?;
            wait_until(SOON, "answers before", async || prober.answered() > 200).await?;

            // It drains: another one answers before it stops, and goes on when it serves again.
            corten(&stage, &["drain", &first])?;
            let second = stage.owner_but(address, &first).await?;
            settled(&stage, address, &second).await?;
            let undone = corten(&stage, &["drain", &first, "--undo"])?;
            assert!(undone.contains("serves again"), "{undone}");
            explained(&stage, address, &second)?;
            settled(&stage, address, &second).await?;

            // The next one is excluded, and no longer.
            label(&stage, &second, true)?;
            let third = stage.owner_but(address, &second).await?;
            settled(&stage, address, &third).await?;
            label(&stage, &second, false)?;
            wait_for(SOON, "the node to be able again", async || {
                let shown = corten(&stage, &["l2", "-o", "json"]);
                let shown = shown.map_err(|error| error.to_string())?;
                let shown: Value = serde_json::from_str(&shown).map_err(|e| e.to_string())?;
                let mut nodes = shown["nodes"].as_array().into_iter().flatten();
                let able = nodes.any(|it| it["node"] == *second && it["notAble"].is_null());
                if able { Ok(()) } else { Err(shown.to_string()) }
            })
            .await?;
            explained(&stage, address, &third)?;
            settled(&stage, address, &third).await?;

            let gaps = prober.stop().await?;
            lab.say(format!(
                "{first} drained, {second} excluded: {} lost, {gaps:?}",
                gaps.lost()
            ));
            // A death costs more than a second here; what there is, is the machine's own.
            assert!(gaps.longest < Duration::from_millis(800), "{gaps:?}");
            Ok(())
        },
    );
}
