//! One member, fed by hand.

use super::*;
use crate::member::guard::{Step, Watch};

/// A member `node-0` with peers 1 and 2, both alive, without its first events and datagrams.
pub(super) struct Stand {
    pub(super) member: Member,
    sequence: u32,
}

impl Stand {
    pub(super) fn new() -> Self {
        let mut member = Member::new(name(0), Config::default(), ms(0));
        let peers = [0, 1, 2].map(|n| (name(n), address(n)));
        member.set_peers(ms(0), peers.into());
        let mut stand = Self {
            member,
            sequence: 0,
        };
        assert_eq!(stand.sent().len(), 2, "a hello each, none to itself");
        for peer in [1, 2] {
            stand.hear(ms(0), peer, beat(&[0])).unwrap();
        }
        stand.member.on_timeout(ms(0));
        let events = stand.events();
        assert_eq!(events.len(), 2, "{events:?}");
        stand.sent();
        stand
    }

    fn packet(&mut self, from: usize, body: Body) -> Packet {
        self.sequence += 1;
        Packet {
            from: id(from),
            incarnation: 5,
            to: self.member.incarnation,
            sequence: self.sequence,
            deaf: false,
            body,
        }
    }

    pub(super) fn hear(&mut self, now: Duration, from: usize, body: Body) -> Result<(), Error> {
        let packet = self.packet(from, body);
        self.take(now, from, &packet)
    }

    /// A beat to this node, read later than it arrived.
    fn read(&mut self, now: Duration, arrived: Duration, from: usize) -> Result<(), Error> {
        let bytes = self.packet(from, beat(&[0])).build(None).unwrap();
        self.member.on_waiting(now, arrived, address(from), &bytes)
    }

    pub(super) fn take(
        &mut self,
        now: Duration,
        from: usize,
        packet: &Packet,
    ) -> Result<(), Error> {
        let bytes = packet.build(None).unwrap();
        self.member.on_datagram(now, address(from), &bytes)
    }

    pub(super) fn sent(&mut self) -> Vec<(SocketAddr, Packet)> {
        std::iter::from_fn(|| self.member.poll_transmit())
            .map(|transmit| (transmit.to, Packet::parse(&transmit.bytes, None).unwrap()))
            .collect()
    }

    pub(super) fn bodies(&mut self, to: usize) -> Vec<Body> {
        let sent = self.sent().into_iter();
        let sent = sent.filter(|(address, _)| *address == super::address(to));
        sent.map(|(_, packet)| packet.body).collect()
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.member.poll_event()).collect()
    }

    /// Runs the timers, as a caller that is never late.
    pub(super) fn run(&mut self, until: Duration) {
        while let Some(due) = self.member.poll_timeout().filter(|&due| due <= until) {
            self.member.on_timeout(due);
        }
    }
}

pub(super) fn beat(guardians: &[usize]) -> Body {
    Body::Beat {
        answer: false,
        guardians: guardians.iter().map(|n| id(*n).short()).collect(),
    }
}

pub(super) fn death(node: usize, incarnation: u64) -> Death {
    Death {
        node: id(node),
        incarnation,
    }
}

pub(super) fn dead(node: usize) -> Event {
    Event::Dead { node: name(node) }
}

/// Timers are late by up to a millisecond each.
#[test]
fn what_timers_are_late_by_does_not_add_up() {
    let profile = Profile::DEFAULT;
    let mut watch = Watch::until(profile.patience());
    let over = loop {
        let now = watch.due + Duration::from_micros(900);
        if watch.step(now, &profile) == Step::Over {
            break now;
        }
    };
    assert_eq!(over, profile.detection() + Duration::from_micros(900));
    // Who is late by more has time for an answer all the same.
    let mut watch = Watch::until(ms(90));
    assert_eq!(watch.step(ms(99), &profile), Step::Probe);
    assert_eq!(watch.due, ms(101));
}

