//! MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760 §3, §4; RFC 2545 §3; RFC 8950 §4).

use super::super::{AfiSafi, Codec, Family, Nlri, reader::Reader};
use super::NextHop;

/// What is wrong: the prefixes cannot be read reliably.
pub(super) struct Broken {
    pub(super) family: Option<Family>,
    pub(super) what: &'static str,
}

/// A readable MP_REACH_NLRI.
pub(super) struct Reach {
    pub(super) family: Family,
    pub(super) next_hop: NextHop,
    pub(super) nlri: Vec<Nlri>,
}

/// `Ok(None)`: a family that was not negotiated.
pub(super) fn reach(value: &mut Reader<'_>, codec: &Codec) -> Result<Option<Reach>, Broken> {
    let pair = pair(value)?;
    let family = Family::of(pair);
    let broken = |what| Broken { family, what };
    let length = value.u8().ok_or_else(|| broken("length"))?;
    let next_hop = value.part(usize::from(length));
    let next_hop = next_hop.ok_or_else(|| broken("next hop length"))?;
    value.u8().ok_or_else(|| broken("reserved byte"))?;
    let Some(family) = family.filter(|family| codec.families.contains(*family)) else {
        return Ok(None);
    };
    let next_hop = read_next_hop(next_hop, family, codec).ok_or_else(|| broken("next hop"))?;
    let nlri = Nlri::decode_all(value, family, codec.add_path_receive.contains(family))
        .map_err(|_| broken("prefix"))?;
    Ok(Some(Reach {
        family,
        next_hop,
        nlri,
    }))
}

/// `Ok(None)`: a family that was not negotiated.
pub(super) fn unreach(
    value: &mut Reader<'_>,
    codec: &Codec,
) -> Result<Option<(Family, Vec<Nlri>)>, Broken> {
    let family = Family::of(pair(value)?);
    let Some(family) = family.filter(|family| codec.families.contains(*family)) else {
        return Ok(None);
    };
    let nlri = Nlri::decode_all(value, family, codec.add_path_receive.contains(family));
    nlri.map(|nlri| Some((family, nlri))).map_err(|_| Broken {
        family: Some(family),
        what: "prefix",
    })
}

fn pair(value: &mut Reader<'_>) -> Result<AfiSafi, Broken> {
    match (value.u16(), value.u8()) {
        (Some(afi), Some(safi)) => Ok(AfiSafi { afi, safi }),
        _ => Err(Broken {
            family: None,
            what: "length",
        }),
    }
}

fn read_next_hop(mut value: Reader<'_>, family: Family, codec: &Codec) -> Option<NextHop> {
    let v6 = family == Family::Ipv6 || codec.extended_next_hop;
    match value.remaining() {
        4 if family == Family::Ipv4 => value.ipv4().map(NextHop::V4),
        16 if v6 => value.ipv6().map(NextHop::V6),
        32 if v6 => Some(NextHop::V6Both {
            global: value.ipv6()?,
            link_local: value.ipv6()?,
        }),
        _ => None,
    }
}

/// Family, next hop and reserved byte, as they begin the value of MP_REACH_NLRI.
pub(crate) fn encode_next_hop(family: Family, next_hop: &NextHop, out: &mut Vec<u8>) {
    let AfiSafi { afi, safi } = family.into();
    out.extend(afi.to_be_bytes());
    out.push(safi);
    match next_hop {
        NextHop::V4(address) => {
            out.push(4);
            out.extend(address.octets());
        }
        NextHop::V6(address) => {
            out.push(16);
            out.extend(address.octets());
        }
        NextHop::V6Both { global, link_local } => {
            out.push(32);
            out.extend(global.octets());
            out.extend(link_local.octets());
        }
    }
    out.push(0);
}
