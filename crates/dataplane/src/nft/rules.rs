//! The constant rules.
//!
//! ```text
//! guard-prerouting, guard-output   dstnat-10  source ranges: drop who may not connect
//! nat-prerouting, nat-output       dstnat-5   session affinity: client . id → kept, if member → dnat;
//!                                             front → class → chain pick-N (host-N for what this
//!                                             host and local Pods send)
//!   pick-N, host-N                            id . hash mod N → slot → dnat
//! keep-prerouting, keep-output     dstnat+5   session affinity: client . id → kept, for so long
//! fate-prerouting, fate-output     dstnat+10  front → class → drop or reject; other ports of a
//!                                             cluster IP → reject; addresses that only a Service
//!                                             could have, and none has → drop
//! nat-postrouting                  srcnat     by what the client connected to; hairpins; by source
//!   masquerade                                  unless a local Pod sends it
//! ```
//! [`loopback`] adds chains where the loopback has node ports.
//!
//! dstnat−5 comes before kube-proxy's chains at dstnat, so that mode `vips` wins over them. The
//! fates come after nat: what nat took has another destination by then. kube-proxy rejects in input
//! and forward, for kernels before 5.9; in prerouting it works without a route to the address, and
//! the client gets no ICMP redirect to an address that nobody has.
//!
//! Registers: 0–3 the value of a front (flags, id in two, class), of which 1–3 turn into the key of
//! a slot; others from 4 on; 15 scratch. No packet mark is used, so none can collide with a CNI's.
//!
//! The nft program must be able to list this. It knows of what a map gives only the first
//! register, with no length, and aborts on a key that begins there or contains it (1.0.6). So the
//! flags come first, and constants stand in the other registers before the map overwrites them:
//! where the program shows `0x1d . 0x1d`, an id is meant, and `0x1d vmap` means the class.

mod affinity;
mod ipvs;
mod local;
pub(super) mod loopback;

use std::collections::BTreeSet;

use linux::nft::{
    Base, ChainSpec, Ct, Expr, Flow, Hook, Meta, NfProto, Op, Reg, SetSpec, Shape, Verdict,
};
use plan::forward::{Locality, SEED, slots};
use plan::net::Family;

use super::layout::{
    CLASS_DROP, CLASS_REJECT, Kind, MASQUERADE, RESTRICTED, SetId, Sets, address_length, short_hash,
};

/// The value of a front, which begins with its flags.
const FLAGS: Reg = Reg(0);
const ID: Reg = Reg(1);
/// Right after the id: the class, then the index of a slot.
const CLASS: Reg = Reg(3);
const KEY: Reg = Reg(4);
const SCRATCH: Reg = Reg(15);

/// Netfilter's priorities of destination and source nat.
pub(super) const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;
pub(super) const RTN_LOCAL: u32 = 2;

/// A rule with the chain that it is in.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) chain: String,
    pub(super) exprs: Vec<Expr>,
    /// A comment as the nft program reads it, with a digest of the rule: it tells what is there.
    pub(super) mark: Vec<u8>,
}

impl Rule {
    pub(super) fn new(chain: &str, comment: &str, exprs: Vec<Expr>) -> Self {
        let digest = short_hash(&format!("{chain} {exprs:?}"));
        let text = format!("{comment} [{digest}]");
        // The nft program's user data: type 0 is a comment, with its length and final zero.
        let mut mark = vec![0, text.len() as u8 + 1];
        mark.extend_from_slice(text.as_bytes());
        mark.push(0);
        Self {
            chain: chain.to_owned(),
            exprs,
            mark,
        }
    }
}

/// A map whose elements never change.
#[derive(Clone, Debug)]
pub(super) struct ConstantMap {
    pub(super) spec: SetSpec,
    pub(super) elements: Vec<([u8; 4], Verdict)>,
}

