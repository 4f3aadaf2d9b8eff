//! Two sessions in virtual time on a link that loses and delays.
//!
//! What is stated: with at most `multiplier - 2` packets lost in a row, and delays that vary by
//! less than an interval, a session that is up never goes down. A packet is sent at least once an
//! interval, so the silence is at most `(multiplier - 1) × interval + variation`, which is less
//! than the detection time of `multiplier × interval`. This holds also while settings change.

use std::collections::VecDeque;

use super::*;

/// One direction of a link: first in, first out.
struct Link {
    flights: VecDeque<(Duration, Packet)>,
    /// Which packets are lost, over and over.
    losses: Vec<bool>,
    sent: usize,
    /// How many may be lost in a row.
    bound: u32,
    in_row: u32,
    latency: Vec<u64>,
}

impl Link {
    fn carry(&mut self, now: Duration, packet: Packet) {
        let lost = self.losses[self.sent % self.losses.len()] && self.in_row < self.bound;
        let latency = self.latency[self.sent % self.latency.len()];
        self.sent += 1;
        self.in_row = if lost { self.in_row + 1 } else { 0 };
        if !lost {
            let last = self.flights.back().map_or(now, |(at, _)| *at);
            let arrival = (now + Duration::from_micros(latency)).max(last);
            self.flights.push_back((arrival, packet));
        }
    }
}

struct Pair {
    now: Duration,
    ends: [Session; 2],
    /// To the first, to the second.
    links: [Link; 2],
    changes: Vec<(Duration, usize, Change)>,
}

impl Pair {
    fn drain(&mut self) {
        for (n, end) in self.ends.iter_mut().enumerate() {
            while let Some(sent) = end.poll_transmit() {
                if let Transmit::Control(bytes) = sent {
                    let packet = Packet::parse(&bytes).expect("ours reads");
                    self.links[1 - n].carry(self.now, packet);
                }
            }
            while let Some(change) = end.poll_event() {
                self.changes.push((self.now, n, change));
            }
        }
    }

    fn run(&mut self, until: Duration) {
        loop {
            self.drain();
            let arrival = |link: &Link| link.flights.front().map(|(at, _)| *at);
            let arrivals = self.links.iter().filter_map(arrival);
            let timers = self.ends.iter().filter_map(Session::poll_timeout);
            let next = arrivals.chain(timers).min();
            let Some(next) = next.filter(|next| *next <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            for (link, end) in self.links.iter_mut().zip(&mut self.ends) {
                while let Some((_, packet)) = link.flights.pop_front_if(|(at, _)| *at <= self.now) {
                    let _ = end.on_packet(self.now, &packet);
                }
            }
            for end in &mut self.ends {
                if end.poll_timeout().is_some_and(|due| due <= self.now) {
                    end.on_timeout(self.now);
                }
            }
        }
    }
}

fn some_settings() -> impl Strategy<Value = Settings> {
    (10u64..400, 10u64..400, 2u8..7)
        .prop_map(|(transmit, receive, multiplier)| settings(transmit, receive, multiplier))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_down_under_bearable_loss(
        first in prop::array::uniform2(some_settings()),
        later in prop::collection::vec((0usize..2, some_settings(), 0u64..3000), 0..6),
        losses in prop::array::uniform2(prop::collection::vec(prop::bool::weighted(0.6), 1..50)),
        latency in prop::array::uniform2(prop::collection::vec(0u64..5000, 1..20)),
        passive in any::<bool>(),
        seed in any::<u64>(),
    ) {
        // Each direction bears what its sender's lowest multiplier does.
        let bound = |n: usize| {
            let later = later.iter().filter(|(end, ..)| *end == n).map(|(_, settings, _)| settings);
            let least = later.chain([&first[n]]).map(|settings| settings.multiplier.get()).min();
            u32::from(least.unwrap_or(2)) - 2
        };
        let link = |to: usize| Link {
            flights: VecDeque::new(),
            losses: losses[to].clone(),
            sent: 0,
            bound: bound(1 - to),
            in_row: 0,
            latency: latency[to].clone(),
        };
        let end = |n: usize| {
            let passive = passive && n == 1;
            let settings = Settings { passive, ..first[n] };
            Session::new(ms(0), number(1 + n as u32), settings, seed ^ n as u64)
        };
        let mut pair = Pair {
            now: ms(0),
            ends: [end(0), end(1)],
            links: [link(0), link(1)],
            changes: Vec::new(),
        };
        // Three packets have to arrive, each within `bound + 1` seconds.
        pair.run(ms(20_000));
        prop_assert_eq!(pair.ends[0].state(), State::Up);
        prop_assert_eq!(pair.ends[1].state(), State::Up);
        for (end, settings, wait) in later {
            pair.ends[end].configure(pair.now, settings);
            let until = pair.now + ms(wait);
            pair.run(until);
        }
        // A pattern of losses may hit each answer to a Poll; without losses both agree.
        for link in &mut pair.links {
            link.losses = vec![false];
        }
        let until = pair.now + ms(5000);
        pair.run(until);
        let down: Vec<_> = pair.changes.iter().filter(|(_, _, change)| change.from == State::Up).collect();
        prop_assert!(down.is_empty(), "{:?}", down);
        // Both come to the intervals that were agreed.
        let [a, b] = &pair.ends;
        for (one, other) in [(a, b), (b, a)] {
            let agreed = one.settings().transmit.max(other.settings().receive);
            prop_assert_eq!(one.transmit_interval(), Some(agreed));
            let detection = agreed * u32::from(one.settings().multiplier.get());
            prop_assert_eq!(other.detection_time(), Some(detection));
        }
    }
}

/// The link dies: both say so within the detection time of the last packet, and come back.
#[test]
fn a_dead_link() {
    let link = || Link {
        flights: VecDeque::new(),
        losses: vec![false],
        sent: 0,
        bound: u32::MAX,
        in_row: 0,
        latency: vec![500],
    };
    let end = |n: u32| Session::new(ms(0), number(n), settings(50, 50, 3), u64::from(n));
    let mut pair = Pair {
        now: ms(0),
        ends: [end(1), end(2)],
        links: [link(), link()],
        changes: Vec::new(),
    };
    pair.run(ms(5000));
    let up = |pair: &Pair| pair.ends.iter().all(|end| end.state() == State::Up);
    assert!(up(&pair));
    pair.changes.clear();
    for link in &mut pair.links {
        link.losses = vec![true];
    }
    pair.run(ms(8000));
    assert_eq!(pair.changes.len(), 2);
    for (at, _, change) in &pair.changes {
        assert!(change.path_failed());
        assert!(*at <= ms(5151), "{at:?}");
    }
    for link in &mut pair.links {
        link.losses = vec![false];
    }
    pair.run(ms(11_000));
    assert!(up(&pair));
}
