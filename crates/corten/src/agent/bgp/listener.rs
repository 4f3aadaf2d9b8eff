//! Where neighbours connect to us: one socket for each port, family and VRF, shared by the peers
//! that wait on it.
//!
//! A peer's task subscribes with [`Listener::wait`] and hears of the connections from its
//! neighbour's address. Whoever is no neighbour is told so (Cease/5, Connection Rejected) and
//! counted. A port that cannot be had is tried again, and its peers are told why.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::Poll;
use std::time::Duration;

use linux::tcp;
use plan::announce::bgp::PeerSession;
use plan::config::{Hidden, Neighbour, Password};
use plan::name::Name;
use proto::bgp::Notification;
use proto::bgp::notification::cease;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::http::Metrics;

/// Connections that may wait for a peer's task, and requests for this one.
const QUEUE: usize = 16;
/// Strangers that are answered at a time; more are hung up on.
const STRANGERS: usize = 16;
/// How long a stranger may take to read why.
const PATIENCE: Duration = Duration::from_secs(1);
/// Until a port is tried again, and one that nobody waits on is closed.
const RETRY: Duration = Duration::from_secs(2);

/// A socket that peers wait on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) port: u16,
    pub(super) vrf: Option<Name>,
    pub(super) ipv6: bool,
}

/// What a peer's task hears.
#[derive(Debug)]
pub(super) enum Heard {
    /// Its neighbour has connected.
    Connection(TcpStream),
    /// It can connect.
    Open,
    /// Nobody can connect, and why.
    Trouble(String),
}

#[derive(Debug)]
struct Wanted {
    place: Place,
    from: IpAddr,
    waiting: Waiting,
}

#[derive(Debug)]
struct Waiting {
    password: Option<Hidden>,
    tell: mpsc::Sender<Heard>,
}

/// A handle on the task.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    requests: mpsc::Sender<Wanted>,
}

impl Listener {
    /// Waits for a neighbour until the receiver is dropped. The newest who waits for an address
    /// gets its connections.
    pub(super) async fn wait(
        &self,
        place: Place,
        from: IpAddr,
        password: Option<Hidden>,
    ) -> mpsc::Receiver<Heard> {
        let (tell, heard) = mpsc::channel(QUEUE);
        let waiting = Waiting { password, tell };
        let wanted = Wanted {
            place,
            from,
            waiting,
        };
        let _ = self.requests.send(wanted).await;
        heard
    }
}

/// A peer's own view: it waits while its session says so.
pub(super) struct Waiter {
    listener: Listener,
    /// As it was asked for last.
    asked: Option<(Place, IpAddr, Option<Hidden>)>,
    heard: Option<mpsc::Receiver<Heard>>,
}

impl Waiter {
    pub(super) fn new(listener: Listener) -> Self {
        Self {
            listener,
            asked: None,
            heard: None,
        }
    }

    /// Waits, or does so no more, as the session says. Without a password that it should have,
    /// nobody is let in.
    pub(super) async fn follow(&mut self, session: &PeerSession, password: &Option<Hidden>) {
        let locked = session.password != Password::None && password.is_none();
        let wanted = match (session.listen, &session.neighbour) {
            (Some(port), Neighbour::Address(from)) if !locked => {
                let place = Place {
                    port,
                    vrf: session.vrf.clone(),
                    ipv6: from.is_ipv6(),
                };
                Some((place, *from, password.clone()))
            }
            _ => None,
        };
        if self.asked == wanted {
            return;
        }
        self.asked.clone_from(&wanted);
        self.heard = match wanted {
            Some((place, from, password)) => Some(self.listener.wait(place, from, password).await),
            None => None,
        };
    }

    /// The next that is heard; never, where nothing is waited for.
    pub(super) async fn heard(&mut self) -> Heard {
        match &mut self.heard {
            Some(heard) => match heard.recv().await {
                Some(heard) => heard,
                // Another waits for the same neighbour.
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }
}

/// The handle, and the task to run.
pub(super) fn start(metrics: Metrics) -> (Listener, impl Future<Output = ()> + Send) {
    let (requests, inbox) = mpsc::channel(QUEUE);
    let task = Task {
        metrics,
        places: BTreeMap::new(),
        strangers: JoinSet::new(),
    };
    (Listener { requests }, task.run(inbox))
}

#[derive(Default)]
struct Socket {
    /// `None`: it could not be opened.
    open: Option<TcpListener>,
    waiting: BTreeMap<IpAddr, Waiting>,
}

struct Task {
    metrics: Metrics,
    places: BTreeMap<Place, Socket>,
    strangers: JoinSet<()>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Wanted>) {
        let mut tick = tokio::time::interval(RETRY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                wanted = inbox.recv() => match wanted {
                    Some(wanted) => self.add(wanted),
                    None => return,
                },
                (place, accepted) = accept(&self.places) => self.accepted(&place, accepted),
                Some(_) = self.strangers.join_next() => {}
                _ = tick.tick(), if !self.places.is_empty() => self.tidy(),
            }
        }
    }

