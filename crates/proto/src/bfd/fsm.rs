//! One session (RFC 5880 §6.8).

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use super::settings::micros;
use super::timers::{Intervals, SLOW, Timers};
use super::{Diagnostic, ECHO_LEN, Echo, Error, LEN, Packet, Settings, State};

/// What the neighbour last said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its discriminator.
    pub discriminator: NonZeroU32,
    /// Its state.
    pub state: State,
    /// Why it last left state Up.
    pub diagnostic: Diagnostic,
    /// It would like to send at this interval.
    pub desired_tx: Duration,
    /// It takes packets at this interval; zero: none.
    pub required_rx: Duration,
    /// It sends echo packets back at this interval; zero: none.
    pub required_echo_rx: Duration,
    /// Of its interval makes our detection time.
    pub multiplier: u8,
    /// Its BFD outlives its control plane: with graceful restart, only then does a failure during
    /// a restart end the restart (RFC 5882 §4.3).
    pub independent: bool,
    /// It wants no periodic packets while both sides are Up.
    pub demand: bool,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// Why.
    pub diagnostic: Diagnostic,
    /// What the neighbour had said when it happened.
    pub remote: Option<Remote>,
}

impl Change {
    /// Whether the path has failed: a session that was up went down, and neither side wanted it to
    /// (RFC 5882 §3.2 and §4.2).
    pub fn path_failed(&self) -> bool {
        let wanted = self
            .remote
            .is_some_and(|remote| remote.state == State::AdminDown)
            && self.diagnostic == Diagnostic::NEIGHBOUR_DOWN;
        self.from == State::Up && self.to == State::Down && !wanted
    }
}

/// The payload of a datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// To the control port, with TTL 255.
    Control([u8; LEN]),
    /// To the echo port, with TTL 255.
    Echo([u8; ECHO_LEN]),
    /// An echo packet that was addressed to us, back to the neighbour's echo port, with TTL 254.
    Reflected(Vec<u8>),
    /// A whole Ethernet frame.
    Frame {
        /// Index of the interface.
        interface: u32,
        /// Its bytes.
        frame: Vec<u8>,
    },
}

/// The echo function while it runs.
#[derive(Clone, Copy, Debug)]
struct Echoing {
    interval: Duration,
    next: Duration,
    /// When the last one came back, or the function began.
    back: Duration,
}

/// A session with one neighbour. Every call takes the time; none goes back in it.
///
/// After each call the caller drains [`Self::poll_transmit`] and [`Self::poll_event`].
#[derive(Clone, Debug)]
pub struct Session {
    settings: Settings,
    /// Echo packets have a way to the neighbour and back.
    looped: bool,
    mine: NonZeroU32,
    state: State,
    diagnostic: Diagnostic,
    remote: Option<Remote>,
    timers: Timers,
    /// When the last packet came.
    heard: Duration,
    /// When the last packet went out by schedule.
    sent: Option<Duration>,
    /// The interval that the schedule goes by, before jitter; `None`: none is due.
    pace: Option<Duration>,
    next: Option<Duration>,
    echoing: Option<Echoing>,
    token: u64,
    echoes: u64,
    random: u64,
    outbox: VecDeque<Transmit>,
    events: VecDeque<Change>,
}

impl Session {
    /// A session in state Down; unless it is passive its first packet is due at once. `mine` must
    /// be unique among the sessions of the node; `seed` is of the jitter and must be unguessable
    /// where echo is used.
    pub fn new(now: Duration, mine: NonZeroU32, settings: Settings, seed: u64) -> Self {
        let mut random = seed;
        let token = crate::random::next(&mut random);
        let mut session = Self {
            settings,
            looped: true,
            mine,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            remote: None,
            timers: Timers::new(Intervals {
                tx: settings.transmit.max(SLOW),
                rx: settings.receive,
            }),
            heard: now,
            sent: None,
            pace: None,
            next: None,
            echoing: None,
            token,
            echoes: 0,
            random,
            outbox: VecDeque::new(),
            events: VecDeque::new(),
        };
        session.keep_pace(now);
        session
    }

    /// Its discriminator.
    pub const fn discriminator(&self) -> NonZeroU32 {
        self.mine
    }

    /// Its state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Why it last changed its state.
    pub const fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// Its settings.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is known of the neighbour, while it is heard.
    pub const fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    /// How long the neighbour may be silent (§6.8.4), while it is heard.
    pub fn detection_time(&self) -> Option<Duration> {
        let remote = self.remote?;
        Some(remote.desired_tx.max(self.timers.held().rx) * u32::from(remote.multiplier))
    }

    /// The interval that packets are sent at, before jitter; `None`: none are due.
    pub const fn transmit_interval(&self) -> Option<Duration> {
        self.pace
    }

