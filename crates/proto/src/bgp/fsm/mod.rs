//! One peer's state machine (RFC 4271 §8), sans-IO.
//!
//! [`Peer`] owns the states of up to two connections (§6.8), the timers, and what is known of a
//! restarting peer's routes. The caller owns sockets and clock:
//!
//! ```text
//!  start stop reset            ┌──────┐  Dial Send Close      to sockets
//!  dialled dial_failed accept  │ Peer │  Up Down Trouble      to status
//!  received closed written ───►│      ├► Update Refresh       to Adj-RIB-In and -Out
//!  timer                       └──────┘  Learned              to Adj-RIB-In
//! ```
//! After every input, take outputs with [`Peer::poll`] until there are none, and call
//! [`Peer::timer`] at [`Peer::deadline`]. Not here: DelayOpen (nobody needs it), routes, and the
//! wait for BFD.

mod cause;
mod config;
mod connection;
mod session;
mod stale;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc, time::Duration};

pub use cause::{Cause, DialError, Reset, Stop};
pub use config::{Config, Graceful, RemoteAs};
pub use connection::{ConnectionId, Phase, State};

use self::{connection::Connection, stale::Stale};
use super::{Codec, Family, Messages, Negotiated, RefreshKind, Update};

/// Hold time until the peer's OPEN says another (RFC 4271 §8.2.2 suggests 4 minutes).
const OPEN_HOLD: Duration = Duration::from_secs(240);
/// Silence after our OPEN that is worth a word (traps of GTSM).
const OPEN_WARNING: Duration = Duration::from_secs(5);
/// Silence after our SYN that is worth a word: long enough for an answer to its first repetition,
/// which the kernel sends after a second.
const DIAL_WARNING: Duration = Duration::from_millis(2500);
/// First wait after a failure; it doubles with each.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// A session that lived so long forgives the failures before it.
const STABLE: Duration = Duration::from_secs(30);
/// While another speaker of this node has a session with the peer, this long between two looks.
const STANDBY: Duration = Duration::from_secs(2);

/// What happens to learned routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// All of the family go.
    Forget(Family),
    /// All of the family are stale: the peer restarts.
    Stale(Family),
    /// Those of the family that are stale become the last choice (RFC 9494).
    LongLivedStale(Family),
    /// Those of the family that are still stale go.
    ForgetStale(Family),
}

/// What the caller has to do, or wants to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Open a connection, and answer with [`Peer::dialled`] or [`Peer::dial_failed`].
    Dial(ConnectionId),
    /// Send these bytes.
    Send(ConnectionId, Vec<u8>),
    /// Send what is waiting, if it goes at once, and close. It may be an attempt to connect.
    Close(ConnectionId),
    /// The session is there.
    Up(ConnectionId, Arc<Negotiated>),
    /// The session is gone.
    Down(Cause),
    /// A session could not be had. It is tried again.
    Trouble(Cause),
    /// Routes.
    Update(Box<Update>),
    /// A message of RFC 2918 or RFC 7313 for a family of the session.
    Refresh(Family, RefreshKind),
    /// Of a restarting peer.
    Learned(Learned),
}

/// The state machine.
#[derive(Debug)]
pub struct Peer {
    config: Config,
    random: u64,
    running: bool,
    next_id: u64,
    dial: Option<Dial>,
    /// When the next attempt begins.
    retry: Option<Duration>,
    /// Idle until then, after an error: nothing is accepted.
    idle: Option<Duration>,
    /// Attempts in a row that brought no stable session.
    failures: u32,
    /// Sessions in a row that the peer ended without a word soon after they came up.
    cut_short: u32,
    connections: Vec<Connection>,
    stale: Stale,
    heard: Messages,
    outputs: VecDeque<Output>,
}

/// An attempt to connect.
#[derive(Clone, Copy, Debug)]
struct Dial {
    id: ConnectionId,
    /// When it is given up.
    until: Duration,
    /// When silence is worth a word.
    warn: Option<Duration>,
}

