//! Debian's kernel, fetched by apt and never installed, and an initial file system for it; kept in
//! the repository's `target/guest`.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

use super::GuestError;
use crate::controlplane::build::target;

const INIT: &str = include_str!("init.sh");
/// The newest kernel of the suite is what this package depends on. Of Debian's kernels only the
/// full one has 9p.
const NEWEST: &str = "linux-image-amd64";
/// What the initial file system needs to reach the host's root.
const FIRST_MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
/// What is unpacked: the rest is drivers for real machines, four fifths of it.
const PARTS: [&str; 9] = [
    "modules.*",
    "kernel/arch",
    "kernel/crypto",
    "kernel/drivers/net/*.ko",
    "kernel/drivers/net/bonding",
    "kernel/drivers/virtio",
    "kernel/fs",
    "kernel/lib",
    "kernel/net",
];

/// A kernel that is ready to boot.
#[derive(Debug)]
pub(super) struct Kernel {
    folder: PathBuf,
}

impl Kernel {
    pub(super) fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    pub(super) fn initrd(&self) -> PathBuf {
        self.folder.join("initrd")
    }

    /// The folder that is the guest's `/lib/modules`.
    pub(super) fn modules(&self) -> PathBuf {
        self.folder.join("root/lib/modules")
    }

    /// Package and version.
    pub(super) fn version(&self) -> Result<String, GuestError> {
        let path = self.folder.join("version");
        fs::read_to_string(&path).map_err(GuestError::io(&path))
    }
}

/// The kernel, fetched first if need be. Of several processes one does it and the others wait.
pub(super) fn ensure() -> Result<Kernel, GuestError> {
    let missing: Vec<&str> = ["apt-get", "busybox", "cpio", "depmod", "qemu-system-x86_64"]
        .into_iter()
        .filter(|program| which(program).is_none())
        .collect();
    if !missing.is_empty() {
        let names = missing.join(", ");
        return Err(GuestError::Missing(format!("there is no {names}")));
    }
    if cfg!(not(target_arch = "x86_64")) {
        let reason = "its kernel would not run this machine's programs";
        return Err(GuestError::Missing(reason.to_owned()));
    }
    let target = target("guest");
    fs::create_dir_all(&target).map_err(GuestError::io(&target))?;
    let target = target.canonicalize().map_err(GuestError::io(&target))?;
    let lock = target.join("lock");
    let _held = File::create(&lock)
        .and_then(|file| file.lock().map(|()| file))
        .map_err(GuestError::io(&lock))?;

    let wanted = digest();
    // A folder of its own for each form: who still uses another one is not disturbed.
    let short: String = wanted.chars().take(8).collect();
    let kernel = Kernel {
        folder: target.join(format!("kernel-{short}")),
    };
    // Written last of all, so that what is there is whole.
    let key = kernel.folder.join("key");
    if fs::read_to_string(&key).is_ok_and(|found| found == wanted) {
        return Ok(kernel);
    }
    for folder in [&kernel.folder, &target.join("new")] {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(GuestError::io(folder))?;
        }
    }
    let new = target.join("new");
    make(&new)?;
    fs::rename(&new, &kernel.folder).map_err(GuestError::io(&new))?;
    fs::write(&key, wanted).map_err(GuestError::io(&key))?;
    Ok(kernel)
}

