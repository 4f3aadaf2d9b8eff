//! From bytes, with the dispositions of RFC 7606.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::super::{Asn, Codec, Error, Families, Family, Fault, Nlri, reader::Reader};
use super::{
    Aggregator, AsPath, AttributeFault, Attributes, Community, Disposition, EXTENDED_LENGTH,
    ExtendedCommunity, Flaw, LargeCommunity, NextHop, OPTIONAL, Opaque, Origin, PARTIAL,
    TRANSITIVE, as_path::PathFault, mp, number,
};

/// What the attributes of an UPDATE say.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) attributes: Attributes,
    pub(crate) next_hop: Option<Ipv4Addr>,
    pub(crate) reach: Option<(Family, NextHop, Vec<Nlri>)>,
    pub(crate) unreach: Option<(Family, Vec<Nlri>)>,
    /// Whether MP_REACH_NLRI has prefixes, ours or not.
    pub(crate) reaches: bool,
    /// Types that are there, faulty or not.
    pub(crate) present: BTreeSet<u8>,
    pub(crate) disabled: Families,
    pub(crate) flaws: Vec<Flaw>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
}

/// Why an attribute does not count.
type Refused = (AttributeFault, Disposition);

const fn withdraw(fault: AttributeFault) -> Refused {
    (fault, Disposition::Withdraw)
}

const fn discard(fault: AttributeFault) -> Refused {
    (fault, Disposition::Discard)
}

/// One attribute's frame.
struct Raw<'a> {
    offset: usize,
    flags: u8,
    code: u8,
    /// With its header, for NOTIFICATIONs.
    bytes: &'a [u8],
    value: Reader<'a>,
}

/// Reads the path attributes field. `list` is the field, `message` the message that it is in.
pub(crate) fn decode(list: Reader<'_>, message: &[u8], codec: &Codec) -> Result<Decoded, Error> {
    let mut out = Decoded::default();
    let mut list = list;
    while !list.is_empty() {
        let offset = list.offset();
        let Some(raw) = frame(&mut list, message) else {
            out.flaw(
                offset,
                code_at(message, offset),
                withdraw(AttributeFault::Cut),
            );
            break;
        };
        let (offset, code) = (raw.offset, raw.code);
        if !out.present.insert(code) {
            if matches!(code, number::MP_REACH | number::MP_UNREACH) {
                let fault = Fault::Twice { attribute: code };
                return Err(Error::new(offset, fault).with_data(raw.bytes));
            }
            out.flaw(offset, code, discard(AttributeFault::Twice));
            continue;
        }
        let refused = match code {
            number::MP_REACH | number::MP_UNREACH => out.multiprotocol(raw, codec)?,
            _ => match expected_flags(code) {
                Some(flags) => out.known(raw, flags, codec),
                None => {
                    out.opaque(&raw)?;
                    Ok(())
                }
            },
        };
        if let Err(refused) = refused {
            out.flaw(offset, code, refused);
        }
    }
    out.merge();
    Ok(out)
}

fn frame<'a>(list: &mut Reader<'a>, message: &'a [u8]) -> Option<Raw<'a>> {
    let offset = list.offset();
    let flags = list.u8()?;
    let code = list.u8()?;
    let length = if flags & EXTENDED_LENGTH != 0 {
        usize::from(list.u16()?)
    } else {
        usize::from(list.u8()?)
    };
    let value = list.part(length)?;
    Some(Raw {
        offset,
        flags,
        code,
        bytes: message.get(offset..list.offset()).unwrap_or_default(),
        value,
    })
}

/// Type of an attribute whose frame does not fit.
fn code_at(message: &[u8], offset: usize) -> u8 {
    message.get(offset + 1).copied().unwrap_or_default()
}

/// Optional and Transitive of the types that we read.
fn expected_flags(code: u8) -> Option<u8> {
    Some(match code {
        number::ORIGIN
        | number::AS_PATH
        | number::NEXT_HOP
        | number::LOCAL_PREF
        | number::ATOMIC_AGGREGATE => TRANSITIVE,
        number::MED | number::ORIGINATOR_ID | number::CLUSTER_LIST | number::AIGP => OPTIONAL,
        number::AGGREGATOR
        | number::COMMUNITIES
        | number::EXTENDED_COMMUNITIES
        | number::AS4_PATH
        | number::AS4_AGGREGATOR
        | number::IPV6_EXTENDED_COMMUNITIES
        | number::LARGE_COMMUNITIES
        | number::ONLY_TO_CUSTOMER => OPTIONAL | TRANSITIVE,
        _ => return None,
    })
}

/// Whether flags fit: Partial stands with optional transitive attributes only (RFC 4271 §4.3).
fn flags_fit(flags: u8, expected: u8) -> bool {
    flags & (OPTIONAL | TRANSITIVE) == expected
        && (flags & PARTIAL == 0 || expected == OPTIONAL | TRANSITIVE)
}

