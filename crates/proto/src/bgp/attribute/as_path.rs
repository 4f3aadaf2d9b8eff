//! AS_PATH and AS4_PATH (RFC 4271 §4.3, RFC 6793 §4.2).

use super::super::{Asn, reader::Reader};

const SET: u8 = 1;
const SEQUENCE: u8 = 2;
const CONFED_SEQUENCE: u8 = 3;
const CONFED_SET: u8 = 4;
/// Numbers in a segment, whose count has one byte.
const SEGMENT_MAX: usize = 255;

/// The systems that a route came through, nearest first. Sets are not there: RFC 9774 has ended
/// them; neither are confederations, to which we do not belong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AsPath(pub Vec<Asn>);

/// What is wrong with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathFault {
    /// Lengths or types (RFC 7606 §7.2).
    Segment,
    /// AS 0 (RFC 7607 §2).
    Zero,
    /// AS_SET (RFC 9774 §3).
    Set,
    /// A confederation's segment from outside (RFC 5065 §5).
    Confederation,
}

impl AsPath {
    /// Puts a system in front.
    pub fn prepend(&mut self, asn: Asn) {
        self.0.insert(0, asn);
    }

    /// Whether the route went through it.
    pub fn contains(&self, asn: Asn) -> bool {
        self.0.contains(&asn)
    }

    pub(super) fn encode(&self, four_octet: bool, out: &mut Vec<u8>) {
        for segment in self.0.chunks(SEGMENT_MAX) {
            out.extend([SEQUENCE, u8::try_from(segment.len()).unwrap_or_default()]);
            for asn in segment {
                if four_octet {
                    out.extend(asn.0.to_be_bytes());
                } else {
                    out.extend(asn.short().to_be_bytes());
                }
            }
        }
    }

    /// Whether 2 bytes for each number lose something.
    pub(super) fn needs_four_octets(&self) -> bool {
        self.0.iter().any(|asn| u16::try_from(asn.0).is_err())
    }

    /// A fault of structure counts more than one of content: it is looked for in the whole path.
    pub(super) fn decode(reader: &mut Reader<'_>, four_octet: bool) -> Result<Self, PathFault> {
        let mut path = Vec::new();
        let mut fault = None;
        while !reader.is_empty() {
            let (Some(kind), Some(count)) = (reader.u8(), reader.u8()) else {
                return Err(PathFault::Segment);
            };
            if count == 0 {
                return Err(PathFault::Segment);
            }
            match kind {
                SEQUENCE => {}
                SET => fault = fault.or(Some(PathFault::Set)),
                CONFED_SEQUENCE | CONFED_SET => fault = fault.or(Some(PathFault::Confederation)),
                _ => return Err(PathFault::Segment),
            }
            for _ in 0..count {
                let asn = if four_octet {
                    reader.u32()
                } else {
                    reader.u16().map(u32::from)
                };
                match asn {
                    None => return Err(PathFault::Segment),
                    Some(0) => fault = fault.or(Some(PathFault::Zero)),
                    Some(asn) => path.push(Asn(asn)),
                }
            }
        }
        fault.map_or(Ok(Self(path)), Err)
    }

    /// The true path of a route that came through speakers without 4-octet numbers
    /// (RFC 6793 §4.2.3).
    pub(super) fn merge(self, four: Self) -> Self {
        let Some(lead) = self.0.len().checked_sub(four.0.len()) else {
            return self;
        };
        Self(self.0.into_iter().take(lead).chain(four.0).collect())
    }
}
