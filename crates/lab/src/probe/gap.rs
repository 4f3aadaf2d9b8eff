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
use tokio::time::{MissedTickBehavior, interval, timeout, timeout_at};

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
    /// The longest time between one question and the next: what is shorter than that on a busy
    /// machine may be the prober's own.
    pub stalled: Duration,
    last: Option<Duration>,
    asked: Option<Duration>,
}

impl Gaps {
    fn ask(&mut self, at: Duration) {
        self.sent += 1;
        let before = self.asked.replace(at).unwrap_or(at);
        self.stalled = self.stalled.max(at.saturating_sub(before));
    }

    fn answer(&mut self, at: Duration) {
        self.answered += 1;
        self.first.get_or_insert(at);
        self.silence_until(at);
        self.last = Some(at);
    }

    /// Forgets the longest silence if it ended before `mark`.
    fn forget_until(&mut self, mark: Duration) {
        if self.longest_at + self.longest < mark {
            (self.longest, self.longest_at) = (Duration::ZERO, mark);
        }
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

    /// From now on only silences count that end later: the longest one is then that of what is done
    /// next.
    pub fn mark(&self) {
        let now = self.live.start.elapsed().as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.live.mark.store(now, Ordering::Relaxed);
    }

    /// Asks no more, and ends when everything was answered, or after `patience`: what is on its way
    /// is not lost. The silence at the end is up to the last question.
    pub async fn settle(self, patience: Duration) -> Result<Gaps, LabError> {
        let end = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        self.live.patience.store(end, Ordering::Relaxed);
        self.stop().await
    }

    /// Ends it and gives its figures; what is on its way counts as lost.
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
    /// Nanoseconds from `start` to [`Prober::mark`].
    mark: AtomicU64,
    /// Nanoseconds that it waits, once stopped, for answers.
    patience: AtomicU64,
}

impl Host {
    /// Starts to ask `target` every millisecond from this host.
    pub fn probe(&self, target: Target) -> Result<Prober, LabError> {
        let live = Live {
            start: Instant::now(),
            answered: AtomicU64::new(0),
            last: AtomicU64::new(0),
            mark: AtomicU64::new(0),
            patience: AtomicU64::new(0),
        };
        let live = Arc::new(live);
        let (stop, stopped) = oneshot::channel();
        let (report, result) = oneshot::channel();
        let (ns, record) = (
            self.netns().clone(),
            Record {
                gaps: Gaps::default(),
                live: Arc::clone(&live),
                answered: Vec::new(),
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
    /// Of each numbered question, whether it was answered.
    answered: Vec<bool>,
}

impl Record {
    fn ask(&mut self) {
        self.gaps.ask(self.live.start.elapsed());
    }

    /// The answer to the question with this number; a second one is none.
    fn answer_to(&mut self, number: u64) {
        if number >= self.gaps.sent {
            return;
        }
        self.answered.resize(self.gaps.sent as usize, false);
        let known = self.answered.get_mut(number as usize);
        if known.is_some_and(|known| !std::mem::replace(known, true)) {
            self.answer();
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_nanos(self.live.patience.load(Ordering::Relaxed))
    }

    fn answer(&mut self) {
        let at = self.live.start.elapsed();
        let mark = Duration::from_nanos(self.live.mark.load(Ordering::Relaxed));
        self.gaps.forget_until(mark);
        self.gaps.answer(at);
        self.live
            .last
            .store(at.as_nanos() as u64, Ordering::Relaxed);
        self.live
            .answered
            .store(self.gaps.answered, Ordering::Relaxed);
    }

    /// The figures of one that asked until `asked`.
    fn finish(mut self, asked: Duration) -> Gaps {
        if self.gaps.lost() > 0 {
            self.gaps.silence_until(asked);
        }
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
                if let Some(number) = number(received, header, &buffer) {
                    record.answer_to(number);
                }
            }
            _ = &mut stop => break,
            _ = tick.tick() => {
                let question = [header, &record.gaps.sent.to_be_bytes()].concat();
                // Unreachable is a kind of silence.
                let _ = socket.try_send(&question);
                record.ask();
            }
        }
    }
    let asked = record.live.start.elapsed();
    let end = tokio::time::Instant::now() + record.patience();
    while record.gaps.lost() > 0 {
        let Ok(received) = timeout_at(end, socket.recv(&mut buffer)).await else {
            break;
        };
        if let Some(number) = number(received, header, &buffer) {
            record.answer_to(number);
        }
    }
    Ok(record.finish(asked))
}

/// The question that was answered.
fn number(received: io::Result<usize>, header: &[u8], buffer: &[u8]) -> Option<u64> {
    let data = buffer.get(header.len()..received.ok()?)?;
    data.first_chunk::<8>().copied().map(u64::from_be_bytes)
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
            _ = &mut stop => break,
            _ = tick.tick() => if pending.len() < PENDING {
                pending.spawn(connect(to));
                record.ask();
            },
        }
    }
    let asked = record.live.start.elapsed();
    let end = tokio::time::Instant::now() + record.patience();
    while let Ok(Some(done)) = timeout_at(end, pending.join_next()).await {
        if done.unwrap_or(false) {
            record.answer();
        }
    }
    Ok(record.finish(asked))
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

    #[test]
    fn a_silence_before_the_mark_is_forgotten() {
        let mut gaps = Gaps::default();
        let at = Duration::from_millis;
        for ms in [1, 90, 91] {
            gaps.answer(at(ms));
        }
        gaps.forget_until(at(92));
        gaps.answer(at(95));
        assert_eq!((gaps.longest, gaps.longest_at), (at(4), at(91)));
        gaps.forget_until(at(92));
        assert_eq!(gaps.longest, at(4), "it ended later");
    }

    #[test]
    fn an_answer_counts_once() {
        let live = Live {
            start: Instant::now(),
            answered: AtomicU64::new(0),
            last: AtomicU64::new(0),
            mark: AtomicU64::new(0),
            patience: AtomicU64::new(0),
        };
        let mut record = Record {
            gaps: Gaps::default(),
            live: Arc::new(live),
            answered: Vec::new(),
        };
        record.ask();
        record.ask();
        for number in [0, 0, 2] {
            record.answer_to(number);
        }
        assert_eq!((record.gaps.answered, record.gaps.lost()), (1, 1));
    }
}
