use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use proptest::prelude::*;

use super::*;

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 101));

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// Runs until `end` and gives the times at which each address was due, in ms.
fn run(announcer: &mut Announcer, end: Duration) -> BTreeMap<IpAddr, Vec<u128>> {
    let mut sent: BTreeMap<IpAddr, Vec<u128>> = BTreeMap::new();
    while let Some(now) = announcer.poll_timeout().filter(|&due| due <= end) {
        for ip in announcer.on_timeout(now) {
            sent.entry(ip).or_default().push(now.as_millis());
        }
    }
    sent
}

#[test]
fn burst_then_refresh() {
    let mut announcer = Announcer::new(Config::default());
    announcer.trigger(ms(1000), VIP);
    let sent = run(&mut announcer, ms(200_000)).remove(&VIP).unwrap();
    assert_eq!(sent[..5], [1000, 2100, 3200, 4300, 5400]);
    let gaps: Vec<u128> = sent[4..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        gaps.len() >= 3 && gaps.iter().all(|gap| (45_000..=60_000).contains(gap)),
        "{gaps:?}"
    );
}

#[test]
fn a_trigger_is_due_at_once_and_starts_the_burst_anew() {
    let config = Config {
        refresh: None,
        ..Config::default()
    };
    let mut announcer = Announcer::new(config);
    announcer.trigger(ms(0), VIP);
    assert_eq!(run(&mut announcer, ms(4000))[&VIP], [0, 1100, 2200, 3300]);
    announcer.trigger(ms(4000), VIP);
    assert_eq!(
        run(&mut announcer, ms(60_000))[&VIP],
        [4000, 5100, 6200, 7300, 8400]
    );
    assert_eq!(announcer.poll_timeout(), None);
    announcer.trigger(ms(70_000), VIP);
    announcer.remove(VIP);
    assert_eq!(announcer.poll_timeout(), None);
}

#[test]
fn a_pause_costs_no_flood() {
    let mut announcer = Announcer::new(Config::default());
    announcer.trigger(ms(0), VIP);
    assert_eq!(announcer.on_timeout(ms(4000)).collect::<Vec<_>>(), [VIP]);
    assert_eq!(announcer.on_timeout(ms(4000)).count(), 0);
}

#[test]
fn defence_is_rare() {
    let mut announcer = Announcer::new(Config {
        refresh: None,
        ..Config::default()
    });
    assert!(!announcer.defend(ms(0), VIP), "not ours");
    announcer.trigger(ms(0), VIP);
    run(&mut announcer, ms(6000));
    // A stranger's frame each 100 ms for 30 s: we send thrice.
    let mut sent = Vec::new();
    for now in (6000..36_000).step_by(100).map(ms) {
        announcer.defend(now, VIP);
        sent.extend(announcer.on_timeout(now).map(|_| now.as_millis()));
    }
    assert_eq!(sent, [6000, 16_000, 26_000]);
}

#[test]
fn refreshes_of_addresses_taken_together_spread() {
    let mut announcer = Announcer::new(Config::default());
    let ips: Vec<IpAddr> = (0..10_000u32)
        .map(|n| Ipv4Addr::from(0x0a00_0000 + n).into())
        .collect();
    for &ip in &ips {
        announcer.trigger(ms(0), ip);
    }
    assert_eq!(
        announcer.on_timeout(ms(0)).take(100).count(),
        100,
        "a caller may pace itself"
    );
    assert_eq!(announcer.on_timeout(ms(0)).count(), 9_900);
    run(&mut announcer, ms(5000));
    let mut per_second: BTreeMap<u128, usize> = BTreeMap::new();
    for times in run(&mut announcer, ms(65_000)).into_values() {
        *per_second.entry(times[0] / 1000).or_default() += 1;
    }
    assert_eq!(per_second.values().sum::<usize>(), 10_000);
    assert!(
        per_second.values().all(|&count| count < 1000),
        "{per_second:?}"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Trigger(u8),
    Defend(u8),
    Remove(u8),
    Wait(u16),
}

proptest! {
    /// The queue and the entries say the same, whatever happens; two frames of an address are
    /// never further apart than the longest interval.
    #[test]
    fn queue_equals_entries(steps in prop::collection::vec(prop_oneof![
        (0..4u8).prop_map(Step::Trigger),
        (0..4u8).prop_map(Step::Defend),
        (0..4u8).prop_map(Step::Remove),
        any::<u16>().prop_map(Step::Wait),
    ], 0..40)) {
        let mut announcer = Announcer::new(Config::default());
        let ip = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut now = Duration::ZERO;
        for step in steps {
            match step {
                Step::Trigger(n) => announcer.trigger(now, ip(n)),
                Step::Defend(n) => { announcer.defend(now, ip(n)); }
                Step::Remove(n) => announcer.remove(ip(n)),
                Step::Wait(wait) => {
                    now += ms(wait.into());
                    run(&mut announcer, now);
                }
            }
            let queue: BTreeMap<IpAddr, Duration> =
                announcer.queue.iter().map(|&(due, ip)| (ip, due)).collect();
            let entries: BTreeMap<IpAddr, Duration> =
                announcer.entries.iter().filter_map(|(&ip, e)| Some((ip, e.due?))).collect();
            prop_assert_eq!(announcer.queue.len(), queue.len());
            prop_assert_eq!(&queue, &entries);
            prop_assert!(queue.values().all(|&due| due <= now + ms(60_000)));
        }
    }
}
