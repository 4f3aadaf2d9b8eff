//! Against another codec, that nobody of ours has written (rustbgpd-wire): what we write it reads
//! as we meant it, and what it writes of that we read as the same.

use std::net::{IpAddr, Ipv4Addr};

use proptest::{option, prelude::*};
use rustbgpd_wire as other;

use super::{
    fsm::{Config, Graceful, RemoteAs},
    update::tests::{attributes, codec, routes},
    *,
};

/// Its limit: nothing is too long.
const ANY_LENGTH: u16 = u16::MAX;

/// The message as it reads it.
fn theirs(bytes: &[u8]) -> other::Message {
    let found = other::decode_message(&mut bytes.to_vec().into(), ANY_LENGTH);
    found.unwrap_or_else(|error| panic!("{error}: {bytes:02x?}"))
}

/// The message as it writes it.
fn rewritten(message: &other::Message) -> Vec<u8> {
    other::encode_message_with_limit(message, ANY_LENGTH)
        .unwrap()
        .to_vec()
}

fn ours(bytes: &[u8], codec: &Codec) -> Message {
    Message::decode(bytes, codec).unwrap_or_else(|error| panic!("{error}: {bytes:02x?}"))
}

/// Each message of a stream.
fn messages(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut framer = Framer::default();
    framer.allow_extended();
    framer.push(stream);
    let mut all = Vec::new();
    while let Some(message) = framer.next().unwrap() {
        all.push(message.to_vec());
    }
    all
}

fn add_path(codec: &Codec) -> (bool, Vec<(other::Afi, other::Safi)>) {
    let families = [other::Afi::Ipv4, other::Afi::Ipv6].map(|afi| (afi, other::Safi::Unicast));
    match codec.add_path_send.is_empty() {
        true => (false, Vec::new()),
        false => (true, families.to_vec()),
    }
}

fn prefix(prefix: other::Prefix, path_id: u32) -> Nlri {
    let prefix = match prefix {
        other::Prefix::V4(v4) => Prefix::new(v4.addr.into(), v4.len),
        other::Prefix::V6(v6) => Prefix::new(v6.addr.into(), v6.len),
    };
    let prefix = prefix.unwrap();
    Nlri { prefix, path_id }
}

fn classic(entries: &[other::Ipv4NlriEntry]) -> Vec<Nlri> {
    let entries = entries.iter();
    entries
        .map(|one| prefix(other::Prefix::V4(one.prefix), one.path_id))
        .collect()
}

/// What it has read of an UPDATE, in our words.
#[derive(Debug, Default)]
struct Read {
    attributes: Attributes,
    next_hop: Option<NextHop>,
    announced: Vec<Nlri>,
    withdrawn: Vec<Nlri>,
}

impl Read {
    fn of(update: &other::ParsedUpdate) -> Self {
        let mut read = Self {
            announced: classic(&update.announced),
            withdrawn: classic(&update.withdrawn),
            ..Self::default()
        };
        for attribute in &update.attributes {
            read.attribute(attribute);
        }
        read
    }

