//! Fuzz targets: any bytes are allowed, a panic is a bug.
//!
//! They are plain functions, so that a coverage-guided fuzzer can call them
//! (feature `fuzz`; `fuzz_target!(|data| proto::bgp::fuzz::update(data))`) and `cargo test` can run
//! them over mutations of a kept corpus.

use std::{net::Ipv4Addr, time::Duration};

use super::{
    Announce, Asn, Codec, Families, Family, Framer, LocalRole, MAX_EXTENDED_LEN, Message, Role,
    Update,
    fsm::{Config, ConnectionId, DialError, Output, Peer, RemoteAs, Reset, Stop},
};

/// A stream of messages, cut anywhere.
pub fn stream(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else {
        return;
    };
    let codec = codec(first);
    let mut framer = Framer::default();
    if codec.extended_message {
        framer.allow_extended();
    }
    for piece in data.chunks(usize::from(first) + 1) {
        framer.push(piece);
        loop {
            match framer.next() {
                Ok(Some(message)) => check(Message::decode(message, &codec)),
                Ok(None) => break,
                Err(error) => {
                    let _ = error.notification();
                    return;
                }
            }
        }
    }
}

/// The body of an OPEN.
pub fn open(data: &[u8]) {
    check(Message::decode(&message(1, data), &Codec::default()));
}

/// The body of an UPDATE, its first byte the terms of the session.
pub fn update(data: &[u8]) {
    let Some((&first, body)) = data.split_first() else {
        return;
    };
    let codec = codec(first);
    if let Ok(Message::Update(update)) = Message::decode(&message(2, body), &codec) {
        again(&update, &codec);
    }
}

/// One attribute after good ones: type, flags, value.
pub fn attribute(data: &[u8]) {
    let [first, code, flags, value @ ..] = data else {
        return;
    };
    let good = [
        0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9, 0x40, 3, 4, 10, 0, 0, 1,
    ];
    let mut attributes = good.to_vec();
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    attributes.extend([flags | 0x10, *code]);
    attributes.extend(length.to_be_bytes());
    attributes.extend(value.iter().take(length.into()));
    let total = u16::try_from(attributes.len()).unwrap_or(u16::MAX);
    let mut body = vec![*first, 0, 0];
    body.extend(total.to_be_bytes());
    body.extend(&attributes);
    body.extend([24, 192, 0, 2]);
    update(&body);
}

/// A sequence of events: one byte says which, one how long after the last.
pub fn events(data: &[u8]) {
    let _ = sessions(data);
}

/// How many sessions came up in this sequence of events.
fn sessions(data: &[u8]) -> usize {
    let config = |index: u32| {
        let id = Ipv4Addr::from_bits(0x0a00_0001 + index);
        Config {
            hold_time: 9,
            role: Some(LocalRole {
                role: Role::Peer,
                strict: false,
            }),
            ..Config::new(Asn(64512 + index), id, RemoteAs::Any)
        }
    };
    let mut open = Vec::new();
    config(1).open().encode(&mut open);
    let mut peer = Peer::new(config(0), 1);
    let mut now = Duration::ZERO;
    let mut ids: Vec<ConnectionId> = Vec::new();
    let mut up = false;
    let mut ups = 0;
    for pair in data.chunks_exact(2) {
        let [what, wait] = [pair.first(), pair.last()].map(|byte| byte.copied().unwrap_or(0));
        now += Duration::from_millis(u64::from(wait) * 50);
        // Of the last connections, open or not.
        let id = ids.iter().rev().nth(usize::from(what >> 6)).copied();
        match (what & 0x0f, id) {
            (0, _) => peer.start(now),
            (1, _) => peer.stop(now, Stop::Restart),
            (2, _) => peer.reset(now, Reset::BfdDown),
            (3, _) => ids.extend(peer.accept(now)),
            (4, Some(id)) => peer.dialled(now, id),
            (5, Some(id)) => {
                let by = String::new();
                let error = [DialError::Refused, DialError::Occupied { by }];
                let [refused, occupied] = error;
                let error = if wait & 1 == 0 { refused } else { occupied };
                peer.dial_failed(now, id, error);
            }
            (6, Some(id)) => peer.received(now, id, &open),
            (7, Some(id)) => peer.received(now, id, &message(4, &[])),
            (8, Some(id)) => peer.received(now, id, &message(2, &[0; 4])),
            (9, Some(id)) => peer.received(now, id, &message(5, &[0, 1, 0, 1])),
            (10, Some(id)) => peer.received(now, id, &message(3, &[6, wait])),
            (11, Some(id)) => peer.received(now, id, data),
            (12, Some(id)) => peer.closed(now, id),
            (13, Some(id)) => peer.queued(now, id),
            (14, Some(id)) => peer.written(now, id, wait.into()),
            _ => peer.timer(now),
        }
        while let Some(output) = peer.poll() {
            match output {
                Output::Dial(id) => ids.push(id),
                Output::Up(..) => {
                    assert!(!up, "up twice");
                    up = true;
                    ups += 1;
                }
                Output::Down(_) => {
                    assert!(up, "down twice");
                    up = false;
                }
                _ => {}
            }
        }
        assert_eq!(up, peer.session().is_some());
    }
    ups
}

