//! The README's quick start, by its very lines, and what the README says comes of it.

use std::fs;
use std::time::Instant;

use lab::Outcome;

use crate::stage::{ADDRESS, Stage, root};

/// The commands of the README's section on clusters: the image's, then kubectl's.
pub(crate) fn lines() -> (Vec<String>, Vec<String>) {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let section = readme
        .split("\n## ")
        .find(|section| section.starts_with("On a cluster\n"))
        .expect("the section on clusters");
    let mut blocks = section.split("```").skip(1).step_by(2).map(|block| {
        let lines = block.lines().skip(1);
        let commands = lines.map(|line| line.split('#').next().unwrap_or_default().trim());
        commands
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect::<Vec<String>>()
    });
    let image = blocks.next().expect("how the image is made");
    (image, blocks.next().expect("how it is installed"))
}

pub(crate) async fn story(stage: &Stage) -> Outcome {
    let (image, install) = lines();
    assert_eq!(image, ["cargo xtask image"], "nodes have it already");
    assert_eq!(install.len(), 3, "three commands: {install:?}");
    let start = Instant::now();
    for line in &install {
        stage.line(line).await.map_err(|e| format!("{line}: {e}"))?;
    }
    stage.answers(ADDRESS).await?;
    let took = start.elapsed().as_secs_f64();
    stage.lab.say(format!("install_to_answer_s: {took:.1}"));
    let shown = stage.line("kubectl get service myapp-svc").await?;
    assert!(shown.contains(ADDRESS), "{shown}");
    let told = stage.line("kubectl describe service myapp-svc").await?;
    for reason in ["IPAllocated", "nodeAssigned"] {
        assert!(told.contains(reason), "no event {reason}:\n{told}");
    }
    Ok(())
}
