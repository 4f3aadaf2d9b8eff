//! Debian packages that tests need, installed when they are missing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::shell::{output, program, run, which};

/// A program that tests run, and where it comes from.
struct Tool {
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

const TOOLS: [Tool; 15] = [
    Tool {
        program: "ip",
        package: "iproute2",
        why: "lays out namespaces in tests",
    },
    Tool {
        program: "nft",
        package: "nftables",
        why: "the oracle for what is in nf_tables",
    },
    Tool {
        program: "runc",
        package: "runc",
        why: "runs the Pods of a lab's cluster",
    },
    Tool {
        program: "/usr/lib/cni/ptp",
        package: "containernetworking-plugins",
        why: "connects them",
    },
    Tool {
        program: "conntrack",
        package: "conntrack",
        why: "kube-proxy calls it",
    },
    Tool {
        program: "ipset",
        package: "ipset",
        why: "so it does in its IPVS mode",
    },
    Tool {
        program: "vtysh",
        package: "frr",
        why: "the router that BGP tests peer with",
    },
    Tool {
        program: "bird",
        package: "bird2",
        why: "another router",
    },
    Tool {
        program: "gobgpd",
        package: "gobgpd",
        why: "a third one",
    },
    Tool {
        program: "exabgp",
        package: "exabgp",
        why: "a peer that sends what no router would",
    },
    Tool {
        program: "keepalived",
        package: "keepalived",
        why: "layer 2's rival in a bench",
    },
    Tool {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
        why: "runs tests in another kernel",
    },
    Tool {
        program: "depmod",
        package: "kmod",
        why: "finds and loads its modules",
    },
    Tool {
        program: "busybox",
        package: "busybox-static",
        why: "its first program",
    },
    Tool {
        program: "cpio",
        package: "cpio",
        why: "packs its first file system",
    },
];

/// Installs what is missing, as root; otherwise says what to install. Tests that miss a tool say
/// so themselves, so nothing here is an error.
pub(crate) fn install_missing() {
    let missing: Vec<&Tool> = TOOLS
        .iter()
        .filter(|t| which(t.program).is_none())
        .collect();
    if missing.is_empty() {
        return;
    }
    for Tool {
        program,
        package,
        why,
    } in &missing
    {
        println!("missing: {program}, of the Debian package {package} ({why})");
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    let names = packages.join(" ");
    if which("apt-get").is_none() {
        println!("there is no apt-get here: install {names} by your system's means");
    } else if output(program("id").arg("-u")).is_ok_and(|id| id.trim() != "0") {
        println!("not root: run `apt-get install {names}` as root");
    } else if let Err(error) = apt(&packages) {
        println!("{names} could not be installed: {error}");
    }
}

fn apt(packages: &[&str]) -> Result<(), String> {
    println!("installing: {}", packages.join(" "));
    let folder = Folder::new().map_err(|error| format!("no folder for apt's files: {error}"))?;
    let apt = |arguments: &[&str]| {
        let mut command = program("apt-get");
        command
            .args(["-qq", "-o", "DPkg::Lock::Timeout=120"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("TMPDIR", folder.path());
        run(&mut command).map_err(|failure| failure.to_string())
    };
    apt(&["update"])?;
    let install = ["install", "-y", "--no-install-recommends"];
    apt(&[&install[..], packages].concat())
}

/// Apt's own folder for temporary files: in the shared one, what it unpacks there may be tidied
/// away under it. Apt's unprivileged helper writes to it too. Removed when done.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        let path = format!("/var/tmp/corten-apt-{}", std::process::id());
        fs::create_dir(&path)?;
        let folder = Self(path.into());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777))?;
        Ok(folder)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