/// All that never changes.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) chains: Vec<ChainSpec>,
    pub(super) maps: Vec<ConstantMap>,
    pub(super) rules: Vec<Rule>,
}

impl Rules {
    /// With a rule for each of these timeouts of session affinity, in seconds, and those that tell
    /// local Pods' traffic. With IPVS, virtual servers balance in the rules' place: see [`ipvs`].
    pub(super) fn new(
        sets: &Sets,
        timeouts: &BTreeSet<u32>,
        locality: &Locality,
        with_ipvs: bool,
    ) -> Self {
        let mut build = Build {
            sets,
            timeouts,
            locality,
            with_ipvs,
            rules: Self {
                chains: Vec::new(),
                maps: Vec::new(),
                rules: Vec::new(),
            },
        };
        build.all();
        build.rules
    }
}

struct Build<'a> {
    sets: &'a Sets,
    timeouts: &'a BTreeSet<u32>,
    locality: &'a Locality,
    with_ipvs: bool,
    rules: Rules,
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Build<'_> {
    fn all(&mut self) {
        use Flow::{Filter, Nat};
        let base = [
            ("guard-prerouting", Filter, Hook::Prerouting, DSTNAT - 10),
            ("guard-output", Filter, Hook::Output, DSTNAT - 10),
            ("nat-prerouting", Nat, Hook::Prerouting, DSTNAT - 5),
            ("nat-output", Nat, Hook::Output, DSTNAT - 5),
            ("keep-prerouting", Filter, Hook::Prerouting, DSTNAT + 5),
            ("keep-output", Filter, Hook::Output, DSTNAT + 5),
            ("fate-prerouting", Filter, Hook::Prerouting, self.fate()),
            ("fate-output", Filter, Hook::Output, self.fate()),
            ("nat-postrouting", Nat, Hook::Postrouting, SRCNAT),
        ];
        for (name, flow, hook, priority) in base {
            self.chain(name, Some((flow, hook, priority)));
        }
        self.chain("keep", None);
        self.chain("fate-reject", None);
        self.rule("fate-reject", "nobody serves this", vec![Expr::Reject]);
        self.masquerade_chain();
        self.loopback();

        let pick = self.picks("pick", Kind::Front);
        let host = self.picks("host", Kind::Host);
        let fate = self.map(
            "fate",
            vec![
                (CLASS_DROP.to_ne_bytes(), Verdict::Drop),
                (
                    CLASS_REJECT.to_ne_bytes(),
                    Verdict::Goto("fate-reject".to_owned()),
                ),
            ],
        );
        for family in FAMILIES {
            self.guard_loopback(family);
            for chain in ["guard-prerouting", "guard-output"] {
                self.guard(chain, family);
            }
            for (chain, of_host) in [("nat-prerouting", false), ("nat-output", true)] {
                for (who, when) in self.short_cuts(family, of_host) {
                    let seen = format!("{who}, seen before");
                    self.kept(chain, &seen, family, Kind::Host, when.clone());
                    self.dispatch(chain, who, family, Kind::Host, &host, &when);
                }
                if self.with_ipvs {
                    continue;
                }
                self.kept(chain, "client seen before", family, Kind::Front, Vec::new());
                self.dispatch(chain, "fronts", family, Kind::Front, &pick, &[]);
            }
            for chain in ["keep-prerouting", "keep-output"] {
                let mut exprs = self.keeps(family, Kind::Front);
                exprs.push(Expr::Verdict(Verdict::Goto("keep".to_owned())));
                self.rule(chain, "session affinity", exprs);
            }
            for timeout in self.timeouts {
                self.keep(family, *timeout);
            }
            for chain in ["fate-prerouting", "fate-output"] {
                self.no_endpoints(chain, family, &fate);
                if self.with_ipvs {
                    self.carried(chain, family);
                }
                self.other_ports(chain, family);
                // kube-proxy with IPVS lets them pass.
                if !self.with_ipvs {
                    self.unallocated(chain, family);
                }
            }
            self.masquerade(family);
        }
    }

    fn chain(&mut self, name: &str, base: Option<(Flow, Hook, i32)>) {
        self.rules.chains.push(ChainSpec {
            name: name.to_owned(),
            base,
        });
    }

    fn rule(&mut self, chain: &str, comment: &str, exprs: Vec<Expr>) {
        self.rules.rules.push(Rule::new(chain, comment, exprs));
    }

    /// A constant map from class to verdict; returns its name.
    fn map(&mut self, name: &str, elements: Vec<([u8; 4], Verdict)>) -> String {
        let name = format!("{name}-{}", short_hash(&format!("{elements:?}")));
        let spec = SetSpec {
            name: name.clone(),
            key_type: 19, // mark
            fields: vec![4],
            shape: Shape::Verdict,
            intervals: false,
            dynamic: 0,
        };
        self.rules.maps.push(ConstantMap { spec, elements });
        name
    }

    /// A chain for each number of slots; returns the name of the map that leads to them.
    fn picks(&mut self, prefix: &str, kind: Kind) -> String {
        let mut elements = Vec::new();
        for modulus in slots::sizes() {
            let chain = format!("{prefix}-{modulus}");
            self.chain(&chain, None);
            for family in FAMILIES {
                let exprs = self.pick(family, kind, modulus);
                self.rule(&chain, "pick a slot", exprs);
            }
            elements.push((modulus.to_ne_bytes(), Verdict::Goto(chain)));
        }
        self.map(prefix, elements)
    }

    fn pick(&self, family: Family, kind: Kind, modulus: u32) -> Vec<Expr> {
        let length = u32::from(address_length(family));
        let words = address_length(family) / 4;
        // The tuple ends before SCRATCH: 4 + 4 + 4 + 1 + 1 registers.
        let tuple = KEY;
        let mut exprs = self.look_up(family, kind, false);
        exprs.extend([
            source(family, tuple),
            destination(family, Reg(tuple.0 + words)),
            Expr::Meta {
                key: Meta::L4Proto,
                to: Reg(tuple.0 + 2 * words),
            },
            Expr::Payload {
                base: Base::Transport,
                offset: 0,
                length: 4,
                to: Reg(tuple.0 + 2 * words + 1),
            },
            Expr::Jhash {
                from: tuple,
                length: 2 * length + 8,
                to: CLASS,
                modulus,
                seed: SEED,
            },
            Expr::Lookup {
                set: self.sets.name(SetId(Kind::Slot, family)).to_owned(),
                key: ID,
                to: Some(KEY),
            },
            Expr::Dnat {
                family: nfproto(family),
                address: KEY,
                port: Reg(KEY.0 + words),
            },
        ]);
        exprs
    }

    /// The value of the front that the packet is for, from FLAGS on.
    fn look_up(&self, family: Family, kind: Kind, only_new: bool) -> Vec<Expr> {
        let mut exprs = is_family(family);
        if only_new {
            exprs.extend(connection(Ct::State, Ct::STATE_NEW));
        }
        exprs.extend(front(family, KEY));
        exprs.extend(self.find(family, kind, KEY, FLAGS));
        exprs
    }

    /// The same for what the connection's client connected to.
    fn look_up_original(&self, family: Family, kind: Kind) -> Vec<Expr> {
        let mut exprs = original_front(family, KEY).to_vec();
        exprs.extend(self.find(family, kind, KEY, FLAGS));
        exprs
    }

    /// The value that the front at `key` leads to, from `value` on. See the module's documentation
    /// for the constants.
    fn find(&self, family: Family, kind: Kind, key: Reg, value: Reg) -> [Expr; 4] {
        [
            fill(Reg(value.0 + 1)),
            fill(Reg(value.0 + 2)),
            fill(Reg(value.0 + 3)),
            Expr::Lookup {
                set: self.sets.name(SetId(kind, family)).to_owned(),
                key,
                to: Some(value),
            },
        ]
    }

    fn guard(&mut self, chain: &str, family: Family) {
        let mut exprs = self.look_up(family, Kind::Front, true);
        exprs.extend(has_bits(FLAGS, RESTRICTED));
        exprs.extend([
            source(family, CLASS),
            Expr::NotIn {
                set: self.sets.name(SetId(Kind::Range, family)).to_owned(),
                key: ID,
            },
            Expr::Verdict(Verdict::Drop),
        ]);
        self.rule(chain, "source ranges", exprs);
    }

    fn dispatch(
        &mut self,
        chain: &str,
        comment: &str,
        family: Family,
        kind: Kind,
        map: &str,
        when: &[Expr],
    ) {
        let mut exprs = self.look_up(family, kind, false);
        exprs.extend_from_slice(when);
        exprs.push(Expr::Dispatch {
            map: map.to_owned(),
            key: CLASS,
        });
        self.rule(chain, comment, exprs);
    }

    fn no_endpoints(&mut self, chain: &str, family: Family, map: &str) {
        let mut exprs = self.look_up(family, Kind::Front, true);
        exprs.push(Expr::Dispatch {
            map: map.to_owned(),
            key: CLASS,
        });
        self.rule(chain, "no endpoints", exprs);
    }

    fn other_ports(&mut self, chain: &str, family: Family) {
        let mut exprs = is_family(family);
        exprs.extend(connection(Ct::State, Ct::STATE_NEW));
        if self.with_ipvs {
            exprs.extend(ipvs::no_echo(family));
        }
        exprs.extend([
            destination(family, KEY),
            Expr::Lookup {
                set: self.sets.name(SetId(Kind::ClusterIp, family)).to_owned(),
                key: KEY,
                to: None,
            },
            Expr::Verdict(Verdict::Goto("fate-reject".to_owned())),
        ]);
        self.rule(chain, "no such port", exprs);
    }

    fn masquerade(&mut self, family: Family) {
        let words = address_length(family) / 4;
        self.masquerade_loopback(family);
        let mut ours = is_family(family);
        if self.with_ipvs {
            // What IPVS rewrites does not count as translated.
            self.masquerade_own(family);
        } else {
            ours.extend(connection(Ct::Status, Ct::STATUS_DNAT));
        }

        let mut exprs = ours.clone();
        exprs.extend(self.look_up_original(family, Kind::Front));
        exprs.extend(has_bits(FLAGS, MASQUERADE));
        exprs.push(Expr::Masquerade);
        self.rule("nat-postrouting", "external, policy Cluster", exprs);

        let mut exprs = ours.clone();
        exprs.extend([
            source(family, KEY),
            destination(family, Reg(KEY.0 + words)),
            Expr::Lookup {
                set: self.sets.name(SetId(Kind::Hairpin, family)).to_owned(),
                key: KEY,
                to: None,
            },
            Expr::Masquerade,
        ]);
        self.rule("nat-postrouting", "hairpin", exprs);

        self.masquerade_by_source(family, &ours);
    }
}

