use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 101));
const MAC: Mac = Mac([2, 0, 0, 0, 0, 0x77]);
const STEP: Duration = Duration::from_millis(10);
/// The first probes and the time after them.
const WAIT: Duration = Duration::from_millis(240);

/// A station that answers each probe, while it is there.
#[derive(Clone, Copy)]
struct Station {
    from: Duration,
    until: Duration,
    /// Until when nobody knows whose it is, and whose it is then.
    known: Duration,
    whose: Whose,
}

impl Station {
    const fn stranger(from: u64, until: u64) -> Self {
        Self {
            from: Duration::from_millis(from),
            until: Duration::from_millis(until),
            known: Duration::ZERO,
            whose: Whose::Stranger,
        }
    }

    fn whose(self, now: Duration) -> Whose {
        if now < self.known {
            Whose::Stranger
        } else {
            self.whose
        }
    }
}

/// What is done besides probing and defending, and when.
fn story(announced: bool, station: Station, end: Duration) -> Vec<(Duration, Act)> {
    let mut conflicts = Conflicts::default();
    if announced {
        let now = station.from;
        let whose = station.whose(now);
        assert_eq!(conflicts.on_claim(now, IP, MAC, whose), None);
    } else {
        conflicts.begin(Duration::ZERO, IP);
    }
    let mut now = if announced {
        station.from
    } else {
        Duration::ZERO
    };
    let mut told = Vec::new();
    while now <= end {
        let whose = station.whose(now);
        let acts = conflicts.on_timeout(now, |ip, mac| {
            assert_eq!((ip, mac), (IP, MAC));
            whose
        });
        assert!(conflicts.poll_timeout().is_none_or(|due| due > now));
        let answers = station.from <= now && now < station.until;
        let probed = acts.contains(&Act::Probe(IP));
        let mut all = acts;
        if probed && answers {
            all.extend(conflicts.on_claim(now, IP, MAC, whose));
        }
        all.retain(|act| !matches!(act, Act::Probe(_) | Act::Defend(_)));
        told.extend(all.into_iter().map(|act| (now, act)));
        now += STEP;
    }
    told
}

fn acts(told: &[(Duration, Act)]) -> Vec<Act> {
    told.iter().map(|(_, act)| *act).collect()
}

const END: Duration = Duration::from_secs(120);

#[test]
fn what_nobody_has_is_announced_soon() {
    let nobody = Station::stranger(0, 0);
    assert_eq!(story(false, nobody, END), [(WAIT, Act::Announce(IP))]);
    assert!(WAIT < Duration::from_millis(300));
}

#[test]
fn what_a_stranger_has_is_withheld_until_he_is_gone() {
    for until in [10_000, 60_000] {
        let told = story(false, Station::stranger(0, until), END);
        assert_eq!(
            acts(&told),
            [
                Act::Withhold(IP, MAC),
                Act::Over(IP, MAC),
                Act::Announce(IP)
            ],
            "{until}"
        );
        assert!(told[0].0 <= SUSPICION + STEP, "{told:?}");
        let over = told[1].0 - Duration::from_millis(until);
        assert!(over <= PAUSE.1 + Duration::from_secs(2), "{told:?}");
        assert_eq!(told[1].0, told[2].0);
    }
}

#[test]
fn who_comes_later_is_told_of_once_and_does_not_take_it_away() {
    let told = story(true, Station::stranger(5_000, 40_000), END);
    assert_eq!(acts(&told), [Act::Contest(IP, MAC), Act::Over(IP, MAC)]);
    assert_eq!(told[0].0, Duration::from_secs(5) + SUSPICION);
}

#[test]
fn a_station_that_is_heard_once_is_no_stranger() {
    let once = Station::stranger(0, 1);
    assert_eq!(acts(&story(false, once, END)), [Act::Announce(IP)]);
    assert_eq!(acts(&story(true, once, END)), []);
}

#[test]
fn a_member_is_waited_for_by_nobody() {
    let member = Station {
        whose: Whose::Member,
        ..Station::stranger(0, 100_000)
    };
    assert_eq!(
        story(false, member, END),
        [(Duration::ZERO, Act::Announce(IP))]
    );
    assert_eq!(story(true, member, END), []);
    let unknown = Station {
        whose: Whose::Unknown,
        ..member
    };
    assert_eq!(story(false, unknown, END), [(WAIT, Act::Announce(IP))]);
    assert_eq!(story(true, unknown, END), []);
}

