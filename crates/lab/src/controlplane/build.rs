//! Finds or builds the Go programs that tests run (modules in `lab/`) and
//! keeps them under the repository's `target/`.
//!
//! The build downloads Go modules, so it belongs before a sandbox is entered:
//! inside there is no network. Of several test processes one builds and the
//! others wait for it (a file lock).

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

/// What the control plane's version commands and `/version` report.
const VERSION: &str = "v1.36.3";

/// A program in Go, whose binary is `target/NAME/NAME`.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// The module's folder in `lab/`.
    pub(crate) module: &'static str,
    /// What a person calls it.
    pub(crate) title: &'static str,
    /// How long a build from empty caches takes.
    pub(crate) takes: &'static str,
    /// What `go build` builds.
    pub(crate) package: &'static str,
    /// The files in its folder that shape the binary.
    pub(crate) sources: &'static [&'static str],
    pub(crate) linker_flags: fn() -> String,
}

impl Program {
    /// As [`ensure_built`].
    pub(crate) fn ensure_built(&'static self) -> Result<PathBuf, BuildError> {
        Build::of(self).ensure()
    }
}

/// Kubernetes' control plane.
const CONTROL_PLANE: Program = Program {
    name: "controlplane",
    module: "controlplane",
    title: "the Kubernetes control plane",
    takes: "7 minutes",
    package: ".",
    sources: &["go.mod", "go.sum", "main.go"],
    linker_flags: version_flags,
};

/// MetalLB's controller, as its module has it.
const METALLB: Program = Program {
    name: "metallb",
    module: "metallb",
    title: "MetalLB's controller",
    takes: "3 minutes",
    package: "go.universe.tf/metallb/controller",
    sources: &["go.mod", "go.sum"],
    linker_flags: || "-s -w".to_owned(),
};

/// How often a running build says how far it is.
const PROGRESS: Duration = Duration::from_secs(15);

/// Why there is no binary.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A tool is missing: whoever needs the control plane is skipped.
    #[error("{program} cannot be built here: {reason}")]
    Missing {
        /// What cannot be built.
        program: &'static str,
        /// What is missing and which version is wanted.
        reason: String,
    },
    /// Go ran and failed.
    #[error("`go build` of {program} failed ({status}):\n{output}")]
    Failed {
        /// What was built.
        program: &'static str,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The end of what it printed.
        output: String,
    },
    /// A file of the build could not be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Path of the control plane's binary, which is built first if it does not
/// exist or its sources or the Go version have changed.
///
/// Says on standard error when it builds, and how far it is.
///
/// # Errors
/// [`BuildError::Missing`] without Go of the version that `go.mod` asks for
/// and without a binary of these sources; otherwise what failed.
pub fn ensure_built() -> Result<PathBuf, BuildError> {
    CONTROL_PLANE.ensure_built()
}

/// The same for MetalLB's controller, which the differential test runs beside Corten's.
///
/// # Errors
/// As [`ensure_built`].
pub fn ensure_metallb_built() -> Result<PathBuf, BuildError> {
    METALLB.ensure_built()
}

/// The binary for a test that needs it, or `None` when the test is to be
/// skipped: then the line `skipped: lab TEST: REASON` is on standard error,
/// past the test runner's capture. Ask before [`crate::run`]:
///
/// ```no_run
/// # use lab::controlplane::{ControlPlane, binary_or_skip};
/// #[test]
/// fn it_works() {
///     let Some(binary) = binary_or_skip("it_works") else { return };
///     lab::run("it_works", async |lab| {
///         let host = lab.host("api").await?;
///         lab.segment("lan").await?.attach(&host, &["10.0.0.5/24"]).await?;
///         let plane = ControlPlane::start(&binary, &lab, &host, host.address(false)?).await?;
///         Ok(())
///     });
/// }
/// ```
///
/// # Panics
/// When the build fails, and with `CI=true` also where it would skip.
#[must_use]
pub fn binary_or_skip(test: &str) -> Option<PathBuf> {
    or_skip(test, ensure_built())
}

