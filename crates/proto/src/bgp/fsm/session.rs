//! What happens on connections: OPEN, collision, Established, the end.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        Capability, Family, Framer, Message, Negotiated, Notification, Open, Refresh, Update,
        keepalive,
        notification::{cease, code},
        role,
    },
    Cause, Config, Connection, ConnectionId, OPEN_HOLD, OPEN_WARNING, Output, Peer, Phase, Reset,
    STABLE, Stop,
};

/// So many sessions that end soon without a word are no chance.
const OFTEN: u32 = 3;

/// The last message on a connection that we stop.
pub(super) fn farewell(
    connection: &Connection,
    config: &Config,
    stop: &Stop,
) -> Option<Notification> {
    let negotiated = connection.negotiated.as_deref();
    let established = connection.phase == Phase::Established;
    let graceful = negotiated.is_some_and(|it| restarts_gracefully(it, config));
    let plain = match stop {
        // Without a word, so that the peer keeps the routes (RFC 4724 §4).
        Stop::Restart if established && graceful => return None,
        Stop::Restart => Notification::cease(cease::SHUTDOWN, "restart"),
        Stop::Drain { text } => Notification::cease(cease::SHUTDOWN, text),
        Stop::Removed => Notification::new(code::CEASE, cease::DECONFIGURED),
    };
    let keeps = negotiated.is_some_and(|it| it.notification_keeps(config.graceful.is_some()));
    Some(if keeps { plain.hard() } else { plain })
}

pub(super) fn reset_notification(reset: &Reset) -> Option<Notification> {
    Some(match reset {
        Reset::Administrative { text } => Notification::cease(cease::RESET, text),
        Reset::BfdDown => Notification::new(code::CEASE, cease::BFD_DOWN),
        Reset::MaxPrefixes { .. } => Notification::new(code::CEASE, cease::MAX_PREFIXES),
        Reset::LinkDown => return None,
    })
}

/// Whether the peer keeps our routes over a restart of ours: it knows how to, and we have asked; one
/// who only helps asks nobody to keep anything.
fn restarts_gracefully(negotiated: &Negotiated, config: &Config) -> bool {
    let asked = config.graceful.is_some_and(|it| !it.families.is_empty());
    asked && negotiated.graceful.is_some()
}

/// Whether the peer's routes may outlive the session (RFC 4724 §4.2, RFC 8538 §4).
fn keeps(cause: &Cause, negotiated: &Negotiated, config: &Config) -> bool {
    let both = negotiated.notification_keeps(config.graceful.is_some());
    match cause {
        Cause::Closed(_) | Cause::Restarted | Cause::Reset(Reset::LinkDown) => true,
        Cause::Received(notification) => both && !notification.is_hard(),
        Cause::Reset(Reset::MaxPrefixes { .. }) | Cause::Stopped(_) => false,
        _ => both,
    }
}

impl Peer {
    pub(super) fn open(&mut self, now: Duration, id: ConnectionId, dialled: bool) {
        self.retry = None;
        let mut framer = Framer::default();
        // Our OPEN offers it, so we must be able to take it (RFC 8654 §4).
        framer.allow_extended();
        self.connections.push(Connection {
            id,
            dialled,
            phase: Phase::OpenSent,
            framer,
            negotiated: None,
            hold: Some(now + OPEN_HOLD),
            warn: Some(now + OPEN_WARNING),
            keepalive: None,
            send_hold: None,
            established: None,
        });
        let mut bytes = Vec::new();
        self.config.open().encode(&mut bytes);
        self.send(now, id, bytes);
    }

    pub(super) fn send(&mut self, now: Duration, id: ConnectionId, bytes: Vec<u8>) {
        self.outputs.push_back(Output::Send(id, bytes));
        self.queued(now, id);
    }

    /// Between KEEPALIVEs, jittered; `None`: none are sent.
    pub(super) fn keepalive_interval(&mut self, id: ConnectionId) -> Option<Duration> {
        let wanted = self.config.keepalive_time;
        let negotiated = self.connection(id)?.negotiated.as_ref()?;
        let third = negotiated.hold_time / 3;
        if third.is_zero() {
            return None;
        }
        let interval = wanted
            .filter(|it| !it.is_zero())
            .map_or(third, |it| it.min(third));
        Some(self.jitter(interval))
    }

