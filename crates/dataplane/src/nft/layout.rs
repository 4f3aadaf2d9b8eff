//! The sets of the rule set: names, schemas, and elements as registers hold them.
//!
//! | set | key → value |
//! |---|---|
//! | `front4`, `front6` | address . protocol . port → flags . id . class |
//! | `host4`, `host6` | address . protocol . port → 0 . id . class: this host's own connections |
//! | `slot4`, `slot6` | id . index → address . port |
//! | `member4`, `member6` | id . 0 . address . port: endpoints that clients may be kept at |
//! | `kept4`, `kept6` | client . id → 0 . address . port: where clients were led to; by rules |
//! | `hairpin4`, `hairpin6` | address . address, the same twice |
//! | `range4`, `range6` | id . source range |
//! | `clusterip4`, `clusterip6` | address |
//!
//! An id is 64 bits and shows as two marks in the nft program. No set maps to a verdict: the
//! kernel walks every element of a verdict map whenever one is added. Each name ends in a hash of
//! its schema, so that a set that an older version made and this one understands is kept, and any
//! other is replaced.

use std::net::{IpAddr, SocketAddr};

use linux::nft::{SetSpec, Shape};
use plan::forward::{Class, Element, Front, SlotsId};
use plan::net::Family;
use sha2::{Digest, Sha256};

/// Flag in a front's value: masquerade.
pub(super) const MASQUERADE: u32 = 1;
/// Flag in a front's value: only sources in `range` may connect.
pub(super) const RESTRICTED: u32 = 2;
/// Session affinity in a front's value: its seconds, that many bits up.
pub(super) const KEEP_SHIFT: u32 = 8;
/// The bits of these seconds.
pub(super) const KEEP: u32 = u32::MAX << KEEP_SHIFT;
/// Clients that are kept at their endpoints at once, in one family; more are spread.
const KEPT: u32 = 1 << 20;
/// Class in a front's value: drop. Smaller ones are numbers of slots.
pub(super) const CLASS_DROP: u32 = 1 << 31;
/// Class in a front's value: reject.
pub(super) const CLASS_REJECT: u32 = CLASS_DROP + 1;

/// Bytes of the value of a front or host entry: flags, id, class.
const VALUE: u32 = 16;

/// What a set is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Slot,
    Member,
    Hairpin,
    Range,
    ClusterIp,
    Host,
    Front,
}

/// A set: its use and family. The order is that of [`Element`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SetId(pub(super) Kind, pub(super) Family);

impl SetId {
    /// All sets, those that others lead to first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        use Kind::{ClusterIp, Front, Hairpin, Host, Member, Range, Slot};
        [Slot, Member, Hairpin, Range, ClusterIp, Host, Front]
            .into_iter()
            .flat_map(|kind| [Family::V4, Family::V6].map(|family| Self(kind, family)))
    }

    const fn number(self) -> usize {
        self.0 as usize * 2 + self.1 as usize
    }
}

/// The nft program's numbers of types; a concatenation has six bits for each.
const MARK: u32 = 19;
const fn address_type(family: Family) -> u32 {
    match family {
        Family::V4 => 7,
        Family::V6 => 8,
    }
}

fn concat(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, kind| all << 6 | kind)
}