pub(crate) fn or_skip<T>(test: &str, built: Result<T, BuildError>) -> Option<T> {
    match built {
        Ok(built) => Some(built),
        Err(missing @ BuildError::Missing { .. }) => {
            let ci = std::env::var("CI").as_deref() == Ok("true");
            assert!(!ci, "{test} may not be skipped with CI=true: {missing}");
            let line = format!("skipped: lab {test}: {missing}\n");
            let _ = io::stderr().write_all(line.as_bytes());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A folder in the repository's `target/`: whoever builds elsewhere finds the same programs.
pub(crate) fn target(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join("target").join(name)
}

/// Where a build reads and writes; a value so that tests can have their own.
struct Build {
    program: &'static Program,
    sources: PathBuf,
    target: PathBuf,
    go: PathBuf,
    /// Takes the lines that tell how far a build is.
    say: fn(&str),
}

impl Build {
    fn of(program: &'static Program) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        Self {
            program,
            sources: root.join("lab").join(program.module),
            target: target(program.name),
            go: "go".into(),
            say,
        }
    }

    fn ensure(&self) -> Result<PathBuf, BuildError> {
        fs::create_dir_all(&self.target).map_err(at(&self.target))?;
        let target = self.target.canonicalize().map_err(at(&self.target))?;
        let lock = target.join("lock");
        let _held = File::create(&lock)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(at(&lock))?;

        let (binary, key) = (target.join(self.program.name), target.join("key"));
        let sources = self.digest()?;
        let go = self.go_version();
        let kept = fs::read_to_string(&key).unwrap_or_default();
        let kept = kept.trim_end().split_once(' ');
        if let Some((kept_sources, kept_go)) = kept
            && kept_sources == sources
            // Without Go there is nothing better than what these sources gave.
            && go.as_ref().map_or(true, |go| go == kept_go)
            && binary.is_file()
        {
            return Ok(binary);
        }

        let go = go.map_err(|reason| BuildError::Missing {
            program: self.program.title,
            reason,
        })?;
        let new = target.join(format!("{}.new", self.program.name));
        self.build(&new)?;
        // The key goes first and comes last: killed in between, it is built again.
        match fs::remove_file(&key) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&key)(error)),
            _ => {}
        }
        fs::rename(&new, &binary).map_err(at(&binary))?;
        fs::write(&key, format!("{sources} {go}\n")).map_err(at(&key))?;
        Ok(binary)
    }

    /// Digest of all that shapes the binary but the Go version.
    fn digest(&self) -> Result<String, BuildError> {
        let mut hash = Sha256::new();
        for name in self.program.sources {
            let path = self.sources.join(name);
            let content = fs::read(&path).map_err(at(&path))?;
            hash.update(format!("{name} {}\n", content.len()));
            hash.update(content);
        }
        hash.update((self.program.linker_flags)());
        Ok(hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect())
    }

    /// The Go that would build, or why none can.
    fn go_version(&self) -> Result<String, String> {
        let manifest = self.sources.join("go.mod");
        let manifest = fs::read_to_string(manifest).unwrap_or_default();
        let wanted = manifest.lines().find_map(|line| line.strip_prefix("go "));
        let wanted = wanted.unwrap_or_default().trim();
        // In the module's folder, so that Go may choose another toolchain.
        let output = Command::new(&self.go)
            .args(["env", "GOVERSION"])
            .current_dir(&self.sources)
            .output()
            .map_err(|error| {
                format!("Go {wanted} or later is needed; `go` does not run: {error}")
            })?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let found = version.strip_prefix("go").and_then(release);
        if output.status.success() && found.is_some() && found >= release(wanted) {
            return Ok(version);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!(
            "Go {wanted} or later is needed; `go env GOVERSION` says {version:?} {}",
            said.trim()
        ))
    }

    fn build(&self, output: &Path) -> Result<(), BuildError> {
        let Program { title, takes, .. } = self.program;
        (self.say)(&format!("building {title}: once, about {takes} on 2 cores"));
        let started = Instant::now();
        let mut go = Command::new(&self.go)
            .args(["build", "-v", "-trimpath", "-buildvcs=false", "-ldflags"])
            .arg((self.program.linker_flags)())
            .arg("-o")
            .arg(output)
            .arg(self.program.package)
            .env("CGO_ENABLED", "0")
            .current_dir(&self.sources)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(at(&self.go))?;
        let mut lines = Vec::new();
        let mut next = PROGRESS;
        // `-v` names each package as it is compiled, one a line.
        if let Some(stderr) = go.stderr.take() {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.push(line);
                if started.elapsed() >= next {
                    (self.say)(&format!(
                        "  {} packages, {} s",
                        lines.len(),
                        started.elapsed().as_secs()
                    ));
                    next = started.elapsed() + PROGRESS;
                }
            }
        }
        let status = go.wait().map_err(at(&self.go))?;
        if !status.success() {
            let end = lines.len().saturating_sub(20);
            return Err(BuildError::Failed {
                program: self.program.name,
                status,
                output: lines.split_off(end).join("\n"),
            });
        }
        (self.say)(&format!("  built in {} s", started.elapsed().as_secs()));
        Ok(())
    }
}

