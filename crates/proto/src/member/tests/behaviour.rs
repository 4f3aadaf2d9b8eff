//! One member, fed by hand.

use super::*;

/// A member `node-0` with peers 1 and 2, without its first events and datagrams.
fn member() -> Member {
    let mut member = Member::new(name(0), Config::default(), ms(0));
    member.set_peers(ms(0), [0, 1, 2].map(|n| (name(n), address(n))).into());
    member.on_timeout(ms(0));
    assert_eq!(
        sent(&mut member).len(),
        2,
        "to the two others, not to itself"
    );
    member
}

fn sent(member: &mut Member) -> Vec<(SocketAddr, Packet)> {
    std::iter::from_fn(|| member.poll_transmit())
        .map(|transmit| (transmit.to, Packet::parse(&transmit.bytes, None).unwrap()))
        .collect()
}

fn events(member: &mut Member) -> Vec<Event> {
    std::iter::from_fn(|| member.poll_event()).collect()
}

fn beat(node: usize, incarnation: u64, sequence: u64) -> Packet {
    let echo = Echo::default();
    Packet {
        kind: Kind::Beat,
        node: name(node),
        incarnation,
        sequence,
        echo,
        payload: None,
    }
}

fn hear(member: &mut Member, now: Duration, from: usize, packet: &Packet) -> Result<(), Error> {
    member.on_datagram(now, address(from), &packet.build(None).unwrap())
}

/// Runs the timers, as a caller that is never late.
fn run(member: &mut Member, until: Duration) {
    while let Some(due) = member.poll_timeout().filter(|&due| due <= until) {
        member.on_timeout(due);
    }
}

#[test]
fn unknown_then_dead_alive_dead() {
    let mut member = member();
    run(&mut member, ms(999));
    assert_eq!(events(&mut member), []);
    hear(&mut member, ms(999), 1, &beat(1, 1, 1)).unwrap();
    run(&mut member, ms(1000));
    assert_eq!(
        events(&mut member),
        [
            Event::Alive { node: name(1) },
            Event::Dead { node: name(2) }
        ]
    );
    run(&mut member, ms(1998));
    assert_eq!(events(&mut member), []);
    run(&mut member, ms(1999));
    assert_eq!(events(&mut member), [Event::Dead { node: name(1) }]);
    hear(&mut member, ms(5000), 1, &beat(1, 1, 2)).unwrap_or_else(|error| panic!("{error}"));
    assert!(events(&mut member).contains(&Event::Alive { node: name(1) }));
}

#[test]
fn beats_come_in_time_and_never_pile_up() {
    let mut member = member();
    let mut last = ms(0);
    for _ in 0..100 {
        let due = member.poll_timeout().unwrap();
        member.on_timeout(due);
        if !sent(&mut member).is_empty() {
            let gap = due - last;
            assert!((ms(90)..=ms(100)).contains(&gap), "{gap:?}");
            last = due;
        }
    }
    run(&mut member, last + ms(10_000));
    assert_eq!(sent(&mut member).len(), 2, "only the last round is kept");
}

#[test]
fn each_datagram_counts_once() {
    let mut member = member();
    hear(&mut member, ms(1), 1, &beat(1, 5, 7)).unwrap();
    for (incarnation, sequence) in [(5, 7), (5, 6), (4, 100)] {
        let error = hear(&mut member, ms(2), 1, &beat(1, incarnation, sequence)).unwrap_err();
        let (last_incarnation, last_sequence) = (5, 7);
        let name = name(1);
        assert_eq!(
            error,
            Error::Replayed {
                name,
                incarnation,
                sequence,
                last_incarnation,
                last_sequence
            }
        );
    }
    assert_eq!(
        (member.counters().accepted, member.counters().replayed),
        (1, 3)
    );
    hear(&mut member, ms(3), 1, &beat(1, 6, 1)).unwrap();
    run(&mut member, ms(900));
    // A replay keeps nobody alive.
    let _ = hear(&mut member, ms(900), 1, &beat(1, 5, 8));
    run(&mut member, ms(1003));
    assert!(events(&mut member).contains(&Event::Dead { node: name(1) }));
}

