//! Members in virtual time on a network that loses, delays, cuts; processes that pause. A datagram that
//! may wait is left in its socket until its host is woken by something else, as the agent does it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use proto::member::{
    Config, Error, Event, Key, Member, NodeName, PATIENT, Profile, State, Transmit,
};

const PORT: u16 = 7949;
/// IPv4 and UDP headers.
const HEADERS: u64 = 28;
/// Datagrams that wait in the socket of a process that is not run.
const SOCKET: usize = 256;

pub(crate) fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

pub(crate) fn name(index: usize) -> NodeName {
    NodeName::new(format!("node-{index}")).expect("short")
}

pub(crate) fn address(index: usize) -> SocketAddr {
    let ip = u32::from(Ipv4Addr::new(10, 0, 0, 0)) + index as u32;
    SocketAddr::from((Ipv4Addr::from(ip), PORT))
}

fn index_of(address: SocketAddr) -> usize {
    match address.ip() {
        IpAddr::V4(ip) => (u32::from(ip) - u32::from(Ipv4Addr::new(10, 0, 0, 0))) as usize,
        IpAddr::V6(_) => usize::MAX,
    }
}

/// SplitMix64.
pub(crate) fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) nodes: usize,
    /// Of 1000 datagrams.
    pub(crate) loss: u64,
    pub(crate) seed: u64,
    pub(crate) profile: Profile,
    pub(crate) keyed: bool,
}

