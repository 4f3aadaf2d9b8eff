//! Kernel verbs: namespaces, netlink, sockets, nf_tables, IPVS, connection tracking. The only crate with
//! `unsafe`.

#[cfg(test)]
mod alone;
pub mod capture;
pub mod conntrack;
pub mod datagram;
pub mod divided;
pub mod icmpv6;
pub mod ipset;
pub mod iptables;
pub mod ipvs;
pub mod memory;
pub mod namespace;
pub mod netlink;
pub mod nft;
mod option;
pub mod packet;
pub mod tcp;
pub mod thread;
