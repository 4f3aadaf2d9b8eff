//! The state file of a directory: which Service holds which address.
//!
//! `DIR/.corten/state.json` takes the place that the Services' status has in a cluster. It is
//! written whole: to a file beside it, synced, renamed over the old one, the folder synced; a
//! reader sees the old form or the new one. It carries a digest of its content, and a file that
//! does not agree with it is refused: addresses that were given are never silently forgotten.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use api::corten::v1alpha1::AcceptedConfigSpec;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Folder of everything Corten writes in a directory of manifests.
pub const FOLDER: &str = ".corten";
/// The state file in that folder.
const FILE: &str = "state.json";
/// The form that this program writes and reads.
const VERSION: u32 = 1;

/// What is kept of one Service, in place of its status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holding {
    /// Its addresses, in order.
    pub addresses: Vec<IpAddr>,
    /// The pool they came from.
    pub pool: Option<String>,
}

/// Holdings by `namespace/name`.
pub type Holdings = BTreeMap<String, Holding>;

/// All that is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Who holds which address.
    pub services: Holdings,
    /// Last good forms of configuration objects whose newest form is bad.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub accepted: AcceptedConfigSpec,
}

fn is_empty(accepted: &AcceptedConfigSpec) -> bool {
    accepted.objects.is_empty()
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    #[serde(flatten)]
    state: State,
    sha256: String,
}

/// Why the state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It is there and cannot be read.
    #[error("state file {file} cannot be read")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what was written.
    #[error(
        "state file {file} is damaged ({what}): it says which Service holds which address, so it is \
         not replaced; restore it from a copy, or remove it to let all addresses be given anew"
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// It cannot be written.
    #[error("state file {file} cannot be written")]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The path of the state file of `dir`.
pub fn path(dir: &Path) -> PathBuf {
    dir.join(FOLDER).join(FILE)
}

fn digest(state: &State) -> Result<String, serde_json::Error> {
    let text = serde_json::to_vec(state)?;
    Ok(Sha256::digest(&text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Reads what is kept of `dir`; nothing when there is no state file yet.
pub fn load(dir: &Path) -> Result<State, StateError> {
    let file = path(dir);
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
        Err(source) => return Err(StateError::Unreadable { file, source }),
    };
    let damaged = |what: String| StateError::Damaged {
        file: file.clone(),
        what,
    };
    let content: Content =
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    if content.version != VERSION {
        return Err(damaged(format!(
            "version {} where this program reads version {VERSION}",
            content.version
        )));
    }
    let expected = digest(&content.state).map_err(|error| damaged(error.to_string()))?;
    if expected != content.sha256 {
        return Err(damaged(
            "its digest does not agree with its content".to_owned(),
        ));
    }
    Ok(content.state)
}

/// Writes what is kept of `dir`, whole or not at all.
pub fn store(dir: &Path, state: &State) -> Result<(), StateError> {
    let file = path(dir);
    let attempt = || -> io::Result<()> {
        let content = Content {
            version: VERSION,
            state: state.clone(),
            sha256: digest(state)?,
        };
        let mut text = serde_json::to_vec_pretty(&content)?;
        text.push(b'\n');
        let folder = dir.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let new = folder.join(format!("{FILE}.new"));
        let mut out = File::create(&new)?;
        out.write_all(&text)?;
        out.sync_all()?;
        fs::rename(&new, &file)?;
        File::open(&folder)?.sync_all()
    };
    attempt().map_err(|source| StateError::Unwritable {
        file: file.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("corten-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("folder");
        folder
    }

    fn holdings() -> State {
        let addresses = vec!["10.0.0.101".parse().expect("address")];
        let holding = Holding {
            addresses,
            pool: Some("ip-pool".to_owned()),
        };
        State {
            services: Holdings::from([("default/myapp-svc".to_owned(), holding)]),
            ..State::default()
        }
    }

    #[test]
    fn what_was_stored_is_loaded() {
        let dir = folder("state-round");
        assert_eq!(
            load(&dir).expect("no file is no holdings"),
            State::default()
        );
        store(&dir, &holdings()).expect("stored");
        assert_eq!(load(&dir).expect("loaded"), holdings());
        fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn a_damaged_file_is_refused_and_kept() {
        let dir = folder("state-damage");
        store(&dir, &holdings()).expect("stored");
        let good = fs::read_to_string(path(&dir)).expect("text");
        for (what, text) in [
            ("empty", String::new()),
            ("cut", good[..good.len() / 2].to_owned()),
            ("another address", good.replace("10.0.0.101", "10.0.0.102")),
            (
                "another version",
                good.replace("\"version\": 1", "\"version\": 9"),
            ),
        ] {
            fs::write(path(&dir), &text).expect("written");
            let error = load(&dir).expect_err(what);
            assert!(
                matches!(error, StateError::Damaged { .. }),
                "{what}: {error}"
            );
            assert_eq!(
                fs::read_to_string(path(&dir)).expect("text"),
                text,
                "{what}"
            );
        }
        fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn a_write_that_was_cut_off_leaves_the_old_form() {
        let dir = folder("state-cut");
        store(&dir, &holdings()).expect("stored");
        fs::write(dir.join(FOLDER).join("state.json.new"), b"{\"vers").expect("written");
        assert_eq!(load(&dir).expect("loaded"), holdings());
        store(&dir, &State::default()).expect("stored");
        assert_eq!(load(&dir).expect("loaded"), State::default());
        fs::remove_dir_all(dir).expect("removed");
    }
}
