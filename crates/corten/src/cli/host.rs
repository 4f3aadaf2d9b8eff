//! What the host must offer, checked at start so that the error names it.

use std::path::Path;

use super::Failure;

/// The oldest kernel whose nf_tables does what the forwarding rules ask.
const KERNEL: (u32, u32) = (5, 13);
/// Capability numbers of `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;

/// The name of this host, for `--node-name`.
pub(super) fn name() -> Result<String, Failure> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_err(|error| format!("the host's name cannot be read ({error}); give --node-name"))?;
    Ok(name.trim().to_ascii_lowercase())
}

/// Checks that `dir` is a directory that can be read.
pub(super) fn check_directory(dir: &Path) -> Result<(), Failure> {
    match std::fs::read_dir(dir) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "the manifests of {} cannot be read: {error}; give a directory of manifests that this \
             process may read",
            dir.display()
        )
        .into()),
    }
}

/// Checks the kernel's version and this process's rights.
pub(super) fn check_agent(forwards: bool) -> Result<(), Failure> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if kernel(&release).is_some_and(|version| version < KERNEL) {
        return Err(format!(
            "kernel {} is too old: Corten needs {}.{} or newer",
            release.trim(),
            KERNEL.0,
            KERNEL.1
        )
        .into());
    }
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let held = effective_capabilities(&status).unwrap_or(u64::MAX);
    let mut wanted = vec![("NET_RAW", CAP_NET_RAW, "answer ARP and NDP")];
    if forwards {
        wanted.push((
            "NET_ADMIN",
            CAP_NET_ADMIN,
            "program the kernel's forwarding",
        ));
    }
    for (name, number, what) in wanted {
        if held & (1 << number) == 0 {
            return Err(format!(
                "this process may not {what}: it lacks the capability {name}; run it as root, or \
                 give it {name} (container: securityContext.capabilities.add)"
            )
            .into());
        }
    }
    Ok(())
}

fn kernel(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_rights_are_read() {
        assert_eq!(kernel("6.18.44-fc\n"), Some((6, 18)));
        assert_eq!(kernel("5.10.0-28-amd64"), Some((5, 10)));
        assert_eq!(kernel(""), None);
        assert_eq!(
            effective_capabilities("Name:\tx\nCapEff:\t0000000000003000\n"),
            Some(0x3000)
        );
    }
}
