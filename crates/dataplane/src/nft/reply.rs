//! Replies leave by the interface that the request came in by: the marks for it.
//!
//! ```text
//! remember-prerouting   dstnat+15   a connection's first packet, once its destination is
//!                                   translated or local: interface → number, into the
//!                                   connection's mark
//! reply-prerouting      mangle      a packet of a reply: the number, from the connection's mark
//! reply-output          mangle      into the packet's (of this host's own replies too, which are
//!                                   then routed anew)
//! ```
//!
//! The number is in a few bits, the same in both marks; all others stay as they are. What to do with
//! a packet that bears one is said by rules of policy routing, not here. By then the reply's source
//! is still the endpoint's address, so that nothing but the connection knows where it belongs.
//!
//! A table of its own (`inet corten-reply`), so that it is the same whoever translates: this
//! program's rules, or kube-proxy's. Rules are constant, interfaces are elements of one map. Where
//! anything but these differs from what should be, the table is made anew in one transaction: what
//! was remembered stands in the connections.

use std::collections::BTreeMap;

use linux::nft::{
    Batch, ChainSpec, Ct, Data, Element, Expr, Flow, Hook, Meta, Op, Reg, SetSpec, Shape, Socket,
    Verdict,
};

use super::Error;
use super::error::{EINTR, ENOENT, EPERM, errno, is_missing, reading};
use super::rules::{DSTNAT, RTN_LOCAL, Rule};

/// The name of the table in family `inet`.
pub const TABLE: &str = "corten-reply";

/// Netfilter's priority for changes of packets: after conntrack, before destination nat.
const MANGLE: i32 = -150;
/// The map from an interface's index to its number.
const LINK: &str = "link";
/// How often a read is repeated when somebody changes the rule set meanwhile.
const ATTEMPTS: u32 = 8;

const NUMBER: Reg = Reg(4);
const VALUE: Reg = Reg(5);
const SCRATCH: Reg = Reg(15);

/// Interfaces by index, with the number of each in the place that the mask has for it.
pub type Links = BTreeMap<u32, u32>;

/// The executor of this table, for one network namespace. All calls block.
#[derive(Debug)]
pub struct Reply {
    socket: Socket,
}

