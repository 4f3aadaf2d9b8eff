//! The pure crates stay pure, and no crate uses one above it.
//!
//! Clippy bans clocks, files and sockets of the standard library in the pure crates; this is
//! about what comes in through dependencies.

use crate::ci::{Verdict, verdict};
use crate::failure::Failure;
use crate::shell::{cargo, output};

/// Their trees must hold nothing of [`IMPURE`].
const PURE: [&str; 3] = ["api", "plan", "proto"];

/// Runtimes, system calls, and clients; a trailing `-` means all names that begin so.
const IMPURE: [&str; 26] = [
    "tokio",
    "tokio-",
    "async-std",
    "smol",
    "futures",
    "mio",
    "polling",
    "socket2",
    "libc",
    "rustix",
    "nix",
    "kube",
    "kube-",
    "k8s-openapi",
    "hyper",
    "hyper-",
    "reqwest",
    "axum",
    "rtnetlink",
    "netlink-",
    "getrandom",
    "rand",
    "chrono",
    "notify",
    "tempfile",
    "signal-hook",
];

/// Which crates of the workspace a crate may use, directly or not.
const MAY_USE: [(&str, &[&str]); 8] = [
    ("api", &[]),
    ("plan", &["api"]),
    ("proto", &[]),
    ("linux", &[]),
    ("dataplane", &["api", "plan", "linux"]),
    ("corten", &["api", "plan", "proto", "linux", "dataplane"]),
    (
        "lab",
        &["api", "plan", "proto", "linux", "dataplane", "corten"],
    ),
    ("xtask", &[]),
];

/// Runs the step.
pub(crate) fn check() -> Verdict {
    let mut findings = Vec::new();
    for (member, may_use) in MAY_USE {
        findings.extend(judge(member, may_use, &tree(member)?));
    }
    let good = format!(
        "{} are pure; every crate uses only those below it",
        PURE.join(", ")
    );
    verdict(&findings, good)
}

/// The names of all packages that `member` needs, itself first.
fn tree(member: &str) -> Result<String, Failure> {
    // One target for everyone: what a dependency needs differs between processors.
    let shape = ["tree", "--locked", "--edges", "normal", "--prefix", "none"];
    let mut command = cargo(shape);
    command.args(["--target", "x86_64-unknown-linux-gnu", "--package", member]);
    output(&mut command)
}

fn judge(member: &str, may_use: &[&str], tree: &str) -> Vec<String> {
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    let mut names: Vec<&str> = names
        .filter(|name| !name.is_empty() && *name != member)
        .collect();
    names.sort_unstable();
    names.dedup();
    let ours = |name: &str| MAY_USE.iter().any(|(member, _)| *member == name);
    let judge = |name: &str| {
        if PURE.contains(&member) && impure(name) {
            Some(format!("{member} is pure, but its tree holds {name}"))
        } else if ours(name) && !may_use.contains(&name) {
            Some(format!("{member} may not use {name}"))
        } else {
            None
        }
    };
    names.into_iter().filter_map(judge).collect()
}

fn impure(name: &str) -> bool {
    let matches = |banned: &&str| match banned.strip_suffix('-') {
        Some(_) => name.starts_with(banned),
        None => name == *banned,
    };
    IMPURE.iter().any(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "plan v0.1.0 (/somewhere/crates/plan)
api v0.1.0 (/somewhere/crates/api)
serde v1.0.228
serde_derive v1.0.228 (proc-macro)
sha2 v0.11.1
serde v1.0.228 (*)
";

    #[test]
    fn a_clean_tree_passes() {
        assert_eq!(judge("plan", &["api"], PLAN), [""; 0]);
    }

    #[test]
    fn impure_packages_are_named_once() {
        let tree =
            format!("{PLAN}tokio v1.48.0\ntokio-util v0.7.0\nlibc v0.2.177\nlibc v0.2.177 (*)\n");
        let findings = judge("plan", &["api"], &tree);
        assert_eq!(findings.len(), 3, "{findings:?}");
        assert!(findings[0].ends_with("libc"), "{findings:?}");
        assert!(
            judge("lab", &["api", "plan"], &tree).is_empty(),
            "lab is not pure"
        );
    }

    #[test]
    fn crates_above_are_refused() {
        let tree = format!("{PLAN}linux v0.1.0 (/somewhere/crates/linux)\n");
        assert_eq!(judge("plan", &["api"], &tree), ["plan may not use linux"]);
    }

    #[test]
    fn names_match_whole_or_by_prefix() {
        for name in ["tokio", "kube-client", "netlink-sys", "hyper-util"] {
            assert!(impure(name), "{name}");
        }
        for name in ["libcrux", "serde", "hyperfine", "kubers"] {
            assert!(!impure(name), "{name}");
        }
    }
}
