//! All sessions of a node, or of one VRF of it: who a datagram is for.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use super::frame::{self, Frame, Link};
use super::{
    CONTROL_PORT, Change, Counters, ECHO_PORT, Echo, Error, Packet, Session, Settings, TTL,
    Transmit,
};
use crate::ethernet::Header;

/// Whom a session is with. Sessions over one hop and over several are apart, as their ports are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The neighbour's address.
    pub peer: IpAddr,
    /// Our address; `None`: whichever the neighbour talks to.
    pub local: Option<IpAddr>,
    /// Index of the interface; link-local neighbours need it. `None`: any.
    pub interface: Option<u32>,
    /// Over several hops.
    pub multihop: bool,
}

/// How a datagram came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Source address.
    pub from: IpAddr,
    /// Destination address.
    pub to: IpAddr,
    /// Index of the interface.
    pub interface: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    /// It came to the port of sessions over several hops.
    pub multihop: bool,
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The session.
    pub key: Key,
    /// What.
    pub payload: Transmit,
}

/// The sessions. The rules of calls are those of [`Session`].
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    sessions: BTreeMap<Key, Session>,
    by_discriminator: BTreeMap<NonZeroU32, Key>,
    /// Of neighbours of IPv4 whose frames were seen: over these links echo packets go.
    links: BTreeMap<Key, Link>,
    random: u64,
    reflected: VecDeque<Sent>,
    counters: Counters,
}

