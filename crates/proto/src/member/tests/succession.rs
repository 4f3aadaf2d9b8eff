//! Ends that a next start follows.

use super::{
    behaviour::{Stand, beat, dead, death},
    *,
};

const FOLLOW: Body = Body::Follow { within: 500 };

/// A datagram of peer 1, which is away: of that incarnation.
fn of(incarnation: u64, sequence: u32, body: Body) -> Packet {
    Packet {
        from: id(1),
        incarnation,
        to: 1,
        sequence,
        deaf: false,
        body,
    }
}

fn acks(bodies: &[Body]) -> usize {
    let ack = |body: &&Body| matches!(body, Body::Ack { .. });
    bodies.iter().filter(ack).count()
}

/// Peer 2 is there all the time, and has this node as its guardian.
fn until(stand: &mut Stand, from: u64, until: u64) {
    for at in (from..=until).step_by(10) {
        stand.run(ms(at));
        stand.hear(ms(at), 2, beat(&[0])).unwrap();
    }
}

#[test]
fn who_says_that_its_next_start_follows_is_waited_for_and_no_longer() {
    let mut stand = Stand::new();
    stand.hear(ms(10), 1, beat(&[0, 2])).unwrap();
    stand.hear(ms(11), 1, FOLLOW).unwrap();
    assert_eq!(acks(&stand.bodies(1)), 1);
    // What it said before comes later, and the copies change nothing.
    stand.hear(ms(12), 1, beat(&[0, 2])).unwrap();
    stand.hear(ms(20), 1, FOLLOW).unwrap();
    assert_eq!(acks(&stand.bodies(1)), 1, "each copy is answered");
    until(&mut stand, 20, 510);
    assert_eq!(stand.events(), []);
    assert_eq!(stand.member.counters().probed, 0, "nobody guards it");
    stand.sent();
    stand.run(ms(511));
    assert_eq!(stand.events(), [dead(1)]);
    // What it left in the network does not bring it back.
    stand.hear(ms(512), 1, beat(&[0, 2])).unwrap();
    assert_eq!(stand.events(), []);
    let bodies = stand.bodies(1);
    assert!(bodies.contains(&Body::Obituary(death(1, 5))), "{bodies:?}");
}

#[test]
fn the_next_start_ends_the_wait() {
    let mut stand = Stand::new();
    stand.hear(ms(10), 1, FOLLOW).unwrap();
    until(&mut stand, 20, 300);
    stand.take(ms(301), 1, &of(6, 1, beat(&[0, 2]))).unwrap();
    // A recording of the notice proves nothing any more.
    let replayed = stand.take(ms(302), 1, &of(5, 90, FOLLOW));
    assert!(matches!(replayed, Err(Error::Replayed { .. })));
    assert_eq!(stand.events(), [], "it was there all the time");
    stand.sent();
    until(&mut stand, 310, 390);
    let probes = stand.bodies(1);
    let probes = probes.iter().filter(|body| **body == Body::Probe).count();
    assert_eq!(probes, 0, "heard at 301");
    until(&mut stand, 400, 420);
    assert_eq!(stand.member.counters().probed, 1, "it is guarded again");
}

#[test]
fn nobody_is_waited_for_without_end() {
    let mut stand = Stand::new();
    let within = u32::MAX;
    stand.hear(ms(10), 1, Body::Follow { within }).unwrap();
    until(&mut stand, 20, 10_000);
    assert_eq!(stand.events(), []);
    until(&mut stand, 10_010, 10_010);
    assert_eq!(stand.events(), [dead(1)]);
}

#[test]
fn who_is_away_is_no_guardian_and_not_waited_for() {
    let mut stand = Stand::new();
    stand.hear(ms(10), 2, beat(&[0, 1])).unwrap();
    stand.hear(ms(20), 1, FOLLOW).unwrap();
    let beats: Vec<Body> = stand.bodies(2);
    assert!(beats.contains(&beat(&[2])), "{beats:?}");
    // 2 dies: 1 has no vote that would be waited for.
    stand.run(ms(200));
    assert_eq!(stand.events(), [dead(2)]);
    assert!(!stand.member.isolated(ms(200)), "it goes on alone");
    assert_eq!(
        stand.member.poll_timeout().map(|due| due > ms(200)),
        Some(true)
    );
}

#[test]
fn with_nobody_but_one_that_is_away_there_is_nobody_to_hear() {
    let mut member = Member::new(name(0), Config::default(), ms(0));
    member.set_peers(ms(0), [(name(1), address(1))].into());
    let beats = of(5, 1, beat(&[0])).build(None).unwrap();
    member.on_datagram(ms(1), address(1), &beats).unwrap();
    let follow = of(5, 2, FOLLOW).build(None).unwrap();
    member.on_datagram(ms(2), address(1), &follow).unwrap();
    while let Some(due) = member.poll_timeout().filter(|due| *due <= ms(400)) {
        member.on_timeout(due);
    }
    assert!(!member.isolated(ms(400)));
    // Not run for a while: nobody has taken anything in that time.
    member.on_timeout(ms(800));
    assert!(member.isolated(ms(800)));
    while let Some(due) = member.poll_timeout().filter(|due| *due <= ms(870)) {
        member.on_timeout(due);
    }
    assert!(!member.isolated(ms(870)), "two beats");
    // And as it was not run, it gave the other one more time.
    let gone: Vec<Event> = std::iter::from_fn(|| member.poll_event()).collect();
    assert!(!gone.contains(&dead(1)), "{gone:?}");
}

#[test]
fn who_makes_way_says_so_until_all_have_acknowledged_it() {
    let mut stand = Stand::new();
    stand.member.make_way(ms(10), ms(500));
    let said: Vec<_> = stand.sent();
    assert_eq!(said.len(), 2, "everybody is told");
    assert!(said.iter().all(|(_, packet)| packet.body == FOLLOW));
    let number = |to: usize| {
        let (_, packet) = said.iter().find(|(at, _)| *at == address(to)).unwrap();
        packet.sequence
    };
    // An answer to an earlier beat says nothing of this.
    stand.hear(ms(11), 1, Body::Ack { sequence: 1 }).unwrap();
    let sequence = number(1);
    stand.hear(ms(11), 1, Body::Ack { sequence }).unwrap();
    stand.hear(ms(11), 2, Body::Probe).unwrap();
    stand.run(ms(14));
    let again = stand.sent();
    let [(to, _)] = &again[..] else {
        panic!("{again:?}")
    };
    assert_eq!(*to, address(2));
    assert!(!stand.member.has_left());
    let sequence = number(2);
    stand.hear(ms(15), 2, Body::Ack { sequence }).unwrap();
    assert!(stand.member.has_left());
    assert_eq!(stand.member.poll_timeout(), None);
    stand.member.on_timeout(ms(9000));
    assert_eq!(stand.sent(), []);
    assert!(!stand.member.isolated(ms(9000)));
}

#[test]
fn who_makes_way_ends_also_unheard() {
    let mut stand = Stand::new();
    stand.member.make_way(ms(10), ms(500));
    stand.run(ms(29));
    assert!(!stand.member.has_left());
    stand.run(ms(30));
    assert!(stand.member.has_left());
    assert_eq!(stand.sent().len(), 10, "five copies each");
    // Without peers there is nobody to tell.
    let mut alone = Member::new(name(0), Config::default(), ms(0));
    alone.make_way(ms(0), ms(500));
    assert!(alone.has_left());
}
