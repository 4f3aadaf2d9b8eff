//! A node's state as its beats carry it: `NodeState` in JSON without what only people read, the MAC
//! addresses of its interfaces in their order, and the addresses that stay with the node or are
//! withheld by it packed, so that hundreds fit into one datagram.
//!
//! Packed are groups of one family and one term: twice their number, odd for IPv6; the term; the
//! first address; the distance of each further one from the one before. Numbers are LEB128, and the
//! whole is Base64. Addresses that lie close together take little more than a byte each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::corten::v1alpha1::{Interface, NodeStateStatus};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use plan::world::{NodeState, Tenures, Term};
use proto::member::MAX_PAYLOAD;
use serde::{Deserialize, Serialize};

/// Why a beat's state cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum BeatError {
    #[error("it is no state in JSON")]
    Json(#[from] serde_json::Error),
    #[error("its addresses are not Base64")]
    Base64(#[from] base64::DecodeError),
    #[error("its addresses end at byte {0}, too early")]
    Truncated(usize),
    #[error("its addresses go wrong before byte {0}: a number is out of range")]
    Range(usize),
}

/// So many withheld addresses are told by beats; all are by the API.
const WITHHELD: usize = 16;

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Beat {
    #[serde(flatten)]
    state: NodeStateStatus,
    #[serde(skip_serializing_if = "String::is_empty")]
    has: String,
    /// Six octets for each interface, in Base64; zeroes where it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    at: String,
    /// As those that it has, of term 0.
    #[serde(skip_serializing_if = "String::is_empty")]
    not: String,
}

/// What beats carry of a state.
pub(super) fn encode(state: &NodeStateStatus) -> Vec<u8> {
    let tenures = NodeState::from(state.clone()).tenures;
    with(state, &tenures)
}

fn with(state: &NodeStateStatus, tenures: &Tenures) -> Vec<u8> {
    let interfaces = state.interfaces.iter().map(|it| Interface {
        mac: None,
        ..it.clone()
    });
    let known = NodeState::from(state.clone());
    let macs = known.interfaces.values().map(|it| it.mac);
    let told = macs.clone().any(|mac| mac.is_some());
    let macs: Vec<u8> = macs.flat_map(Option::unwrap_or_default).collect();
    let withheld = known.withheld.iter().map(|ip| (*ip, 0)).take(WITHHELD);
    let beat = Beat {
        state: NodeStateStatus {
            interfaces: interfaces.collect(),
            standing_by: String::new(),
            agent_version: String::new(),
            tenures: Vec::new(),
            withheld: Vec::new(),
            ..state.clone()
        },
        has: STANDARD_NO_PAD.encode(pack(tenures)),
        at: if told {
            STANDARD_NO_PAD.encode(macs)
        } else {
            String::new()
        },
        not: STANDARD_NO_PAD.encode(pack(&withheld.collect())),
    };
    serde_json::to_vec(&beat).unwrap_or_default()
}

/// What beats said.
pub(super) fn decode(bytes: &[u8]) -> Result<NodeState, BeatError> {
    let beat: Beat = serde_json::from_slice(bytes)?;
    let tenures = unpack(&STANDARD_NO_PAD.decode(beat.has)?)?;
    let withheld = unpack(&STANDARD_NO_PAD.decode(beat.not)?)?;
    let macs = STANDARD_NO_PAD.decode(beat.at)?;
    let mut state = NodeState::from(beat.state);
    state.tenures.extend(tenures);
    state.withheld.extend(withheld.into_keys());
    let (macs, _) = macs.as_chunks::<6>();
    for (interface, mac) in state.interfaces.values_mut().zip(macs) {
        interface.mac = Some(*mac).filter(|mac| *mac != [0; 6]);
    }
    Ok(state)
}

/// Adds to what a node has as much of `new` as beats with this state have room for; returns how
/// many. Where there is not even room for what it has, that gets less.
pub(super) fn add(
    state: &NodeStateStatus,
    tenures: &mut Tenures,
    new: Vec<(IpAddr, Term)>,
) -> usize {
    if tenures.is_empty() && new.is_empty() {
        return 0;
    }
    let rest = with(state, &Tenures::new()).len();
    // `,"has":""` around them.
    let room = MAX_PAYLOAD.saturating_sub(rest + 9) / 4 * 3;
    let fits = |tenures: &Tenures| pack(tenures).len() <= room;
    let mut all = tenures.clone();
    all.extend(new.iter().copied());
    if fits(&all) {
        *tenures = all;
        return new.len();
    }
    while !fits(tenures) && tenures.pop_last().is_some() {}
    let mut taken = 0;
    for (address, term) in new {
        tenures.insert(address, term);
        if fits(tenures) {
            taken += 1;
        } else {
            tenures.remove(&address);
        }
    }
    taken
}

fn pack(tenures: &Tenures) -> Vec<u8> {
    let mut groups: Vec<(bool, Term, u128)> = tenures
        .iter()
        .map(|(address, term)| (address.is_ipv6(), *term, number(*address)))
        .collect();
    groups.sort_unstable();
    let mut out = Vec::new();
    for group in groups.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let [(v6, term, first), ..] = *group else {
            continue;
        };
        write(&mut out, (group.len() as u128) << 1 | u128::from(v6));
        write(&mut out, term.into());
        write(&mut out, first);
        for pair in group.array_windows::<2>() {
            let [(.., one), (.., next)] = *pair;
            write(&mut out, next - one);
        }
    }
    out
}

