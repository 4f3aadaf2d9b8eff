//! Bytes, drop reasons and whom a packet is for; the session's behaviour is in the submodules.

mod behaviour;
mod loops;
mod simulation;

use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not 0")
}

fn settings(transmit: u64, receive: u64, multiplier: u8) -> Settings {
    Settings {
        transmit: ms(transmit),
        receive: ms(receive),
        multiplier: NonZeroU8::new(multiplier).expect("not 0"),
        ..Settings::default()
    }
}

/// What a neighbour with discriminator 9 says, that wants 100 ms both ways.
fn said(state: State, yours: u32) -> Packet {
    Packet {
        diagnostic: Diagnostic::NONE,
        state,
        poll: false,
        r#final: false,
        independent: false,
        demand: false,
        multiplier: 3,
        mine: number(9),
        yours,
        desired_tx: 100_000,
        required_rx: 100_000,
        required_echo_rx: 0,
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn golden_packets() {
    // RFC 5880 §4.1, written by hand: what FRR sends first with its defaults.
    let first = hex("20 40 03 18 0000000a 00000000 000f4240 000493e0 0000c350");
    let packet = Packet {
        mine: number(10),
        desired_tx: 1_000_000,
        required_rx: 300_000,
        required_echo_rx: 50_000,
        ..said(State::Down, 0)
    };
    assert_eq!(packet.build().as_slice(), first);
    assert_eq!(Packet::parse(&first), Ok(packet));
    // Diagnostic 7, AdminDown, F, C and D, multiplier 255.
    let last = hex("27 1a ff 18 ffffffff 00000001 00000000 ffffffff 00000000");
    let packet = Packet {
        diagnostic: Diagnostic::ADMIN_DOWN,
        state: State::AdminDown,
        poll: false,
        r#final: true,
        independent: true,
        demand: true,
        multiplier: 255,
        mine: number(u32::MAX),
        yours: 1,
        desired_tx: 0,
        required_rx: u32::MAX,
        required_echo_rx: 0,
    };
    assert_eq!(packet.build().as_slice(), last);
    assert_eq!(Packet::parse(&last), Ok(packet));
    // Up with P; what follows the length is no part of the packet.
    let mut padded = hex("20 e0 03 18 0000000a 00000009 00000001 00000002 00000003");
    padded.extend([0xff; 8]);
    let packet = Packet::parse(&padded).expect("a packet");
    assert_eq!((packet.state, packet.poll), (State::Up, true));
    assert_eq!(
        (
            packet.desired_tx,
            packet.required_rx,
            packet.required_echo_rx
        ),
        (1, 2, 3)
    );
    let echo = Echo {
        discriminator: number(10),
        token: 0x0102_0304_0506_0708,
        sequence: 3,
    };
    let bytes = hex("20180000 0000000a 0102030405060708 0000000000000003");
    assert_eq!(echo.build().as_slice(), bytes);
    assert_eq!(Echo::parse(&bytes), Some(echo));
}

/// §6.8.6, in its order.
#[test]
fn what_no_session_can_take() {
    let good = said(State::Down, 0).build().to_vec();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let mut no_discriminator = good.clone();
    no_discriminator[4..8].fill(0);
    let mut authenticated = with(1, 0x44);
    authenticated[3] = 26;
    authenticated.extend([1, 2]);
    let table = [
        (vec![], Error::Truncated { length: 0 }),
        (good[..23].to_vec(), Error::Truncated { length: 23 }),
        (with(0, 0x00), Error::Version { version: 0 }),
        (with(0, 0x40), Error::Version { version: 2 }),
        (
            with(3, 23),
            Error::Length {
                length: 23,
                least: 24,
                payload: 24,
            },
        ),
        (
            with(3, 25),
            Error::Length {
                length: 25,
                least: 24,
                payload: 24,
            },
        ),
        (
            with(1, 0x44),
            Error::Length {
                length: 24,
                least: 26,
                payload: 24,
            },
        ),
        (with(2, 0), Error::Multiplier),
        (with(1, 0x41), Error::Multipoint),
        (no_discriminator, Error::MyDiscriminator),
        (
            with(1, 0x80),
            Error::YourDiscriminator { state: State::Init },
        ),
        (with(1, 0xc0), Error::YourDiscriminator { state: State::Up }),
        (authenticated, Error::Authenticated),
    ];
    for (bytes, want) in table {
        assert_eq!(Packet::parse(&bytes), Err(want), "{bytes:02x?}");
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn single(peer: &str) -> Key {
    Key {
        peer: ip(peer),
        local: None,
        interface: None,
        multihop: false,
    }
}

fn arrival(from: &str, interface: u32, ttl: u8, multihop: bool) -> Arrival {
    Arrival {
        from: ip(from),
        to: ip("192.0.2.1"),
        interface,
        ttl,
        multihop,
    }
}

#[test]
fn whose_packet_it_is() {
    let mut all = Sessions::new(1);
    let near = single("192.0.2.9");
    let far = Key {
        multihop: true,
        ..single("192.0.2.9")
    };
    let link = |interface| Key {
        interface: Some(interface),
        ..single("fe80::9")
    };
    let multi = Settings {
        hops: Hops::Multi { minimum_ttl: 250 },
        ..Settings::default()
    };
    let held = single("192.0.2.77");
    for key in [&near, &link(2), &link(3), &held] {
        all.set(ms(0), key.clone(), Settings::default());
    }
    all.set(ms(0), far.clone(), multi);
    all.set_admin_down(ms(0), &held, true);
    let mine = |all: &Sessions, key: &Key| all.get(key).expect("it").discriminator().get();
    let ours = mine(&all, &near);
    assert_ne!(ours, mine(&all, &far));
    let down = said(State::Down, 0);
    let table: Vec<(Arrival, Packet, Result<Key, &str>)> = vec![
        (arrival("192.0.2.9", 2, 255, false), down, Ok(near.clone())),
        (arrival("192.0.2.9", 7, 255, false), down, Ok(near.clone())),
        (arrival("192.0.2.9", 2, 254, false), down, Err("bad_ttl")),
        (arrival("192.0.2.9", 2, 250, true), down, Ok(far.clone())),
        (arrival("192.0.2.9", 2, 249, true), down, Err("bad_ttl")),
        (arrival("fe80::9", 2, 255, false), down, Ok(link(2))),
        (arrival("fe80::9", 3, 255, false), down, Ok(link(3))),
        (arrival("fe80::9", 4, 255, false), down, Err("stranger")),
        (arrival("192.0.2.8", 2, 255, false), down, Err("stranger")),
        (
            arrival("192.0.2.77", 2, 255, false),
            down,
            Err("admin_down"),
        ),
        // By discriminator, whatever the state.
        (
            arrival("192.0.2.9", 2, 255, false),
            said(State::Init, ours),
            Ok(near),
        ),
        (
            arrival("192.0.2.8", 2, 255, false),
            said(State::Init, ours),
            Err("no_session"),
        ),
        (
            arrival("192.0.2.9", 2, 255, true),
            said(State::Init, ours),
            Err("no_session"),
        ),
        (
            arrival("192.0.2.9", 2, 255, false),
            said(State::Init, ours ^ 1),
            Err("no_session"),
        ),
    ];
    let count = |all: &Sessions, name: &str| {
        let counters = format!("{:?}", all.counters());
        let at = counters.find(&format!("{name}: ")).expect(name) + name.len() + 2;
        let digits = counters[at..].bytes().take_while(u8::is_ascii_digit);
        digits.fold(0, |n, digit| n * 10 + u64::from(digit - b'0'))
    };
    for (arrival, packet, want) in table {
        let name = want.as_ref().err().copied().unwrap_or("accepted");
        let before = count(&all, name);
        let taken = all.on_control(ms(1), &arrival, &packet.build());
        assert_eq!(taken.is_ok(), want.is_ok(), "{arrival:?} {taken:?}");
        if let Ok(key) = want {
            assert_eq!(taken, Ok(key));
        }
        assert_eq!(count(&all, name), before + 1, "{arrival:?} {name}");
    }
    // One that is gone is a stranger.
    all.remove(&link(2));
    let error = all.on_control(
        ms(2),
        &arrival("fe80::9", 2, 255, false),
        &said(State::Down, 0).build(),
    );
    assert!(matches!(error, Err(Error::Stranger { .. })), "{error:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes, nothing panics; what is taken is written as it was read.
    #[test]
    fn any_bytes(
        mut bytes in prop::collection::vec(any::<u8>(), 0..40),
        plausible in any::<bool>(),
        ttl in any::<u8>(),
    ) {
        if plausible && bytes.len() >= LEN {
            bytes[0] = 0x20 | bytes[0] & 0x1f;
            bytes[1] &= !0x05;
            bytes[3] = 24;
        }
        if let Ok(packet) = Packet::parse(&bytes) {
            let mut built = packet.build().to_vec();
            // The length may cover more than it needs.
            built[3] = bytes[3];
            prop_assert_eq!(&built[..], &bytes[..LEN]);
        }
        let mut all = Sessions::new(7);
        all.set(ms(0), single("192.0.2.9"), Settings { echo: Some(ms(50)), ..Settings::default() });
        let from = arrival("192.0.2.9", 2, ttl, false);
        let _ = all.on_control(ms(1), &from, &bytes);
        let _ = all.on_echo(ms(1), &from, &bytes);
        let _ = all.on_frame(ms(1), 2, false, &bytes);
        all.on_timeout(ms(5000));
        while all.poll_transmit().is_some() {}
    }

    /// Any sequence of good packets, settings and times: no panic, and never a state that no
    /// packet or timer leads to.
    #[test]
    fn any_sequence(
        steps in prop::collection::vec(
            (0u64..3000, 0u8..4, any::<[bool; 5]>(), any::<(u32, u32, u32)>(), 1u8..=255),
            0..60,
        ),
        seed in any::<u64>(),
    ) {
        let mut session = Session::new(ms(0), number(1), settings(300, 300, 3), seed);
        let mut now = ms(0);
        let mut state = State::Down;
        for (wait, kind, [poll, end, demand, configure, admin], (tx, rx, echo), multiplier) in steps {
            now += ms(wait);
            session.on_timeout(now);
            if configure {
                session.configure(now, Settings {
                    transmit: Duration::from_micros(u64::from(tx)),
                    receive: Duration::from_micros(u64::from(rx)),
                    multiplier: NonZeroU8::new(multiplier).expect("not 0"),
                    echo: poll.then(|| ms(u64::from(echo % 1000))),
                    passive: end,
                    hops: Hops::Single,
                });
            } else if admin && kind == 0 {
                session.set_admin_down(now, poll);
            } else {
                let state = [State::AdminDown, State::Down, State::Init, State::Up][usize::from(kind)];
                let packet = Packet {
                    poll,
                    r#final: end && !poll,
                    demand,
                    multiplier,
                    desired_tx: tx,
                    required_rx: rx,
                    required_echo_rx: echo,
                    ..said(state, 1)
                };
                let _ = session.on_packet(now, &packet);
            }
            while let Some(change) = session.poll_event() {
                prop_assert_eq!(change.from, state);
                prop_assert_ne!(change.to, state);
                state = change.to;
            }
            prop_assert_eq!(session.state(), state);
            while let Some(sent) = session.poll_transmit() {
                if let Transmit::Control(bytes) = sent {
                    let packet = Packet::parse(&bytes).expect("ours reads");
                    prop_assert!(!(packet.poll && packet.r#final));
                }
            }
        }
    }
}
