//! IPVS for real: the netlink messages, and the back end on top of them. SCTP by either back end.

mod backend;
mod ground;
mod messages;
mod sctp;
