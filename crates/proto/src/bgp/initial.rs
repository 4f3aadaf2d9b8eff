//! When a peer has sent all that it had as its session came up.
//!
//! With graceful restart it says so itself, by End-of-RIB for each family (RFC 4724 §2), and that is
//! waited for: who bounds the wait knows what depends on it. A peer without it need not say so, and
//! RFC 4724 §4.1 does not have it waited for. Its routes come in one go, so that a silence after them
//! is their end; to give up at once what it is about to send again would make a gap.

use std::time::Duration;

use super::{Families, Family, Negotiated};

/// After an UPDATE, a silence that is the end of the first ones. Routers that collect before they
/// send do so for a second or less.
const SILENCE: Duration = Duration::from_secs(3);
/// How long the first one may take.
const FIRST: Duration = Duration::from_secs(30);

/// What is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initial {
    /// Families whose End-of-RIB has not come.
    families: Families,
    /// Without End-of-RIB it is over then.
    until: Option<Duration>,
}

impl Initial {
    /// A session is there.
    pub fn new(now: Duration, session: &Negotiated) -> Self {
        Self {
            families: session.codec.families,
            until: session.graceful.is_none().then_some(now + FIRST),
        }
    }

    /// An UPDATE has come; `end_of_rib`: it is that of this family.
    pub fn update(&mut self, now: Duration, end_of_rib: Option<Family>) {
        match end_of_rib {
            Some(family) => self.families.remove(family),
            None => self.until = self.until.map(|_| now + SILENCE),
        }
    }

    /// Whether all is there.
    pub fn is_over(&self, now: Duration) -> bool {
        self.families.is_empty() || self.until.is_some_and(|until| until <= now)
    }

    /// When that is, if nothing comes any more.
    pub fn deadline(&self) -> Option<Duration> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::{fsm::Graceful, *};
    use super::*;

    fn secs(value: u64) -> Duration {
        Duration::from_secs(value)
    }

    /// A session at second 10, with graceful restart or without.
    fn begun(graceful: bool) -> Initial {
        let id = Ipv4Addr::new(10, 0, 0, 1);
        let mut config = fsm::Config::new(Asn(64512), id, fsm::RemoteAs::Any);
        config.graceful = graceful.then_some(Graceful {
            restart_time: 120,
            restarting: false,
            families: Families::NONE,
            forwarding: Families::NONE,
            long_lived: None,
            stale_time: secs(360),
        });
        let open = config.open();
        Initial::new(secs(10), &Negotiated::new(&open, &open, false))
    }

    #[test]
    fn with_graceful_restart_each_family_has_its_end() {
        let mut initial = begun(true);
        assert_eq!(initial.deadline(), None);
        initial.update(secs(11), None);
        initial.update(secs(12), Some(Family::Ipv4));
        assert!(!initial.is_over(secs(3600)), "IPv6 is to come");
        initial.update(secs(13), Some(Family::Ipv6));
        assert!(initial.is_over(secs(13)));
    }

    #[test]
    fn without_it_a_silence_is_the_end() {
        let mut initial = begun(false);
        assert_eq!(initial.deadline(), Some(secs(40)));
        assert!(!initial.is_over(secs(39)) && initial.is_over(secs(40)));
        for at in [30, 31, 33] {
            initial.update(secs(at), None);
            assert!(!initial.is_over(secs(at + 2)));
        }
        assert_eq!(initial.deadline(), Some(secs(36)));
        assert!(initial.is_over(secs(36)));
        // Many say it all the same (RFC 4724 §2 recommends it).
        let mut initial = begun(false);
        initial.update(secs(11), Some(Family::Ipv4));
        initial.update(secs(11), Some(Family::Ipv6));
        assert!(initial.is_over(secs(11)));
    }
}
