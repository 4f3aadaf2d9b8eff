//! nf_tables by netlink: batches written, objects read, nothing decided.
//!
//! - [`attr`]: attributes, pure. [`Expr`]: the expressions of rules, pure.
//! - [`Batch`]: messages that take effect together or not at all, pure.
//! - [`Socket`]: sends batches, collects the kernel's answers, streams dumps.
//!
//! Only what the product needs is here: tables, chains, rules, sets and maps with their elements in
//! family `inet`, in family `netdev` what a device receives, and of others' tables what it takes to
//! remove chains. The `nft` program is not used; tests compare with it.
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h`, `net/netfilter/nfnetlink.c`.

pub mod attr;
mod batch;
mod dump;
mod error;
mod expr;
pub(crate) mod socket;

pub use batch::{
    Batch, ChainSpec, Data, Element, Family, Flow, Hook, Number, SetSpec, Shape, TABLE_OWNER,
    TABLE_PERSIST,
};
pub use dump::{ChainInfo, ElementInfo, RuleInfo, TableInfo};
pub use error::{DecodeError, Error, Refused};
pub use expr::{Base, Ct, Expr, Meta, NfProto, Op, Reg, SetOp, Verdict};
pub use socket::Socket;