#[test]
fn strangers_are_refused() {
    let mut member = member();
    let stranger = hear(&mut member, ms(1), 3, &beat(3, 1, 1)).unwrap_err();
    assert_eq!(stranger, Error::UnknownPeer { name: name(3) });
    let double = hear(&mut member, ms(1), 3, &beat(0, 1, 1)).unwrap_err();
    assert_eq!(
        double,
        Error::OwnName {
            name: name(0),
            from: address(3).ip()
        }
    );
    let moved = hear(&mut member, ms(1), 3, &beat(1, 1, 1)).unwrap_err();
    let (expected, from) = (address(1).ip(), address(3).ip());
    assert_eq!(
        moved,
        Error::WrongAddress {
            name: name(1),
            expected,
            from
        }
    );
    assert_eq!(member.counters().stranger, 3);
    // An IPv4 peer heard on an IPv6 socket is the same peer.
    let mapped = "[::ffff:10.0.0.2]:7946".parse().unwrap();
    member
        .on_datagram(ms(1), mapped, &beat(1, 1, 1).build(None).unwrap())
        .unwrap();
}

#[test]
fn a_leave_is_final_for_its_incarnation() {
    let mut member = member();
    hear(&mut member, ms(1), 1, &beat(1, 1, 1)).unwrap();
    let leave = Packet {
        kind: Kind::Leave,
        ..beat(1, 1, 2)
    };
    hear(&mut member, ms(2), 1, &leave).unwrap();
    hear(
        &mut member,
        ms(3),
        1,
        &Packet {
            sequence: 3,
            ..leave
        },
    )
    .unwrap();
    hear(&mut member, ms(4), 1, &beat(1, 1, 4)).unwrap();
    let want = [
        Event::Alive { node: name(1) },
        Event::Left { node: name(1) },
    ];
    assert_eq!(events(&mut member), want);
    run(&mut member, ms(3000));
    assert_eq!(
        events(&mut member),
        [Event::Dead { node: name(2) }],
        "who left does not die"
    );
    let now = member.poll_timeout().unwrap();
    hear(&mut member, now, 1, &beat(1, 2, 1)).unwrap();
    assert_eq!(events(&mut member), [Event::Alive { node: name(1) }]);
}

#[test]
fn leaving_says_so_and_falls_silent() {
    let mut member = member();
    member.leave(ms(10));
    let packets = sent(&mut member);
    assert_eq!(packets.len(), 6);
    assert!(packets.iter().all(|(_, packet)| packet.kind == Kind::Leave));
    assert_eq!(member.poll_timeout(), None);
    member.on_timeout(ms(9000));
    member.leave(ms(9001));
    member.set_payload(ms(9002), vec![1]).unwrap();
    assert_eq!((sent(&mut member), events(&mut member)), (vec![], vec![]));
    assert!(
        !member.isolated(ms(9003)),
        "it answers until others have taken over"
    );
}

#[test]
fn payload_goes_at_once_and_until_echoed() {
    let mut member = member();
    member.set_payload(ms(5), b"one".to_vec()).unwrap();
    let packets = sent(&mut member);
    assert_eq!(packets.len(), 2);
    let want = Some(Payload {
        version: 1,
        bytes: b"one".to_vec(),
    });
    assert!(packets.iter().all(|(_, packet)| packet.payload == want));
    member.set_payload(ms(6), b"one".to_vec()).unwrap();
    assert_eq!(sent(&mut member), [], "not new");
    let echo = Echo {
        incarnation: 1,
        sequence: 2,
        payload: 1,
    };
    hear(
        &mut member,
        ms(7),
        1,
        &Packet {
            echo,
            ..beat(1, 1, 1)
        },
    )
    .unwrap();
    run(&mut member, ms(100));
    let payloads: Vec<_> = sent(&mut member)
        .into_iter()
        .map(|(to, p)| (to, p.payload))
        .collect();
    assert_eq!(payloads, [(address(1), None), (address(2), want.clone())]);
    // The peer restarts and has nothing any more.
    hear(&mut member, ms(101), 1, &beat(1, 2, 1)).unwrap();
    run(&mut member, ms(200));
    assert_eq!(sent(&mut member)[0].1.payload, want);
    let long = member.set_payload(ms(201), vec![0; 1025]);
    assert_eq!(long, Err(Error::PayloadLength { length: 1025 }));
}

