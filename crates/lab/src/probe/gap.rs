//! The prober: asks a thousand times a second, and measures the longest silence.
//!
//! It runs on a thread of its own, so that the lab's other work does not show in its figures.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::any;
use crate::error::LabError;
use crate::host::Host;

const PERIOD: Duration = Duration::from_millis(1);
/// A connection that takes longer is lost.
const CONNECT: Duration = Duration::from_secs(1);
/// More connections than this are not tried at once.
const PENDING: usize = 2000;

/// What a prober asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// ICMP echo.
    Icmp(IpAddr),
    /// A datagram to an echo ([`Host::serve_udp`]); all from one port, so one flow.
    Udp(SocketAddr),
    /// A TCP connection, reset once it is there; each a flow of its own.
    Tcp(SocketAddr),
}

/// What a prober measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Questions sent.
    pub sent: u64,
    /// Answers received.
    pub answered: u64,
    /// Time from the prober's start to the first answer.
    pub first: Option<Duration>,
    /// The longest time between one answer and the next. The silence at the end, from the last
    /// answer to the stop, counts too, so that what never came back does not look good; the one
    /// before the first answer does not.
    pub longest: Duration,
    /// When the longest silence began, since the prober's start.
    pub longest_at: Duration,
    last: Option<Duration>,
}

impl Gaps {
    fn answer(&mut self, at: Duration) {
        self.answered += 1;
        self.first.get_or_insert(at);
        self.silence_until(at);
        self.last = Some(at);
    }

    fn silence_until(&mut self, at: Duration) {
        let Some(last) = self.last else { return };
        let silence = at.saturating_sub(last);
        if silence > self.longest {
            (self.longest, self.longest_at) = (silence, last);
        }
    }

    /// Questions without an answer.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.answered)
    }
}

/// A running prober. Dropping it stops it.
#[derive(Debug)]
pub struct Prober {
    host: String,
    live: Arc<Live>,
    stop: oneshot::Sender<()>,
    result: oneshot::Receiver<io::Result<Gaps>>,
}

impl Prober {
    /// Answers so far: wait for the first before disturbing anything.
    pub fn answered(&self) -> u64 {
        self.live.answered.load(Ordering::Relaxed)
    }

    /// Time since the last answer (or the start).
    pub fn silence(&self) -> Duration {
        let last = Duration::from_nanos(self.live.last.load(Ordering::Relaxed));
        self.live.start.elapsed().saturating_sub(last)
    }

    /// Ends it and gives its figures.
    pub async fn stop(self) -> Result<Gaps, LabError> {
        drop(self.stop);
        let result = self
            .result
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the prober's thread panicked")));
        result.map_err(|e| LabError::io(&self.host, "probe", e))
    }
}

/// What can be read while the prober runs.
#[derive(Debug)]
struct Live {
    start: Instant,
    answered: AtomicU64,
    /// Nanoseconds from `start` to the last answer.
    last: AtomicU64,
}

impl Host {
    /// Starts to ask `target` every millisecond from this host.
    pub fn probe(&self, target: Target) -> Result<Prober, LabError> {
        let live = Live {
            start: Instant::now(),
            answered: AtomicU64::new(0),
            last: AtomicU64::new(0),
        };
        let live = Arc::new(live);
        let (stop, stopped) = oneshot::channel();
        let (report, result) = oneshot::channel();
        let (ns, record) = (
            self.netns().clone(),
            Record {
                gaps: Gaps::default(),
                live: Arc::clone(&live),
            },
        );
        let thread = std::thread::Builder::new()
            .name("prober".to_owned())
            .spawn(move || {
                let gaps = ns.enter_thread().and_then(|()| {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()?;
                    runtime.block_on(run(target, stopped, record))
                });
                // Nobody listens any more when the test has dropped its prober.
                let _ = report.send(gaps);
            });
        thread.map_err(|e| LabError::io(self.name(), "start a prober", e))?;
        Ok(Prober {
            host: self.name().to_owned(),
            live,
            stop,
            result,
        })
    }
}

struct Record {
    gaps: Gaps,
    live: Arc<Live>,
}

