//! `receive` of a Peer → [`Receive`]: which routes of a neighbour enter which routing table.

use std::net::IpAddr;

use api::corten::v1alpha1::ReceivePolicy;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::verdict::Findings;

/// The kernel's main table.
const MAIN: u32 = 254;
/// The kernel's own: addresses of the host.
const LOCAL: u32 = 255;

/// The routes that are taken from a neighbour. Without one, none are (RFC 8212).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receive {
    /// Prefixes whose routes, and more specific ones, are taken.
    pub prefixes: Vec<IpNet>,
    /// The most routes of each family; `None`: no limit.
    pub most: Option<u32>,
    /// Number of the routing table.
    pub table: u32,
}

impl Receive {
    /// Whether a route to this prefix is taken.
    pub fn accepts(&self, address: IpAddr, length: u8) -> bool {
        let wanted = IpNet::new(address, length);
        wanted.is_ok_and(|wanted| self.prefixes.iter().any(|prefix| prefix.contains(&wanted)))
    }
}

pub(super) fn check(policy: &ReceivePolicy, vrf: &str, found: &mut Findings) -> Receive {
    if policy.prefixes.is_empty() {
        found.error(
            "spec.receive.prefixes",
            "no prefix whose routes are taken",
            "write 0.0.0.0/0 or ::/0 for all, or leave out receive for none",
        );
    }
    found.unique("spec.receive.prefixes", &policy.prefixes);
    let mut prefixes = Vec::new();
    for (n, text) in policy.prefixes.iter().enumerate() {
        match text.parse::<IpNet>() {
            Ok(prefix) => prefixes.push(prefix.trunc()),
            Err(_) => found.error(
                format!("spec.receive.prefixes[{n}]"),
                format!("invalid prefix {text:?}"),
                "write it in CIDR form, as 10.1.0.0/16",
            ),
        }
    }
    if policy.table == LOCAL {
        found.error(
            "spec.receive.table",
            format!("table {LOCAL} is the kernel's own"),
            "choose another number, or 0 for the main table",
        );
    }
    if policy.table == 0 && !vrf.is_empty() {
        found.error(
            "spec.receive.table",
            format!("no routing table for the routes of VRF {vrf}"),
            "write the number of the VRF's table (`ip -d link show type vrf`)",
        );
    }
    Receive {
        prefixes,
        most: (policy.max_prefixes > 0).then_some(policy.max_prefixes),
        table: match policy.table {
            0 => MAIN,
            table => table,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_specific_routes_are_taken_and_wider_ones_are_not() {
        let receive = Receive {
            prefixes: ["10.0.0.0/8", "2001:db8::/32"]
                .map(|text| text.parse().expect("a prefix"))
                .to_vec(),
            most: None,
            table: MAIN,
        };
        for (prefix, want) in [
            ("10.0.0.0/8", true),
            ("10.1.2.0/24", true),
            ("10.1.2.3/32", true),
            ("8.0.0.0/7", false),
            ("0.0.0.0/0", false),
            ("11.0.0.0/8", false),
            ("2001:db8:1::/48", true),
            ("2001::/16", false),
            ("::/0", false),
        ] {
            let net: IpNet = prefix.parse().expect("a prefix");
            assert_eq!(
                receive.accepts(net.addr(), net.prefix_len()),
                want,
                "{prefix}"
            );
        }
    }
}
