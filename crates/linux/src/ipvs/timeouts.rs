//! For how long IPVS knows connections.

use super::message::{number, word};
use crate::nft::DecodeError;
use crate::nft::attr::{Attrs, Reader};

/// `IPVS_CMD_*`.
pub(super) const SET_CONFIG: u8 = 12;
pub(super) const GET_CONFIG: u8 = 13;

/// `IPVS_CMD_ATTR_TIMEOUT_*`.
const TCP: u16 = 4;
const TCP_FIN: u16 = 5;
const UDP: u16 = 6;

/// For how many seconds IPVS knows a connection that is silent: of all virtual servers of a network
/// namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// An open TCP connection.
    pub tcp: u32,
    /// One that an end has closed.
    pub tcp_fin: u32,
    /// What UDP has of a client.
    pub udp: u32,
}

impl Timeouts {
    /// The kernel leaves one alone that is 0.
    pub(super) fn encode(self, attrs: &mut Attrs<'_>) {
        number(attrs, TCP, self.tcp);
        number(attrs, TCP_FIN, self.tcp_fin);
        number(attrs, UDP, self.udp);
    }

    /// Reads an answer; 0 for a protocol that this kernel's IPVS does not balance.
    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut found = Self::default();
        for attr in Reader::new(body) {
            let attr = attr?;
            match attr.kind {
                TCP => found.tcp = word(&attr)?,
                TCP_FIN => found.tcp_fin = word(&attr)?,
                UDP => found.udp = word(&attr)?,
                _ => {}
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read() {
        let wanted = Timeouts {
            tcp: 1200,
            tcp_fin: 90,
            udp: 301,
        };
        let mut bytes = Vec::new();
        wanted.encode(&mut Attrs::new(&mut bytes));
        assert_eq!(Timeouts::decode(&bytes), Ok(wanted));
        for cut in 0..bytes.len() {
            let cut = Timeouts::decode(bytes.get(..cut).unwrap());
            assert!(cut != Ok(wanted), "{cut:?}");
        }
        assert_eq!(Timeouts::decode(&[]), Ok(Timeouts::default()));
    }
}