/// Bytes of an address.
pub(super) const fn address_length(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

/// Eight hexadecimal digits of a digest.
pub(super) fn short_hash(text: &str) -> String {
    let digest = Sha256::digest(text);
    digest
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The sets that elements go to.
#[derive(Clone, Debug)]
pub(super) struct Sets {
    ours: Vec<SetSpec>,
    /// Whose elements come from rules.
    kept: [SetSpec; 2],
}

impl Sets {
    pub(super) fn new() -> Self {
        Self {
            ours: SetId::all().map(schema).collect(),
            kept: [Family::V4, Family::V6].map(kept),
        }
    }

    /// The set `id`.
    pub(super) fn spec(&self, id: SetId) -> &SetSpec {
        &self.ours[id.number()]
    }

    /// The name of the map of clients that are kept at their endpoints.
    pub(super) fn kept(&self, family: Family) -> &str {
        &self.kept[family as usize].name
    }

    /// Its name.
    pub(super) fn name(&self, id: SetId) -> &str {
        &self.spec(id).name
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &SetSpec> {
        self.ours.iter().chain(&self.kept)
    }
}

/// The nft program's numbers of these types.
const PROTOCOL: u32 = 12;
const PORT: u32 = 13;

fn schema(SetId(kind, family): SetId) -> SetSpec {
    let address = address_type(family);
    let length = address_length(family);
    let front = concat(&[address, PROTOCOL, PORT]);
    let (name, key_type, fields, shape) = match kind {
        Kind::Front => {
            let value = Shape::Value(concat(&[MARK; 4]), VALUE);
            ("front", front, vec![length, 1, 2], value)
        }
        Kind::Host => {
            let value = Shape::Value(concat(&[MARK; 4]), VALUE);
            ("host", front, vec![length, 1, 2], value)
        }
        Kind::Slot => {
            let endpoint = concat(&[address, PORT]);
            let value = Shape::Value(endpoint, u32::from(length) + 4);
            ("slot", concat(&[MARK; 3]), vec![4, 4, 4], value)
        }
        Kind::Member => {
            let key = concat(&[MARK, MARK, MARK, address, PORT]);
            ("member", key, vec![4, 4, 4, length, 2], Shape::Key)
        }
        Kind::Hairpin => {
            let pair = concat(&[address, address]);
            ("hairpin", pair, vec![length, length], Shape::Key)
        }
        Kind::Range => {
            let key = concat(&[MARK, MARK, address]);
            ("range", key, vec![4, 4, length], Shape::Key)
        }
        Kind::ClusterIp => ("clusterip", address, vec![length], Shape::Key),
    };
    named(
        name,
        family,
        SetSpec {
            name: String::new(),
            key_type,
            fields,
            shape,
            intervals: kind == Kind::Range,
            dynamic: 0,
        },
    )
}

fn kept(family: Family) -> SetSpec {
    let address = address_type(family);
    let length = address_length(family);
    let value = concat(&[MARK, address, PORT]);
    named(
        "kept",
        family,
        SetSpec {
            name: String::new(),
            key_type: concat(&[address, MARK, MARK]),
            fields: vec![length, 4, 4],
            shape: Shape::Value(value, u32::from(length) + 8),
            intervals: false,
            dynamic: KEPT,
        },
    )
}

/// With the name that says its schema.
fn named(name: &str, family: Family, spec: SetSpec) -> SetSpec {
    // The meaning of the values belongs to the schema too: raise the number when it changes.
    const MEANING: u32 = 2;
    let SetSpec {
        key_type,
        fields,
        shape,
        intervals,
        dynamic,
        ..
    } = &spec;
    let text = format!("{MEANING} {key_type} {fields:?} {shape:?} {intervals} {dynamic}");
    let number = match family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    SetSpec {
        name: format!("{name}{number}-{}", short_hash(&text)),
        ..spec
    }
}

/// Up to 36 bytes without an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bytes {
    length: u8,
    bytes: [u8; 36],
}

impl Bytes {
    pub(super) const EMPTY: Self = Self {
        length: 0,
        bytes: [0; 36],
    };

    /// Appends, padded to four bytes as registers are.
    fn push(mut self, bytes: &[u8]) -> Self {
        let start = usize::from(self.length);
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len().next_multiple_of(4) as u8;
        self
    }

    fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.push(&address.octets()),
            IpAddr::V6(address) => self.push(&address.octets()),
        }
    }

    fn id(self, id: SlotsId) -> Self {
        self.push(&id.bits().to_be_bytes())
    }

    fn word(self, word: u32) -> Self {
        self.push(&word.to_ne_bytes())
    }

    fn port(self, port: u16) -> Self {
        self.push(&port.to_be_bytes())
    }

    fn front(self, front: &Front) -> Self {
        self.address(front.address)
            .push(&[front.protocol.number()])
            .port(front.port)
    }

    fn socket(self, socket: &SocketAddr) -> Self {
        self.address(socket.ip()).port(socket.port())
    }

    /// What the kernel sent, if it can be one of ours.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= 36).then(|| Self::EMPTY.push(bytes))
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or(&[])
    }
}