    fn attribute(&mut self, attribute: &other::PathAttribute) {
        use other::PathAttribute as A;
        let said = &mut self.attributes;
        match attribute {
            A::Origin(origin) => {
                said.origin = match origin {
                    other::Origin::Igp => Origin::Igp,
                    other::Origin::Egp => Origin::Egp,
                    other::Origin::Incomplete => Origin::Incomplete,
                }
            }
            A::AsPath(path) => {
                let numbers = path.segments.iter().flat_map(|segment| match segment {
                    other::AsPathSegment::AsSequence(numbers) => numbers,
                    other => panic!("{other:?}"),
                });
                said.as_path = AsPath(numbers.copied().map(Asn).collect());
            }
            A::NextHop(v4) => self.next_hop = Some(NextHop::V4(*v4)),
            A::Med(med) => said.med = Some(*med),
            A::LocalPref(preference) => said.local_pref = Some(*preference),
            A::AtomicAggregate => said.atomic_aggregate = true,
            A::Aggregator(found) => {
                said.aggregator = Some(Aggregator {
                    asn: Asn(found.asn),
                    address: found.router_id,
                });
            }
            A::Communities(all) => {
                said.communities = all.iter().copied().map(Community).collect();
            }
            A::ExtendedCommunities(all) => {
                let bytes = all.iter().map(|one| one.as_u64().to_be_bytes());
                said.extended_communities = bytes.map(ExtendedCommunity).collect();
            }
            A::LargeCommunities(all) => {
                let all = all.iter().map(|one| LargeCommunity {
                    global: one.global_admin,
                    first: one.local_data1,
                    second: one.local_data2,
                });
                said.large_communities = all.collect();
            }
            A::OriginatorId(id) => said.originator_id = Some(*id),
            A::ClusterList(list) => said.cluster_list.clone_from(list),
            A::OnlyToCustomer(asn) => said.only_to_customer = Some(Asn(*asn)),
            A::MpReachNlri(reach) => {
                self.next_hop = Some(match (reach.next_hop, reach.link_local_next_hop) {
                    (IpAddr::V4(v4), _) => NextHop::V4(v4),
                    (IpAddr::V6(global), Some(link_local)) => {
                        NextHop::V6Both { global, link_local }
                    }
                    (IpAddr::V6(v6), None) => NextHop::V6(v6),
                });
                let entries = reach.announced.iter();
                self.announced
                    .extend(entries.map(|one| prefix(one.prefix, one.path_id)));
            }
            A::MpUnreachNlri(unreach) => {
                let entries = unreach.withdrawn.iter();
                self.withdrawn
                    .extend(entries.map(|one| prefix(one.prefix, one.path_id)));
            }
            A::Unknown(raw) => said.opaque.push(Opaque {
                flags: raw.flags & !0x10,
                code: raw.type_code,
                value: raw.data.to_vec(),
            }),
            other => panic!("{other:?}"),
        }
    }
}

fn parsed(message: &[u8], codec: &Codec) -> other::ParsedUpdate {
    let other::Message::Update(update) = theirs(message) else {
        panic!("not an UPDATE: {message:02x?}");
    };
    let (ipv4, families) = add_path(codec);
    let parsed = update.parse_revised(codec.four_octet, !codec.external, ipv4, &families);
    let parsed = parsed.unwrap_or_else(|error| panic!("{error}: {message:02x?}"));
    assert_eq!(parsed.malformed, []);
    parsed.update
}

/// What it writes of what it has read.
fn written(parsed: &other::ParsedUpdate, codec: &Codec) -> Vec<u8> {
    let update = other::UpdateMessage::try_build(
        &parsed.announced,
        &parsed.withdrawn,
        &parsed.attributes,
        codec.four_octet,
        add_path(codec).0,
        other::Ipv4UnicastMode::Body,
    );
    rewritten(&other::Message::Update(update.unwrap()))
}

fn update(bytes: &[u8], codec: &Codec) -> Update {
    match ours(bytes, codec) {
        Message::Update(update) => *update,
        other => panic!("{other:?}"),
    }
}

