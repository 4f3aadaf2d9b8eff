//! Beside virtual servers: what the rules do where IPVS balances.
//!
//! Service addresses are this host's own then. IPVS takes what is for a virtual server at its input,
//! and of its own connections at its output, one step behind destination nat. So the rules decide
//! who may connect and what is rejected before that, and masquerade after it; fronts lead nowhere
//! by themselves, but the short cuts are translated still, before IPVS sees them.
//!
//! Other ports of all these addresses are rejected: this host's own servers listen on them. Echo
//! requests are answered.

use linux::nft::{Expr, Meta, Op, Verdict};
use plan::net::Family;

use super::super::layout::Kind;
use super::{Build, DSTNAT, RTN_LOCAL, SCRATCH, is_family};

/// `IPPROTO_ICMP`, `IPPROTO_ICMPV6`.
const ICMP: [u8; 2] = [1, 58];

impl Build<'_> {
    /// The place of fates: behind nat, but IPVS takes own connections at dstnat+2.
    pub(super) const fn fate(&self) -> i32 {
        DSTNAT + if self.with_ipvs { 1 } else { 10 }
    }

    /// What a virtual server carries has no other fate.
    pub(super) fn carried(&mut self, chain: &str, family: Family) {
        let mut exprs = self.look_up(family, Kind::Front, true);
        exprs.push(Expr::Verdict(Verdict::Return));
        self.rule(chain, "a virtual server's", exprs);
    }

    /// Own connections to Services: their source is the Service's address, since that is this
    /// host's.
    pub(super) fn masquerade_own(&mut self, family: Family) {
        let mut exprs = is_family(family);
        exprs.extend(self.look_up_original(family, Kind::Front));
        exprs.extend([
            Expr::SourceType { to: SCRATCH },
            Expr::Cmp {
                reg: SCRATCH,
                op: Op::Eq,
                with: RTN_LOCAL.to_ne_bytes().to_vec(),
            },
            Expr::Masquerade,
        ]);
        self.rule("nat-postrouting", "own connections", exprs);
    }

    /// External addresses are among those that are guarded as cluster IPs are, but under policy
    /// Local the client's address is kept. Short cuts know just these.
    pub(super) fn keep_source(&mut self, family: Family) {
        let mut exprs = is_family(family);
        exprs.extend(self.look_up_original(family, Kind::Host));
        exprs.push(Expr::Verdict(Verdict::Return));
        self.rule("nat-postrouting", "external, policy Local", exprs);
    }
}

/// Anything but ICMP.
pub(super) fn no_echo(family: Family) -> [Expr; 2] {
    [
        Expr::Meta {
            key: Meta::L4Proto,
            to: SCRATCH,
        },
        Expr::Cmp {
            reg: SCRATCH,
            op: Op::Neq,
            with: vec![ICMP[family as usize]],
        },
    ]
}