/// What the packet is for: the key of a front.
fn front(family: Family, key: Reg) -> [Expr; 3] {
    let words = address_length(family) / 4;
    [
        destination(family, key),
        Expr::Meta {
            key: Meta::L4Proto,
            to: Reg(key.0 + words),
        },
        Expr::Payload {
            base: Base::Transport,
            offset: 2,
            length: 2,
            to: Reg(key.0 + words + 1),
        },
    ]
}

/// The same for what the connection's client connected to.
fn original_front(family: Family, key: Reg) -> [Expr; 3] {
    let words = address_length(family) / 4;
    let address = match family {
        Family::V4 => Ct::OriginalAddress4,
        Family::V6 => Ct::OriginalAddress6,
    };
    [
        Expr::Ct {
            key: address,
            to: key,
        },
        Expr::Meta {
            key: Meta::L4Proto,
            to: Reg(key.0 + words),
        },
        Expr::Ct {
            key: Ct::OriginalPort,
            to: Reg(key.0 + words + 1),
        },
    ]
}

const fn fill(reg: Reg) -> Expr {
    const PLACEHOLDER: u32 = u32::from_be(0x1d);
    Expr::Word {
        to: reg,
        value: PLACEHOLDER,
    }
}

const fn nfproto(family: Family) -> NfProto {
    match family {
        Family::V4 => NfProto::V4,
        Family::V6 => NfProto::V6,
    }
}

