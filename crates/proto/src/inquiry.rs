//! When the nodes that are not heard are asked for by ARP and NDP.
//!
//! While a path is cut, the kernels forget the Ethernet addresses of those behind it, and ask for
//! them once a second: so long after the path is back, beats wait, and two nodes answer for one
//! address. So the agent asks as well. One question is enough for both sides: who answers it learns
//! where it came from, and the answer ends what the kernel of the one who asked waits for.
//!
//! All nodes that hear each other share the work, in turns: each beat one of them asks for one that
//! they do not hear, whatever their numbers. When somebody is heard again, or no longer, the path
//! may be back for others too: they are asked for at once.

use std::net::IpAddr;
use std::time::Duration;

/// At a change so many are asked for at once, and the rest in turns.
const BURST: usize = 64;

/// The schedule of one node's questions.
#[derive(Clone, Debug)]
pub struct Inquiry {
    beat: Duration,
    unheard: Vec<IpAddr>,
    /// The other nodes that are heard.
    heard: u32,
    /// Whose turn it is.
    turn: usize,
    /// Questions left that are not to wait for each other.
    burst: usize,
    next: Duration,
}

impl Inquiry {
    /// Asks for nobody, as yet. `beat`: between two questions of all the nodes that hear each other.
    pub fn new(beat: Duration) -> Self {
        Self {
            beat,
            unheard: Vec::new(),
            heard: 0,
            turn: 0,
            burst: 0,
            next: Duration::ZERO,
        }
    }

    /// Who is not heard, and how many others are.
    pub fn set(&mut self, now: Duration, unheard: Vec<IpAddr>, heard: usize) {
        let heard = u32::try_from(heard).unwrap_or(u32::MAX);
        if (&self.unheard, self.heard) == (&unheard, heard) {
            return;
        }
        self.burst = unheard.len().min(BURST);
        self.unheard = unheard;
        self.heard = heard;
        self.next = now;
    }

    /// When to call [`Self::on_timeout`].
    pub fn poll_timeout(&self) -> Option<Duration> {
        (!self.unheard.is_empty()).then_some(self.next)
    }

    /// Who is to be asked for now; to be called until nobody is.
    pub fn on_timeout(&mut self, now: Duration) -> Option<IpAddr> {
        if self.unheard.is_empty() || now < self.next {
            return None;
        }
        let asked = *self.unheard.get(self.turn % self.unheard.len())?;
        self.turn = self.turn.wrapping_add(1);
        self.burst = self.burst.saturating_sub(1);
        if self.burst == 0 {
            // What was missed is not made up for.
            self.next = now + self.beat.saturating_mul(self.heard.saturating_add(1));
        }
        Some(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_millis(30);

    fn ips(last: impl IntoIterator<Item = u8>) -> Vec<IpAddr> {
        last.into_iter()
            .map(|last| IpAddr::from([10, 0, 0, last]))
            .collect()
    }

    /// Who is asked for until `end`, and when, in milliseconds.
    fn asked(inquiry: &mut Inquiry, end: u64) -> Vec<(u64, IpAddr)> {
        let mut asked = Vec::new();
        while let Some(due) = inquiry.poll_timeout() {
            if due > Duration::from_millis(end) {
                break;
            }
            while let Some(ip) = inquiry.on_timeout(due) {
                asked.push((due.as_millis() as u64, ip));
            }
        }
        asked
    }

    #[test]
    fn who_hears_all_asks_nobody() {
        let mut inquiry = Inquiry::new(BEAT);
        assert_eq!(inquiry.poll_timeout(), None);
        inquiry.set(BEAT, Vec::new(), 4);
        assert_eq!(inquiry.poll_timeout(), None);
        assert_eq!(inquiry.on_timeout(BEAT), None);
    }

    #[test]
    fn who_hears_nobody_asks_with_each_beat_in_turns() {
        let mut inquiry = Inquiry::new(BEAT);
        let [a, b] = [ips([2])[0], ips([3])[0]];
        inquiry.set(Duration::ZERO, vec![a, b], 0);
        let expected = [(0, a), (0, b), (30, a), (60, b), (90, a)];
        assert_eq!(asked(&mut inquiry, 100), expected);
    }

    #[test]
    fn those_who_hear_each_other_share_the_work() {
        let mut total = 0;
        for _ in 0..5 {
            let mut inquiry = Inquiry::new(BEAT);
            inquiry.set(Duration::ZERO, ips([9]), 4);
            // Without the first, that a change asks for.
            total += asked(&mut inquiry, 3_000).len() - 1;
        }
        assert_eq!(total, 100);
    }

    #[test]
    fn at_a_change_all_that_are_left_are_asked_for_at_once() {
        let mut inquiry = Inquiry::new(BEAT);
        inquiry.set(Duration::ZERO, ips(2..6), 0);
        assert_eq!(asked(&mut inquiry, 95).len(), 4 + 3);
        let now = Duration::from_millis(100);
        inquiry.set(now, ips(3..6), 1);
        let mut found: Vec<IpAddr> = asked(&mut inquiry, 100).iter().map(|it| it.1).collect();
        found.sort();
        assert_eq!(found, ips(3..6));
        // Nothing new.
        inquiry.set(now, ips(3..6), 1);
        assert_eq!(inquiry.poll_timeout(), Some(now + BEAT * 2));
    }

    #[test]
    fn a_burst_ends() {
        let mut inquiry = Inquiry::new(BEAT);
        inquiry.set(Duration::ZERO, ips(1..=200), 0);
        assert_eq!(asked(&mut inquiry, 0).len(), BURST);
        let rest = asked(&mut inquiry, 30 * 136);
        assert_eq!(rest.len(), 136);
        assert_eq!(rest[135].1, ips([200])[0]);
    }

    #[test]
    fn after_a_pause_nothing_is_made_up_for() {
        let mut inquiry = Inquiry::new(BEAT);
        inquiry.set(Duration::ZERO, ips([2]), 0);
        let late = Duration::from_secs(60);
        assert!(inquiry.on_timeout(late).is_some());
        assert_eq!(inquiry.on_timeout(late), None);
        assert_eq!(inquiry.poll_timeout(), Some(late + BEAT));
    }
}
