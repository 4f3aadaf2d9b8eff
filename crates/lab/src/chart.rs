//! The chart of `deploy/chart`, rendered by helm, and the plain YAML of `deploy/` that is made
//! from it: one source of truth.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::controlplane::BuildError;
use crate::controlplane::build::{Program, or_skip};

/// Helm, as its module has it.
const HELM: Program = Program {
    name: "helm",
    module: "helm",
    title: "helm",
    takes: "3 minutes",
    package: "helm.sh/helm/v4/cmd/helm",
    sources: &["go.mod", "go.sum"],
    linker_flags: || "-s -w".to_owned(),
};

/// Why there is no rendering.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// helm does not run.
    #[error("cannot run {}", helm.display())]
    Run {
        /// The program.
        helm: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// helm refuses the values, or the chart is bad.
    #[error("helm refuses {}:\n{said}", values.join(" "))]
    Refused {
        /// The values that were given.
        values: Vec<String>,
        /// Its words.
        said: String,
    },
}

/// The chart.
#[derive(Clone, Debug)]
pub struct Chart {
    helm: PathBuf,
}

/// A file of `deploy/` that is made from the chart.
struct Part {
    file: &'static str,
    heading: &'static str,
    /// None: all of them.
    templates: &'static [&'static str],
}

const PARTS: [Part; 3] = [
    Part {
        file: "corten.yaml",
        heading: "All of Corten for a cluster, beside kube-proxy:\n#\n\
                  #   kubectl apply -f deploy/corten.yaml",
        templates: &[],
    },
    Part {
        file: "rbac.yaml",
        heading: "The accounts of Corten's two processes, and what each may do: nothing else. The\n\
                  # end-to-end tests run with exactly these rights (crates/lab/tests/cluster).",
        templates: &[
            "namespace",
            "serviceaccounts",
            "rbac-controller",
            "rbac-agent",
            "rbac-metrics",
        ],
    },
    Part {
        file: "webhook.yaml",
        heading: "The webhook in front of the configuration, and what the controller may do for it.",
        templates: &["webhook"],
    },
];

/// The namespace of the plain YAML.
pub const NAMESPACE: &str = "metallb-system";

impl Chart {
    /// With a helm that is built first if need be.
    ///
    /// # Errors
    /// As [`crate::controlplane::ensure_built`].
    pub fn find() -> Result<Self, BuildError> {
        HELM.ensure_built().map(|helm| Self { helm })
    }

    /// For a test that needs it, or `None` when the test is to be skipped, which it says.
    ///
    /// # Panics
    /// As [`crate::controlplane::binary_or_skip`].
    #[must_use]
    pub fn or_skip(test: &str) -> Option<Self> {
        or_skip(test, Self::find())
    }

    /// helm itself, to install the chart of [`deploy`] with it.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.helm
    }

    /// All objects, with these values (`KEY=VALUE`, as `helm --set` takes them).
    ///
    /// # Errors
    /// See [`ChartError`].
    pub fn render(&self, values: &[&str]) -> Result<String, ChartError> {
        self.template(&[], values)
    }

    /// The files of `deploy/` that are made from the chart: name and content.
    ///
    /// # Errors
    /// See [`ChartError`].
    pub fn files(&self) -> Result<Vec<(&'static str, String)>, ChartError> {
        let file = |part: &Part| {
            let Part {
                file,
                heading,
                templates,
            } = part;
            let yaml = self.template(templates, &["namespace.create=true"])?;
            let made = "Made from deploy/chart by `cargo xtask manifests`: change it there.";
            Ok((*file, format!("# {heading}\n#\n# {made}\n{yaml}")))
        };
        PARTS.iter().map(file).collect()
    }

    fn template(&self, templates: &[&str], values: &[&str]) -> Result<String, ChartError> {
        let mut command = Command::new(&self.helm);
        command
            .args(["template", "corten"])
            .arg(deploy().join("chart"))
            .args(["--namespace", NAMESPACE, "--kube-version", "1.36.0"]);
        for template in templates {
            command.args(["--show-only", &format!("templates/{template}.yaml")]);
        }
        for value in values {
            command.args(["--set", value]);
        }
        let output = command
            .stdin(Stdio::null())
            .output()
            .map_err(|source| ChartError::Run {
                helm: self.helm.clone(),
                source,
            })?;
        if !output.status.success() {
            return Err(ChartError::Refused {
                values: values.iter().map(ToString::to_string).collect(),
                said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        Ok(tidy(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// Without the blank lines that helm leaves at the end of documents.
fn tidy(yaml: &str) -> String {
    let mut text = String::with_capacity(yaml.len());
    let mut blank = 0;
    for line in yaml.lines() {
        if line.is_empty() {
            blank += 1;
            continue;
        }
        if line != "---" {
            text.extend(std::iter::repeat_n('\n', blank));
        }
        blank = 0;
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// The folder of the published manifests.
#[must_use]
pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

#[cfg(test)]
mod tests {
    #[test]
    fn blank_lines_at_the_end_of_documents_go() {
        let tidy = super::tidy("---\na: |\n  x\n\n  y\n\n\n---\nb: 1\n\n");
        assert_eq!(tidy, "---\na: |\n  x\n\n  y\n---\nb: 1\n");
    }
}
