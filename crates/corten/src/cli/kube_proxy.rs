//! Whether kube-proxy runs on this node.
//!
//! Its process is seen where this process sees the node's; in a container of its own it is not. Then
//! it is asked where it says what it is configured as, which is on the node's loopback unless it was
//! told otherwise (`--metrics-bind-address`); there those answer that have kube-proxy in them (k3s).

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

const NAME: &str = "kube-proxy";
/// Where it is asked, and for what.
const CONFIGURATION: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);
const REQUEST: &[u8] = b"GET /configz HTTP/1.0\r\nHost: localhost\r\n\r\n";
/// What its answer has in it.
pub(super) const GROUP: &str = "kubeproxy.config.k8s.io";
/// What is in that of an agent of Corten besides, which answers at the same place in its stead.
pub(super) const OWN: &str = "corten.dev";
/// On the loopback there is nothing to wait for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Its answer is some KiB.
const LONGEST: u64 = 256 * 1024;

/// By what it is seen.
pub(super) fn running() -> Option<String> {
    let process = process(Path::new("/proc")).map(|pid| format!("process {pid}"));
    process.or_else(|| answers().then(|| format!("it answers at {CONFIGURATION}")))
}

/// Its process, if one of those in this network namespace is.
fn process(proc: &Path) -> Option<u32> {
    let network = fs::read_link(proc.join("thread-self/ns/net")).ok()?;
    let entries = fs::read_dir(proc).ok()?.filter_map(Result::ok);
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid: &u32| {
        let process = proc.join(pid.to_string());
        let its = fs::read_link(process.join("ns/net"));
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        its.is_ok_and(|its| its == network) && is_its(&line)
    })
}

/// Flags without which it reaches no API server.
const FLAGS: [&str; 3] = ["--config", "--kubeconfig", "--master"];

/// Whether a command line is kube-proxy's, alone or as part of a larger program. Who looks for it has
/// its name there, too.
fn is_its(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let mut words = line.split('\0');
    let program = words.next().unwrap_or_default();
    if program.rsplit('/').next() == Some(NAME) {
        return true;
    }
    let is_flag = |word: &str| FLAGS.iter().any(|flag| word.starts_with(flag));
    words.next() == Some(NAME) && words.any(is_flag)
}

/// Whether it says what it is configured as.
fn answers() -> bool {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&CONFIGURATION, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(REQUEST)?;
        let mut answer = Vec::new();
        stream.take(LONGEST).read_to_end(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| is_its_answer(&String::from_utf8_lossy(&answer)))
}

fn is_its_answer(answer: &str) -> bool {
    answer.contains(GROUP) && !answer.contains(&format!("\"{OWN}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_answers() {
        for (answer, is) in [
            (
                r#"HTTP/1.0 200 OK

{"kubeproxy.config.k8s.io":{"clusterCIDR":""}}"#,
                true,
            ),
            (
                r#"{"corten.dev":{},"kubeproxy.config.k8s.io":{"mode":"nftables"}}"#,
                false,
            ),
            ("HTTP/1.0 404 Not Found", false),
            ("", false),
        ] {
            assert_eq!(is_its_answer(answer), is, "{answer}");
        }
    }

    #[test]
    fn its_command_lines() {
        for (line, is) in [
            ("/usr/local/bin/kube-proxy\0--config=/x\0", true),
            ("kube-proxy\0", true),
            ("/hyperkube\0kube-proxy\0--v=2\0--config=/x\0", true),
            ("grep\0kube-proxy\0", false),
            ("grep\0kube-proxy\0--color\0", false),
            ("kubectl\0logs\0kube-proxy\0", false),
            ("/usr/bin/less\0/var/log/kube-proxy\0", false),
            ("kube-proxy-exporter\0", false),
            ("", false),
        ] {
            assert_eq!(is_its(line.as_bytes()), is, "{line:?}");
        }
    }
}