impl Sessions {
    /// None yet. Discriminators, jitter and the tokens of echo packets come from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            random: seed,
            ..Self::default()
        }
    }

    /// Begins a session, or gives it other settings.
    pub fn set(&mut self, now: Duration, key: Key, settings: Settings) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.configure(now, settings);
            return;
        }
        let mine = loop {
            let random = (crate::random::next(&mut self.random) >> 32) as u32;
            match NonZeroU32::new(random) {
                Some(mine) if !self.by_discriminator.contains_key(&mine) => break mine,
                _ => {}
            }
        };
        let seed = crate::random::next(&mut self.random);
        self.by_discriminator.insert(mine, key.clone());
        let mut session = Session::new(now, mine, settings, seed);
        // Over IPv4 the neighbour's link-layer address has to be known first.
        session.set_looped(now, key.peer.is_ipv6());
        self.sessions.insert(key, session);
    }

    /// Forgets a session without a word: hold it down first where the neighbour should know.
    pub fn remove(&mut self, key: &Key) {
        self.links.remove(key);
        if let Some(session) = self.sessions.remove(key) {
            self.by_discriminator.remove(&session.discriminator());
        }
    }

    /// [`Session::set_admin_down`].
    pub fn set_admin_down(&mut self, now: Duration, key: &Key, down: bool) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.set_admin_down(now, down);
        }
    }

    /// A session.
    pub fn get(&self, key: &Key) -> Option<&Session> {
        self.sessions.get(key)
    }

    /// All sessions.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Session)> {
        self.sessions.iter()
    }

    /// Takes a datagram of one of the control ports. An error is for the log; nothing was changed
    /// but the counters.
    pub fn on_control(
        &mut self,
        now: Duration,
        arrival: &Arrival,
        payload: &[u8],
    ) -> Result<Key, Error> {
        let taken = self.take(now, arrival, payload);
        match &taken {
            Ok(_) => self.counters.accepted += 1,
            Err(error) => self.counters.note(error),
        }
        taken
    }

    fn take(&mut self, now: Duration, arrival: &Arrival, payload: &[u8]) -> Result<Key, Error> {
        let from = arrival.from;
        let packet = Packet::parse(payload)?;
        let key = match NonZeroU32::new(packet.yours) {
            Some(yours) => {
                let known = self.by_discriminator.get(&yours);
                let key = known.ok_or(Error::UnknownDiscriminator {
                    from,
                    yours: packet.yours,
                })?;
                if !matches(key, arrival) {
                    return Err(Error::OtherSession { from });
                }
                key
            }
            None => self.find(arrival).ok_or(Error::Stranger { from })?,
        };
        let key = key.clone();
        let session = self.sessions.get_mut(&key);
        let session = session.ok_or(Error::Stranger { from })?;
        let least = session.settings().hops.least_ttl();
        if arrival.ttl < least {
            return Err(Error::Ttl {
                from,
                ttl: arrival.ttl,
                least,
            });
        }
        session.on_packet(now, &packet)?;
        Ok(key)
    }

    /// Takes a datagram of the echo port: one of ours that came back, or one of a neighbour's to
    /// be sent back.
    pub fn on_echo(
        &mut self,
        now: Duration,
        arrival: &Arrival,
        payload: &[u8],
    ) -> Result<(), Error> {
        if let Some(echo) = Echo::parse(payload)
            && let Some(key) = self.by_discriminator.get(&echo.discriminator)
            && let Some(session) = self.sessions.get_mut(key)
            && session.on_echo(now, &echo)
        {
            self.counters.echoes += 1;
            return Ok(());
        }
        let single = Arrival {
            multihop: false,
            ..*arrival
        };
        // Only for a neighbour that was told that it may, and only what comes from its link.
        let neighbour = self.find(&single).filter(|key| {
            let session = self.sessions.get(*key);
            session.is_some_and(Session::reflects)
        });
        let (Some(key), TTL) = (neighbour, arrival.ttl) else {
            let error = Error::Echo {
                from: arrival.from,
                ttl: arrival.ttl,
            };
            self.counters.note(&error);
            return Err(error);
        };
        let key = key.clone();
        self.counters.reflected += 1;
        self.reflected.push_back(Sent {
            key,
            payload: Transmit::Reflected(payload.to_vec()),
        });
        Ok(())
    }

    /// Takes a frame of IPv4 with BFD in it, as an interface of sessions with echo received it.
    /// Control packets tell where the neighbour is; those and what else is addressed to this host
    /// come to its sockets as well. Echo packets of ours that came back give the session's key;
    /// those of a neighbour go back unless this host's kernel forwards packets, and so has done it.
    pub fn on_frame(
        &mut self,
        now: Duration,
        interface: u32,
        kernel_forwards: bool,
        bytes: &[u8],
    ) -> Option<Key> {
        let frame = Frame::parse(bytes)?;
        match frame.port {
            CONTROL_PORT if frame.ttl == TTL => {
                self.learn(now, interface, &frame);
                None
            }
            ECHO_PORT if frame.from == frame.to => {
                let ours = self.on_own(now, interface, &frame);
                if ours.is_none() && frame.ttl == TTL && !kernel_forwards {
                    self.send_back(interface, &frame, bytes);
                }
                ours
            }
            _ => None,
        }
    }

    fn learn(&mut self, now: Duration, interface: u32, frame: &Frame<'_>) {
        let arrival = Arrival {
            from: frame.from.into(),
            to: frame.to.into(),
            interface,
            ttl: frame.ttl,
            multihop: false,
        };
        let Header {
            destination: ours,
            source: theirs,
            ..
        } = frame.header;
        if !ours.is_unicast() || !theirs.is_unicast() {
            return;
        }
        let Some(key) = self.find(&arrival).cloned() else {
            return;
        };
        let link = Link {
            interface,
            own: frame.to,
            ours,
            theirs,
        };
        if let Some(session) = self.sessions.get_mut(&key)
            && self.links.insert(key, link).is_none()
        {
            session.set_looped(now, true);
        }
    }

    fn on_own(&mut self, now: Duration, interface: u32, frame: &Frame<'_>) -> Option<Key> {
        let echo = Echo::parse(frame.payload)?;
        let key = self.by_discriminator.get(&echo.discriminator)?;
        if self.links.get(key)?.interface != interface {
            return None;
        }
        let ours = self.sessions.get_mut(key)?.on_echo(now, &echo);
        self.counters.echoes += u64::from(ours);
        ours.then(|| key.clone())
    }

    fn send_back(&mut self, interface: u32, frame: &Frame<'_>, bytes: &[u8]) {
        let theirs = frame.header.source;
        let known = self.links.iter().find(|(key, link)| {
            key.peer == IpAddr::V4(frame.from)
                && (link.interface, link.theirs) == (interface, theirs)
                && self.sessions.get(key).is_some_and(Session::reflects)
        });
        if let Some((key, _)) = known
            && let Some(frame) = frame::returned(bytes)
        {
            self.counters.reflected += 1;
            self.reflected.push_back(Sent {
                key: key.clone(),
                payload: Transmit::Frame { interface, frame },
            });
        }
    }

    /// When to call [`Self::on_timeout`].
    pub fn poll_timeout(&self) -> Option<Duration> {
        let each = self.sessions.values();
        each.filter_map(Session::poll_timeout).min()
    }

    /// Declares failures and sends what is due.
    pub fn on_timeout(&mut self, now: Duration) {
        for session in self.sessions.values_mut() {
            if session.poll_timeout().is_some_and(|due| due <= now) {
                session.on_timeout(now);
            }
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Sent> {
        if let Some(sent) = self.reflected.pop_front() {
            return Some(sent);
        }
        let links = &self.links;
        self.sessions.iter_mut().find_map(|(key, session)| {
            let payload = match (session.poll_transmit()?, links.get(key)) {
                (Transmit::Echo(payload), Some(link)) => Transmit::Frame {
                    interface: link.interface,
                    frame: frame::echo(link, &payload),
                },
                (payload, _) => payload,
            };
            let key = key.clone();
            Some(Sent { key, payload })
        })
    }

    /// The next change of state.
    pub fn poll_event(&mut self) -> Option<(Key, Change)> {
        let mut each = self.sessions.iter_mut();
        each.find_map(|(key, session)| Some((key.clone(), session.poll_event()?)))
    }

    /// Counts since the start.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The session that a packet without discriminator is for; of several the narrowest.
    fn find(&self, arrival: &Arrival) -> Option<&Key> {
        let first = Key {
            peer: arrival.from,
            local: None,
            interface: None,
            multihop: false,
        };
        self.sessions
            .range(first..)
            .map(|(key, _)| key)
            .take_while(|key| key.peer == arrival.from)
            .filter(|key| matches(key, arrival))
            .max_by_key(|key| (key.interface.is_some(), key.local.is_some()))
    }
}

fn matches(key: &Key, arrival: &Arrival) -> bool {
    key.peer == arrival.from
        && key.multihop == arrival.multihop
        && key.local.is_none_or(|local| local == arrival.to)
        && key.interface.is_none_or(|index| index == arrival.interface)
}