/// Of all that shapes the folder but the kernel's version.
fn digest() -> String {
    let parts = [&PARTS[..], &FIRST_MODULES, &[NEWEST, INIT]].concat();
    let digest = Sha256::digest(parts.join("\n"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn make(folder: &Path) -> Result<(), GuestError> {
    fs::create_dir(folder).map_err(GuestError::io(folder))?;
    let package = newest()?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    let deb = fetch(&package, folder)?;
    let version = output(program("dpkg-deb").args(["-f"]).arg(&deb).arg("Version"))?;
    let root = folder.join("root");
    fs::create_dir(&root).map_err(GuestError::io(&root))?;
    unpack(&deb, &release, &root)?;
    fs::remove_file(&deb).map_err(GuestError::io(&deb))?;
    let image = root.join("boot").join(format!("vmlinuz-{release}"));
    fs::rename(&image, folder.join("vmlinuz")).map_err(GuestError::io(&image))?;
    output(program("depmod").arg("-b").arg(&root).arg(&release))?;
    initial(folder, &root, &release)?;
    let text = format!("{package} {}\n", version.trim());
    let path = folder.join("version");
    fs::write(&path, text).map_err(GuestError::io(&path))
}

/// The name of the newest kernel's package.
fn newest() -> Result<String, GuestError> {
    let said = output(program("apt-cache").args(["depends", NEWEST]))?;
    let depends = said.lines().filter_map(|line| line.split_once("Depends: "));
    let mut images = depends.map(|(_, package)| package.trim());
    images
        .find(|package| package.starts_with("linux-image-"))
        .map(str::to_owned)
        .ok_or_else(|| {
            let asked = format!("apt-cache depends {NEWEST}");
            GuestError::Unexpected(format!("`{asked}` names no kernel, but: {said:?}"))
        })
}

fn fetch(package: &str, folder: &Path) -> Result<PathBuf, GuestError> {
    // As who we are: apt's own account may not write to the folder.
    let apt = |arguments: &[&str]| {
        let mut apt = program("apt-get");
        apt.args(["-q", "-o", "APT::Sandbox::User=root"]);
        output(apt.args(arguments).current_dir(folder))
    };
    if apt(&["download", package]).is_err() {
        // What apt knows may be old.
        apt(&["update"])?;
        apt(&["download", package])?;
    }
    let entries = fs::read_dir(folder).map_err(GuestError::io(folder))?;
    let mut files = entries.flatten().map(|entry| entry.path());
    files
        .find(|path| path.extension().is_some_and(|it| it == "deb"))
        .ok_or_else(|| GuestError::Unexpected(format!("apt-get left no file of {package}")))
}

fn unpack(deb: &Path, release: &str, root: &Path) -> Result<(), GuestError> {
    let mut reader = program("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(GuestError::io("dpkg-deb"))?;
    let mut tar = program("tar");
    tar.args(["-x", "--wildcards", "--no-wildcards-match-slash", "-C"])
        .arg(root)
        .arg(format!("./boot/vmlinuz-{release}"))
        .args(PARTS.map(|part| format!("./lib/modules/{release}/{part}")))
        .stdin(reader.stdout.take().map_or_else(Stdio::null, Stdio::from));
    let unpacked = output(&mut tar);
    let status = reader.wait().map_err(GuestError::io("dpkg-deb"))?;
    unpacked?;
    match status.success() {
        true => Ok(()),
        false => Err(GuestError::Unexpected(format!(
            "dpkg-deb --fsys-tarfile {}: {status}",
            deb.display()
        ))),
    }
}

/// Makes the initial file system: busybox, the first modules, [`INIT`].
fn initial(folder: &Path, root: &Path, release: &str) -> Result<(), GuestError> {
    let tree = folder.join("initial");
    for dir in [
        "bin", "dev", "host", "layer", "modules", "proc", "root", "sys",
    ] {
        let dir = tree.join(dir);
        fs::create_dir_all(&dir).map_err(GuestError::io(&dir))?;
    }
    let busybox = which("busybox").unwrap_or_default();
    fs::copy(&busybox, tree.join("bin/busybox")).map_err(GuestError::io(&busybox))?;
    let mut order: Vec<String> = Vec::new();
    for module in FIRST_MODULES {
        let mut modprobe = program("modprobe");
        modprobe.arg("-d").arg(root).args(["-S", release]);
        let said = output(modprobe.args(["--show-depends", module]))?;
        // Those that are built in come as `builtin NAME`.
        let files = said.lines().filter_map(|line| line.strip_prefix("insmod "));
        for file in files.map(|file| Path::new(file.trim())) {
            let name = file.file_name().unwrap_or_default();
            let known = name.to_string_lossy().into_owned();
            if !order.contains(&known) {
                fs::copy(file, tree.join("modules").join(name)).map_err(GuestError::io(file))?;
                order.push(known);
            }
        }
    }
    for (name, text) in [("modules/order", order.join("\n")), ("init", INIT.into())] {
        let path = tree.join(name);
        fs::write(&path, text).map_err(GuestError::io(&path))?;
    }
    let init = tree.join("init");
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).map_err(GuestError::io(&init))?;

    let names = output(program("find").arg(".").current_dir(&tree))?;
    let initrd = folder.join("initrd");
    let file = File::create(&initrd).map_err(GuestError::io(&initrd))?;
    let mut cpio = program("cpio")
        .args(["--quiet", "-o", "-H", "newc"])
        .current_dir(&tree)
        .stdin(Stdio::piped())
        .stdout(file)
        .spawn()
        .map_err(GuestError::io("cpio"))?;
    if let Some(mut stdin) = cpio.stdin.take() {
        let written = stdin.write_all(names.as_bytes());
        written.map_err(GuestError::io("cpio"))?;
    }
    let status = cpio.wait().map_err(GuestError::io("cpio"))?;
    if !status.success() {
        return Err(GuestError::Unexpected(format!("cpio: {status}")));
    }
    fs::remove_dir_all(&tree).map_err(GuestError::io(&tree))
}

/// The folders of programs, those of administrators too.
pub(super) fn path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
}

/// The path of a program.
pub(super) fn which(program: &str) -> Option<PathBuf> {
    let folders = path();
    std::env::split_paths(&folders)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", path()).stdin(Stdio::null());
    command
}

/// Runs a command to its end; what it printed.
pub(super) fn output(command: &mut Command) -> Result<String, GuestError> {
    let program = command.get_program().display().to_string();
    let done = command.output().map_err(GuestError::io(&program))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = [done.stdout, done.stderr].concat();
    Err(GuestError::Program {
        program,
        status: done.status,
        said: String::from_utf8_lossy(&said).trim().to_owned(),
    })
}
