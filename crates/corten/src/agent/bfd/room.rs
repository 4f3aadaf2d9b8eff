//! The sessions and sockets of one VRF, or of the host outside of all.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use linux::datagram::{DatagramError, Datagrams};
use plan::announce::bgp::PeerKey;
use plan::name::Name;
use proto::bfd::{
    CONTROL_PORT, Change, ECHO_PORT, Key, MULTIHOP_PORT, SOURCE_PORTS, Sessions, Settings, State,
    TTL, Transmit,
};
use tokio::sync::mpsc;

use super::frames::Frames;
use super::inbox::{Heard, Hearing, Inbox};
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
    /// Echo is wanted of it.
    echo: bool,
    /// The interface that its neighbour was last heard on.
    interface: Option<u32>,
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
    frames: Frames,
    /// On which interfaces neighbours were heard, not yet taken note of.
    met: Vec<(Key, u32)>,
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
            frames: Frames::default(),
            met: Vec::new(),
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
        held.echo = settings.echo.is_some() && !key.multihop;
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
        for (key, held) in &self.held {
            let v6 = key.peer.is_ipv6();
            let port = if key.multihop {
                MULTIHOP_PORT
            } else {
                CONTROL_PORT
            };
            needed.push(Listener { v6, port });
            if held.echo {
                let port = ECHO_PORT;
                needed.push(Listener { v6, port });
            }
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
        self.look();
        whole
    }

    /// Has frames looked at where neighbours of IPv4 with echo are.
    fn look(&mut self) {
        let wanted = self.held.iter().filter(|(key, held)| {
            let v4 = key.peer.is_ipv4();
            held.echo && v4
        });
        let interfaces = wanted.filter_map(|(_, held)| held.interface).collect();
        self.frames.open(&interfaces);
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
        self.take(start, |socket, buffer| {
            let read = match socket {
                Hearing::Frames(socket) => socket.poll_recv(context, buffer).map_ok(Heard::Frame),
                Hearing::Port(socket) => socket.poll_recv(context, buffer).map_ok(Heard::Datagram),
            };
            match read {
                Poll::Ready(read) => {
                    took = Poll::Ready(());
                    Some(read)
                }
                Poll::Pending => None,
            }
        });
        took
    }

    /// Takes what has come.
    pub(super) fn drain(&mut self, start: Instant) {
        self.take(start, |socket, buffer| {
            let read = match socket {
                Hearing::Frames(socket) => socket.try_recv(buffer).map(Heard::Frame),
                Hearing::Port(socket) => socket.try_recv(buffer).map(Heard::Datagram),
            };
            let nothing = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
            (!read.as_ref().is_err_and(nothing)).then_some(read)
        });
    }

    /// Reads each socket with `read` until that gives nothing.
    fn take(
        &mut self,
        start: Instant,
        mut read: impl FnMut(Hearing<'_>, &mut [u8]) -> Option<io::Result<Heard>>,
    ) {
        let Self { buffer, .. } = self;
        let mut inbox = Inbox {
            sessions: &mut self.sessions,
            counts: &self.counts,
            vrf: self.vrf.as_deref().unwrap_or("default"),
            met: &mut self.met,
            forwards: self.frames.kernel_forwards(),
        };
        // Frames first: they tell where neighbours are, and the control packets in them, which
        // come to the ports as well, may begin echo.
        for (interface, socket) in self.frames.iter() {
            for _ in 0..BATCH {
                let Some(heard) = read(Hearing::Frames(socket), buffer) else {
                    break;
                };
                inbox.frame(start.elapsed(), interface, buffer, heard);
            }
        }
        for (listener, socket) in &self.listeners {
            for _ in 0..BATCH {
                let Some(heard) = read(Hearing::Port(socket), buffer) else {
                    break;
                };
                inbox.datagram(start.elapsed(), listener.port, buffer, heard);
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
        let mut moved = false;
        for (key, interface) in self.met.drain(..) {
            if let Some(held) = self.held.get_mut(&key)
                && held.interface != Some(interface)
            {
                held.interface = Some(interface);
                moved = true;
            }
        }
        if moved {
            self.look();
        }
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
        let peer = key.peer.to_string();
        let sent = match payload {
            Transmit::Control(bytes) => self.send_control(key, bytes),
            Transmit::Echo(bytes) => self.send_echo(key, bytes, TTL),
            Transmit::Reflected(bytes) => self.send_echo(key, bytes, TTL - 1),
            Transmit::Frame { interface, frame } => self
                .frames
                .send(*interface, frame)
                .map_err(|error| error.to_string()),
        };
        let labels = [peer.as_str(), self.vrf.as_deref().unwrap_or("default")];
        let Some(held) = self.held.get_mut(key) else {
            return;
        };
        match sent {
            Ok(()) => {
                let count = match payload {
                    Transmit::Control(_) => &self.counts.control_out,
                    _ => &self.counts.echo_out,
                };
                count.with_label_values(&labels).inc();
                held.told = None;
            }
            Err(why) if held.told.as_ref() != Some(&why) => {
                tracing::warn!(peer, why, "a BFD packet cannot be sent");
                held.told = Some(why);
            }
            Err(_) => {}
        }
    }

    fn send_control(&mut self, key: &Key, bytes: &[u8]) -> Result<(), String> {
        let vrf = self.vrf.as_deref();
        let Some(held) = self.held.get_mut(key) else {
            return Ok(());
        };
        let port = if key.multihop {
            MULTIHOP_PORT
        } else {
            CONTROL_PORT
        };
        let open = match held.socket.take() {
            Some(open) => open,
            None => source(key, vrf).map_err(|e| crate::cli::chain(&e))?,
        };
        let sent = open.send(bytes, address(key.peer, port, key.interface));
        // Otherwise our address may have gone: bound anew the next time.
        let kept = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        if sent.as_ref().map_or_else(kept, |()| true) {
            held.socket = Some(open);
        }
        sent.map_err(|error| error.to_string())
    }

    /// From the echo port, so that a daemon that sends it back finds it there.
    fn send_echo(&self, key: &Key, bytes: &[u8], ttl: u8) -> Result<(), String> {
        let (v6, port) = (key.peer.is_ipv6(), ECHO_PORT);
        let Some(socket) = self.listeners.get(&Listener { v6, port }) else {
            return Err("the port of echo packets is not open".to_owned());
        };
        let to = address(key.peer, port, key.interface);
        let sent = socket.set_ttl(ttl).and_then(|()| socket.send(bytes, to));
        sent.map_err(|error| error.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5881 §4: each session has a port of its own, from the upper range.
    #[test]
    fn every_session_has_its_source_port() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("runtime");
        let _entered = runtime.enter();
        let key = Key {
            peer: "127.0.0.2".parse().expect("address"),
            local: Some("127.0.0.1".parse().expect("address")),
            interface: None,
            multihop: false,
        };
        let sockets: Vec<Datagrams> = (0..8)
            .map(|_| source(&key, None).expect("a socket"))
            .collect();
        let at = |socket: &Datagrams| socket.local_addr().expect("bound");
        let mut ports: Vec<u16> = sockets.iter().map(|socket| at(socket).port()).collect();
        assert!(ports.iter().all(|port| SOURCE_PORTS.contains(port)));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), sockets.len());
    }
}
