//! Echo packets on their way: addressed to a host and sent back by its daemon, or addressed to
//! their sender and sent back by forwarding.

use super::super::frame::{Frame, returned};
use super::*;
use crate::ethernet::{Header, Mac};

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn echoing() -> Settings {
    Settings {
        echo: Some(ms(50)),
        ..settings(300, 300, 3)
    }
}

/// All sessions with one that is up with a neighbour that takes echo packets.
fn up(key: &Key) -> Sessions {
    let mut all = Sessions::new(3);
    all.set(ms(0), key.clone(), echoing());
    let from = Arrival {
        from: key.peer,
        ..arrival("192.0.2.9", 2, 255, false)
    };
    for state in [State::Down, State::Init] {
        let mine = all.get(key).expect("it").discriminator().get();
        let heard = Packet {
            required_echo_rx: 50_000,
            ..said(state, mine)
        };
        all.on_control(ms(0), &from, &heard.build()).expect("taken");
    }
    assert_eq!(all.get(key).expect("it").state(), State::Up);
    all
}

fn sent(all: &mut Sessions) -> Vec<Transmit> {
    std::iter::from_fn(|| all.poll_transmit())
        .map(|sent| sent.payload)
        .collect()
}

/// A datagram of the neighbour in a frame, its checksum right.
fn frame(from: &str, to: &str, port: u16, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let octets = |text: &str| match ip(text) {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => panic!("IPv4"),
    };
    let header = Header {
        destination: OURS,
        source: THEIRS,
        ethertype: crate::ethernet::IPV4,
    };
    let length = 8 + payload.len() as u16;
    let mut packet = vec![0x45, 0xc0, 0, 0, 0, 0, 0x40, 0, ttl, 17, 0, 0];
    packet[2..4].copy_from_slice(&(20 + length).to_be_bytes());
    packet.extend(octets(from));
    packet.extend(octets(to));
    let checksum = crate::bytes::checksum(&[&packet], 0);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend([0xc0, 0x00]);
    packet.extend(port.to_be_bytes());
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    // Ethernet pads; BFD must not read it.
    packet.extend([0xee; 4]);
    [&header.build()[..], &packet].concat()
}

fn key4() -> Key {
    Key {
        local: Some(ip("192.0.2.1")),
        ..single("192.0.2.9")
    }
}

/// A control packet of the neighbour, as the interface saw it.
fn seen(ttl: u8) -> Vec<u8> {
    let heard = said(State::Up, 1).build();
    frame("192.0.2.9", "192.0.2.1", CONTROL_PORT, ttl, &heard)
}

/// Addressed to us, as FRR's are over IPv6.
#[test]
fn by_the_daemon() {
    let key = Key {
        interface: Some(2),
        ..single("fe80::9")
    };
    let mut all = Sessions::new(3);
    all.set(ms(0), key.clone(), echoing());
    let near = arrival("fe80::9", 2, 255, false);
    assert!(all.on_echo(ms(0), &near, b"foreign").is_err(), "not up");
    let mut all = up(&key);
    sent(&mut all);
    assert_eq!(all.on_echo(ms(0), &near, b"foreign"), Ok(()));
    assert_eq!(
        sent(&mut all),
        [Transmit::Reflected(b"foreign".to_vec())],
        "sent back"
    );
    // Not what came over a router, nor of others, nor again what we sent back.
    for (from, ttl) in [("fe80::9", 254), ("fe80::8", 255)] {
        let from = arrival(from, 2, ttl, false);
        assert!(all.on_echo(ms(0), &from, b"foreign").is_err());
    }
    // Ours, with the TTL that a neighbour leaves.
    all.on_timeout(ms(0));
    let ours = sent(&mut all).into_iter().find_map(|sent| match sent {
        Transmit::Echo(bytes) => Some(bytes),
        _ => None,
    });
    let back = arrival("fe80::9", 2, 254, false);
    assert_eq!(
        all.on_echo(ms(1), &back, &ours.expect("one is due")),
        Ok(())
    );
    assert_eq!((all.counters().echoes, all.counters().reflected), (1, 1));
    assert_eq!(all.counters().bad_echo, 2);
}