impl Setup {
    pub(crate) fn of(nodes: usize) -> Self {
        Self {
            nodes,
            loss: 0,
            seed: 1,
            profile: Profile::DEFAULT,
            keyed: false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Arrival {
        to: usize,
        from: usize,
        bytes: Vec<u8>,
    },
    /// Of this start of the host.
    Timer {
        host: usize,
        start: u64,
    },
    Thaw {
        host: usize,
        start: u64,
    },
}

#[derive(Clone)]
struct Host {
    member: Member,
    start: u64,
    timer: Duration,
    frozen: bool,
    /// What has come and is not read yet: when, and from whom.
    socket: Vec<(Duration, usize, Vec<u8>)>,
    /// How often it was woken.
    woken: u64,
}

/// What one host has sent and received.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) datagrams: u64,
    pub(crate) bytes: u64,
}

/// Recordings are refused; nothing else may be.
fn note(taken: Result<(), Error>) {
    match taken {
        Ok(()) | Err(Error::Replayed { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

#[derive(Clone)]
pub(crate) struct Net {
    pub(crate) now: Duration,
    pub(crate) setup: Setup,
    hosts: Vec<Option<Host>>,
    /// Where each index listens: it may have moved.
    queue: BinaryHeap<Reverse<(Duration, u64, What)>>,
    order: u64,
    pub(crate) random: u64,
    cuts: HashSet<(usize, usize)>,
    pub(crate) traffic: Vec<Traffic>,
    /// What happened: time, at whom, what.
    pub(crate) log: Vec<(Duration, usize, Event)>,
}

impl Net {
    pub(crate) fn new(setup: Setup) -> Self {
        let mut net = Self {
            now: ms(0),
            setup,
            hosts: Vec::new(),
            queue: BinaryHeap::new(),
            order: 0,
            random: setup.seed,
            cuts: HashSet::new(),
            traffic: vec![Traffic::default(); setup.nodes],
            log: Vec::new(),
        };
        for index in 0..setup.nodes {
            net.hosts.push(None);
            net.start(index, 1_000_000);
        }
        net
    }

    /// Starts a host, or starts it again.
    pub(crate) fn start(&mut self, index: usize, incarnation: u64) {
        self.start_with(index, incarnation, None);
    }

    /// The same, where the host has something to say of itself.
    pub(crate) fn start_with(&mut self, index: usize, incarnation: u64, payload: Option<Vec<u8>>) {
        let config = Config {
            profile: self.setup.profile,
            key: self.setup.keyed.then_some(Key([7; 32])),
            incarnation,
            seed: random(&mut self.random),
        };
        let mut member = Member::new(name(index), config, self.now);
        if let Some(payload) = payload {
            member.set_payload(self.now, payload).expect("short");
        }
        let peers = (0..self.setup.nodes).map(|n| (name(n), address(n)));
        member.set_peers(self.now, peers.collect());
        self.order += 1;
        self.hosts[index] = Some(Host {
            member,
            start: self.order,
            timer: Duration::MAX,
            frozen: false,
            socket: Vec::new(),
            woken: 0,
        });
        self.carry(index);
    }

    /// Power off.
    pub(crate) fn die(&mut self, index: usize) {
        self.hosts[index] = None;
    }

    /// The process is not run for a while; its socket takes what it can.
    pub(crate) fn freeze(&mut self, index: usize, time: Duration) {
        let host = self.hosts[index].as_mut().expect("it runs");
        host.frozen = true;
        let start = host.start;
        self.push(self.now + time, What::Thaw { host: index, start });
    }

    /// Nothing gets from one to the other.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Cuts a host off, in both directions.
    pub(crate) fn cut_off(&mut self, index: usize) {
        for other in (0..self.setup.nodes).filter(|other| *other != index) {
            self.cut(index, other);
            self.cut(other, index);
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Whether something gets from one to the other, but for loss.
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Whether the host's process is run.
    pub(crate) fn runs(&self, index: usize) -> bool {
        self.hosts[index].as_ref().is_some_and(|host| !host.frozen)
    }

    pub(crate) fn member(&self, index: usize) -> &Member {
        &self.hosts[index].as_ref().expect("it runs").member
    }

    /// Does something to a member, and carries what it says to that.
    pub(crate) fn with<T>(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Member, Duration) -> T,
    ) -> T {
        self.wake(index);
        let host = self.hosts[index].as_mut().expect("it runs");
        let done = act(&mut host.member, self.now);
        self.carry(index);
        done
    }

    /// Whether `of` is alive for `at`.
    pub(crate) fn sees(&self, at: usize, of: usize) -> bool {
        let wanted = name(of);
        let mut peers = self.member(at).peers();
        peers.any(|(node, state)| *node == wanted && state == State::Alive)
    }

    /// Every host that runs sees all of `alive`, and nobody else.
    pub(crate) fn agree(&self, alive: &[usize]) -> bool {
        let running = (0..self.setup.nodes).filter(|host| self.hosts[*host].is_some());
        let mut pairs = running.flat_map(|at| (0..self.setup.nodes).map(move |of| (at, of)));
        pairs.all(|(at, of)| at == of || self.sees(at, of) == alive.contains(&of))
    }

    fn push(&mut self, at: Duration, what: What) {
        self.order += 1;
        self.queue.push(Reverse((at, self.order, what)));
    }

    /// Carries what a member has to say; latency 0.1 to 2.1 ms, so that datagrams overtake.
    fn carry(&mut self, index: usize) {
        let Some(mut host) = self.hosts[index].take() else {
            return;
        };
        while let Some(Transmit { to, bytes }) = host.member.poll_transmit() {
            let to = index_of(to);
            let chance = random(&mut self.random);
            let sent = &mut self.traffic[index];
            sent.datagrams += 1;
            sent.bytes += bytes.len() as u64 + HEADERS;
            let lost = chance % 1000 < self.setup.loss || self.cuts.contains(&(index, to));
            if !lost && to < self.setup.nodes {
                let at = self.now + Duration::from_micros(100 + (chance >> 32) % 2000);
                let from = index;
                self.push(at, What::Arrival { to, from, bytes });
            }
        }
        while let Some(event) = host.member.poll_event() {
            self.log.push((self.now, index, event));
        }
        let due = host.member.poll_timeout().unwrap_or(Duration::MAX);
        if due != host.timer {
            host.timer = due;
            let timer = What::Timer {
                host: index,
                start: host.start,
            };
            if due != Duration::MAX {
                self.push(due.max(self.now), timer);
            }
        }
        self.hosts[index] = Some(host);
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run(self.now + time);
    }

    /// When something happens next.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.queue.peek().map(|Reverse((at, ..))| *at)
    }

    pub(crate) fn run(&mut self, until: Duration) {
        while self.next().is_some_and(|at| at <= until) {
            self.step();
        }
        self.now = until;
    }

    /// The next thing that happens.
    pub(crate) fn step(&mut self) {
        let Some(Reverse((at, _, what))) = self.queue.pop() else {
            return;
        };
        self.now = at;
        match what {
            What::Arrival { to, from, bytes } => self.arrive(to, from, bytes),
            What::Timer { host, start } => {
                let Some(found) = self.hosts[host].as_mut() else {
                    return;
                };
                let due = found.timer <= at;
                if found.start != start || found.frozen || !due {
                    return;
                }
                found.timer = Duration::MAX;
                self.wake(host);
            }
            What::Thaw { host, start } => {
                let Some(found) = self.hosts[host].as_mut() else {
                    return;
                };
                if found.start != start {
                    return;
                }
                found.frozen = false;
                found.timer = Duration::MAX;
                self.wake(host);
            }
        }
    }

    fn arrive(&mut self, to: usize, from: usize, bytes: Vec<u8>) {
        let Some(host) = self.hosts[to].as_mut() else {
            return;
        };
        if host.socket.len() < SOCKET {
            host.socket.push((self.now, from, bytes));
        }
        self.look(to);
    }

    /// Wakes a host if something has come that is to be read at once.
    fn look(&mut self, index: usize) {
        let Some(host) = self.hosts[index].as_ref().filter(|host| !host.frozen) else {
            return;
        };
        let may_wait = host.member.may_wait();
        let waits = |bytes: &[u8]| may_wait && PATIENT.matches(bytes);
        if host.socket.iter().any(|(.., bytes)| !waits(bytes)) {
            self.wake(index);
        }
    }

    /// The host reads all that has come, what may have waited first, and does what is due.
    fn wake(&mut self, index: usize) {
        let Some(host) = self.hosts[index].as_mut() else {
            return;
        };
        host.woken += 1;
        let come = std::mem::take(&mut host.socket).into_iter();
        let (patient, urgent): (Vec<_>, Vec<_>) =
            come.partition(|(.., bytes)| PATIENT.matches(bytes));
        for (arrived, from, bytes) in patient {
            note(
                host.member
                    .on_waiting(self.now, arrived, address(from), &bytes),
            );
        }
        for (_, from, bytes) in urgent {
            note(host.member.on_datagram(self.now, address(from), &bytes));
        }
        if host
            .member
            .poll_timeout()
            .is_some_and(|due| due <= self.now)
        {
            host.member.on_timeout(self.now);
        }
        self.carry(index);
    }

    /// How often a host was woken since it started.
    pub(crate) fn woken(&self, index: usize) -> u64 {
        self.hosts[index].as_ref().map_or(0, |host| host.woken)
    }

    /// Times, after `since`, at which others saw this event.
    pub(crate) fn seen(&self, since: Duration, want: &Event) -> Vec<Duration> {
        let events = self.log.iter();
        let events = events.filter(|(at, _, event)| *at >= since && event == want);
        events.map(|(at, _, _)| *at - since).collect()
    }

    /// What `at` was last told that `of` says of itself.
    pub(crate) fn told(&self, at: usize, of: usize) -> Option<&[u8]> {
        let of = name(of);
        self.log
            .iter()
            .rev()
            .find_map(|(_, who, event)| match event {
                Event::Payload { node, bytes, .. } if *who == at && *node == of => {
                    Some(bytes.as_slice())
                }
                _ => None,
            })
    }

    /// How many deaths were seen, by whomever, of whomever.
    pub(crate) fn deaths(&self) -> usize {
        let dead = |event: &Event| matches!(event, Event::Dead { .. });
        self.log.iter().filter(|(_, _, event)| dead(event)).count()
    }

    /// Bits that a host sent in each second, on the average of all.
    pub(crate) fn bits_per_second(&self, before: &[Traffic], time: Duration) -> f64 {
        let bytes = |traffic: &[Traffic]| traffic.iter().map(|t| t.bytes).sum::<u64>();
        let sent = bytes(&self.traffic) - bytes(before);
        sent as f64 * 8.0 / time.as_secs_f64() / self.setup.nodes as f64
    }
}
