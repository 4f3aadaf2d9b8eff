//! The expressions that rules are made of, and their encoding.
//!
//! Registers are the sixteen 4-byte ones, named here 0 to 15; a value longer than four bytes
//! occupies the following ones too. Source: `include/uapi/linux/netfilter/nf_tables.h`.

use super::attr::Attrs;

/// A 4-byte register, 0 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reg(pub u8);

impl Reg {
    fn number(self) -> u32 {
        const NFT_REG32_00: u32 = 8;
        NFT_REG32_00 + u32::from(self.0)
    }
}

/// `meta` keys used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Meta {
    /// The packet's mark.
    Mark = 3,
    /// The index of the interface that it came in by.
    Iif = 4,
    /// That interface's name: sixteen bytes with final zeros.
    InterfaceName = 6,
    /// The packet's family: 2 is IPv4, 10 is IPv6.
    NfProto = 15,
    /// The transport protocol's number.
    L4Proto = 16,
    /// Whom a frame is for (`PACKET_HOST`, ...), one byte.
    PacketType = 19,
}

/// Where a payload load counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Base {
    /// The Ethernet header.
    Link = 0,
    /// The IP header.
    Network = 1,
    /// The TCP, UDP or SCTP header.
    Transport = 2,
}

/// `ct` keys used here; those of one direction ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ct {
    /// State bits: [`Ct::STATE_NEW`].
    State,
    /// Which way the packet goes, one byte: [`Ct::ORIGINAL`], [`Ct::REPLY`].
    Direction,
    /// Status bits: [`Ct::STATUS_DNAT`].
    Status,
    /// The connection's mark.
    Mark,
    /// Port that the client connected to.
    OriginalPort,
    /// IPv4 address that the client connected to.
    OriginalAddress4,
    /// IPv6 address that the client connected to.
    OriginalAddress6,
    /// Port that the client connected from.
    OriginalSourcePort,
    /// IPv4 address that the client connected from.
    OriginalSource4,
    /// IPv6 address that the client connected from.
    OriginalSource6,
    /// Port that replies are sent to.
    ReplyPort,
    /// IPv4 address that replies are sent to.
    ReplyAddress4,
    /// IPv6 address that replies are sent to.
    ReplyAddress6,
}

impl Ct {
    /// `NF_CT_STATE_BIT(IP_CT_NEW)`.
    pub const STATE_NEW: u32 = 1 << 3;
    /// `IPS_SRC_NAT`.
    pub const STATUS_SNAT: u32 = 1 << 4;
    /// `IPS_DST_NAT`.
    pub const STATUS_DNAT: u32 = 1 << 5;
    /// As the connection's first packet.
    pub const ORIGINAL: u8 = 0;
    /// The other way.
    pub const REPLY: u8 = 1;

    const fn key(self) -> u32 {
        match self {
            Self::State => 0,
            Self::Direction => 1,
            Self::Status => 2,
            Self::Mark => 3,
            Self::OriginalSourcePort => 11,
            Self::OriginalPort | Self::ReplyPort => 12,
            Self::OriginalSource4 => 19,
            Self::OriginalAddress4 | Self::ReplyAddress4 => 20,
            Self::OriginalSource6 => 21,
            Self::OriginalAddress6 | Self::ReplyAddress6 => 22,
        }
    }

    /// The direction that the key asks of, if it asks of one.
    const fn direction(self) -> Option<u8> {
        match self {
            Self::State | Self::Direction | Self::Status | Self::Mark => None,
            Self::ReplyPort | Self::ReplyAddress4 | Self::ReplyAddress6 => Some(Self::REPLY),
            _ => Some(Self::ORIGINAL),
        }
    }
}

/// How `Cmp` compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Op {
    /// Go on when equal.
    Eq = 0,
    /// Go on when different.
    Neq = 1,
}

/// What a rule does to an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum SetOp {
    /// Add it unless it is there.
    Add = 0,
    /// Add it, or let its time begin anew; its value stays.
    Update = 1,
    /// Take it out if it is there.
    Delete = 2,
}