impl Decoded {
    pub(crate) fn flaw(&mut self, offset: usize, attribute: u8, (fault, disposition): Refused) {
        self.flaws.push(Flaw {
            offset,
            attribute,
            fault,
            disposition,
        });
    }

    fn opaque(&mut self, raw: &Raw<'_>) -> Result<(), Error> {
        if raw.flags & OPTIONAL == 0 {
            let fault = Fault::WellKnown {
                attribute: raw.code,
            };
            return Err(Error::new(raw.offset, fault).with_data(raw.bytes));
        }
        if raw.flags & TRANSITIVE != 0 {
            self.attributes.opaque.push(Opaque {
                flags: OPTIONAL | TRANSITIVE | PARTIAL,
                code: raw.code,
                value: raw.value.clone().rest().to_vec(),
            });
        }
        Ok(())
    }

    fn multiprotocol(&mut self, raw: Raw<'_>, codec: &Codec) -> Result<Result<(), Refused>, Error> {
        let mut value = raw.value;
        let outcome = if !flags_fit(raw.flags, OPTIONAL) {
            // The family is still worth knowing, to disable it.
            let afi = value.u16().zip(value.u8());
            let family =
                afi.and_then(|(afi, safi)| Family::of(super::super::AfiSafi { afi, safi }));
            Err(mp::Broken {
                family,
                what: "flags",
            })
        } else if raw.code == number::MP_REACH {
            mp::reach(&mut value, codec).map(|reach| {
                let found = reach.is_some();
                self.reaches = reach
                    .as_ref()
                    .map_or(!value.is_empty(), |reach| !reach.nlri.is_empty());
                self.reach = reach.map(|reach| (reach.family, reach.next_hop, reach.nlri));
                found
            })
        } else {
            mp::unreach(&mut value, codec).map(|unreach| {
                let found = unreach.is_some();
                self.unreach = unreach;
                found
            })
        };
        match outcome {
            Ok(true) => Ok(match &self.reach {
                Some((_, next_hop, _)) if raw.code == number::MP_REACH && !next_hop.is_host() => {
                    Err(withdraw(AttributeFault::NextHop))
                }
                _ => Ok(()),
            }),
            Ok(false) => Ok(Err(discard(AttributeFault::Family))),
            Err(mp::Broken {
                family: Some(family),
                ..
            }) if codec.disable_families => {
                self.disabled.insert(family);
                let refused = Disposition::Disable(family);
                Ok(Err((AttributeFault::Multiprotocol, refused)))
            }
            Err(mp::Broken { what, .. }) => {
                let fault = Fault::Multiprotocol {
                    attribute: raw.code,
                    what,
                };
                Err(Error::new(raw.offset, fault).with_data(raw.bytes))
            }
        }
    }

