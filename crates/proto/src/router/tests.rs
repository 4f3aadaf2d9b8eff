use std::net::Ipv6Addr;
use std::time::Duration;

use etherparse::icmpv6::{RouterAdvertisementHeader, TYPE_ROUTER_ADVERTISEMENT};
use proptest::prelude::*;

use super::*;
use crate::ethernet::Mac;

const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const OTHER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn advertisement(lifetime: u16) -> Vec<u8> {
    Message::Advertisement {
        lifetime,
        mac: Some(MAC),
    }
    .build()
}

#[test]
fn messages_are_as_rfc_4861_has_them() {
    let solicitation = Message::Solicitation { mac: Some(MAC) };
    let bytes = [133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 1];
    assert_eq!(solicitation.build(), bytes);
    assert_eq!(Message::parse(&bytes, ROUTER, 255), Ok(solicitation));
    let bytes = advertisement(1800);
    #[rustfmt::skip]
    let wanted = [
        134, 0, 0, 0, 0, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 1,
    ];
    assert_eq!(bytes, wanted);
    // Another implementation reads the same.
    assert_eq!(bytes[0], TYPE_ROUTER_ADVERTISEMENT);
    let word = bytes[4..8].try_into().unwrap();
    let header = RouterAdvertisementHeader::from_bytes(word);
    assert_eq!((header.cur_hop_limit, header.router_lifetime), (0, 1800));
    // FRR's: an interval option (7) before the address, which is skipped.
    let with_interval = [
        &wanted[..16],
        &[7, 1, 0, 0, 0, 0, 0x27, 0x10],
        &wanted[16..],
    ]
    .concat();
    let read = Message::parse(&with_interval, ROUTER, 255);
    assert_eq!(
        read,
        Ok(Message::Advertisement {
            lifetime: 1800,
            mac: Some(MAC)
        })
    );
}

#[test]
fn what_rfc_4861_section_6_1_forbids() {
    let good = advertisement(0);
    let with = |changes: &[(usize, u8)]| {
        let mut bytes = good.clone();
        for (at, value) in changes {
            bytes[*at] = *value;
        }
        bytes
    };
    let invalid = |offset, why| Error::Invalid { offset, why };
    let dad = Message::Solicitation { mac: Some(MAC) }.build();
    let global: Ipv6Addr = "fd00::1".parse().unwrap();
    let none = Ipv6Addr::UNSPECIFIED;
    let ended = |offset, length| Error::Truncated { offset, length };
    #[rustfmt::skip]
    let cases = [
        (good.clone(), ROUTER, 254, Error::HopLimit { found: 254 }),
        (good.clone(), global, 255, Error::Source { found: global }),
        (with(&[(0, 135)]), ROUTER, 255, Error::Foreign { found: 135 }),
        (with(&[(1, 1)]), ROUTER, 255, invalid(1, "code is not 0")),
        (with(&[(17, 0)]), ROUTER, 255, invalid(17, "option length is 0")),
        (with(&[(17, 2)]), ROUTER, 255, ended(16, 24)),
        (good[..15].to_vec(), ROUTER, 255, ended(0, 15)),
        (good[..1].to_vec(), ROUTER, 255, ended(0, 1)),
        (dad, none, 255, invalid(8, "source is ::, but there is a source link-layer option")),
    ];
    for (bytes, source, hops, error) in cases {
        assert_eq!(
            Message::parse(&bytes, source, hops),
            Err(error.clone()),
            "{error}"
        );
    }
}

/// What is sent until `until`, with its time.
fn sent(discovery: &mut Discovery, until: Duration) -> Vec<(Duration, u8)> {
    let mut all = Vec::new();
    loop {
        let now = discovery.poll_timeout();
        if now > until {
            return all;
        }
        discovery.on_timeout(now);
        while let Some((to, bytes)) = discovery.poll_transmit() {
            let wanted = if bytes[0] == ADVERTISEMENT {
                ALL_NODES
            } else {
                ALL_ROUTERS
            };
            assert_eq!(to, wanted);
            all.push((now, bytes[0]));
        }
    }
}

