//! Users: 200 requests a second from outside, each over a connection of its own.
//!
//! They are on a thread of their own, so that the test's other work does not slow them down.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lab::Host;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

/// 200 a second, also where a tick comes late.
const PERIOD: Duration = Duration::from_millis(5);
/// As long as a patient user waits: also a lost SYN, which the kernel sends again after 1 s, 3 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// What they have seen.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    /// Of those, connections that were cut off: they had been made when it happened.
    pub(crate) cut: u64,
    /// When, and why, of the first few.
    pub(crate) failures: Vec<String>,
    pub(crate) slowest: Duration,
    /// The longest time in which no page came.
    pub(crate) gap: Duration,
    last: Option<Instant>,
}

pub(crate) struct Load {
    answered: Arc<AtomicU64>,
    stop: oneshot::Sender<()>,
    done: oneshot::Receiver<io::Result<Figures>>,
}

impl Load {
    pub(crate) fn start(host: &Host, to: SocketAddr) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (report, done) = oneshot::channel();
        let answered = Arc::new(AtomicU64::new(0));
        let (network, count) = (host.netns().clone(), Arc::clone(&answered));
        std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                let figures = network.enter_thread().and_then(|()| {
                    tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()?
                        .block_on(run(to, stopped, &count))
                });
                // Nobody listens when the test has failed meanwhile.
                let _ = report.send(figures);
            })?;
        Ok(Self {
            answered,
            stop,
            done,
        })
    }

    /// Pages so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends it when all that was asked has come to an end.
    pub(crate) async fn stop(self) -> io::Result<Figures> {
        drop(self.stop);
        self.done
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the load's thread panicked")))
    }
}

async fn run(
    to: SocketAddr,
    mut stop: oneshot::Receiver<()>,
    count: &AtomicU64,
) -> io::Result<Figures> {
    let start = Instant::now();
    let mut figures = Figures::default();
    let mut tick = interval(PERIOD);
    let mut pending = JoinSet::new();
    let mut stopping = false;
    while !stopping || !pending.is_empty() {
        tokio::select! {
            Some(done) = pending.join_next() => {
                let (begun, page): (Instant, io::Result<()>) = done.map_err(io::Error::other)?;
                figures.slowest = figures.slowest.max(begun.elapsed());
                match page {
                    Ok(()) => {
                        count.fetch_add(1, Ordering::Relaxed);
                        let now = Instant::now();
                        let last = figures.last.replace(now).unwrap_or(now);
                        figures.gap = figures.gap.max(now - last);
                    }
                    Err(error) => {
                        figures.failed += 1;
                        figures.cut += u64::from(matches!(
                            error.kind(),
                            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                        ));
                        if figures.failures.len() < 5 {
                            let at = (begun - start).as_secs_f64();
                            figures.failures.push(format!("at {at:.2} s: {error}"));
                        }
                    }
                }
            }
            _ = &mut stop, if !stopping => stopping = true,
            _ = tick.tick(), if !stopping => {
                figures.sent += 1;
                pending.spawn(async move {
                    let begun = Instant::now();
                    let page = timeout(PATIENCE, page(to)).await;
                    (begun, page.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
                });
            }
        }
    }
    Ok(figures)
}

async fn page(to: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: myapp\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    match answer.starts_with(b"HTTP/1.1 200") {
        true => Ok(()),
        false => Err(io::Error::other(format!("{} octets", answer.len()))),
    }
}
