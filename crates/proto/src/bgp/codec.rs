//! What both sides agreed on, as far as bytes depend on it.

use super::Families;

/// How messages of a session are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codec {
    /// Families of the session.
    pub families: Families,
    /// AS numbers have 4 bytes (RFC 6793).
    pub four_octet: bool,
    /// We may send messages of more than 4096 bytes (RFC 8654).
    pub extended_message: bool,
    /// IPv4 prefixes may have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Families in which the peer sends path identifiers (RFC 7911).
    pub add_path_receive: Families,
    /// Families in which we send them.
    pub add_path_send: Families,
    /// The peer is in another system.
    pub external: bool,
    /// What follows where RFC 7606 §7.11 leaves the choice: the family ends (RFC 4760 §7) rather
    /// than the session.
    pub disable_families: bool,
}

impl Default for Codec {
    /// Two modern speakers of different systems with both families.
    fn default() -> Self {
        Self {
            families: Families::ALL,
            four_octet: true,
            extended_message: true,
            extended_next_hop: false,
            add_path_receive: Families::NONE,
            add_path_send: Families::NONE,
            external: true,
            disable_families: false,
        }
    }
}
