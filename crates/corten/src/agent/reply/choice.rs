//! What an operator chose: which interfaces, which gateways, which bits of marks.

use std::net::IpAddr;
use std::str::FromStr;

use linux::netlink::Interface;

use crate::agent::exclude::Exclude;
use crate::agent::interfaces::fit;

/// Interfaces that get a number, at most.
pub(super) const NUMBERS: u32 = 15;

/// An interface by name, or all whose names begin so; with a gateway, where routes do not say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    name: String,
    is_prefix: bool,
    gateway: Option<IpAddr>,
}

impl FromStr for Chosen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, gateway) = match text.split_once('=') {
            Some((name, gateway)) => {
                let gateway: IpAddr = gateway
                    .parse()
                    .map_err(|_| format!("{gateway:?} is no gateway's address"))?;
                (name, Some(gateway))
            }
            None => (text, None),
        };
        let (name, is_prefix) = match name.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (name, false),
        };
        // IFNAMSIZ has room for fifteen.
        let fits =
            name.len() < 16 && !name.contains(['/', '*']) && !name.contains(char::is_whitespace);
        if !fits || (name.is_empty() && !is_prefix) {
            return Err(format!(
                "{text:?} is no INTERFACE, PREFIX* or INTERFACE=GATEWAY"
            ));
        }
        if is_prefix && gateway.is_some() {
            return Err(format!("{text:?}: a gateway belongs to one interface"));
        }
        Ok(Self {
            name: name.to_owned(),
            is_prefix,
            gateway,
        })
    }
}

/// The bits of a connection's mark, and of a packet's, that hold a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask(u32);

impl Default for Mask {
    /// Not kube-proxy's (14, 15); who else uses which is in docs/several-interfaces.md.
    fn default() -> Self {
        Self(0x0f00_0000)
    }
}

impl FromStr for Mask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let bits = u32::from_str_radix(digits, 16).unwrap_or(0);
        let whole = bits >> bits.trailing_zeros().min(31);
        if bits == 0 || whole > NUMBERS || !(whole + 1).is_power_of_two() {
            return Err(format!(
                "{text:?} is no mask of one to four neighbouring bits, like 0xf000000"
            ));
        }
        Ok(Self(bits))
    }
}

impl Mask {
    /// The bits.
    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    /// The largest number that fits.
    pub(super) const fn largest(self) -> u32 {
        self.0 >> self.0.trailing_zeros()
    }

    /// The number in its place.
    pub(super) const fn mark(self, number: u32) -> u32 {
        number << self.0.trailing_zeros()
    }

    /// The number in a mark.
    pub(super) const fn number(self, mark: u32) -> u32 {
        (mark & self.0) >> self.0.trailing_zeros()
    }
}

/// All of it; without interfaces nothing is done.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Which interfaces.
    pub interfaces: Vec<Chosen>,
    /// Which bits.
    pub mask: Mask,
    /// What a PREFIX* does not mean: Pods' ends and the devices of CNIs. What layer 2 leaves out by
    /// configuration may have requests by BGP.
    pub others: Exclude,
}

impl Choice {
    /// Whether replies to what comes in by this interface are to leave by it.
    pub(super) fn has(&self, interface: &Interface) -> bool {
        !interface.flags.loopback
            && self.interfaces.iter().any(|chosen| match chosen.is_prefix {
                true => interface.name.starts_with(&chosen.name) && self.could_announce(interface),
                false => interface.name == chosen.name,
            })
    }

    /// Whether it is a way out of the node, be it up or not.
    fn could_announce(&self, interface: &Interface) -> bool {
        let interface = Interface {
            up: true,
            carrier: true,
            ..interface.clone()
        };
        fit(&interface, &self.others)
    }

    /// The gateway of this interface and family that was given.
    pub(super) fn gateway(&self, interface: &str, v6: bool) -> Option<IpAddr> {
        let mut given = self.interfaces.iter().filter(|it| it.name == interface);
        given.find_map(|it| it.gateway.filter(|gateway| gateway.is_ipv6() == v6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_operators_write() {
        for good in [
            "eth1",
            "eth0.100",
            "bond*",
            "*",
            "eth1=192.0.2.1",
            "eth1=fd00::1",
        ] {
            good.parse::<Chosen>().expect(good);
        }
        for bad in [
            "",
            "=192.0.2.1",
            "eth1=",
            "eth1=x",
            "e*1",
            "*=192.0.2.1",
            "a b",
            "sixteenletters00",
        ] {
            assert!(bad.parse::<Chosen>().is_err(), "{bad:?}");
        }
        let choice = Choice {
            interfaces: ["eth1=192.0.2.1", "eth1=fd00::1", "eth2"]
                .map(|text| text.parse().expect("good"))
                .to_vec(),
            ..Choice::default()
        };
        let gateway = |name, v6| choice.gateway(name, v6).map(|it| it.to_string());
        assert_eq!(gateway("eth1", false).as_deref(), Some("192.0.2.1"));
        assert_eq!(gateway("eth1", true).as_deref(), Some("fd00::1"));
        assert_eq!(gateway("eth2", true), None);
    }

    #[test]
    fn a_mask_is_a_few_neighbouring_bits() {
        for (text, largest) in [("0xf000000", 15), ("30", 3), ("80000000", 1), ("0x7", 7)] {
            let mask: Mask = text.parse().expect(text);
            assert_eq!(mask.largest(), largest);
            assert_eq!(mask.number(mask.mark(largest) | !mask.bits()), largest);
        }
        for bad in ["", "0", "0x5", "ff", "xyz", "0x100000000", "ffffffff"] {
            assert!(bad.parse::<Mask>().is_err(), "{bad:?}");
        }
    }
}
