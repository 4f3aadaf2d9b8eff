//! Node ports on the loopback: this host's own connections to 127.0.0.1 and `::1` (docs/adr/0012).
//!
//! Translating the destination is not enough: the kernel routes no packet with a loopback address
//! in or out by another interface than `lo`, unless `route_localnet` is set, which lets the network
//! reach what listens on the loopback. So such an address never meets routing here:
//!
//! ```text
//! loopback-output      dstnat-50   behind conntrack, before nat: the source becomes this host's
//! nat-postrouting      srcnat      masqueraded, always
//! loopback-prerouting  dstnat+20   replies, behind nat, which has made the destination the
//!   loopback-wire                    loopback: as they were on the wire
//! loopback-input       srcnat+10   behind nat, which has made the source the loopback: the
//!   loopback-home                    destination as well
//! ```
//!
//! Conntrack knows the connection by what the client sees, and what it says is all that replies need.
//! They bear the wire's port too on the way, or the kernel could find another connection's socket
//! for them before they are at the input (early demultiplexing). Packets over `lo` to an endpoint on
//! this host need none of it.

use std::net::IpAddr;

use linux::nft::{Base, Ct, Expr, Flow, Hook, Meta, Op, Verdict};
use plan::net::{Family, Protocol};

use super::super::layout::Kind;
use super::{
    Build, DSTNAT, FAMILIES, KEY, SCRATCH, SRCNAT, address_length, address_start, connection,
    is_family, nfproto,
};

/// Counts the connections.
pub(in crate::nft) const OUTPUT: &str = "loopback-output";
const PREROUTING: &str = "loopback-prerouting";
const WIRE: &str = "loopback-wire";
const INPUT: &str = "loopback-input";
const HOME: &str = "loopback-home";
/// The index of `lo` in every network namespace.
const LO: u32 = 1;

impl Build<'_> {
    /// Chains and rules, where the loopback has node ports.
    pub(super) fn loopback(&mut self) {
        if self.locality.loopback.is_off() {
            return;
        }
        for (name, hook, priority) in [
            (OUTPUT, Hook::Output, DSTNAT - 50),
            (PREROUTING, Hook::Prerouting, DSTNAT + 20),
            (INPUT, Hook::Input, SRCNAT + 10),
        ] {
            self.chain(name, Some((Flow::Filter, hook, priority)));
        }
        for (name, from) in [(WIRE, WIRE_END), (HOME, HOME_END)] {
            self.chain(name, None);
            self.ports(name, from.port);
            for family in FAMILIES {
                let mut exprs = is_family(family);
                exprs.extend(set_destination(family, from.address(family)));
                self.rule(name, "destination", exprs);
            }
        }
        for family in FAMILIES {
            let Some(source) = self.locality.loopback.source(family) else {
                continue;
            };
            let set_source = set_source(family, source);

            let mut exprs = is_family(family);
            exprs.extend(is_loopback(family, address_start(family)));
            exprs.extend(way(Ct::ORIGINAL));
            exprs.extend_from_slice(&set_source);
            self.rule(OUTPUT, "known connections", exprs);

            let mut exprs = self.look_up(family, Kind::Host, true);
            for offset in [address_start(family), destination_start(family)] {
                exprs.extend(is_loopback(family, offset));
            }
            exprs.push(Expr::Counter);
            exprs.extend_from_slice(&set_source);
            self.rule(OUTPUT, "new connections", exprs);

            for (chain, to) in [(PREROUTING, WIRE), (INPUT, HOME)] {
                let mut exprs = is_family(family);
                exprs.extend(not_by_lo());
                exprs.extend(way(Ct::REPLY));
                exprs.extend(began_on_loopback(family));
                exprs.push(Expr::Verdict(Verdict::Goto(to.to_owned())));
                self.rule(chain, "replies", exprs);
            }
        }
    }

    /// Nobody else gets at these fronts: nat would take them before routing says that no such address
    /// comes in by the network.
    pub(super) fn guard_loopback(&mut self, family: Family) {
        if self.locality.loopback.source(family).is_none() {
            return;
        }
        let mut exprs = self.look_up(family, Kind::Front, false);
        exprs.extend(not_by_lo());
        exprs.extend(is_loopback(family, destination_start(family)));
        exprs.push(Expr::Verdict(Verdict::Drop));
        self.rule("guard-prerouting", "to the loopback from elsewhere", exprs);
    }

    /// Whatever the policy, and whoever counts as a Pod.
    pub(super) fn masquerade_loopback(&mut self, family: Family) {
        if self.locality.loopback.source(family).is_none() {
            return;
        }
        let mut exprs = is_family(family);
        exprs.extend(connection(Ct::Status, Ct::STATUS_DNAT));
        exprs.extend(began_on_loopback(family));
        exprs.extend(self.look_up_original(family, Kind::Host));
        exprs.push(Expr::Masquerade);
        self.rule("nat-postrouting", "from the loopback", exprs);
    }

    /// The destination's port in chain `chain`. SCTP's packets are not looked at early; a datagram
    /// without checksum must stay without one.
    fn ports(&mut self, chain: &str, port: Ct) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let checksum = match protocol {
                Protocol::Udp => 6,
                _ => 16,
            };
            let mut exprs = vec![
                Expr::Meta {
                    key: Meta::L4Proto,
                    to: SCRATCH,
                },
                Expr::Cmp {
                    reg: SCRATCH,
                    op: Op::Eq,
                    with: vec![protocol.number()],
                },
            ];
            if protocol == Protocol::Udp {
                exprs.extend([
                    Expr::Payload {
                        base: Base::Transport,
                        offset: checksum,
                        length: 2,
                        to: SCRATCH,
                    },
                    Expr::Cmp {
                        reg: SCRATCH,
                        op: Op::Neq,
                        with: vec![0; 2],
                    },
                ]);
            }
            exprs.extend([
                Expr::Ct {
                    key: port,
                    to: SCRATCH,
                },
                Expr::SetPort {
                    offset: 2,
                    checksum,
                    from: SCRATCH,
                },
            ]);
            self.rule(chain, "destination's port", exprs);
        }
    }
}

