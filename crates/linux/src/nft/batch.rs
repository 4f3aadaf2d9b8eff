//! One transaction: messages between a begin and an end marker.
//!
//! Every message has a sequence number, so that the kernel's error names it. A message about
//! elements stays below 64 KiB, the limit of one attribute; longer lists take several.

use std::ops::Range;

use super::attr::Attrs;
use super::expr::{Expr, Verdict};

/// nfnetlink's subsystem number of nf_tables, in the upper byte of a message's type.
pub(super) const SUBSYSTEM: u16 = 10;

/// The family that a table is of: which packets come to its chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4 and IPv6 packets in the host.
    Inet = 1,
    /// IPv4 packets in the host. Programs named `iptables` keep their tables here.
    Ip = 2,
    /// All frames that a network device receives.
    Netdev = 5,
    /// IPv6 packets in the host.
    Ip6 = 10,
}

/// Room for elements in one message; the attribute around them holds 65535 bytes.
const ELEMENT_BYTES: usize = 60 * 1024;

/// The table belongs to the socket that made it; nobody else can change it.
pub const TABLE_OWNER: u32 = 0x2;
/// An owned table stays when its owner's socket closes (kernel 6.9).
pub const TABLE_PERSIST: u32 = 0x4;

pub(super) mod message {
    //! Message types of nf_tables.
    pub(crate) const NEW_TABLE: u16 = 0;
    pub(crate) const GET_TABLE: u16 = 1;
    pub(crate) const DEL_TABLE: u16 = 2;
    pub(crate) const NEW_CHAIN: u16 = 3;
    pub(crate) const GET_CHAIN: u16 = 4;
    pub(crate) const DEL_CHAIN: u16 = 5;
    pub(crate) const NEW_RULE: u16 = 6;
    pub(crate) const GET_RULE: u16 = 7;
    pub(crate) const DEL_RULE: u16 = 8;
    pub(crate) const NEW_SET: u16 = 9;
    pub(crate) const GET_SET: u16 = 10;
    pub(crate) const DEL_SET: u16 = 11;
    pub(crate) const NEW_ELEMENTS: u16 = 12;
    pub(crate) const GET_ELEMENTS: u16 = 13;
    pub(crate) const DEL_ELEMENTS: u16 = 14;
    pub(crate) const GET_GENERATION: u16 = 16;
}

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
pub(super) const NLM_F_REQUEST: u16 = 0x1;
pub(super) const NLM_F_ACK: u16 = 0x4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

/// Where a base chain hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Hook {
    /// All packets that come in.
    Prerouting = 0,
    /// Those for this host.
    Input = 1,
    /// Those that pass through.
    Forward = 2,
    /// Those that this host makes.
    Output = 3,
    /// All packets that leave.
    Postrouting = 4,
}

/// A base chain's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flow {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of a connection and may rewrite it.
    Nat,
    /// Sees every packet that this host makes, and has it routed anew where its mark changed.
    Route,
}

/// A chain, to be created.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChainSpec {
    /// Its name.
    pub name: String,
    /// What it hangs on, with its priority there; `None` for one that is jumped to.
    pub base: Option<(Flow, Hook, i32)>,
}

/// What an element of a set is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// A set.
    Key,
    /// A map to a value of this type and length.
    Value(u32, u32),
    /// A map to a verdict.
    Verdict,
}

/// A set or map, to be created.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetSpec {
    /// Its name.
    pub name: String,
    /// The key's type as the nft program numbers types: only for display.
    pub key_type: u32,
    /// Lengths of the key's fields in bytes, each padded to four in the key.
    pub fields: Vec<u8>,
    /// Map or set.
    pub shape: Shape,
    /// Elements are ranges in each field, and the set says which contains a key.
    pub intervals: bool,
    /// Rules add elements to it, at most so many; they go by themselves after a time. 0: only we
    /// add.
    pub dynamic: u32,
}

impl SetSpec {
    /// The key's length in bytes.
    pub fn key_length(&self) -> u32 {
        self.fields
            .iter()
            .map(|field| u32::from(*field).next_multiple_of(4))
            .sum()
    }
}

/// What an element maps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// Nothing: an element of a set, or one to be deleted.
    None,
    /// Bytes as a register holds them.
    Value(&'a [u8]),
    /// A verdict.
    Verdict(&'a Verdict),
}

/// An element of a set, to be added or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// The key as registers hold it.
    pub key: &'a [u8],
    /// The last key of a range, inclusive.
    pub key_end: Option<&'a [u8]>,
    /// What it maps to.
    pub data: Data<'a>,
}

/// A message's number in its batch.
pub type Number = u32;