impl Reply {
    /// Opens it in the calling thread's network namespace. Changes nothing.
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::open().map_err(|source| match errno(&source) {
            Some(EPERM) => Error::Denied,
            _ if is_missing(&source, 0) => Error::Missing { source },
            _ => Error::Netlink {
                action: "open a socket to",
                source,
            },
        })?;
        Ok(Self { socket })
    }

    /// The interfaces that the kernel's table has; none where there is no table.
    pub fn links(&mut self) -> Result<Links, Error> {
        self.steadily(Self::read_links)
            .map(Option::unwrap_or_default)
    }

    /// Makes the kernel number replies to what comes in by `links`, in the bits of `mask`. Says
    /// whether anything had to be done.
    pub fn set(&mut self, mask: u32, links: &Links) -> Result<bool, Error> {
        let rules = rules(mask);
        let there = self.steadily(|this| {
            Ok(match this.read_rules()? == marks(&rules) {
                true => this.read_links()?,
                false => None,
            })
        })?;
        let mut batch = Batch::new(TABLE);
        match there {
            Some(there) if there == *links => return Ok(false),
            Some(there) => {
                let gone = there.iter().filter(|(at, to)| links.get(at) != Some(to));
                change(&mut batch, gone, false);
                let new = links.iter().filter(|(at, to)| there.get(at) != Some(to));
                change(&mut batch, new, true);
            }
            None => build(&mut batch, &rules, links),
        }
        self.commit("build", batch)?;
        Ok(true)
    }

    /// Deletes the table; that it is absent is no error. Says whether it was there.
    pub fn remove(&mut self) -> Result<bool, Error> {
        let tables = self.socket.tables().map_err(reading)?;
        if !tables.iter().any(|table| table.name == TABLE) {
            return Ok(false);
        }
        let mut batch = Batch::new(TABLE);
        batch.delete_table();
        match self.commit("delete", batch) {
            Err(Error::Structure { source, .. }) if errno(&source) == Some(ENOENT) => Ok(false),
            done => done.map(|()| true),
        }
    }

    fn commit(&mut self, action: &'static str, batch: Batch) -> Result<(), Error> {
        let done = self.socket.commit(batch);
        done.map_err(|source| match errno(&source) {
            Some(EPERM) => Error::Denied,
            _ => Error::Structure {
                action,
                table: TABLE.to_owned(),
                source,
            },
        })
    }

    fn steadily<T>(&mut self, read: impl Fn(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        for _ in 0..ATTEMPTS {
            match read(self) {
                Err(Error::Netlink { source, .. }) if errno(&source) == Some(EINTR) => {}
                done => return done,
            }
        }
        Err(Error::Busy { attempts: ATTEMPTS })
    }

    /// `None` when there is no such map.
    fn read_links(&mut self) -> Result<Option<Links>, Error> {
        let mut links = Links::new();
        let word = |bytes: &[u8]| bytes.try_into().map(u32::from_ne_bytes);
        let read = self.socket.elements(TABLE, LINK, &mut |element| {
            if let (Ok(index), Ok(number)) = (word(element.key), word(element.data)) {
                links.insert(index, number);
            }
        });
        match read {
            Err(error) if errno(&error) == Some(ENOENT) => Ok(None),
            read => read.map(|()| Some(links)).map_err(reading),
        }
    }

    /// The marks of the rules that are there; none where there is no table.
    fn read_rules(&mut self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let found = match self.socket.rules(TABLE) {
            Err(error) if errno(&error) == Some(ENOENT) => Vec::new(),
            found => found.map_err(reading)?,
        };
        let mut found: Vec<_> = found.into_iter().map(|it| (it.chain, it.mark)).collect();
        // Stable: the order within a chain counts.
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }
}

fn marks(rules: &[Rule]) -> Vec<(String, Vec<u8>)> {
    let marks = rules.iter().map(|it| (it.chain.clone(), it.mark.clone()));
    let mut marks: Vec<_> = marks.collect();
    marks.sort_by(|a, b| a.0.cmp(&b.0));
    marks
}

/// The whole table, in the place of what there may be.
fn build(batch: &mut Batch, rules: &[Rule], links: &Links) {
    // Nothing can be deleted that is not there.
    batch.add_table(0);
    batch.delete_table();
    batch.add_table(0);
    batch.add_set(&SetSpec {
        name: LINK.to_owned(),
        key_type: 20, // iface_index
        fields: vec![4],
        shape: Shape::Value(19, 4), // mark
        intervals: false,
        dynamic: 0,
    });
    for (name, base) in [
        (
            "remember-prerouting",
            Some((Flow::Filter, Hook::Prerouting, DSTNAT + 15)),
        ),
        (
            "reply-prerouting",
            Some((Flow::Filter, Hook::Prerouting, MANGLE)),
        ),
        ("reply-output", Some((Flow::Route, Hook::Output, MANGLE))),
        ("remember", None),
        ("reply", None),
    ] {
        let name = name.to_owned();
        batch.add_chain(&ChainSpec { name, base });
    }
    for rule in rules {
        batch.add_rule(&rule.chain, &rule.exprs, &rule.mark);
    }
    change(batch, links.iter(), true);
}

/// Adds elements, or deletes them.
fn change<'l>(batch: &mut Batch, links: impl Iterator<Item = (&'l u32, &'l u32)>, add: bool) {
    let words: Vec<_> = links
        .map(|(index, number)| (index.to_ne_bytes(), number.to_ne_bytes()))
        .collect();
    let elements = words.iter().map(|(key, value)| Element {
        key,
        key_end: None,
        data: match add {
            true => Data::Value(value),
            false => Data::None,
        },
    });
    match add {
        true => batch.add_elements(LINK, elements),
        false => batch.delete_elements(LINK, elements),
    };
}

