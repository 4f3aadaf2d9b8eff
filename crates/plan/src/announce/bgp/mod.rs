//! BGP: which sessions this node holds, and what it advertises on each (`spec/metallb.md` §4.5,
//! `spec/bgp.md` A2).
//!
//! Nodes do not elect: each that may announce a Service does, and routers spread by ECMP. What one
//! node says is a function of its own form, the configuration, and the Services and endpoints
//! behind a prefix; nothing of other nodes is asked. Whether a route bears a weight is decided by
//! what is configured alone, so that all nodes decide alike (see [`weight`](self::Bandwidth)).
//!
//! [`Bgp::replan`] is what the agent's [`crate::desired::Desired`] uses; [`explain`] and
//! [`peers_of`] answer why a Service is (not) advertised and to whom.
//!
//! A node on which a speaker of MetalLB lives holds no sessions ([`crate::world::Rivals`]).
//!
//! A node that is excluded or asked to drain goes on advertising, with the community
//! GRACEFUL_SHUTDOWN and LOCAL_PREF 0 (RFC 8326), and [`PeerDesired::drain`] says why. How long to wait
//! before everything is withdrawn is the executor's: time is none of a plan's. One that begins with
//! a drain has nothing to shut down gracefully and advertises nothing.

mod claim;
mod desired;
mod route;
mod session;
#[cfg(test)]
pub(crate) mod tests;
mod weight;

pub use claim::{Withheld, explain, peers_of};
pub use desired::{Bgp, Change, PeerDesired, PeerKey};
pub use route::{Attributes, GRACEFUL_SHUTDOWN};
pub use session::{CONNECT_SECONDS, Drain, Families, PeerSession, SessionChange, TIMERS};
pub use weight::{Bandwidth, PER_ENDPOINT};
