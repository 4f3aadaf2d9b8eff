//! `proto::member` in virtual time: what the many do together. Every test has a fixed seed, so it
//! passes always or never.

// Some of it only others use: `plan`'s tests, the soak.
#[allow(dead_code)]
mod sim;
mod succession;

use std::time::Duration;

use proto::member::{Cause, Event, Profile};
use sim::{Net, Setup, address, ms, name};

/// Longest time from a death to the last node that knows: detection, a beat's share, two
/// latencies, a lost vote.
const KNOWN: Duration = Duration::from_millis(130);

fn dead(node: usize) -> Event {
    Event::Dead { node: name(node) }
}

fn alive(node: usize) -> Event {
    Event::Alive { node: name(node) }
}

/// A network that has settled.
fn settled(setup: Setup) -> Net {
    let mut net = Net::new(setup);
    net.run_for(ms(1500));
    let all: Vec<usize> = (0..setup.nodes).collect();
    assert!(net.agree(&all), "{:?}", net.log);
    net.log.clear();
    net
}

#[test]
fn nodes_meet_at_once() {
    for nodes in [1, 2, 3, 5, 20] {
        let mut net = Net::new(Setup::of(nodes));
        net.run_for(ms(15));
        let all: Vec<usize> = (0..nodes).collect();
        assert!(net.agree(&all), "{nodes}: {:?}", net.log);
        net.run_for(ms(5000));
        assert_eq!(net.log.len(), nodes * (nodes - 1), "nothing but meetings");
    }
}

#[test]
fn a_death_is_known_to_all_in_time() {
    let mut all = Vec::new();
    for (nodes, loss) in [(2, 0), (3, 0), (3, 50), (4, 50), (5, 50), (9, 50), (30, 50)] {
        for seed in 0..10 {
            let mut net = settled(Setup {
                loss,
                seed,
                ..Setup::of(nodes)
            });
            net.run_for(ms(seed * 7));
            let died = net.now;
            net.die(nodes - 1);
            net.run_for(ms(3000));
            let seen = net.seen(died, &dead(nodes - 1));
            assert_eq!(seen.len(), nodes - 1, "{nodes} nodes, seed {seed}");
            assert_eq!(net.deaths(), nodes - 1, "{nodes} nodes, seed {seed}: false");
            all.extend(seen);
        }
    }
    all.sort();
    let at = |share: usize| all[(all.len() - 1) * share / 100];
    println!("known after {:?} {:?} {:?}", at(0), at(50), at(100));
    assert!(
        at(0) > ms(70) && at(100) <= KNOWN,
        "{:?} {:?}",
        at(0),
        at(100)
    );
}

#[test]
fn the_fast_profile_is_faster_and_the_slow_one_slower() {
    for (profile, least, most) in [
        (Profile::FAST, 22, 42),
        (Profile::DEFAULT, 70, 130),
        (Profile::SLOW, 700, 1200),
    ] {
        let mut net = Net::new(Setup {
            profile,
            ..Setup::of(4)
        });
        net.run_for(ms(5000));
        let died = net.now;
        net.die(0);
        net.run_for(ms(5000));
        let seen = net.seen(died, &dead(0));
        assert_eq!(seen.len(), 3);
        let fits = |at: &Duration| (ms(least)..=ms(most)).contains(at);
        assert!(seen.iter().all(fits), "{profile:?}: {seen:?}");
    }
}

#[test]
fn a_planned_stop_and_a_restart_are_seen_in_milliseconds() {
    for seed in 0..10 {
        let mut net = settled(Setup {
            loss: 50,
            seed,
            keyed: true,
            ..Setup::of(4)
        });
        let left = net.now;
        net.with(3, |member, now| member.leave(now));
        net.run_for(ms(300));
        let seen = net.seen(left, &Event::Left { node: name(3) });
        assert!(
            seen.len() == 3 && seen.iter().all(|at| *at < ms(3)),
            "seed {seed}: {seen:?}"
        );
        let back = net.now;
        net.start(3, 2_000_000);
        net.run_for(ms(600));
        assert_eq!(net.seen(back, &alive(3)).len(), 3, "seed {seed}");
        assert_eq!(net.deaths(), 0);
    }
}

