//! One peer against messages made by hand.

use super::*;

/// The other side's bytes.
fn open_of(config: &Config) -> Vec<u8> {
    let mut out = Vec::new();
    config.open().encode(&mut out);
    out
}

fn keepalive_bytes() -> Vec<u8> {
    let mut out = Vec::new();
    keepalive(&mut out);
    out
}

fn dial(peer: &mut Peer, now: Duration) -> ConnectionId {
    let dialled = outputs(peer).into_iter().find_map(|output| match output {
        Output::Dial(id) => Some(id),
        _ => None,
    });
    let id = dialled.expect("no attempt");
    peer.dialled(now, id);
    id
}

/// A session at time zero, its first outputs taken.
fn establish(ours: Config, theirs: &Config) -> (Peer, ConnectionId) {
    let mut peer = Peer::new(ours, 7);
    peer.start(secs(0));
    let id = dial(&mut peer, secs(0));
    peer.received(secs(0), id, &open_of(theirs));
    assert_eq!(peer.state(), State::OpenConfirm);
    peer.received(secs(0), id, &keepalive_bytes());
    assert_eq!(peer.state(), State::Established);
    assert!(
        outputs(&mut peer)
            .iter()
            .any(|output| matches!(output, Output::Up(up, _) if *up == id))
    );
    (peer, id)
}

fn notifications(outputs: &[Output]) -> Vec<(u8, u8)> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Send(_, bytes) if bytes[18] == 3 => Some((bytes[19], bytes[20])),
            _ => None,
        })
        .collect()
}

fn troubles(outputs: &[Output]) -> Vec<String> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Trouble(cause) | Output::Down(cause) => Some(cause.to_string()),
            _ => None,
        })
        .collect()
}

/// Runs the timers until `until`.
fn run(peer: &mut Peer, until: Duration) -> Vec<(Duration, Output)> {
    let mut all = Vec::new();
    while let Some(at) = peer.deadline().filter(|at| *at <= until) {
        peer.timer(at);
        all.extend(outputs(peer).into_iter().map(|output| (at, output)));
    }
    all
}

#[test]
fn the_open_is_that_of_frr() {
    // Captured from FRR 8.4.4 with MetalLB's template: order and values of capabilities.
    let config = Config {
        add_path_receive: Families::from_iter([Family::Ipv4]),
        families: Families::from_iter([Family::Ipv4]),
        graceful: Some(Graceful {
            restarting: true,
            long_lived: Some(0),
            ..graceful()
        }),
        hold_time: 180,
        ..config(0)
    };
    let codes: Vec<u8> = config
        .open()
        .capabilities
        .iter()
        .map(|capability| {
            let mut bytes = Vec::new();
            capability.encode(&mut bytes);
            bytes[0]
        })
        .collect();
    assert_eq!(codes, [1, 128, 2, 70, 65, 6, 69, 73, 64, 71]);
    let bytes = open_of(&config);
    assert_eq!(bytes[22..24], [0, 180]);
    assert!(
        bytes
            .windows(6)
            .any(|part| part == [64, 6, 0xc0, 120, 0, 1])
    );
}