/// Messages that take effect together: of one table, or of several ([`Batch::turn_to`]).
#[derive(Clone, Debug)]
pub struct Batch {
    family: Family,
    table: String,
    bytes: Vec<u8>,
    /// Where the last message starts; the kernel is asked to confirm that one.
    last: usize,
    next: Number,
}

impl Batch {
    /// An empty batch for the `inet` table `table`.
    pub fn new(table: &str) -> Self {
        Self::of(Family::Inet, table)
    }

    /// An empty batch for a table of any family.
    pub fn of(family: Family, table: &str) -> Self {
        let mut batch = Self {
            family,
            table: table.to_owned(),
            bytes: Vec::with_capacity(4096),
            last: 0,
            next: 1,
        };
        batch.marker(BATCH_BEGIN, 0);
        batch.last = 0;
        batch
    }

    /// Makes the following messages concern another table.
    pub fn turn_to(&mut self, family: Family, table: &str) {
        self.family = family;
        table.clone_into(&mut self.table);
    }

    /// No message has been added.
    pub const fn is_empty(&self) -> bool {
        self.next == 1
    }

    /// Its length so far in bytes.
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The number that the next message will have.
    pub const fn next_number(&self) -> Number {
        self.next
    }

    /// Creates the table, or changes its flags.
    pub fn add_table(&mut self, flags: u32) -> Number {
        self.message(message::NEW_TABLE, NLM_F_CREATE, |attrs, table| {
            attrs.string(1, table);
            attrs.u32(2, flags);
        })
    }

    /// Deletes the table with all that is in it.
    pub fn delete_table(&mut self) -> Number {
        self.message(message::DEL_TABLE, 0, |attrs, table| attrs.string(1, table))
    }

    /// Creates a chain; one that is there already stays.
    pub fn add_chain(&mut self, chain: &ChainSpec) -> Number {
        self.message(message::NEW_CHAIN, NLM_F_CREATE, |attrs, table| {
            attrs.string(1, table);
            attrs.string(3, &chain.name);
            if let Some((flow, hook, priority)) = chain.base {
                attrs.nest(4, |nest| {
                    nest.u32(1, hook as u32);
                    nest.u32(2, priority as u32);
                });
                attrs.u32(5, 1); // policy accept
                attrs.string(
                    7,
                    match flow {
                        Flow::Filter => "filter",
                        Flow::Nat => "nat",
                        Flow::Route => "route",
                    },
                );
            }
        })
    }

    /// Creates a base chain for what one network device receives, before all else looks at it
    /// (family [`Family::Netdev`]). It goes with the device.
    pub fn add_ingress_chain(&mut self, name: &str, device: &str, priority: i32) -> Number {
        const NF_NETDEV_INGRESS: u32 = 0;
        self.message(message::NEW_CHAIN, NLM_F_CREATE, |attrs, table| {
            attrs.string(1, table);
            attrs.string(3, name);
            attrs.nest(4, |nest| {
                nest.u32(1, NF_NETDEV_INGRESS);
                nest.u32(2, priority as u32);
                nest.string(3, device);
            });
            attrs.u32(5, 1); // policy accept
            attrs.string(7, "filter");
        })
    }

    /// Deletes a chain that nothing refers to.
    pub fn delete_chain(&mut self, name: &str) -> Number {
        self.message(message::DEL_CHAIN, 0, |attrs, table| {
            attrs.string(1, table);
            attrs.string(3, name);
        })
    }

    /// Appends a rule to `chain`, with `mark` as its user data.
    pub fn add_rule(&mut self, chain: &str, exprs: &[Expr], mark: &[u8]) -> Number {
        self.message(
            message::NEW_RULE,
            NLM_F_CREATE | NLM_F_APPEND,
            |attrs, table| {
                attrs.string(1, table);
                attrs.string(2, chain);
                attrs.nest(4, |list| {
                    for expr in exprs {
                        expr.encode(list);
                    }
                });
                attrs.bytes(7, mark);
            },
        )
    }

    /// Deletes every rule of the table.
    pub fn delete_rules(&mut self) -> Number {
        self.message(message::DEL_RULE, 0, |attrs, table| attrs.string(1, table))
    }

    /// Deletes one rule.
    pub fn delete_rule(&mut self, chain: &str, handle: u64) -> Number {
        self.message(message::DEL_RULE, 0, |attrs, table| {
            attrs.string(1, table);
            attrs.string(2, chain);
            attrs.u64(3, handle);
        })
    }

    /// Deletes every rule of a chain.
    pub fn flush_chain(&mut self, chain: &str) -> Number {
        self.message(message::DEL_RULE, 0, |attrs, table| {
            attrs.string(1, table);
            attrs.string(2, chain);
        })
    }

