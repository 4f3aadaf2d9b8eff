//! Peers that read: plain TCP, our codec. They hold back their OPEN until the speaker under test
//! has loaded everything, and the KEEPALIVE that makes it Established until all have come so far.

use std::collections::HashSet;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use lab::Host;
use proto::bgp::fsm::{Config, RemoteAs};
use proto::bgp::{
    AdjOut, Asn, Attributes, Codec, Family, Framer, HEADER_LEN, Kind, LocalAddresses, Message,
    Negotiated, Nlri, Open, Path, keepalive,
};

use super::Fault;

/// Addresses of the peers: 10.0.0.1 and up.
pub(crate) const PEERS: u8 = 4;
/// Of all of them.
pub(crate) const ASN: u32 = 64501;
/// Another peer, that has the routes of a speaker with no configuration for them.
pub(crate) const FEEDER: (u8, u32) = (9, 64999);
/// No session takes so long.
const DEADLINE: Duration = Duration::from_secs(600);
/// A KEEPALIVE goes out after such a silence.
const SILENCE: Duration = Duration::from_secs(20);
/// The same while prefixes are awaited: BIRD 2.0.12 may sleep 3 s with work to do, until somebody
/// wakes it.
const POKE: Duration = Duration::from_millis(1);

/// The address of the peer with this number.
pub(crate) fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number)
}

/// The prefix of this number, a /32.
pub(crate) fn prefix(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a40_0000 + number)
}

/// What a peer tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// The speaker has sent its OPEN.
    Opened,
    /// It is Established from now on.
    Released(Instant),
    /// The last of the prefixes awaited has come.
    All(Instant, Counts),
    /// An UPDATE afterwards.
    Update(Instant),
}

/// How much came until then.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// The peers of one speaker.
pub(crate) struct Sinks {
    told: Receiver<Result<Told, String>>,
    open: Vec<SyncSender<()>>,
}

impl Sinks {
    /// Listens on a host; each peer waits for so many prefixes.
    pub(crate) fn listen(host: &Host, wanted: usize) -> Result<Self, Fault> {
        let (tell, told) = sync_channel(1024);
        let together = Arc::new(Barrier::new(PEERS.into()));
        let mut open = Vec::new();
        for number in 1..=PEERS {
            let listener = listener(host, number)?;
            let (release, opened) = sync_channel(1);
            open.push(release);
            let (tell, together) = (tell.clone(), Arc::clone(&together));
            thread::spawn(move || {
                if let Err(error) = sink(listener, number, wanted, &opened, &together, &tell) {
                    let _ = tell.send(Err(format!("peer {number}: {error}")));
                }
            });
        }
        Ok(Self { told, open })
    }

    /// The next news, if there are any.
    pub(crate) fn try_next(&self) -> Result<Option<Told>, Fault> {
        Ok(self.told.try_recv().ok().transpose()?)
    }

    /// The next news.
    pub(crate) fn next(&self, limit: Duration) -> Result<Told, Fault> {
        match self.told.recv_timeout(limit) {
            Ok(told) => Ok(told?),
            Err(RecvTimeoutError::Timeout) => Err("the peers wait in vain".into()),
            Err(RecvTimeoutError::Disconnected) => Err("the peers have gone".into()),
        }
    }

    /// Lets the sessions come up; gives when that was, and when the last peer had all.
    pub(crate) fn release(&self) -> Result<(Instant, Instant, Counts), Fault> {
        for open in &self.open {
            open.send(())?;
        }
        let (mut first, mut last) = (None::<Instant>, None::<Instant>);
        let (mut done, mut counts) = (0, Counts::default());
        while done < PEERS {
            match self.next(DEADLINE)? {
                Told::Released(at) => first = Some(first.map_or(at, |first| first.min(at))),
                Told::All(at, found) => {
                    last = last.max(Some(at));
                    counts.messages += found.messages;
                    counts.bytes += found.bytes;
                    done += 1;
                }
                Told::Opened | Told::Update(_) => {}
            }
        }
        first
            .zip(last)
            .map(|(first, last)| (first, last, counts))
            .ok_or_else(|| "no times".into())
    }
}

