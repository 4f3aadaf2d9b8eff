//! Against a peer that applies what it reads.

use std::{collections::BTreeMap, time::Duration};

use proptest::{collection::vec, prelude::*};

use super::{super::*, *};

/// The other side: routes as it has them.
#[derive(Debug)]
struct Receiver {
    codec: Codec,
    routes: BTreeMap<Nlri, (NextHop, Attributes)>,
    end_of_rib: Vec<Family>,
    refreshes: Vec<(RefreshKind, AfiSafi)>,
    messages: usize,
    largest: usize,
}

impl Receiver {
    fn new(codec: Codec) -> Self {
        Self {
            codec: Codec {
                add_path_receive: codec.add_path_send,
                ..codec
            },
            routes: BTreeMap::new(),
            end_of_rib: Vec::new(),
            refreshes: Vec::new(),
            messages: 0,
            largest: 0,
        }
    }

    fn read(&mut self, stream: &[u8]) {
        let mut framer = Framer::default();
        framer.push(stream);
        while let Some(message) = framer.next().unwrap() {
            self.messages += 1;
            self.largest = self.largest.max(message.len());
            match Message::decode(message, &self.codec).unwrap() {
                Message::Update(update) => self.apply(*update),
                Message::RouteRefresh(refresh) => {
                    self.refreshes.push((refresh.kind, refresh.family));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(framer.pending(), 0);
    }

    fn apply(&mut self, update: Update) {
        assert_eq!(update.flaws, []);
        for nlri in update.withdrawn {
            assert!(
                self.routes.remove(&nlri).is_some(),
                "withdrawn without need"
            );
        }
        for group in update.announced {
            for nlri in group.nlri {
                let route = (group.next_hop, update.attributes.clone());
                self.routes.insert(nlri, route);
            }
        }
        self.end_of_rib.extend(update.end_of_rib);
    }
}

fn negotiated(codec: Codec) -> Arc<Negotiated> {
    Arc::new(Negotiated {
        codec,
        local_as: Asn(64512),
        remote_as: Asn(64513),
        local_id: Ipv4Addr::new(10, 0, 0, 1),
        remote_id: Ipv4Addr::new(10, 0, 0, 2),
        hold_time: Duration::from_secs(9),
        route_refresh: true,
        enhanced_refresh: true,
        graceful: None,
        long_lived: Vec::new(),
        role: None,
        host: None,
    })
}

fn local() -> LocalAddresses {
    LocalAddresses {
        ipv4: Some(Ipv4Addr::new(10, 0, 0, 1)),
        ipv6: Some("2001:db8::1".parse().unwrap()),
        link_local: None,
        session_ipv6: false,
    }
}

fn host4(index: u32) -> Nlri {
    Prefix::host(Ipv4Addr::from_bits(0x0b00_0000 + index).into()).into()
}

fn host6(index: u32) -> Nlri {
    let base = 0x2001_0db8_u128 << 96;
    Prefix::host(Ipv6Addr::from_bits(base + u128::from(index)).into()).into()
}

fn path(med: u32) -> Arc<Path> {
    Arc::new(Path {
        attributes: Attributes {
            med: Some(med),
            ..Attributes::default()
        },
        next_hop: None,
    })
}

fn drain(out: &mut AdjOut, receiver: &mut Receiver) {
    let mut bytes = Vec::new();
    let mut rounds = 0;
    while out.poll(&mut bytes, 1) {
        rounds += 1;
        assert!(rounds < 10_000, "no end");
        receiver.read(&bytes);
        bytes.clear();
    }
    receiver.read(&bytes);
    assert!(out.is_idle());
}

#[test]
fn everything_is_sent_then_the_end() {
    let codec = Codec::default();
    let mut out = AdjOut::new();
    out.announce(host4(1), &path(0));
    out.announce(host6(1), &path(0));
    let mut bytes = Vec::new();
    assert!(!out.poll(&mut bytes, 4096));
    assert!(bytes.is_empty(), "no session");
    out.up(negotiated(codec), local());
    let mut receiver = Receiver::new(codec);
    drain(&mut out, &mut receiver);
    assert_eq!(receiver.routes.len(), 2);
    assert_eq!(receiver.end_of_rib, [], "not ready");
    out.set_ready(true);
    drain(&mut out, &mut receiver);
    assert_eq!(receiver.end_of_rib, [Family::Ipv4, Family::Ipv6]);
    let (next_hop, attributes) = &receiver.routes[&host4(1)];
    assert_eq!(*next_hop, NextHop::V4(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(attributes.as_path, AsPath(vec![Asn(64512)]));
    drain(&mut out, &mut receiver);
    assert_eq!(receiver.end_of_rib.len(), 2, "once");
}

#[test]
fn withdrawals_come_first_and_equal_paths_together() {
    let codec = Codec::default();
    let mut out = AdjOut::new();
    out.set_ready(true);
    for index in 0..1000 {
        // An Arc of its own for each: equal in value.
        out.announce(host4(index), &path(index % 2));
    }
    out.up(negotiated(codec), local());
    let mut receiver = Receiver::new(codec);
    drain(&mut out, &mut receiver);
    // Two paths, 500 prefixes of 5 bytes each: one message each; and two End-of-RIB.
    assert_eq!(receiver.messages, 4);
    assert_eq!(receiver.routes.len(), 1000);
    out.announce(host4(2000), &path(7));
    out.withdraw(&host4(0));
    out.announce(host4(1), &path(0));
    let mut bytes = Vec::new();
    assert!(!out.poll(&mut bytes, usize::MAX));
    let mut framer = Framer::default();
    framer.push(&bytes);
    let mut kinds = Vec::new();
    while let Some(message) = framer.next().unwrap() {
        let Ok(Message::Update(update)) = Message::decode(message, &codec) else {
            panic!("not an UPDATE");
        };
        kinds.push((update.withdrawn.len(), update.announced.len()));
    }
    assert_eq!(kinds, [(1, 0), (0, 1), (0, 1)]);
    assert_eq!(out.paths.len(), 3);
}

#[test]
fn nothing_is_sent_for_a_change_and_its_opposite() {
    let codec = Codec::default();
    let mut out = AdjOut::new();
    out.set_ready(true);
    out.announce(host4(1), &path(0));
    out.up(negotiated(codec), local());
    let mut receiver = Receiver::new(codec);
    drain(&mut out, &mut receiver);
    let before = receiver.messages;
    out.announce(host4(1), &path(1));
    out.announce(host4(1), &path(0));
    out.withdraw(&host4(1));
    out.announce(host4(1), &path(0));
    out.announce(host4(2), &path(0));
    out.withdraw(&host4(2));
    drain(&mut out, &mut receiver);
    assert_eq!(receiver.messages, before);
    let counts = Counts {
        desired: 1,
        sent: 1,
    };
    assert_eq!(out.counts(), counts);
}

#[test]
fn a_refresh_stands_between_its_marks() {
    let codec = Codec::default();
    let mut out = AdjOut::new();
    out.announce(host4(1), &path(0));
    out.announce(host6(1), &path(0));
    out.up(negotiated(codec), local());
    let mut receiver = Receiver::new(codec);
    out.refresh(Family::Ipv6);
    drain(&mut out, &mut receiver);
    assert_eq!(receiver.refreshes, [], "not before End-of-RIB");
    out.set_ready(true);
    drain(&mut out, &mut receiver);
    let ipv6 = AfiSafi::from(Family::Ipv6);
    let marks = [(RefreshKind::Begin, ipv6), (RefreshKind::End, ipv6)];
    assert_eq!(receiver.refreshes, marks);
    // Two routes, two End-of-RIB, two marks, one route again.
    assert_eq!(receiver.messages, 7);
}

#[test]
fn ipv4_over_ipv6_takes_what_was_negotiated() {
    let link_local: Ipv6Addr = "fe80::1".parse().unwrap();
    let unnumbered = LocalAddresses {
        ipv4: None,
        ipv6: None,
        link_local: Some(link_local),
        session_ipv6: true,
    };
    let plain = Codec::default();
    let extended = Codec {
        extended_next_hop: true,
        ..plain
    };
    for (codec, want) in [(plain, None), (extended, Some(NextHop::V6(link_local)))] {
        let mut out = AdjOut::new();
        out.announce(host4(1), &path(0));
        out.up(negotiated(codec), unnumbered);
        let mut receiver = Receiver::new(codec);
        drain(&mut out, &mut receiver);
        let found = receiver.routes.get(&host4(1)).map(|route| route.0);
        assert_eq!(found, want);
        // An address comes to the interface.
        out.set_local(LocalAddresses {
            ipv4: Some(Ipv4Addr::new(10, 0, 0, 9)),
            ..unnumbered
        });
        drain(&mut out, &mut receiver);
        assert_eq!(receiver.routes.len(), 1);
        // It goes away.
        out.set_local(unnumbered);
        drain(&mut out, &mut receiver);
        assert_eq!(receiver.routes.get(&host4(1)).map(|route| route.0), want);
        assert_eq!(out.counts().sent, usize::from(want.is_some()));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Announce(bool, u32, u32, u32),
    Withdraw(bool, u32, u32),
    Replace(Vec<(bool, u32, u32)>),
    Poll(usize),
    Refresh(bool),
    Down,
    Up(bool, bool),
    Ready,
}

fn step() -> impl Strategy<Value = Step> {
    let index = 0..12u32;
    prop_oneof![
        8 => (any::<bool>(), index.clone(), 0..2u32, 0..3u32)
            .prop_map(|(v4, index, id, med)| Step::Announce(v4, index, id, med)),
        5 => (any::<bool>(), index.clone(), 0..2u32)
            .prop_map(|(v4, index, id)| Step::Withdraw(v4, index, id)),
        1 => vec((any::<bool>(), index, 0..3u32), 0..12).prop_map(Step::Replace),
        5 => (0..200usize).prop_map(Step::Poll),
        1 => any::<bool>().prop_map(Step::Refresh),
        1 => Just(Step::Down),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(v4, add_path)| Step::Up(v4, add_path)),
        1 => Just(Step::Ready),
    ]
}

fn nlri(v4: bool, index: u32, path_id: u32) -> Nlri {
    let Nlri { prefix, .. } = if v4 { host4(index) } else { host6(index) };
    Nlri { prefix, path_id }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_peer_ends_with_what_is_desired(steps in vec(step(), 0..120)) {
        let mut out = AdjOut::new();
        let mut desired: BTreeMap<Nlri, u32> = BTreeMap::new();
        let mut receiver: Option<Receiver> = None;
        let mut bytes = Vec::new();
        for step in steps.into_iter().chain([Step::Ready]) {
            match step {
                Step::Announce(v4, index, id, med) => {
                    out.announce(nlri(v4, index, id), &path(med));
                    desired.insert(nlri(v4, index, id), med);
                }
                Step::Withdraw(v4, index, id) => {
                    out.withdraw(&nlri(v4, index, id));
                    desired.remove(&nlri(v4, index, id));
                }
                Step::Replace(all) => {
                    desired = all
                        .into_iter()
                        .map(|(v4, index, med)| (nlri(v4, index, 0), med))
                        .collect();
                    out.replace(desired.iter().map(|(nlri, med)| (*nlri, path(*med))));
                }
                Step::Poll(limit) => {
                    bytes.clear();
                    out.poll(&mut bytes, limit);
                    match &mut receiver {
                        Some(receiver) => receiver.read(&bytes),
                        None => prop_assert!(bytes.is_empty()),
                    }
                }
                Step::Refresh(v4) => {
                    out.refresh(if v4 { Family::Ipv4 } else { Family::Ipv6 });
                }
                Step::Down => {
                    out.down();
                    receiver = None;
                }
                Step::Up(v4, add_path) => {
                    let codec = Codec {
                        families: if v4 {
                            Families::from_iter([Family::Ipv4])
                        } else {
                            Families::ALL
                        },
                        add_path_send: if add_path { Families::ALL } else { Families::NONE },
                        ..Codec::default()
                    };
                    out.up(negotiated(codec), local());
                    receiver = Some(Receiver::new(codec));
                }
                Step::Ready => out.set_ready(true),
            }
            prop_assert_eq!(out.counts().desired, desired.len());
        }
        let Some(mut receiver) = receiver else {
            return Ok(());
        };
        drain(&mut out, &mut receiver);
        let found: BTreeMap<Nlri, u32> = receiver
            .routes
            .iter()
            .map(|(nlri, (_, attributes))| (*nlri, attributes.med.unwrap()))
            .collect();
        let codec = receiver.codec;
        let want: BTreeMap<Nlri, u32> = desired
            .into_iter()
            .filter(|(nlri, _)| {
                let family = nlri.prefix.family();
                codec.families.contains(family)
                    && (nlri.path_id == 0 || codec.add_path_receive.contains(family))
            })
            .collect();
        prop_assert_eq!(found, want);
        prop_assert_eq!(out.counts().sent, receiver.routes.len());
        prop_assert_eq!(receiver.end_of_rib.len(), codec.families.iter().count());
        let begins = |kind| receiver.refreshes.iter().filter(|one| one.0 == kind).count();
        prop_assert_eq!(begins(RefreshKind::Begin), begins(RefreshKind::End));
        prop_assert!(out.paths.len() <= 3);
    }
}

#[test]
fn a_hundred_thousand_prefixes_are_packed() {
    let codec = Codec::default();
    let paths: Vec<Arc<Path>> = (0..4).map(path).collect();
    let mut out = AdjOut::new();
    out.set_ready(true);
    for index in 0..100_000 {
        out.announce(host4(index), &paths[index as usize % 4]);
    }
    out.up(negotiated(codec), local());
    let mut receiver = Receiver::new(codec);
    let mut bytes = Vec::new();
    while out.poll(&mut bytes, 1 << 16) {
        receiver.read(&bytes);
        bytes.clear();
    }
    receiver.read(&bytes);
    assert_eq!(receiver.routes.len(), 100_000);
    // (4096 - 44) / 5 = 810 prefixes in each: 31 messages for each path, 2 End-of-RIB.
    assert!(receiver.messages <= 4 * 31 + 2, "{}", receiver.messages);
    assert!(receiver.largest <= MAX_LEN);
    for index in 0..100_000 {
        out.withdraw(&host4(index));
    }
    drain(&mut out, &mut receiver);
    assert!(receiver.routes.is_empty());
    assert_eq!(out.index.len(), 0);
    assert_eq!(out.free.len(), 100_000);
}
