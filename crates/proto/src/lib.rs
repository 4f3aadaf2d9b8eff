//! Packets and state machines of the protocols that Corten speaks, sans-IO.
//!
//! Rules of this crate (design.md §1, §2):
//! - Time comes in as `now: Duration` since any fixed start. A `Duration` and not an `Instant`,
//!   because it can be recorded and replayed, and because the shell should take it from
//!   `CLOCK_BOOTTIME`, which goes on while the machine sleeps and which `Instant` cannot give.
//! - Randomness comes in as a seed.
//! - Bytes go in by `on_…` and `parse`, come out by return values and `poll_…`.
//! - Every protocol has the same rooms: `packet.rs`, `fsm.rs`, `error.rs`, `tests.rs`.
#![forbid(unsafe_code)]

pub mod announcer;
pub mod arp;
pub mod bfd;
pub mod bgp;
mod bytes;
pub mod conflict;
pub mod ethernet;
pub mod inquiry;
pub mod member;
pub mod ndp;
mod random;
pub mod responder;
pub mod router;
pub mod trial;
