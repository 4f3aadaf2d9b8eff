//! Members in virtual time on a lossy network.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::*;

/// A datagram under way: arrival, order, from, to, bytes.
type Flight = (Duration, u64, usize, usize, Vec<u8>);

struct Net {
    now: Duration,
    key: Option<Key>,
    members: Vec<Option<Member>>,
    flights: BinaryHeap<Reverse<Flight>>,
    sent: u64,
    loss_percent: u64,
    random: u64,
    /// What happened: time, at whom, what.
    log: Vec<(Duration, usize, Event)>,
}

impl Net {
    fn new(nodes: usize, loss_percent: u64, seed: u64) -> Self {
        Self::with_key(nodes, loss_percent, seed, Some(key()))
    }

    fn with_key(nodes: usize, loss_percent: u64, seed: u64, key: Option<Key>) -> Self {
        let mut net = Self {
            now: ms(0),
            key,
            members: Vec::new(),
            flights: BinaryHeap::new(),
            sent: 0,
            loss_percent,
            random: seed,
            log: Vec::new(),
        };
        for index in 0..nodes {
            net.members.push(None);
            net.start(index, nodes, 1);
        }
        net
    }

    fn start(&mut self, index: usize, nodes: usize, incarnation: u64) {
        let seed = crate::random::next(&mut self.random);
        let config = Config {
            key: self.key.clone(),
            incarnation,
            seed,
            ..Config::default()
        };
        let mut member = Member::new(name(index), config, self.now);
        member.set_peers(
            self.now,
            (0..nodes).map(|n| (name(n), address(n))).collect(),
        );
        self.members[index] = Some(member);
    }

    fn die(&mut self, index: usize) -> Duration {
        self.members[index] = None;
        self.now
    }

    /// Carries what a member has to say; latency 0.1 to 2.1 ms, so that datagrams overtake.
    fn drain(&mut self, index: usize) {
        let count = self.members.len();
        let Some(member) = &mut self.members[index] else {
            return;
        };
        while let Some(Transmit { to, bytes }) = member.poll_transmit() {
            let random = crate::random::next(&mut self.random);
            self.sent += 1;
            if random % 100 >= self.loss_percent {
                let to = (0..count).find(|&n| address(n) == to).unwrap();
                let arrival = self.now + Duration::from_micros(100 + (random >> 32) % 2000);
                self.flights
                    .push(Reverse((arrival, self.sent, index, to, bytes)));
            }
        }
        while let Some(event) = member.poll_event() {
            self.log.push((self.now, index, event));
        }
    }

