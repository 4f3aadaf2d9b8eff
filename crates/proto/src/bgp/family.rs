//! Address families.

use std::{fmt, net::IpAddr};

/// A pair as the wire has it, known to us or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AfiSafi {
    /// Address family identifier: 1 IPv4, 2 IPv6.
    pub afi: u16,
    /// Subsequent address family identifier: 1 unicast.
    pub safi: u8,
}

impl From<Family> for AfiSafi {
    fn from(family: Family) -> Self {
        Self {
            afi: family.afi(),
            safi: 1,
        }
    }
}

/// A family that we carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 unicast.
    Ipv4,
    /// IPv6 unicast.
    Ipv6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// `None`: a family that we do not carry.
    pub fn of(pair: AfiSafi) -> Option<Self> {
        match (pair.afi, pair.safi) {
            (1, 1) => Some(Self::Ipv4),
            (2, 1) => Some(Self::Ipv6),
            _ => None,
        }
    }

    /// Of an address.
    pub fn of_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// Its number.
    pub const fn afi(self) -> u16 {
        match self {
            Self::Ipv4 => 1,
            Self::Ipv6 => 2,
        }
    }

    /// Bits of an address.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4 unicast",
            Self::Ipv6 => "IPv6 unicast",
        })
    }
}

/// A set of families.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Families {
    ipv4: bool,
    ipv6: bool,
}

impl Families {
    /// None of them.
    pub const NONE: Self = Self {
        ipv4: false,
        ipv6: false,
    };
    /// All of them.
    pub const ALL: Self = Self {
        ipv4: true,
        ipv6: true,
    };

    /// Whether the family is in it.
    pub fn contains(self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }

    /// Puts one in.
    pub fn insert(&mut self, family: Family) {
        self.set(family, true);
    }

    /// Takes one out.
    pub fn remove(&mut self, family: Family) {
        self.set(family, false);
    }

    fn set(&mut self, family: Family, value: bool) {
        match family {
            Family::Ipv4 => self.ipv4 = value,
            Family::Ipv6 => self.ipv6 = value,
        }
    }

    /// Those in both sets.
    pub fn and(self, other: Self) -> Self {
        Self {
            ipv4: self.ipv4 && other.ipv4,
            ipv6: self.ipv6 && other.ipv6,
        }
    }

    /// Those that are not in the other set.
    pub fn without(self, other: Self) -> Self {
        Self {
            ipv4: self.ipv4 && !other.ipv4,
            ipv6: self.ipv6 && !other.ipv6,
        }
    }

    /// Whether none is in it.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL
            .into_iter()
            .filter(move |family| self.contains(*family))
    }
}

impl FromIterator<Family> for Families {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        let mut set = Self::NONE;
        for family in families {
            set.insert(family);
        }
        set
    }
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.ipv4, self.ipv6) {
            (true, true) => "IPv4 and IPv6",
            (true, false) => "IPv4",
            (false, true) => "IPv6",
            (false, false) => "none",
        })
    }
}

impl fmt::Debug for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
