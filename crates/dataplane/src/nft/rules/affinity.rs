//! The rules of session affinity.
//!
//! A rule can give an element one timeout only, so there is a rule for each one in
//! use; a new one replaces the rules (in one batch, and rarely). The value is found by what the
//! client connected to; it begins at 4, so that its id lies between the client before it, the key
//! of `kept`, and the endpoint behind it, the key of `member`: an endpoint that has left is no
//! member, and the client gets another one, which takes its place in `kept`. Clients are remembered
//! by port, so the bit of the policy leaves the id for that long; members are the policy's.

use linux::nft::{Base, Ct, Expr, Op, Reg, SetOp, Verdict};
use plan::forward::SlotsId;
use plan::net::Family;

use super::super::layout::{KEEP, KEEP_SHIFT, Kind, SetId, address_length};
use super::{
    Build, SCRATCH, connection, destination, fill, front, is_family, nfproto, original_front,
    source,
};

/// With session affinity: the value of a front.
const KEPT_VALUE: Reg = Reg(4);
/// Its id, which the client's address ends before.
const KEPT_ID: Reg = Reg(5);
/// The half of it with the policy's bit, and where that waits.
const KEPT_ID_LOW: Reg = Reg(6);
const KEPT_ID_SAVED: Reg = Reg(13);
/// Zero, and the endpoint behind it.
const KEPT_ZERO: Reg = Reg(7);
const KEPT_ENDPOINT: Reg = Reg(8);

impl Build<'_> {
    /// A client that was led to an endpoint which is still there gets it again.
    pub(super) fn kept(
        &mut self,
        chain: &str,
        comment: &str,
        family: Family,
        kind: Kind,
        when: Vec<Expr>,
    ) {
        let words = address_length(family) / 4;
        let mut exprs = is_family(family);
        exprs.extend(front(family, KEPT_ENDPOINT));
        exprs.extend(self.find(family, kind, KEPT_ENDPOINT, KEPT_VALUE));
        exprs.extend(has_kept_bits());
        exprs.extend(self.find_kept(family));
        exprs.extend(when);
        exprs.push(Expr::Dnat {
            family: nfproto(family),
            address: KEPT_ENDPOINT,
            port: Reg(KEPT_ENDPOINT.0 + words),
        });
        self.rule(chain, comment, exprs);
    }

    /// The endpoint that the client was led to, if it is one still.
    fn find_kept(&self, family: Family) -> Vec<Expr> {
        let words = address_length(family) / 4;
        let mut exprs = vec![
            source(family, client(family)),
            copy(KEPT_ID_LOW, KEPT_ID_SAVED),
            of_port(),
        ];
        exprs.extend((0..=words).map(|word| fill(Reg(KEPT_ENDPOINT.0 + word))));
        exprs.extend([
            Expr::Lookup {
                set: self.sets.kept(family).to_owned(),
                key: client(family),
                to: Some(KEPT_ZERO),
            },
            zero(KEPT_ZERO),
            copy(KEPT_ID_SAVED, KEPT_ID_LOW),
            Expr::Lookup {
                set: self.sets.name(SetId(Kind::Member, family)).to_owned(),
                key: KEPT_ID,
                to: None,
            },
        ]);
        exprs
    }

    /// New connections that we have rewritten and whose front has session affinity; its seconds
    /// are in SCRATCH, as its flags have them.
    pub(super) fn keeps(&self, family: Family, kind: Kind) -> Vec<Expr> {
        let mut exprs = is_family(family);
        exprs.extend(connection(Ct::State, Ct::STATE_NEW));
        exprs.extend(connection(Ct::Status, Ct::STATUS_DNAT));
        exprs.extend(original_front(family, KEPT_ENDPOINT));
        exprs.extend(self.find(family, kind, KEPT_ENDPOINT, KEPT_VALUE));
        exprs.extend(has_kept_bits());
        exprs
    }

    /// Where the client is led to is known for so many seconds from now.
    pub(super) fn keep(&mut self, family: Family, seconds: u32) {
        let words = address_length(family) / 4;
        let ours = |kind| {
            let mut exprs = self.keeps(family, kind);
            exprs.push(Expr::Cmp {
                reg: SCRATCH,
                op: Op::Eq,
                with: (seconds << KEEP_SHIFT).to_ne_bytes().to_vec(),
            });
            exprs
        };
        let map = self.sets.kept(family).to_owned();
        let change = |op| Expr::Change {
            map: map.clone(),
            op,
            key: client(family),
            value: KEPT_ZERO,
            timeout: u64::from(seconds) * 1000,
        };

        // Whoever takes the short cut is kept at an endpoint of policy Cluster.
        let short_cuts = self.short_cuts(family, true);
        let cuts = short_cuts.into_iter().map(|(_, when)| (Kind::Host, when));
        let ways = cuts.chain([(Kind::Front, Vec::new())]).map(|(kind, when)| {
            // First, since it uses registers that the rest of the rule needs.
            let mut exprs = is_family(family);
            exprs.extend(when);
            exprs.extend(ours(kind));
            exprs.extend(self.find_kept(family));
            exprs.extend([
                of_port(),
                change(SetOp::Update),
                Expr::Verdict(Verdict::Return),
            ]);
            exprs
        });
        // An update leaves the value of an element that is there. Taking out only marks it as dead
        // until the kernel collects it, and it bears few of one key: not for each connection.
        let mut exprs = ours(Kind::Front);
        let ways: Vec<_> = ways.collect();
        for way in ways {
            self.rule("keep", &format!("for {seconds} s more"), way);
        }
        exprs.extend([
            source(family, client(family)),
            of_port(),
            zero(KEPT_ZERO),
            destination(family, KEPT_ENDPOINT),
            Expr::Payload {
                base: Base::Transport,
                offset: 2,
                length: 2,
                to: Reg(KEPT_ENDPOINT.0 + words),
            },
        ]);
        exprs.extend([SetOp::Delete, SetOp::Add].map(change));
        self.rule("keep", &format!("for {seconds} s"), exprs);
    }
}

/// Where a client's address is, so that the id follows it.
const fn client(family: Family) -> Reg {
    Reg(KEPT_ID.0 - address_length(family) / 4)
}

/// The id of the port: without the policy's bit, which is the last one of all.
fn of_port() -> Expr {
    let mask = !(SlotsId::LOCAL as u32);
    Expr::Mask {
        from: KEPT_ID_LOW,
        to: KEPT_ID_LOW,
        mask: u32::from_ne_bytes(mask.to_be_bytes()),
    }
}

const fn copy(from: Reg, to: Reg) -> Expr {
    Expr::Mask {
        from,
        to,
        mask: u32::MAX,
    }
}

const fn zero(reg: Reg) -> Expr {
    Expr::Word { to: reg, value: 0 }
}

/// The front has session affinity; its seconds are in SCRATCH, as its flags have them.
fn has_kept_bits() -> [Expr; 2] {
    [
        Expr::Mask {
            from: KEPT_VALUE,
            to: SCRATCH,
            mask: KEEP,
        },
        Expr::Cmp {
            reg: SCRATCH,
            op: Op::Neq,
            with: vec![0; 4],
        },
    ]
}
