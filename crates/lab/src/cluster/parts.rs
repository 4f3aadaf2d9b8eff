//! What a cluster is made of: Go programs that are built once (`lab/`), Debian packages, images.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cgroups;
use super::image::Image;
use crate::controlplane::BuildError;
use crate::controlplane::build::{Program, ensure_built, or_skip};

/// The image of Pods' sandboxes and of tests' servers and clients: `lab/tools`.
pub const TOOLS: &str = "lab.corten.dev/tools:1";
/// The image of the cluster's DNS.
pub(super) const COREDNS: &str = "lab.corten.dev/coredns:1.15.0";
/// Where Debian's containernetworking-plugins are.
pub(super) const CNI_BIN: &str = "/usr/lib/cni";
/// Programs that must be there, and the Debian package of each.
const DEBIAN: [(&str, &str); 5] = [
    ("runc", "runc"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("nsenter", "util-linux"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
];
/// Where administrators' programs are, for shells that do not look there.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const fn containerd(name: &'static str, package: &'static str) -> Program {
    Program {
        name,
        module: "containerd",
        title: name,
        takes: "3 minutes (for all of containerd)",
        package,
        sources: &["go.mod", "go.sum"],
        linker_flags: || {
            "-s -w -X github.com/containerd/containerd/v2/version.Version=v2.2.9".to_owned()
        },
    }
}

static CONTAINERD: Program = containerd(
    "containerd",
    "github.com/containerd/containerd/v2/cmd/containerd",
);
static SHIM: Program = containerd(
    "containerd-shim-runc-v2",
    "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
);
static CTR: Program = containerd("ctr", "github.com/containerd/containerd/v2/cmd/ctr");
static COREDNS_PROGRAM: Program = Program {
    name: "coredns",
    module: "coredns",
    title: "CoreDNS",
    takes: "2 minutes",
    package: ".",
    sources: &["go.mod", "go.sum", "main.go"],
    linker_flags: || "-s -w".to_owned(),
};
static TOOLS_PROGRAM: Program = Program {
    name: "tools",
    module: "tools",
    title: "the tools of the cluster's Pods",
    takes: "1 minute",
    package: ".",
    sources: &["go.mod", "main.go"],
    linker_flags: || "-s -w".to_owned(),
};

/// Everything that a cluster is made of, ready to be used inside a sandbox.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Kubernetes.
    pub(super) kubernetes: PathBuf,
    pub(super) containerd: PathBuf,
    pub(super) shim: PathBuf,
    pub(super) ctr: PathBuf,
    /// Archives of the images that every node has from the start.
    pub(super) images: Vec<PathBuf>,
}

impl Parts {
    /// Builds what is not there yet: a quarter of an hour from empty caches, no time afterwards.
    ///
    /// Call it outside a sandbox: inside there is no network.
    ///
    /// # Errors
    /// [`BuildError::Missing`] without Go, without a Debian package, or without root's rights;
    /// otherwise what failed.
    pub fn ensure() -> Result<Self, BuildError> {
        let missing = missing(which);
        if !missing.is_empty() {
            return Err(BuildError::Missing {
                program: "a cluster",
                reason: format!(
                    "missing Debian packages: `apt-get install {}`",
                    missing.join(" ")
                ),
            });
        }
        if !rustix::process::geteuid().is_root() {
            return Err(BuildError::Missing {
                program: "a cluster",
                reason: "containers and cgroups need root".to_owned(),
            });
        }
        let probe = cgroups::name();
        let made = cgroups::create(Path::new(&probe)).and_then(|()| cgroups::remove(&probe));
        if let Err(error) = made {
            return Err(BuildError::Missing {
                program: "a cluster",
                reason: format!("no right to make cgroups: {error}"),
            });
        }
        let coredns = COREDNS_PROGRAM.ensure_built()?;
        let tools = TOOLS_PROGRAM.ensure_built()?;
        Ok(Self {
            kubernetes: ensure_built()?,
            containerd: CONTAINERD.ensure_built()?,
            shim: SHIM.ensure_built()?,
            ctr: CTR.ensure_built()?,
            images: vec![
                image(TOOLS, &tools, "/tools", &["pause"])?,
                image(COREDNS, &coredns, "/coredns", &[])?,
            ],
        })
    }

    /// The parts for a test that needs them, or `None` when it is to be skipped: then the line
    /// `skipped: lab TEST: REASON` is on standard error. Ask before [`crate::run`].
    ///
    /// # Panics
    /// When a build fails, and with `CI=true` also where it would skip.
    #[must_use]
    pub fn or_skip(test: &str) -> Option<Self> {
        or_skip(test, Self::ensure())
    }

    /// `PATH` for programs on nodes: containerd looks for its shim there.
    pub(super) fn path(&self) -> String {
        let shim = self.shim.parent().unwrap_or_else(|| Path::new("/"));
        format!("{}:{PATH}", shim.display())
    }
}

/// The archive of an image with this one program, beside the program; written anew when the
/// program is younger.
fn image(
    reference: &str,
    program: &Path,
    place: &str,
    arguments: &[&str],
) -> Result<PathBuf, BuildError> {
    let archive = program.with_extension("tar");
    let failed = |source| BuildError::Io {
        path: archive.clone(),
        source,
    };
    // Several tests come here at once.
    let _held = fs::File::create(program.with_extension("tar.lock"))
        .and_then(|file| file.lock().map(|()| file))
        .map_err(failed)?;
    let age = |path: &Path| -> io::Result<_> { fs::metadata(path)?.modified() };
    if age(&archive).is_ok_and(|made| age(program).is_ok_and(|built| built <= made)) {
        return Ok(archive);
    }
    Image {
        reference,
        files: &[(place, program)],
        entrypoint: &[place],
        arguments,
    }
    .write(&archive)
    .map_err(failed)?;
    Ok(archive)
}

fn missing(there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let lacking = DEBIAN.iter().filter(|(program, _)| !there(program));
    lacking.map(|&(_, package)| package).collect()
}

fn which(program: &str) -> bool {
    // An absolute name stays as it is.
    PATH.split(':')
        .any(|folder| Path::new(folder).join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_are_named_by_their_packages() {
        assert_eq!(missing(|_| true), Vec::<&str>::new());
        let lacking = missing(|program| program != "runc" && !program.contains("cni"));
        assert_eq!(lacking, ["runc", "containernetworking-plugins"]);
    }
}