/// An address family as nat and masquerade spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum NfProto {
    /// IPv4.
    V4 = 2,
    /// IPv6.
    V6 = 10,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Discard it.
    Drop,
    /// End this chain.
    Return,
    /// Continue in the named chain and do not come back.
    Goto(String),
}

impl Verdict {
    pub(super) fn encode(&self, attrs: &mut Attrs<'_>) {
        const NFTA_DATA_VERDICT: u16 = 2;
        const NFTA_VERDICT_CODE: u16 = 1;
        const NFTA_VERDICT_CHAIN: u16 = 2;
        attrs.nest(NFTA_DATA_VERDICT, |verdict| match self {
            Self::Drop => verdict.u32(NFTA_VERDICT_CODE, 0),
            Self::Return => verdict.u32(NFTA_VERDICT_CODE, (-5i32) as u32),
            Self::Goto(chain) => {
                verdict.u32(NFTA_VERDICT_CODE, (-4i32) as u32);
                verdict.string(NFTA_VERDICT_CHAIN, chain);
            }
        });
    }
}

/// One expression.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// Load packet metadata.
    Meta {
        /// What.
        key: Meta,
        /// Where to.
        to: Reg,
    },
    /// Change packet metadata.
    SetMeta {
        /// What.
        key: Meta,
        /// Where from.
        from: Reg,
    },
    /// Load bytes of the packet.
    Payload {
        /// Counted from here.
        base: Base,
        /// First byte.
        offset: u32,
        /// How many.
        length: u32,
        /// Where to.
        to: Reg,
    },
    /// Write an address into the IP header; the checksums go with it.
    SetAddress {
        /// Whose header.
        family: NfProto,
        /// First byte of the address in it.
        offset: u32,
        /// Where it begins.
        from: Reg,
    },
    /// Write a port into the TCP or UDP header; its checksum goes with it.
    SetPort {
        /// First byte.
        offset: u32,
        /// First byte of the checksum.
        checksum: u32,
        /// Where it is.
        from: Reg,
    },
    /// Count the packets that come so far.
    Counter,
    /// Load a fact about the connection.
    Ct {
        /// What.
        key: Ct,
        /// Where to.
        to: Reg,
    },
    /// Load a constant, a native-endian word.
    Word {
        /// Where to.
        to: Reg,
        /// It.
        value: u32,
    },
    /// Load a constant of up to 16 bytes.
    Bytes {
        /// Where to.
        to: Reg,
        /// It.
        value: Vec<u8>,
    },
    /// Keep the bits in `mask`.
    Mask {
        /// From here.
        from: Reg,
        /// Where to.
        to: Reg,
        /// A native-endian word.
        mask: u32,
    },
    /// Set the bits in `bits`, leave the others.
    Or {
        /// From here.
        from: Reg,
        /// Where to.
        to: Reg,
        /// A native-endian word.
        bits: u32,
    },
    /// Make it the connection's mark.
    SetConnectionMark {
        /// From here.
        from: Reg,
    },
    /// Stop this rule unless the comparison holds.
    Cmp {
        /// The register.
        reg: Reg,
        /// How.
        op: Op,
        /// Against these bytes.
        with: Vec<u8>,
    },
    /// Look a key up; stop this rule when it is absent.
    Lookup {
        /// The set's name.
        set: String,
        /// The key starts here.
        key: Reg,
        /// Where a map's data go; `None` for a set.
        to: Option<Reg>,
    },
    /// Look a key up in a verdict map and do what it says.
    Dispatch {
        /// The map's name.
        map: String,
        /// The key starts here.
        key: Reg,
    },
    /// Stop this rule when the key is in the set.
    NotIn {
        /// The set's name.
        set: String,
        /// The key starts here.
        key: Reg,
    },
    /// Add an element to a map, or take it out; a full map stops this rule.
    Change {
        /// The map's name; its elements come from packets.
        map: String,
        /// Add or take out.
        op: SetOp,
        /// The key starts here.
        key: Reg,
        /// The value starts here. It is not looked at when the element is taken out.
        value: Reg,
        /// How long a new element stays, in milliseconds.
        timeout: u64,
    },
    /// Jenkins' hash of some registers, scaled to 0..modulus, as a native-endian word.
    Jhash {
        /// Input starts here.
        from: Reg,
        /// Its length in bytes.
        length: u32,
        /// Where to.
        to: Reg,
        /// Upper bound, exclusive.
        modulus: u32,
        /// Start value.
        seed: u32,
    },
    /// Load the routing type of the source address (`RTN_LOCAL` is 2), native-endian.
    SourceType {
        /// Where to.
        to: Reg,
    },
    /// The same of the destination address.
    DestinationType {
        /// Where to.
        to: Reg,
    },
    /// Rewrite the destination.
    Dnat {
        /// Family of the address.
        family: NfProto,
        /// The address starts here.
        address: Reg,
        /// The port is here.
        port: Reg,
    },
    /// Rewrite the source to the address of the outgoing interface, port chosen at random.
    Masquerade,
    /// Answer with ICMP port unreachable.
    Reject,
    /// Do this.
    Verdict(Verdict),
}

