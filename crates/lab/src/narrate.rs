//! How demos tell what happens.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::{Host, Outcome};

/// A step of the story.
pub fn step(number: u32, text: &str) {
    println!("\n{number}. {text}");
}

/// What was seen in it.
pub fn note(text: impl AsRef<str>) {
    println!("   {}", text.as_ref());
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