/// An element as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Encoded {
    pub(super) set: SetId,
    pub(super) key: Bytes,
    pub(super) key_end: Option<Bytes>,
    pub(super) data: Bytes,
}

impl Encoded {
    pub(super) fn new(element: &Element) -> Self {
        let make = |kind, address, key, data| Self {
            set: SetId(kind, Family::of(address)),
            key,
            key_end: None,
            data,
        };
        let none = Bytes::EMPTY;
        match element {
            Element::Slot {
                id,
                index,
                endpoint,
            } => make(
                Kind::Slot,
                endpoint.ip(),
                none.id(*id).word(*index),
                none.socket(endpoint),
            ),
            Element::Member { id, endpoint } => make(
                Kind::Member,
                endpoint.ip(),
                none.id(*id).word(0).socket(endpoint),
                none,
            ),
            Element::Hairpin(address) => make(
                Kind::Hairpin,
                *address,
                none.address(*address).address(*address),
                none,
            ),
            Element::Range { id, sources } => Self {
                set: SetId(Kind::Range, Family::of(sources.network())),
                key: none.id(*id).address(sources.network()),
                key_end: Some(none.id(*id).address(sources.broadcast())),
                data: none,
            },
            Element::ClusterIp(address) => {
                make(Kind::ClusterIp, *address, none.address(*address), none)
            }
            Element::Host {
                front,
                id,
                modulus,
                keep,
            } => make(
                Kind::Host,
                front.address,
                none.front(front),
                none.word(keep << KEEP_SHIFT).id(*id).word(*modulus),
            ),
            Element::Front {
                front,
                id,
                class,
                masquerade,
                restricted,
                keep,
            } => {
                let class = match class {
                    Class::Pick(modulus) => *modulus,
                    Class::Drop => CLASS_DROP,
                    Class::Reject => CLASS_REJECT,
                };
                let flags = if *masquerade { MASQUERADE } else { 0 }
                    | if *restricted { RESTRICTED } else { 0 }
                    | keep << KEEP_SHIFT;
                make(
                    Kind::Front,
                    front.address,
                    none.front(front),
                    none.word(flags).id(*id).word(class),
                )
            }
        }
    }

    /// As a message has it: with its value to be added, without to be deleted.
    pub(super) fn element(&self, with_data: bool) -> linux::nft::Element<'_> {
        let data = self.data.as_slice();
        linux::nft::Element {
            key: self.key.as_slice(),
            key_end: self.key_end.as_ref().map(Bytes::as_slice),
            data: if with_data && !data.is_empty() {
                linux::nft::Data::Value(data)
            } else {
                linux::nft::Data::None
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_fits_its_set() {
        let sets = Sets::new();
        let mut names: Vec<_> = sets.iter().map(|set| set.name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 16);
        for address in ["10.0.0.1", "2001:db8::1"] {
            let address: IpAddr = address.parse().unwrap();
            let front = Front {
                address,
                protocol: plan::net::Protocol::Udp,
                port: 53,
            };
            let id = SlotsId::new(8);
            let elements = [
                Element::Slot {
                    id,
                    index: 3,
                    endpoint: SocketAddr::new(address, 5353),
                },
                Element::Member {
                    id,
                    endpoint: SocketAddr::new(address, 5353),
                },
                Element::Hairpin(address),
                Element::Range {
                    id,
                    sources: address.into(),
                },
                Element::ClusterIp(address),
                Element::Host {
                    front,
                    id,
                    modulus: 2,
                    keep: 10800,
                },
                Element::Front {
                    front,
                    id,
                    class: Class::Pick(2),
                    masquerade: true,
                    restricted: true,
                    keep: 86400,
                },
            ];
            for element in elements {
                let encoded = Encoded::new(&element);
                let spec = sets.spec(encoded.set);
                assert_eq!(encoded.key.as_slice().len() as u32, spec.key_length());
                let value = match spec.shape {
                    Shape::Value(_, length) => length,
                    _ => 0,
                };
                assert_eq!(encoded.data.as_slice().len() as u32, value, "{element:?}");
                assert_eq!(encoded.key_end.is_some(), spec.intervals);
            }
        }
    }
}
