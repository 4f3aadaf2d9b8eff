//! The sessions and sockets of one VRF, or of the host outside of all.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use linux::datagram::{DatagramError, Datagrams, Received};
use plan::announce::bgp::PeerKey;
use plan::name::Name;
use proto::bfd::{
    Arrival, CONTROL_PORT, Change, Error, Key, MULTIHOP_PORT, SOURCE_PORTS, Sessions, Settings,
    State, TTL, Transmit,
};
use tokio::sync::mpsc;

use crate::http::bfd::Counts;

/// Longer than any control packet, with the longest authentication.
const BUFFER: usize = 256;
/// Datagrams taken at once from a socket.
const BATCH: usize = 64;
/// Source ports tried for a session.
const ATTEMPTS: u16 = 64;

/// What a socket hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listener {
    v6: bool,
    port: u16,
}

/// A session's own things.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The peers that want it.
    owners: BTreeMap<PeerKey, mpsc::Sender<()>>,
    /// To send from.
    socket: Option<Datagrams>,
    /// Nobody wants it any more: until when the neighbour is told.
    until: Option<Duration>,
    /// The last trouble that was told.
    told: Option<String>,
}

pub(super) struct Room {
    vrf: Option<Name>,
    counts: Counts,
    sessions: Sessions,
    held: BTreeMap<Key, Held>,
    listeners: BTreeMap<Listener, Datagrams>,
    /// The last trouble that was told.
    told: Option<String>,
    buffer: Vec<u8>,
}

