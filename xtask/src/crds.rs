//! `cargo xtask crds`: the CRDs' YAML, written from the types.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::command::no_arguments;
use crate::failure::{Failure, failed};
use crate::shell::{cargo, root, run as run_it, target};

const FOLDER: &str = "deploy/crds";

/// Runs the command.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    no_arguments("crds", arguments)?;
    write(&root().join(FOLDER))
}

/// Fails when `deploy/crds` is not what the types say.
pub(crate) fn check() -> Result<String, Failure> {
    let fresh = target().join("xtask/crds");
    // Files of kinds that are no more would stay.
    let _ = fs::remove_dir_all(&fresh);
    write(&fresh)?;
    let kept = root().join(FOLDER);
    match (read(&fresh), read(&kept)) {
        (Ok(want), Ok(have)) => compare(&want, &have),
        (Err(error), _) | (_, Err(error)) => failed(format!("cannot read the CRDs: {error}")),
    }
}

fn write(folder: &Path) -> Result<(), Failure> {
    let features = ["run", "-q", "-p", "api", "--features", "crds"];
    let example = ["--example", "crds", "--", "--out"];
    run_it(cargo(features).args(example).arg(folder))
}

type Files = BTreeMap<String, String>;

fn read(folder: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.insert(name, fs::read_to_string(entry.path())?);
    }
    Ok(files)
}

fn compare(want: &Files, have: &Files) -> Result<String, Failure> {
    let names = want.keys().chain(have.keys());
    let mut stale: Vec<&str> = names
        .filter(|name| want.get(*name) != have.get(*name))
        .map(String::as_str)
        .collect();
    stale.sort_unstable();
    stale.dedup();
    if stale.is_empty() {
        return Ok(format!("{} files", want.len()));
    }
    failed(format!(
        "{FOLDER} is not what the types say ({}): run `cargo xtask crds`",
        stale.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files<const N: usize>(files: [(&str, &str); N]) -> Files {
        files.map(|(name, text)| (name.into(), text.into())).into()
    }

    #[test]
    fn changed_missing_and_left_over_files_are_named() {
        let want = files([("a", "1"), ("b", "2"), ("c", "3")]);
        assert_eq!(compare(&want, &want), Ok("3 files".into()));
        let have = files([("a", "1"), ("b", "x"), ("d", "4")]);
        let error = compare(&want, &have).expect_err("stale").to_string();
        assert!(error.contains("(b, c, d)"), "{error}");
    }
}