#[test]
fn what_is_wrong_is_named() {
    let as_known = |bytes: &[u8]| {
        let mut peer = Peer::new(config(0), 1);
        peer.start(secs(0));
        let id = dial(&mut peer, secs(0));
        peer.received(secs(1), id, bytes);
        let all = outputs(&mut peer);
        assert_eq!(peer.state(), State::Idle);
        (notifications(&all), troubles(&all))
    };
    let with = |change: fn(&mut Config)| {
        let mut theirs = config(1);
        change(&mut theirs);
        as_known(&open_of(&theirs))
    };
    assert_eq!(
        with(|it| it.local_as = Asn(64999)),
        (
            vec![(2, 2)],
            vec!["wrong AS: expected 64513, got 64999".into()]
        )
    );
    assert_eq!(with(|it| it.router_id = Ipv4Addr::UNSPECIFIED).0, [(2, 3)]);
    let (sent, said) = as_known(&keepalive_bytes());
    assert_eq!(
        (sent, said),
        (vec![(5, 1)], vec!["peer sent Keepalive in OpenSent".into()])
    );
    let (sent, said) = as_known(&[0; 19]);
    assert_eq!(
        (sent, said),
        (vec![(1, 1)], vec!["peer sent a malformed message".into()])
    );
    let mut peer = Peer::new(
        Config {
            families: Families::from_iter([Family::Ipv6]),
            ..config(0)
        },
        1,
    );
    peer.start(secs(0));
    let id = dial(&mut peer, secs(0));
    let theirs = Config {
        families: Families::from_iter([Family::Ipv4]),
        ..config(1)
    };
    peer.received(secs(1), id, &open_of(&theirs));
    let all = outputs(&mut peer);
    assert_eq!(notifications(&all), [(2, 7)]);
    assert_eq!(
        troubles(&all),
        ["no common address family: ours IPv6, the peer's IPv4"]
    );
}

#[test]
fn roles_must_fit() {
    let said = |strict: bool, theirs: Option<Role>| {
        let role = |role: Role, strict: bool| Some(LocalRole { role, strict });
        let ours = Config {
            role: role(Role::Provider, strict),
            ..config(0)
        };
        let theirs = Config {
            role: theirs.and_then(|it| role(it, false)),
            ..config(1)
        };
        let mut peer = Peer::new(ours, 1);
        peer.start(secs(0));
        let id = dial(&mut peer, secs(0));
        peer.received(secs(1), id, &open_of(&theirs));
        let good = peer.state() == State::OpenConfirm;
        let all = outputs(&mut peer);
        assert_eq!(
            notifications(&all),
            if good { vec![] } else { vec![(2, 11)] }
        );
        let told = troubles(&all);
        assert!(
            told.iter()
                .all(|it| it.starts_with("role mismatch: the peer"))
        );
        assert_eq!(told.is_empty(), good);
        good
    };
    for (strict, theirs, good) in [
        (false, Some(Role::Customer), true),
        (true, Some(Role::Customer), true),
        (false, None, true),
        (true, None, false),
        (false, Some(Role::Provider), false),
        (false, Some(Role::Peer), false),
    ] {
        assert_eq!(said(strict, theirs), good, "{strict} {theirs:?}");
    }
}

#[test]
fn silence_is_named() {
    let mut peer = Peer::new(
        Config {
            password: true,
            ..config(0)
        },
        1,
    );
    peer.start(secs(0));
    // While the attempt goes on, and when it is given up.
    let said = run(&mut peer, secs(3));
    let said: Vec<Output> = said.into_iter().map(|it| it.1).collect();
    assert_eq!(troubles(&said), ["no answer: check password"]);
    assert_eq!(peer.state(), State::Connect);
    let said = run(&mut peer, secs(10));
    let said: Vec<Output> = said.into_iter().map(|it| it.1).collect();
    assert_eq!(troubles(&said), ["no answer: check password"]);
    assert!(said.iter().any(|output| matches!(output, Output::Close(_))));
    for (password, minimum_ttl, what) in [
        (
            false,
            None,
            "no answer: does a filter drop our packets, or does the peer want a password?",
        ),
        (
            false,
            Some(255),
            "no answer: check TTL security (packets must come with TTL 255)",
        ),
        (
            true,
            Some(254),
            "no answer: check password, and TTL security (packets must come with TTL 254)",
        ),
    ] {
        let cause = Cause::NoAnswer {
            password,
            minimum_ttl,
        };
        assert_eq!(cause.to_string(), what);
    }
    // Connected, and nothing comes.
    let mut peer = Peer::new(config(0), 1);
    peer.start(secs(0));
    dial(&mut peer, secs(0));
    let said: Vec<Output> = run(&mut peer, secs(5)).into_iter().map(|it| it.1).collect();
    let want = "connected, but no OPEN in 5 s: is TTL security on there, or a filter between?";
    assert_eq!(troubles(&said), [want]);
    let cause = Cause::NoOpen {
        after: secs(5),
        minimum_ttl: Some(255),
    };
    assert_eq!(
        cause.to_string(),
        "connected, but no OPEN in 5 s: the peer's packets have too small a TTL: ours must come \
         with 255; is TTL security on there?"
    );
    assert_eq!(peer.state(), State::OpenSent);
    let all: Vec<Output> = run(&mut peer, secs(240))
        .into_iter()
        .map(|it| it.1)
        .collect();
    assert_eq!(notifications(&all), [(4, 0)]);
}