    /// Creates a set or map.
    pub fn add_set(&mut self, set: &SetSpec) -> Number {
        const INTERVAL: u32 = 0x4;
        const MAP: u32 = 0x8;
        const TIMEOUT_AND_EVAL: u32 = 0x30;
        const CONCAT: u32 = 0x80;
        const TYPE_VERDICT: u32 = 0xffff_ff00;
        let id = self.next;
        self.message(message::NEW_SET, NLM_F_CREATE, |attrs, table| {
            let mut flags = 0;
            if set.intervals {
                flags |= INTERVAL | CONCAT;
            }
            if set.shape != Shape::Key {
                flags |= MAP;
            }
            if set.dynamic > 0 {
                flags |= TIMEOUT_AND_EVAL;
            }
            attrs.string(1, table);
            attrs.string(2, &set.name);
            attrs.u32(3, flags);
            attrs.u32(4, set.key_type);
            attrs.u32(5, set.key_length());
            match set.shape {
                Shape::Key => {}
                Shape::Value(kind, length) => {
                    attrs.u32(6, kind);
                    attrs.u32(7, length);
                }
                Shape::Verdict => {
                    attrs.u32(6, TYPE_VERDICT);
                    attrs.u32(7, 16);
                }
            }
            if set.intervals {
                attrs.nest(9, |desc| {
                    desc.nest(2, |concat| {
                        for field in &set.fields {
                            concat.nest(1, |elem| elem.u32(1, u32::from(*field)));
                        }
                    });
                });
            }
            if set.dynamic > 0 {
                attrs.nest(9, |desc| desc.u32(1, set.dynamic));
            }
            attrs.u32(10, id);
        })
    }

    /// Creates a set of Ethernet addresses, six bytes each.
    pub fn add_mac_set(&mut self, name: &str) -> Number {
        const TYPE_ETHERADDR: u32 = 9;
        let id = self.next;
        self.message(message::NEW_SET, NLM_F_CREATE, |attrs, table| {
            attrs.string(1, table);
            attrs.string(2, name);
            attrs.u32(3, 0);
            attrs.u32(4, TYPE_ETHERADDR);
            attrs.u32(5, 6);
            attrs.u32(10, id);
        })
    }

    /// Deletes a set that no rule refers to.
    pub fn delete_set(&mut self, name: &str) -> Number {
        self.message(message::DEL_SET, 0, |attrs, table| {
            attrs.string(1, table);
            attrs.string(2, name);
        })
    }

    /// Deletes every element of a set.
    pub fn flush_set(&mut self, name: &str) -> Number {
        self.message(message::DEL_ELEMENTS, 0, |attrs, table| {
            attrs.string(1, table);
            attrs.string(2, name);
        })
    }

    /// Adds elements to a set; one that is there already with the same value is no error.
    pub fn add_elements<'e>(
        &mut self,
        set: &str,
        elements: impl IntoIterator<Item = Element<'e>>,
    ) -> Range<Number> {
        self.elements(message::NEW_ELEMENTS, NLM_F_CREATE, set, elements)
    }

    /// Deletes elements from a set; one that is absent is an error.
    pub fn delete_elements<'e>(
        &mut self,
        set: &str,
        elements: impl IntoIterator<Item = Element<'e>>,
    ) -> Range<Number> {
        self.elements(message::DEL_ELEMENTS, 0, set, elements)
    }

    fn elements<'e>(
        &mut self,
        kind: u16,
        flags: u16,
        set: &str,
        elements: impl IntoIterator<Item = Element<'e>>,
    ) -> Range<Number> {
        let first = self.next;
        let mut left = elements.into_iter().peekable();
        while left.peek().is_some() {
            self.message(kind, flags, |attrs, table| {
                attrs.string(1, table);
                attrs.string(2, set);
                attrs.nest(3, |list| {
                    let limit = list.len() + ELEMENT_BYTES;
                    while list.len() < limit
                        && let Some(element) = left.next()
                    {
                        list.nest(1, |attrs| element.encode(attrs));
                    }
                });
            });
        }
        first..self.next
    }

    /// The bytes to send. Without `commit` the kernel checks all and applies nothing.
    pub(super) fn finish(mut self, commit: bool) -> Vec<u8> {
        // The flags are a native-endian word at byte 6 of the header.
        if let Some(flags) = self.bytes.get_mut(self.last + 6..self.last + 8) {
            for (byte, bit) in flags.iter_mut().zip(NLM_F_ACK.to_ne_bytes()) {
                *byte |= bit;
            }
        }
        if commit {
            self.marker(BATCH_END, self.next);
        }
        self.bytes
    }

    fn marker(&mut self, kind: u16, seq: Number) {
        self.header(kind, NLM_F_REQUEST, seq, 0, SUBSYSTEM);
        let start = self.last;
        self.close(start);
    }

    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Attrs<'_>, &str),
    ) -> Number {
        let number = self.next;
        self.next += 1;
        let start = self.bytes.len();
        self.header(
            SUBSYSTEM << 8 | kind,
            NLM_F_REQUEST | flags,
            number,
            self.family as u8,
            0,
        );
        body(&mut Attrs::new(&mut self.bytes), &self.table);
        self.close(start);
        number
    }

    fn header(&mut self, kind: u16, flags: u16, seq: Number, family: u8, resource: u16) {
        self.last = self.bytes.len();
        header(&mut self.bytes, kind, flags, seq, family, resource);
    }

    fn close(&mut self, start: usize) {
        close(&mut self.bytes, start);
    }
}