/// An end of a connection, as conntrack knows it.
struct End {
    port: Ct,
    address4: Ct,
    address6: Ct,
}

/// Where the endpoint sends its replies.
const WIRE_END: End = End {
    port: Ct::ReplyPort,
    address4: Ct::ReplyAddress4,
    address6: Ct::ReplyAddress6,
};

/// Where the client waits for them.
const HOME_END: End = End {
    port: Ct::OriginalSourcePort,
    address4: Ct::OriginalSource4,
    address6: Ct::OriginalSource6,
};

impl End {
    const fn address(&self, family: Family) -> Ct {
        match family {
            Family::V4 => self.address4,
            Family::V6 => self.address6,
        }
    }
}

/// Where the destination address begins in the IP header.
fn destination_start(family: Family) -> u32 {
    address_start(family) + u32::from(address_length(family))
}

/// It did not come in by `lo`.
fn not_by_lo() -> [Expr; 2] {
    [
        Expr::Meta {
            key: Meta::Iif,
            to: SCRATCH,
        },
        Expr::Cmp {
            reg: SCRATCH,
            op: Op::Neq,
            with: LO.to_ne_bytes().to_vec(),
        },
    ]
}

/// The packet goes this way on a connection whose both ends were translated: as ours are, and not as
/// another program's from one port of the loopback to another.
fn way(direction: u8) -> [Expr; 5] {
    const BOTH: u32 = Ct::STATUS_DNAT | Ct::STATUS_SNAT;
    [
        Expr::Ct {
            key: Ct::Direction,
            to: SCRATCH,
        },
        Expr::Cmp {
            reg: SCRATCH,
            op: Op::Eq,
            with: vec![direction],
        },
        Expr::Ct {
            key: Ct::Status,
            to: SCRATCH,
        },
        Expr::Mask {
            from: SCRATCH,
            to: SCRATCH,
            mask: BOTH,
        },
        Expr::Cmp {
            reg: SCRATCH,
            op: Op::Eq,
            with: BOTH.to_ne_bytes().to_vec(),
        },
    ]
}

/// The address at `offset` of the IP header is a loopback one: any of 127.0.0.0/8, or `::1`. Uses KEY.
fn is_loopback(family: Family, offset: u32) -> [Expr; 2] {
    let with = match family {
        Family::V4 => vec![127],
        Family::V6 => std::net::Ipv6Addr::LOCALHOST.octets().to_vec(),
    };
    let load = Expr::Payload {
        base: Base::Network,
        offset,
        length: with.len() as u32,
        to: KEY,
    };
    let cmp = Expr::Cmp {
        reg: KEY,
        op: Op::Eq,
        with,
    };
    [load, cmp]
}

/// The connection's client had such an address as its source. Uses KEY.
fn began_on_loopback(family: Family) -> Vec<Expr> {
    let mut exprs = vec![Expr::Ct {
        key: HOME_END.address(family),
        to: KEY,
    }];
    let with = match family {
        Family::V4 => {
            exprs.push(Expr::Mask {
                from: KEY,
                to: KEY,
                mask: u32::from_ne_bytes([255, 0, 0, 0]),
            });
            vec![127, 0, 0, 0]
        }
        Family::V6 => std::net::Ipv6Addr::LOCALHOST.octets().to_vec(),
    };
    exprs.push(Expr::Cmp {
        reg: KEY,
        op: Op::Eq,
        with,
    });
    exprs
}

/// Writes `source` into the packet. Uses KEY.
fn set_source(family: Family, source: IpAddr) -> [Expr; 2] {
    let value = match source {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    [
        Expr::Bytes { to: KEY, value },
        Expr::SetAddress {
            family: nfproto(family),
            offset: address_start(family),
            from: KEY,
        },
    ]
}

fn set_destination(family: Family, to: Ct) -> [Expr; 2] {
    [
        Expr::Ct { key: to, to: KEY },
        Expr::SetAddress {
            family: nfproto(family),
            offset: destination_start(family),
            from: KEY,
        },
    ]
}
