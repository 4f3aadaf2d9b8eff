//! The program as it is in the image: static, and the same wherever and whenever it is built from the
//! same sources with the same compiler.

use std::fs;
use std::path::{Path, PathBuf};

use super::cannot;
use crate::failure::Failure;
use crate::shell::{cargo, output, program, root, run, target, which};

/// A processor that images are made for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Architecture {
    /// As OCI names it.
    pub(super) name: &'static str,
    /// As Rust names it.
    triple: &'static str,
    /// `e_machine` in its programs.
    pub(super) machine: u16,
    /// On another processor: the C compiler and linker for it, and the Debian packages with them and
    /// with the C library.
    cross: [&'static str; 3],
}

pub(super) const ARCHITECTURES: [Architecture; 2] = [
    Architecture {
        name: "amd64",
        triple: "x86_64-unknown-linux-gnu",
        machine: 62,
        cross: [
            "x86_64-linux-gnu-gcc",
            "gcc-x86-64-linux-gnu",
            "libc6-dev-amd64-cross",
        ],
    },
    Architecture {
        name: "arm64",
        triple: "aarch64-unknown-linux-gnu",
        machine: 183,
        cross: [
            "aarch64-linux-gnu-gcc",
            "gcc-aarch64-linux-gnu",
            "libc6-dev-arm64-cross",
        ],
    },
];

pub(super) fn host() -> &'static Architecture {
    let [amd64, arm64] = &ARCHITECTURES;
    if cfg!(target_arch = "aarch64") {
        arm64
    } else {
        amd64
    }
}

/// What is missing to build for a processor.
pub(super) fn obstacle(architecture: &Architecture) -> Option<String> {
    let triple = architecture.triple;
    let folder = ["--print", "target-libdir", "--target", triple];
    let library = output(program("rustc").args(folder)).unwrap_or_default();
    if !Path::new(library.trim()).is_dir() {
        return Some(format!(
            "Rust's library for it is missing: `rustup target add {triple}`"
        ));
    }
    let [compiler, package, libc] = architecture.cross;
    (architecture != host() && which(compiler).is_none())
        .then(|| format!("{compiler} is missing: `apt-get install {package} {libc}`"))
}

/// What is beside the sources.
const NO_SOURCES: [&str; 2] = ["target", ".git"];

/// Where a build is made. Nothing of the program says so.
#[derive(Debug)]
pub(super) struct Place {
    source: PathBuf,
    target: PathBuf,
    cargo_home: PathBuf,
}

impl Place {
    pub(super) fn here() -> Self {
        let home = std::env::var_os("HOME")
            .map(PathBuf::from)
            .unwrap_or_default();
        let cargo_home = std::env::var_os("CARGO_HOME");
        Self {
            source: root(),
            target: target(),
            cargo_home: cargo_home.map_or_else(|| home.join(".cargo"), PathBuf::from),
        }
    }

    /// The same sources below another folder, with a target folder and a home of Cargo's of their
    /// own; what Cargo has downloaded is shared.
    pub(super) fn below(folder: &Path) -> Result<Self, Failure> {
        let here = Self::here();
        let place = Self {
            source: folder.join("other/sources"),
            target: folder.join("built"),
            cargo_home: folder.join("home"),
        };
        copy(&here.source, &place.source, &NO_SOURCES)?;
        let home = &place.cargo_home;
        fs::create_dir_all(home).map_err(cannot("make", home))?;
        for entry in fs::read_dir(&here.cargo_home).map_err(cannot("read", &here.cargo_home))? {
            let entry = entry.map_err(cannot("read", &here.cargo_home))?;
            let link = home.join(entry.file_name());
            std::os::unix::fs::symlink(entry.path(), &link).map_err(cannot("make", &link))?;
        }
        Ok(place)
    }

    /// A file of these sources that the other place's have not, or have otherwise.
    pub(super) fn differs_from(&self, other: &Self) -> Result<Option<PathBuf>, Failure> {
        differs(&self.source, &other.source)
    }