fn rules(mask: u32) -> Vec<Rule> {
    let bits = || {
        (0..u32::BITS)
            .map(|at| 1 << at)
            .filter(|bit| mask & bit != 0)
    };
    let goto = |chain: &str| Expr::Verdict(Verdict::Goto(chain.to_owned()));
    let mut rules = Vec::new();
    let mut rule = |chain: &str, comment: &str, exprs: &[&[Expr]]| {
        rules.push(Rule::new(chain, comment, exprs.concat()));
    };

    let first = [
        &number()[..],
        &direction(Ct::ORIGINAL),
        &[load(Ct::Mark)],
        &bits_of(SCRATCH, mask, Op::Eq),
    ]
    .concat();
    let translated = [
        &[load(Ct::Status)][..],
        &bits_of(SCRATCH, Ct::STATUS_DNAT, Op::Neq),
    ]
    .concat();
    let local = [
        Expr::DestinationType { to: SCRATCH },
        compare(Op::Eq, RTN_LOCAL.to_ne_bytes().to_vec()),
    ];
    let remember = [goto("remember")];
    let chain = "remember-prerouting";
    rule(chain, "a Service", &[&first, &translated, &remember]);
    rule(chain, "this host", &[&first, &local, &remember]);
    for bit in bits() {
        let to_mark = [
            load_to(Ct::Mark, VALUE),
            Expr::Or {
                from: VALUE,
                to: VALUE,
                bits: bit,
            },
            Expr::SetConnectionMark { from: VALUE },
        ];
        let has = bits_to(NUMBER, SCRATCH, bit, Op::Neq);
        rule("remember", "a bit", &[&number(), &has, &to_mark]);
    }

    let numbered = [
        &direction(Ct::REPLY)[..],
        &[load(Ct::Mark)],
        &bits_of(SCRATCH, mask, Op::Neq),
        &[goto("reply")],
    ]
    .concat();
    rule("reply-prerouting", "numbered", &[&numbered]);
    rule("reply-output", "numbered", &[&numbered]);
    let mark = Expr::Meta {
        key: Meta::Mark,
        to: VALUE,
    };
    let set = Expr::SetMeta {
        key: Meta::Mark,
        from: VALUE,
    };
    let clear = Expr::Mask {
        from: VALUE,
        to: VALUE,
        mask: !mask,
    };
    rule("reply", "clear", &[&[mark.clone(), clear, set.clone()]]);
    for bit in bits() {
        let or = Expr::Or {
            from: VALUE,
            to: VALUE,
            bits: bit,
        };
        let has = bits_of(SCRATCH, bit, Op::Neq);
        let to_mark = [mark.clone(), or, set.clone()];
        rule("reply", "a bit", &[&[load(Ct::Mark)], &has, &to_mark]);
    }
    rules
}

/// Loads the number of the interface that the packet came in by, or stops the rule.
fn number() -> [Expr; 2] {
    [
        Expr::Meta {
            key: Meta::Iif,
            to: SCRATCH,
        },
        Expr::Lookup {
            set: LINK.to_owned(),
            key: SCRATCH,
            to: Some(NUMBER),
        },
    ]
}

const fn load(key: Ct) -> Expr {
    load_to(key, SCRATCH)
}

const fn load_to(key: Ct, to: Reg) -> Expr {
    Expr::Ct { key, to }
}

const fn compare(op: Op, with: Vec<u8>) -> Expr {
    Expr::Cmp {
        reg: SCRATCH,
        op,
        with,
    }
}

fn direction(which: u8) -> [Expr; 2] {
    [load(Ct::Direction), compare(Op::Eq, vec![which])]
}

/// Goes on when none of the bits is set (`Eq`), or one is (`Neq`).
fn bits_of(from: Reg, bits: u32, op: Op) -> [Expr; 2] {
    bits_to(from, SCRATCH, bits, op)
}

fn bits_to(from: Reg, to: Reg, bits: u32, op: Op) -> [Expr; 2] {
    let mask = Expr::Mask {
        from,
        to,
        mask: bits,
    };
    [mask, compare(op, vec![0; 4])]
}