/// It is heard on the link before it is heard of.
#[test]
fn a_member_that_is_heard_of_late_is_told_of_to_nobody() {
    for known in [100, 300, 1_000, 1_990] {
        let member = Station {
            known: Duration::from_millis(known),
            whose: Whose::Member,
            ..Station::stranger(0, 100_000)
        };
        let told = story(false, member, END);
        assert_eq!(acts(&told), [Act::Announce(IP)], "{known}");
        assert_eq!(acts(&story(true, member, END)), [], "{known}");
    }
    // Much too late: it is put right.
    let member = Station {
        known: Duration::from_secs(20),
        whose: Whose::Member,
        ..Station::stranger(0, 100_000)
    };
    let told = story(false, member, END);
    assert_eq!(told.last().map(|it| it.1), Some(Act::Announce(IP)));
}

#[test]
fn what_is_not_wanted_any_more_is_forgotten() {
    let mut conflicts = Conflicts::default();
    conflicts.begin(Duration::ZERO, IP);
    assert!(conflicts.waits(IP));
    conflicts.on_claim(STEP, IP, MAC, Whose::Stranger);
    conflicts.remove(IP);
    assert!(!conflicts.waits(IP));
    assert_eq!(conflicts.poll_timeout(), None);
    assert_eq!(conflicts.on_timeout(END, |_, _| Whose::Stranger), []);
}

#[test]
fn a_contested_address_is_defended() {
    let mut conflicts = Conflicts::default();
    let claim = |it: &mut Conflicts, now| it.on_claim(now, IP, MAC, Whose::Stranger);
    let mut now = Duration::ZERO;
    while now < SUSPICION {
        assert_eq!(claim(&mut conflicts, now), None);
        conflicts.on_timeout(now, |_, _| Whose::Stranger);
        now += STEP;
    }
    let found = conflicts.on_timeout(now, |_, _| Whose::Stranger);
    assert_eq!(found, [Act::Contest(IP, MAC)]);
    assert!(!conflicts.waits(IP));
    assert_eq!(conflicts.found(true).collect::<Vec<_>>(), [IP]);
    assert_eq!(conflicts.found(false).count(), 0);
    assert_eq!(claim(&mut conflicts, now), Some(Act::Defend(IP)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever stations come and go: an address that was to be announced ends as announced or as
    /// withheld, the words alternate, and no member or unknown one has it withheld.
    #[test]
    fn each_story_has_an_order(
        claims in prop::collection::vec((0u64..20_000, 0u8..4, 0u8..3), 0..60),
        end in 3_000u64..90_000,
    ) {
        let whose = |kind: u8| [Whose::Member, Whose::Unknown, Whose::Stranger][usize::from(kind)];
        let mut claims = claims;
        claims.sort_unstable();
        let of: BTreeMap<u8, Whose> =
            claims.iter().rev().map(|(_, mac, kind)| (*mac, whose(*kind))).collect();
        let mac = |n: u8| Mac([2, 0, 0, 0, 1, n]);
        let mut conflicts = Conflicts::default();
        conflicts.begin(Duration::ZERO, IP);
        let mut queue = claims.iter().peekable();
        let (mut announced, mut found) = (false, false);
        let mut now = Duration::ZERO;
        while now <= Duration::from_millis(end) {
            let mut acts = Vec::new();
            while let Some((at, n, _)) = queue.next_if(|(at, ..)| Duration::from_millis(*at) <= now) {
                let _ = at;
                if announced || conflicts.waits(IP) {
                    acts.extend(conflicts.on_claim(now, IP, mac(*n), of[n]));
                }
            }
            acts.extend(conflicts.on_timeout(now, |_, mac| of[&mac.0[5]]));
            for act in acts {
                match act {
                    Act::Probe(_) => {}
                    Act::Announce(_) => {
                        prop_assert!(!announced && !found);
                        announced = true;
                    }
                    Act::Withhold(_, mac) | Act::Contest(_, mac) => {
                        prop_assert_eq!(of[&mac.0[5]], Whose::Stranger);
                        prop_assert_eq!(announced, matches!(act, Act::Contest(..)));
                        prop_assert!(!found);
                        found = true;
                    }
                    Act::Defend(_) => prop_assert!(announced && found),
                    Act::Over(..) => {
                        prop_assert!(found);
                        found = false;
                    }
                }
            }
            prop_assert_eq!(conflicts.waits(IP), !announced);
            prop_assert_eq!(conflicts.found(announced).count(), usize::from(found));
            now += STEP;
        }
        // Claims have ended long ago: so has every conflict.
        if end > 60_000 {
            prop_assert!(announced && !found);
        }
    }
}
