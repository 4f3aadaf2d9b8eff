//! Makes the kernel forget UDP connections that lead to endpoints which serve no more.
//!
//! What is stale is decided in [`plan::forward::Serving`]; here the kernel's connections are
//! streamed past it. All calls block; run it on a thread of the network namespace that it is for.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use linux::conntrack::{Conntrack, Flow};
use linux::nft;
use plan::forward::Serving;
use plan::net::Family;

/// Connections that are forgotten at once; with more, the kernel is read again.
const AT_ONCE: usize = 16 * 1024;

/// The kernel's connections could not be read or forgotten.
#[derive(Debug, thiserror::Error)]
#[error("cannot forget UDP connections to endpoints that are gone")]
pub struct Error(#[from] nft::Error);

/// Forgets connections.
#[derive(Debug)]
pub struct Reconciler {
    conntrack: Conntrack,
}

impl Reconciler {
    /// Opens it in the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            conntrack: Conntrack::open()?,
        })
    }

    /// Forgets what `serving` calls stale in one family; says how many that were.
    pub fn reconcile(&mut self, serving: &Serving, family: Family) -> Result<usize, Error> {
        if serving.is_empty() {
            return Ok(0);
        }
        self.forget(family, |flow| {
            serving.is_stale(flow.destination, flow.replier)
        })
    }

    /// Forgets whatever came to one of these addresses; says how many that were.
    pub fn forget_all(&mut self, at: &BTreeSet<SocketAddr>) -> Result<usize, Error> {
        let mut forgotten = 0;
        for family in [Family::V4, Family::V6] {
            if at.iter().any(|it| Family::of(it.ip()) == family) {
                forgotten += self.forget(family, |flow| at.contains(&flow.destination))?;
            }
        }
        Ok(forgotten)
    }

    fn forget(
        &mut self,
        family: Family,
        is_stale: impl Fn(&Flow<'_>) -> bool,
    ) -> Result<usize, Error> {
        let mut forgotten = 0;
        loop {
            let mut stale = Vec::new();
            self.conntrack.udp(family == Family::V6, &mut |flow| {
                if stale.len() < AT_ONCE && is_stale(&flow) {
                    stale.push(flow.handle());
                }
            })?;
            let deleted = self.conntrack.delete(&stale)?;
            forgotten += deleted;
            if stale.len() < AT_ONCE || deleted == 0 {
                return Ok(forgotten);
            }
        }
    }
}