/// What a speaker may be configured to say in its OPEN.
fn configs() -> impl Strategy<Value = Config> {
    let graceful = (
        0..4096u16,
        any::<bool>(),
        any::<bool>(),
        option::of(0..0x0100_0000u32),
    );
    let numbers = (
        1..=u32::MAX,
        prop_oneof![Just(0u16), 3..=u16::MAX],
        1..=u32::MAX,
    );
    let flags = any::<[bool; 5]>();
    (
        numbers,
        flags,
        option::of(graceful),
        option::of("[a-z0-9-]{1,60}"),
        option::of(0..5u8),
    )
        .prop_map(
            |((asn, hold_time, id), [four, six, hops, send, receive], graceful, host, role)| {
                let pick = |flag: bool, family| flag.then_some(family);
                let families: Families = [pick(four, Family::Ipv4), pick(six, Family::Ipv6)]
                    .into_iter()
                    .flatten()
                    .collect();
                let chosen = |flag: bool| if flag { families } else { Families::NONE };
                Config {
                    families,
                    hold_time,
                    extended_next_hop: hops,
                    add_path_receive: chosen(receive),
                    add_path_send: chosen(send),
                    graceful: graceful.map(|(restart_time, restarting, kept, long_lived)| {
                        Graceful {
                            restart_time,
                            restarting,
                            families,
                            forwarding: chosen(kept),
                            long_lived,
                            stale_time: std::time::Duration::ZERO,
                        }
                    }),
                    role: role.and_then(Role::of).map(|role| LocalRole {
                        role,
                        strict: false,
                    }),
                    host,
                    ..Config::new(Asn(asn), Ipv4Addr::from_bits(id), RemoteAs::Any)
                }
            },
        )
}