#[test]
fn a_restart_within_a_beat_is_no_death() {
    let mut net = settled(Setup::of(3));
    net.die(0);
    net.run_for(ms(20));
    net.start(0, 2_000_000);
    net.run_for(ms(3000));
    assert_eq!(net.deaths(), 0, "{:?}", net.log);
    assert!(net.agree(&[0, 1, 2]));
}

/// Also where a datagram of the new start is lost: what was known of the one before counts for nothing.
#[test]
fn a_restart_is_known_to_all_and_with_its_payload() {
    for seed in 0..10 {
        let mut net = settled(Setup {
            loss: 100,
            seed,
            ..Setup::of(12)
        });
        for payload in [b"before", b"behind"] {
            net.start(0, net.now.as_millis() as u64 + 2_000_000);
            let set = net.now;
            let set_payload = net.with(0, |member, now| member.set_payload(now, payload.to_vec()));
            set_payload.expect("short");
            net.run_for(ms(900));
            let told = |(at, who, event): &&(_, usize, Event)| {
                let new = matches!(event, Event::Payload { bytes, .. } if bytes == payload);
                *at >= set && *who != 0 && new
            };
            assert_eq!(net.log.iter().filter(told).count(), 11, "seed {seed}");
        }
    }
}

/// A clock that was set back gives a smaller incarnation: the others say what they know.
#[test]
fn a_restart_with_a_clock_set_back_is_known_too() {
    let mut net = settled(Setup::of(3));
    net.die(0);
    net.run_for(ms(500));
    net.start(0, 5);
    net.run_for(ms(200));
    assert!(net.agree(&[0, 1, 2]), "{:?}", net.log);
    net.run_for(ms(5000));
    assert!(net.agree(&[0, 1, 2]));
}

#[test]
fn a_payload_reaches_everyone_in_spite_of_loss() {
    let mut net = settled(Setup {
        loss: 300,
        seed: 7,
        ..Setup::of(4)
    });
    let set = net.now;
    net.with(0, |member, now| {
        member.set_payload(now, b"draining".to_vec())
    })
    .expect("short");
    net.run_for(ms(1000));
    let payloads = net.log.iter().filter(|(at, _, event)| {
        *at >= set && matches!(event, Event::Payload { bytes, .. } if bytes == b"draining")
    });
    assert_eq!(payloads.count(), 3);
}

/// Dead for the others, it wakes, kills nobody, and answers again once a guardian has heard it.
#[test]
fn a_paused_node_comes_back_quietly() {
    for (nodes, pause) in [(2, 300), (3, 200), (3, 2000), (6, 5000)] {
        let mut net = settled(Setup::of(nodes));
        let before = net.now;
        net.freeze(0, ms(pause));
        net.run(before + ms(pause) - ms(1));
        assert_eq!(net.seen(before, &dead(0)).len(), nodes - 1);
        assert!(
            net.member(0).isolated(net.now),
            "seen before any other call"
        );
        let woke = before + ms(pause);
        net.run(woke + ms(3000));
        let own: Vec<_> = net.log.iter().filter(|(_, who, _)| *who == 0).collect();
        let [
            (
                began,
                _,
                Event::Isolated {
                    cause: Cause::Paused { .. },
                },
            ),
            (resumed, _, Event::Resumed),
        ] = own[..]
        else {
            panic!("{own:?}")
        };
        assert_eq!(*began, woke);
        let took = *resumed - woke;
        assert!(took >= ms(60) && took < ms(70), "two beats: {took:?}");
        let back = net.seen(woke, &alive(0));
        assert_eq!(back.len(), nodes - 1);
        assert!(
            back.iter().all(|at| *at < took),
            "the others yield before: {back:?}"
        );
        assert!(net.agree(&(0..nodes).collect::<Vec<_>>()));
    }
}