fn version_flags() -> String {
    let package = "k8s.io/component-base/version";
    let (major, minor) = ("1", "36");
    format!(
        "-s -w -X {package}.gitVersion={VERSION} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    )
}

/// `1.26.8` or `1.26` as a pair that can be compared.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    let major = parts.next()?.parse().ok()?;
    // A pre-release is `1.27rc1`.
    let minor = parts.next()?;
    let digits = minor.bytes().take_while(u8::is_ascii_digit).count();
    Some((major, minor.get(..digits)?.parse().ok()?))
}

/// Past the test runner's capture: a build of minutes must not look hung.
fn say(line: &str) {
    let _ = io::stderr().write_all(format!("lab: {line}\n").as_bytes());
}

fn at(path: &Path) -> impl Fn(io::Error) -> BuildError + '_ {
    move |source| BuildError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("lab-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("sources")).unwrap();
            for file in CONTROL_PLANE.sources {
                fs::write(path.join("sources").join(file), "go 1.26.0\n").unwrap();
            }
            Self(path)
        }

        /// A `go` that says `version`, and counts its builds in `built`.
        fn build(&self, version: &str) -> Build {
            let go = self.0.join("go");
            let script = format!(
                "#!/bin/sh\n\
                 if [ \"$1\" = env ]; then echo {version}; exit; fi\n\
                 while [ \"$1\" != -o ]; do shift; done\n\
                 echo built >> {0}/built\n\
                 cp {0}/built $2\n",
                self.0.display()
            );
            // Written by a child: a file that a process of many threads has
            // open for writing cannot be executed while one of them forks.
            let written = Command::new("sh")
                .args(["-c", "printf %s \"$1\" > \"$2\" && chmod +x \"$2\"", "sh"])
                .arg(script)
                .arg(&go)
                .status();
            assert!(written.unwrap().success());
            Build {
                program: &CONTROL_PLANE,
                sources: self.0.join("sources"),
                target: self.0.join("target"),
                go,
                say: |_| {},
            }
        }

        fn builds(&self) -> usize {
            let built = fs::read_to_string(self.0.join("built")).unwrap_or_default();
            built.lines().count()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn built_once_and_again_when_sources_or_go_change() {
        let folder = Folder::new("rebuild");
        let build = folder.build("go1.26.8");
        build.ensure().unwrap();
        let binary = build.ensure().unwrap();
        assert!(binary.is_absolute() && binary.is_file());
        assert_eq!(folder.builds(), 1, "nothing changed");

        fs::write(folder.0.join("sources/main.go"), "package main").unwrap();
        build.ensure().unwrap();
        assert_eq!(folder.builds(), 2, "a source changed");

        let newer = folder.build("go1.27.0");
        newer.ensure().unwrap();
        newer.ensure().unwrap();
        assert_eq!(folder.builds(), 3, "Go changed");

        fs::remove_file(binary).unwrap();
        newer.ensure().unwrap();
        assert_eq!(folder.builds(), 4, "the binary was lost");
    }

    #[test]
    fn without_go_a_kept_binary_serves_and_otherwise_the_reason_is_given() {
        let folder = Folder::new("missing");
        let mut absent = folder.build("go1.26.0");
        absent.go = folder.0.join("no-such-go");
        let error = absent.ensure().unwrap_err();
        assert!(
            matches!(&error, BuildError::Missing { reason, .. } if reason.contains("Go 1.26.0 or later")),
            "{error}"
        );

        let old = folder.build("go1.19.8");
        let error = old.ensure().unwrap_err();
        assert!(
            matches!(&error, BuildError::Missing { reason, .. } if reason.contains("go1.19.8")),
            "{error}"
        );

        folder.build("go1.26.0").ensure().unwrap();
        absent.ensure().unwrap();
        assert_eq!(folder.builds(), 1);
    }

    #[test]
    fn releases_compare_as_numbers() {
        assert_eq!(release("1.26.8"), Some((1, 26)));
        assert_eq!(release("1.27rc1"), Some((1, 27)));
        assert!(release("1.9") < release("1.26.0"));
        assert_eq!(release("devel"), None);
    }
}
