//! Links, addresses, routes, rules and neighbours by rtnetlink (`rtnetlink(7)`), in plain types.
//!
//! - [`Netlink`] is a handle on one socket, which belongs to the network namespace of the thread
//!   that opened it. Each verb is one request with the kernel's answer. Cloning shares the socket.
//! - [`Changes`] hears of changes of links and addresses, and of routes and rules. It says only what changed: whoever
//!   needs the state lists it anew ([`Netlink::interfaces`]), so that a lost message costs a list
//!   and never a wrong view.
//!
//! Cancel safety: a verb that is dropped may or may not have taken effect; [`Changes::next`] loses
//! nothing.

mod address;
mod link;
mod neighbour;
mod route;
mod rule;
mod watch;

use std::io;

use futures::TryStreamExt;

pub use address::AddressFlags;
pub use link::{Interface, LinkFlags, Mac, VethEnd};
pub use neighbour::Neighbour;
pub use route::{Hop, PROTOCOL_STATIC, Route, TABLE_MAIN};
pub use rule::Rule;
pub use watch::{Change, Changes};

/// A request that the kernel refused, or that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct NetlinkError {
    what: String,
    source: io::Error,
}

impl NetlinkError {
    fn new(what: impl Into<String>, source: io::Error) -> Self {
        Self {
            what: what.into(),
            source,
        }
    }

    fn from_rtnetlink(what: impl Into<String>, error: rtnetlink::Error) -> Self {
        let source = match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other),
        };
        Self::new(what, source)
    }

    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// The thing to be added is there already.
    pub fn is_there(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// The kernel does not know such a thing.
    pub fn is_unknown(&self) -> bool {
        self.errno() == Some(libc::EOPNOTSUPP)
    }

    /// The thing to be changed or removed is not there.
    pub fn is_missing(&self) -> bool {
        matches!(
            self.errno(),
            Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL)
        )
    }
}

type Result<T> = std::result::Result<T, NetlinkError>;

/// Adds what was asked to an answer.
trait Asked<T> {
    fn asked(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Asked<T> for std::result::Result<T, rtnetlink::Error> {
    fn asked(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| NetlinkError::from_rtnetlink(what(), e))
    }
}

/// A handle on an rtnetlink socket; see the module's documentation.
#[derive(Clone)]
pub struct Netlink {
    handle: rtnetlink::Handle,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Netlink")
    }
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace and starts its task, which ends
    /// with the last clone of the handle. Must be called within a tokio runtime.
    pub fn open() -> Result<Self> {
        let opened = rtnetlink::new_connection();
        let (connection, handle, _) =
            opened.map_err(|e| NetlinkError::new("open a netlink socket", e))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// All interfaces with their addresses, by index.
    pub async fn interfaces(&self) -> Result<Vec<Interface>> {
        let links: Vec<_> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .asked(|| "list links".into())?;
        let addresses = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect::<Vec<_>>()
            .await;
        let addresses = addresses.asked(|| "list addresses".into())?;
        let mut interfaces: Vec<_> = links.iter().map(Interface::from_message).collect();
        interfaces.sort_by_key(|i| i.index);
        for (index, ip, prefix) in addresses.iter().filter_map(address::from_message) {
            // An interface that appeared between the two lists is the next change's matter.
            if let Ok(at) = interfaces.binary_search_by_key(&index, |i| i.index) {
                interfaces[at].addresses.push((ip, prefix));
            }
        }
        Ok(interfaces)
    }
}