/// The network is gone for one node: it is silent before the others take over, and does not answer
/// when it is back until it was heard.
#[test]
fn a_node_that_is_cut_off_is_silent_until_it_is_back() {
    let mut net = settled(Setup::of(4));
    let cut = net.now;
    net.cut_off(2);
    net.run_for(ms(500));
    let silent: Vec<_> = net.log.iter().filter(|(_, who, _)| *who == 2).collect();
    let [(at, _, Event::Isolated { cause: Cause::Deaf })] = silent[..] else {
        panic!("{silent:?}")
    };
    assert!(*at - cut <= ms(112), "{:?}", *at - cut);
    assert_eq!(net.seen(cut, &dead(2)).len(), 3);
    assert_eq!(net.deaths(), 3, "it buries nobody");
    let healed = net.now;
    net.heal();
    net.run_for(ms(1000));
    assert_eq!(net.seen(healed, &Event::Resumed).len(), 1);
    assert!(net.agree(&[0, 1, 2, 3]), "{:?}", net.log);
    assert!(!net.member(2).isolated(net.now));
}

#[test]
fn a_node_that_only_hears_or_only_speaks_counts_as_dead_and_is_silent() {
    for deaf in [true, false] {
        let mut net = settled(Setup::of(4));
        let cut = net.now;
        for other in 1..4 {
            if deaf {
                net.cut(other, 0);
            } else {
                net.cut(0, other);
            }
        }
        net.run_for(ms(260));
        assert_eq!(
            net.seen(cut, &dead(0)).len(),
            3,
            "deaf {deaf}: {:?}",
            net.log
        );
        assert!(net.member(0).isolated(net.now), "deaf {deaf}");
        net.heal();
        net.run_for(ms(1000));
        assert!(net.agree(&[0, 1, 2, 3]), "deaf {deaf}: {:?}", net.log);
        assert!(!net.member(0).isolated(net.now), "deaf {deaf}");
    }
}

/// One broken path between two nodes kills neither: the other guardians hear both.
#[test]
fn a_cut_between_two_of_many_kills_nobody() {
    for (from, to) in [(0, 1), (1, 0), (2, 3)] {
        let mut net = settled(Setup::of(5));
        net.cut(from, to);
        net.run_for(ms(1500));
        assert_eq!(net.deaths(), 0, "{:?}", net.log);
    }
}

#[test]
fn two_that_do_not_hear_each_other_both_go_on() {
    let mut net = settled(Setup::of(2));
    let cut = net.now;
    net.cut_off(1);
    net.run_for(ms(1000));
    assert_eq!(
        net.seen(cut, &dead(0)).len() + net.seen(cut, &dead(1)).len(),
        2
    );
    assert!(!net.member(0).isolated(net.now) && !net.member(1).isolated(net.now));
    let healed = net.now;
    net.heal();
    net.run_for(ms(1000));
    assert!(net.agree(&[0, 1]), "{:?}", net.log);
    let resumed = net.seen(healed, &Event::Resumed);
    assert_eq!(resumed.len(), 2, "both had been buried");
    assert!(resumed.iter().all(|at| *at < ms(400)), "{resumed:?}");
}

#[test]
fn the_last_of_three_goes_on_alone() {
    let mut net = settled(Setup::of(3));
    let died = net.now;
    net.die(1);
    net.die(2);
    net.run_for(ms(300));
    // It cannot know whether it was cut off.
    assert!(net.member(0).isolated(net.now));
    net.run_for(ms(1100));
    assert!(!net.member(0).isolated(net.now), "{:?}", net.log);
    assert_eq!(
        net.seen(died, &dead(1)).len() + net.seen(died, &dead(2)).len(),
        2
    );
}

