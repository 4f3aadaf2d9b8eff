//! `unsafe` is in crates/linux alone: a lint says so, and this sees that nobody lifts the lint.

use std::fs;

use crate::ci::{Verdict, verdict};
use crate::failure::failed;
use crate::shell::root;
use crate::source::{Source, lines_with, members};

/// The one crate that may.
const ALLOWED: &str = "linux";

/// Runs the step.
pub(crate) fn check(sources: &[Source]) -> Verdict {
    let mut findings = scan(sources);
    let manifests = members().and_then(|members| {
        let read = |member: std::path::PathBuf| {
            let name = member.file_name().unwrap_or_default();
            let name = name.to_string_lossy().into_owned();
            fs::read_to_string(member.join("Cargo.toml")).map(|text| (name, text))
        };
        members.into_iter().map(read).collect::<Result<Vec<_>, _>>()
    });
    let workspace = fs::read_to_string(root().join("Cargo.toml"));
    let (manifests, workspace) = match (manifests, workspace) {
        (Ok(manifests), Ok(workspace)) => (manifests, workspace),
        (Err(error), _) | (_, Err(error)) => {
            return failed(format!("cannot read the manifests: {error}"));
        }
    };
    findings.extend(lints(&workspace, &manifests));
    let count = sources.len();
    verdict(
        &findings,
        format!("none outside crates/{ALLOWED} in {count} files"),
    )
}

fn scan(sources: &[Source]) -> Vec<String> {
    let own = format!("crates/{ALLOWED}/");
    let mut findings = Vec::new();
    for source in sources
        .iter()
        .filter(|source| !source.path.starts_with(&own))
    {
        for line in lines_with(&source.code, "unsafe") {
            findings.push(format!("{}:{line}: `unsafe`", source.path));
        }
        // The lint may be made stricter, not lifted.
        let lines: Vec<&str> = source.code.lines().collect();
        let strict = |line: &str| line.contains("forbid(") || line.contains("deny(");
        for line in lines_with(&source.code, "unsafe_code") {
            if !lines.get(line - 1).copied().is_some_and(strict) {
                findings.push(format!(
                    "{}:{line}: `unsafe_code` is not denied",
                    source.path
                ));
            }
        }
    }
    findings
}

/// The lint is set for the workspace, and every other member takes the workspace's lints.
fn lints(workspace: &str, members: &[(String, String)]) -> Vec<String> {
    let mut findings = Vec::new();
    let level = value(workspace, "[workspace.lints.rust]", "unsafe_code");
    if !matches!(level, Some("deny" | "forbid")) {
        findings.push("Cargo.toml: `unsafe_code` is not denied in [workspace.lints.rust]".into());
    }
    for (name, manifest) in members.iter().filter(|(name, _)| name != ALLOWED) {
        if value(manifest, "[lints]", "workspace") != Some("true") {
            findings.push(format!(
                "{name}: Cargo.toml does not say `lints.workspace = true`"
            ));
        }
    }
    findings
}

/// The value of a key in a section of a TOML file written in the usual way.
fn value<'a>(toml: &'a str, section: &str, key: &str) -> Option<&'a str> {
    let lines = toml.lines().map(str::trim);
    let mut lines = lines.skip_while(|line| *line != section).skip(1);
    let found = lines
        .by_ref()
        .take_while(|line| !line.starts_with('['))
        .find_map(|line| line.split_once('=').filter(|(name, _)| name.trim() == key))?;
    let value = found.1.split('#').next()?;
    Some(value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_is_found_outside_its_crate() {
        let sources = [
            Source::new("crates/linux/src/a.rs", "unsafe { a() }"),
            Source::new("crates/plan/src/a.rs", "// unsafe\nunsafe { a() }"),
            Source::new("crates/plan/src/b.rs", "#![allow(unsafe_code)]"),
            Source::new("crates/plan/src/c.rs", "let a = \"unsafe\";"),
            Source::new("crates/plan/src/d.rs", "#![forbid(unsafe_code)]"),
        ];
        let want = [
            "crates/plan/src/a.rs:2: `unsafe`",
            "crates/plan/src/b.rs:1: `unsafe_code` is not denied",
        ];
        assert_eq!(scan(&sources), want);
    }

    #[test]
    fn lints_must_be_set_and_taken_over() {
        let workspace = "[workspace.lints.rust]\nunsafe_code = \"deny\" # why\n";
        let good = "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n\n[dependencies]\n";
        let member = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(
            lints(workspace, &[member("a", good), member("linux", "")]),
            [""; 0]
        );

        let own = "[lints.rust]\nunsafe_code = \"allow\"\n[dependencies]\nworkspace = true\n";
        assert_eq!(lints(workspace, &[member("b", own)]).len(), 1);
        let lax = "[workspace.lints.rust]\nunsafe_code = \"warn\"\n";
        assert_eq!(lints(lax, &[]).len(), 1);
    }
}