fn listener(host: &Host, number: u8) -> Result<TcpListener, Fault> {
    let at = SocketAddr::from((address(number), 179));
    Ok(host.run(|| TcpListener::bind(at))??)
}

/// One peer, until the speaker goes.
fn sink(
    listener: TcpListener,
    number: u8,
    wanted: usize,
    opened: &Receiver<()>,
    together: &Barrier,
    tell: &SyncSender<Result<Told, String>>,
) -> Result<(), Fault> {
    let mut peer = Peer::accept(listener, number, ASN)?;
    let theirs = peer.opened()?;
    tell.send(Ok(Told::Opened))?;
    opened.recv()?;
    peer.answer(&theirs)?;
    while peer.next()?.0 != Message::Keepalive {}
    together.wait();
    let released = Instant::now();
    peer.keepalive()?;
    tell.send(Ok(Told::Released(released)))?;
    peer.stream.set_read_timeout(Some(POKE))?;
    let (at, counts) = peer.take(wanted)?;
    tell.send(Ok(Told::All(at, counts)))?;
    peer.stream.set_read_timeout(Some(SILENCE))?;
    loop {
        match peer.next() {
            Ok((Message::Update(update), at)) if update.end_of_rib.is_none() => {
                tell.send(Ok(Told::Update(at)))?;
            }
            Ok(_) => {}
            // The part is over.
            Err(_) => return Ok(()),
        }
    }
}

/// Listens as the feeder; the thread ends with the session.
pub(crate) fn feed(host: &Host, count: u32) -> Result<Receiver<Result<(), String>>, Fault> {
    let (number, asn) = FEEDER;
    let listener = listener(host, number)?;
    let (done, fed) = sync_channel(1);
    thread::spawn(move || {
        let fed = || -> Result<Peer, Fault> {
            let mut peer = Peer::accept(listener, number, asn)?;
            let theirs = peer.opened()?;
            peer.answer(&theirs)?;
            while peer.next()?.0 != Message::Keepalive {}
            peer.keepalive()?;
            peer.announce(count)?;
            Ok(peer)
        };
        match fed() {
            Ok(mut peer) => {
                let _ = done.send(Ok(()));
                while peer.next().is_ok() {}
            }
            Err(error) => {
                let _ = done.send(Err(format!("the feeder: {error}")));
            }
        }
    });
    Ok(fed)
}

/// How many prefixes an UPDATE announces, all of them /32 and in its last field: five bytes each.
fn hosts(update: &[u8]) -> usize {
    let field = |at: usize| {
        let bytes = update.get(at..at + 2)?.try_into().ok()?;
        Some(usize::from(u16::from_be_bytes(bytes)))
    };
    let withdrawn = field(HEADER_LEN).unwrap_or_default();
    let attributes = field(HEADER_LEN + 2 + withdrawn).unwrap_or_default();
    let rest = update
        .len()
        .saturating_sub(HEADER_LEN + 4 + withdrawn + attributes);
    rest / 5
}

/// A connection to the speaker.
struct Peer {
    stream: TcpStream,
    ours: Open,
    negotiated: Option<Negotiated>,
    codec: Codec,
    framer: Framer,
    buffer: Vec<u8>,
    bytes: usize,
    read_at: Instant,
}

impl Peer {
    /// Takes one connection, and no other.
    fn accept(listener: TcpListener, number: u8, asn: u32) -> Result<Self, Fault> {
        let (stream, _) = listener.accept()?;
        drop(listener);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let mut config = Config::new(Asn(asn), address(number), RemoteAs::Any);
        config.families = [Family::Ipv4].into_iter().collect();
        let mut framer = Framer::default();
        framer.allow_extended();
        Ok(Self {
            stream,
            ours: config.open(),
            negotiated: None,
            codec: Codec::default(),
            framer,
            buffer: vec![0; 256 << 10],
            bytes: 0,
            read_at: Instant::now(),
        })
    }