/// A node that was cut off for long answers, alone. When it hears the others it falls silent, though
/// what it says does not arrive yet (ARP over a link that has just come back).
#[test]
fn who_went_on_alone_is_silent_when_it_hears_that_others_lived() {
    for nodes in [3, 6] {
        let mut net = settled(Setup::of(nodes));
        net.cut_off(0);
        net.run_for(ms(3000));
        assert!(!net.member(0).isolated(net.now), "alone: {:?}", net.log);
        let healed = net.now;
        net.heal();
        for other in 1..nodes {
            net.cut(0, other);
        }
        // Each of the others calls it every second beat.
        net.run_for(ms(70));
        assert!(net.member(0).isolated(net.now), "{:?}", net.log);
        let alone = Event::Isolated {
            cause: Cause::Alone,
        };
        assert_eq!(net.seen(healed, &alone).len(), 1);
        net.run_for(ms(900));
        assert!(net.member(0).isolated(net.now), "not heard by anybody yet");
        assert!((1..nodes).all(|at| !net.sees(at, 0)));
        net.heal();
        net.run_for(ms(300));
        assert!(net.agree(&(0..nodes).collect::<Vec<_>>()), "{:?}", net.log);
        assert!(!net.member(0).isolated(net.now));
    }
}

/// The others died and are started again: they take nothing from who went on alone.
#[test]
fn who_is_alone_does_not_fall_silent_for_a_fresh_start() {
    let mut net = settled(Setup::of(3));
    net.die(1);
    net.die(2);
    net.run_for(ms(2000));
    assert!(!net.member(0).isolated(net.now), "alone: {:?}", net.log);
    let started = net.now;
    net.start(1, 2_000_000);
    net.run_for(ms(500));
    assert!(net.agree(&[0, 1]), "{:?}", net.log);
    let own = net
        .log
        .iter()
        .filter(|(at, who, _)| *at >= started && *who == 0);
    let silent = own.filter(|(_, _, event)| matches!(event, Event::Isolated { .. }));
    assert_eq!(silent.count(), 0, "{:?}", net.log);
}

#[test]
fn one_after_another_each_death_is_found_in_time() {
    let mut net = settled(Setup::of(5));
    for victim in [4, 2, 0, 1] {
        let died = net.now;
        net.die(victim);
        net.run_for(ms(500));
        let seen = net.seen(died, &dead(victim));
        assert!(seen.iter().all(|at| *at <= KNOWN), "{victim}: {seen:?}");
        assert!(!net.member(3).isolated(net.now), "{victim}: {:?}", net.log);
    }
    assert_eq!(net.seen(ms(0), &dead(1)).len(), 1);
}

#[test]
fn a_network_in_two_parts_grows_together_again() {
    let mut net = settled(Setup::of(6));
    let (left, right) = ([0, 1, 2], [3, 4, 5]);
    for one in left {
        for other in right {
            net.cut(one, other);
            net.cut(other, one);
        }
    }
    net.run_for(Duration::from_secs(15));
    for (part, others) in [(left, right), (right, left)] {
        for at in part {
            assert!(!net.member(at).isolated(net.now), "{at}: {:?}", net.log);
            assert!(part.iter().all(|of| at == *of || net.sees(at, *of)));
            assert!(!others.iter().any(|of| net.sees(at, *of)), "{at}");
        }
    }
    net.heal();
    net.run_for(ms(2000));
    assert!(net.agree(&[0, 1, 2, 3, 4, 5]), "{:?}", net.log);
    assert!((0..6).all(|at| !net.member(at).isolated(net.now)));
}

#[test]
fn nodes_come_and_go_from_the_list() {
    let mut net = settled(Setup::of(4));
    // 3 is removed from everyone's list and stops; nobody mourns it.
    for at in 0..3 {
        net.with(at, |member, now| {
            let peers = (0..3).map(|n| (name(n), address(n)));
            member.set_peers(now, peers.collect());
        });
    }
    net.die(3);
    net.run_for(ms(3000));
    assert_eq!(net.deaths(), 0, "{:?}", net.log);
    // And comes back to it, though it does not run yet.
    let back = net.now;
    for at in 0..3 {
        net.with(at, |member, now| {
            let peers = (0..4).map(|n| (name(n), address(n)));
            member.set_peers(now, peers.collect());
        });
    }
    net.run_for(ms(2000));
    assert_eq!(net.seen(back, &dead(3)).len(), 3, "unknown for a second");
    net.start(3, 2_000_000);
    net.run_for(ms(300));
    assert!(net.agree(&[0, 1, 2, 3]), "{:?}", net.log);
}

