//! Two peers in virtual time, over connections that delay, cut, and lie.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::*;

/// What arrives at a side.
#[derive(Debug)]
enum Event {
    /// An attempt of the other side, on this link.
    Arrive {
        link: usize,
    },
    /// Our attempt is through, or not.
    Result {
        link: usize,
        good: bool,
    },
    Bytes {
        link: usize,
        bytes: Vec<u8>,
    },
    Closed {
        link: usize,
    },
}

#[derive(Debug)]
struct Link {
    ids: [Option<ConnectionId>; 2],
    /// When what was sent to this side last arrives: TCP keeps the order.
    last: [Duration; 2],
    open: bool,
}

struct Net {
    now: Duration,
    peers: [Peer; 2],
    links: Vec<Link>,
    events: BTreeMap<(Duration, u64), (usize, Event)>,
    sequence: u64,
    random: u64,
    up: [bool; 2],
}

impl Net {
    fn new(graceful_restart: bool, seed: u64) -> Self {
        let peer = |index| {
            let config = Config {
                graceful: graceful_restart.then(graceful),
                hold_time: 30,
                ..config(index)
            };
            Peer::new(config, seed.wrapping_add(index.into()))
        };
        Self {
            now: secs(0),
            peers: [peer(0), peer(1)],
            links: Vec::new(),
            events: BTreeMap::new(),
            sequence: 0,
            random: seed,
            up: [false; 2],
        }
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(100 + crate::random::next(&mut self.random) % 40_000)
    }

    fn push(&mut self, side: usize, link: usize, event: Event) {
        let at = (self.now + self.delay()).max(self.links[link].last[side]);
        self.links[link].last[side] = at;
        self.sequence += 1;
        self.events.insert((at, self.sequence), (side, event));
    }

    fn link(&self, side: usize, id: ConnectionId) -> Option<usize> {
        self.links
            .iter()
            .rposition(|link| link.ids[side] == Some(id))
    }

    fn outputs(&mut self, side: usize) {
        for output in outputs(&mut self.peers[side]) {
            match output {
                Output::Dial(id) => {
                    let mut ids = [None; 2];
                    ids[side] = Some(id);
                    let last = [self.now; 2];
                    let open = true;
                    self.links.push(Link { ids, last, open });
                    let link = self.links.len() - 1;
                    self.push(1 - side, link, Event::Arrive { link });
                }
                Output::Send(id, bytes) => {
                    if let Some(link) = self.link(side, id)
                        && self.links[link].open
                    {
                        for part in bytes.chunks(1 + bytes.len() / 2) {
                            let bytes = part.to_vec();
                            self.push(1 - side, link, Event::Bytes { link, bytes });
                        }
                    }
                }
                Output::Close(id) => {
                    if let Some(link) = self.link(side, id) {
                        self.links[link].ids[side] = None;
                        if self.links[link].open {
                            self.links[link].open = false;
                            self.push(1 - side, link, Event::Closed { link });
                        }
                    }
                }
                Output::Up(..) => {
                    assert!(!self.up[side], "up twice");
                    self.up[side] = true;
                }
                Output::Down(_) => {
                    assert!(self.up[side], "down twice");
                    self.up[side] = false;
                }
                _ => {}
            }
        }
    }

    fn arrive(&mut self, side: usize, event: Event) {
        let now = self.now;
        let peer = &mut self.peers[side];
        match event {
            Event::Arrive { link } => {
                let id = if self.links[link].open {
                    peer.accept(now)
                } else {
                    None
                };
                self.links[link].ids[side] = id;
                let good = id.is_some();
                self.links[link].open &= good;
                self.push(1 - side, link, Event::Result { link, good });
            }
            Event::Result { link, good } => {
                if let Some(id) = self.links[link].ids[side] {
                    if good {
                        peer.dialled(now, id);
                    } else {
                        peer.dial_failed(now, id, DialError::Refused);
                    }
                }
            }
            Event::Bytes { link, bytes } => {
                if let Some(id) = self.links[link].ids[side] {
                    peer.written(now, id, 0);
                    peer.received(now, id, &bytes);
                }
            }
            Event::Closed { link } => {
                if let Some(id) = self.links[link].ids[side].take() {
                    peer.closed(now, id);
                }
            }
        }
    }

