//! What the nodes of a directory say of themselves, and what is asked of them, in place of the
//! objects `NodeState` and `Node` of a cluster.
//!
//! `DIR/.corten/nodes/NODE.json` is a node's state, written by its agent on change, and
//! `DIR/.corten/drain.NODE` asks its agent to drain. Where hosts have copies of a directory, each
//! sees its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use api::corten::v1alpha1::NodeStateStatus;

use crate::state::FOLDER;

const NODES: &str = "nodes";
const DRAIN: &str = "drain.";

/// Why a node's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    /// A node's name makes no file's name.
    #[error("{0:?} is no name of a node")]
    Name(String),
    /// The file system refuses.
    #[error("{path} cannot be {what}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It is not what an agent wrote.
    #[error("{path} is damaged; it is written anew when its agent starts")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> NodesError {
    let path = path.to_owned();
    move |source| NodesError::Io { path, what, source }
}

/// The name, if it can be part of a file's.
fn checked(node: &str) -> Result<&str, NodesError> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if node.is_empty() || node.starts_with('.') || !node.chars().all(good) {
        return Err(NodesError::Name(node.to_owned()));
    }
    Ok(node)
}

/// Writes a node's state, whole or not at all.
pub fn store(dir: &Path, node: &str, state: &NodeStateStatus) -> Result<(), NodesError> {
    let folder = dir.join(FOLDER).join(NODES);
    let file = folder.join(format!("{}.json", checked(node)?));
    let new = folder.join(format!(".{node}.new"));
    let attempt = || -> io::Result<()> {
        fs::create_dir_all(&folder)?;
        let mut text = serde_json::to_vec_pretty(state)?;
        text.push(b'\n');
        fs::write(&new, text)?;
        fs::rename(&new, &file)
    };
    attempt().map_err(failed(&file, "written"))
}

/// What every node says.
pub fn load(dir: &Path) -> Result<BTreeMap<String, NodeStateStatus>, NodesError> {
    let folder = dir.join(FOLDER).join(NODES);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(failed(&folder, "read")(error)),
    };
    let mut nodes = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(failed(&folder, "read"))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(node) = name.and_then(|name| name.strip_suffix(".json")) else {
            continue;
        };
        let text = fs::read(&path).map_err(failed(&path, "read"))?;
        let state = serde_json::from_slice(&text).map_err(|source| NodesError::Damaged {
            path: path.clone(),
            source,
        })?;
        nodes.insert(node.to_owned(), state);
    }
    Ok(nodes)
}

/// Asks a node's agent to drain, or to drain no more.
pub fn ask_to_drain(dir: &Path, node: &str, wanted: bool) -> Result<(), NodesError> {
    let folder = dir.join(FOLDER);
    let file = folder.join(format!("{DRAIN}{}", checked(node)?));
    if wanted {
        let attempt = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, ""));
        return attempt.map_err(failed(&file, "written"));
    }
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(&file, "removed")(error))
        }
        _ => Ok(()),
    }
}

/// The nodes that are asked to drain; none where that cannot be read.
pub fn asked_to_drain(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir.join(FOLDER)).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter_map(|name| name.strip_prefix(DRAIN).map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = std::env::temp_dir().join(format!("corten-nodes-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        assert!(load(&dir).expect("no folder is no node").is_empty());
        let state = NodeStateStatus {
            version: 7,
            ..NodeStateStatus::default()
        };
        store(&dir, "node-1", &state).expect("stored");
        assert_eq!(
            load(&dir).expect("loaded"),
            BTreeMap::from([("node-1".to_owned(), state.clone())])
        );
        for bad in ["", "..", "a/b", "../x"] {
            store(&dir, bad, &state).expect_err(bad);
            ask_to_drain(&dir, bad, true).expect_err(bad);
        }
        assert!(asked_to_drain(&dir).is_empty());
        ask_to_drain(&dir, "node-1", true).expect("asked");
        assert_eq!(asked_to_drain(&dir), BTreeSet::from(["node-1".to_owned()]));
        for _ in 0..2 {
            ask_to_drain(&dir, "node-1", false).expect("taken back");
            assert!(asked_to_drain(&dir).is_empty());
        }
        fs::write(dir.join(FOLDER).join(NODES).join("x.json"), "{").expect("written");
        assert!(matches!(load(&dir), Err(NodesError::Damaged { .. })));
        fs::remove_dir_all(dir).expect("removed");
    }
}
