//! Many members on one host: an address of 127.0.0.0/8, a socket and a thread each.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use lab::Host;
use proto::member::{Config, Event, Key, Member, NodeName, Profile};

use super::Fault;

const PORT: u16 = 7949;
/// IPv4 and UDP headers.
const HEADERS: usize = 28;
/// Until everybody has met everybody, and a while of what follows.
const SETTLED: Duration = Duration::from_secs(5);
/// Nobody waits longer at once: the thread has to end.
const NAP: Duration = Duration::from_millis(200);

pub(crate) struct Found {
    /// Of a core, in percent, for one member.
    pub(crate) share: f64,
    /// Sent and received by one member.
    pub(crate) kbits: f64,
    /// Times that anybody held anybody for dead.
    pub(crate) deaths: usize,
}

/// What one member did while it was measured.
#[derive(Default)]
struct Share {
    cpu: Duration,
    octets: usize,
    deaths: usize,
}

fn name(n: usize) -> NodeName {
    NodeName::new(format!("node-{n}")).expect("short")
}

fn address(n: usize) -> SocketAddr {
    let last = u8::try_from(n + 1).expect("few");
    SocketAddr::from((Ipv4Addr::new(127, 0, 1, last), PORT))
}

/// Time that this thread has run, by the scheduler's own count: nanoseconds.
fn ran() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = text.split_whitespace().next().unwrap_or_default();
    let nanos = first.parse().map_err(io::Error::other)?;
    Ok(Duration::from_nanos(nanos))
}

/// Runs them for so long, in the host's network.
pub(crate) fn run(
    host: &Host,
    members: usize,
    profile: Profile,
    time: Duration,
) -> Result<Found, Fault> {
    let barrier = Barrier::new(members);
    let start = Instant::now();
    let shares: Vec<io::Result<Share>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..members)
            .map(|n| {
                let (network, barrier) = (host.netns().clone(), &barrier);
                scope.spawn(move || {
                    let socket = network
                        .enter_thread()
                        .and_then(|()| UdpSocket::bind(address(n)));
                    barrier.wait();
                    work(&socket?, n, members, profile, start, time)
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|share| share.unwrap_or_else(|_| Err(io::Error::other("a member panicked"))))
            .collect()
    });
    let mut all = Share::default();
    for share in shares {
        let share = share?;
        all.cpu += share.cpu;
        all.octets += share.octets;
        all.deaths += share.deaths;
    }
    let (count, seconds) = (members as f64, time.as_secs_f64());
    Ok(Found {
        share: 100.0 * all.cpu.as_secs_f64() / seconds / count,
        kbits: all.octets as f64 * 8.0 / 1e3 / seconds / count,
        deaths: all.deaths,
    })
}

/// As `corten::agent::member` does it where the kernel does not divide a port between two sockets:
/// what has arrived is taken before deadlines are judged, and all is read at once.
fn work(
    socket: &UdpSocket,
    n: usize,
    members: usize,
    profile: Profile,
    start: Instant,
    time: Duration,
) -> io::Result<Share> {
    let config = Config {
        profile,
        key: Some(Key([7; 32])),
        incarnation: 1,
        seed: n as u64,
    };
    let mut member = Member::new(name(n), config, start.elapsed());
    let peers: BTreeMap<NodeName, SocketAddr> =
        (0..members).map(|n| (name(n), address(n))).collect();
    member.set_peers(start.elapsed(), peers);
    let (begin, end) = (start + SETTLED, start + SETTLED + time);
    let mut share = Share::default();
    let mut before = None;
    let mut datagram = [0; 2048];
    loop {
        let now = Instant::now();
        if before.is_none() && now >= begin {
            before = Some(ran()?);
            share = Share::default();
        }
        if now >= end {
            break;
        }
        while let Some(transmit) = member.poll_transmit() {
            share.octets += transmit.bytes.len() + HEADERS;
            socket.send_to(&transmit.bytes, transmit.to)?;
        }
        while let Some(event) = member.poll_event() {
            share.deaths += usize::from(matches!(event, Event::Dead { .. }));
        }
        let due = member.poll_timeout().map_or(NAP, |due| {
            (start + due).saturating_duration_since(now).min(NAP)
        });
        if !due.is_zero() {
            socket.set_nonblocking(false)?;
            // Nought would be no timeout at all, and the kernel rounds up to its tick.
            socket.set_read_timeout(Some(due.max(Duration::from_micros(1))))?;
            receive(socket, &mut member, start, &mut datagram, &mut share);
        }
        socket.set_nonblocking(true)?;
        while receive(socket, &mut member, start, &mut datagram, &mut share) {}
        if member
            .poll_timeout()
            .is_some_and(|due| due <= start.elapsed())
        {
            member.on_timeout(start.elapsed());
        }
    }
    share.cpu = ran()?.saturating_sub(before.unwrap_or_default());
    Ok(share)
}

/// Takes a datagram; false if there is none.
fn receive(
    socket: &UdpSocket,
    member: &mut Member,
    start: Instant,
    datagram: &mut [u8],
    share: &mut Share,
) -> bool {
    let Ok((length, from)) = socket.recv_from(datagram) else {
        return false;
    };
    share.octets += length + HEADERS;
    let datagram = datagram.get(..length).unwrap_or_default();
    // A refusal is what the member makes of it.
    let _ = member.on_datagram(start.elapsed(), from, datagram);
    true
}