impl Peer {
    /// Stopped. `seed`: of the jitter.
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            random: seed,
            running: false,
            next_id: 0,
            dial: None,
            retry: None,
            idle: None,
            failures: 0,
            cut_short: 0,
            connections: Vec::new(),
            stale: Stale::default(),
            heard: Messages::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the next OPEN says of our restart.
    pub fn set_graceful(&mut self, graceful: Option<Graceful>) {
        self.config.graceful = graceful;
    }

    /// Takes over what an open session need not end for: the longest wait between attempts, that
    /// between KEEPALIVEs, and the TTL demanded.
    pub fn retune(&mut self, now: Duration, settings: &Config) {
        self.config.connect_retry = settings.connect_retry;
        self.config.keepalive_time = settings.keepalive_time;
        self.config.minimum_ttl = settings.minimum_ttl;
        // What was set by the old times comes no later than by the new ones.
        let longest = now + self.jitter(settings.connect_retry.max(FIRST_RETRY));
        self.retry = self.retry.map(|retry| retry.min(longest));
        let ids: Vec<ConnectionId> = self.connections.iter().map(|it| it.id).collect();
        for id in ids {
            let interval = self.keepalive_interval(id);
            if let Some(connection) = self.connection(id)
                && let (Some(due), Some(interval)) = (connection.keepalive, interval)
            {
                connection.keepalive = Some(due.min(now + interval));
            }
        }
    }

    /// Of the best connection.
    pub fn state(&self) -> State {
        match self.connections.iter().map(|it| it.phase).max() {
            Some(phase) => phase.into(),
            None if self.dial.is_some() => State::Connect,
            None if self.running && self.idle.is_none() => State::Active,
            None => State::Idle,
        }
    }