fn is_family(family: Family) -> Vec<Expr> {
    vec![
        Expr::Meta {
            key: Meta::NfProto,
            to: SCRATCH,
        },
        Expr::Cmp {
            reg: SCRATCH,
            op: Op::Eq,
            with: vec![nfproto(family) as u8],
        },
    ]
}

/// Where the source address begins in the IP header.
const fn address_start(family: Family) -> u32 {
    match family {
        Family::V4 => 12,
        Family::V6 => 8,
    }
}

fn source(family: Family, to: Reg) -> Expr {
    address(family, address_start(family), to)
}

fn destination(family: Family, to: Reg) -> Expr {
    let length = u32::from(address_length(family));
    address(family, address_start(family) + length, to)
}

fn address(family: Family, offset: u32, to: Reg) -> Expr {
    Expr::Payload {
        base: Base::Network,
        offset,
        length: u32::from(address_length(family)),
        to,
    }
}

fn connection(key: Ct, bits: u32) -> Vec<Expr> {
    let mut exprs = vec![Expr::Ct { key, to: SCRATCH }];
    exprs.extend(has_bits(SCRATCH, bits));
    exprs
}

fn has_bits(reg: Reg, bits: u32) -> [Expr; 2] {
    [
        Expr::Mask {
            from: reg,
            to: reg,
            mask: bits,
        },
        Expr::Cmp {
            reg,
            op: Op::Neq,
            with: vec![0; 4],
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rules_refer_to_what_exists() {
        for with_ipvs in [false, true] {
            refer_to_what_exists(with_ipvs);
        }
    }

    fn refer_to_what_exists(with_ipvs: bool) {
        let sets = Sets::new();
        let locality = Locality {
            pods: plan::forward::Pods::Ranges(vec!["10.244.0.0/20".parse().expect("a range")]),
            cluster_ranges: vec!["10.96.0.0/12".parse().expect("a range")],
            loopback: plan::forward::Loopback {
                v4: Some([10, 0, 0, 1].into()),
                v6: Some("fd00::1".parse().expect("an address")),
            },
            ..Locality::default()
        };
        let rules = Rules::new(&sets, &BTreeSet::from([10, 10_800]), &locality, with_ipvs);
        let chains: BTreeSet<_> = rules.chains.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(chains.len(), rules.chains.len());
        let known: BTreeSet<_> = sets
            .iter()
            .chain(rules.maps.iter().map(|map| &map.spec))
            .map(|set| set.name.as_str())
            .collect();
        for rule in &rules.rules {
            assert!(chains.contains(rule.chain.as_str()), "{}", rule.chain);
            for expr in &rule.exprs {
                match expr {
                    Expr::Lookup { set, .. }
                    | Expr::NotIn { set, .. }
                    | Expr::Change { map: set, .. } => {
                        assert!(known.contains(set.as_str()), "{set}");
                    }
                    Expr::Dispatch { map, .. } => assert!(known.contains(map.as_str()), "{map}"),
                    _ => {}
                }
            }
        }
        for (_, verdict) in rules.maps.iter().flat_map(|map| &map.elements) {
            if let Verdict::Goto(chain) = verdict {
                assert!(chains.contains(chain.as_str()), "{chain}");
            }
        }
    }
}
