//! ROUTE-REFRESH (RFC 2918, RFC 7313).

use super::{
    AfiSafi, Error, Fault,
    packet::{HEADER_LEN, Kind, finish, start},
    reader::Reader,
};

/// What it asks or says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshKind {
    /// Send everything again.
    Request,
    /// Everything again begins here (BoRR).
    Begin,
    /// It ends here (EoRR).
    End,
    /// To be ignored (RFC 7313 §5).
    Unknown(u8),
}

/// The message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// Of which family.
    pub family: AfiSafi,
    /// What.
    pub kind: RefreshKind,
}

impl Refresh {
    pub(super) fn decode(message: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(message.get(HEADER_LEN..).unwrap_or_default(), HEADER_LEN);
        let body = (reader.u16(), reader.u8(), reader.u8());
        let (Some(afi), Some(kind), Some(safi)) = body else {
            return Err(Error::new(
                HEADER_LEN,
                Fault::RefreshLength {
                    found: message.len(),
                },
            ));
        };
        // Kinds 1 and 2 have no more; an Outbound Route Filter would follow a request
        // (RFC 5291), which we never offer.
        if matches!(kind, 1 | 2) && !reader.is_empty() {
            let fault = Fault::RefreshLength {
                found: message.len(),
            };
            // RFC 7313 §5: the data is the whole message.
            return Err(Error::new(reader.offset(), fault).with_data(message));
        }
        Ok(Self {
            family: AfiSafi { afi, safi },
            kind: match kind {
                0 => RefreshKind::Request,
                1 => RefreshKind::Begin,
                2 => RefreshKind::End,
                other => RefreshKind::Unknown(other),
            },
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let at = start(Kind::RouteRefresh, out);
        out.extend(self.family.afi.to_be_bytes());
        out.push(match self.kind {
            RefreshKind::Request => 0,
            RefreshKind::Begin => 1,
            RefreshKind::End => 2,
            RefreshKind::Unknown(other) => other,
        });
        out.push(self.family.safi);
        finish(at, out);
    }
}
