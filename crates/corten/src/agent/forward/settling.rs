//! When UDP connections are looked at once more: packets were on their way when the ports changed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use plan::forward::PortKey;
use plan::net::Family;

/// So long after a change.
pub(super) const SETTLED: Duration = Duration::from_secs(1);

/// Which ports' connections are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    These(BTreeSet<PortKey>),
    /// The change may have concerned others too.
    All,
}

impl Default for Which {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Which {
    fn extend(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::These(ports), Self::These(more)) => ports.extend(more),
            (Self::These(_), Self::All) => *self = Self::All,
            (Self::All, _) => {}
        }
    }
}

/// Changes of one family's UDP ports whose second look is still to come.
#[derive(Clone, Debug)]
struct Unsettled {
    family: Family,
    /// Those that are looked at next, and those that changed after the first of them.
    ports: Which,
    later: Which,
    /// When the first of them was, and the last.
    first: Instant,
    last: Instant,
}

/// The looks that are due. Each counts from its change, so that other jobs, however many, put none
/// off; and of many changes no more than one look a second comes.
#[derive(Debug, Default)]
pub(super) struct Settling(Vec<Unsettled>);

impl Settling {
    /// UDP ports of a family have changed.
    pub(super) fn changed(&mut self, family: Family, ports: Which, now: Instant) {
        match self.0.iter_mut().find(|it| it.family == family) {
            Some(known) => {
                known.later.extend(ports);
                known.last = now;
            }
            None => self.0.push(Unsettled {
                family,
                ports,
                later: Which::default(),
                first: now,
                last: now,
            }),
        }
    }

    /// What to look at now. What changed since the first change is looked at again.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(Family, Which)> {
        let mut due = Vec::new();
        self.0.retain_mut(|it| {
            if now < it.first + SETTLED {
                return true;
            }
            let later = std::mem::take(&mut it.later);
            let mut ports = std::mem::replace(&mut it.ports, later);
            it.first = it.last;
            let over = now >= it.last + SETTLED;
            if over {
                ports.extend(std::mem::take(&mut it.ports));
            }
            due.push((it.family, ports));
            !over
        });
        due
    }

    /// How long nothing is due.
    pub(super) fn rest(&self, now: Instant) -> Option<Duration> {
        let next = self.0.iter().map(|it| it.first + SETTLED).min()?;
        Some(next.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use plan::name::ServiceKey;
    use plan::net::Protocol;

    use super::*;

    fn these(name: &str) -> Which {
        let key = PortKey {
            service: ServiceKey::new("default", name),
            port: "".into(),
            protocol: Protocol::Udp,
            family: Family::V4,
        };
        Which::These([key].into())
    }

    /// Moments in milliseconds at which a family is looked at, with jobs at these moments that
    /// change its UDP ports (true) or others.
    fn looks(jobs: impl Iterator<Item = (u64, bool)>) -> Vec<u64> {
        let start = Instant::now();
        let mut settling = Settling::default();
        let mut jobs = jobs.peekable();
        let mut looks = Vec::new();
        for moment in 0..10_000 {
            let now = start + Duration::from_millis(moment);
            // As the executor does: what is due comes before the next job.
            for (family, ports) in settling.due(now) {
                assert_eq!((family, ports), (Family::V4, these("one")));
                looks.push(moment);
            }
            if let Some((_, udp)) = jobs.next_if(|(at, _)| *at == moment)
                && udp
            {
                settling.changed(Family::V4, these("one"), now);
            }
        }
        assert_eq!(settling.rest(start + Duration::from_secs(10)), None);
        looks
    }

    #[test]
    fn a_look_counts_from_its_change_whatever_comes_after() {
        assert_eq!(looks([(100, true)].into_iter()), [1100]);
        assert_eq!(looks([(100, false)].into_iter()), [0; 0]);
        // Others' jobs all the time.
        let others = (0..95).map(|n| (n * 100, n == 3));
        assert_eq!(looks(others), [1300]);
        // Each change is looked at, a second later or more; one look serves many.
        assert_eq!(looks([(0, true), (400, true)].into_iter()), [1000, 1400]);
        let all_the_time = (0..50).map(|n| (n * 100, true));
        assert_eq!(
            looks(all_the_time),
            [1000, 1900, 2800, 3700, 4600, 5500, 5900]
        );
    }

    #[test]
    fn families_settle_apart() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut settling = Settling::default();
        settling.changed(Family::V6, Which::All, at(0));
        settling.changed(Family::V4, these("one"), at(500));
        assert_eq!(settling.rest(at(200)), Some(Duration::from_millis(800)));
        assert_eq!(settling.due(at(999)), []);
        assert_eq!(settling.due(at(1000)), [(Family::V6, Which::All)]);
        assert_eq!(settling.rest(at(1600)), Some(Duration::ZERO));
        assert_eq!(settling.due(at(1600)), [(Family::V4, these("one"))]);
        assert_eq!(settling.rest(at(1600)), None);
    }

    #[test]
    fn a_look_is_at_what_changed() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut settling = Settling::default();
        settling.changed(Family::V4, these("one"), at(0));
        settling.changed(Family::V4, these("two"), at(500));
        assert_eq!(settling.due(at(1000)), [(Family::V4, these("one"))]);
        assert_eq!(settling.due(at(1499)), []);
        assert_eq!(settling.due(at(1500)), [(Family::V4, these("two"))]);
        assert_eq!(settling.due(at(9000)), []);
        // A look that comes late is one at both.
        settling.changed(Family::V4, these("one"), at(9000));
        settling.changed(Family::V4, these("two"), at(9500));
        let mut both = these("one");
        both.extend(these("two"));
        assert_eq!(settling.due(at(10_500)), [(Family::V4, both)]);
        assert_eq!(settling.rest(at(10_500)), None);
        // Where others may have won or lost, all are looked at.
        for [first, second] in [[Which::All, these("one")], [these("one"), Which::All]] {
            settling.changed(Family::V4, first, at(20_000));
            settling.changed(Family::V4, second, at(20_000));
            assert_eq!(settling.due(at(21_000)), [(Family::V4, Which::All)]);
        }
    }
}