/// Over IPv4 nothing is said of echo before the neighbour's frames were seen.
#[test]
fn a_way_comes_first() {
    let key = key4();
    let mut all = up(&key);
    let told = |all: &mut Sessions| {
        let control = sent(all).into_iter().filter_map(|sent| match sent {
            Transmit::Control(bytes) => Some(Packet::parse(&bytes).expect("ours reads")),
            _ => None,
        });
        control
            .map(|packet| packet.required_echo_rx)
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&mut all).last(), Some(&0));
    assert_eq!(all.get(&key).expect("it").echo_interval(), None);
    // Of another neighbour, to another address of ours, over a router, for another port, broken.
    let good = seen(255);
    let heard = said(State::Up, 1).build();
    let mut broken = good.clone();
    broken[14 + 8] = 254;
    for other in [
        frame("192.0.2.8", "192.0.2.1", CONTROL_PORT, 255, &heard),
        frame("192.0.2.9", "192.0.2.2", CONTROL_PORT, 255, &heard),
        seen(254),
        frame("192.0.2.9", "192.0.2.1", MULTIHOP_PORT, 255, &heard),
        broken,
    ] {
        assert_eq!(all.on_frame(ms(1), 2, true, &other), None);
        assert_eq!(all.get(&key).expect("it").echo_interval(), None);
    }
    assert_eq!(all.on_frame(ms(1), 2, true, &good), None);
    assert_eq!(told(&mut all), [50_000], "the neighbour may echo now");
    assert_eq!(all.get(&key).expect("it").echo_interval(), Some(ms(50)));
}

/// Addressed to ourselves and sent to the neighbour's link-layer address.
#[test]
fn by_forwarding() {
    let key = key4();
    let mut all = up(&key);
    all.on_frame(ms(1), 2, true, &seen(255));
    sent(&mut all);
    all.on_timeout(ms(1));
    let frames = |all: &mut Sessions| {
        let frames = sent(all).into_iter().filter_map(|sent| match sent {
            Transmit::Frame { interface, frame } => Some((interface, frame)),
            Transmit::Echo(_) => panic!("no datagram can be returned"),
            _ => None,
        });
        frames.collect::<Vec<_>>()
    };
    let [(2, ours)] = &frames(&mut all)[..] else {
        panic!("one echo packet on interface 2");
    };
    let parsed = Frame::parse(ours).expect("ours reads");
    assert_eq!(
        (parsed.header.source, parsed.header.destination),
        (OURS, THEIRS)
    );
    assert_eq!((parsed.from, parsed.to), (parsed.to, parsed.from));
    assert_eq!(IpAddr::V4(parsed.from), ip("192.0.2.1"));
    assert_eq!((parsed.ttl, parsed.port), (255, ECHO_PORT));

    // It comes back as a router leaves it, and the neighbour lives on.
    let back = returned(ours).expect("a frame");
    let turned = Frame::parse(&back).expect("its checksum is right");
    assert_eq!((turned.header.source, turned.ttl), (THEIRS, 254));
    assert_eq!(
        all.on_frame(ms(2), 3, true, &back),
        None,
        "another interface"
    );
    assert_eq!(all.on_frame(ms(2), 2, true, &back), Some(key.clone()));
    assert_eq!(all.counters().echoes, 1);
    all.on_timeout(ms(151));
    assert_eq!(all.get(&key).expect("it").state(), State::Up);
    all.on_timeout(ms(152));
    let session = all.get(&key).expect("it");
    assert_eq!(session.diagnostic(), Diagnostic::ECHO_FAILED);
}