#[test]
fn internal_and_external_are_decided_by_the_open() {
    let cases = [
        (RemoteAs::Internal, 64512, true),
        (RemoteAs::Internal, 64513, false),
        (RemoteAs::External, 64512, false),
        (RemoteAs::External, 64513, true),
        (RemoteAs::Any, 64513, true),
    ];
    for (remote_as, asn, good) in cases {
        let mut peer = Peer::new(
            Config {
                remote_as,
                ..config(0)
            },
            1,
        );
        peer.start(secs(0));
        let id = dial(&mut peer, secs(0));
        let theirs = Config {
            local_as: Asn(asn),
            ..config(1)
        };
        peer.received(secs(0), id, &open_of(&theirs));
        assert_eq!(
            peer.state() == State::OpenConfirm,
            good,
            "{remote_as} {asn}"
        );
        let all = outputs(&mut peer);
        assert_eq!(
            notifications(&all),
            if good { vec![] } else { vec![(2, 2)] }
        );
    }
}

#[test]
fn retries_grow_and_are_jittered() {
    let mut peer = Peer::new(config(0), 3);
    peer.start(secs(0));
    let mut now = secs(0);
    let mut waits = Vec::new();
    for _ in 0..9 {
        let id = outputs(&mut peer)
            .into_iter()
            .find_map(|output| match output {
                Output::Dial(id) => Some(id),
                _ => None,
            })
            .expect("no attempt");
        peer.dial_failed(now, id, DialError::Refused);
        let next = peer.deadline().unwrap();
        waits.push(next - now);
        now = next;
        peer.timer(now);
    }
    for (index, wait) in waits.iter().enumerate() {
        let full = secs(1 << index).min(secs(30));
        assert!(*wait <= full && *wait >= full * 3 / 4, "{index}: {wait:?}");
    }
}

#[test]
fn while_another_speaker_is_there_we_look_again_and_again() {
    let mut peer = Peer::new(config(0), 3);
    peer.start(secs(0));
    let mut now = secs(0);
    for attempt in 0..9 {
        let all = outputs(&mut peer);
        let id = all.iter().find_map(|output| match output {
            Output::Dial(id) => Some(*id),
            _ => None,
        });
        let by = "10.0.0.11:40000".to_owned();
        let error = DialError::Occupied { by };
        peer.dial_failed(now, id.expect("no attempt"), error);
        let next = peer.deadline().unwrap();
        let wait = next - now;
        assert!(
            wait <= secs(2) && wait >= secs(2) * 3 / 4,
            "{attempt}: {wait:?}"
        );
        now = next;
        peer.timer(now);
    }
}