    /// Terms of the session, if there is one.
    pub fn session(&self) -> Option<&Arc<Negotiated>> {
        let established = |it: &&Connection| it.phase == Phase::Established;
        let connection = self.connections.iter().find(established)?;
        connection.negotiated.as_ref()
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The messages that came since this was last asked.
    pub fn take_heard(&mut self) -> Messages {
        std::mem::take(&mut self.heard)
    }

    /// When [`Peer::timer`] is to be called, at the latest.
    pub fn deadline(&self) -> Option<Duration> {
        let dial = self.dial.map(|dial| dial.warn.unwrap_or(dial.until));
        let own = [dial, self.retry, self.idle];
        let stale = self.stale.deadline();
        let connections = self.connections.iter().flat_map(Connection::deadlines);
        own.into_iter()
            .flatten()
            .chain(stale)
            .chain(connections)
            .min()
    }

    /// Connects, and accepts.
    pub fn start(&mut self, now: Duration) {
        if !self.running {
            self.running = true;
            self.failures = 0;
            self.connect(now);
        }
    }

    /// [`Peer::start`] after a moment, in which the peer ends an earlier session with us: to one
    /// that has not, the new connection collides with it (RFC 4271 §6.8).
    pub fn start_later(&mut self, now: Duration) {
        if !self.running {
            self.running = true;
            self.failures = 0;
            let wait = self.backoff();
            self.wait_idle(now, wait);
        }
    }

    /// Something has changed that an attempt may succeed by: one that waits begins at once. After an
    /// error of the peer's it waits on.
    pub fn hurry(&mut self, now: Duration) {
        if self.retry.is_some() {
            self.connect(now);
        }
    }

    /// Ends everything, in the way of `stop`.
    pub fn stop(&mut self, now: Duration, stop: Stop) {
        if !self.running {
            return;
        }
        self.running = false;
        self.retry = None;
        self.idle = None;
        self.cancel_dial();
        while let Some(connection) = self.connections.pop() {
            let notification = session::farewell(&connection, &self.config, &stop);
            self.end(
                now,
                connection,
                notification,
                Cause::Stopped(stop.clone()),
                false,
            );
        }
        // As over a restart: see `renew`.
        if stop != Stop::Restart {
            self.learned(|stale| stale.clear());
        }
    }

    /// Takes other settings while it is stopped. Nothing of the past counts but the peer's routes
    /// that [`Stop::Restart`] lets stay: they go when the next session is not there within our
    /// restart time, when its peer does not know graceful restart any more, or with its End-of-RIB.
    pub fn renew(&mut self, config: Config) {
        if !self.running {
            self.config = config;
            self.failures = 0;
            self.cut_short = 0;
        }
    }

    /// Ends the session, and begins anew after a moment.
    pub fn reset(&mut self, now: Duration, reset: Reset) {
        if !self.running {
            return;
        }
        let notification = session::reset_notification(&reset);
        self.cancel_dial();
        while let Some(connection) = self.connections.pop() {
            let cause = Cause::Reset(reset.clone());
            self.end(now, connection, notification.clone(), cause, true);
        }
        if reset == Reset::LinkDown {
            return self.wait_retry(now);
        }
        let wait = self.backoff();
        self.wait_idle(now, wait);
    }

    /// Our attempt has led to a connection.
    pub fn dialled(&mut self, now: Duration, id: ConnectionId) {
        if self.dial.is_some_and(|dial| dial.id == id) {
            self.dial = None;
            self.open(now, id, true);
        }
    }

    /// Our attempt has failed.
    pub fn dial_failed(&mut self, now: Duration, id: ConnectionId, error: DialError) {
        if self.dial.is_some_and(|dial| dial.id == id) {
            self.dial = None;
            let occupied = matches!(error, DialError::Occupied { .. });
            let cause = match error {
                DialError::TimedOut => self.no_answer(),
                error => Cause::Dial(error),
            };
            self.outputs.push_back(Output::Trouble(cause));
            if occupied && self.connections.is_empty() {
                // Nothing was sent, so looking again costs the peer nothing.
                let wait = self.jitter(STANDBY);
                self.retry = Some(now + wait);
            } else {
                self.wait_retry(now);
            }
        }
    }

    fn no_answer(&self) -> Cause {
        Cause::NoAnswer {
            password: self.config.password,
            minimum_ttl: self.config.minimum_ttl,
        }
    }

    /// The peer has connected to us. `None`: close it.
    pub fn accept(&mut self, now: Duration) -> Option<ConnectionId> {
        if !self.running || self.idle.is_some() {
            return None;
        }
        if let Some(at) = self.position(|it| it.phase == Phase::Established) {
            // RFC 4724 §5: with graceful restart it means that the peer has lost the old one.
            let graceful = self.session().is_some_and(|it| it.graceful.is_some());
            if !graceful {
                return None;
            }
            let old = self.connections.remove(at);
            self.end(now, old, None, Cause::Restarted, true);
        }
        while let Some(at) = self.position(|it| !it.dialled) {
            // The peer has given up the one that it opened before.
            let old = self.connections.remove(at);
            self.outputs.push_back(Output::Close(old.id));
        }
        let id = self.new_id();
        self.open(now, id, false);
        Some(id)
    }

    /// Bytes have arrived.
    pub fn received(&mut self, now: Duration, id: ConnectionId, bytes: &[u8]) {
        if let Some(connection) = self.connection(id) {
            connection.framer.push(bytes);
        }
        // A message can end its connection.
        while let Some(at) = self.position(|it| it.id == id) {
            let Some(connection) = self.connections.get_mut(at) else {
                return;
            };
            let codec = connection.negotiated.as_ref().map(|it| it.codec);
            let message = match connection.framer.next() {
                Ok(None) => return,
                Ok(Some(bytes)) => {
                    super::Message::decode(bytes, &codec.unwrap_or_else(Codec::default))
                }
                Err(error) => Err(error),
            };
            match message {
                Ok(message) => self.message(now, at, message),
                Err(error) => {
                    let notification = error.notification();
                    self.fail(now, at, Some(notification), Cause::Malformed(error));
                }
            }
        }
    }

    /// The connection is closed.
    pub fn closed(&mut self, now: Duration, id: ConnectionId) {
        if self.dial.is_some_and(|dial| dial.id == id) {
            self.dial_failed(now, id, DialError::Other("closed".into()));
        } else if let Some(at) = self.position(|it| it.id == id) {
            let phase = self.connections.get(at).map(|it| it.phase);
            let cause = Cause::Closed(phase.unwrap_or(Phase::OpenSent));
            self.fail(now, at, None, cause);
        }
    }

    /// The caller has put messages of its own (UPDATE, ROUTE-REFRESH) on the way.
    pub fn queued(&mut self, now: Duration, id: ConnectionId) {
        let interval = self.keepalive_interval(id);
        if let Some(connection) = self.connection(id) {
            connection.keepalive = interval.map(|interval| now + interval);
            let limit = connection.send_hold_time().map(|limit| now + limit);
            connection.send_hold = connection.send_hold.or(limit);
        }
    }

    /// The kernel has taken bytes; `pending` are still waiting.
    pub fn written(&mut self, now: Duration, id: ConnectionId, pending: usize) {
        if let Some(connection) = self.connection(id) {
            let limit = connection.send_hold_time().filter(|_| pending > 0);
            connection.send_hold = limit.map(|limit| now + limit);
        }
    }

    /// Does what is due.
    pub fn timer(&mut self, now: Duration) {
        let due = |deadline: Option<Duration>| deadline.is_some_and(|deadline| deadline <= now);
        if let Some(dial) = self.dial
            && dial.until <= now
        {
            self.outputs.push_back(Output::Close(dial.id));
            self.dial_failed(now, dial.id, DialError::TimedOut);
        } else if self.dial.is_some_and(|dial| due(dial.warn)) {
            if let Some(dial) = &mut self.dial {
                dial.warn = None;
            }
            let cause = self.no_answer();
            self.outputs.push_back(Output::Trouble(cause));
        }
        if due(self.idle) {
            self.idle = None;
            self.connect(now);
        }
        if due(self.retry) {
            self.connect(now);
        }
        self.learned(|stale| stale.expire(now));
        let ids: Vec<ConnectionId> = self.connections.iter().map(|it| it.id).collect();
        for id in ids {
            self.connection_timer(now, id);
        }
    }

    fn position(&self, which: impl Fn(&Connection) -> bool) -> Option<usize> {
        self.connections.iter().position(which)
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|it| it.id == id)
    }

