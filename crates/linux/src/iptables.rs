//! The old tables of `iptables-legacy`, which nf_tables does not see: which chains there are.
//!
//! Nothing is changed here: such a table is replaced as a whole, rules of others with it, and the
//! program `iptables-legacy` knows how. Source: `include/uapi/linux/netfilter_ipv4/ip_tables.h`,
//! `include/uapi/linux/netfilter_ipv6/ip6_tables.h`, `include/uapi/linux/netfilter/x_tables.h`.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use crate::nft::DecodeError;

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`, the same numbers for IPv6.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// `struct ipt_getinfo`, and where in it the length of all rules stands.
const INFO: usize = 84;
const INFO_SIZE: usize = 80;
/// `struct ipt_get_entries` without the entries.
const ENTRIES: usize = 40;
/// Bytes that a table's name may have, with its final zero.
const NAME: usize = 32;
/// `struct xt_entry_target`: its length, its name, its revision; a chain's name follows in that of
/// the chain's head.
const TARGET_NAME: std::ops::Range<usize> = 2..31;
const CHAIN_NAME: std::ops::Range<usize> = 32..62;
/// The target of a chain's head, and the name in that of a table's end.
const HEAD: &str = "ERROR";

/// Where things stand in an entry, which differs by family.
struct Layout {
    level: libc::c_int,
    names: &'static str,
    bind: &'static str,
    /// The offset of the target, two bytes; that of the next entry follows.
    target_offset: usize,
}

const IPV4: Layout = Layout {
    level: libc::IPPROTO_IP,
    names: "/proc/thread-self/net/ip_tables_names",
    bind: "0.0.0.0:0",
    target_offset: 88,
};
const IPV6: Layout = Layout {
    level: libc::IPPROTO_IPV6,
    names: "/proc/thread-self/net/ip6_tables_names",
    bind: "[::]:0",
    target_offset: 140,
};

/// A table could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the table {table} of iptables-legacy cannot be read")]
pub struct Error {
    table: String,
    source: io::Error,
}

/// The chains that users made in the calling thread's network namespace, with the table that each is
/// in. Tables that are not in use are not made for that.
pub fn chains(ipv6: bool) -> Result<Vec<(String, String)>, Error> {
    let layout = if ipv6 { &IPV6 } else { &IPV4 };
    // Absent where the kernel has no such tables.
    let names = std::fs::read_to_string(layout.names).unwrap_or_default();
    let mut found = Vec::new();
    for table in names.lines() {
        let entries = entries(layout, table).map_err(|source| Error {
            table: table.to_owned(),
            source,
        })?;
        let heads = heads(&entries, layout.target_offset);
        let heads = heads.map_err(|error| Error {
            table: table.to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidData, error),
        })?;
        found.extend(heads.into_iter().map(|chain| (table.to_owned(), chain)));
    }
    Ok(found)
}

/// The rules of a table as the kernel has them. It may change between the two questions: then the
/// second is asked again.
fn entries(layout: &Layout, table: &str) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(layout.bind)?;
    for _ in 0..8 {
        let mut info = named(table, INFO)?;
        get(&socket, layout.level, GET_INFO, &mut info)?;
        let size = info.get(INFO_SIZE..).and_then(<[u8]>::first_chunk);
        let size = u32::from_ne_bytes(size.copied().unwrap_or_default());
        let mut all = named(table, ENTRIES + size as usize)?;
        if let Some(field) = all.get_mut(NAME..NAME + 4) {
            field.copy_from_slice(&size.to_ne_bytes());
        }
        match get(&socket, layout.level, GET_ENTRIES, &mut all) {
            Ok(()) => return Ok(all.split_off(ENTRIES)),
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

/// A buffer that begins with a table's name.
fn named(table: &str, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    match buffer.get_mut(..table.len()) {
        Some(place) if table.len() < NAME => place.copy_from_slice(table.as_bytes()),
        _ => return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG)),
    }
    Ok(buffer)
}

fn get(
    socket: &UdpSocket,
    level: libc::c_int,
    name: libc::c_int,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut length = buffer.len() as libc::socklen_t;
    // SAFETY: the pointer and length are those of a live, writable buffer; `length` is alive, too.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The names of the chains in a table's rules.
fn heads(entries: &[u8], target_offset: usize) -> Result<Vec<String>, DecodeError> {
    let mut found = Vec::new();
    let mut offset = 0;
    while offset < entries.len() {
        let truncated = || DecodeError::Truncated {
            offset,
            left: entries.len() - offset,
        };
        let entry = entries.get(offset..).unwrap_or(&[]);
        let half = |at: usize| {
            let bytes = entry.get(at..).and_then(<[u8]>::first_chunk);
            bytes.map(|bytes| usize::from(u16::from_ne_bytes(*bytes)))
        };
        let target = half(target_offset).ok_or_else(truncated)?;
        let next = half(target_offset + 2).ok_or_else(truncated)?;
        let target = entry.get(target..next).ok_or_else(truncated)?;
        if next == 0 {
            return Err(truncated());
        }
        if text(target.get(TARGET_NAME)) == Some(HEAD)
            && let Some(chain) = text(target.get(CHAIN_NAME)).filter(|name| *name != HEAD)
        {
            found.push(chain.to_owned());
        }
        offset += next;
    }
    Ok(found)
}

/// The text before the first zero.
fn text(bytes: Option<&[u8]>) -> Option<&str> {
    let text = bytes?.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;

    #[test]
    fn broken_rules_are_refused() {
        for length in [1, 91, 92, 111] {
            assert!(heads(&vec![0; length], 88).is_err(), "{length}");
        }
        let mut entry = vec![0; 112];
        entry[88..92].copy_from_slice(&[112, 0, 200, 0].map(|byte: u8| byte));
        assert!(heads(&entry, 88).is_err());
        assert_eq!(heads(&[], 88), Ok(vec![]));
    }

    #[test]
    fn chains_are_found_in_both_families() {
        alone(async || {
            for (ipv6, program) in [(false, "iptables-legacy"), (true, "ip6tables-legacy")] {
                assert_eq!(chains(ipv6).unwrap(), [], "{program}");
                let run = |arguments: &str| {
                    let mut command = std::process::Command::new(program);
                    let status = command.args(arguments.split(' ')).status();
                    status.is_ok_and(|status| status.success())
                };
                if !run("-t nat -N KUBE-SERVICES") {
                    println!("skipped: no {program} here");
                    continue;
                }
                assert!(run(
                    "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j KUBE-SERVICES"
                ));
                assert!(run("-t nat -A KUBE-SERVICES -p tcp -j RETURN"));
                assert!(run("-N others"));
                let mut found = chains(ipv6).unwrap();
                found.sort();
                let wanted = [("filter", "others"), ("nat", "KUBE-SERVICES")];
                let wanted = wanted.map(|(table, chain)| (table.to_owned(), chain.to_owned()));
                assert_eq!(found, wanted, "{program}");
            }
        });
    }
}
