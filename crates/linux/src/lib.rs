//! Kernel verbs: namespaces, netlink, sockets, nf_tables. The only crate with `unsafe`.

pub mod capture;
pub mod namespace;
pub mod netlink;
pub mod nft;
pub mod packet;
pub mod tcp;