#[test]
fn sessions_that_the_peer_cuts_short_are_named() {
    let (mut peer, mut id) = establish(config(0), &config(1));
    let mut now = secs(0);
    let mut said = Vec::new();
    for _ in 0..4 {
        now += secs(1);
        peer.closed(now, id);
        said.extend(troubles(&outputs(&mut peer)));
        now = peer.deadline().unwrap();
        peer.timer(now);
        id = dial(&mut peer, now);
        peer.received(now, id, &open_of(&config(1)));
        peer.received(now, id, &keepalive_bytes());
        outputs(&mut peer);
    }
    let once = "peer closed the connection in Established";
    let often = |times: u32| {
        format!(
            "peer closed {times} sessions in a row soon after they came up: does another speaker \
             use this node's address or router ID?"
        )
    };
    assert_eq!(said, [once.to_owned(), once.to_owned(), often(3), often(4)]);
    // One that lives is forgiven what was before.
    now += secs(60);
    peer.closed(now, id);
    assert_eq!(troubles(&outputs(&mut peer)), [once]);
}

#[test]
fn times_are_changed_while_the_session_is_open() {
    let ours = Config {
        hold_time: 90,
        ..config(0)
    };
    let theirs = Config {
        hold_time: 90,
        ..config(1)
    };
    let (mut peer, _) = establish(ours.clone(), &theirs);
    let sent = |all: Vec<(Duration, Output)>| {
        all.iter()
            .filter(|it| matches!(it.1, Output::Send(..)))
            .count()
    };
    // Every 30 s at most, until another time is set.
    assert_eq!(sent(run(&mut peer, secs(20))), 0);
    let settings = Config {
        keepalive_time: Some(secs(2)),
        connect_retry: secs(3),
        ..ours
    };
    peer.retune(secs(20), &settings);
    let count = sent(run(&mut peer, secs(40)));
    assert!((10..=14).contains(&count), "{count}");
    assert_eq!(peer.state(), State::Established);

    // What waits for the next attempt waits no longer than the new time.
    let mut peer = Peer::new(config(0), 3);
    peer.start(secs(0));
    let mut now = secs(0);
    for _ in 0..6 {
        let id = outputs(&mut peer)
            .into_iter()
            .find_map(|output| match output {
                Output::Dial(id) => Some(id),
                _ => None,
            });
        peer.dial_failed(now, id.expect("no attempt"), DialError::Refused);
        now = peer.deadline().unwrap();
        peer.timer(now);
    }
    let id = outputs(&mut peer)
        .into_iter()
        .find_map(|output| match output {
            Output::Dial(id) => Some(id),
            _ => None,
        });
    peer.dial_failed(now, id.expect("no attempt"), DialError::Refused);
    assert!(peer.deadline().unwrap() > now + secs(20));
    peer.retune(now, &settings);
    assert!(peer.deadline().unwrap() <= now + secs(3));
    // News may end the wait at once.
    peer.hurry(now);
    assert_eq!(peer.state(), State::Connect);
}

#[test]
fn a_link_that_goes_down_needs_no_words() {
    let ours = Config {
        graceful: Some(graceful()),
        ..config(0)
    };
    let (mut peer, _) = establish(ours.clone(), &Config { ..config(1) });
    peer.reset(secs(1), Reset::LinkDown);
    let all = outputs(&mut peer);
    assert_eq!(notifications(&all), []);
    assert_eq!(
        troubles(&all),
        ["the interface is down, or the neighbour there is another one"]
    );
    // The link is back: not a moment is lost, and not two attempts are made.
    peer.hurry(secs(1));
    peer.hurry(secs(1));
    let all = outputs(&mut peer);
    let dials = all.iter().filter(|it| matches!(it, Output::Dial(_)));
    assert_eq!(dials.count(), 1);
}

#[test]
fn keepalives_go_and_silence_ends() {
    let (mut peer, id) = establish(config(0), &config(1));
    let all = run(&mut peer, secs(20));
    let sent: Vec<Duration> = all
        .iter()
        .filter(
            |(_, output)| matches!(output, Output::Send(to, bytes) if *to == id && bytes[18] == 4),
        )
        .map(|(at, _)| *at)
        .collect();
    assert!(sent.len() >= 3, "{sent:?}");
    assert!(sent[0] >= Duration::from_millis(2250) && sent[0] <= secs(3));
    let (at, _) = all
        .iter()
        .find(|(_, output)| matches!(output, Output::Down(_)))
        .unwrap();
    assert_eq!(*at, secs(9));
    let only: Vec<Output> = all.into_iter().map(|it| it.1).collect();
    assert_eq!(notifications(&only), [(4, 0)]);
    assert!(troubles(&only).contains(&"nothing heard for 9 s".into()));
}

