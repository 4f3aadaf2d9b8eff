//! How demos tell what happens.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::scene::Scene;
use crate::{Host, Outcome};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A step of the story.
pub fn step(number: u32, text: &str) {
    println!("\n{number}. {text}");
}

/// What was seen in it.
pub fn note(text: impl AsRef<str>) {
    println!("   {}", text.as_ref());
}

/// A directory with the manifests of `examples/NAME` and what a cluster would add for `service`;
/// tells of each file.
pub fn manifests(scene: &Scene, example: &str, service: &str) -> Result<PathBuf, Error> {
    let dir = scene.directory("manifests")?;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for entry in fs::read_dir(examples.join(example))? {
        let path = entry?.path();
        let Some(name) = path.file_name() else {
            continue;
        };
        fs::copy(&path, dir.join(name))?;
        note(name.to_string_lossy());
    }
    fs::write(dir.join("cluster.yaml"), scene.cluster_manifests(service))?;
    note(format!(
        "cluster.yaml ({} Nodes, 1 EndpointSlice)",
        scene.nodes.len()
    ));
    Ok(dir)
}

/// Fetches so many pages, each over a connection of its own, and tells who served them; an error
/// unless `servers` did.
pub async fn spread(client: &Host, at: SocketAddr, pages: u32, servers: usize) -> Outcome {
    let mut spread: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..pages {
        let answer = client.http_get(at, "/").await?;
        *spread.entry(answer.backend().to_owned()).or_default() += 1;
    }
    let text: Vec<String> = spread
        .iter()
        .map(|(pod, pages)| format!("{pod} {pages}"))
        .collect();
    note(format!(
        "{pages} more, each over a connection of its own: {}",
        text.join(", ")
    ));
    if spread.len() != servers {
        return Err(format!("{} of {servers} pods answered", spread.len()).into());
    }
    Ok(())
}