    fn run(&mut self, until: Duration) {
        for index in 0..self.members.len() {
            self.drain(index);
        }
        loop {
            let timer = self
                .members
                .iter()
                .enumerate()
                .filter_map(|(index, member)| Some((member.as_ref()?.poll_timeout()?, index)));
            let timer = timer.min();
            let arrival = self.flights.peek().map(|Reverse(flight)| flight.0);
            let next = [timer.map(|timer| timer.0), arrival]
                .into_iter()
                .flatten()
                .min();
            let Some(next) = next.filter(|&next| next <= until) else {
                break;
            };
            // A member that was not run is late: time does not go back for it.
            let next = next.max(self.now);
            self.now = next;
            if arrival.is_some_and(|at| at <= next) {
                let Reverse((_, _, from, to, bytes)) = self.flights.pop().unwrap();
                if let Some(member) = &mut self.members[to] {
                    // Overtaken datagrams are refused as replays; nothing else may be.
                    match member.on_datagram(next, address(from), &bytes) {
                        Ok(()) | Err(Error::Replayed { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                self.drain(to);
            } else if let Some((_, index)) = timer {
                if let Some(member) = &mut self.members[index] {
                    member.on_timeout(next);
                }
                self.drain(index);
            }
        }
        self.now = until;
    }

    /// Times at which the others noticed an event.
    fn seen(&self, since: Duration, want: &Event) -> Vec<Duration> {
        let events = self
            .log
            .iter()
            .filter(|(at, _, event)| *at >= since && event == want);
        events.map(|(at, _, _)| *at - since).collect()
    }
}

#[test]
fn two_nodes_meet_and_part() {
    let mut net = Net::new(2, 0, 1);
    net.run(ms(200));
    assert_eq!(net.seen(ms(0), &Event::Alive { node: name(0) }).len(), 1);
    assert_eq!(net.seen(ms(0), &Event::Alive { node: name(1) }).len(), 1);
    net.run(ms(5000));
    assert_eq!(net.log.len(), 2);
    let died = net.die(1);
    net.run(ms(10_000));
    let [seen] = net.seen(died, &Event::Dead { node: name(1) })[..] else {
        panic!()
    };
    assert!(seen > ms(850) && seen <= ms(1003), "{seen:?}");
}

/// The bound: a death is noticed one timeout after the last beat that arrived, so within
/// timeout + latency; never before the timeout less one beat for each beat that was lost.
#[test]
fn a_death_is_noticed_by_all_in_time() {
    for seed in 0..40 {
        let mut net = Net::new(5, 5, seed);
        net.run(ms(3000 + seed * 7));
        let died = net.die(4);
        net.run(died + ms(3000));
        let seen = net.seen(died, &Event::Dead { node: name(4) });
        assert_eq!(seen.len(), 4, "seed {seed}");
        assert!(
            seen.iter().all(|&gap| gap <= ms(1003)),
            "seed {seed}: {seen:?}"
        );
        let others = net
            .log
            .iter()
            .filter(|(_, _, event)| matches!(event, Event::Dead { .. }));
        assert_eq!(others.count(), 4, "seed {seed}: a false death");
    }
}

#[test]
fn no_false_death_in_an_hour_at_five_percent_loss() {
    // Without a key: what the hour costs here is hashing in a debug build.
    let mut net = Net::with_key(3, 5, 42, None);
    net.run(Duration::from_secs(3600));
    assert!(net.sent > 3 * 2 * 36_000, "{}", net.sent);
    assert_eq!(
        net.log.len(),
        6,
        "six times Alive at the start: {:?}",
        net.log
    );
}

/// The simulation can see false deaths: with 60 % of the datagrams lost there are some.
#[test]
fn heavy_loss_does_kill() {
    let mut net = Net::new(3, 60, 42);
    net.run(Duration::from_secs(600));
    assert!(
        net.log
            .iter()
            .any(|(_, _, event)| matches!(event, Event::Dead { .. }))
    );
}

#[test]
fn a_planned_stop_and_a_restart_are_seen_in_milliseconds() {
    for seed in 0..20 {
        let mut net = Net::new(4, 5, seed);
        net.run(ms(2000));
        let left = net.now;
        if let Some(member) = &mut net.members[3] {
            member.leave(left);
        }
        net.run(left + ms(50));
        let seen = net.seen(left, &Event::Left { node: name(3) });
        assert!(
            seen.len() == 3 && seen.iter().all(|&gap| gap < ms(3)),
            "seed {seed}: {seen:?}"
        );
        net.start(3, 4, 2);
        let back = net.now;
        net.run(back + ms(600));
        let seen = net.seen(back, &Event::Alive { node: name(3) });
        assert_eq!(seen.len(), 3, "seed {seed}");
        assert_eq!(net.seen(left, &Event::Dead { node: name(3) }), []);
    }
}

#[test]
fn a_payload_reaches_everyone_in_spite_of_loss() {
    let mut net = Net::new(4, 30, 7);
    net.run(ms(1000));
    let set = net.now;
    if let Some(member) = &mut net.members[0] {
        member.set_payload(set, b"draining".to_vec()).unwrap();
    }
    net.run(set + ms(1000));
    let want = Event::Payload {
        node: name(0),
        version: 1,
        bytes: b"draining".to_vec(),
    };
    assert_eq!(net.seen(set, &want).len(), 3);
}

/// A paused node is declared dead, wakes, kills nobody, and resumes once it was heard again.
#[test]
fn a_paused_node_comes_back_quietly() {
    let mut net = Net::new(3, 0, 3);
    net.run(ms(2000));
    let sleeper = net.members[0].take();
    net.run(ms(7000));
    assert_eq!(net.seen(ms(2000), &Event::Dead { node: name(0) }).len(), 2);
    let woke = net.now;
    assert!(sleeper.as_ref().unwrap().isolated(woke));
    net.members[0] = sleeper;
    net.run(woke + ms(500));
    let own: Vec<_> = net
        .log
        .iter()
        .filter(|(at, who, _)| *at >= woke && *who == 0)
        .collect();
    let [(_, _, Event::Paused { .. }), (resumed, _, Event::Resumed)] = own[..] else {
        panic!("{own:?}")
    };
    assert!(
        *resumed - woke < ms(110),
        "a round trip and a beat: {:?}",
        *resumed - woke
    );
    assert_eq!(net.seen(woke, &Event::Alive { node: name(0) }).len(), 2);
}
