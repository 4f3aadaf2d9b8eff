//! The kernel's settings that IPVS needs (`spec/dataplane.md` §2.4).

use std::path::Path;
use std::{fs, io};

use super::Error;

/// What has to be so, and why.
const SETTINGS: [(&str, &str); 6] = [
    // Connections are known to conntrack: masquerading and its checks need that.
    ("net.ipv4.vs.conntrack", "1"),
    // A connection whose destination is gone, or gets nothing new and begins anew, is led elsewhere
    // and does not wait for the end of its entry.
    ("net.ipv4.vs.expire_nodest_conn", "1"),
    // A client that was kept at a destination which gets nothing new is led elsewhere.
    ("net.ipv4.vs.expire_quiescent_template", "1"),
    // Service addresses stand on an interface of this host, which must not answer for them on
    // others: who answers is decided elsewhere.
    ("net.ipv4.conf.all.arp_ignore", "1"),
    ("net.ipv4.conf.all.arp_announce", "2"),
    ("net.ipv4.ip_forward", "1"),
];

/// Makes them so, in the calling thread's network namespace. Where the process may not, somebody
/// must have done it before.
pub(super) fn ensure() -> Result<(), Error> {
    for (key, value) in SETTINGS {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        set(&path, value).map_err(|source| Error::Setting { key, value, source })?;
    }
    Ok(())
}

/// Leaves alone what is right.
fn set(path: &Path, value: &str) -> io::Result<()> {
    if fs::read_to_string(path)?.trim() != value {
        fs::write(path, value)?;
    }
    Ok(())
}
