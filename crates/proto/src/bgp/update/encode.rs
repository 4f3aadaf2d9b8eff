//! To bytes: one kind of content in each message, MP attributes first (RFC 7606 §5.1).

use std::net::Ipv4Addr;

use thiserror::Error;

use super::super::{
    AfiSafi, Attributes, Codec, Family, Nlri,
    attribute::{self, EXTENDED_LENGTH, NextHop, OPTIONAL, number},
    packet::{HEADER_LEN, Kind, MAX_EXTENDED_LEN, MAX_LEN, finish, set_u16, start},
};

/// The attributes leave no room for a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("attributes of {length} bytes leave no room for a prefix in a message of {limit} bytes")]
pub struct TooLarge {
    /// Theirs.
    pub length: usize,
    /// Of a message to this peer.
    pub limit: usize,
}

/// Messages that announce prefixes with the same attributes.
#[derive(Clone, Debug)]
pub struct Announce {
    /// All but the prefixes' attribute.
    attributes: Vec<u8>,
    /// Start of MP_REACH_NLRI's value; `None`: the classic field.
    multiprotocol: Option<Vec<u8>>,
    family: Family,
    add_path: bool,
    limit: usize,
}

impl Announce {
    /// For prefixes of one family.
    pub fn new(
        attributes: &Attributes,
        next_hop: &NextHop,
        family: Family,
        codec: &Codec,
    ) -> Result<Self, TooLarge> {
        let classic: Option<Ipv4Addr> = match next_hop {
            NextHop::V4(address) if !next_hop.needs_mp(family) => Some(*address),
            _ => None,
        };
        let mut bytes = Vec::new();
        attribute::encode(attributes, classic, codec, &mut bytes);
        let multiprotocol = classic.is_none().then(|| {
            let mut value = Vec::new();
            attribute::encode_next_hop(family, next_hop, &mut value);
            value
        });
        let add_path = codec.add_path_send.contains(family);
        // Lengths of both fields, and the header of MP_REACH_NLRI.
        let length = 4 + bytes.len() + multiprotocol.as_ref().map_or(0, |value| 4 + value.len());
        let need = HEADER_LEN + length + Nlri::max_len(family, add_path);
        let limit = match codec.extended_message {
            // Longer messages only where they are needed: not every peer likes them.
            true if need > MAX_LEN => MAX_EXTENDED_LEN,
            _ => MAX_LEN,
        };
        if need > limit {
            return Err(TooLarge { length, limit });
        }
        Ok(Self {
            attributes: bytes,
            multiprotocol,
            family,
            add_path,
            limit,
        })
    }

    /// Appends one message with as many of the prefixes as fit, and gives their number. Nothing is
    /// appended when there is none.
    pub fn message(&self, nlri: &mut impl Iterator<Item = Nlri>, out: &mut Vec<u8>) -> usize {
        let Some(first) = nlri.next() else {
            return 0;
        };
        let at = start(Kind::Update, out);
        out.extend([0, 0]);
        let total = out.len();
        out.extend([0, 0]);
        let mut length_at = None;
        match &self.multiprotocol {
            None => {
                out.extend(&self.attributes);
                let length = u16::try_from(self.attributes.len()).unwrap_or(u16::MAX);
                set_u16(out, total, length);
            }
            Some(start) => {
                out.extend([OPTIONAL | EXTENDED_LENGTH, number::MP_REACH, 0, 0]);
                length_at = Some(out.len());
                out.extend(start);
            }
        }
        let reserve = match &self.multiprotocol {
            None => 0,
            Some(_) => self.attributes.len(),
        };
        let room = self.limit - reserve - Nlri::max_len(self.family, self.add_path);
        let mut count = 0;
        let mut next = Some(first);
        while let Some(one) = next {
            one.encode(self.add_path, out);
            count += 1;
            next = if out.len() - at <= room {
                nlri.next()
            } else {
                None
            };
        }
        if let Some(value) = length_at {
            let length = u16::try_from(out.len() - value).unwrap_or(u16::MAX);
            set_u16(out, value - 2, length);
            out.extend(&self.attributes);
            let length = u16::try_from(out.len() - total - 2).unwrap_or(u16::MAX);
            set_u16(out, total, length);
        }
        finish(at, out);
        count
    }
}

/// Messages that withdraw prefixes of one family.
#[derive(Clone, Copy, Debug)]
pub struct Withdraw {
    family: Family,
    add_path: bool,
}

impl Withdraw {
    /// IPv4 uses the classic field, whatever the next hop was (RFC 8950 changes only announcing;
    /// FRR and BIRD take both).
    pub fn new(family: Family, codec: &Codec) -> Self {
        Self {
            family,
            add_path: codec.add_path_send.contains(family),
        }
    }

    /// As [`Announce::message`].
    pub fn message(&self, nlri: &mut impl Iterator<Item = Nlri>, out: &mut Vec<u8>) -> usize {
        let Some(first) = nlri.next() else {
            return 0;
        };
        let at = start(Kind::Update, out);
        let classic = self.family == Family::Ipv4;
        let length_at = out.len();
        out.extend([0, 0]);
        let value = if classic {
            out.len()
        } else {
            out.extend([0, 0]);
            out.extend([OPTIONAL | EXTENDED_LENGTH, number::MP_UNREACH, 0, 0]);
            let value = out.len();
            let AfiSafi { afi, safi } = self.family.into();
            out.extend(afi.to_be_bytes());
            out.push(safi);
            value
        };
        // Two bytes for the empty attributes of the classic form.
        let room = MAX_LEN - 2 - Nlri::max_len(self.family, self.add_path);
        let mut count = 0;
        let mut next = Some(first);
        while let Some(one) = next {
            one.encode(self.add_path, out);
            count += 1;
            next = if out.len() - at <= room {
                nlri.next()
            } else {
                None
            };
        }
        let length = u16::try_from(out.len() - value).unwrap_or(u16::MAX);
        if classic {
            set_u16(out, length_at, length);
            out.extend([0, 0]);
        } else {
            set_u16(out, value - 2, length);
            set_u16(out, length_at + 2, length.saturating_add(4));
        }
        finish(at, out);
        count
    }
}

/// Appends End-of-RIB (RFC 4724 §2).
pub fn end_of_rib(family: Family, out: &mut Vec<u8>) {
    let at = start(Kind::Update, out);
    match family {
        Family::Ipv4 => out.extend([0; 4]),
        Family::Ipv6 => {
            out.extend([0, 0, 0, 6, OPTIONAL, number::MP_UNREACH, 3]);
            out.extend(family.afi().to_be_bytes());
            out.push(1);
        }
    }
    finish(at, out);
}