impl Expr {
    /// The kernel's name of the expression: what it must know for the rule to load.
    pub const fn kernel_name(&self) -> &'static str {
        match self {
            Self::Meta { .. } | Self::SetMeta { .. } => "meta",
            Self::Payload { .. } | Self::SetAddress { .. } | Self::SetPort { .. } => "payload",
            Self::Counter => "counter",
            Self::Ct { .. } | Self::SetConnectionMark { .. } => "ct",
            Self::Mask { .. } | Self::Or { .. } => "bitwise",
            Self::Cmp { .. } => "cmp",
            Self::Lookup { .. } | Self::Dispatch { .. } | Self::NotIn { .. } => "lookup",
            Self::Change { .. } => "dynset",
            Self::Jhash { .. } => "hash",
            Self::SourceType { .. } | Self::DestinationType { .. } => "fib",
            Self::Dnat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Reject => "reject",
            Self::Verdict(_) | Self::Word { .. } | Self::Bytes { .. } => "immediate",
        }
    }

    /// Appends the expression as an element of a rule's expression list.
    pub(super) fn encode(&self, list: &mut Attrs<'_>) {
        const NFTA_LIST_ELEM: u16 = 1;
        const NFTA_EXPR_NAME: u16 = 1;
        const NFTA_EXPR_DATA: u16 = 2;
        list.nest(NFTA_LIST_ELEM, |expr| {
            expr.string(NFTA_EXPR_NAME, self.kernel_name());
            expr.nest(NFTA_EXPR_DATA, |data| self.encode_data(data));
        });
    }

    fn encode_data(&self, data: &mut Attrs<'_>) {
        match self {
            Self::Meta { key, to } => {
                data.u32(1, to.number());
                data.u32(2, *key as u32);
            }
            Self::SetMeta { key, from } => {
                data.u32(2, *key as u32);
                data.u32(3, from.number());
            }
            Self::Payload {
                base,
                offset,
                length,
                to,
            } => {
                data.u32(1, to.number());
                data.u32(2, *base as u32);
                data.u32(3, *offset);
                data.u32(4, *length);
            }
            Self::SetAddress {
                family,
                offset,
                from,
            } => {
                let length = match family {
                    NfProto::V4 => 4,
                    NfProto::V6 => 16,
                };
                data.u32(2, Base::Network as u32);
                data.u32(3, *offset);
                data.u32(4, length);
                data.u32(5, from.number());
                if *family == NfProto::V4 {
                    data.u32(6, 1); // NFT_PAYLOAD_CSUM_INET
                    data.u32(7, 10); // the IP header's own
                }
                data.u32(8, 1); // NFT_PAYLOAD_L4CSUM_PSEUDOHDR
            }
            Self::SetPort {
                offset,
                checksum,
                from,
            } => {
                data.u32(2, Base::Transport as u32);
                data.u32(3, *offset);
                data.u32(4, 2);
                data.u32(5, from.number());
                data.u32(6, 1); // NFT_PAYLOAD_CSUM_INET
                data.u32(7, *checksum);
            }
            Self::Counter => {
                data.u64(1, 0); // bytes
                data.u64(2, 0); // packets
            }
            Self::Ct { key, to } => {
                data.u32(1, to.number());
                data.u32(2, key.key());
                if let Some(direction) = key.direction() {
                    data.bytes(3, &[direction]); // NFTA_CT_DIRECTION
                }
            }
            Self::Word { to, value } => {
                data.u32(1, to.number());
                data.nest(2, |nest| nest.bytes(1, &value.to_ne_bytes()));
            }
            Self::Bytes { to, value } => {
                data.u32(1, to.number());
                data.nest(2, |nest| nest.bytes(1, value));
            }
            Self::Mask { from, to, mask } => {
                data.u32(1, from.number());
                data.u32(2, to.number());
                data.u32(3, 4);
                data.nest(4, |value| value.bytes(1, &mask.to_ne_bytes()));
                data.nest(5, |value| value.bytes(1, &[0; 4]));
            }
            Self::Or { from, to, bits } => {
                data.u32(1, from.number());
                data.u32(2, to.number());
                data.u32(3, 4);
                data.nest(4, |value| value.bytes(1, &(!bits).to_ne_bytes()));
                data.nest(5, |value| value.bytes(1, &bits.to_ne_bytes()));
            }
            Self::SetConnectionMark { from } => {
                data.u32(2, Ct::Mark.key());
                data.u32(4, from.number());
            }
            Self::Cmp { reg, op, with } => {
                data.u32(1, reg.number());
                data.u32(2, *op as u32);
                data.nest(3, |value| value.bytes(1, with));
            }
            Self::Lookup { set, key, to } => {
                data.string(1, set);
                data.u32(2, key.number());
                if let Some(to) = to {
                    data.u32(3, to.number());
                }
            }
            Self::Dispatch { map, key } => {
                data.string(1, map);
                data.u32(2, key.number());
                data.u32(3, 0); // NFT_REG_VERDICT
            }
            Self::NotIn { set, key } => {
                data.string(1, set);
                data.u32(2, key.number());
                data.u32(5, 1); // NFTA_LOOKUP_FLAGS: NFT_LOOKUP_F_INV
            }
            Self::Change {
                map,
                op,
                key,
                value,
                timeout,
            } => {
                data.string(1, map);
                data.u32(3, *op as u32);
                data.u32(4, key.number());
                data.u32(5, value.number());
                if *op != SetOp::Delete {
                    data.bytes(6, &timeout.to_be_bytes());
                }
            }
            Self::Jhash {
                from,
                length,
                to,
                modulus,
                seed,
            } => {
                data.u32(1, from.number());
                data.u32(2, to.number());
                data.u32(3, *length);
                data.u32(4, *modulus);
                data.u32(5, *seed);
                data.u32(7, 0); // NFTA_HASH_TYPE: NFT_HASH_JENKINS
            }
            Self::SourceType { to } => {
                data.u32(1, to.number());
                data.u32(2, 3); // NFT_FIB_RESULT_ADDRTYPE
                data.u32(3, 1); // NFTA_FIB_F_SADDR
            }
            Self::DestinationType { to } => {
                data.u32(1, to.number());
                data.u32(2, 3); // NFT_FIB_RESULT_ADDRTYPE
                data.u32(3, 2); // NFTA_FIB_F_DADDR
            }
            Self::Dnat {
                family,
                address,
                port,
            } => {
                data.u32(1, 1); // NFT_NAT_DNAT
                data.u32(2, *family as u32);
                data.u32(3, address.number());
                data.u32(5, port.number());
            }
            Self::Masquerade => data.u32(1, 1 << 4), // NF_NAT_RANGE_PROTO_RANDOM_FULLY
            Self::Reject => {
                data.u32(1, 2); // NFT_REJECT_ICMPX_UNREACH
                data.bytes(2, &[1]); // NFT_REJECT_ICMPX_PORT_UNREACH
            }
            Self::Verdict(verdict) => {
                data.u32(1, 0); // NFT_REG_VERDICT
                data.nest(2, |value| verdict.encode(value));
            }
        }
    }
}
