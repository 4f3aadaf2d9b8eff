//! `metallb_speaker_announced`: which addresses this node announces, for which Services.
//!
//! There may be tens of thousands. A registry's gauge keeps its description and its labels' names
//! and values with each of them (a KiB), and copies all that to be read; this keeps the values and
//! writes the text.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use plan::name::{Name, ServiceKey};

/// Its name.
pub(super) const NAME: &str = "metallb_speaker_announced";

/// How an address is announced; the value of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// By BGP.
    Bgp,
    /// In layer 2.
    Layer2,
    /// On `kube-lb0`.
    Linux,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bgp => "bgp",
            Self::Layer2 => "layer2",
            Self::Linux => "linux",
        })
    }
}

/// 1 for each address that this node announces, and for each Service; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Announced(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// The node, once something is announced.
    node: Option<Name>,
    all: BTreeSet<(ServiceKey, Protocol, IpAddr)>,
}

impl Announced {
    /// `node`, the process's own, announces `ip` for `service`.
    pub fn begin(&self, node: &Name, service: ServiceKey, protocol: Protocol, ip: IpAddr) {
        self.change(|table| {
            table.node.get_or_insert_with(|| node.clone());
            table.all.insert((service, protocol, ip));
        });
    }

    /// It does so no longer.
    pub fn end(&self, service: &ServiceKey, protocol: Protocol, ip: IpAddr) {
        self.change(|table| {
            table.all.remove(&(service.clone(), protocol, ip));
        });
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Appends it in Prometheus' text format.
    pub(super) fn encode(&self, text: &mut Vec<u8>) -> io::Result<()> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(node) = table.node.as_ref().filter(|_| !table.all.is_empty()) else {
            return Ok(());
        };
        writeln!(
            text,
            "# HELP {NAME} Services being announced from this node"
        )?;
        writeln!(text, "# TYPE {NAME} gauge")?;
        // Names of objects have nothing in them that a label's value would have to escape.
        for (service, protocol, ip) in &table.all {
            writeln!(
                text,
                "{NAME}{{ip=\"{ip}\",node=\"{node}\",protocol=\"{protocol}\",service=\"{service}\"}} 1"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_told_and_nothing_else() {
        let announced = Announced::default();
        let text = || {
            let mut text = Vec::new();
            announced.encode(&mut text).expect("encoded");
            String::from_utf8(text).expect("UTF-8")
        };
        assert_eq!(text(), "");
        let (node, ip) = ("n1".into(), IpAddr::from([10, 0, 0, 101]));
        let web = || ServiceKey::new("default", "web");
        announced.begin(&node, web(), Protocol::Bgp, ip);
        announced.begin(&node, web(), Protocol::Bgp, ip);
        announced.begin(&node, web(), Protocol::Layer2, ip);
        assert_eq!(text().lines().count(), 4);
        announced.end(&web(), Protocol::Bgp, ip);
        let lines = "\
# HELP metallb_speaker_announced Services being announced from this node
# TYPE metallb_speaker_announced gauge
metallb_speaker_announced{ip=\"10.0.0.101\",node=\"n1\",protocol=\"layer2\",service=\"default/web\"} 1
";
        assert_eq!(text(), lines);
        announced.end(&web(), Protocol::Layer2, ip);
        assert_eq!(text(), "");
    }
}