    fn known(&mut self, raw: Raw<'_>, expected: u8, codec: &Codec) -> Result<(), Refused> {
        let Raw {
            flags,
            code,
            mut value,
            ..
        } = raw;
        if !flags_fit(flags, expected) {
            let fault = AttributeFault::Flags(flags);
            return Err(match code {
                // RFC 7606 §3 (f), RFC 7311 §3.
                number::ATOMIC_AGGREGATE | number::AGGREGATOR | number::AIGP => discard(fault),
                _ => withdraw(fault),
            });
        }
        let length = value.remaining();
        let bad_length = AttributeFault::Length(length);
        let to = &mut self.attributes;
        match code {
            number::ORIGIN => {
                to.origin = match (length, value.u8()) {
                    (1, Some(0)) => Origin::Igp,
                    (1, Some(1)) => Origin::Egp,
                    (1, Some(2)) => Origin::Incomplete,
                    (1, _) => return Err(withdraw(AttributeFault::Value)),
                    _ => return Err(withdraw(bad_length)),
                };
            }
            number::AS_PATH => {
                to.as_path = AsPath::decode(&mut value, codec.four_octet)
                    .map_err(|fault| withdraw(path_fault(fault)))?;
            }
            number::NEXT_HOP => {
                let address =
                    exactly(length, 4, value.ipv4()).ok_or_else(|| withdraw(bad_length))?;
                if !NextHop::V4(address).is_host() {
                    return Err(withdraw(AttributeFault::NextHop));
                }
                self.next_hop = Some(address);
            }
            number::MED => {
                to.med = Some(exactly(length, 4, value.u32()).ok_or_else(|| withdraw(bad_length))?);
            }
            number::LOCAL_PREF | number::ORIGINATOR_ID | number::CLUSTER_LIST if codec.external => {
                return Err(discard(AttributeFault::Unexpected));
            }
            number::LOCAL_PREF => {
                to.local_pref =
                    Some(exactly(length, 4, value.u32()).ok_or_else(|| withdraw(bad_length))?);
            }
            number::ATOMIC_AGGREGATE => {
                exactly(length, 0, Some(())).ok_or_else(|| discard(bad_length))?;
                to.atomic_aggregate = true;
            }
            number::AGGREGATOR => {
                to.aggregator = Some(aggregator(&mut value, codec.four_octet)?);
            }
            number::COMMUNITIES => {
                to.communities = list(length, 4, || value.u32().map(Community))?;
            }
            number::ORIGINATOR_ID => {
                to.originator_id =
                    Some(exactly(length, 4, value.ipv4()).ok_or_else(|| withdraw(bad_length))?);
            }
            number::CLUSTER_LIST => to.cluster_list = list(length, 4, || value.ipv4())?,
            number::EXTENDED_COMMUNITIES => {
                to.extended_communities = list(length, 8, || value.array().map(ExtendedCommunity))?;
            }
            // Only a speaker without 4-octet numbers passes these on (RFC 6793 §4.1).
            number::AS4_PATH | number::AS4_AGGREGATOR if codec.four_octet => {
                return Err(discard(AttributeFault::Unexpected));
            }
            number::AS4_PATH => {
                let path =
                    AsPath::decode(&mut value, true).map_err(|fault| discard(path_fault(fault)))?;
                if path.0.is_empty() {
                    return Err(discard(bad_length));
                }
                self.as4_path = Some(path);
            }
            number::AS4_AGGREGATOR => {
                self.as4_aggregator = Some(aggregator(&mut value, true)?);
            }
            number::IPV6_EXTENDED_COMMUNITIES => {
                list(length, 20, || value.array::<20>())?;
                to.opaque.push(Opaque {
                    flags: flags & !EXTENDED_LENGTH,
                    code,
                    value: raw
                        .bytes
                        .get(raw.bytes.len().saturating_sub(length)..)
                        .unwrap_or_default()
                        .to_vec(),
                });
            }
            number::LARGE_COMMUNITIES => {
                let all = list(length, 12, || {
                    Some(LargeCommunity {
                        global: value.u32()?,
                        first: value.u32()?,
                        second: value.u32()?,
                    })
                })?;
                // Duplicates are removed (RFC 8092 §5).
                let mut seen = BTreeSet::new();
                to.large_communities = all.into_iter().filter(|one| seen.insert(*one)).collect();
            }
            number::ONLY_TO_CUSTOMER => {
                let asn = exactly(length, 4, value.u32()).ok_or_else(|| withdraw(bad_length))?;
                if asn == 0 {
                    return Err(withdraw(AttributeFault::ZeroAs));
                }
                to.only_to_customer = Some(Asn(asn));
            }
            // AIGP is for sessions that ask for it (RFC 7311 §3.1): none does.
            _ => return Err(discard(AttributeFault::Unexpected)),
        }
        Ok(())
    }

    /// Puts 4-octet numbers where a speaker without them wrote AS_TRANS (RFC 6793 §4.2.3).
    fn merge(&mut self) {
        let (as4_path, as4_aggregator) = (self.as4_path.take(), self.as4_aggregator.take());
        if let Some(aggregator) = &mut self.attributes.aggregator
            && self.present.contains(&number::AS4_AGGREGATOR)
        {
            if aggregator.asn != Asn::TRANS {
                return;
            }
            if let Some(four) = as4_aggregator {
                *aggregator = four;
            }
        }
        if let Some(four) = as4_path {
            let path = std::mem::take(&mut self.attributes.as_path);
            self.attributes.as_path = path.merge(four);
        }
    }
}

fn exactly<T>(length: usize, wanted: usize, value: Option<T>) -> Option<T> {
    value.filter(|_| length == wanted)
}

/// A list that is not empty and of whole elements.
fn list<T>(
    length: usize,
    element: usize,
    next: impl FnMut() -> Option<T>,
) -> Result<Vec<T>, Refused> {
    if length == 0 || !length.is_multiple_of(element) {
        return Err(withdraw(AttributeFault::Length(length)));
    }
    Ok(std::iter::from_fn(next).collect())
}

fn aggregator(value: &mut Reader<'_>, four_octet: bool) -> Result<Aggregator, Refused> {
    let length = value.remaining();
    let asn = if four_octet {
        value.u32()
    } else {
        value.u16().map(u32::from)
    };
    let (Some(asn), Some(address), true) = (asn, value.ipv4(), value.is_empty()) else {
        return Err(discard(AttributeFault::Length(length)));
    };
    if asn == 0 {
        return Err(discard(AttributeFault::ZeroAs));
    }
    Ok(Aggregator {
        asn: Asn(asn),
        address,
    })
}

fn path_fault(fault: PathFault) -> AttributeFault {
    match fault {
        PathFault::Segment => AttributeFault::Segments,
        PathFault::Zero => AttributeFault::ZeroAs,
        PathFault::Set => AttributeFault::AsSet,
        PathFault::Confederation => AttributeFault::Confederation,
    }
}
