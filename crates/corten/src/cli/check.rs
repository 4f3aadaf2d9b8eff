//! `corten check`: the verdict of every object, offline.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use plan::config::{self, Objects, Verdict};

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
    let mut judged = Judged::default();
    for path in &options.files {
        judged.read(path);
    }
    judged.judge(&options.namespace);
    judged
        .problems
        .sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    for problem in &judged.problems {
        println!("{problem}");
    }
    for warning in &judged.warnings {
        println!("{warning}");
    }
    if !options.quiet {
        for good in &judged.good {
            println!("{good}");
        }
    }
    println!(
        "{} good, {} with problems{}",
        judged.good.len(),
        judged.problems.len(),
        if judged.warnings.is_empty() {
            String::new()
        } else {
            format!(", {} warnings", judged.warnings.len())
        }
    );
    if judged.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[derive(Default)]
struct Judged {
    manifests: Vec<Manifest>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
    good: Vec<String>,
}

impl Judged {
    fn read(&mut self, path: &Path) {
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
                self.read(&file);
            }
            return;
        }
        match fs::read(path) {
            Ok(bytes) => {
                let parsed = manifest::parse(&path.display().to_string(), &bytes);
                self.manifests.extend(parsed.manifests);
                self.problems.extend(parsed.problems);
            }
            Err(error) => self.problems.push(unreadable(error)),
        }
    }

    /// Judges the configuration objects together; every other object was judged when it was read.
    fn judge(&mut self, namespace: &str) {
        let mut objects = Objects::new();
        let mut places = BTreeMap::new();
        for manifest in &self.manifests {
            let Ok(object) = config::Object::try_from(manifest.object.clone()) else {
                self.good.push(format!("{}: good", label(manifest)));
                continue;
            };
            let reference = object.reference();
            if places.insert(reference.clone(), manifest).is_some() {
                self.problems.push(problem(
                    manifest,
                    "metadata.name",
                    "the object is defined twice",
                    "leave out one of the two",
                ));
            }
            objects.insert(reference, Arc::new(object));
        }
        let compiled = config::compile(&objects, &Objects::new(), namespace);
        for (reference, verdict) in &compiled.verdicts {
            let Some(manifest) = places.get(reference) else {
                continue;
            };
            let problems = verdict.findings().iter().map(|finding| {
                problem(manifest, &finding.field, &finding.message, &finding.remedy)
            });
            match verdict {
                Verdict::Good => self.good.push(format!("{}: good", label(manifest))),
                Verdict::Warned(_) => {
                    self.warnings
                        .extend(problems.map(|problem| format!("warning: {problem}")));
                    self.good.push(format!("{}: good", label(manifest)));
                }
                Verdict::Bad { .. } => self.problems.extend(problems),
            }
        }
    }
}

/// Where an object is, and which it is.
fn label(manifest: &Manifest) -> String {
    format!(
        "{}:{}: {}",
        manifest.file,
        manifest.at.line,
        reference(manifest)
    )
}

fn reference(manifest: &Manifest) -> ObjectRef {
    let object = &manifest.object;
    ObjectRef {
        kind: object.kind().to_owned(),
        namespace: object.namespace().to_owned(),
        name: object.name().to_owned(),
        ..ObjectRef::default()
    }
}

/// A finding at the line of its field.
fn problem(manifest: &Manifest, field: &str, message: &str, remedy: &str) -> Problem {
    let at = manifest.position(field);
    Problem {
        file: manifest.file.clone(),
        line: at.line,
        column: Some(at.column),
        object: Some(reference(manifest)),
        field: Some(field.to_owned()),
        message: message.to_owned(),
        remedy: remedy.to_owned(),
    }
}