    /// The interval of echo packets, while they are sent.
    pub fn echo_interval(&self) -> Option<Duration> {
        self.echoing.map(|echoing| echoing.interval)
    }

    /// Whether the neighbour does not count on the session any more: after
    /// [`Self::set_admin_down`] the process may end without looking like a failure.
    pub fn released(&self) -> bool {
        let counts = |remote: &Remote| matches!(remote.state, State::Init | State::Up);
        !self.remote.as_ref().is_some_and(counts)
    }

    /// Whether echo packets of the neighbour are sent back: it was told that it may send them.
    pub(super) fn reflects(&self) -> bool {
        self.state == State::Up && self.echo().is_some()
    }

    /// The echo interval, where echo may be used.
    fn echo(&self) -> Option<Duration> {
        self.settings.echo().filter(|_| self.looped)
    }

    /// Whether echo packets have a way; unless told otherwise they have. Without one the settings
    /// of echo count for nothing.
    pub(super) fn set_looped(&mut self, now: Duration, looped: bool) {
        let before = self.shown();
        self.looped = looped;
        self.tune(now);
        self.show(now, before);
    }

    /// Other settings; the session stays up.
    pub fn configure(&mut self, now: Duration, settings: Settings) {
        let before = self.shown();
        self.settings = settings;
        self.tune(now);
        self.show(now, before);
    }

    /// Holds the session down, or lets it come up again (§6.8.16). The neighbour is told, for as
    /// long as the session is kept.
    pub fn set_admin_down(&mut self, now: Duration, down: bool) {
        let before = self.shown();
        match (down, self.state) {
            (true, State::AdminDown) => {}
            (true, _) => self.enter(now, State::AdminDown, Diagnostic::ADMIN_DOWN),
            (false, State::AdminDown) => self.enter(now, State::Down, Diagnostic::NONE),
            (false, _) => {}
        }
        self.show(now, before);
    }

