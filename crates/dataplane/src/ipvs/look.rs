//! Whether others have changed virtual servers, their destinations or addresses.
//!
//! The kernel tells nobody of such a change and counts none, so all servers and all addresses are
//! read, each in one dump. That costs more the more there are: looks are so far apart that they
//! take a hundredth of the time at most. The destinations of one server are a question of their
//! own: each look asks for those of some servers, and goes on where the last one ended.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use linux::ipvs::{ServerKey, Settings};
use plan::forward::Front;

use super::difference::{OURS, difference, key, settings};
use super::{Denied, Error, Ipvs, failed};
use crate::nft::Look;

/// Between two looks, at least.
const PAUSE: Duration = Duration::from_secs(2);
/// And so many times what one takes.
const SHARE: u32 = 100;
/// The servers whose destinations one look compares.
const TOGETHER: usize = 64;

/// Where looking stands.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Not before.
    next: Option<Instant>,
    /// The last server whose destinations were compared.
    last: Option<Front>,
}

impl Watch {
    /// Just mended: others may be at it still.
    pub(super) const fn soon(&mut self) {
        self.next = None;
    }
}

impl Ipvs {
    /// Looks whether others have changed something since all was compared; of the rule set as
    /// [`crate::nft::Nft::look`].
    pub fn look(&mut self) -> Result<Look, Error> {
        let rules = self.nft.look()?;
        let early = self.watch.next.is_some_and(|next| Instant::now() < next);
        if self.doubtful || early || rules == Look::Broken {
            return Ok(rules);
        }
        let start = Instant::now();
        let right = self.has_servers()? && self.has_destinations()?;
        let right = right && self.device.has(&self.servers.addresses())?;
        let took = start.elapsed();
        tracing::trace!(?took, right, "looked at virtual servers");
        self.watch.next = Some(Instant::now() + PAUSE.max(took * SHARE));
        Ok(if right { rules } else { Look::Broken })
    }

    /// All servers are as wanted, and there is no other one of ours.
    fn has_servers(&mut self) -> Result<bool, Error> {
        let found = self.socket.servers().map_err(failed("list"))?;
        let mut there: HashMap<ServerKey, Settings> =
            found.into_iter().map(|it| (it.key, it.settings)).collect();
        for (front, server) in self.servers.iter() {
            let found = there.remove(&key(front));
            let right = match (self.denied.get(front), &found) {
                // Who had its place has left.
                (Some(Denied::Foreign), None) => false,
                (Some(_), _) => true,
                (None, found) => found.as_ref() == Some(&settings(server)),
            };
            if !right {
                return Ok(false);
            }
        }
        Ok(there.values().all(|it| it.flags & OURS == 0))
    }

    /// The next servers' destinations are as wanted. Those of whom some leave are looked at anyway.
    fn has_destinations(&mut self) -> Result<bool, Error> {
        let next: Vec<Front> = self.servers.after(self.watch.last).take(TOGETHER).collect();
        // From the beginning again, once the end was reached.
        self.watch.last = next.last().copied().filter(|_| next.len() == TOGETHER);
        for front in next {
            let Some(wanted) = self.servers.get(&front) else {
                continue;
            };
            if self.denied.contains_key(&front) || self.draining.contains(&front) {
                continue;
            }
            let found = self.socket.destinations(&key(&front));
            let found = found.map_err(failed("read"))?;
            let difference = difference(&front, wanted, Some(&settings(wanted)), &found);
            if !difference.requests.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