fn unpack(bytes: &[u8]) -> Result<Tenures, BeatError> {
    let mut tenures = Tenures::new();
    let mut at = 0;
    while at < bytes.len() {
        let head = read(bytes, &mut at)?;
        let (count, v6) = (head >> 1, head & 1 == 1);
        let term = read(bytes, &mut at)?;
        let term = Term::try_from(term).map_err(|_| BeatError::Range(at))?;
        let mut address = 0u128;
        for _ in 0..count {
            let further = read(bytes, &mut at)?;
            let sum = address.checked_add(further);
            address = sum.ok_or(BeatError::Range(at))?;
            let ip = if v6 {
                IpAddr::V6(Ipv6Addr::from(address))
            } else {
                let v4 = u32::try_from(address).map_err(|_| BeatError::Range(at))?;
                IpAddr::V4(Ipv4Addr::from(v4))
            };
            tenures.insert(ip, term);
        }
    }
    Ok(tenures)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn write(out: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

fn read(bytes: &[u8], at: &mut usize) -> Result<u128, BeatError> {
    let mut number = 0u128;
    let mut shift = 0;
    loop {
        let byte = *bytes.get(*at).ok_or(BeatError::Truncated(*at))?;
        *at += 1;
        let part = u128::from(byte & 0x7f);
        // The last of 19 bytes has two bits of room.
        if shift > 126 || part << shift >> shift != part {
            return Err(BeatError::Range(*at));
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use api::corten::v1alpha1::Tenure;
    use proptest::prelude::*;

    use super::*;

    fn status(interfaces: usize) -> NodeStateStatus {
        let interface = |n: usize| Interface {
            name: format!("eth{n}"),
            up: true,
            mac: Some("02:00:00:00:00:01".to_owned()),
            subnets: vec![
                "192.168.100.0/24".to_owned(),
                "2001:db8:1:2::/64".to_owned(),
            ],
        };
        NodeStateStatus {
            interfaces: (0..interfaces).map(interface).collect(),
            standing_by: "words".to_owned(),
            incarnation: 1_795_340_000_000,
            version: 70,
            agent_version: "0.1.0".to_owned(),
            ..NodeStateStatus::default()
        }
    }

    fn dense(count: u32) -> Vec<(IpAddr, Term)> {
        let first = u32::from(Ipv4Addr::new(192, 168, 100, 10));
        let of = |n| (IpAddr::V4(Ipv4Addr::from(first + 7 * n)), 1 + n / 100);
        (0..count).map(of).collect()
    }

    /// On two LANs, of a pool that lies close together: more than a node has of most clusters.
    #[test]
    fn hundreds_of_addresses_fit_beside_two_interfaces() {
        let mut tenures = Tenures::new();
        assert_eq!(add(&status(2), &mut tenures, dense(400)), 400);
        assert_eq!(tenures.len(), 400);
        let bytes = with(&status(2), &tenures);
        assert!(bytes.len() <= MAX_PAYLOAD, "{}", bytes.len());
        assert_eq!(decode(&bytes).expect("a state").tenures, tenures);
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_what_was_there_stays() {
        let mut tenures = Tenures::new();
        let there: Vec<_> = dense(300);
        assert_eq!(add(&status(3), &mut tenures, there.clone()), 300);
        let far = |n: u128| (IpAddr::V6(Ipv6Addr::from(n << 64)), 1);
        let new: Vec<_> = (1..100).map(far).collect();
        let taken = add(&status(3), &mut tenures, new);
        assert!((1..99).contains(&taken), "{taken}");
        assert!(there.iter().all(|(ip, term)| tenures.get(ip) == Some(term)));
        assert!(with(&status(3), &tenures).len() <= MAX_PAYLOAD);
        // The node gets interfaces: what it has gets less, and the state still fits.
        add(&status(5), &mut tenures, Vec::new());
        assert!(!tenures.is_empty() && tenures.len() < 300 + taken);
        assert!(with(&status(5), &tenures).len() <= MAX_PAYLOAD);
    }

    /// What agents before this one sent, and what those without such addresses send.
    #[test]
    fn a_state_of_the_api_s_form_is_understood() {
        let plain = serde_json::to_vec(&status(1)).expect("JSON");
        assert_eq!(decode(&plain).expect("a state"), NodeState::from(status(1)));
        let with_tenure = NodeStateStatus {
            tenures: vec![Tenure {
                address: "10.0.0.1".to_owned(),
                term: 7,
            }],
            ..status(1)
        };
        let said = encode(&with_tenure);
        let text = String::from_utf8_lossy(&said).into_owned();
        for left_out in ["words", "0.1.0", "02:00", "tenures"] {
            assert!(!text.contains(left_out), "{text}");
        }
        let heard = decode(&said).expect("a state");
        let mac = heard.interfaces.values().next().and_then(|it| it.mac);
        assert_eq!(mac, Some([2, 0, 0, 0, 0, 1]));
        assert_eq!(
            decode(&said).expect("a state"),
            NodeState::from(with_tenure)
        );
        for bad in [
            "",
            "{",
            r#"{"has":"?"}"#,
            r#"{"has":"Aw"}"#,
            r#"{"has":"/////////////////////////////w"}"#,
        ] {
            decode(bad.as_bytes()).expect_err(bad);
        }
    }

    #[test]
    fn interfaces_without_mac_addresses_and_withheld_addresses() {
        let mut state = status(3);
        state.interfaces[1].mac = None;
        state.withheld = ["10.0.0.101", "10.0.0.7", "fd00::101"]
            .map(str::to_owned)
            .to_vec();
        let said = encode(&state);
        assert!(!String::from_utf8_lossy(&said).contains("10.0.0.101"));
        assert_eq!(decode(&said).expect("a state"), NodeState::from(state));
        // More than beats tell; the addresses that it has fit all the same.
        let many = |n: u32| Ipv4Addr::from(n << 20).to_string();
        let crowd = NodeStateStatus {
            withheld: (1..1000).map(many).collect(),
            ..status(2)
        };
        let heard = decode(&encode(&crowd)).expect("a state");
        assert_eq!(heard.withheld.len(), WITHHELD);
        let mut tenures = Tenures::new();
        assert_eq!(add(&crowd, &mut tenures, dense(250)), 250);
        assert!(with(&crowd, &tenures).len() <= MAX_PAYLOAD);
        let mut none = status(1);
        none.interfaces[0].mac = None;
        assert!(!String::from_utf8_lossy(&encode(&none)).contains("\"at\""));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_packed_is_unpacked(
            v4 in prop::collection::btree_map(any::<u32>(), any::<Term>(), 0..20),
            v6 in prop::collection::btree_map(any::<u128>(), 0u32..3, 0..20),
        ) {
            let v4 = v4.into_iter().map(|(ip, term)| (IpAddr::V4(ip.into()), term));
            let v6 = v6.into_iter().map(|(ip, term)| (IpAddr::V6(ip.into()), term));
            let tenures: Tenures = v4.chain(v6).collect();
            prop_assert_eq!(unpack(&pack(&tenures)).expect("packed"), tenures);
        }

        #[test]
        fn strangers_bytes_end_in_an_error_or_addresses(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = unpack(&bytes);
        }
    }
}
