//! Ends that a next start follows: upgrades.

use std::time::Duration;

use proto::member::Event;

use super::sim::{Net, Setup, ms, name};
use super::{KNOWN, dead, settled};

/// How long the next start may take.
const WITHIN: Duration = Duration::from_secs(2);

/// Node 0 says that its next start follows, and ends.
fn make_way(net: &mut Net) {
    net.with(0, |member, now| member.make_way(now, WITHIN));
    while !net.member(0).has_left() {
        net.run_for(ms(1));
    }
    net.die(0);
}

fn quiet(net: &Net) -> bool {
    let loud = |event: &Event| !matches!(event, Event::Payload { .. });
    !net.log.iter().any(|(_, _, event)| loud(event))
}

#[test]
fn an_upgrade_is_no_death() {
    for (nodes, loss) in [(2, 0), (3, 0), (2, 50), (3, 50), (5, 50), (30, 50)] {
        for seed in 0..10 {
            let mut net = settled(Setup {
                loss,
                seed,
                keyed: nodes == 3,
                ..Setup::of(nodes)
            });
            net.run_for(ms(seed * 7));
            make_way(&mut net);
            // In time for what is lost on the way to be said again.
            net.run_for(ms(1200));
            net.start(0, 2_000_000);
            net.run_for(ms(800));
            let others = |of: &Net| {
                let seen = of.log.iter().filter(|(_, who, _)| *who != 0);
                seen.cloned().collect::<Vec<_>>()
            };
            assert_eq!(others(&net), [], "{nodes} nodes, {loss} ‰, seed {seed}");
            let all: Vec<usize> = (0..nodes).collect();
            assert!(net.agree(&all), "{nodes} nodes, {loss} ‰, seed {seed}");
        }
    }
}

/// As a rolling update does it.
#[test]
fn all_are_upgraded_one_after_another() {
    let mut net = settled(Setup {
        loss: 20,
        seed: 3,
        ..Setup::of(3)
    });
    for node in 0..3 {
        net.with(node, |member, now| member.make_way(now, WITHIN));
        net.run_for(ms(25));
        assert!(net.member(node).has_left());
        net.die(node);
        net.run_for(ms(700));
        net.start(node, 2_000_000);
        net.run_for(ms(1000));
    }
    assert_eq!(net.deaths(), 0, "{:?}", net.log);
    let isolated = |event: &Event| matches!(event, Event::Isolated { .. });
    assert!(!net.log.iter().any(|(_, _, event)| isolated(event)));
    assert!(net.agree(&[0, 1, 2]));
}

#[test]
fn a_successor_that_never_comes_is_found_dead_after_the_bound() {
    for nodes in [2, 3, 5] {
        let mut net = settled(Setup {
            loss: 50,
            ..Setup::of(nodes)
        });
        let said = net.now;
        make_way(&mut net);
        net.run(said + WITHIN - ms(1));
        assert!(quiet(&net), "{nodes}: {:?}", net.log);
        net.run(said + WITHIN + ms(25));
        assert_eq!(net.seen(said, &dead(0)).len(), nodes - 1, "{nodes}");
        // And if it comes after all, it lives.
        net.start(0, 2_000_000);
        net.run_for(ms(800));
        assert!(net.agree(&(0..nodes).collect::<Vec<_>>()), "{nodes}");
    }
}

/// Without the notice the end is what it looks like.
#[test]
fn a_notice_that_reaches_nobody_is_none() {
    let mut net = settled(Setup::of(4));
    net.cut_off(0);
    let ended = net.now;
    make_way(&mut net);
    net.run_for(ms(500));
    let seen = net.seen(ended, &dead(0));
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|at| *at <= KNOWN), "{seen:?}");
}

/// A majority of the guardians knows better than one.
#[test]
fn a_notice_that_one_does_not_hear_holds() {
    for deaf in 1..5 {
        let mut net = settled(Setup::of(5));
        net.cut(0, deaf);
        make_way(&mut net);
        net.run_for(ms(1000));
        net.heal();
        net.start(0, 2_000_000);
        net.run_for(ms(1000));
        assert_eq!(net.deaths(), 0, "{deaf}: {:?}", net.log);
        assert!(net.agree(&[0, 1, 2, 3, 4]));
    }
}

/// Who is away guards nobody: the others find a death without it.
#[test]
fn a_death_meanwhile_is_found_in_time() {
    for nodes in [2, 3, 5] {
        let mut net = settled(Setup::of(nodes));
        make_way(&mut net);
        net.run_for(ms(100));
        let died = net.now;
        if nodes > 2 {
            net.die(1);
        }
        net.run_for(ms(400));
        let seen = net.seen(died, &dead(1));
        assert_eq!(seen.len(), nodes - 2, "{nodes}");
        assert!(seen.iter().all(|at| *at <= KNOWN), "{nodes}: {seen:?}");
        let last = nodes - 1;
        assert!(
            !net.member(last).isolated(net.now),
            "{nodes}: {:?}",
            net.log
        );
        assert_eq!(net.seen(died, &dead(0)).len(), 0, "{nodes}");
        let node = name(0);
        assert_eq!(net.seen(died, &Event::Left { node }).len(), 0);
    }
}
