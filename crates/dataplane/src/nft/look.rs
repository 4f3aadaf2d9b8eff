//! Whether others have changed what is ours: asked often, answered cheaply.
//!
//! The kernel numbers the states of its whole rule set. Nobody else has written while that number
//! grows by our own transactions alone. Where it does not, the table's rules and sets are looked at,
//! which costs the same however many Services there are; elements are only compared when the caller
//! has time for it ([`Nft::check`]). A table that is owned (kernel 6.9) needs none of this.

use std::collections::BTreeSet;

use super::error::{EINTR, errno, reading};
use super::structure::Found;
use super::{Error, Nft};

/// What a look has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nobody else has written, or nobody else can.
    Untouched,
    /// Others have written to the rule set. Our rules and sets are right; elements were not compared.
    Uncertain,
    /// The table, a set or a rule is missing, or of another form.
    Broken,
}

/// What is known of the kernel's states.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The table is owned by this socket.
    pub(super) owned: bool,
    /// The number of the state that all was compared with, or that our own transactions made of it.
    whole: Option<u32>,
    /// The number of the state that rules and sets were looked at in.
    shape: Option<u32>,
}

impl Seen {
    /// Our own transaction was committed.
    pub(super) fn wrote(&mut self) {
        self.whole = self.whole.map(|number| number.wrapping_add(1));
    }

    /// All was compared from the state `before` on, and so many transactions mended it.
    pub(super) fn compared(&mut self, before: Option<u32>, batches: usize) {
        self.whole = before.map(|number| number.wrapping_add(batches as u32));
    }
}

impl Nft {
    /// Looks whether others have changed something since all was compared.
    pub fn look(&mut self) -> Result<Look, Error> {
        if self.doubtful || self.seen.owned {
            return Ok(Look::Untouched);
        }
        let now = self.socket.generation().map_err(reading)?;
        if self.seen.whole == Some(now) {
            return Ok(Look::Untouched);
        }
        if self.seen.shape == Some(now) {
            return Ok(Look::Uncertain);
        }
        let found = match self.find() {
            // Somebody is writing right now.
            Err(Error::Netlink { source, .. }) if errno(&source) == Some(EINTR) => {
                return Ok(Look::Uncertain);
            }
            found => found?,
        };
        match found {
            Found::Table {
                sets, rules_right, ..
            } if self.is_right(&sets, rules_right) => {
                self.seen.shape = Some(now);
                Ok(Look::Uncertain)
            }
            _ => Ok(Look::Broken),
        }
    }

    /// Whether rules and sets are as they should be.
    pub(super) fn is_right(&self, sets: &BTreeSet<String>, rules_right: bool) -> bool {
        rules_right
            && sets.len() == self.sets.iter().count() + self.rules.maps.len()
            && self.sets.iter().all(|set| sets.contains(&set.name))
    }
}
