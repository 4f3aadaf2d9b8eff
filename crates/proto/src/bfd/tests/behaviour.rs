//! One session: states, timers, Poll Sequences, echo.

use super::*;

/// A session and its time.
struct Bench {
    session: Session,
    now: Duration,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        Self {
            session: Session::new(ms(0), number(1), settings, 42),
            now: ms(0),
        }
    }

    /// In state Up with the neighbour of [`said`], everything sent and told taken out.
    fn up(settings: Settings) -> Self {
        let mut bench = Self::new(settings);
        bench.hear(said(State::Down, 0));
        bench.hear(said(State::Init, 1));
        assert_eq!(bench.session.state(), State::Up);
        bench.sent();
        bench.changes();
        bench
    }

    fn hear(&mut self, packet: Packet) {
        let _ = self.session.on_packet(self.now, &packet);
    }

    /// Moves to `until`, timer by timer; gives what was sent and when.
    fn run(&mut self, until: Duration) -> Vec<(Duration, Transmit)> {
        let mut sent = Vec::new();
        loop {
            while let Some(what) = self.session.poll_transmit() {
                sent.push((self.now, what));
            }
            match self.session.poll_timeout().filter(|due| *due <= until) {
                Some(due) => {
                    self.now = self.now.max(due);
                    self.session.on_timeout(self.now);
                }
                None => {
                    self.now = until;
                    return sent;
                }
            }
        }
    }

    /// Control packets that wait to be sent.
    fn sent(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        while let Some(what) = self.session.poll_transmit() {
            if let Transmit::Control(bytes) = what {
                packets.push(Packet::parse(&bytes).expect("ours reads"));
            }
        }
        packets
    }

    fn changes(&mut self) -> Vec<Change> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }
}

fn control(sent: &[(Duration, Transmit)]) -> Vec<(Duration, Packet)> {
    let packet = |(at, what): &(Duration, Transmit)| match what {
        Transmit::Control(bytes) => Some((*at, Packet::parse(bytes).expect("ours reads"))),
        _ => None,
    };
    sent.iter().filter_map(packet).collect()
}

/// §6.2 and §6.8.6: every state against every state heard.
#[test]
fn states() {
    use State::{AdminDown, Down, Init, Up};
    let (none, neighbour, admin) = (
        Diagnostic::NONE,
        Diagnostic::NEIGHBOUR_DOWN,
        Diagnostic::ADMIN_DOWN,
    );
    let table = [
        (AdminDown, AdminDown, AdminDown, admin),
        (AdminDown, Down, AdminDown, admin),
        (AdminDown, Init, AdminDown, admin),
        (AdminDown, Up, AdminDown, admin),
        (Down, AdminDown, Down, none),
        (Down, Down, Init, none),
        (Down, Init, Up, none),
        (Down, Up, Down, none),
        (Init, AdminDown, Down, neighbour),
        (Init, Down, Init, none),
        (Init, Init, Up, none),
        (Init, Up, Up, none),
        (Up, AdminDown, Down, neighbour),
        (Up, Down, Down, neighbour),
        (Up, Init, Up, none),
        (Up, Up, Up, none),
    ];
    for (before, heard, after, diagnostic) in table {
        let mut bench = match before {
            Up => Bench::up(settings(50, 50, 3)),
            _ => Bench::new(settings(50, 50, 3)),
        };
        match before {
            AdminDown => bench.session.set_admin_down(ms(0), true),
            Init => bench.hear(said(Down, 0)),
            Down | Up => {}
        }
        assert_eq!(bench.session.state(), before);
        bench.sent();
        bench.changes();
        bench.hear(said(heard, 1));
        let found = (bench.session.state(), bench.session.diagnostic());
        assert_eq!(found, (after, diagnostic), "{before} hears {heard}");
        let changes = bench.changes();
        assert_eq!(changes.len(), usize::from(before != after));
        // A change is told at once, with the state that came of it.
        let told: Vec<State> = bench.sent().iter().map(|packet| packet.state).collect();
        let want = if before == after { vec![] } else { vec![after] };
        assert_eq!(told, want, "{before} hears {heard}");
        let failed = changes.iter().any(Change::path_failed);
        assert_eq!(failed, before == Up && heard == Down);
    }
}

/// §6.8.3: at least one second between packets until the session is up, whatever is configured.
#[test]
fn slow_start() {
    for (multiplier, most) in [(3, 1000), (1, 900)] {
        let mut bench = Bench::new(settings(10, 10, multiplier));
        let sent = control(&bench.run(ms(60_000)));
        assert_eq!(sent[0].0, ms(0), "the first at once");
        for pair in sent.windows(2) {
            let wait = pair[1].0 - pair[0].0;
            assert!((ms(750)..=ms(most)).contains(&wait), "{wait:?}");
        }
        for (_, packet) in &sent {
            assert_eq!((packet.desired_tx, packet.yours), (1_000_000, 0));
            assert_eq!((packet.state, packet.poll), (State::Down, false));
        }
        assert!((60..=81).contains(&sent.len()), "{}", sent.len());
    }
}

