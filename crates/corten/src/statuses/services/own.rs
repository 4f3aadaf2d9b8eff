//! What is remembered of this node's own objects: their names, and whether they say what they
//! should. There is one for each Service, so there may be tens of thousands.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use plan::name::ServiceKey;

use super::Word;

/// What an object says, as far as it has to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// It has no status yet.
    Nothing,
    /// It speaks of another node or Service. That cannot be changed: it has to go.
    OfOthers,
    /// It speaks of this node and the Service, with this list.
    List(u64),
}

impl Says {
    /// A list's fingerprint.
    pub(super) fn list<'a>(list: impl Iterator<Item = &'a str>) -> Self {
        let mut hasher = DefaultHasher::new();
        for name in list {
            name.hash(&mut hasher);
        }
        Self::List(hasher.finish())
    }

    /// What `status` says on `node` for `service`.
    pub(super) fn of<S: Word>(status: &S, node: &str, service: &ServiceKey) -> Self {
        match status.subject() {
            ["", ..] => Self::Nothing,
            subject if subject == [node, &service.name, &service.namespace] => {
                Self::list(status.list())
            }
            _ => Self::OfOthers,
        }
    }
}

/// The own objects of one Service, in the order of their names; nearly always one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Own(Vec<(Arc<str>, Says)>);

impl Own {
    pub(super) fn insert(&mut self, name: Arc<str>, says: Says) {
        match self.0.binary_search_by(|(known, _)| known.cmp(&name)) {
            Ok(place) => {
                if let Some((_, old)) = self.0.get_mut(place) {
                    *old = says;
                }
            }
            Err(place) => {
                self.0.reserve_exact(1);
                self.0.insert(place, (name, says));
            }
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| **known != *name);
    }

    pub(super) fn get(&self, name: &str) -> Option<Says> {
        let found = self.iter().find(|(known, _)| **known == *name);
        found.map(|(_, says)| *says)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(Arc<str>, Says)> {
        self.0.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
