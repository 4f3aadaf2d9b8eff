//! What is told of an UPDATE that RFC 7606 forgives (its §6 asks for that).

use std::fmt;

use proto::bgp::{Disposition, Update};

/// Prefixes that are named.
const NAMED: usize = 8;

/// What was wrong with an UPDATE.
pub(super) struct Flaws<'a>(&'a Update);

impl<'a> Flaws<'a> {
    /// `None`: nothing was.
    pub(super) fn of(update: &'a Update) -> Option<Self> {
        (!update.flaws.is_empty()).then_some(Self(update))
    }

    /// How many attributes had which outcome.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let of = |which: fn(Disposition) -> bool| {
            let flaws = self.0.flaws.iter();
            flaws.filter(|flaw| which(flaw.disposition)).count() as u64
        };
        [
            ("discarded", of(|it| it == Disposition::Discard)),
            ("withdrawn", of(|it| it == Disposition::Withdraw)),
            ("disabled", of(|it| matches!(it, Disposition::Disable(_)))),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
    }
}

/// The flaws, the prefixes, and the message in hexadecimal.
impl fmt::Display for Flaws<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(update) = self;
        for (n, flaw) in update.flaws.iter().enumerate() {
            write!(f, "{}{flaw}", if n > 0 { "; " } else { "" })?;
        }
        let announced = update.announced.iter().flat_map(|group| &group.nlri);
        for (what, count, first) in [
            (
                "withdrawn",
                update.withdrawn.len(),
                prefixes(&update.withdrawn),
            ),
            ("announced", announced.clone().count(), prefixes(announced)),
        ] {
            if count > 0 {
                write!(f, "; {what}: {first}")?;
                if count > NAMED {
                    write!(f, " and {} more", count - NAMED)?;
                }
            }
        }
        f.write_str("; message: ")?;
        let message = update.malformed.as_deref().unwrap_or_default();
        message.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn prefixes<'a>(all: impl IntoIterator<Item = &'a proto::bgp::Nlri>) -> String {
    let named = all.into_iter().take(NAMED).map(|it| it.prefix.to_string());
    named.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proto::bgp::{Codec, Message};

    use super::*;

    /// A MED of one byte, and an ATOMIC_AGGREGATE with one; 192.0.2.0/24.
    const MESSAGE: &[u8] = &[
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0, 55, 2, 0, 0, 0, 28, 0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9, 0x40, 3, 4,
        10, 0, 0, 1, 0x80, 4, 1, 0, 0x40, 6, 1, 0, 24, 192, 0, 2,
    ];

    #[test]
    fn they_name_attributes_prefixes_and_the_message() {
        let read = Message::decode(MESSAGE, &Codec::default());
        let Ok(Message::Update(update)) = read else {
            panic!("{read:?}");
        };
        let flaws = Flaws::of(&update).expect("flaws");
        let counts: Vec<_> = flaws.counts().collect();
        assert_eq!(counts, [("discarded", 1), ("withdrawn", 1)]);
        let hex: String = MESSAGE.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            flaws.to_string(),
            format!(
                "attribute 4 at offset 43: length 1 is not possible (RFC 7606 §7.4); \
                 attribute 6 at offset 47: length 1 is not possible (RFC 7606 §7.6); \
                 withdrawn: 192.0.2.0/24; message: {hex}"
            )
        );
    }

    #[test]
    fn a_good_one_has_none() {
        assert!(Flaws::of(&Update::default()).is_none());
    }
}
