//! What should be, as pure functions of what is known.
//!
//! [`world::World`] is one plain value; [`world::World::apply`] changes it in place and says which
//! keys are dirty; the planners ([`ipam`], [`announce`], [`forward`]) turn a dirty key into a piece
//! of `Desired`. No clock, socket, file or task lives here: time and randomness are arguments, and
//! `cargo xtask ci` proves that the dependency tree stays that way.

pub mod announce;
pub mod config;
pub mod desired;
pub mod explain;
pub mod forward;
pub mod ipam;
pub mod name;
pub mod net;
pub mod status;
pub mod world;