#[test]
fn a_peer_that_does_not_read_is_dropped() {
    let (mut peer, id) = establish(config(0), &config(1));
    peer.queued(secs(0), id);
    peer.written(secs(1), id, 100);
    let mut now = secs(1);
    while peer.state() == State::Established {
        now += secs(1);
        assert!(now < secs(1000));
        peer.received(now, id, &keepalive_bytes());
        peer.timer(now);
    }
    assert_eq!(now, secs(481));
    assert_eq!(notifications(&outputs(&mut peer)), [(8, 0)]);
    // One that reads is not.
    let (mut peer, id) = establish(config(0), &config(1));
    for second in 1..2000 {
        peer.received(secs(second), id, &keepalive_bytes());
        peer.timer(secs(second));
        peer.written(secs(second), id, 0);
    }
    assert_eq!(peer.state(), State::Established);
}

#[test]
fn a_stop_says_what_the_peer_may_keep() {
    let with = |ours: Option<Graceful>, theirs: Option<Graceful>, stop: Stop| {
        let (mut peer, _) = establish(
            Config {
                graceful: ours,
                ..config(0)
            },
            &Config {
                graceful: theirs,
                ..config(1)
            },
        );
        peer.stop(secs(1), stop);
        assert_eq!(peer.state(), State::Idle);
        let all = outputs(&mut peer);
        // Nothing waits but the peer's routes, where we come back to them.
        let kept = all.contains(&Output::Learned(Learned::Stale(Family::Ipv4)));
        assert_eq!(peer.deadline(), kept.then(|| secs(121)));
        assert!(matches!(
            all.iter()
                .rev()
                .find(|it| !matches!(it, Output::Learned(_))),
            Some(Output::Down(_))
        ));
        notifications(&all)
    };
    let yes = Some(graceful());
    let drain = || Stop::Drain {
        text: "node drained".into(),
    };
    assert_eq!(with(yes, yes, Stop::Restart), []);
    assert_eq!(with(None, yes, Stop::Restart), [(6, 2)]);
    assert_eq!(with(yes, yes, drain()), [(6, 9)]);
    assert_eq!(with(yes, None, drain()), [(6, 2)]);
    // Who only helps has nothing kept.
    let helper = Some(Graceful {
        families: Families::NONE,
        forwarding: Families::NONE,
        ..graceful()
    });
    assert_eq!(with(helper, yes, Stop::Restart), [(6, 9)]);
    assert_eq!(with(yes, yes, Stop::Removed), [(6, 9)]);
    assert_eq!(with(None, None, Stop::Removed), [(6, 3)]);
}

