//! Equal paths once.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc};

use super::Path;

/// A path's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PathId(NonZeroU32);

impl PathId {
    /// Of the last of so many places.
    fn last(places: usize) -> Self {
        let number = u32::try_from(places).ok().and_then(NonZeroU32::new);
        Self(number.unwrap_or(NonZeroU32::MAX))
    }

    fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

#[derive(Debug)]
struct Slot {
    path: Option<Arc<Path>>,
    users: usize,
}

/// Paths with a count of those who need them.
#[derive(Debug, Default)]
pub(super) struct Paths {
    index: HashMap<Arc<Path>, PathId>,
    slots: Vec<Slot>,
    free: Vec<PathId>,
    /// The one that was last asked for: most come in runs of the same.
    last: Option<PathId>,
}

impl Paths {
    /// One more needs it.
    pub(super) fn hold(&mut self, path: &Arc<Path>) -> PathId {
        let id = self.find(path);
        self.last = Some(id);
        self.share(id);
        id
    }

    fn find(&mut self, path: &Arc<Path>) -> PathId {
        if let Some(last) = self.last
            && self.get(last).is_some_and(|known| Arc::ptr_eq(known, path))
        {
            return last;
        }
        if let Some(id) = self.index.get(path) {
            return *id;
        }
        let slot = Slot {
            path: Some(Arc::clone(path)),
            users: 0,
        };
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(place) = self.slots.get_mut(id.place()) {
                    *place = slot;
                }
                id
            }
            None => {
                self.slots.push(slot);
                PathId::last(self.slots.len())
            }
        };
        self.index.insert(Arc::clone(path), id);
        id
    }

    /// One more needs a path that is there.
    pub(super) fn share(&mut self, id: PathId) {
        if let Some(slot) = self.slots.get_mut(id.place()) {
            slot.users += 1;
        }
    }

    /// One less needs it.
    pub(super) fn release(&mut self, id: PathId) {
        let Some(slot) = self.slots.get_mut(id.place()) else {
            return;
        };
        slot.users = slot.users.saturating_sub(1);
        if slot.users == 0
            && let Some(path) = slot.path.take()
        {
            self.index.remove(&path);
            self.free.push(id);
        }
    }

    pub(super) fn get(&self, id: PathId) -> Option<&Arc<Path>> {
        self.slots.get(id.place())?.path.as_ref()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
}
