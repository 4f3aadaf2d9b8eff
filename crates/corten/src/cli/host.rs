//! What the host must offer, checked at start so that the error names it, or an agent in a cluster
//! says it and waits.

use std::path::Path;

use linux::packet::{PacketError, PacketSocket, Traffic};
use plan::forward::Mode;

use super::{Failure, chain, cilium};
use crate::agent::forward::{self, BackEnd};

/// The oldest kernel whose nf_tables does what the forwarding rules ask.
const KERNEL: (u32, u32) = (5, 13);
/// Capability numbers of `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
/// Index of the loopback interface, which every network namespace has.
const LOOPBACK: u32 = 1;

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

/// Checks what an agent needs of this host.
pub(super) fn check_agent(mode: Mode, forwards: Option<BackEnd>) -> Result<(), Failure> {
    match lacks(mode, forwards).into_iter().next() {
        None => Ok(()),
        Some(lack) => Err(lack.into()),
    }
}

/// What an agent needs of this host and does not find, each with the remedy: the kernel's version,
/// rights, packet sockets, nf_tables; and whether Cilium forwards in its place. It may wait for
/// another program's nftables transaction.
pub(super) fn lacks(mode: Mode, forwards: Option<BackEnd>) -> Vec<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut lacks = Vec::new();
    if kernel(&release).is_some_and(|version| version < KERNEL) {
        lacks.push(format!(
            "kernel {} is too old: Corten needs {}.{} or newer; remedy: boot a newer one",
            release.trim(),
            KERNEL.0,
            KERNEL.1
        ));
    }
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let held = effective_capabilities(&status).unwrap_or(u64::MAX);
    let has = |number: u32| held & (1 << number) != 0;
    if has(CAP_NET_RAW) {
        let socket = PacketSocket::open(LOOPBACK, Traffic::Arp);
        lacks.extend(socket.err().as_ref().map(packet_sockets));
    } else {
        lacks.push(right("NET_RAW", "answer ARP and NDP"));
    }
    match forwards {
        Some(_) if !has(CAP_NET_ADMIN) => {
            lacks.push(right("NET_ADMIN", "program the kernel's forwarding"));
        }
        Some(back_end) if lacks.is_empty() => {
            let checked = forward::check(back_end);
            lacks.extend(checked.err().as_ref().map(forward::words));
            if lacks.is_empty() {
                lacks.extend(cilium::forwards(mode));
            }
        }
        _ => {}
    }
    lacks
}

fn right(name: &str, what: &str) -> String {
    format!(
        "this process may not {what}: it lacks the capability {name}; remedy: run it as root, or \
         give it {name} (container: securityContext.capabilities.add)"
    )
}

fn packet_sockets(error: &PacketError) -> String {
    let remedy = if error.is_unsupported() {
        "load the module af_packet on this node, or boot a kernel that has it (CONFIG_PACKET)"
    } else if error.is_denied() {
        "a security module or seccomp profile is in the way: allow sockets of the family AF_PACKET"
    } else {
        "the kernel's log on this node may say more"
    };
    format!("{}; remedy: {remedy}", chain(error))
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