#[test]
fn a_restarting_peer_keeps_its_routes_until_the_end() {
    use Learned::*;
    let learned = |outputs: Vec<Output>| -> Vec<Learned> {
        outputs
            .into_iter()
            .filter_map(|output| match output {
                Output::Learned(learned) => Some(learned),
                _ => None,
            })
            .collect()
    };
    let both = |families| {
        let mut theirs = graceful();
        theirs.forwarding = families;
        let ours = Config {
            graceful: Some(graceful()),
            ..config(0)
        };
        let theirs = Config {
            graceful: Some(theirs),
            ..config(1)
        };
        (ours, theirs)
    };
    let (ours, theirs) = both(Families::from_iter([Family::Ipv4]));
    let (mut peer, id) = establish(ours.clone(), &theirs);
    peer.closed(secs(10), id);
    let stale = [Stale(Family::Ipv4), Stale(Family::Ipv6)];
    assert_eq!(learned(outputs(&mut peer)), stale);
    // It is back with its IPv4 forwarding only.
    let id = peer.accept(secs(20)).unwrap();
    peer.received(secs(20), id, &open_of(&theirs));
    peer.received(secs(20), id, &keepalive_bytes());
    assert_eq!(learned(outputs(&mut peer)), [ForgetStale(Family::Ipv6)]);
    let mut bytes = Vec::new();
    end_of_rib(Family::Ipv4, &mut bytes);
    peer.received(secs(21), id, &bytes);
    assert_eq!(learned(outputs(&mut peer)), [ForgetStale(Family::Ipv4)]);
    // It opens a new connection before we see the old one's end.
    let new = peer.accept(secs(22)).unwrap();
    assert_ne!(new, id);
    let all = outputs(&mut peer);
    assert_eq!(troubles(&all), ["peer restarted"]);
    assert_eq!(learned(all), stale);
    // It does not come back.
    peer.closed(secs(23), new);
    let mut late = Vec::new();
    while let Some(at) = peer.deadline().filter(|at| *at <= secs(200)) {
        peer.timer(at);
        for output in outputs(&mut peer) {
            match output {
                Output::Dial(id) => peer.dial_failed(at, id, DialError::Refused),
                Output::Learned(learned) => late.push((at, learned)),
                _ => {}
            }
        }
    }
    let at = secs(142);
    assert_eq!(
        late,
        [
            (at, ForgetStale(Family::Ipv4)),
            (at, ForgetStale(Family::Ipv6))
        ]
    );
    // A hard reset keeps nothing; another notification does (RFC 8538).
    for (hard, want) in [(true, Forget(Family::Ipv4)), (false, Stale(Family::Ipv4))] {
        let (mut peer, id) = establish(ours.clone(), &theirs);
        let plain = Notification::cease(notification::cease::SHUTDOWN, "bye");
        let notification = if hard { plain.hard() } else { plain };
        let mut bytes = Vec::new();
        notification.encode(&mut bytes);
        peer.received(secs(1), id, &bytes);
        let all = outputs(&mut peer);
        assert!(troubles(&all)[0].contains("bye"));
        assert_eq!(learned(all)[0], want);
    }
}

