//! The rules about where traffic comes from: local Pods' and this host's short cut to external
//! addresses under policy Local, and who is masqueraded on the way to a cluster IP
//! (`spec/dataplane.md` §1.6). And those of addresses that only a Service could have, and none has
//! (§1.4).
//!
//! What tells a Pod, and the ranges, stand in the rules themselves: they change with the agent's
//! options, the Node's ranges or the cluster's ServiceCIDRs, which is rare, and replace the rules in
//! one batch.

use std::net::IpAddr;

use linux::nft::{Base, Ct, Expr, Meta, Op, Reg, Verdict};
use plan::forward::{Pods, is_of};
use plan::net::Family;

use super::super::layout::{Kind, SetId};
use super::{
    Build, FAMILIES, KEY, RTN_LOCAL, SCRATCH, address_length, address_start, connection, is_family,
    original_front,
};

/// Local Pods leave it, others are masqueraded.
const CHAIN: &str = "masquerade";

impl Build<'_> {
    /// The conditions under one of which a packet of `family` is a local Pod's. They use KEY and
    /// SCRATCH.
    pub(super) fn pods(&self, family: Family) -> Vec<Vec<Expr>> {
        match &self.locality.pods {
            Pods::Ranges(ranges) => ranges
                .iter()
                .filter(|range| is_of(range, family))
                .map(|range| within(address_start(family), range.network(), range.prefix_len()))
                .collect(),
            Pods::Interface { name, prefix } => {
                let mut bytes = name.as_bytes().to_vec();
                if !prefix {
                    // The whole register, final zeros among it.
                    bytes.resize(16, 0);
                }
                let name = Expr::Meta {
                    key: Meta::InterfaceName,
                    to: KEY,
                };
                vec![vec![name, is(KEY, bytes)]]
            }
        }
    }

    /// The sources that take the short cut in `chain`, with words for people.
    pub(super) fn short_cuts(
        &self,
        family: Family,
        of_host: bool,
    ) -> Vec<(&'static str, Vec<Expr>)> {
        let pods = self.pods(family).into_iter();
        let host = of_host.then(|| ("own connections", own()));
        pods.map(|pod| ("local Pods", pod)).chain(host).collect()
    }

    pub(super) fn masquerade_chain(&mut self) {
        self.chain(CHAIN, None);
        for family in FAMILIES {
            for pod in self.pods(family) {
                let mut exprs = is_family(family);
                exprs.extend(pod);
                exprs.push(Expr::Verdict(Verdict::Return));
                self.rule(CHAIN, "local Pods keep their address", exprs);
            }
        }
        self.rule(CHAIN, "others", vec![Expr::Masquerade]);
    }

    /// New connections to addresses in the ranges of cluster IPs that no Service has: they would
    /// leave by the default route. This host's own addresses are its own, whatever the range.
    pub(super) fn unallocated(&mut self, chain: &str, family: Family) {
        let start = address_start(family) + u32::from(address_length(family));
        let ranges = self.locality.cluster_ranges.iter();
        let ranges: Vec<_> = ranges.filter(|range| is_of(range, family)).collect();
        for range in ranges {
            let mut exprs = is_family(family);
            exprs.extend(connection(Ct::State, Ct::STATE_NEW));
            exprs.extend(within(start, range.network(), range.prefix_len()));
            exprs.extend([
                Expr::DestinationType { to: SCRATCH },
                Expr::Cmp {
                    reg: SCRATCH,
                    op: Op::Neq,
                    with: RTN_LOCAL.to_ne_bytes().to_vec(),
                },
                Expr::Verdict(Verdict::Drop),
            ]);
            self.rule(chain, "no such cluster IP", exprs);
        }
    }

    /// Of what `ours` matches: this host's connections that took the short cut, and those to
    /// cluster IPs from elsewhere.
    pub(super) fn masquerade_by_source(&mut self, family: Family, ours: &[Expr]) {
        let masquerade = || Expr::Verdict(Verdict::Goto(CHAIN.to_owned()));
        let mut exprs = ours.to_vec();
        exprs.extend(self.look_up_original(family, Kind::Host));
        exprs.extend(own());
        exprs.push(masquerade());
        self.rule("nat-postrouting", "own connections, policy Local", exprs);

        let all = self.locality.masquerade_all;
        if !all && !self.locality.is_known(family) {
            return;
        }
        if self.with_ipvs {
            self.keep_source(family);
        }
        let [address, ..] = original_front(family, KEY);
        let mut exprs = ours.to_vec();
        exprs.extend([
            address,
            Expr::Lookup {
                set: self.sets.name(SetId(Kind::ClusterIp, family)).to_owned(),
                key: KEY,
                to: None,
            },
            if all { Expr::Masquerade } else { masquerade() },
        ]);
        self.rule("nat-postrouting", "to cluster IPs", exprs);
    }
}

/// The source is an address of this host.
fn own() -> Vec<Expr> {
    let local = RTN_LOCAL.to_ne_bytes().to_vec();
    vec![Expr::SourceType { to: SCRATCH }, is(SCRATCH, local)]
}

fn is(reg: Reg, with: Vec<u8>) -> Expr {
    Expr::Cmp {
        reg,
        op: Op::Eq,
        with,
    }
}

/// The first `length` bits of the address that starts there in the IP header are those of `network`:
/// its whole words, and what is left of the next one.
fn within(start: u32, network: IpAddr, length: u8) -> Vec<Expr> {
    let bytes = match network {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let words = usize::from(length / 32) * 4;
    let bits = length % 32;
    let load = |offset: usize, length: usize| Expr::Payload {
        base: Base::Network,
        offset: start + offset as u32,
        length: length as u32,
        to: KEY,
    };
    let mut exprs = Vec::new();
    let (whole, rest) = bytes.split_at(words);
    if !whole.is_empty() {
        exprs.extend([load(0, words), is(KEY, whole.to_vec())]);
    }
    if bits > 0 {
        let mask = u32::MAX << (32 - bits);
        exprs.extend([
            load(words, 4),
            Expr::Mask {
                from: KEY,
                to: KEY,
                mask: u32::from_ne_bytes(mask.to_be_bytes()),
            },
            is(KEY, rest.iter().take(4).copied().collect()),
        ]);
    }
    exprs
}