#[test]
fn three_missed_beats_five_probes_then_a_vote() {
    let mut stand = Stand::new();
    stand.hear(ms(10), 1, beat(&[0, 2])).unwrap();
    let probes = |stand: &mut Stand, until: u64| {
        stand.run(ms(until));
        let probe = |body: &&Body| **body == Body::Probe;
        stand.bodies(1).iter().filter(probe).count()
    };
    // 2 is heard all the time.
    for at in (20..=90).step_by(10) {
        stand.run(ms(at));
        stand.hear(ms(at), 2, beat(&[0])).unwrap();
    }
    assert_eq!(probes(&mut stand, 99), 0);
    stand.hear(ms(99), 2, beat(&[0])).unwrap();
    assert_eq!(probes(&mut stand, 119), 5);
    assert_eq!(stand.events(), []);
    stand.run(ms(120));
    let vote = Body::Vote(death(1, 5));
    assert!(stand.bodies(2).contains(&vote), "to the fellow guardian");
    assert_eq!(stand.events(), [], "one of two is no majority");
    stand.hear(ms(121), 2, vote.clone()).unwrap();
    assert_eq!(stand.events(), [dead(1)]);
    let obituary = Body::Obituary(death(1, 5));
    assert!(stand.bodies(1).contains(&obituary), "the dead is told too");
    let counters = *stand.member.counters();
    assert_eq!(
        (counters.probed, counters.voted, counters.obituaries),
        (1, 1, 1)
    );
    // A late vote is answered with the result.
    stand.sent();
    stand.hear(ms(122), 2, vote).unwrap();
    assert_eq!(stand.bodies(2), [obituary]);
}

#[test]
fn a_vote_counts_only_while_the_ward_is_silent_and_for_a_while() {
    let mut stand = Stand::new();
    stand.hear(ms(10), 1, beat(&[0, 2])).unwrap();
    stand.hear(ms(11), 2, Body::Vote(death(1, 5))).unwrap();
    stand.hear(ms(12), 1, beat(&[0, 2])).unwrap();
    for at in (20..=140).step_by(10) {
        stand.run(ms(at));
        stand.hear(ms(at), 2, beat(&[0])).unwrap();
    }
    assert_eq!(stand.events(), [], "the vote is void since the beat");
    stand.hear(ms(141), 2, Body::Vote(death(1, 4))).unwrap();
    assert_eq!(stand.events(), [], "of an earlier incarnation");
    stand.hear(ms(142), 2, Body::Vote(death(1, 5))).unwrap();
    assert_eq!(stand.events(), [dead(1)]);
}

#[test]
fn a_guardian_that_is_dead_itself_is_not_waited_for() {
    let mut stand = Stand::new();
    stand.hear(ms(10), 1, beat(&[0, 2])).unwrap();
    stand.run(ms(30));
    stand.hear(ms(30), 1, Body::Obituary(death(2, 5))).unwrap();
    assert_eq!(stand.events(), [dead(2)]);
    stand.run(ms(141));
    assert_eq!(stand.events(), [dead(1)], "one of one is a majority");
    assert!(!stand.member.isolated(ms(141)), "it goes on alone");
}

#[test]
fn who_is_released_is_no_guardian_any_more() {
    let mut stand = Stand::new();
    stand.hear(ms(10), 1, beat(&[2])).unwrap();
    for at in (20..=400).step_by(10) {
        stand.run(ms(at));
        stand.hear(ms(at), 2, beat(&[0])).unwrap();
    }
    assert_eq!(stand.events(), []);
    assert_eq!(stand.member.counters().probed, 0);
}