/// The neighbour's own, on a host that forwards and on one that does not.
#[test]
fn the_neighbours() {
    let key = key4();
    let theirs = |from: &str, ttl| frame(from, from, ECHO_PORT, ttl, b"its own business");
    let mut all = up(&key);
    let near = theirs("192.0.2.9", 255);
    all.on_frame(ms(1), 2, false, &near);
    all.on_frame(ms(1), 2, true, &seen(255));
    sent(&mut all);
    for (what, interface, forwards, frame) in [
        ("the kernel does it", 2, true, near.clone()),
        ("another interface", 3, false, near.clone()),
        ("over a router", 2, false, theirs("192.0.2.9", 254)),
        ("nobody we know", 2, false, theirs("192.0.2.8", 255)),
        ("cut", 2, false, near[..40].to_vec()),
    ] {
        assert_eq!(all.on_frame(ms(1), interface, forwards, &frame), None);
        assert_eq!(sent(&mut all), [], "{what}");
    }
    all.on_frame(ms(1), 2, false, &near);
    let [
        Transmit::Frame {
            interface: 2,
            frame,
        },
    ] = &sent(&mut all)[..]
    else {
        panic!("one frame");
    };
    let back = Frame::parse(frame).expect("its checksum is right");
    assert_eq!((back.header.destination, back.ttl), (THEIRS, 254));
    assert_eq!(back.payload, b"its own business");
    assert_eq!(all.counters().reflected, 1);
    // Not while the session is down: the neighbour has no business to send any.
    all.set_admin_down(ms(2), &key, true);
    sent(&mut all);
    all.on_frame(ms(2), 2, false, &near);
    assert_eq!(sent(&mut all), []);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever an interface sees: no panic, and nothing is sent back longer than it came.
    #[test]
    fn any_frame(
        flips in prop::collection::vec((0usize..90, any::<u8>()), 0..6),
        cut in 0usize..90,
        forwards in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..90),
        raw in any::<bool>(),
    ) {
        let mut all = up(&key4());
        all.on_frame(ms(1), 2, true, &seen(255));
        sent(&mut all);
        let mut frame = if raw { bytes } else { frame("192.0.2.9", "192.0.2.9", ECHO_PORT, 255, b"x") };
        for (at, byte) in flips {
            if let Some(there) = frame.get_mut(at) {
                *there ^= byte;
            }
        }
        frame.truncate(cut);
        all.on_frame(ms(1), 2, forwards, &frame);
        for what in sent(&mut all) {
            if let Transmit::Frame { frame: back, .. } = what {
                prop_assert_eq!(back.len(), frame.len());
            }
        }
    }

    /// With at most `multiplier - 2` echo packets lost in a row the session stays up: at least one
    /// comes back within `(multiplier - 1) × interval`. When none does it ends, after
    /// `multiplier × interval`, though the neighbour goes on talking.
    #[test]
    fn bearable_loss(
        interval in 10u64..400,
        multiplier in 2u8..7,
        losses in prop::collection::vec(prop::bool::weighted(0.6), 1..50),
        seed in any::<u64>(),
    ) {
        let wanted = Settings { echo: Some(ms(interval)), ..settings(300, 300, multiplier) };
        let heard = |state| Packet { required_echo_rx: 10_000, ..said(state, 1) };
        let mut session = Session::new(ms(0), number(1), wanted, seed);
        for state in [State::Down, State::Init] {
            prop_assert_eq!(session.on_packet(ms(0), &heard(state)), Ok(()));
        }
        let (mut now, mut back, mut talks) = (ms(0), ms(0), ms(0));
        let (mut sent, mut in_row) = (0, 0);
        let lossy = ms(20_000);
        while session.state() == State::Up {
            while let Some(what) = session.poll_transmit() {
                let Transmit::Echo(bytes) = what else { continue };
                let lost = losses[sent % losses.len()] && in_row + 2 < multiplier;
                sent += 1;
                if lost || now >= lossy {
                    in_row += 1;
                } else {
                    in_row = 0;
                    back = now;
                    prop_assert!(session.on_echo(now, &Echo::parse(&bytes).expect("ours reads")));
                }
            }
            let due = session.poll_timeout().expect("something is due");
            now = now.max(due.min(talks));
            if now >= talks {
                talks = now + ms(100);
                prop_assert_eq!(session.on_packet(now, &heard(State::Up)), Ok(()));
            }
            session.on_timeout(now);
        }
        prop_assert!(now >= lossy, "{:?}", now);
        prop_assert_eq!(session.diagnostic(), Diagnostic::ECHO_FAILED);
        prop_assert_eq!(now, back + ms(interval) * u32::from(multiplier));
    }
}
