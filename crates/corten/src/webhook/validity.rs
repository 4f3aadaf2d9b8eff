//! When a certificate begins and ends to be valid: the one field of X.509 that nothing in the tree
//! tells (RFC 5280 §4.1.2.5).

/// Where the bytes stopped to be a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a certificate: {what} at byte {offset}")]
pub(super) struct ValidityError {
    what: &'static str,
    offset: usize,
}

/// Seconds since 1970, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    /// The first second.
    pub(super) not_before: i64,
    /// The last second.
    pub(super) not_after: i64,
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Reads the validity out of a certificate in DER.
pub(super) fn validity(der: &[u8]) -> Result<Validity, ValidityError> {
    let mut certificate = Reader { bytes: der, at: 0 }.inside(SEQUENCE)?;
    let mut tbs = certificate.inside(SEQUENCE)?;
    if tbs.peek() == Some(VERSION) {
        tbs.element()?;
    }
    // serialNumber, signature, issuer
    for _ in 0..3 {
        tbs.element()?;
    }
    let mut dates = tbs.inside(SEQUENCE)?;
    Ok(Validity {
        not_before: dates.time()?,
        not_after: dates.time()?,
    })
}

/// The rest of a constructed value; `at` counts from the certificate's start.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    const fn error(&self, what: &'static str) -> ValidityError {
        ValidityError {
            what,
            offset: self.at,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.first().copied()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ValidityError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(count) else {
            return Err(self.error("end of data"));
        };
        (self.bytes, self.at) = (rest, self.at + count);
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, ValidityError> {
        self.take(1)?
            .first()
            .copied()
            .ok_or_else(|| self.error("end of data"))
    }

    /// Tag and contents of the next element.
    fn element(&mut self) -> Result<(u8, Self), ValidityError> {
        let tag = self.byte()?;
        let first = self.byte()?;
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 4 {
                return Err(self.error("length out of range"));
            }
            let bytes = self.take(count)?.iter();
            bytes.fold(0, |sum, byte| sum << 8 | usize::from(*byte))
        };
        let at = self.at;
        let bytes = self.take(length)?;
        Ok((tag, Self { bytes, at }))
    }

    fn inside(&mut self, wanted: u8) -> Result<Self, ValidityError> {
        let at = self.at;
        let (tag, contents) = self.element()?;
        if tag != wanted {
            return Err(ValidityError {
                what: "another element than expected",
                offset: at,
            });
        }
        Ok(contents)
    }

    fn time(&mut self) -> Result<i64, ValidityError> {
        let (tag, contents) = self.element()?;
        let bad = contents.error("no time in UTC");
        let text = std::str::from_utf8(contents.bytes).map_err(|_| bad)?;
        let (year, rest) = match tag {
            // RFC 5280 §4.1.2.5.1: two digits from 50 on are of the last century.
            UTC_TIME => {
                let (year, rest) = text.split_at_checked(2).ok_or(bad)?;
                let year: i64 = number(year).ok_or(bad)?;
                (if year >= 50 { 1900 + year } else { 2000 + year }, rest)
            }
            GENERALIZED_TIME => {
                let (year, rest) = text.split_at_checked(4).ok_or(bad)?;
                (number(year).ok_or(bad)?, rest)
            }
            _ => return Err(bad),
        };
        let digits = rest.strip_suffix('Z').filter(|rest| rest.len() == 10);
        let digits = digits.ok_or(bad)?;
        let pair = |n: usize| number(digits.get(2 * n..2 * n + 2)?);
        let fields = (pair(0), pair(1), pair(2), pair(3), pair(4));
        let (Some(month), Some(day), Some(hour), Some(minute), Some(second)) = fields else {
            return Err(bad);
        };
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return Err(bad);
        }
        Ok(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
    }
}

fn number(digits: &str) -> Option<i64> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

/// Days from 1970-01-01 to a date (Howard Hinnant, "chrono-compatible low-level date algorithms").
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The date of a day since 1970-01-01: year, month, day.
pub(super) const fn date(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_there_and_back() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 3, 1), 11_017);
        assert_eq!(days(2026, 11, 22), 20_779);
        for day in (-800_000..800_000).step_by(17) {
            let (year, month, of_month) = date(day);
            assert_eq!(days(year, month, of_month), day);
        }
    }

    fn certificate(not_after: &[u8]) -> Vec<u8> {
        let wrap = |tag: u8, inner: &[u8]| [&[tag, inner.len() as u8], inner].concat();
        let dates = [
            wrap(UTC_TIME, b"500101000000Z"),
            wrap(GENERALIZED_TIME, not_after),
        ]
        .concat();
        let tbs = [
            wrap(VERSION, &[2, 1, 2]),
            wrap(2, &[1]),
            wrap(SEQUENCE, &[]),
            wrap(SEQUENCE, &[]),
            wrap(SEQUENCE, &dates),
        ]
        .concat();
        wrap(SEQUENCE, &wrap(SEQUENCE, &tbs))
    }

    #[test]
    fn both_kinds_of_time() {
        let read = validity(&certificate(b"20500102030405Z")).expect("good");
        assert_eq!(read.not_before, -631_152_000);
        assert_eq!(
            read.not_after,
            2_524_608_000 + 86_400 + 3 * 3600 + 4 * 60 + 5
        );
    }

    #[test]
    fn what_is_no_certificate_is_told_with_its_place() {
        let good = certificate(b"20500102030405Z");
        for cut in 0..good.len() {
            assert!(validity(&good[..cut]).is_err(), "{cut}");
        }
        for bad in [b"20501302030405Z", b"2050010203040+Z", b"20500102030405+"] {
            let error = validity(&certificate(bad)).expect_err("bad date");
            assert!(error.to_string().contains("no time in UTC"), "{error}");
        }
        let error = validity(&[0x30, 0x85, 1, 1, 1, 1, 1]).expect_err("length");
        assert_eq!(
            error.to_string(),
            "not a certificate: length out of range at byte 2"
        );
    }
}
