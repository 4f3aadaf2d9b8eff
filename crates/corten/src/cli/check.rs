//! `corten check`: the verdict of every object, offline.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::manifest::{self, Manifest, ObjectRef, Problem};
use crate::source::dir::is_manifest;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Manifests, or directories of them; objects are judged together, as a cluster would have
    /// them.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The namespace that configuration objects live in.
    #[arg(long, env = "METALLB_NAMESPACE", default_value = "metallb-system")]
    namespace: String,
    /// Say nothing of objects that are good.
    #[arg(long, short)]
    quiet: bool,
}

/// Exit code 0 when every object is good, 1 when not.
pub(super) fn main(options: &Options) -> ExitCode {
    let mut read = Read::default();
    for path in &options.files {
        read.path(path);
    }
    let judged = manifest::together(&read.manifests, &options.namespace);
    let mut problems = read.problems;
    problems.extend(judged.problems);
    problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    for problem in &problems {
        println!("{problem}");
    }
    for warning in &judged.warnings {
        println!("warning: {warning}");
    }
    if !options.quiet {
        for good in &judged.good {
            println!("{}: good", label(good));
        }
    }
    println!(
        "{} good, {} with problems{}",
        judged.good.len(),
        problems.len(),
        if judged.warnings.is_empty() {
            String::new()
        } else {
            format!(", {} warnings", judged.warnings.len())
        }
    );
    if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[derive(Default)]
struct Read {
    manifests: Vec<Manifest>,
    problems: Vec<Problem>,
}

impl Read {
    fn path(&mut self, path: &Path) {
        let unreadable = |error: std::io::Error| Problem {
            file: path.display().to_string(),
            line: 0,
            column: None,
            object: None,
            field: None,
            message: error.to_string(),
            remedy: "name a readable file or directory".to_owned(),
        };
        if path.is_dir() {
            let entries = match fs::read_dir(path) {
                Ok(entries) => entries,
                Err(error) => return self.problems.push(unreadable(error)),
            };
            let mut files: Vec<PathBuf> = entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| is_manifest(path))
                .collect();
            files.sort();
            if files.is_empty() {
                let error = std::io::Error::other("no *.yaml, *.yml or *.json in this directory");
                self.problems.push(unreadable(error));
            }
            for file in files {
                self.path(&file);
            }
            return;
        }
        match manifest::read(path) {
            Ok(parsed) => {
                self.manifests.extend(parsed.manifests);
                self.problems.extend(parsed.problems);
            }
            Err(error) => self.problems.push(unreadable(error)),
        }
    }
}

/// Where an object is, and which it is.
fn label(manifest: &Manifest) -> String {
    format!(
        "{}:{}: {}",
        manifest.file,
        manifest.at.line,
        ObjectRef::of(&manifest.object)
    )
}
