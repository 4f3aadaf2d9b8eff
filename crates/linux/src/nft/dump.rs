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
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// The chain it is in.
    pub chain: String,
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
        let (mut table, mut name, mut hook) = (None, None, None);
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
                _ => {}
            }
        }
        Ok(Self {
            table: text(table, 1)?,
            name: text(name, 3)?,
            hook,
        })
    }
}

impl RuleInfo {
    pub(super) fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let (mut chain, mut mark) = (None, Vec::new());
        for attr in Reader::new(payload) {
            let attr = attr?;
            match attr.kind {
                2 => chain = Some(attr.string()?),
                7 => mark = attr.value.to_vec(),
                _ => {}
            }
        }
        Ok(Self {
            chain: text(chain, 2)?,
            mark,
        })
    }
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
