//! How many messages of each type there were: what statistics ask.

use super::Kind;

/// The fixed part of a message (RFC 4271 §4.1): marker, length, type.
const HEADER: usize = 19;

/// Counts by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// OPEN.
    pub opens: u64,
    /// UPDATE.
    pub updates: u64,
    /// NOTIFICATION.
    pub notifications: u64,
    /// KEEPALIVE.
    pub keepalives: u64,
    /// ROUTE-REFRESH.
    pub refreshes: u64,
}

impl Messages {
    /// Of whole messages one after another, as we encode them.
    pub fn in_bytes(mut bytes: &[u8]) -> Self {
        let mut counts = Self::default();
        while let Some(header) = bytes.first_chunk::<HEADER>() {
            let [.., high, low, kind] = header;
            counts.count(*kind);
            let length = usize::from(u16::from_be_bytes([*high, *low])).max(HEADER);
            bytes = bytes.get(length..).unwrap_or_default();
        }
        counts
    }

    /// One more of this type's number.
    const fn count(&mut self, number: u8) {
        let counter = match number {
            1 => &mut self.opens,
            2 => &mut self.updates,
            3 => &mut self.notifications,
            4 => &mut self.keepalives,
            5 => &mut self.refreshes,
            _ => return,
        };
        *counter += 1;
    }

    /// One more.
    pub(super) const fn add(&mut self, kind: Kind) {
        self.count(kind as u8);
    }

    /// All of them.
    pub const fn total(&self) -> u64 {
        self.opens + self.updates + self.notifications + self.keepalives + self.refreshes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_by_type() {
        let mut bytes = Vec::new();
        super::super::keepalive(&mut bytes);
        super::super::Notification::new(6, 2).encode(&mut bytes);
        super::super::keepalive(&mut bytes);
        let counts = Messages::in_bytes(&bytes);
        let wanted = Messages {
            keepalives: 2,
            notifications: 1,
            ..Messages::default()
        };
        assert_eq!((counts, counts.total()), (wanted, 3));
        // Any bytes come to an end.
        assert_eq!(Messages::in_bytes(&[0; 64]), Messages::default());
        assert_eq!(Messages::in_bytes(&[]), Messages::default());
    }
}
