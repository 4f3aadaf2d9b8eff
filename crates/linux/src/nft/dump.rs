//! What nf_tables says that it holds, decoded.

use super::attr::Reader;
use super::error::DecodeError;

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// [`super::TABLE_OWNER`], [`super::TABLE_PERSIST`].
    pub flags: u32,
    /// The netlink port of the socket that owns it; `None` when nobody does.
    pub owner: Option<u32>,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainInfo {
    /// The table it is in.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Hook number and priority of a base chain.
    pub hook: Option<(u32, i32)>,
    /// How many rules it has, and how many rules and elements of maps lead to it, all together.
    pub uses: u32,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// The chain it is in.
    pub chain: String,
    /// The kernel's number for it.
    pub handle: u64,
    /// The chains that it jumps or goes to, without a map.
    pub targets: Vec<String>,
    /// Its user data.
    pub mark: Vec<u8>,
}

/// An element of a set, borrowed from the message that brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElementInfo<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The last key of a range.
    pub key_end: Option<&'a [u8]>,
    /// The value; empty for a set and for a verdict map.
    pub data: &'a [u8],
}

/// A required attribute is missing.
fn missing(kind: u16) -> DecodeError {
    DecodeError::Missing { kind }
}

fn text(value: Option<&str>, kind: u16) -> Result<String, DecodeError> {
    value.map(str::to_owned).ok_or_else(|| missing(kind))
}

impl TableInfo {
    pub(super) fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let (mut name, mut flags, mut owner) = (None, 0, None);
        for attr in Reader::new(payload) {
            let attr = attr?;
            match attr.kind {
                1 => name = Some(attr.string()?),
                2 => flags = attr.u32()?,
                7 => owner = Some(attr.u32()?),
                _ => {}
            }
        }
        Ok(Self {
            name: text(name, 1)?,
            flags,
            owner: owner.filter(|port| *port != 0),
        })
    }
}

impl ChainInfo {
    pub(super) fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let (mut table, mut name, mut hook, mut uses) = (None, None, None, 0);
        for attr in Reader::new(payload) {
            let attr = attr?;
            match attr.kind {
                1 => table = Some(attr.string()?),
                3 => name = Some(attr.string()?),
                4 => {
                    let number = attr.nested().find(1)?.ok_or_else(|| missing(1))?.u32()?;
                    let priority = attr.nested().find(2)?.ok_or_else(|| missing(2))?.u32()?;
                    hook = Some((number, priority as i32));
                }
                6 => uses = attr.u32()?,
                _ => {}
            }
        }
        Ok(Self {
            table: text(table, 1)?,
            name: text(name, 3)?,
            hook,
            uses,
        })
    }
}

impl RuleInfo {
    pub(super) fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let (mut chain, mut mark, mut handle) = (None, Vec::new(), 0);
        let mut targets = Vec::new();
        for attr in Reader::new(payload) {
            let attr = attr?;
            match attr.kind {
                2 => chain = Some(attr.string()?),
                3 => handle = attr.u64()?,
                4 => {
                    for expr in attr.nested() {
                        targets.extend(target(expr?.nested())?.map(str::to_owned));
                    }
                }
                7 => mark = attr.value.to_vec(),
                _ => {}
            }
        }
        Ok(Self {
            chain: text(chain, 2)?,
            handle,
            targets,
            mark,
        })
    }
}

/// The chain that an expression leads to.
fn target(expr: Reader<'_>) -> Result<Option<&str>, DecodeError> {
    let name = expr.clone().find(1)?.ok_or_else(|| missing(1))?;
    if name.string()? != "immediate" {
        return Ok(None);
    }
    let mut at = expr.find(2)?;
    // Its data, of these the value, of that the verdict, of that the chain.
    for kind in [2, 2, 2] {
        let Some(attr) = at else { return Ok(None) };
        at = attr.nested().find(kind)?;
    }
    at.map(|chain| chain.string()).transpose()
}

/// The packets that the counters of a rule have seen.
pub(super) fn counted(payload: &[u8]) -> Result<u64, DecodeError> {
    let mut packets = 0;
    let Some(list) = Reader::new(payload).find(4)? else {
        return Ok(packets);
    };
    for element in list.nested() {
        let element = element?;
        let name = element.nested().find(1)?.ok_or_else(|| missing(1))?;
        if name.string()? != "counter" {
            continue;
        }
        let data = element.nested().find(2)?.ok_or_else(|| missing(2))?;
        let number = data.nested().find(2)?.ok_or_else(|| missing(2))?;
        packets += number.u64()?;
    }
    Ok(packets)
}

/// Table and name of a set.
pub(super) fn set_name(payload: &[u8]) -> Result<(String, String), DecodeError> {
    let table = Reader::new(payload).find(1)?.ok_or_else(|| missing(1))?;
    let name = Reader::new(payload).find(2)?.ok_or_else(|| missing(2))?;
    Ok((table.string()?.to_owned(), name.string()?.to_owned()))
}

/// Calls `each` for every element in one message of a dump.
pub(super) fn elements(
    payload: &[u8],
    each: &mut dyn FnMut(ElementInfo<'_>),
) -> Result<(), DecodeError> {
    let Some(list) = Reader::new(payload).find(3)? else {
        return Ok(());
    };
    for element in list.nested() {
        let (mut key, mut key_end, mut data) = (None, None, &[][..]);
        for attr in element?.nested() {
            let attr = attr?;
            let value = || -> Result<&[u8], DecodeError> {
                Ok(attr.nested().find(1)?.map_or(&[][..], |v| v.value))
            };
            match attr.kind {
                1 => key = Some(value()?),
                2 => data = value()?,
                10 => key_end = Some(value()?),
                _ => {}
            }
        }
        each(ElementInfo {
            key: key.ok_or_else(|| missing(1))?,
            key_end,
            data,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::attr::Attrs;
    use super::super::expr::{Expr, Reg, Verdict};
    use super::*;

    #[test]
    fn a_rule_says_where_it_leads() {
        let mut payload = Vec::new();
        let mut attrs = Attrs::new(&mut payload);
        attrs.string(2, "PREROUTING");
        attrs.u64(3, 7);
        attrs.nest(4, |list| {
            for expr in [
                Expr::Word {
                    to: Reg(0),
                    value: 1,
                },
                Expr::Verdict(Verdict::Goto("KUBE-SERVICES".to_owned())),
                Expr::Verdict(Verdict::Drop),
                Expr::Masquerade,
            ] {
                expr.encode(list);
            }
        });
        let rule = RuleInfo::decode(&payload).unwrap();
        assert_eq!((&*rule.chain, rule.handle), ("PREROUTING", 7));
        assert_eq!(rule.targets, ["KUBE-SERVICES"]);
    }
}