/// Appends a netlink header and nfnetlink's own.
pub(super) fn header(
    out: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    seq: Number,
    family: u8,
    resource: u16,
) {
    out.extend_from_slice(&[0; 4]); // length, set by close
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&seq.to_ne_bytes());
    out.extend_from_slice(&[0; 4]); // port, the kernel knows it
    out.extend_from_slice(&[family, 0]);
    out.extend_from_slice(&resource.to_be_bytes());
}

/// Sets the length of the message that starts at `start` and ends here.
pub(super) fn close(out: &mut [u8], start: usize) {
    let length = (out.len() - start) as u32;
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_ne_bytes());
    }
}

impl Element<'_> {
    fn encode(&self, attrs: &mut Attrs<'_>) {
        attrs.nest(1, |key| key.bytes(1, self.key));
        if let Some(end) = self.key_end {
            attrs.nest(10, |key| key.bytes(1, end));
        }
        match self.data {
            Data::None => {}
            Data::Value(value) => attrs.nest(2, |data| data.bytes(1, value)),
            Data::Verdict(verdict) => attrs.nest(2, |data| verdict.encode(data)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a batch into (type, flags, seq, payload).
    fn messages(bytes: &[u8]) -> Vec<(u16, u16, u32, &[u8])> {
        let mut rest = bytes;
        let mut found = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
            let kind = u16::from_ne_bytes(rest[4..6].try_into().unwrap());
            let flags = u16::from_ne_bytes(rest[6..8].try_into().unwrap());
            let seq = u32::from_ne_bytes(rest[8..12].try_into().unwrap());
            found.push((kind, flags, seq, &rest[20..length]));
            assert_eq!(length % 4, 0);
            rest = &rest[length..];
        }
        found
    }

    #[test]
    fn a_batch_is_framed_and_its_last_message_asks_for_confirmation() {
        let mut batch = Batch::new("t");
        assert!(batch.is_empty());
        assert_eq!(batch.add_table(0), 1);
        assert_eq!(batch.delete_rules(), 2);
        let bytes = batch.finish(true);
        let found = messages(&bytes);
        let kinds: Vec<_> = found.iter().map(|m| (m.0, m.2)).collect();
        assert_eq!(kinds, [(16, 0), (0xa00, 1), (0xa08, 2), (17, 3)]);
        assert_eq!(found[1].1 & NLM_F_ACK, 0);
        assert_eq!(found[2].1, NLM_F_REQUEST | NLM_F_ACK);
    }

    #[test]
    fn without_commit_there_is_no_end_marker() {
        let mut batch = Batch::new("t");
        batch.add_table(0);
        let bytes = batch.finish(false);
        assert_eq!(messages(&bytes).last().unwrap().0, 0xa00);
    }

    #[test]
    fn a_long_list_of_elements_takes_several_messages() {
        let mut batch = Batch::new("t");
        let keys: Vec<_> = (0u32..10_000).map(u32::to_be_bytes).collect();
        let elements = keys.iter().map(|key| Element {
            key,
            key_end: None,
            data: Data::None,
        });
        let numbers = batch.add_elements("s", elements);
        assert!(numbers.len() > 1, "{numbers:?}");
        let bytes = batch.finish(true);
        let mut count = 0;
        for (kind, _, _, payload) in messages(&bytes) {
            if kind != 0xa0c {
                continue;
            }
            assert!(payload.len() < 65_536);
            let list = super::super::attr::Reader::new(payload)
                .find(3)
                .unwrap()
                .unwrap();
            count += list.nested().count();
        }
        assert_eq!(count, keys.len());
    }
}
