//! Interfaces that layer 2 never uses, by name: MetalLB's list, in MetalLB's form of a file
//! (`spec/metallb.md` §4.3). It is read once, at the start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use regex::RegexSet;
use serde::Deserialize;

use crate::manifest;

/// MetalLB's own list: what CNIs, container engines and virtual machines make.
const DEFAULT: [&str; 14] = [
    "^docker.*",
    "^cbr.*",
    "^dummy.*",
    "^virbr.*",
    "^lxcbr.*",
    "^veth.*",
    "^lo$",
    "^cali.*",
    "^tunl.*",
    "^flannel.*",
    "^kube-ipvs.*",
    "^cni.*",
    "^nodelocaldns.*",
    "^lxc.*",
];

/// Names that are excluded, as regular expressions; a name that one of them is found in is.
#[derive(Clone, Debug)]
pub struct Exclude(Arc<RegexSet>);

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExcludeError {
    /// The file.
    #[error("{file} cannot be read")]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The text is no YAML.
    #[error("{0}")]
    Text(Box<manifest::Problem>),
    /// It holds something else.
    #[error("{file}: it must have one key, announcedInterfacesToExclude, with a list of texts")]
    Form {
        /// Which.
        file: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// An expression.
    #[error("{file}: announcedInterfacesToExclude has a bad regular expression")]
    Expression {
        /// Which.
        file: PathBuf,
        /// Which one, and why.
        source: Box<regex::Error>,
    },
}

/// MetalLB's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "announcedInterfacesToExclude", default)]
    names: Vec<String>,
}

impl Default for Exclude {
    fn default() -> Self {
        Self(Arc::new(RegexSet::new(DEFAULT).unwrap_or_default()))
    }
}

impl Exclude {
    /// Nothing.
    pub fn nothing() -> Self {
        Self(Arc::default())
    }

    /// The list in `file`; where there is none, MetalLB's own.
    ///
    /// # Errors
    /// The file cannot be read or does not hold such a list.
    pub fn read(file: &Path) -> Result<Self, ExcludeError> {
        let text = match std::fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => {
                let file = file.to_owned();
                return Err(ExcludeError::Read { file, source });
            }
        };
        let name = file.display().to_string();
        let value = manifest::value(&name, &text).map_err(ExcludeError::Text)?;
        let File { names } = serde_json::from_value(value).map_err(|source| {
            let file = file.to_owned();
            ExcludeError::Form { file, source }
        })?;
        let set = RegexSet::new(&names).map_err(|source| ExcludeError::Expression {
            file: file.to_owned(),
            source: Box::new(source),
        })?;
        Ok(Self(Arc::new(set)))
    }

    /// Whether the interface `name` is excluded.
    pub fn has(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list in a file with this text, in a folder of the test's own.
    fn of(test: &str, text: &str) -> Result<Exclude, String> {
        let folder = std::env::temp_dir().join(format!("exclude-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("excludel2.yaml");
        std::fs::write(&file, text).expect("written");
        let read = Exclude::read(&file).map_err(|error| crate::cli::chain(&error));
        std::fs::remove_dir_all(&folder).expect("removed");
        read
    }

    #[test]
    fn without_a_file_metallb_s_list_holds() {
        let list = Exclude::read(Path::new("/no/such/file")).expect("the default");
        assert_eq!(list.0.len(), DEFAULT.len());
        for name in ["docker0", "lo", "cali1f", "lxc0a", "vethabc", "kube-ipvs0"] {
            assert!(list.has(name), "{name}");
        }
        for name in ["eth0", "lolo", "ens3", "bond0", "br0", "mycali0"] {
            assert!(!list.has(name), "{name}");
        }
    }

    #[test]
    fn a_file_replaces_it() {
        let text = "announcedInterfacesToExclude: [\"^eth[01]$\", wan]\n";
        let list = of("replaces", text).expect("good");
        for (name, excluded) in [
            ("eth0", true),
            ("eth2", false),
            ("mywan0", true),
            ("docker0", false),
        ] {
            assert_eq!(list.has(name), excluded, "{name}");
        }
        let none = of("none", "announcedInterfacesToExclude: []\n").expect("good");
        assert!(!none.has("docker0") && !Exclude::nothing().has("docker0"));
        let empty = of("empty", "{}\n").expect("good");
        assert!(!empty.has("docker0"), "as MetalLB reads it");
    }

    #[test]
    fn a_bad_file_is_named_with_its_fault() {
        for (test, text, part) in [
            (
                "regex",
                "announcedInterfacesToExclude: [\"(\"]\n",
                "unclosed group",
            ),
            ("key", "interfaces: [a]\n", "unknown field `interfaces`"),
            (
                "list",
                "announcedInterfacesToExclude: a\n",
                "expected a sequence",
            ),
            (
                "yaml",
                "announcedInterfacesToExclude: [\n",
                "excludel2.yaml:",
            ),
        ] {
            let error = of(test, text).expect_err(test);
            assert!(error.contains("excludel2.yaml"), "{error}");
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }
}