#[test]
fn we_tell_and_ask_and_go_on_telling() {
    let mut discovery = Discovery::new(Duration::ZERO, Some(MAC), 7);
    let all = sent(&mut discovery, seconds(60));
    let questions: Vec<_> = all.iter().filter(|it| it.1 == SOLICITATION).collect();
    assert_eq!(questions.len(), 3, "{all:?}");
    let told: Vec<Duration> = all
        .iter()
        .filter(|it| it.1 == ADVERTISEMENT)
        .map(|it| it.0)
        .collect();
    assert_eq!(told[0], Duration::ZERO);
    for pair in told.windows(2).take(2) {
        assert!(pair[1] - pair[0] <= seconds(3), "{told:?}");
    }
    for pair in told.windows(2).skip(2) {
        let wait = pair[1] - pair[0];
        assert!((seconds(7)..=seconds(10)).contains(&wait), "{told:?}");
    }
}

#[test]
fn a_question_is_answered_soon_but_not_each() {
    let mut discovery = Discovery::new(Duration::ZERO, None, 7);
    let question = Message::Solicitation { mac: None }.build();
    let told = sent(&mut discovery, seconds(40));
    // Asked once, long after the last one; then again and again.
    let (last, _) = *told.last().unwrap();
    let at = last + seconds(4);
    discovery.on_message(at, OTHER, 255, &question).unwrap();
    let all = sent(&mut discovery, at + ANSWERED);
    assert_eq!(all.len(), 1, "{all:?}");
    for _ in 0..10 {
        discovery
            .on_message(all[0].0, OTHER, 255, &question)
            .unwrap();
    }
    let more = sent(&mut discovery, all[0].0 + seconds(4));
    assert_eq!(more.len(), 1, "{more:?}");
    assert!(more[0].0 >= all[0].0 + seconds(3), "{more:?}");
}

/// The longest wait for an answer.
const ANSWERED: Duration = Duration::from_millis(500);

#[test]
fn routers_are_known_while_they_are_heard() {
    let mut discovery = Discovery::new(Duration::ZERO, None, 7);
    assert_eq!(discovery.newest(), None);
    let now = seconds(1);
    discovery
        .on_message(now, ROUTER, 255, &advertisement(0))
        .unwrap();
    assert_eq!(discovery.newest(), Some(ROUTER));
    // Nobody needs to be asked any more.
    let all = sent(&mut discovery, seconds(20));
    assert!(all.iter().all(|it| it.1 == ADVERTISEMENT), "{all:?}");
    discovery
        .on_message(seconds(20), OTHER, 255, &advertisement(60))
        .unwrap();
    assert_eq!(discovery.newest(), Some(OTHER));
    assert_eq!(discovery.routers().collect::<Vec<_>>(), [ROUTER, OTHER]);
    discovery
        .on_message(seconds(21), ROUTER, 255, &advertisement(0))
        .unwrap();
    assert_eq!(discovery.newest(), Some(ROUTER));
    // Silent for three intervals: gone; the other one said that it may be.
    sent(&mut discovery, seconds(51));
    assert_eq!(discovery.routers().collect::<Vec<_>>(), [OTHER]);
    sent(&mut discovery, seconds(80));
    assert_eq!(discovery.newest(), None);
}

#[test]
fn a_crowd_is_not_remembered() {
    let mut discovery = Discovery::new(Duration::ZERO, None, 7);
    for n in 0..1000_u16 {
        let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n);
        discovery
            .on_message(seconds(1), router, 255, &advertisement(0))
            .unwrap();
        assert_eq!(discovery.newest(), Some(router));
    }
    assert!(discovery.routers().count() <= 16);
}

proptest! {
    #[test]
    fn no_bytes_panic(
        kind in 132..137_u8,
        noise in prop::collection::vec(any::<u8>(), 0..80),
        cut in 0..80_usize,
    ) {
        let mut bytes = [&[kind, 0], noise.as_slice()].concat();
        bytes.truncate(cut);
        if let Ok(message) = Message::parse(&bytes, ROUTER, 255) {
            // What was read is what is written, apart from what is not ours.
            prop_assert_eq!(Message::parse(&message.build(), ROUTER, 255), Ok(message));
        }
        let mut discovery = Discovery::new(Duration::ZERO, None, 7);
        let _ = discovery.on_message(seconds(1), ROUTER, 255, &bytes);
        discovery.on_timeout(discovery.poll_timeout());
    }
}
