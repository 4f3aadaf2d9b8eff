//! IPVS for real: the netlink messages, the back end on top of them, the program.
//! SCTP by either back end.

mod agent;
mod backend;
mod beside;
mod ground;
mod messages;
mod objects;
mod sctp;
