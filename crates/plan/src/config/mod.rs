//! Objects of any dialect become one Config, with one verdict per object.

mod selector;

pub use selector::{Requirement, Selector, any_matches};
