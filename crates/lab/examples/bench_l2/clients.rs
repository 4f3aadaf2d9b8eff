//! The clients: a warm one, a cold one, and connections that were there before.
//!
//! The cold one is another host than the warm one: answers to its questions must not teach the warm
//! one's kernel who has the address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use lab::{Ask, Asker, Gaps, Host, Prober, Target, wait_until};
use linux::netlink::Mac;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Fault, SOON};

/// Port of the echoes, UDP and TCP.
pub(crate) const PORT: u16 = 9001;
/// Answers that show that all is well.
const WELL: u64 = 50;
/// Questions of the cold client that one owner has to answer alone: a tenth of a second.
const ALONE: usize = 10;
/// Answers that are on their way when a client ends may take as long; for the cold one's last
/// questions it is too early to tell.
const PATIENCE: Duration = Duration::from_millis(500);
const EARLY: Duration = Duration::from_millis(50);
/// TCP connections, and how often each asks.
const TALKS: usize = 8;
const TALK: Duration = Duration::from_millis(5);
/// A connection that is not answered for so long is broken.
const BROKEN: Duration = Duration::from_secs(3);

/// The clients at work.
pub(crate) struct Clients {
    warm: Prober,
    cold: Asker,
    talks: Talks,
}

/// What they saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) warm: Gaps,
    asks: Vec<Ask>,
    /// Connections that broke.
    pub(crate) broken: u64,
    since: Instant,
    until: Instant,
}

impl Clients {
    /// Starts them, and waits until `owner` answers all of them; without connections where `talks`
    /// is false.
    pub(crate) async fn start(
        (warm, cold): (&Host, &Host),
        address: Ipv4Addr,
        owner: Mac,
        talks: bool,
    ) -> Result<Self, Fault> {
        let to = SocketAddr::from((address, PORT));
        let clients = Self {
            talks: Talks::start(warm, to, if talks { TALKS } else { 0 }).await?,
            warm: warm.probe(Target::Udp(to))?,
            cold: cold.ask("eth0", address).await?,
        };
        clients.back_at(owner).await?;
        Ok(clients)
    }

    /// Waits until the warm client has answers.
    async fn well(&self) -> Result<(), Fault> {
        let before = self.warm.answered();
        wait_until(SOON, "answers to the warm client", async || {
            self.warm.answered() > before + WELL
        })
        .await?;
        Ok(())
    }

    /// Waits until this one alone answers the cold client.
    async fn owned_by(&self, owner: Mac) -> Result<(), Fault> {
        wait_until(SOON, "the owner to answer alone", async || {
            self.cold.settled(Some(owner), ALONE)
        })
        .await?;
        Ok(())
    }

    /// Waits until one other than `owner` alone answers the cold client, and the warm one has
    /// answers; gives that one.
    pub(crate) async fn taken_from(&self, owner: Mac) -> Result<Mac, Fault> {
        let mut next = owner;
        wait_until(SOON, "another node to answer alone", async || {
            next = self.cold.last().unwrap_or(owner);
            next != owner && self.cold.settled(Some(next), ALONE)
        })
        .await?;
        self.well().await?;
        Ok(next)
    }

    /// Waits until this one alone answers the cold client, and the warm one has answers.
    pub(crate) async fn back_at(&self, owner: Mac) -> Result<(), Fault> {
        self.owned_by(owner).await?;
        self.well().await
    }

    /// What counts begins: the instant of the fault.
    pub(crate) fn mark(&self) -> Instant {
        self.warm.mark();
        Instant::now()
    }

    /// Ends them. What they saw from `since` on counts.
    pub(crate) async fn end(self, since: Instant) -> Result<Seen, Fault> {
        let broken = self.talks.end().await;
        let warm = self.warm.settle(PATIENCE).await?;
        let until = Instant::now();
        Ok(Seen {
            warm,
            asks: self.cold.stop()?,
            broken,
            since,
            until,
        })
    }
}

impl Seen {
    /// The longest silence to the warm client.
    pub(crate) fn silent(&self) -> Duration {
        self.warm.longest
    }

    fn asks(&self) -> impl Iterator<Item = &Ask> {
        let counts = |ask: &&Ask| ask.at >= self.since && ask.at + EARLY < self.until;
        self.asks.iter().filter(counts)
    }

    /// From the fault until another one than `owner` answered the cold client.
    pub(crate) fn dark(&self, owner: Mac) -> Result<Duration, Fault> {
        let answers = self.asks.iter().flat_map(|ask| &ask.answers);
        let others = answers.filter(|(at, mac)| *at > self.since && *mac != owner);
        let first = others.map(|(at, _)| *at).min();
        let first = first.ok_or("nobody answered the cold client")?;
        Ok(first - self.since)
    }

    /// The longest time from a question that nobody answered to the next one that somebody did.
    pub(crate) fn unanswered(&self) -> Duration {
        let (mut longest, mut began) = (Duration::ZERO, None);
        for ask in self.asks() {
            if ask.answers.is_empty() {
                began.get_or_insert(ask.at);
            } else if let Some(began) = began.take() {
                longest = longest.max(ask.at - began);
            }
        }
        longest
    }

    /// Questions that two nodes answered, and the time from the fault to the last of them.
    pub(crate) fn doubles(&self) -> (u64, Duration) {
        let two = self.asks().filter(|ask| ask.owners().len() > 1);
        two.fold((0, Duration::ZERO), |(count, _), ask| {
            (count + 1, ask.at - self.since)
        })
    }
}

/// TCP connections that ask again and again.
struct Talks {
    stop: watch::Sender<bool>,
    tasks: JoinSet<io::Result<()>>,
}

impl Talks {
    async fn start(from: &Host, to: SocketAddr, count: usize) -> Result<Self, Fault> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let stream = from.connect(to).await?;
            tasks.spawn(talk(stream, stopped.clone()));
        }
        Ok(Self { stop, tasks })
    }

    /// How many broke.
    async fn end(mut self) -> u64 {
        self.stop.send_replace(true);
        let mut broken = 0;
        while let Some(ended) = self.tasks.join_next().await {
            broken += u64::from(!matches!(ended, Ok(Ok(()))));
        }
        broken
    }
}

async fn talk(mut stream: TcpStream, stopped: watch::Receiver<bool>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut number = 0_u64;
    // Once more after the end has come: what is broken by then must be seen.
    let mut last = false;
    while !last {
        last = *stopped.borrow();
        number += 1;
        stream.write_all(&number.to_be_bytes()).await?;
        let mut answer = [0; 8];
        timeout(BROKEN, stream.read_exact(&mut answer)).await??;
        if answer != number.to_be_bytes() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        tokio::time::sleep(TALK).await;
    }
    Ok(())
}