#[test]
fn beats_name_the_guardians_and_ask_for_an_answer_now_and_then() {
    let mut stand = Stand::new();
    let mut last = ms(0);
    let (mut asked, mut beats) = (0, 0);
    for _ in 0..400 {
        let due = stand.member.poll_timeout().unwrap();
        stand.member.on_timeout(due);
        for peer in [1, 2] {
            stand.hear(due, peer, beat(&[])).unwrap();
        }
        for (_, packet) in stand.sent() {
            if let Body::Beat { answer, guardians } = packet.body {
                assert_eq!(guardians.len(), 2);
                asked += u32::from(answer);
                beats += 1;
                if due != last {
                    let gap = due - last;
                    assert!((ms(27)..=ms(30)).contains(&gap), "{gap:?}");
                    last = due;
                }
            }
        }
    }
    assert_eq!(beats, 800);
    assert!((100..150).contains(&asked), "two of six: {asked}");
}

#[test]
fn each_datagram_counts_once_and_may_overtake() {
    let mut stand = Stand::new();
    let packet = |incarnation, sequence| Packet {
        from: id(1),
        incarnation,
        to: 1,
        sequence,
        deaf: false,
        body: Body::Probe,
    };
    for (incarnation, sequence, fresh) in [
        (5, 100, true),
        (5, 100, false),
        (5, 98, true),
        (5, 98, false),
        (5, 37, true),
        (5, 36, false),
        (4, 200, false),
        (6, 1, true),
        (5, 101, false),
    ] {
        let taken = stand.take(ms(1), 1, &packet(incarnation, sequence));
        assert_eq!(taken.is_ok(), fresh, "{incarnation}/{sequence}: {taken:?}");
        if let Err(error) = taken {
            assert!(matches!(error, Error::Replayed { .. }), "{error}");
        }
    }
    assert_eq!(stand.member.counters().replayed, 5);
}

/// A recording of what a node said to this one before its restart proves nothing.
#[test]
fn what_is_for_an_earlier_start_proves_nothing_and_is_answered_once_a_beat() {
    let mut member = Member::new(name(0), Config::default(), ms(0));
    member.incarnation = 1;
    member.set_peers(ms(0), [(name(1), address(1))].into());
    let mut stand = Stand {
        member,
        sequence: 0,
    };
    stand.sent();
    let recorded = |sequence| Packet {
        from: id(1),
        incarnation: 5,
        to: 0,
        sequence,
        deaf: false,
        body: beat(&[0]),
    };
    for at in 1..=20 {
        stand.take(ms(at), 1, &recorded(at as u32)).unwrap();
    }
    assert_eq!(stand.events(), [], "not alive by that");
    let sent = stand.sent();
    let [(to, answer)] = &sent[..] else {
        panic!("{sent:?}")
    };
    assert_eq!((*to, answer.to), (address(1), 5));
    assert!(matches!(answer.body, Body::Hello { answer: true, .. }));
    // The living node's answer to that does.
    let answer = Packet {
        to: 1,
        ..recorded(30)
    };
    stand.take(ms(21), 1, &answer).unwrap();
    assert_eq!(stand.events(), [Event::Alive { node: name(1) }]);
}

#[test]
fn strangers_are_refused() {
    let mut stand = Stand::new();
    let error = stand.hear(ms(1), 3, Body::Probe).unwrap_err();
    assert_eq!(error, Error::UnknownPeer { id: id(3) });
    let double = stand.hear(ms(1), 0, Body::Probe).unwrap_err();
    let (own, from) = (name(0), address(0).ip());
    assert_eq!(double, Error::OwnName { name: own, from });
    let moved = Packet {
        from: id(1),
        ..packet(Body::Probe)
    };
    let error = stand.take(ms(1), 3, &moved).unwrap_err();
    let (expected, from) = (address(1).ip(), address(3).ip());
    let name = name(1);
    assert_eq!(
        error,
        Error::WrongAddress {
            name,
            expected,
            from
        }
    );
    assert_eq!(stand.member.counters().stranger, 3);
    // An IPv4 peer heard on an IPv6 socket is the same peer.
    let mapped = "[::ffff:10.0.0.2]:7946".parse().unwrap();
    let packet = Packet {
        to: 1,
        sequence: 99,
        ..moved
    };
    let bytes = packet.build(None).unwrap();
    stand.member.on_datagram(ms(1), mapped, &bytes).unwrap();
}