#[test]
fn a_peers_payload_is_told_once_a_version() {
    let mut member = member();
    let with = |incarnation, sequence, version| Packet {
        payload: Some(Payload {
            version,
            bytes: vec![version as u8],
        }),
        ..beat(1, incarnation, sequence)
    };
    for packet in [with(1, 1, 1), with(1, 2, 1), with(1, 3, 4), with(2, 1, 1)] {
        hear(&mut member, ms(1), 1, &packet).unwrap();
    }
    let told: Vec<_> = events(&mut member)
        .into_iter()
        .filter_map(|event| match event {
            Event::Payload { version, bytes, .. } => Some((version, bytes)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(1, vec![1]), (4, vec![4]), (1, vec![1])]);
    run(&mut member, ms(100));
    let echo = Echo {
        incarnation: 2,
        sequence: 1,
        payload: 1,
    };
    assert_eq!(sent(&mut member)[0].1.echo, echo);
}

/// A member that has heard peer 1, then was not run from 500 ms on.
fn sleeper() -> Member {
    let mut member = member();
    run(&mut member, ms(500));
    hear(&mut member, ms(500), 1, &beat(1, 1, 1)).unwrap();
    events(&mut member);
    member
}

#[test]
fn a_pause_kills_nobody_and_isolates() {
    let mut member = sleeper();
    assert!(!member.isolated(ms(600)));
    assert!(member.isolated(ms(9000)), "seen before any other call");
    member.on_timeout(ms(9000));
    let [Event::Paused { late }] = events(&mut member)[..] else {
        panic!()
    };
    assert!(late > ms(8300), "{late:?}");
    // What waited in the socket during the pause says nothing of what others think of us.
    let stale = Echo {
        incarnation: 1,
        sequence: 5,
        payload: 0,
    };
    hear(
        &mut member,
        ms(9001),
        1,
        &Packet {
            echo: stale,
            ..beat(1, 1, 2)
        },
    )
    .unwrap();
    assert!(member.isolated(ms(9001)));
    let sequence = sent(&mut member).last().unwrap().1.sequence;
    let echo = Echo {
        incarnation: 1,
        sequence,
        payload: 0,
    };
    hear(
        &mut member,
        ms(9002),
        1,
        &Packet {
            echo,
            ..beat(1, 1, 3)
        },
    )
    .unwrap();
    assert!(!member.isolated(ms(9002)));
    assert_eq!(events(&mut member), [Event::Resumed]);
    run(&mut member, ms(9999));
    assert_eq!(events(&mut member), []);
    run(&mut member, ms(10_000));
    assert_eq!(
        events(&mut member),
        [Event::Dead { node: name(2) }],
        "one more timeout"
    );
}

#[test]
fn a_pause_seen_first_by_a_datagram() {
    let mut member = sleeper();
    hear(&mut member, ms(9000), 1, &beat(1, 1, 2)).unwrap();
    assert!(matches!(events(&mut member)[..], [Event::Paused { .. }]));
    assert!(member.isolated(ms(9000)));
    assert!(
        member.poll_timeout() <= Some(ms(9000)),
        "a beat is due at once"
    );
}

#[test]
fn isolation_ends_when_nobody_is_left() {
    let mut member = sleeper();
    member.on_timeout(ms(9000));
    run(&mut member, ms(9999));
    assert!(member.isolated(ms(9999)));
    events(&mut member);
    run(&mut member, ms(10_000));
    let dead = |n| Event::Dead { node: name(n) };
    assert_eq!(events(&mut member), [dead(1), dead(2), Event::Resumed]);
    let mut alone = Member::new(name(0), Config::default(), ms(0));
    alone.on_timeout(ms(0));
    assert!(!alone.isolated(ms(9000)), "nobody could have taken over");
    alone.on_timeout(ms(9000));
    assert!(!alone.isolated(ms(9000)));
}

#[test]
fn a_short_hiccup_is_added_to_the_deadlines() {
    let mut member = sleeper();
    let due = member.poll_timeout().unwrap();
    // Peer 1's deadline was 1500; 950 ms too late the clock of silence has stood still.
    member.on_timeout(due + ms(950));
    assert_eq!(events(&mut member), []);
    run(&mut member, ms(2449));
    assert!(!events(&mut member).contains(&Event::Dead { node: name(1) }));
    run(&mut member, ms(2450));
    assert_eq!(events(&mut member), [Event::Dead { node: name(1) }]);
}

#[test]
fn peers_that_stay_keep_their_state() {
    let mut member = member();
    hear(&mut member, ms(1), 1, &beat(1, 1, 1)).unwrap();
    let moved = address(9);
    member.set_peers(ms(50), [(name(1), moved), (name(3), address(3))].into());
    let states: Vec<_> = member
        .peers()
        .map(|(node, state)| (node.clone(), state))
        .collect();
    assert_eq!(states, [(name(1), State::Alive), (name(3), State::Unknown)]);
    member.on_timeout(ms(100));
    assert_eq!(sent(&mut member)[0].0, moved);
    run(&mut member, ms(1050));
    assert!(events(&mut member).contains(&Event::Dead { node: name(3) }));
}
