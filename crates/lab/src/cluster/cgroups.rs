//! The cgroups of a cluster's containers, in every hierarchy of the machine (v1, v2 or both).
//!
//! The kernel does not remove them with the sandbox, so they lie below one that is named after
//! the process that started the sandbox, and that process removes them when the sandbox is gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const MOUNTS: &str = "/proc/self/mountinfo";
const PREFIX: &str = "corten-lab-";
/// The variable that tells the inside of a sandbox its name.
pub(crate) const VARIABLE: &str = "LAB_CGROUP";
/// The kernel takes a moment to let go of a cgroup whose last process was killed.
const PATIENCE: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_millis(10);

/// A name for the cgroups of one sandbox, to be called before it starts.
pub(crate) fn name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{count}", std::process::id())
}

/// The name that the sandbox around this process was given.
pub(crate) fn own() -> Option<String> {
    std::env::var(VARIABLE).ok()
}

/// Makes the cgroup `path` (relative) in every hierarchy.
pub(crate) fn create(path: &Path) -> io::Result<()> {
    for root in hierarchies()? {
        let mut dir = root;
        for part in path {
            enable_controllers(&dir);
            let parent = dir.clone();
            dir.push(part);
            match fs::create_dir(&dir) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => inherit_cpus(&parent, &dir)?,
            }
        }
    }
    Ok(())
}

/// Removes the cgroup and all below it; waits for processes that are being killed.
pub(crate) fn remove(path: impl AsRef<Path>) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    for root in hierarchies()? {
        let dir = root.join(&path);
        while let Err(e) = remove_tree(&dir) {
            if Instant::now() > end {
                return Err(e);
            }
            std::thread::sleep(INTERVAL);
        }
    }
    Ok(())
}

/// [`remove`] for all sandboxes that the process with this PID started.
pub(crate) fn remove_of(starter: i32) -> io::Result<()> {
    let prefix = format!("{PREFIX}{starter}-");
    for root in hierarchies()? {
        for entry in fs::read_dir(&root)?.filter_map(Result::ok) {
            if let Some(name) = entry
                .file_name()
                .to_str()
                .filter(|n| n.starts_with(&prefix))
            {
                remove(name)?;
            }
        }
    }
    Ok(())
}

/// Removes what sandboxes left whose starter was killed. Cgroups with processes stay.
pub(crate) fn sweep() -> io::Result<()> {
    for root in hierarchies()? {
        for entry in fs::read_dir(&root)?.filter_map(Result::ok) {
            let name = entry.file_name();
            let starter = name.to_str().and_then(|n| n.strip_prefix(PREFIX));
            let starter = starter.and_then(|rest| rest.split('-').next());
            if let Some(pid) = starter
                && !Path::new("/proc").join(pid).exists()
            {
                // Another one may be sweeping.
                let _ = remove_tree(&entry.path());
            }
        }
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// v2: children have the controllers that their parent passes on. v1 has no such file.
fn enable_controllers(dir: &Path) {
    let available = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    for controller in available.split_whitespace() {
        // One that cannot be passed on is missed by the kubelet, which says so.
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// v1: a new cpuset is empty, and so are those below it.
fn inherit_cpus(parent: &Path, dir: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let Ok(own) = fs::read_to_string(dir.join(file)) else {
            continue;
        };
        if own.trim().is_empty() && dir.join("cgroup.clone_children").exists() {
            fs::write(dir.join(file), fs::read(parent.join(file))?)?;
        }
    }
    Ok(())
}

/// Where the hierarchies are mounted.
fn hierarchies() -> io::Result<Vec<PathBuf>> {
    Ok(parse(&fs::read_to_string(MOUNTS)?))
}

/// The mount points of type cgroup and cgroup2 (proc_pid_mountinfo(5)).
fn parse(mounts: &str) -> Vec<PathBuf> {
    let cgroup = |line: &&str| {
        line.split_once(" - ")
            .is_some_and(|(_, fs)| fs.starts_with("cgroup ") || fs.starts_with("cgroup2 "))
    };
    let place = |line: &str| line.split(' ').nth(4).map(PathBuf::from);
    let mut found: Vec<PathBuf> = mounts.lines().filter(cgroup).filter_map(place).collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_the_mounts_of_type_cgroup() {
        let mounts = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
        assert_eq!(
            parse(mounts),
            ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"].map(PathBuf::from)
        );
    }

    #[test]
    fn names_differ_and_say_who_made_them() {
        let (one, two) = (name(), name());
        assert_ne!(one, two);
        let ours = format!("{PREFIX}{}-", std::process::id());
        assert!(one.starts_with(&ours) && two.starts_with(&ours));
    }

    #[test]
    fn a_tree_is_removed_and_a_missing_one_is_no_error() {
        let dir = std::env::temp_dir().join(name());
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::create_dir_all(dir.join("c")).unwrap();
        remove_tree(&dir).unwrap();
        assert!(!dir.exists());
        remove_tree(&dir).unwrap();
    }
}