    fn new_id(&mut self) -> ConnectionId {
        self.next_id += 1;
        ConnectionId(self.next_id)
    }

    fn connect(&mut self, now: Duration) {
        self.retry = None;
        let busy = self.dial.is_some() || !self.connections.is_empty();
        if self.running && !self.config.passive && !busy {
            let id = self.new_id();
            let until = now + self.config.connect_timeout;
            let warn = Some(now + DIAL_WARNING).filter(|warn| *warn < until);
            self.dial = Some(Dial { id, until, warn });
            self.outputs.push_back(Output::Dial(id));
        }
    }

    fn cancel_dial(&mut self) {
        if let Some(dial) = self.dial.take() {
            self.outputs.push_back(Output::Close(dial.id));
        }
    }

    /// The next wait: doubled with each failure, up to the limit, and up to a quarter shorter
    /// (RFC 4271 §10).
    fn backoff(&mut self) -> Duration {
        let factor = 1 << self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let wait = (FIRST_RETRY * factor).min(self.config.connect_retry.max(FIRST_RETRY));
        self.jitter(wait)
    }

    fn jitter(&mut self, time: Duration) -> Duration {
        let share = (crate::random::next(&mut self.random) >> 48) as u32;
        time - time / 4 * share / 0x1_0000
    }

    /// After a failure to connect: wait, and accept meanwhile.
    fn wait_retry(&mut self, now: Duration) {
        if self.running && self.connections.is_empty() {
            let wait = self.backoff();
            self.retry = Some(now + wait);
        }
    }

    /// After an error: wait, and accept nothing.
    fn wait_idle(&mut self, now: Duration, wait: Duration) {
        self.retry = None;
        self.idle = Some(now + wait);
    }

    fn learned(&mut self, work: impl FnOnce(&mut Stale) -> Vec<Learned>) {
        let learned = work(&mut self.stale).into_iter().map(Output::Learned);
        self.outputs.extend(learned);
    }
}
