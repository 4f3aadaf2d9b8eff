//! Routes of a peer that restarts (RFC 4724 §4.2, RFC 9494 §4.2).

use std::{collections::BTreeMap, time::Duration};

use super::{
    super::{Families, Family, Negotiated},
    Learned,
};

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The peer should be back by then; long-lived stale for so long after.
    Away {
        until: Duration,
        long_lived: Duration,
    },
    /// Kept beyond the restart time.
    LongLived { until: Duration },
    /// Back: End-of-RIB should be there by then.
    Back { until: Duration },
    /// It is we who were away: the session should be there again by then.
    Reopening { until: Duration },
}

/// Families with stale routes.
#[derive(Debug, Default)]
pub(super) struct Stale {
    families: BTreeMap<Family, Stage>,
}

impl Stale {
    /// The session is gone. `keep`: whether its end lets routes live.
    pub(super) fn down(&mut self, now: Duration, old: &Negotiated, keep: bool) -> Vec<Learned> {
        let named = if keep {
            old.graceful_families()
        } else {
            Families::NONE
        };
        let away = old.graceful.as_ref().map_or(0, |it| it.restart_time);
        let mut out = Vec::new();
        for family in old.codec.families.iter() {
            // Routes that were stale already have had their time (RFC 4724 §4.2).
            let again = self.families.remove(&family).is_some();
            let long_lived = old.long_lived.iter().find(|it| it.family == family.into());
            let long_lived = long_lived.map_or(0, |it| it.stale_time);
            if !named.contains(family) || (away == 0 && long_lived == 0) {
                out.push(Learned::Forget(family));
                continue;
            }
            if again {
                out.push(Learned::ForgetStale(family));
            }
            let stage = Stage::Away {
                until: now + Duration::from_secs(away.into()),
                long_lived: Duration::from_secs(long_lived.into()),
            };
            self.families.insert(family, stage);
            out.push(Learned::Stale(family));
        }
        out
    }

    /// We end the session to open it anew at once, as over a restart of ours: what the peer gave
    /// stays meanwhile, whatever families it names, as it is not its forwarding that may suffer
    /// (RFC 4724 §4.1). The session should be there again within `limit`.
    pub(super) fn reopen(
        &mut self,
        now: Duration,
        old: &Negotiated,
        limit: Duration,
    ) -> Vec<Learned> {
        let mut out = Vec::new();
        let until = now + limit;
        for family in old.codec.families.iter() {
            let stage = Stage::Reopening { until };
            if self.families.insert(family, stage).is_some() {
                out.push(Learned::ForgetStale(family));
            }
            out.push(Learned::Stale(family));
        }
        out
    }

    /// A session is there. After a restart of the peer's only what it says it forwarded all the time
    /// stays until End-of-RIB (RFC 4724 §4.2); after ours all does, if it still knows graceful
    /// restart: who does not sends no End-of-RIB to wait for (§4.1).
    pub(super) fn up(&mut self, now: Duration, new: &Negotiated, limit: Duration) -> Vec<Learned> {
        let kept = new.forwarding_kept();
        let restarts = new.graceful.as_ref().is_none_or(|it| it.restarting);
        let mut out = Vec::new();
        self.families.retain(|family, stage| {
            let keep = match stage {
                Stage::Reopening { .. } if !restarts => new.codec.families.contains(*family),
                _ => kept.contains(*family),
            };
            if keep {
                *stage = Stage::Back { until: now + limit };
            } else {
                out.push(Learned::ForgetStale(*family));
            }
            keep
        });
        out
    }

    pub(super) fn end_of_rib(&mut self, family: Family) -> Option<Learned> {
        let ended = self.families.remove(&family).is_some();
        ended.then_some(Learned::ForgetStale(family))
    }

    /// Nothing is kept any more.
    pub(super) fn clear(&mut self) -> Vec<Learned> {
        let families = std::mem::take(&mut self.families);
        families.into_keys().map(Learned::ForgetStale).collect()
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let until = |stage: &Stage| match *stage {
            Stage::Away { until, .. }
            | Stage::LongLived { until }
            | Stage::Back { until }
            | Stage::Reopening { until } => until,
        };
        self.families.values().map(until).min()
    }

    pub(super) fn expire(&mut self, now: Duration) -> Vec<Learned> {
        let mut out = Vec::new();
        self.families.retain(|family, stage| match *stage {
            Stage::Away { until, long_lived } if until <= now && !long_lived.is_zero() => {
                let until = until + long_lived;
                *stage = Stage::LongLived { until };
                out.push(Learned::LongLivedStale(*family));
                true
            }
            Stage::Away { until, .. }
            | Stage::LongLived { until }
            | Stage::Back { until }
            | Stage::Reopening { until } => {
                if until <= now {
                    out.push(Learned::ForgetStale(*family));
                }
                until > now
            }
        });
        out
    }
}