/// Ten minutes here; a day in `cargo xtask soak member`.
#[test]
fn no_false_death_at_five_percent_loss() {
    for nodes in [2, 5] {
        let mut net = settled(Setup {
            loss: 50,
            seed: 42,
            ..Setup::of(nodes)
        });
        net.run_for(Duration::from_secs(300));
        assert_eq!(net.deaths(), 0, "{nodes}: {:?}", net.log);
    }
}

/// The simulation can see false deaths, and each of them heals.
#[test]
fn heavy_loss_does_kill_and_heals() {
    let mut net = settled(Setup::of(2));
    net.setup.loss = 600;
    net.run_for(Duration::from_secs(60));
    assert!(net.deaths() > 0);
    net.setup.loss = 0;
    net.run_for(ms(1500));
    assert!(net.agree(&[0, 1]));
    assert!((0..2).all(|at| !net.member(at).isolated(net.now)));
}

/// Of each node, headers of IPv4 and UDP among it, sent and received: the same for 8 and for 150.
#[test]
fn the_cost_of_a_node_does_not_grow() {
    let cost = |nodes| {
        let mut net = settled(Setup {
            keyed: false,
            ..Setup::of(nodes)
        });
        let (before, time) = (net.traffic.clone(), Duration::from_secs(4));
        net.run_for(time);
        let datagrams = |traffic: &[sim::Traffic]| traffic.iter().map(|t| t.datagrams).sum::<u64>();
        let sent = datagrams(&net.traffic) - datagrams(&before);
        // Without the tag: added here, since hashing is slow in a debug build.
        let tags = sent as f64 * 16.0 * 8.0 / time.as_secs_f64() / nodes as f64;
        2.0 * (net.bits_per_second(&before, time) + tags)
    };
    let (few, many) = (cost(8), cost(150));
    println!("{few:.0} {many:.0} bit/s");
    assert!(few < 200_000.0 && many < 200_000.0, "{few} {many}");
    assert!((few - many).abs() < few / 20.0, "{few} {many}");
}

/// With what agents say of themselves: until that is known to all, there are hellos.
#[test]
fn a_node_that_has_nothing_to_do_is_woken_about_once_a_beat() {
    for (nodes, most) in [(2, 60.0), (3, 38.0), (4, 38.0), (5, 60.0), (20, 70.0)] {
        let mut net = Net::new(Setup::of(nodes));
        for node in 0..nodes {
            let set = net.with(node, |member, now| member.set_payload(now, vec![7; 40]));
            set.expect("short");
        }
        net.run_for(ms(3000));
        let before: Vec<u64> = (0..nodes).map(|node| net.woken(node)).collect();
        net.run_for(ms(60_000));
        for (node, before) in before.into_iter().enumerate() {
            let rate = (net.woken(node) - before) as f64 / 60.0;
            println!("{nodes} nodes: {rate}");
            assert!(
                (33.0..most).contains(&rate),
                "{nodes} nodes: {rate} a second"
            );
        }
    }
}

/// Where nodes beat to each other there are no hellos once both know all; but what is new, and what
/// was missed because of loss, is said.
#[test]
fn what_is_new_is_known_among_few_in_spite_of_loss() {
    let mut net = settled(Setup {
        seed: 3,
        ..Setup::of(3)
    });
    for change in 1..=40u8 {
        let node = usize::from(change) % 3;
        net.setup.loss = 600;
        let set = net.with(node, |member, now| member.set_payload(now, vec![change]));
        set.expect("short");
        // So much is lost that hellos are repeated in vain, now and then, and nodes are buried.
        net.run_for(ms(1500));
        net.setup.loss = 0;
        net.run_for(ms(4000));
        assert!(net.agree(&[0, 1, 2]));
        for at in (0..3).filter(|at| *at != node) {
            assert_eq!(
                net.told(at, node),
                Some([change].as_slice()),
                "{at} of {node}"
            );
        }
    }
}
