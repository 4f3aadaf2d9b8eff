//! Counts for metrics.

use super::Error;

/// What came in since the start, of all sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Control packets taken.
    pub accepted: u64,
    /// Echo packets that came back.
    pub echoes: u64,
    /// Echo packets sent back.
    pub reflected: u64,
    /// Shorter than a packet, or with a length that cannot be.
    pub bad_length: u64,
    /// Another version.
    pub bad_version: u64,
    /// Multiplier 0.
    pub bad_multiplier: u64,
    /// The M bit.
    pub multipoint: u64,
    /// A discriminator of 0 where there must be one.
    pub bad_discriminator: u64,
    /// Authentication, which no session uses.
    pub authenticated: u64,
    /// TTL too low.
    pub bad_ttl: u64,
    /// A discriminator that no session has, or one of another session.
    pub no_session: u64,
    /// No session waits for the sender.
    pub stranger: u64,
    /// The session is held down.
    pub admin_down: u64,
    /// Echo packets of nobody.
    pub bad_echo: u64,
}

impl Counters {
    pub(super) fn note(&mut self, error: &Error) {
        *match error {
            Error::Truncated { .. } | Error::Length { .. } => &mut self.bad_length,
            Error::Version { .. } => &mut self.bad_version,
            Error::Multiplier => &mut self.bad_multiplier,
            Error::Multipoint => &mut self.multipoint,
            Error::MyDiscriminator | Error::YourDiscriminator { .. } => &mut self.bad_discriminator,
            Error::Authenticated => &mut self.authenticated,
            Error::Ttl { .. } => &mut self.bad_ttl,
            Error::UnknownDiscriminator { .. } | Error::OtherSession { .. } => &mut self.no_session,
            Error::Stranger { .. } => &mut self.stranger,
            Error::AdminDown => &mut self.admin_down,
            Error::Echo { .. } => &mut self.bad_echo,
        } += 1;
    }
}
