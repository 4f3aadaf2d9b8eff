//! Whether Cilium carries Services in kube-proxy's place on this node: it acts before any hook of
//! nftables, so that nothing of Corten's forwarding would take effect (design.md §4.5).
//!
//! Cilium says that nowhere that an agent may look. What can be seen: its interface, nothing of
//! kube-proxy, and with `--forward all`, where Corten may well be the only proxy beside a Cilium that
//! forwards no Services, that the address of Kubernetes' own Service answers before Corten forwards.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use dataplane::leftovers::Leftovers;
use dataplane::nft::Nft;
use plan::forward::Mode;

use super::kube_proxy;

/// The node's side of what Cilium makes for the host.
const INTERFACE: &str = "cilium_host";
/// The node's interfaces, a line each.
const INTERFACES: &str = "/proc/thread-self/net/dev";
/// A Service's address leads to a near machine, or nowhere.
const PATIENCE: Duration = Duration::from_secs(2);

/// What to say of it, where it does. Blocks.
pub(super) fn forwards(mode: Mode) -> Option<String> {
    let interfaces = || std::fs::read_to_string(INTERFACES).unwrap_or_default();
    let is_there = || has(&interfaces(), INTERFACE);
    let carried = match mode {
        Mode::Off => false,
        _ if !is_there() || has_kube_proxy() => false,
        Mode::Vips => true,
        Mode::All => !Nft::is_there().unwrap_or(false) && kubernetes().is_some_and(answers),
    };
    carried.then(|| {
        format!(
            "Cilium carries Services on this node (interface {INTERFACE}, nothing of kube-proxy): it \
             acts before nftables, so that Corten would forward nothing; remedy: forward nothing \
             (--forward off, value forward), which leaves addresses and their announcement to Corten, \
             or set kubeProxyReplacement=false in Cilium"
        )
    })
}

/// Whether an interface is in the list.
fn has(list: &str, name: &str) -> bool {
    let names = list.lines().filter_map(|line| line.split_once(':'));
    names.into_iter().any(|(found, _)| found.trim() == name)
}

fn has_kube_proxy() -> bool {
    // What cannot be seen speaks for neither.
    Leftovers::find().map_or(true, |found| !found.is_empty()) || kube_proxy::running().is_some()
}

/// The address of Kubernetes' own Service, as every Pod is told it.
fn kubernetes() -> Option<SocketAddr> {
    let told = |name: &str| std::env::var(name).ok();
    let address: IpAddr = told("KUBERNETES_SERVICE_HOST")?.parse().ok()?;
    let port = told("KUBERNETES_SERVICE_PORT")?.parse().ok()?;
    Some(SocketAddr::new(address, port))
}

fn answers(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, PATIENCE).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_found_by_its_whole_name() {
        let list =
            "Inter-|   Receive\n face |bytes\n    lo: 1 2\ncilium_host:  0 0\n cilium_hostx: 0\n";
        assert!(has(list, INTERFACE) && has(list, "lo"));
        assert!(!has(list, "cilium_net") && !has("", "lo"));
    }
}
