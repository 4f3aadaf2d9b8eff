//! IPVS by generic netlink: virtual servers and their destinations read and written, nothing
//! decided.
//!
//! - [`Request`], [`Server`], [`Destination`]: what is asked and what is there, pure
//!   (`message.rs`).
//! - [`Socket`]: sends requests, many in one datagram, and collects the kernel's answers. Each
//!   request takes effect by itself: IPVS knows no transactions.
//! - [`Timeouts`]: for how long connections are known, of all virtual servers together.
//!
//! Only destinations that are reached by translation (`ipvsadm -m`) are written.
//!
//! Source: `include/uapi/linux/ip_vs.h`, `net/netfilter/ipvs/ip_vs_ctl.c`.

mod error;
mod message;
mod socket;
mod timeouts;

pub use error::Error;
pub use message::{
    Destination, PERSISTENT, Request, SCHEDULER_1, SCHEDULER_2, Server, ServerKey, Settings,
};
pub use socket::Socket;
pub use timeouts::Timeouts;