    fn add(&mut self, wanted: Wanted) {
        let Wanted {
            place,
            from,
            waiting,
        } = wanted;
        let socket = self.places.entry(place.clone()).or_default();
        match &socket.open {
            Some(open) => sign(open, from, &waiting),
            None => {
                socket.waiting.insert(from, waiting);
                socket.open(&place);
                return;
            }
        }
        socket.waiting.insert(from, waiting);
    }

    fn accepted(&mut self, place: &Place, accepted: io::Result<(TcpStream, SocketAddr)>) {
        let Some(socket) = self.places.get_mut(place) else {
            return;
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Opened again with the next tick: an error that stays must not spin.
                tracing::warn!(%error, port = place.port, "connections cannot be accepted");
                socket.open = None;
                return;
            }
        };
        let waiting = socket.waiting.get(&from.ip());
        let reason = match waiting {
            Some(waiting) => match waiting.tell.try_send(Heard::Connection(stream)) {
                Ok(()) => return,
                // Its task has more of them than it can take, or has just ended.
                Err(_) => "busy",
            },
            None => {
                if self.strangers.len() < STRANGERS {
                    self.strangers.spawn(refuse(stream));
                }
                "stranger"
            }
        };
        tracing::debug!(%from, port = place.port, reason, "connection refused");
        let refused = &self.metrics.bgp_connections_refused;
        refused.with_label_values(&[reason]).inc();
    }

    /// Forgets who waits no more, and opens what could not be opened.
    fn tidy(&mut self) {
        self.places.retain(|place, socket| {
            let ended = |_: &IpAddr, waiting: &mut Waiting| waiting.tell.is_closed();
            for (from, waiting) in socket.waiting.extract_if(.., ended) {
                if let (Some(open), Some(_)) = (&socket.open, waiting.password) {
                    // Nothing is there to be taken away where the socket is new.
                    let _ = tcp::set_password(open, from, None, &[]);
                }
            }
            if socket.waiting.is_empty() {
                return false;
            }
            if socket.open.is_none() {
                socket.open(place);
            }
            true
        });
    }
}

impl Socket {
    fn open(&mut self, place: &Place) {
        match listen(place) {
            Ok(open) => {
                for (from, waiting) in &self.waiting {
                    sign(&open, *from, waiting);
                }
                tracing::info!(
                    port = place.port,
                    ipv6 = place.ipv6,
                    "waiting for neighbours"
                );
                self.open = Some(open);
            }
            Err(why) => {
                for waiting in self.waiting.values() {
                    // One that has not taken in the last trouble needs no further one.
                    let _ = waiting.tell.try_send(Heard::Trouble(why.clone()));
                }
            }
        }
    }
}

fn listen(place: &Place) -> Result<TcpListener, String> {
    let any: IpAddr = match place.ipv6 {
        true => Ipv6Addr::UNSPECIFIED.into(),
        false => Ipv4Addr::UNSPECIFIED.into(),
    };
    let options = tcp::Options {
        device: place.vrf.as_deref(),
        // Neighbours may be far; each connection gets its own.
        ttl: Some(u8::MAX),
        min_ttl: None,
    };
    let port = place.port;
    let listener = tcp::listen(SocketAddr::new(any, port), options).map_err(|error| {
        if error.is_taken() {
            format!(
                "cannot wait for the neighbour: another program has port {port} of this node; \
                 choose another one in spec.listen.port, or end that program (ss -ltnp sport = \
                 :{port})"
            )
        } else if error.is_denied() {
            format!(
                "cannot wait for the neighbour: port {port} needs the capability \
                 NET_BIND_SERVICE; choose one from 1024 in spec.listen.port, or add it"
            )
        } else {
            crate::cli::chain(&error)
        }
    })?;
    TcpListener::from_std(listener).map_err(|error| error.to_string())
}

/// Connections from the neighbour must bear its password from now on, or none.
fn sign(open: &TcpListener, from: IpAddr, waiting: &Waiting) {
    let password = waiting.password.as_ref().map(Hidden::reveal);
    // Where there was none, none can be taken away.
    let outcome = tcp::set_password(open, from, None, password.unwrap_or_default());
    let heard = match (outcome, password) {
        (Err(error), Some(_)) => Heard::Trouble(format!("cannot set the password: {error}")),
        _ => Heard::Open,
    };
    // One that has not taken in what was said before learns of its connections anyway.
    let _ = waiting.tell.try_send(heard);
}

/// The next connection on any socket.
async fn accept(places: &BTreeMap<Place, Socket>) -> (Place, io::Result<(TcpStream, SocketAddr)>) {
    std::future::poll_fn(|context| {
        for (place, socket) in places {
            if let Some(open) = &socket.open
                && let Poll::Ready(accepted) = open.poll_accept(context)
            {
                return Poll::Ready((place.clone(), accepted));
            }
        }
        Poll::Pending
    })
    .await
}

/// Says why, and waits until it was read: closed with bytes unread, a connection is reset, and the
/// word is lost.
async fn refuse(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    Notification::cease(cease::REJECTED, "").encode(&mut bytes);
    let say = async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        let mut rest = [0; 512];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(PATIENCE, say).await;
}