    /// Takes a packet that was found to be this session's (§6.8.6 from "Set bfd.RemoteDiscr").
    pub fn on_packet(&mut self, now: Duration, packet: &Packet) -> Result<(), Error> {
        let before = self.shown();
        let wait = |micros| Duration::from_micros(u64::from(micros));
        self.remote = Some(Remote {
            discriminator: packet.mine,
            state: packet.state,
            diagnostic: packet.diagnostic,
            desired_tx: wait(packet.desired_tx),
            required_rx: wait(packet.required_rx),
            required_echo_rx: wait(packet.required_echo_rx),
            multiplier: packet.multiplier,
            independent: packet.independent,
            demand: packet.demand,
        });
        self.heard = now;
        if packet.r#final {
            self.timers.finish();
        }
        if self.state == State::AdminDown {
            self.keep_pace(now);
            return Err(Error::AdminDown);
        }
        let down = Diagnostic::NEIGHBOUR_DOWN;
        match (self.state, packet.state) {
            (State::Init | State::Up, State::AdminDown) => self.enter(now, State::Down, down),
            (State::Down, State::Down) => self.enter(now, State::Init, self.diagnostic),
            (State::Down, State::Init) => self.enter(now, State::Up, Diagnostic::NONE),
            (State::Init, State::Init | State::Up) => {
                self.enter(now, State::Up, Diagnostic::NONE);
            }
            (State::Up, State::Down) => self.enter(now, State::Down, down),
            _ => self.tune(now),
        }
        if packet.poll {
            self.send(true);
            self.keep_pace(now);
        } else {
            self.show(now, before);
        }
        Ok(())
    }

    /// Takes an echo packet that came back; says whether it is one of this session's.
    pub fn on_echo(&mut self, now: Duration, echo: &Echo) -> bool {
        let ours = echo.discriminator == self.mine
            && echo.token == self.token
            && echo.sequence < self.echoes;
        if ours && let Some(echoing) = &mut self.echoing {
            echoing.back = now;
        }
        ours
    }

    /// When to call [`Self::on_timeout`].
    pub fn poll_timeout(&self) -> Option<Duration> {
        let echo = self
            .echoing
            .map(|echoing| echoing.next.min(self.echo_deadline(&echoing)));
        [self.next, self.deadline(), echo]
            .into_iter()
            .flatten()
            .min()
    }

    /// Declares failures and sends what is due.
    pub fn on_timeout(&mut self, now: Duration) {
        let before = self.shown();
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            if matches!(self.state, State::Init | State::Up) {
                self.enter(now, State::Down, Diagnostic::TIME_EXPIRED);
            }
            // §6.8.1: the discriminator of one that is not heard counts no more.
            self.remote = None;
        }
        if let Some(echoing) = self.echoing
            && self.echo_deadline(&echoing) <= now
        {
            self.enter(now, State::Down, Diagnostic::ECHO_FAILED);
        }
        self.show(now, before);
        if self.next.is_some_and(|next| next <= now) {
            self.send_by_schedule(now);
        }
        if let Some(mut echoing) = self.echoing
            && echoing.next <= now
        {
            let echo = Echo {
                discriminator: self.mine,
                token: self.token,
                sequence: self.echoes,
            };
            self.echoes += 1;
            self.outbox.push_back(Transmit::Echo(echo.build()));
            echoing.next = now + self.jittered(echoing.interval);
            self.echoing = Some(echoing);
        }
    }

    /// The next payload to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.outbox.pop_front()
    }

    /// The next change of state.
    pub fn poll_event(&mut self) -> Option<Change> {
        self.events.pop_front()
    }

    /// When the neighbour has been silent for too long.
    fn deadline(&self) -> Option<Duration> {
        Some(self.heard + self.detection_time()?)
    }

    fn echo_deadline(&self, echoing: &Echoing) -> Duration {
        echoing.back + echoing.interval * u32::from(self.settings.multiplier.get())
    }

    fn enter(&mut self, now: Duration, state: State, diagnostic: Diagnostic) {
        self.events.push_back(Change {
            from: self.state,
            to: state,
            diagnostic,
            remote: self.remote,
        });
        self.state = state;
        self.diagnostic = diagnostic;
        self.tune(now);
    }

    /// Brings echo function and intervals in line with settings, state and neighbour.
    fn tune(&mut self, now: Duration) {
        let up = self.state == State::Up;
        let echo = self.echo().zip(self.remote);
        self.echoing = match echo {
            Some((own, remote)) if up && !remote.required_echo_rx.is_zero() => {
                let interval = own.max(remote.required_echo_rx);
                let begun = self.echoing.unwrap_or(Echoing {
                    interval,
                    next: now,
                    back: now,
                });
                Some(Echoing { interval, ..begun })
            }
            _ => None,
        };
        let Settings {
            transmit, receive, ..
        } = self.settings;
        let wanted = Intervals {
            tx: if up { transmit } else { transmit.max(SLOW) },
            // §6.8.3: where echo detects, control packets may be few.
            rx: match self.echoing {
                Some(_) => receive.max(SLOW),
                None => receive,
            },
        };
        self.timers.want(wanted, up);
    }

    /// The interval to send at (§6.8.7).
    fn due_every(&self) -> Option<Duration> {
        let own = self.timers.held().tx;
        let Some(remote) = &self.remote else {
            return (!self.settings.passive).then_some(own);
        };
        let both_up = self.state == State::Up && remote.state == State::Up;
        let quiet = remote.demand && both_up && !self.timers.polling();
        (!remote.required_rx.is_zero() && !quiet).then(|| own.max(remote.required_rx))
    }

    /// Follows a change of the interval, counted from the last packet.
    fn keep_pace(&mut self, now: Duration) {
        let pace = self.due_every();
        if pace != self.pace {
            self.pace = pace;
            self.next = pace.map(|pace| match self.sent {
                Some(sent) => sent + self.jittered(pace),
                None => now,
            });
        }
    }

    /// Sends at once where packets would say something new (§6.8.7), then keeps the pace.
    fn show(&mut self, now: Duration, before: Packet) {
        let now_shown = Packet {
            yours: before.yours,
            poll: before.poll,
            ..self.shown()
        };
        self.keep_pace(now);
        if now_shown != before && self.due_every().is_some() {
            self.send_by_schedule(now);
        }
    }

    /// What a packet says now.
    fn shown(&self) -> Packet {
        let Intervals { tx, rx } = self.timers.told();
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.timers.polling(),
            r#final: false,
            independent: false,
            demand: false,
            multiplier: self.settings.multiplier.get(),
            mine: self.mine,
            yours: self.remote.map_or(0, |remote| remote.discriminator.get()),
            desired_tx: micros(tx),
            required_rx: micros(rx),
            required_echo_rx: self.echo().map_or(0, micros),
        }
    }

    /// P and F never go together (§6.5).
    fn send(&mut self, answers: bool) {
        let shown = self.shown();
        let packet = Packet {
            poll: shown.poll && !answers,
            r#final: answers,
            ..shown
        };
        self.outbox.push_back(Transmit::Control(packet.build()));
    }

    fn send_by_schedule(&mut self, now: Duration) {
        self.send(false);
        self.sent = Some(now);
        self.pace = self.due_every();
        self.next = self.pace.map(|pace| now + self.jittered(pace));
    }

    /// 75 to 100 % of an interval; to 90 % with multiplier 1 (§6.8.7).
    fn jittered(&mut self, interval: Duration) -> Duration {
        let share = (crate::random::next(&mut self.random) >> 48) as u32;
        let (most, spread) = match self.settings.multiplier.get() {
            1 => (interval - interval / 10, interval * 3 / 20),
            _ => (interval, interval / 4),
        };
        most - spread * share / 0x1_0000
    }
}