    /// What the compilers are to write instead of this place's paths: what was, and what is to be.
    /// The last that fits holds.
    fn names(&self) -> [(&Path, &'static str); 3] {
        [
            (&self.cargo_home, "/cargo"),
            (&self.source, "/corten"),
            (&self.target, "/corten/target"),
        ]
    }

    /// Static, and without this place's names.
    fn rust_flags(&self) -> String {
        let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
        for (path, name) in self.names() {
            flags.push(format!("--remap-path-prefix={}={name}", path.display()));
        }
        flags.join("\x1f")
    }

    fn c_flags(&self) -> String {
        let flag =
            |(path, name): (&Path, &str)| format!("-ffile-prefix-map={}={name}", path.display());
        self.names().map(flag).join(" ")
    }

    /// Builds the program; gives its path.
    pub(super) fn build(
        &self,
        architecture: &Architecture,
        profile: &str,
    ) -> Result<PathBuf, Failure> {
        let triple = architecture.triple;
        let variable = triple.replace('-', "_");
        let mut command = cargo(["build", "--locked", "-p", "corten", "--bin", "corten"]);
        command
            .args(["--profile", profile, "--target", triple])
            .current_dir(&self.source)
            .env("CARGO_HOME", &self.cargo_home)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_ENCODED_RUSTFLAGS", self.rust_flags())
            .env(format!("CFLAGS_{variable}"), self.c_flags());
        if architecture != host() {
            let [compiler, ..] = architecture.cross;
            let linker = format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase());
            command.env(linker, compiler);
            command.env(format!("CC_{variable}"), compiler);
        }
        run(&mut command)?;
        // Cargo's one exception.
        let folder = if profile == "dev" { "debug" } else { profile };
        Ok(self.target.join(triple).join(folder).join("corten"))
    }
}

/// A file of the copy that is not as it is in the original. What came to that alone is no part of
/// any build of the copy.
fn differs(copy: &Path, original: &Path) -> Result<Option<PathBuf>, Failure> {
    for entry in fs::read_dir(copy).map_err(cannot("read", copy))? {
        let entry = entry.map_err(cannot("read", copy))?;
        let (path, origin) = (entry.path(), original.join(entry.file_name()));
        let kind = entry.file_type().map_err(cannot("look at", &path))?;
        let found = if kind.is_dir() {
            differs(&path, &origin)?
        } else {
            let mine = fs::read(&path).map_err(cannot("read", &path))?;
            let same = fs::read(&origin).is_ok_and(|theirs| theirs == mine);
            (!same).then_some(origin)
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Copies a folder's files and folders, but for those of these names.
fn copy(from: &Path, to: &Path, but: &[&str]) -> Result<(), Failure> {
    fs::create_dir_all(to).map_err(cannot("make", to))?;
    for entry in fs::read_dir(from).map_err(cannot("read", from))? {
        let entry = entry.map_err(cannot("read", from))?;
        let (path, name) = (entry.path(), entry.file_name());
        if name.to_str().is_some_and(|name| but.contains(&name)) {
            continue;
        }
        let kind = entry.file_type().map_err(cannot("look at", &path))?;
        if kind.is_dir() {
            copy(&path, &to.join(name), but)?;
        } else if kind.is_file() {
            fs::copy(&path, to.join(name)).map_err(cannot("copy", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_place_has_the_sources_and_no_name_of_its_own() {
        let folder = std::env::temp_dir().join(format!("xtask-place-{}", std::process::id()));
        let (from, to) = (folder.join("from"), folder.join("to"));
        fs::create_dir_all(from.join("crates/target")).expect("folders");
        fs::create_dir_all(from.join("target")).expect("folders");
        fs::write(from.join("crates/lib.rs"), "//!").expect("written");
        copy(&from, &to, &["target"]).expect("copied");
        assert_eq!(
            fs::read_to_string(to.join("crates/lib.rs")).expect("there"),
            "//!"
        );
        assert!(!to.join("target").exists() && !to.join("crates/target").exists());
        assert_eq!(differs(&to, &from).expect("read"), None);
        let changed = from.join("crates/lib.rs");
        fs::write(&changed, "//! !").expect("written");
        assert_eq!(differs(&to, &from).expect("read"), Some(changed.clone()));
        fs::remove_file(&changed).expect("removed");
        assert_eq!(differs(&to, &from).expect("read"), Some(changed));
        fs::remove_dir_all(&folder).expect("removed");

        let place = Place {
            source: "/a/b".into(),
            target: "/a/b/target".into(),
            cargo_home: "/home/me".into(),
        };
        let flags = place.rust_flags();
        let flags: Vec<&str> = flags.split('\x1f').collect();
        assert_eq!(
            flags[1..],
            [
                "--remap-path-prefix=/home/me=/cargo",
                "--remap-path-prefix=/a/b=/corten",
                "--remap-path-prefix=/a/b/target=/corten/target",
            ]
        );
        assert!(place.c_flags().contains("-ffile-prefix-map=/a/b=/corten "));
    }
}