/// RFC 4724 §4.1: over a restart of ours the peer's routes stay until its End-of-RIB, also those of
/// a peer that asks nobody to keep any; `renew` stands for the restart.
#[test]
fn what_the_peer_gave_stays_while_we_open_the_session_anew() {
    use Learned::*;
    let learned = |outputs: &[Output]| -> Vec<Learned> {
        let all = outputs.iter().filter_map(|output| match output {
            Output::Learned(learned) => Some(*learned),
            _ => None,
        });
        all.collect()
    };
    let v4 = Families::from_iter([Family::Ipv4]);
    let helper = Graceful {
        families: Families::NONE,
        forwarding: Families::NONE,
        ..graceful()
    };
    let side = |index, graceful| Config {
        families: v4,
        graceful,
        ..config(index)
    };
    let (stale, gone) = (Stale(Family::Ipv4), ForgetStale(Family::Ipv4));
    let ours = side(0, Some(graceful()));
    let reopened = |theirs: &Config, stop: Stop| {
        let (mut peer, _) = establish(ours.clone(), theirs);
        peer.stop(secs(10), stop);
        let kept = learned(&outputs(&mut peer));
        peer.renew(ours.clone());
        peer.start_later(secs(10));
        (peer, kept)
    };
    let up_again = |peer: &mut Peer, theirs: &Config| {
        let id = peer.accept(secs(12)).expect("it waits no more");
        peer.received(secs(12), id, &open_of(theirs));
        peer.received(secs(12), id, &keepalive_bytes());
        (id, learned(&outputs(peer)))
    };
    let theirs = side(1, Some(helper));
    let (mut peer, kept) = reopened(&theirs, Stop::Restart);
    assert_eq!(kept, [stale]);
    let all = run(&mut peer, secs(11));
    assert!(all.iter().any(|(_, it)| matches!(it, Output::Dial(_))));
    let (id, at_once) = up_again(&mut peer, &theirs);
    assert_eq!(at_once, []);
    let mut bytes = Vec::new();
    end_of_rib(Family::Ipv4, &mut bytes);
    peer.received(secs(13), id, &bytes);
    assert_eq!(learned(&outputs(&mut peer)), [gone]);

    // A peer that has restarted too, and forwarded nothing meanwhile; one that has forgotten what
    // graceful restart is.
    let restarted = Graceful {
        restarting: true,
        ..helper
    };
    for other in [Some(restarted), None] {
        let (mut peer, _) = reopened(&theirs, Stop::Restart);
        run(&mut peer, secs(11));
        let (_, at_once) = up_again(&mut peer, &side(1, other));
        assert_eq!(at_once, [gone], "{other:?}");
    }

    // It does not come back, or not to its End-of-RIB.
    let (mut peer, _) = reopened(&theirs, Stop::Restart);
    let mut late = Vec::new();
    while let Some(at) = peer.deadline().filter(|at| *at <= secs(200)) {
        peer.timer(at);
        for output in outputs(&mut peer) {
            match output {
                Output::Dial(id) => peer.dial_failed(at, id, DialError::Refused),
                Output::Learned(learned) => late.push((at, learned)),
                _ => {}
            }
        }
    }
    assert_eq!(late, [(secs(130), gone)]);

    // Without graceful restart, or for good.
    let drain = Stop::Drain {
        text: "configuration changed".into(),
    };
    for (theirs, stop) in [(side(1, None), Stop::Restart), (theirs, drain)] {
        let (_, kept) = reopened(&theirs, stop);
        assert_eq!(kept, [Forget(Family::Ipv4)]);
    }
}

/// RFC 9494 §4.2: after the restart time the routes stay as a last choice, where both sides do it.
#[test]
fn long_lived_routes_outlive_the_restart_time() {
    use Learned::*;
    let (v4, away) = (Families::from_iter([Family::Ipv4]), secs(10));
    let run = |ours: Option<u32>, theirs: Option<u32>, restart_time| {
        let side = |index, long_lived, restart_time| Config {
            families: v4,
            graceful: Some(Graceful {
                restart_time,
                long_lived,
                ..graceful()
            }),
            ..config(index)
        };
        let theirs = side(1, theirs, restart_time);
        let (mut peer, id) = establish(side(0, ours, 120), &theirs);
        outputs(&mut peer);
        peer.closed(away, id);
        let mut all = Vec::new();
        let mut at = away;
        loop {
            for output in outputs(&mut peer) {
                match output {
                    Output::Dial(id) => peer.dial_failed(at, id, DialError::Refused),
                    Output::Learned(learned) => all.push((at.as_secs() - 10, learned)),
                    _ => {}
                }
            }
            match peer.deadline().filter(|it| *it <= secs(2000)) {
                Some(next) => at = next,
                None => return all,
            }
            peer.timer(at);
        }
    };
    let family = Family::Ipv4;
    for (ours, theirs, restart_time, wanted) in [
        // It asks for an hour, and we help.
        (
            Some(0),
            Some(1000),
            120,
            vec![
                (0, Stale(family)),
                (120, LongLivedStale(family)),
                (1120, ForgetStale(family)),
            ],
        ),
        // At once, without a restart time.
        (
            Some(0),
            Some(1000),
            0,
            vec![
                (0, Stale(family)),
                (0, LongLivedStale(family)),
                (1000, ForgetStale(family)),
            ],
        ),
        // It only helps; we do not; it does not.
        (
            Some(0),
            Some(0),
            120,
            vec![(0, Stale(family)), (120, ForgetStale(family))],
        ),
        (
            None,
            Some(1000),
            120,
            vec![(0, Stale(family)), (120, ForgetStale(family))],
        ),
        (
            Some(0),
            None,
            120,
            vec![(0, Stale(family)), (120, ForgetStale(family))],
        ),
    ] {
        assert_eq!(
            run(ours, theirs, restart_time),
            wanted,
            "{ours:?} {theirs:?} {restart_time}"
        );
    }
}