#[test]
fn a_leave_is_final_for_its_incarnation() {
    let mut stand = Stand::new();
    stand.hear(ms(2), 1, Body::Leave).unwrap();
    stand.hear(ms(3), 1, Body::Leave).unwrap();
    stand.hear(ms(4), 1, beat(&[0])).unwrap();
    assert_eq!(stand.events(), [Event::Left { node: name(1) }]);
    for at in (10..=3000).step_by(10) {
        stand.run(ms(at));
        stand.hear(ms(at), 2, beat(&[0])).unwrap();
    }
    assert_eq!(stand.events(), [], "who left does not die");
    let back = Packet {
        from: id(1),
        incarnation: 6,
        to: 1,
        sequence: 1,
        deaf: false,
        body: beat(&[0]),
    };
    stand.take(ms(3001), 1, &back).unwrap();
    assert_eq!(stand.events(), [Event::Alive { node: name(1) }]);
}

#[test]
fn leaving_says_so_and_falls_silent() {
    let mut stand = Stand::new();
    stand.member.leave(ms(10));
    let packets = stand.sent();
    assert_eq!(packets.len(), 6);
    assert!(packets.iter().all(|(_, packet)| packet.body == Body::Leave));
    assert_eq!(stand.member.poll_timeout(), None);
    stand.member.on_timeout(ms(9000));
    stand.member.leave(ms(9001));
    stand.member.set_payload(ms(9002), vec![1]).unwrap();
    stand.hear(ms(9003), 1, Body::Probe).unwrap();
    assert_eq!((stand.sent(), stand.events()), (vec![], vec![]));
    let isolated = stand.member.isolated(ms(9003));
    assert!(!isolated, "it answers until others have taken over");
}

#[test]
fn a_payload_goes_at_once_and_until_it_is_there() {
    let mut stand = Stand::new();
    stand.member.set_payload(ms(5), b"one".to_vec()).unwrap();
    let want = Some(Payload {
        version: 1,
        bytes: b"one".to_vec(),
    });
    let payload = |body: &Body| match body {
        Body::Hello { payload, .. } => payload.clone(),
        _ => None,
    };
    let sent: Vec<_> = stand.sent();
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|(_, packet)| payload(&packet.body) == want));
    stand.member.set_payload(ms(6), b"one".to_vec()).unwrap();
    assert_eq!(stand.sent(), [], "not new");
    let known = Body::Hello {
        answer: false,
        have: 1,
        payload: None,
    };
    stand.hear(ms(7), 1, known).unwrap();
    for at in (10..=200).step_by(10) {
        stand.run(ms(at));
        for peer in [1, 2] {
            stand.hear(ms(at), peer, beat(&[0])).unwrap();
        }
    }
    let mut got = [0, 0];
    for (to, packet) in stand.sent() {
        if payload(&packet.body).is_some() {
            got[usize::from(to == address(2))] += 1;
        }
    }
    assert!(got[0] == 0 && got[1] >= 2, "{got:?}");
    let long = stand.member.set_payload(ms(201), vec![0; 1025]);
    assert_eq!(long, Err(Error::PayloadLength { length: 1025 }));
}