    /// The speaker's OPEN.
    fn opened(&mut self) -> Result<Open, Fault> {
        match self.next()?.0 {
            Message::Open(open) => Ok(open),
            other => Err(format!("no OPEN but {other:?}").into()),
        }
    }

    /// Our OPEN.
    fn answer(&mut self, theirs: &Open) -> Result<(), Fault> {
        let negotiated = Negotiated::new(&self.ours, theirs, false);
        self.codec = negotiated.codec;
        self.negotiated = Some(negotiated);
        let mut bytes = Vec::new();
        self.ours.encode(&mut bytes);
        Ok(self.stream.write_all(&bytes)?)
    }

    fn keepalive(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        keepalive(&mut bytes);
        self.stream.write_all(&bytes)
    }

    /// The next message, and when its last byte was read.
    fn next(&mut self) -> Result<(Message, Instant), Fault> {
        loop {
            if let Some(bytes) = self.framer.next()? {
                let message = Message::decode(bytes, &self.codec)?;
                if let Message::Notification(notification) = &message {
                    return Err(format!("{notification:?}").into());
                }
                return Ok((message, self.read_at));
            }
            self.read()?;
        }
    }

    /// Reads what is there; after some silence, sends a KEEPALIVE.
    fn read(&mut self) -> Result<(), Fault> {
        match self.stream.read(&mut self.buffer) {
            Ok(0) => Err("the connection has ended".into()),
            Ok(length) => {
                self.read_at = Instant::now();
                self.bytes += length;
                self.framer
                    .push(self.buffer.get(..length).unwrap_or_default());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if self.negotiated.is_some() {
                    self.keepalive()?;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads until so many prefixes have come; when the last byte of that was read, and how much it
    /// was. It counts while it reads, which costs next to nothing, and decodes afterwards: this
    /// machine's processors are the speaker's too.
    fn take(&mut self, wanted: usize) -> Result<(Instant, Counts), Fault> {
        let mut counts = Counts::default();
        let (mut updates, mut prefixes) = (Vec::new(), 0);
        loop {
            while let Some(message) = self.framer.next()? {
                match message.get(HEADER_LEN - 1) {
                    Some(kind) if *kind == Kind::Update as u8 => {
                        counts.messages += 1;
                        prefixes += hosts(message);
                        updates.push(message.to_vec());
                    }
                    Some(kind) if *kind == Kind::Keepalive as u8 => {}
                    _ => return Err(format!("neither UPDATE nor KEEPALIVE: {message:?}").into()),
                }
            }
            if prefixes >= wanted {
                let at = self.read_at;
                counts.bytes = self.bytes;
                let mut seen = HashSet::with_capacity(wanted);
                for update in &updates {
                    if let Message::Update(update) = Message::decode(update, &self.codec)? {
                        seen.extend(update.announced.into_iter().flat_map(|group| group.nlri));
                    }
                }
                if seen.len() >= wanted {
                    return Ok((at, counts));
                }
                // Some came twice.
                prefixes = seen.len();
            }
            self.read()?;
        }
    }

    /// Sends so many prefixes.
    fn announce(&mut self, count: u32) -> Result<(), Fault> {
        let negotiated = self.negotiated.clone().ok_or("no session")?;
        let local = match self.stream.local_addr()? {
            SocketAddr::V4(at) => Some(*at.ip()),
            SocketAddr::V6(_) => None,
        };
        let path = Arc::new(Path {
            attributes: Attributes {
                med: Some(0),
                ..Attributes::default()
            },
            next_hop: None,
        });
        let mut out = AdjOut::new();
        out.set_ready(true);
        for number in 0..count {
            out.announce(
                Nlri::from(proto::bgp::Prefix::host(prefix(number).into())),
                &path,
            );
        }
        let addresses = LocalAddresses {
            ipv4: local,
            ..LocalAddresses::default()
        };
        out.up(Arc::new(negotiated), addresses);
        let mut bytes = Vec::new();
        while out.poll(&mut bytes, usize::MAX) {}
        Ok(self.stream.write_all(&bytes)?)
    }
}