    /// Does everything until `until`.
    fn run(&mut self, until: Duration) {
        let mut steps = 0;
        loop {
            for side in 0..2 {
                self.outputs(side);
            }
            let event = self.events.keys().next().map(|key| key.0);
            let timers = self.peers.iter().filter_map(Peer::deadline).min();
            let next = event.into_iter().chain(timers).min();
            let Some(next) = next.filter(|next| *next <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            steps += 1;
            assert!(steps < 200_000, "it runs hot");
            if event == Some(next) {
                if let Some((_, (side, event))) = self.events.pop_first() {
                    self.arrive(side, event);
                }
            } else {
                for peer in &mut self.peers {
                    peer.timer(self.now);
                }
            }
        }
    }

    fn cut(&mut self) {
        for link in 0..self.links.len() {
            if std::mem::replace(&mut self.links[link].open, false) {
                self.push(0, link, Event::Closed { link });
                self.push(1, link, Event::Closed { link });
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Chaos {
    Cut,
    Reset(usize),
    Restart(usize),
    Drain(usize),
    Garbage(usize, Vec<u8>),
}

fn chaos() -> impl Strategy<Value = (u64, Chaos)> {
    let side = 0..2usize;
    let what = prop_oneof![
        Just(Chaos::Cut),
        side.clone().prop_map(Chaos::Reset),
        side.clone().prop_map(Chaos::Restart),
        side.clone().prop_map(Chaos::Drain),
        (side, vec(any::<u8>(), 1..60)).prop_map(|(side, bytes)| Chaos::Garbage(side, bytes)),
    ];
    (0..20_000u64, what)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_peers_meet_in_the_end(
        graceful: bool,
        seed: u64,
        offset in 0..3000u64,
        chaos in vec(chaos(), 0..12),
    ) {
        let mut net = Net::new(graceful, seed);
        net.peers[0].start(secs(0));
        net.run(Duration::from_millis(offset));
        let now = net.now;
        net.peers[1].start(now);
        for (wait, what) in chaos {
            net.run(net.now + Duration::from_millis(wait));
            let now = net.now;
            match what {
                Chaos::Cut => net.cut(),
                Chaos::Reset(side) => net.peers[side].reset(now, Reset::BfdDown),
                Chaos::Restart(side) => {
                    net.peers[side].stop(now, Stop::Restart);
                    net.outputs(side);
                    net.peers[side].start(now);
                }
                Chaos::Drain(side) => {
                    net.peers[side].stop(now, Stop::Drain { text: "x".into() });
                    net.outputs(side);
                    net.peers[side].start(now);
                }
                Chaos::Garbage(side, bytes) => {
                    let id = net.links.iter().rev().find_map(|link| link.ids[side]);
                    if let Some(id) = id {
                        net.peers[side].received(now, id, &bytes);
                    }
                }
            }
        }
        // An attempt comes every 30 s at most, and a round fails only where two connections cross
        // within 40 ms: 2000 s are more than 60 rounds.
        net.run(net.now + secs(2000));
        prop_assert_eq!(net.peers[0].state(), State::Established);
        prop_assert_eq!(net.peers[1].state(), State::Established);
        prop_assert_eq!(net.up, [true, true]);
        let open: Vec<&Link> = net.links.iter().filter(|link| link.open).collect();
        prop_assert_eq!(open.len(), 1);
        prop_assert!(open[0].ids.iter().all(Option::is_some));
        // And it stays.
        let links = net.links.len();
        net.run(net.now + secs(600));
        prop_assert_eq!(net.links.len(), links);
    }
}

#[test]
fn both_at_once_end_with_one_session() {
    for seed in 0..100 {
        let mut net = Net::new(false, seed);
        net.peers[0].start(secs(0));
        net.peers[1].start(secs(0));
        net.run(secs(60));
        assert_eq!(net.up, [true, true], "seed {seed}");
        let open = net.links.iter().filter(|link| link.open).count();
        assert_eq!(open, 1, "seed {seed}");
    }
}