#[test]
fn its_own_obituary_is_answered_with_the_next_life() {
    let mut stand = Stand::new();
    stand.hear(ms(5), 1, Body::Obituary(death(0, 0))).unwrap();
    assert_eq!(stand.events(), [], "of an earlier one");
    stand.hear(ms(6), 1, Body::Obituary(death(0, 1))).unwrap();
    let cause = Cause::Buried;
    assert_eq!(stand.events(), [Event::Isolated { cause }]);
    assert!(stand.member.isolated(ms(6)));
    let sent = stand.sent();
    assert!(sent.iter().all(|(_, packet)| packet.incarnation == 2));
    assert!(sent.len() >= 2, "everybody is told");
    stand.member.on_timeout(ms(6));
    let beats: Vec<_> = stand.sent();
    let asks = |packet: &Packet| matches!(packet.body, Body::Beat { answer: true, .. });
    let number = beats.iter().find(|(_, packet)| asks(packet)).unwrap();
    let sequence = number.1.sequence;
    let early = Body::Ack { sequence: 0 };
    stand.hear(ms(7), 1, early).unwrap();
    stand.hear(ms(8), 1, Body::Ack { sequence }).unwrap();
    assert!(stand.member.isolated(ms(8)), "two beats at least");
    stand.run(ms(66));
    assert!(!stand.member.isolated(ms(66)));
    assert!(stand.events().contains(&Event::Resumed));
}

#[test]
fn a_pause_kills_nobody_and_isolates() {
    let mut stand = Stand::new();
    stand.run(ms(40));
    stand.sent();
    assert!(!stand.member.isolated(ms(100)));
    assert!(
        stand.member.isolated(ms(9000)),
        "seen before any other call"
    );
    // A datagram is the first thing that it finds.
    stand.hear(ms(9000), 1, beat(&[0])).unwrap();
    let events = stand.events();
    let [Event::Isolated { cause }] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(matches!(cause, Cause::Paused { late } if *late > ms(8900)));
    // What waited in the socket says nothing of what others think of this node now.
    stand.hear(ms(9001), 1, Body::Ack { sequence: 3 }).unwrap();
    stand.run(ms(9080));
    assert!(stand.member.isolated(ms(9080)));
    assert_eq!(stand.events(), []);
    let mut numbers = stand.sent().into_iter();
    let asks = |packet: &Packet| matches!(packet.body, Body::Beat { answer: true, .. });
    let sequence = numbers.find(|(_, packet)| asks(packet)).unwrap().1.sequence;
    stand.hear(ms(9081), 1, Body::Ack { sequence }).unwrap();
    assert_eq!(stand.events(), [Event::Resumed]);
}

#[test]
fn who_has_no_peers_is_never_isolated() {
    let mut alone = Member::new(name(0), Config::default(), ms(0));
    alone.on_timeout(ms(0));
    assert!(!alone.isolated(ms(9000)), "nobody could have taken over");
    alone.on_timeout(ms(9000));
    assert!(!alone.isolated(ms(9000)));
}

#[test]
fn a_hiccup_is_added_to_the_deadlines() {
    let mut stand = Stand::new();
    stand.hear(ms(10), 1, beat(&[0, 2])).unwrap();
    stand.hear(ms(10), 2, beat(&[0, 1])).unwrap();
    let due = stand.member.poll_timeout().unwrap();
    // Peer 1's probes were due at 100; it was not this node's time to judge.
    stand.member.on_timeout(due + ms(80));
    assert_eq!(stand.member.counters().probed, 0);
    stand.run(ms(179));
    assert_eq!(stand.member.counters().probed, 0);
    stand.run(ms(181));
    assert_eq!(stand.member.counters().probed, 2);
}

#[test]
fn a_new_address_is_beaten_to() {
    let mut stand = Stand::new();
    let moved = address(9);
    let peers = [(name(1), moved), (name(2), address(2))];
    stand.member.set_peers(ms(10), peers.into());
    stand.run(ms(30));
    assert!(stand.events().is_empty(), "it keeps its state");
    assert!(stand.sent().iter().any(|(to, _)| *to == moved));
}

