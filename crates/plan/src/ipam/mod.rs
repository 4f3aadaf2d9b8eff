//! Which address a Service gets, and what its status says.
//!
//! [`Allocator`] is the index of everything recorded: pools, allocations, and the Services that
//! wait for an address. It lives inside World and changes only by [`Allocator::set_pools`],
//! [`Allocator::record`] and [`Allocator::commit`]. [`decide()`] reads it and a Service and proposes
//! a [`Decision`]; committing that decision and deciding again proposes nothing new.
//!
//! The rules are MetalLB's (its controller and allocator, release 0.16), the texts of its events
//! too. What differs, on purpose:
//! - an allocation that was recorded counts more than the status: an echo of an older status does
//!   not move a Service, and an edited status is put right;
//! - a PreferDualStack Service with one cluster IP is not given a second address, which the next
//!   pass would take away again;
//! - two addresses keep the order in which they were asked for; the first one drives the layer 2
//!   election;
//! - pools of equal priority are tried by name;
//! - a frozen pool gives nothing new and takes nothing away;
//! - an event is proposed once per state, not once per pass.

mod allocator;
mod decide;
mod error;
mod pool;
mod propose;
mod request;
mod runs;
#[cfg(test)]
mod tests;
mod waiters;

pub use allocator::{Allocation, Allocator, Pending, Port, SharingKey, Wants};
pub use decide::{Decision, Kind, Note, Options, Outcome, Reason, decide};
pub use error::{AllocationError, Conflict, Families};
pub use pool::{Counters, Pool, ServiceAllocation};
pub(crate) use request::{ports as service_ports, sharing as sharing_key};