impl Room {
    pub(super) fn new(vrf: Option<Name>, counts: Counts) -> Self {
        Self {
            vrf,
            counts,
            // Seeded by the system's random numbers.
            sessions: Sessions::new(RandomState::new().hash_one(0_u8)),
            held: BTreeMap::new(),
            listeners: BTreeMap::new(),
            told: None,
            buffer: vec![0; BUFFER],
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// As FRR's exporter names it.
    fn vrf(&self) -> &str {
        self.vrf.as_deref().unwrap_or("default")
    }

    pub(super) fn set(
        &mut self,
        now: Duration,
        key: Key,
        settings: Settings,
        owner: PeerKey,
        failed: mpsc::Sender<()>,
    ) {
        let held = self.held.entry(key.clone()).or_default();
        held.owners.insert(owner, failed);
        held.until = None;
        self.counts.begin(&key.peer.to_string(), self.vrf());
        self.sessions.set(now, key.clone(), settings);
        self.sessions.set_admin_down(now, &key, false);
    }

    pub(super) fn release(&mut self, now: Duration, key: &Key, owner: &PeerKey, until: Duration) {
        if let Some(held) = self.held.get_mut(key) {
            held.owners.remove(owner);
            if held.owners.is_empty() {
                held.until = Some(until);
                self.sessions.set_admin_down(now, key, true);
            }
        }
    }

    pub(super) fn release_all(&mut self, now: Duration, until: Duration) {
        for (key, held) in &mut self.held {
            held.owners.clear();
            held.until = Some(until);
            self.sessions.set_admin_down(now, key, true);
        }
    }

    /// Opens the sockets that the sessions need and closes those that none does. Whether all are
    /// there.
    pub(super) fn open(&mut self) -> bool {
        let mut needed = Vec::new();
        for key in self.held.keys() {
            let v6 = key.peer.is_ipv6();
            let port = if key.multihop {
                MULTIHOP_PORT
            } else {
                CONTROL_PORT
            };
            needed.push(Listener { v6, port });
        }
        self.listeners
            .retain(|listener, _| needed.contains(listener));
        let mut whole = true;
        for listener in needed {
            if self.listeners.contains_key(&listener) {
                continue;
            }
            let any: IpAddr = if listener.v6 {
                Ipv6Addr::UNSPECIFIED.into()
            } else {
                Ipv4Addr::UNSPECIFIED.into()
            };
            let at = SocketAddr::new(any, listener.port);
            match Datagrams::bind(at, TTL, self.vrf.as_deref()) {
                Ok(socket) => {
                    self.listeners.insert(listener, socket);
                }
                Err(error) => {
                    whole = false;
                    self.trouble(&error, listener.port);
                }
            }
        }
        if whole {
            self.told = None;
        }
        whole
    }

    /// Tells why BFD hears nothing, once.
    fn trouble(&mut self, error: &DatagramError, port: u16) {
        let why = crate::cli::chain(error);
        if self.told.as_ref() == Some(&why) {
            return;
        }
        let hint = if error.kind() == io::ErrorKind::AddrInUse {
            "another BFD daemon has the port, such as FRR's bfdd: stop it, or use no bfdProfile"
        } else {
            "BGP goes on without BFD"
        };
        tracing::warn!(port, vrf = self.vrf(), why, hint, "BFD hears nothing");
        self.told = Some(why);
    }

    /// Takes what has come, or is woken when something does.
    pub(super) fn poll_recv(&mut self, context: &mut Context<'_>, start: Instant) -> Poll<()> {
        let mut took = Poll::Pending;
        for (listener, socket) in &self.listeners {
            for _ in 0..BATCH {
                let Poll::Ready(received) = socket.poll_recv(context, &mut self.buffer) else {
                    break;
                };
                took = Poll::Ready(());
                let now = start.elapsed();
                take(
                    &mut self.sessions,
                    &self.counts,
                    self.vrf.as_deref(),
                    now,
                    *listener,
                    &self.buffer,
                    received,
                );
            }
        }
        took
    }

    /// Takes what has come.
    pub(super) fn drain(&mut self, start: Instant) {
        for (listener, socket) in &self.listeners {
            for _ in 0..BATCH {
                let received = socket.try_recv(&mut self.buffer);
                if received
                    .as_ref()
                    .is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
                {
                    break;
                }
                let now = start.elapsed();
                take(
                    &mut self.sessions,
                    &self.counts,
                    self.vrf.as_deref(),
                    now,
                    *listener,
                    &self.buffer,
                    received,
                );
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let ends = self.held.values().filter_map(|held| held.until);
        ends.chain(self.sessions.poll_timeout()).min()
    }

    pub(super) fn on_timeout(&mut self, now: Duration) {
        self.sessions.on_timeout(now);
        for held in self.held.values_mut() {
            // Long enough.
            if held.until.is_some_and(|until| until <= now) {
                held.until = Some(Duration::ZERO);
            }
        }
    }

    /// Sends and tells what is to be, and forgets sessions that are over.
    pub(super) fn settle(&mut self) {
        while let Some(sent) = self.sessions.poll_transmit() {
            self.send(&sent.key, &sent.payload);
        }
        while let Some((key, change)) = self.sessions.poll_event() {
            self.changed(&key, &change);
        }
        let sessions = &self.sessions;
        let over = |key: &Key, held: &Held| {
            let told = sessions.get(key).is_none_or(proto::bfd::Session::released);
            held.until.is_some_and(|until| told || until.is_zero())
        };
        let over: Vec<Key> = self
            .held
            .iter()
            .filter(|(key, held)| over(key, held))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &over {
            self.held.remove(key);
            self.sessions.remove(key);
            self.counts.forget(&key.peer.to_string(), self.vrf());
        }
        if !over.is_empty() {
            self.open();
        }
    }

    fn changed(&mut self, key: &Key, change: &Change) {
        let (peer, vrf) = (key.peer.to_string(), self.vrf());
        let labels = [peer.as_str(), vrf];
        let up = change.to == State::Up;
        self.counts.up.with_label_values(&labels).set(up.into());
        let failed = change.path_failed();
        if up || change.from == State::Up {
            self.counts.notifications.with_label_values(&labels).inc();
        }
        if up {
            self.counts.ups.with_label_values(&labels).inc();
            tracing::info!(peer, vrf, "BFD session up");
        } else if change.from == State::Up {
            self.counts.downs.with_label_values(&labels).inc();
            let why = change.diagnostic.to_string();
            if failed {
                tracing::warn!(peer, vrf, why, "BFD: the path has failed");
            } else {
                tracing::info!(peer, vrf, why, "BFD session ended, which is no failure");
            }
        }
        if failed && let Some(held) = self.held.get(key) {
            for owner in held.owners.values() {
                // Full: it is about to hear of one.
                let _ = owner.try_send(());
            }
        }
    }

    fn send(&mut self, key: &Key, payload: &Transmit) {
        let (peer, vrf) = (key.peer.to_string(), self.vrf.as_deref());
        let Some(held) = self.held.get_mut(key) else {
            return;
        };
        let control = if key.multihop {
            MULTIHOP_PORT
        } else {
            CONTROL_PORT
        };
        // There are no echo packets: no session asks for the function.
        let Transmit::Control(bytes) = payload else {
            return;
        };
        let socket = &mut held.socket;
        let opened = match socket.take() {
            Some(open) => Ok(open),
            None => source(key, vrf).map_err(|e| crate::cli::chain(&e)),
        };
        let to = address(key.peer, control, key.interface);
        let sent = opened.and_then(|open| match open.send(bytes, to) {
            Ok(()) => {
                *socket = Some(open);
                Ok(())
            }
            // Not even the next one is urgent.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                *socket = Some(open);
                Err(error.to_string())
            }
            // Our address may have gone: bound anew the next time.
            Err(error) => Err(error.to_string()),
        });
        let labels = [peer.as_str(), vrf.unwrap_or("default")];
        match sent {
            Ok(()) => {
                self.counts.control_out.with_label_values(&labels).inc();
                held.told = None;
            }
            Err(why) if held.told.as_ref() != Some(&why) => {
                tracing::warn!(peer, why, "a BFD packet cannot be sent");
                held.told = Some(why);
            }
            Err(_) => {}
        }
    }
}

/// Hands a datagram to its session.
fn take(
    sessions: &mut Sessions,
    counts: &Counts,
    vrf: Option<&str>,
    now: Duration,
    listener: Listener,
    buffer: &[u8],
    received: io::Result<Received>,
) {
    let dropped = |reason: &str| counts.dropped.with_label_values(&[reason]).inc();
    let received = match received {
        Ok(received) => received,
        Err(error) => {
            tracing::debug!(%error, "a BFD packet cannot be read");
            return dropped("unreadable");
        }
    };
    let arrival = Arrival {
        from: received.from.ip(),
        to: received.to,
        interface: received.interface,
        ttl: received.ttl,
        multihop: listener.port == MULTIHOP_PORT,
    };
    let payload = buffer.get(..received.length).unwrap_or_default();
    match sessions.on_control(now, &arrival, payload) {
        Ok(_) => {
            let labels = [&arrival.from.to_string(), vrf.unwrap_or("default")];
            counts.control_in.with_label_values(&labels).inc();
        }
        Err(error) => {
            tracing::debug!(%error, "a BFD packet is dropped");
            dropped(reason(&error));
        }
    }
}

/// A socket to send from: of our address, with a port of its own (RFC 5881 §4).
fn source(key: &Key, vrf: Option<&str>) -> Result<Datagrams, DatagramError> {
    let any = match key.peer {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let local = key.local.unwrap_or(any);
    let (first, last) = (*SOURCE_PORTS.start(), *SOURCE_PORTS.end());
    let offset = (RandomState::new().hash_one(0_u8) % u64::from(last - first)) as u16;
    let mut attempt = 0;
    loop {
        let step = (offset + attempt) % (last - first);
        let at = address(local, first + step, key.interface);
        match Datagrams::bind(at, TTL, vrf) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempt < ATTEMPTS => {
                attempt += 1;
            }
            other => return other,
        }
    }
}

/// Link-local addresses need their interface.
fn address(ip: IpAddr, port: u16, interface: Option<u32>) -> SocketAddr {
    match (ip, interface) {
        (IpAddr::V6(ip), Some(index)) => SocketAddrV6::new(ip, port, 0, index).into(),
        _ => SocketAddr::new(ip, port),
    }
}

/// As the metric names it.
const fn reason(error: &Error) -> &'static str {
    match error {
        Error::Truncated { .. } | Error::Length { .. } => "length",
        Error::Version { .. } => "version",
        Error::Multiplier => "multiplier",
        Error::Multipoint => "multipoint",
        Error::MyDiscriminator | Error::YourDiscriminator { .. } => "discriminator",
        Error::Authenticated => "authenticated",
        Error::Ttl { .. } => "ttl",
        Error::UnknownDiscriminator { .. } | Error::OtherSession { .. } => "no_session",
        Error::Stranger { .. } => "stranger",
        Error::AdminDown => "admin_down",
        Error::Echo { .. } => "echo",
    }
}