fn codec(bits: u8) -> Codec {
    let on = |bit: u8| bits >> bit & 1 == 1;
    let add_path = if on(0) { Families::ALL } else { Families::NONE };
    Codec {
        families: if on(1) {
            Families::from_iter([Family::Ipv6])
        } else {
            Families::ALL
        },
        four_octet: !on(2),
        extended_message: true,
        extended_next_hop: on(3),
        add_path_receive: add_path,
        add_path_send: add_path,
        external: !on(4),
        disable_families: on(5),
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let body = body.get(..MAX_EXTENDED_LEN - 19).unwrap_or(body);
    let mut out = vec![0xff; 16];
    let length = u16::try_from(19 + body.len()).unwrap_or(u16::MAX);
    out.extend(length.to_be_bytes());
    out.push(kind);
    out.extend(body);
    out
}

fn check(decoded: Result<Message, super::Error>) {
    match decoded {
        Ok(message) => {
            let _ = format!("{message:?}");
        }
        Err(error) => {
            let mut out = Vec::new();
            error.notification().encode(&mut out);
            let _ = (error.to_string(), error.notification().to_string());
        }
    }
}

/// What was read can be written, and reads the same.
fn again(update: &Update, codec: &Codec) {
    for group in &update.announced {
        let family = group.nlri.first().map(|nlri| nlri.prefix.family());
        let Some(family) = family else {
            continue;
        };
        let Ok(announce) = Announce::new(&update.attributes, &group.next_hop, family, codec) else {
            continue;
        };
        let mut nlri = group.nlri.iter().copied();
        let mut out = Vec::new();
        let count = announce.message(&mut nlri, &mut out);
        let Ok(Message::Update(read)) = Message::decode(&out, codec) else {
            panic!("our own UPDATE does not read");
        };
        let [same] = read.announced.as_slice() else {
            panic!("our own UPDATE has flaws: {:?}", read.flaws);
        };
        assert_eq!(same.next_hop, group.next_hop);
        assert_eq!(Some(same.nlri.as_slice()), group.nlri.get(..count));
        assert_eq!(read.attributes, update.attributes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::num::{u8, u64};

    use super::super::cases;
    use super::*;

    /// Bodies of messages (kind) and sequences of events (`e`), each with hexadecimal bytes.
    const CORPUS: &str = include_str!("corpus.txt");

    fn corpus(of: impl Fn(&str) -> bool) -> Vec<(u8, Vec<u8>)> {
        let entry = |line: &str| {
            let (kind, hex) = line.split_once(' ').filter(|(kind, _)| of(kind))?;
            Some((kind.parse().unwrap_or(0), cases::bytes(hex)))
        };
        CORPUS.lines().filter_map(entry).collect()
    }

    fn messages() -> Vec<(u8, Vec<u8>)> {
        corpus(|kind| kind != "e")
    }

    fn sequences() -> Vec<Vec<u8>> {
        let found = corpus(|kind| kind == "e").into_iter();
        found.map(|(_, bytes)| bytes).collect()
    }

    /// Changes up to four places: bits, bytes, the length, a part put elsewhere, what may be a
    /// length.
    fn mutate(bytes: &mut Vec<u8>, random: &mut u64) {
        let mut next = |limit: usize| (crate::random::next(random) % limit.max(1) as u64) as usize;
        for _ in 0..=next(4) {
            let (at, length) = (next(bytes.len()), bytes.len());
            match next(8) {
                0 if length > 0 => bytes[at] ^= 1 << next(8),
                1 if length > 0 => bytes[at] = next(256) as u8,
                2 => bytes.truncate(at),
                3 => bytes.insert(at, next(256) as u8),
                4 => {
                    let part: Vec<u8> = bytes[at..].iter().take(next(30)).copied().collect();
                    let to = next(length);
                    bytes.splice(to..to, part);
                }
                5 if length > 0 => {
                    let rest = length - at;
                    let one_off = [rest, rest.wrapping_sub(1), rest.wrapping_sub(2), rest + 1];
                    bytes[at] = one_off[next(4)] as u8;
                }
                6 if at + 1 < length => {
                    let rest = (length - at - 2) as u16;
                    let value = [0, 1, rest, rest + 1, rest.wrapping_sub(1), u16::MAX][next(6)];
                    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
                }
                _ if length > 0 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][next(5)],
                _ => {}
            }
        }
    }

    #[test]
    fn the_corpus_is_sound() {
        let corpus = messages();
        assert!(corpus.len() >= 12, "{}", corpus.len());
        let terms = Codec {
            extended_next_hop: true,
            ..Codec::default()
        };
        let bad: Vec<String> = corpus
            .into_iter()
            .filter_map(|(kind, body)| {
                let error = Message::decode(&message(kind, &body), &terms).err()?;
                Some(format!("{kind} {body:02x?}: {error}"))
            })
            .collect();
        assert_eq!(bad, Vec::<String>::new());
        let ups: Vec<usize> = sequences().iter().map(|it| sessions(it)).collect();
        assert_eq!(ups, [1, 1, 2, 1, 1, 1]);
    }

    #[test]
    fn the_corpus_does_no_harm() {
        for (kind, body) in messages() {
            each_target(kind, 0, &body);
        }
        for case in cases::cases() {
            attribute(&[&[0, case.code, case.flags], case.value().as_slice()].concat());
        }
    }

    /// The terms of the session are `first`.
    fn each_target(kind: u8, first: u8, bytes: &[u8]) {
        match kind {
            1 => open(bytes),
            2 => update(&[&[first], bytes].concat()),
            _ => {}
        }
        let mut messages = vec![first];
        messages.extend(message(kind, bytes));
        messages.extend(message(4, &[]));
        stream(&messages);
        stream(bytes);
        events(bytes);
    }

    proptest::proptest! {
        // More of them: PROPTEST_CASES=100000 cargo test -p proto fuzz
        #[test]
        fn mutations_do_no_harm(seed in u64::ANY) {
            let mut random = seed | 1;
            for (kind, mut body) in messages() {
                mutate(&mut body, &mut random);
                each_target(kind, crate::random::next(&mut random) as u8, &body);
            }
            for case in cases::cases() {
                // Mostly its own flags and length, so that the value is looked at.
                let terms = crate::random::next(&mut random) as u8;
                let mut value = case.value();
                mutate(&mut value, &mut random);
                attribute(&[&[terms, case.code, case.flags], value.as_slice()].concat());
                let mut list = cases::list(true, case.flags, case.code, &case.value());
                mutate(&mut list, &mut random);
                let whole = cases::message(&[], &list, &[24, 192, 0, 2]);
                update(&[&[terms], &whole[19..]].concat());
            }
            for mut sequence in sequences() {
                mutate(&mut sequence, &mut random);
                events(&sequence);
            }
        }

        #[test]
        fn any_bytes_do_no_harm(data in vec(u8::ANY, 0..400)) {
            stream(&data);
            open(&data);
            update(&data);
            attribute(&data);
            events(&data);
        }

        #[test]
        fn any_value_of_any_attribute_does_no_harm(
            terms in u8::ANY,
            code in u8::ANY,
            flags in u8::ANY,
            value in vec(u8::ANY, 0..64),
        ) {
            attribute(&[&[terms, code, flags], value.as_slice()].concat());
            // Of those that are read, with the flags that they should have.
            for (known, flags) in [
                (1, 0x40), (2, 0x40), (3, 0x40), (4, 0x80), (5, 0x40), (6, 0x40), (7, 0xc0),
                (8, 0xc0), (9, 0x80), (10, 0x80), (14, 0x80), (15, 0x80), (16, 0xc0), (17, 0xc0),
                (18, 0xc0), (25, 0xc0), (26, 0x80), (32, 0xc0), (35, 0xc0),
            ] {
                attribute(&[&[terms, known, flags], value.as_slice()].concat());
            }
        }
    }
}