    pub(super) fn message(&mut self, now: Duration, at: usize, message: Message) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        self.heard.add(message.kind());
        let id = connection.id;
        if connection.phase > Phase::OpenSent {
            let hold = connection.hold_time();
            connection.hold = (!hold.is_zero()).then(|| now + hold);
        }
        match (connection.phase, message) {
            (_, Message::Notification(notification)) => {
                self.fail(now, at, None, Cause::Received(notification));
            }
            (Phase::OpenSent, Message::Open(open)) => self.opened(now, id, &open),
            (Phase::OpenConfirm, Message::Keepalive) => self.establish(now, id),
            (Phase::Established, Message::Keepalive) => {}
            (Phase::Established, Message::Update(update)) => self.update(update),
            (Phase::Established, Message::RouteRefresh(refresh)) => self.refresh(refresh),
            (phase, other) => {
                // RFC 6608: the subcode names the state.
                let subcode = match phase {
                    Phase::OpenSent => 1,
                    Phase::OpenConfirm => 2,
                    Phase::Established => 3,
                };
                let notification = Notification {
                    data: vec![other.kind() as u8],
                    ..Notification::new(code::FSM, subcode)
                };
                let kind = other.kind();
                let cause = Cause::Unexpected { kind, phase };
                self.fail(now, at, Some(notification), cause);
            }
        }
    }

    fn update(&mut self, update: Box<Update>) {
        for family in update.disabled.iter() {
            self.outputs
                .push_back(Output::Learned(super::Learned::Forget(family)));
        }
        let ended = update.end_of_rib;
        self.outputs.push_back(Output::Update(update));
        if let Some(family) = ended {
            self.learned(|stale| stale.end_of_rib(family).into_iter().collect());
        }
    }

    fn refresh(&mut self, refresh: Refresh) {
        let session = self.session();
        let family = Family::of(refresh.family)
            .filter(|family| session.is_some_and(|it| it.codec.families.contains(*family)));
        // Others are ignored (RFC 2918 §4).
        if let Some(family) = family {
            self.outputs
                .push_back(Output::Refresh(family, refresh.kind));
        }
    }

    fn opened(&mut self, now: Duration, id: ConnectionId, theirs: &Open) {
        let negotiated = match self.negotiate(theirs) {
            Ok(negotiated) => negotiated,
            Err((notification, cause)) => {
                if let Some(at) = self.position(|it| it.id == id) {
                    self.fail(now, at, Some(notification), cause);
                }
                return;
            }
        };
        if !self.survives_collision(now, id, &negotiated) {
            return;
        }
        // This attempt has won before it has begun.
        self.cancel_dial();
        let hold = negotiated.hold_time;
        if let Some(connection) = self.connection(id) {
            connection.phase = Phase::OpenConfirm;
            connection.negotiated = Some(Arc::new(negotiated));
            // Without hold time too: the KEEPALIVE that follows must come.
            let wait = if hold.is_zero() { OPEN_HOLD } else { hold };
            connection.hold = Some(now + wait);
            connection.warn = None;
            connection.send_hold = None;
        }
        let mut bytes = Vec::new();
        keepalive(&mut bytes);
        self.send(now, id, bytes);
    }

    fn negotiate(&self, theirs: &Open) -> Result<Negotiated, (Notification, Cause)> {
        let config = &self.config;
        if !config.remote_as.accepts(config.local_as, theirs.asn) {
            let cause = Cause::WrongAs {
                expected: config.remote_as,
                got: theirs.asn,
            };
            return Err((Notification::new(code::OPEN, 2), cause));
        }
        // RFC 6286 §2.2: only within an AS must it be another.
        if theirs.identifier == config.router_id && theirs.asn == config.local_as {
            return Err((Notification::new(code::OPEN, 3), Cause::OwnIdentifier));
        }
        if let Some(ours) = config.role {
            role::check(ours, theirs).map_err(|mismatch| {
                let notification = Notification::new(code::OPEN, 11);
                (notification, Cause::Role(mismatch))
            })?;
        }
        let ours = config.open();
        if ours.families().and(theirs.families()).is_empty() {
            let mut notification = Notification::new(code::OPEN, 7);
            // The data is what we would have needed (RFC 5492 §5).
            let needed = ours.capabilities.iter();
            for capability in needed.filter(|it| matches!(it, Capability::Multiprotocol(_))) {
                capability.encode(&mut notification.data);
            }
            let cause = Cause::NoCommonFamily {
                ours: ours.families(),
                theirs: theirs.families(),
            };
            return Err((notification, cause));
        }
        Ok(Negotiated::new(&ours, theirs, config.disable_families))
    }

    /// RFC 4271 §6.8: of two connections the one lives that the greater identifier has opened; with
    /// equal ones, that of the greater AS (RFC 6286 §2.3). As in FRR, one in OpenSent takes part:
    /// a configured peer's identifier is the same on both.
    fn survives_collision(&mut self, now: Duration, id: ConnectionId, terms: &Negotiated) -> bool {
        let Some(other) = self.position(|it| it.id != id) else {
            return true;
        };
        let established = |it: &Connection| it.phase == Phase::Established;
        let ours = (terms.local_id, terms.local_as) > (terms.remote_id, terms.remote_as);
        let dialled = self.connection(id).is_some_and(|it| it.dialled);
        let lives = !self.connections.get(other).is_some_and(established) && dialled == ours;
        let loser = if lives {
            Some(other)
        } else {
            self.position(|it| it.id == id)
        };
        if let Some(at) = loser {
            self.drop_collided(now, at);
        }
        lives
    }

    fn drop_collided(&mut self, now: Duration, at: usize) {
        let loser = self.connections.remove(at);
        let mut bytes = Vec::new();
        Notification::new(code::CEASE, cease::COLLISION).encode(&mut bytes);
        self.send(now, loser.id, bytes);
        self.outputs.push_back(Output::Close(loser.id));
    }

    fn establish(&mut self, now: Duration, id: ConnectionId) {
        while let Some(at) = self.position(|it| it.id != id) {
            self.drop_collided(now, at);
        }
        self.cancel_dial();
        let Some(connection) = self.connection(id) else {
            return;
        };
        connection.phase = Phase::Established;
        connection.established = Some(now);
        let Some(negotiated) = connection.negotiated.clone() else {
            return;
        };
        self.outputs
            .push_back(Output::Up(id, Arc::clone(&negotiated)));
        let limit = self.config.graceful.map_or(OPEN_HOLD, |it| it.stale_time);
        self.learned(|stale| stale.up(now, &negotiated, limit));
        // The restart is over with this session.
        if let Some(graceful) = &mut self.config.graceful {
            graceful.restarting = false;
        }
    }

    /// Ends a connection and waits for the next.
    pub(super) fn fail(
        &mut self,
        now: Duration,
        at: usize,
        notification: Option<Notification>,
        cause: Cause,
    ) {
        if at >= self.connections.len() {
            return;
        }
        let connection = self.connections.remove(at);
        // Errors of content wait in Idle; a lost connection is opened again, and accepted.
        let lost = matches!(cause, Cause::Closed(_) | Cause::HoldTimer { .. })
            || matches!(&cause, Cause::Received(it) if it.code == code::CEASE);
        self.end(now, connection, notification, cause, true);
        if !self.connections.is_empty() || self.dial.is_some() {
            return;
        }
        if lost {
            self.wait_retry(now);
        } else {
            let wait = self.backoff();
            self.wait_idle(now, wait);
        }
    }

    /// Says goodbye and tells of it.
    pub(super) fn end(
        &mut self,
        now: Duration,
        connection: Connection,
        notification: Option<Notification>,
        cause: Cause,
        again: bool,
    ) {
        if let Some(notification) = notification {
            let mut bytes = Vec::new();
            notification.encode(&mut bytes);
            self.outputs.push_back(Output::Send(connection.id, bytes));
        }
        self.outputs.push_back(Output::Close(connection.id));
        let established = connection.established.zip(connection.negotiated);
        let Some((since, negotiated)) = established else {
            // A collision's loser is no trouble while the winner is there.
            if again && self.connections.is_empty() {
                self.outputs.push_back(Output::Trouble(cause));
            }
            return;
        };
        let keep = keeps(&cause, &negotiated, &self.config);
        let graceful = self.config.graceful;
        let away = graceful.filter(|_| {
            let restart = cause == Cause::Stopped(Stop::Restart);
            restart && restarts_gracefully(&negotiated, &self.config)
        });
        let cut = matches!(cause, Cause::Closed(_));
        if now.saturating_sub(since) >= STABLE {
            self.failures = 0;
            self.cut_short = 0;
        } else if cut {
            self.cut_short += 1;
        }
        let cause = match self.cut_short {
            times if cut && times >= OFTEN => Cause::CutShort { times },
            _ => cause,
        };
        self.outputs.push_back(Output::Down(cause));
        self.learned(|stale| match away {
            Some(ours) => stale.reopen(
                now,
                &negotiated,
                Duration::from_secs(ours.restart_time.into()),
            ),
            None => stale.down(now, &negotiated, keep),
        });
    }

    pub(super) fn connection_timer(&mut self, now: Duration, id: ConnectionId) {
        let Some(at) = self.position(|it| it.id == id) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let due = |deadline: Option<Duration>| deadline.is_some_and(|deadline| deadline <= now);
        if due(connection.warn) {
            connection.warn = None;
            let cause = Cause::NoOpen {
                after: OPEN_WARNING,
                minimum_ttl: self.config.minimum_ttl,
            };
            self.outputs.push_back(Output::Trouble(cause));
            return;
        }
        if due(connection.send_hold) {
            let after = connection.send_hold_time().unwrap_or_default();
            let notification = Notification::new(code::SEND_HOLD_TIMER, 0);
            self.fail(now, at, Some(notification), Cause::SendHoldTimer { after });
        } else if due(connection.hold) {
            let after = connection.hold_time();
            let cause = match connection.phase {
                Phase::OpenSent => Cause::NoOpen {
                    after,
                    minimum_ttl: self.config.minimum_ttl,
                },
                _ => Cause::HoldTimer { after },
            };
            let notification = Notification::new(code::HOLD_TIMER, 0);
            self.fail(now, at, Some(notification), cause);
        } else if due(connection.keepalive) {
            let mut bytes = Vec::new();
            keepalive(&mut bytes);
            self.send(now, id, bytes);
        }
    }
}
