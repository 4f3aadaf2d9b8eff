//! Fuzz targets: any bytes are allowed, a panic is a bug.
//!
//! They are plain functions, so that a coverage-guided fuzzer can call them
//! (feature `fuzz`; `fuzz_target!(|data| proto::bgp::fuzz::update(data))`) and `cargo test` can run
//! them over mutations of a kept corpus.

use std::{net::Ipv4Addr, time::Duration};

use super::{
    Announce, Asn, Codec, Families, Family, Framer, MAX_EXTENDED_LEN, Message, Update,
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
    let config = |index: u32| {
        let id = Ipv4Addr::from_bits(0x0a00_0001 + index);
        Config {
            hold_time: 9,
            ..Config::new(Asn(64512 + index), id, RemoteAs::Any)
        }
    };
    let mut open = Vec::new();
    config(1).open().encode(&mut open);
    let mut peer = Peer::new(config(0), 1);
    let mut now = Duration::ZERO;
    let mut ids: Vec<ConnectionId> = Vec::new();
    let mut up = false;
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
    use super::*;

    /// Bodies of messages: kind, then hexadecimal bytes.
    const CORPUS: &str = include_str!("corpus.txt");

    fn corpus() -> Vec<(u8, Vec<u8>)> {
        let entry = |line: &str| {
            let (kind, hex) = line.split_once(' ')?;
            let digits: Vec<u8> = hex
                .chars()
                .filter_map(|char| Some(char.to_digit(16)? as u8))
                .collect();
            let bytes = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]);
            Some((kind.parse().ok()?, bytes.collect()))
        };
        CORPUS.lines().filter_map(entry).collect()
    }

    fn mutate(bytes: &mut Vec<u8>, random: &mut u64) {
        let mut next = |limit: usize| (crate::random::next(random) % limit.max(1) as u64) as usize;
        for _ in 0..=next(4) {
            let at = next(bytes.len());
            match next(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << next(8),
                1 if !bytes.is_empty() => bytes[at] = next(256) as u8,
                2 => bytes.truncate(at),
                3 => bytes.insert(at, next(256) as u8),
                4 => {
                    let part: Vec<u8> = bytes[at..].iter().take(next(30)).copied().collect();
                    let to = next(bytes.len());
                    bytes.splice(to..to, part);
                }
                _ if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][next(5)],
                _ => {}
            }
        }
    }

    #[test]
    fn the_corpus_is_sound() {
        let corpus = corpus();
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
    }

    #[test]
    fn mutations_do_no_harm() {
        let mut random = 1;
        for round in 0..400u32 {
            for (kind, body) in corpus() {
                let first = crate::random::next(&mut random) as u8;
                let mut bytes = body;
                if round > 0 {
                    mutate(&mut bytes, &mut random);
                }
                match kind {
                    1 => open(&bytes),
                    2 => {
                        let with_terms = [&[first], bytes.as_slice()].concat();
                        update(&with_terms);
                        attribute(&with_terms);
                    }
                    _ => {}
                }
                let mut messages = vec![first];
                messages.extend(message(kind, &bytes));
                messages.extend(message(4, &[]));
                stream(&messages);
                stream(&bytes);
                events(&bytes);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_do_no_harm(data in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            stream(&data);
            open(&data);
            update(&data);
            attribute(&data);
            events(&data);
        }
    }
}