/// A cut that heals brings back several.
#[test]
fn when_one_of_the_dead_lives_the_others_are_called_at_once() {
    let mut stand = Stand::new();
    stand.run(ms(3_000));
    let mut dead: Vec<_> = stand.member.dead().collect();
    dead.sort();
    assert_eq!(dead, [1, 2].map(|n| address(n).ip()));
    stand.sent();
    // It read its obituary, and took the next incarnation.
    let to = stand.member.incarnation;
    let again = |sequence| Packet {
        from: id(1),
        incarnation: 6,
        to,
        sequence,
        deaf: false,
        body: beat(&[0]),
    };
    stand.take(ms(3_000), 1, &again(1)).unwrap();
    let called = |bodies: Vec<Body>| {
        let hello = |body: &&Body| matches!(body, Body::Hello { answer: true, .. });
        bodies.iter().filter(hello).count()
    };
    assert_eq!(called(stand.bodies(2)), 1);
    assert_eq!(stand.member.dead().collect::<Vec<_>>(), [address(2).ip()]);
    // One that was heard before calls nobody.
    stand.take(ms(3_001), 1, &again(2)).unwrap();
    assert_eq!(called(stand.bodies(2)), 0);
}

#[test]
fn a_beat_that_waited_counts_from_its_arrival() {
    let probes_at = |read: Duration, arrived: Duration| {
        let mut stand = Stand::new();
        stand.hear(ms(5), 1, beat(&[0])).unwrap();
        stand.run(read);
        stand.read(read, arrived, 1).unwrap();
        for at in (30..=180).step_by(1) {
            // 2 is heard all the time.
            stand.hear(ms(at), 2, beat(&[0])).unwrap();
            stand.sent();
            stand.run(ms(at));
            if stand.bodies(1).contains(&Body::Probe) {
                return at;
            }
        }
        panic!("no probe");
    };
    assert_eq!(probes_at(ms(28), ms(28)), 118);
    assert_eq!(probes_at(ms(28), ms(10)), 100);
    // One that was overtaken by another takes nothing back, and none comes from the future.
    assert_eq!(probes_at(ms(28), ms(1)), 95);
    assert_eq!(probes_at(ms(28), ms(99)), 118);
}

#[test]
fn datagrams_may_wait_while_nothing_is_amiss() {
    let mut stand = Stand::new();
    assert!(stand.member.may_wait());
    // Somebody is not known yet.
    let peers = [0, 1, 2, 3].map(|n| (name(n), address(n)));
    stand.member.set_peers(ms(1), peers.into());
    assert!(!stand.member.may_wait());
    stand.hear(ms(2), 3, beat(&[])).unwrap();
    assert!(stand.member.may_wait());
    // Somebody is missed: what it still says is to be answered with its obituary at once.
    let obituary = Body::Obituary(death(3, 5));
    stand.hear(ms(3), 1, obituary).unwrap();
    assert!(!stand.member.may_wait());
    let peers = [0, 1, 2].map(|n| (name(n), address(n)));
    stand.member.set_peers(ms(4), peers.into());
    assert!(stand.member.may_wait());
    // Who left on purpose is not missed.
    stand.hear(ms(5), 2, Body::Leave).unwrap();
    assert!(stand.member.may_wait());
    // An acknowledgement ends its isolation.
    stand.member.on_timeout(ms(9000));
    assert!(stand.member.isolated(ms(9000)));
    assert!(!stand.member.may_wait());

    // So does one its end.
    let mut stand = Stand::new();
    stand.member.make_way(ms(1), ms(5000));
    assert!(!stand.member.may_wait());
}

#[test]
fn who_votes_on_one_that_has_left_is_told() {
    let mut stand = Stand::new();
    stand.hear(ms(10), 1, Body::Leave).unwrap();
    stand.sent();
    let vote = Body::Vote(death(1, 5));
    stand.hear(ms(200), 2, vote).unwrap();
    let told = Body::Obituary(death(1, 5));
    assert!(stand.bodies(2).contains(&told));
    // One of a later start is not over.
    stand.hear(ms(210), 2, Body::Vote(death(1, 6))).unwrap();
    assert!(!stand.bodies(2).contains(&Body::Obituary(death(1, 6))));
}
