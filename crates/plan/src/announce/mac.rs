//! The MAC address of an address's own, with which it answers wherever it is (design.md §4.4): a
//! pure function of the address, so that nodes need not tell each other.
//!
//! All are locally administered unicast addresses in the quadrant that administrators assign
//! (IEEE 802c). An IPv4 address is in its MAC address, which people can read, and no two have the
//! same. Of an IPv6 address there is a hash of 40 bits: for a thousand of them on one segment the
//! odds that two are equal are one to two million.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The first two octets for IPv4.
const V4: [u8; 2] = [0x02, 0xc0];
/// The first octet for IPv6.
const V6: u8 = 0x12;

/// A MAC address that belongs to a service address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VirtualMac(pub [u8; 6]);

impl From<IpAddr> for VirtualMac {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => {
                let ([a, b, c, d], [first, second]) = (address.octets(), V4);
                Self([first, second, a, b, c, d])
            }
            IpAddr::V6(address) => {
                let hash: [u8; 32] = Sha256::digest(address.octets()).into();
                let [a, b, c, d, e, ..] = hash;
                Self([V6, a, b, c, d, e])
            }
        }
    }
}

impl fmt::Display for VirtualMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn mac(text: &str) -> String {
        VirtualMac::from(text.parse::<IpAddr>().unwrap()).to_string()
    }

    /// Other nodes, of other versions too, must come to the same: these do not change.
    #[test]
    fn vectors() {
        assert_eq!(mac("10.0.0.101"), "02:c0:0a:00:00:65");
        assert_eq!(mac("192.168.255.1"), "02:c0:c0:a8:ff:01");
        assert_eq!(mac("fd00::101"), "12:fd:42:38:e6:79");
    }

    #[test]
    fn neighbours_are_spread() {
        let address = |n: u16| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n));
        let macs: BTreeSet<VirtualMac> = (0..=u16::MAX).map(|n| address(n).into()).collect();
        assert_eq!(macs.len(), 0x1_0000);
        for octet in 1..6 {
            let mut count = [0u32; 256];
            macs.iter()
                .for_each(|mac| count[usize::from(mac.0[octet])] += 1);
            assert!(
                count.iter().all(|n| (128..=384).contains(n)),
                "{octet}: {count:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn all_are_unicast_and_locally_administered(v4 in any::<[u8; 4]>(), v6 in any::<[u8; 16]>()) {
            for address in [IpAddr::from(v4), IpAddr::from(v6)] {
                let VirtualMac([first, ..]) = address.into();
                // Group bit off, local bit on, and the quadrant's two bits off.
                prop_assert_eq!(first & 0x0f, 0x02);
            }
        }

        #[test]
        fn no_two_ipv4_addresses_share_one(a in any::<u32>(), b in any::<u32>()) {
            let mac = |bits: u32| VirtualMac::from(IpAddr::from(Ipv4Addr::from(bits)));
            prop_assert_eq!(mac(a) == mac(b), a == b);
        }
    }
}
