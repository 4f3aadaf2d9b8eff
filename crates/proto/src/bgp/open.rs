//! OPEN (RFC 4271 §4.2, RFC 5492, RFC 9072).

use std::{fmt, net::Ipv4Addr};

use super::{
    Capability, Error, Families, Family, Fault,
    packet::{HEADER_LEN, Kind, finish, start},
    reader::Reader,
};

const VERSION: u8 = 4;
const CAPABILITIES: u8 = 2;
const EXTENDED: u8 = 255;

/// The number of an autonomous system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asn(pub u32);

impl Asn {
    /// Stands for a number that does not fit into 2 bytes (RFC 6793 §9).
    pub const TRANS: Self = Self(23456);

    /// In a field of 2 bytes.
    pub(super) fn short(self) -> u16 {
        u16::try_from(self.0).unwrap_or(23456)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS: from the capability, if it is there.
    pub asn: Asn,
    /// Seconds: 0 or at least 3.
    pub hold_time: u16,
    /// The sender's router ID.
    pub identifier: Ipv4Addr,
    /// In the order of the message.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// Whether it says so.
    pub fn has(&self, capability: &Capability) -> bool {
        self.capabilities.contains(capability)
    }

    /// Families offered. A speaker without capabilities has IPv4 unicast.
    pub fn families(&self) -> Families {
        let mut named = self
            .capabilities
            .iter()
            .filter_map(|capability| match capability {
                Capability::Multiprotocol(pair) => Some(*pair),
                _ => None,
            })
            .peekable();
        if named.peek().is_none() {
            return Families::from_iter([Family::Ipv4]);
        }
        named.filter_map(Family::of).collect()
    }

    /// Appends the message: each capability is a parameter of its own, as FRR does.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let at = start(Kind::Open, out);
        out.push(VERSION);
        out.extend(self.asn.short().to_be_bytes());
        out.extend(self.hold_time.to_be_bytes());
        out.extend(self.identifier.octets());
        let capabilities: Vec<Vec<u8>> = self
            .capabilities
            .iter()
            .map(|capability| {
                let mut bytes = Vec::new();
                capability.encode(&mut bytes);
                bytes
            })
            .collect();
        let short: usize = capabilities.iter().map(|bytes| bytes.len() + 2).sum();
        let fits = |bytes: &Vec<u8>| bytes.len() < usize::from(EXTENDED);
        if let Ok(length) = u8::try_from(short)
            && length < EXTENDED
            && capabilities.iter().all(fits)
        {
            out.push(length);
            for bytes in &capabilities {
                out.push(CAPABILITIES);
                out.push(u8::try_from(bytes.len()).unwrap_or_default());
                out.extend(bytes);
            }
        } else {
            // RFC 9072 §2: both fields 255, then lengths of 2 bytes.
            let long: usize = capabilities.iter().map(|bytes| bytes.len() + 3).sum();
            out.extend([EXTENDED, EXTENDED]);
            out.extend(u16::try_from(long).unwrap_or(u16::MAX).to_be_bytes());
            for bytes in &capabilities {
                out.push(CAPABILITIES);
                out.extend(u16::try_from(bytes.len()).unwrap_or_default().to_be_bytes());
                out.extend(bytes);
            }
        }
        finish(at, out);
    }

    pub(super) fn decode(message: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(message.get(HEADER_LEN..).unwrap_or_default(), HEADER_LEN);
        let (Some(version), Some(asn), Some(hold_time), Some(identifier), Some(length)) = (
            reader.u8(),
            reader.u16(),
            reader.u16(),
            reader.ipv4(),
            reader.u8(),
        ) else {
            return Err(Error::new(HEADER_LEN, Fault::Parameters));
        };
        if version != VERSION {
            // The data is the version that we have.
            let fault = Fault::Version { found: version };
            return Err(Error::new(HEADER_LEN, fault).with_data(&[0, VERSION]));
        }
        let capabilities = parameters(&mut reader, length)?;
        let four_octet = capabilities.iter().find_map(|capability| match capability {
            Capability::FourOctetAs(asn) => Some(*asn),
            _ => None,
        });
        if asn == 0 || four_octet == Some(Asn(0)) {
            return Err(Error::new(HEADER_LEN + 1, Fault::ZeroAs));
        }
        if matches!(hold_time, 1 | 2) {
            let fault = Fault::HoldTime { found: hold_time };
            return Err(Error::new(HEADER_LEN + 3, fault));
        }
        if identifier.is_unspecified() {
            let fault = Fault::Identifier { found: identifier };
            return Err(Error::new(HEADER_LEN + 5, fault));
        }
        Ok(Self {
            asn: four_octet.unwrap_or_else(|| Asn(asn.into())),
            hold_time,
            identifier,
            capabilities,
        })
    }
}

fn parameters(reader: &mut Reader<'_>, length: u8) -> Result<Vec<Capability>, Error> {
    let malformed = |offset| Error::new(offset, Fault::Parameters);
    let offset = reader.offset();
    let mut peek = reader.clone();
    let extended = length != 0 && peek.u8() == Some(EXTENDED);
    let length = if extended {
        reader.u8();
        reader
            .u16()
            .map(usize::from)
            .ok_or_else(|| malformed(offset))?
    } else {
        usize::from(length)
    };
    if reader.remaining() != length {
        return Err(malformed(offset));
    }
    let mut all = Vec::new();
    while !reader.is_empty() {
        let offset = reader.offset();
        let kind = reader.u8();
        let length = if extended {
            reader.u16().map(usize::from)
        } else {
            reader.u8().map(usize::from)
        };
        let parameter = length.and_then(|length| reader.part(length));
        let (Some(kind), Some(mut parameter)) = (kind, parameter) else {
            return Err(malformed(offset));
        };
        if kind != CAPABILITIES {
            return Err(Error::new(offset, Fault::Parameter { found: kind }));
        }
        while !parameter.is_empty() {
            let offset = parameter.offset();
            let code = parameter.u8();
            let length = parameter.u8().map(usize::from);
            let value = length.and_then(|length| parameter.take(length));
            let (Some(code), Some(value)) = (code, value) else {
                return Err(malformed(offset));
            };
            all.push(Capability::decode(code, value));
        }
    }
    Ok(all)
}