#[test]
fn collisions_keep_what_the_greater_identifier_opened() {
    // Our identifier is the smaller (0) or the greater one (1).
    for index in 0..2 {
        let theirs = config(1 - index);
        for accepted_first in [true, false] {
            let mut peer = Peer::new(config(index), 1);
            peer.start(secs(0));
            let accepted = peer.accept(secs(0)).unwrap();
            let dialled = dial(&mut peer, secs(0));
            let order = if accepted_first {
                [accepted, dialled]
            } else {
                [dialled, accepted]
            };
            for id in order {
                peer.received(secs(0), id, &open_of(&theirs));
            }
            for id in order {
                peer.received(secs(0), id, &keepalive_bytes());
            }
            let all = outputs(&mut peer);
            let up: Vec<ConnectionId> = all
                .iter()
                .filter_map(|output| match output {
                    Output::Up(id, _) => Some(*id),
                    _ => None,
                })
                .collect();
            let want = if index == 1 { dialled } else { accepted };
            assert_eq!(up, [want]);
            assert_eq!(notifications(&all), [(6, 7)]);
            assert_eq!(troubles(&all), Vec::<String>::new());
            // A further connection is refused.
            assert_eq!(peer.accept(secs(1)), None);
        }
    }
}

#[test]
fn errors_in_routes_do_not_end_the_session() {
    let (mut peer, id) = establish(config(0), &config(1));
    // ORIGIN 7 for 192.0.2.0/24.
    let body = [
        0, 0, 0, 20, 0x40, 1, 1, 7, 0x40, 2, 6, 2, 1, 0, 0, 0xfc, 1, 0x40, 3, 4, 10, 0, 0, 2, 24,
        192, 0, 2,
    ];
    let mut bytes = vec![0xff; 16];
    bytes.extend((19 + body.len() as u16).to_be_bytes());
    bytes.push(2);
    bytes.extend(body);
    peer.received(secs(1), id, &bytes);
    match outputs(&mut peer).as_slice() {
        [Output::Update(update)] => {
            assert_eq!(update.withdrawn.len(), 1);
            assert_eq!(update.flaws.len(), 1);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(peer.state(), State::Established);
}

#[test]
fn a_passive_peer_waits() {
    let mut peer = Peer::new(
        Config {
            passive: true,
            ..config(0)
        },
        1,
    );
    peer.start(secs(0));
    assert_eq!(outputs(&mut peer), []);
    assert_eq!(peer.state(), State::Active);
    let id = peer.accept(secs(5)).unwrap();
    peer.received(secs(5), id, &open_of(&config(1)));
    peer.received(secs(5), id, &keepalive_bytes());
    assert_eq!(peer.state(), State::Established);
    peer.closed(secs(6), id);
    let all = run(&mut peer, secs(100));
    assert!(
        !all.iter()
            .any(|(_, output)| matches!(output, Output::Dial(_)))
    );
    assert!(peer.accept(secs(100)).is_some());
}

#[test]
fn a_later_start_gives_the_peer_time_to_end_the_session_before() {
    let mut peer = Peer::new(config(0), 1);
    peer.start_later(secs(10));
    assert_eq!(peer.state(), State::Idle);
    assert!(outputs(&mut peer).is_empty());
    assert_eq!(peer.accept(secs(10)), None);
    let at = peer.deadline().expect("a deadline");
    assert!(
        at > Duration::from_millis(10_500) && at <= secs(11),
        "{at:?}"
    );
    peer.timer(at);
    assert!(matches!(outputs(&mut peer)[..], [Output::Dial(_)]));
}
