//! Connections through a gate, from a client's namespace: all that is measured on the wire.
//! Everything here blocks, on threads of its own.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// A connection that takes longer has failed: a SYN that is lost comes again after a second.
const PATIENCE: Duration = Duration::from_millis(900);
/// Connections under way at once in [`sweep`].
const WINDOW: usize = 64;

/// Without waiting; it leaves no TIME_WAIT when it is dropped.
fn begin(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Ok(()) => Ok(socket),
        // EINPROGRESS
        Err(error) if error.raw_os_error() == Some(115) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// When `to` first answers: five SYNs in a millisecond, less often when it takes long.
pub(crate) fn first_answer(to: SocketAddr, since: Instant, deadline: Duration) -> Option<Duration> {
    let mut open: Vec<(Instant, Socket)> = Vec::new();
    while since.elapsed() < deadline {
        if let Ok(socket) = begin(to) {
            open.push((Instant::now(), socket));
        }
        let pause = match since.elapsed().as_millis() {
            0..200 => 200,
            200..2000 => 4000,
            _ => 15_000,
        };
        std::thread::sleep(Duration::from_micros(pause));
        if open.iter().any(|(_, socket)| socket.peer_addr().is_ok()) {
            return Some(since.elapsed());
        }
        // Those that were refused are of no use any more.
        open.retain(|(begun, socket)| {
            begun.elapsed() < Duration::from_millis(100) && matches!(socket.take_error(), Ok(None))
        });
    }
    None
}

/// How many of `all` do not answer at once.
pub(crate) fn sweep(all: &[SocketAddr]) -> usize {
    let mut silent = 0;
    for part in all.chunks(WINDOW) {
        let begun = Instant::now();
        let mut open: Vec<Socket> = part.iter().filter_map(|to| begin(*to).ok()).collect();
        silent += part.len() - open.len();
        while !open.is_empty() && begun.elapsed() < PATIENCE {
            open.retain(|socket| socket.peer_addr().is_err());
            if !open.is_empty() {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        silent += open.len();
    }
    silent
}

/// One connection, made and cut.
fn connect(to: SocketAddr) -> io::Result<Duration> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    let start = Instant::now();
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(start.elapsed())
}

/// Sorted times of `count` connections, one after the other, to all of `to` in turns.
pub(crate) fn latencies(to: &[SocketAddr], count: usize) -> io::Result<Vec<Duration>> {
    let times: io::Result<Vec<_>> = to
        .iter()
        .cycle()
        .take(count)
        .map(|to| connect(*to))
        .collect();
    let mut times = times?;
    times.sort_unstable();
    Ok(times)
}

/// Connections made and cut by two threads in `time`.
pub(crate) fn rate(to: &[SocketAddr], time: Duration) -> io::Result<u64> {
    let made = AtomicU64::new(0);
    let half = to.len().div_ceil(2).max(1);
    let all: io::Result<()> = std::thread::scope(|scope| {
        let begin = |part: &'_ [SocketAddr]| {
            let (part, made) = (part.to_owned(), &made);
            scope.spawn(move || {
                let start = Instant::now();
                for to in part.iter().cycle() {
                    if start.elapsed() >= time {
                        break;
                    }
                    connect(*to)?;
                    made.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        let threads: Vec<_> = to.chunks(half).map(begin).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| io::Error::other("panic"))?)
    });
    all.map(|()| made.into_inner())
}

/// Gbit/s of one connection.
pub(crate) fn throughput(to: SocketAddr, time: Duration) -> io::Result<f64> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    let chunk = vec![b'x'; 128 << 10];
    let mut sent = 0_u64;
    let start = Instant::now();
    while start.elapsed() < time {
        stream.write_all(&chunk)?;
        sent += chunk.len() as u64;
    }
    Ok(sent as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64())
}

/// A listener of both families with a queue as long as the kernel allows.
pub(crate) fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// A server that takes every connection. It ends with the program.
#[derive(Debug)]
pub(crate) struct Server {
    /// Reads what comes, too.
    bulk: Arc<AtomicBool>,
}

impl Server {
    /// Takes over a listener that was made where it is to listen.
    pub(crate) fn start(listener: TcpListener) -> io::Result<Self> {
        let bulk = Arc::new(AtomicBool::new(false));
        let reads = Arc::clone(&bulk);
        std::thread::Builder::new()
            .name("server".to_owned())
            .spawn(move || {
                for stream in listener.incoming() {
                    if let (Ok(stream), true) = (stream, reads.load(Ordering::Relaxed)) {
                        std::thread::spawn(move || drain(stream));
                    }
                }
            })?;
        Ok(Self { bulk })
    }

    /// From now on what comes is read, or not.
    pub(crate) fn reads(&self, reads: bool) {
        self.bulk.store(reads, Ordering::Relaxed);
    }
}

fn drain(mut stream: TcpStream) {
    let mut buffer = vec![0; 256 << 10];
    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
}
