//! UPDATE (RFC 4271 §4.3, RFC 4760, RFC 7606).

mod encode;
#[cfg(test)]
pub(super) mod tests;

pub use encode::{Announce, TooLarge, Withdraw, end_of_rib};

use super::{
    Attributes, Codec, Error, Families, Family, Fault, Nlri,
    attribute::{self, AttributeFault, Decoded, Disposition, Flaw, NextHop, number},
    packet::HEADER_LEN,
    reader::Reader,
};

/// Routes of one message with the same next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Where traffic goes.
    pub next_hop: NextHop,
    /// The prefixes.
    pub nlri: Vec<Nlri>,
}

/// What the peer says about routes, after RFC 7606: what has to be treated as withdrawn is among
/// the withdrawn. Withdraw first, then announce: a prefix in both is announced (RFC 4271 §4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Prefixes without a route now.
    pub withdrawn: Vec<Nlri>,
    /// Prefixes with one: none, one, or one for each way of encoding.
    pub announced: Vec<Announced>,
    /// Of all that is announced.
    pub attributes: Attributes,
    /// The initial routes of this family are complete (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
    /// Families that end here for this session: forget their routes.
    pub disabled: Families,
    /// What was wrong.
    pub flaws: Vec<Flaw>,
    /// The whole message, where something was: its sender's operators will ask for it
    /// (RFC 7606 §6).
    pub malformed: Option<Box<[u8]>>,
}

impl Update {
    pub(super) fn decode(message: &[u8], codec: &Codec) -> Result<Self, Error> {
        let mut body = Reader::new(message.get(HEADER_LEN..).unwrap_or_default(), HEADER_LEN);
        let mut withdrawn = field(&mut body, "Withdrawn Routes")?;
        let list = field(&mut body, "Total Path Attribute")?;
        let empty = withdrawn.is_empty() && list.is_empty() && body.is_empty();
        let no_attributes = list.is_empty();
        let add_path = codec.add_path_receive.contains(Family::Ipv4);
        // Syntax of both classic fields comes first: without it nothing can be withdrawn
        // (RFC 7606 §3 (i), (j)).
        let network = |field: &'static str, reader: &mut Reader<'_>| {
            Nlri::decode_all(reader, Family::Ipv4, add_path)
                .map_err(|offset| Error::new(offset, Fault::Network { field }))
        };
        let mut gone = network("Withdrawn Routes", &mut withdrawn)?;
        let nlri = network("NLRI", &mut body)?;
        let mut decoded = attribute::decode(list, message, codec)?;
        let reaches = !nlri.is_empty() || decoded.reaches;
        if reaches {
            require(&mut decoded, !nlri.is_empty(), codec);
        }
        let only_unreach = decoded
            .present
            .iter()
            .all(|code| *code == number::MP_UNREACH);
        if !reaches && !no_attributes && !only_unreach {
            let worse = |flaw: &&Flaw| flaw.disposition > Disposition::Discard;
            if let Some(flaw) = decoded.flaws.iter().find(worse) {
                let fault = Fault::NothingToWithdraw(flaw.clone());
                return Err(Error::new(flaw.offset, fault));
            }
        }
        let unreach = decoded.unreach.take();
        let end_of_rib = match &unreach {
            Some((family, routes)) if routes.is_empty() && only_unreach && gone.is_empty() => {
                (!reaches).then_some(*family)
            }
            None if empty => Some(Family::Ipv4),
            _ => None,
        };
        gone.extend(unreach.into_iter().flat_map(|(_, routes)| routes));
        let mut announced = Vec::new();
        if !nlri.is_empty() {
            announced.push((decoded.next_hop.map(NextHop::V4), nlri));
        }
        if let Some((_, next_hop, nlri)) = decoded.reach.take()
            && !nlri.is_empty()
        {
            announced.push((Some(next_hop), nlri));
        }
        let withdraw = |flaw: &Flaw| flaw.disposition >= Disposition::Withdraw;
        let withdraw = decoded.flaws.iter().any(withdraw);
        let mut update = Self {
            end_of_rib,
            disabled: decoded.disabled,
            malformed: (!decoded.flaws.is_empty()).then(|| message.into()),
            flaws: decoded.flaws,
            ..Self::default()
        };
        for (next_hop, nlri) in announced {
            match next_hop {
                Some(next_hop) if !withdraw => update.announced.push(Announced { next_hop, nlri }),
                _ => gone.extend(nlri),
            }
        }
        // IPv4 prefixes of the classic fields count only where the family was negotiated.
        gone.retain(|one| codec.families.contains(one.prefix.family()));
        update.announced.retain(|one| {
            let first = one.nlri.first();
            first.is_some_and(|first| codec.families.contains(first.prefix.family()))
        });
        update.withdrawn = gone;
        if !update.announced.is_empty() {
            update.attributes = decoded.attributes;
        }
        Ok(update)
    }
}

fn field<'a>(body: &mut Reader<'a>, field: &'static str) -> Result<Reader<'a>, Error> {
    let offset = body.offset();
    // The header's check leaves room for both lengths, unless the first is too large.
    let found = body.u16().unwrap_or(u16::MAX);
    body.part(found.into())
        .ok_or_else(|| Error::new(offset, Fault::UpdateLength { field, found }))
}

/// Attributes that must be there with a prefix (RFC 7606 §3 (d)).
fn require(decoded: &mut Decoded, classic: bool, codec: &Codec) {
    let mut wanted = vec![number::ORIGIN, number::AS_PATH];
    if classic {
        wanted.push(number::NEXT_HOP);
    }
    if !codec.external {
        wanted.push(number::LOCAL_PREF);
    }
    for code in wanted {
        if !decoded.present.contains(&code) {
            let refused = (AttributeFault::Missing, Disposition::Withdraw);
            decoded.flaw(HEADER_LEN, code, refused);
        }
    }
}