/// §6.8.7: 75 to 100 % of the interval, 75 to 90 % with multiplier 1; all of that is used.
#[test]
fn jitter() {
    for (multiplier, most) in [(3, 100_000), (1, 90_000)] {
        let mut bench = Bench::up(settings(100, 100, multiplier));
        let mut waits = Vec::new();
        let mut last = None;
        for _ in 0..400 {
            bench.hear(said(State::Up, 1));
            let next = bench.session.poll_timeout().expect("something is due");
            for (at, _) in control(&bench.run(next)) {
                waits.extend(last.map(|last| at - last));
                last = Some(at);
            }
        }
        let (shortest, longest) = (waits.iter().min(), waits.iter().max());
        let micros = |wait: Option<&Duration>| wait.expect("packets").as_micros();
        let (shortest, longest) = (micros(shortest), micros(longest));
        assert!((75_000..77_000).contains(&shortest), "{shortest}");
        assert!(longest <= most && longest > most - 2_000, "{longest}");
    }
}

/// §6.8.4: the neighbour's multiplier and the slower of what it sends and what we take.
#[test]
fn detection_time() {
    for (ours, theirs, multiplier, want) in [
        (100, 100, 3, 300),
        (50, 100, 3, 300),
        (300, 100, 3, 900),
        (100, 400, 5, 2000),
        (10, 10, 1, 10),
    ] {
        let mut bench = Bench::up(settings(50, ours, 3));
        let heard = Packet {
            desired_tx: theirs * 1000,
            multiplier,
            ..said(State::Up, 1)
        };
        bench.hear(heard);
        assert_eq!(bench.session.detection_time(), Some(ms(want)));
        bench.run(ms(want) - Duration::from_nanos(1));
        assert_eq!(bench.session.state(), State::Up);
        bench.run(ms(want));
        let change = bench.changes()[0];
        assert_eq!(change.diagnostic, Diagnostic::TIME_EXPIRED);
        assert!(change.path_failed());
        assert_eq!(bench.session.state(), State::Down);
        // §6.8.1: its discriminator counts no more.
        assert_eq!(bench.session.remote(), None);
    }
}

/// §6.8.3 and §6.5: what may hurt waits until the neighbour has said that it knows.
#[test]
fn poll_sequences() {
    let heard = Packet {
        r#final: true,
        ..said(State::Up, 1)
    };
    let mut bench = Bench::up(settings(100, 100, 3));
    // Coming up is such a change: the interval falls from one second.
    let sent = control(&bench.run(ms(100)));
    assert!(sent.iter().all(|(_, packet)| packet.poll), "{sent:?}");
    bench.hear(heard);
    let sent = control(&bench.run(ms(200)));
    assert!(!sent.is_empty() && sent.iter().all(|(_, packet)| !packet.poll));

    // Slower to send: it goes on as before, and says so, until F.
    bench.hear(said(State::Up, 1));
    bench.session.configure(bench.now, settings(400, 100, 3));
    assert_eq!(bench.session.transmit_interval(), Some(ms(100)));
    let told = bench.sent();
    assert_eq!((told[0].poll, told[0].desired_tx), (true, 400_000));
    bench.hear(heard);
    assert_eq!(bench.session.transmit_interval(), Some(ms(400)));
    // Faster: at once.
    bench.session.configure(bench.now, settings(50, 100, 3));
    assert_eq!(
        bench.session.transmit_interval(),
        Some(ms(100)),
        "the neighbour's own limit"
    );
    bench.hear(heard);

    // To be sent at more slowly: at once; faster: after F.
    bench.session.configure(bench.now, settings(50, 500, 3));
    assert_eq!(bench.session.detection_time(), Some(ms(1500)));
    bench.hear(heard);
    bench.session.configure(bench.now, settings(50, 100, 3));
    assert_eq!(bench.session.detection_time(), Some(ms(1500)));
    // A second change while the first is not answered: its F proves nothing yet.
    bench.session.configure(bench.now, settings(50, 200, 3));
    bench.hear(heard);
    assert_eq!(bench.session.detection_time(), Some(ms(1500)));
    bench.hear(heard);
    assert_eq!(bench.session.detection_time(), Some(ms(600)));

    // P is answered at once, with F and without P.
    bench.sent();
    bench.hear(Packet {
        poll: true,
        ..said(State::Up, 1)
    });
    let answer = bench.sent();
    assert_eq!(answer.len(), 1);
    assert!(answer[0].r#final && !answer[0].poll);
}

#[test]
fn the_neighbours_limits() {
    let mut bench = Bench::up(settings(50, 50, 3));
    let limit = |required_rx| Packet {
        required_rx,
        ..said(State::Up, 1)
    };
    bench.hear(limit(250_000));
    assert_eq!(bench.session.transmit_interval(), Some(ms(250)));
    bench.hear(limit(10_000));
    assert_eq!(bench.session.transmit_interval(), Some(ms(50)));
    bench.hear(limit(0));
    assert_eq!(bench.session.transmit_interval(), None, "it wants none");
    // Demand mode: silence while both are up and nothing is to be asked.
    let demand = Packet {
        demand: true,
        r#final: true,
        ..said(State::Up, 1)
    };
    bench.hear(demand);
    assert_eq!(bench.session.transmit_interval(), None);
    bench.hear(Packet {
        state: State::Init,
        ..demand
    });
    assert!(bench.session.transmit_interval().is_some());
}

#[test]
fn passive() {
    let quiet = Settings {
        passive: true,
        ..settings(50, 50, 3)
    };
    let mut bench = Bench::new(quiet);
    assert_eq!(bench.run(ms(10_000)), []);
    assert_eq!(bench.session.poll_timeout(), None);
    bench.hear(said(State::Down, 0));
    assert_eq!(bench.sent()[0].state, State::Init);
    bench.hear(said(State::Init, 1));
    assert_eq!(bench.session.state(), State::Up);
    // It falls silent again with the neighbour.
    bench.run(ms(60_000));
    assert_eq!(bench.session.state(), State::Down);
    assert_eq!(bench.session.poll_timeout(), None);
}

/// §6.8.16, RFC 5882 §3.2.
#[test]
fn held_down() {
    let mut bench = Bench::up(settings(50, 50, 3));
    bench.session.set_admin_down(bench.now, true);
    let told = bench.sent();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].state, told[0].diagnostic),
        (State::AdminDown, Diagnostic::ADMIN_DOWN)
    );
    assert!(!bench.changes().iter().any(Change::path_failed));
    assert!(!bench.session.released(), "the neighbour may not know yet");
    let sent = control(&bench.run(ms(250)));
    assert!(sent.is_empty(), "one second between packets: {sent:?}");
    bench.hear(said(State::Down, 1));
    assert!(bench.session.released());
    assert_eq!(bench.session.state(), State::AdminDown);
    bench.run(ms(1300));
    bench.session.set_admin_down(bench.now, false);
    assert_eq!(bench.session.state(), State::Down);
    bench.hear(said(State::Init, 1));
    assert_eq!(bench.session.state(), State::Up);

    // The neighbour does the same: no failure, and up again when it comes back.
    bench.changes();
    bench.hear(said(State::AdminDown, 1));
    let changes = bench.changes();
    assert_eq!(
        (changes[0].to, changes[0].path_failed()),
        (State::Down, false)
    );
    // Nor is it one when it then falls silent.
    bench.run(ms(20_000));
    assert_eq!(bench.changes(), []);
    bench.hear(said(State::Down, 0));
    bench.hear(said(State::Up, 1));
    assert_eq!(bench.session.state(), State::Up);
}