impl Record {
    fn answer(&mut self) {
        let at = self.live.start.elapsed();
        self.gaps.answer(at);
        self.live
            .last
            .store(at.as_nanos() as u64, Ordering::Relaxed);
        self.live
            .answered
            .store(self.gaps.answered, Ordering::Relaxed);
    }

    fn finish(mut self) -> Gaps {
        self.gaps.silence_until(self.live.start.elapsed());
        self.gaps
    }
}

async fn run(target: Target, stop: oneshot::Receiver<()>, record: Record) -> io::Result<Gaps> {
    match target {
        Target::Icmp(ip) => echo(icmp(ip)?, &icmp_header(ip), stop, record).await,
        Target::Udp(to) => {
            let socket = UdpSocket::bind(SocketAddr::new(any(to.ip()), 0)).await?;
            socket.connect(to).await?;
            echo(socket, &[], stop, record).await
        }
        Target::Tcp(to) => connections(to, stop, record).await,
    }
}

/// An echo socket (`icmp(7)`): the kernel writes identifier and checksum. A UDP socket's calls are
/// the right ones for it.
fn icmp(ip: IpAddr) -> io::Result<UdpSocket> {
    let to = SocketAddr::new(ip, 0);
    let protocol = if ip.is_ipv6() {
        Protocol::ICMPV6
    } else {
        Protocol::ICMPV4
    };
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(protocol))?;
    socket.connect(&to.into())?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

/// Type and zeroes of an echo request; the answer has as many octets before its data.
fn icmp_header(ip: IpAddr) -> [u8; 8] {
    [if ip.is_ipv6() { 128 } else { 8 }, 0, 0, 0, 0, 0, 0, 0]
}

async fn echo(
    socket: UdpSocket,
    header: &[u8],
    mut stop: oneshot::Receiver<()>,
    mut record: Record,
) -> io::Result<Gaps> {
    // Before the reactor has looked at the socket, nothing can be sent.
    socket.writable().await?;
    let mut tick = ticks();
    let mut buffer = [0; 512];
    loop {
        tokio::select! {
            biased;
            // Errors are ICMP messages about earlier questions: no answer, but no end either.
            received = socket.recv(&mut buffer) => {
                let data = received.ok().and_then(|n| buffer.get(header.len()..n));
                let number = data.and_then(|d| d.first_chunk::<8>()).copied().map(u64::from_be_bytes);
                if number.is_some_and(|n| n < record.gaps.sent) {
                    record.answer();
                }
            }
            _ = &mut stop => return Ok(record.finish()),
            _ = tick.tick() => {
                let question = [header, &record.gaps.sent.to_be_bytes()].concat();
                // Unreachable is a kind of silence.
                let _ = socket.try_send(&question);
                record.gaps.sent += 1;
            }
        }
    }
}

async fn connections(
    to: SocketAddr,
    mut stop: oneshot::Receiver<()>,
    mut record: Record,
) -> io::Result<Gaps> {
    let mut tick = ticks();
    let mut pending = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(done) = pending.join_next() => if done.unwrap_or(false) { record.answer() },
            _ = &mut stop => return Ok(record.finish()),
            _ = tick.tick() => if pending.len() < PENDING {
                pending.spawn(connect(to));
                record.gaps.sent += 1;
            },
        }
    }
}

async fn connect(to: SocketAddr) -> bool {
    match timeout(CONNECT, TcpStream::connect(to)).await {
        // A reset leaves no TIME_WAIT behind, which would use up the ports in half a minute.
        Ok(Ok(stream)) => SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .is_ok(),
        _ => false,
    }
}

fn ticks() -> tokio::time::Interval {
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    tick
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(answers: &[u64], end: u64) -> (u64, u64) {
        let mut gaps = Gaps::default();
        answers
            .iter()
            .for_each(|at| gaps.answer(Duration::from_millis(*at)));
        gaps.silence_until(Duration::from_millis(end));
        (
            gaps.longest.as_millis() as u64,
            gaps.longest_at.as_millis() as u64,
        )
    }

    #[test]
    fn the_longest_silence_is_between_answers_or_at_the_end() {
        assert_eq!(gaps(&[500, 501, 540, 545], 546), (39, 501));
        assert_eq!(gaps(&[1, 2, 3], 90), (87, 3));
        assert_eq!(gaps(&[], 90), (0, 0), "no answer at all: see `answered`");
    }
}