/// What it has read of a capability, where that can be said in our words.
fn capability(found: &other::Capability) -> Option<Capability> {
    let pair = |afi: other::Afi, safi: other::Safi| AfiSafi {
        afi: afi as u16,
        safi: safi as u8,
    };
    use other::Capability as C;
    Some(match found {
        C::MultiProtocol { afi, safi } => Capability::Multiprotocol(pair(*afi, *safi)),
        C::RouteRefresh => Capability::RouteRefresh,
        C::EnhancedRouteRefresh => Capability::EnhancedRefresh,
        C::ExtendedMessage => Capability::ExtendedMessage,
        C::Role { role } => Capability::Role(role.to_u8()),
        C::FourOctetAs { asn } => Capability::FourOctetAs(Asn(*asn)),
        C::ExtendedNextHop(all) => {
            let one = |it: &other::ExtendedNextHopFamily| {
                (pair(it.nlri_afi, it.nlri_safi), it.next_hop_afi as u16)
            };
            Capability::ExtendedNextHop(all.iter().map(one).collect())
        }
        C::AddPath(all) => {
            let one = |it: &other::AddPathFamily| {
                let mode = it.send_receive;
                let mode = AddPath {
                    receive: mode != other::AddPathMode::Send,
                    send: mode != other::AddPathMode::Receive,
                };
                (pair(it.afi, it.safi), mode)
            };
            Capability::AddPath(all.iter().map(one).collect())
        }
        C::GracefulRestart {
            restart_state,
            notification,
            restart_time,
            families,
        } => Capability::GracefulRestart(GracefulRestart {
            restarting: *restart_state,
            notification: *notification,
            restart_time: *restart_time,
            families: families
                .iter()
                .map(|it| (pair(it.afi, it.safi), it.forwarding_preserved))
                .collect(),
        }),
        C::LongLivedGracefulRestart(all) => {
            let one = |it: &other::LlgrFamily| LongLived {
                family: pair(it.afi, it.safi),
                forwarding: it.forwarding_preserved,
                stale_time: it.stale_time,
            };
            Capability::LongLived(all.iter().map(one).collect())
        }
        // It has no word for those: the old route refresh, the host name.
        C::Unknown { code, .. } => {
            assert!([73, 128].contains(code), "{code}");
            return None;
        }
        other => panic!("{other:?}"),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_reads_our_announcements_and_we_read_its(
        attributes in attributes(),
        (family, next_hop, add_path, nlri) in routes(),
        external: bool,
    ) {
        let codec = Codec { external, ..codec(add_path, true, true) };
        let attributes = match external {
            true => Attributes {
                local_pref: None,
                originator_id: None,
                cluster_list: Vec::new(),
                ..attributes
            },
            false => attributes,
        };
        let mut out = Vec::new();
        let announce = Announce::new(&attributes, &next_hop, family, &codec).unwrap();
        let mut rest = nlri.iter().copied();
        while announce.message(&mut rest, &mut out) > 0 {}
        let mut found = Vec::new();
        for message in messages(&out) {
            let parsed = parsed(&message, &codec);
            let read = Read::of(&parsed);
            prop_assert_eq!(&read.attributes, &attributes);
            prop_assert_eq!(read.next_hop, Some(next_hop));
            prop_assert_eq!(&read.withdrawn, &vec![]);
            found.extend(read.announced);
            let back = update(&written(&parsed, &codec), &codec);
            prop_assert_eq!(back, update(&message, &codec));
        }
        prop_assert_eq!(found, nlri);
    }

    #[test]
    fn it_reads_our_withdrawals_and_we_read_its((family, _, add_path, nlri) in routes()) {
        let codec = codec(add_path, true, true);
        let mut out = Vec::new();
        let withdraw = Withdraw::new(family, &codec);
        let mut rest = nlri.iter().copied();
        while withdraw.message(&mut rest, &mut out) > 0 {}
        let mut found = Vec::new();
        for message in messages(&out) {
            let parsed = parsed(&message, &codec);
            let read = Read::of(&parsed);
            prop_assert_eq!(&read.announced, &vec![]);
            found.extend(read.withdrawn);
            let back = update(&written(&parsed, &codec), &codec);
            prop_assert_eq!(back, update(&message, &codec));
        }
        prop_assert_eq!(found, nlri);
    }

    #[test]
    fn it_reads_our_open_and_we_read_its(config in configs()) {
        let open = config.open();
        let mut bytes = Vec::new();
        open.encode(&mut bytes);
        let message = theirs(&bytes);
        let other::Message::Open(found) = &message else {
            panic!("{message:?}");
        };
        prop_assert_eq!(found.four_byte_as(), open.asn.0);
        prop_assert_eq!(found.hold_time, open.hold_time);
        prop_assert_eq!(found.bgp_identifier, open.identifier);
        let read: Vec<Capability> = found.capabilities.iter().filter_map(capability).collect();
        let nameless = |it: &&Capability| {
            !matches!(it, Capability::CiscoRouteRefresh | Capability::Fqdn { .. })
        };
        let said: Vec<Capability> = open.capabilities.iter().filter(nameless).cloned().collect();
        prop_assert_eq!(read, said);
        prop_assert_eq!(ours(&rewritten(&message), &Codec::default()), Message::Open(open));
    }

    #[test]
    fn it_reads_our_short_messages_and_we_read_its(
        code in 1..=8u8,
        subcode: u8,
        data in proptest::collection::vec(any::<u8>(), 0..200),
        six: bool,
        kind in prop_oneof![Just(RefreshKind::Request), Just(RefreshKind::Begin), Just(RefreshKind::End)],
    ) {
        let notification = Notification { code, subcode, data };
        let family = AfiSafi::from(if six { Family::Ipv6 } else { Family::Ipv4 });
        let refresh = Refresh { family, kind };
        let mut bytes = Vec::new();
        notification.encode(&mut bytes);
        let found = theirs(&bytes);
        let other::Message::Notification(read) = &found else {
            panic!("{found:?}");
        };
        prop_assert_eq!((read.code.as_u8(), read.subcode), (code, subcode));
        prop_assert_eq!(&read.data[..], &notification.data[..]);
        prop_assert_eq!(rewritten(&found), bytes);

        let mut bytes = Vec::new();
        refresh.encode(&mut bytes);
        let found = theirs(&bytes);
        let other::Message::RouteRefresh(read) = &found else {
            panic!("{found:?}");
        };
        prop_assert_eq!(read.afi().map(|afi| afi as u16), Some(family.afi));
        let subtype = match kind {
            RefreshKind::Begin => other::RouteRefreshSubtype::BoRR,
            RefreshKind::End => other::RouteRefreshSubtype::EoRR,
            _ => other::RouteRefreshSubtype::Normal,
        };
        prop_assert_eq!(read.subtype(), subtype);
        prop_assert_eq!(rewritten(&found), bytes);
    }
}
