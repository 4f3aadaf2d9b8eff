//! To bytes.

use std::net::Ipv4Addr;

use super::super::Codec;
use super::{Attributes, EXTENDED_LENGTH, OPTIONAL, TRANSITIVE, number};

/// Appends flags, type and length of an attribute.
fn header(flags: u8, code: u8, length: usize, out: &mut Vec<u8>) {
    match u8::try_from(length) {
        Ok(length) => out.extend([flags, code, length]),
        Err(_) => {
            out.extend([flags | EXTENDED_LENGTH, code]);
            // Longer ones do not fit into a message, which `Announce::new` reports.
            out.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
}

fn attribute(flags: u8, code: u8, value: &[u8], out: &mut Vec<u8>) {
    header(flags, code, value.len(), out);
    out.extend(value);
}

fn list<T, const N: usize>(
    code: u8,
    flags: u8,
    values: &[T],
    bytes: impl Fn(&T) -> [u8; N],
    out: &mut Vec<u8>,
) {
    if !values.is_empty() {
        header(flags, code, values.len() * N, out);
        for value in values {
            out.extend(bytes(value));
        }
    }
}

/// Appends the attributes in the order of their types, NEXT_HOP if there is one.
pub(crate) fn encode(
    attributes: &Attributes,
    next_hop: Option<Ipv4Addr>,
    codec: &Codec,
    out: &mut Vec<u8>,
) {
    const BOTH: u8 = OPTIONAL | TRANSITIVE;
    let Attributes {
        origin,
        as_path,
        med,
        local_pref,
        atomic_aggregate,
        aggregator,
        communities,
        originator_id,
        cluster_list,
        extended_communities,
        large_communities,
        only_to_customer,
        opaque,
    } = attributes;
    let four_octet = codec.four_octet;
    attribute(TRANSITIVE, number::ORIGIN, &[*origin as u8], out);
    let mut value = Vec::new();
    as_path.encode(four_octet, &mut value);
    attribute(TRANSITIVE, number::AS_PATH, &value, out);
    if let Some(address) = next_hop {
        attribute(TRANSITIVE, number::NEXT_HOP, &address.octets(), out);
    }
    if let Some(med) = med {
        attribute(OPTIONAL, number::MED, &med.to_be_bytes(), out);
    }
    if let Some(local_pref) = local_pref {
        attribute(
            TRANSITIVE,
            number::LOCAL_PREF,
            &local_pref.to_be_bytes(),
            out,
        );
    }
    if *atomic_aggregate {
        attribute(TRANSITIVE, number::ATOMIC_AGGREGATE, &[], out);
    }
    if let Some(aggregator) = aggregator {
        let mut value = Vec::new();
        if four_octet {
            value.extend(aggregator.asn.0.to_be_bytes());
        } else {
            value.extend(aggregator.asn.short().to_be_bytes());
        }
        value.extend(aggregator.address.octets());
        attribute(BOTH, number::AGGREGATOR, &value, out);
    }
    let community = |community: &super::Community| community.0.to_be_bytes();
    list(number::COMMUNITIES, BOTH, communities, community, out);
    if let Some(id) = originator_id {
        attribute(OPTIONAL, number::ORIGINATOR_ID, &id.octets(), out);
    }
    let octets = |id: &Ipv4Addr| id.octets();
    list(number::CLUSTER_LIST, OPTIONAL, cluster_list, octets, out);
    let raw = |community: &super::ExtendedCommunity| community.0;
    list(
        number::EXTENDED_COMMUNITIES,
        BOTH,
        extended_communities,
        raw,
        out,
    );
    if !four_octet && as_path.needs_four_octets() {
        let mut value = Vec::new();
        as_path.encode(true, &mut value);
        attribute(BOTH, number::AS4_PATH, &value, out);
    }
    if let Some(aggregator) = aggregator
        && !four_octet
        && u16::try_from(aggregator.asn.0).is_err()
    {
        let mut value = aggregator.asn.0.to_be_bytes().to_vec();
        value.extend(aggregator.address.octets());
        attribute(BOTH, number::AS4_AGGREGATOR, &value, out);
    }
    if !large_communities.is_empty() {
        header(
            BOTH,
            number::LARGE_COMMUNITIES,
            large_communities.len() * 12,
            out,
        );
        for community in large_communities {
            for part in [community.global, community.first, community.second] {
                out.extend(part.to_be_bytes());
            }
        }
    }
    if let Some(asn) = only_to_customer {
        attribute(BOTH, number::ONLY_TO_CUSTOMER, &asn.0.to_be_bytes(), out);
    }
    for one in opaque {
        attribute(one.flags, one.code, &one.value, out);
    }
}