#[test]
fn echo() {
    let echoing = Settings {
        echo: Some(ms(50)),
        ..settings(300, 300, 3)
    };
    let takes = |state, required_echo_rx| Packet {
        required_echo_rx,
        ..said(state, 1)
    };
    let mut bench = Bench::up(echoing);
    assert_eq!(bench.session.echo_interval(), None, "it takes none");
    bench.hear(takes(State::Up, 20_000));
    assert_eq!(bench.session.echo_interval(), Some(ms(50)));
    // Control packets may be few now.
    let told = bench.sent();
    assert_eq!(
        (told[0].required_rx, told[0].required_echo_rx),
        (1_000_000, 50_000)
    );
    bench.hear(takes(State::Up, 80_000));
    assert_eq!(bench.session.echo_interval(), Some(ms(80)), "its limit");

    // They come back: nothing happens. They stop: the path has failed.
    let mut last = bench.now;
    for _ in 0..40 {
        let due = bench.session.poll_timeout().expect("something is due");
        for (at, what) in bench.run(due) {
            if let Transmit::Echo(bytes) = what {
                let echo = Echo::parse(&bytes).expect("ours reads");
                assert!(bench.session.on_echo(at, &echo));
                let forged = Echo { token: 1, ..echo };
                assert!(!bench.session.on_echo(at, &forged));
                assert!(at - last <= ms(80), "{at:?}");
                last = at;
            }
        }
        bench.hear(takes(State::Up, 80_000));
    }
    assert_eq!(bench.changes(), []);
    bench.hear(takes(State::Up, 80_000));
    bench.run(last + ms(239));
    assert_eq!(bench.session.state(), State::Up);
    bench.run(last + ms(240));
    let change = bench.changes()[0];
    assert_eq!(change.diagnostic, Diagnostic::ECHO_FAILED);
    assert!(change.path_failed());
    assert_eq!(bench.session.echo_interval(), None);

    // RFC 5883 §3: never over several hops.
    let far = Settings {
        hops: Hops::Multi { minimum_ttl: 250 },
        ..echoing
    };
    let mut bench = Bench::up(far);
    bench.hear(takes(State::Up, 20_000));
    assert_eq!(bench.session.echo_interval(), None);
    bench.session.configure(bench.now, settings(50, 300, 3));
    assert_eq!(bench.sent()[0].required_echo_rx, 0);
}
