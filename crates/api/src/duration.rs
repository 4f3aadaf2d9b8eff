//! Durations as Kubernetes writes them: Go's text form, like `90s` or `1m30s`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A `meta/v1` Duration. Negative values can be written and are refused by who uses them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration {
    nanos: i64,
}

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No text, or no number where one must be.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number without a unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit that Go does not know.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit as written.
        unit: String,
        /// The whole text.
        text: String,
    },
}

const SECOND: i64 = 1_000_000_000;

impl Duration {
    /// From whole seconds; saturates.
    pub const fn from_secs(seconds: i64) -> Self {
        Self {
            nanos: seconds.saturating_mul(SECOND),
        }
    }

    /// From nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self { nanos }
    }

    /// All of it in nanoseconds.
    pub const fn as_nanos(self) -> i64 {
        self.nanos
    }

    /// Whole seconds; what is less is cut off, as `MetalLB` does with timers.
    pub const fn whole_secs(self) -> i64 {
        self.nanos / SECOND
    }

    /// The standard library's form; none if negative.
    pub fn to_std(self) -> Option<std::time::Duration> {
        u64::try_from(self.nanos)
            .ok()
            .map(std::time::Duration::from_nanos)
    }

    /// Reads Go's form: an optional sign, then numbers with units; `0` alone needs no unit.
    pub fn parse(text: &str) -> Result<Self, DurationError> {
        let invalid = || DurationError::Invalid(text.to_owned());
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self::default());
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let number = prefix(rest, |c| c.is_ascii_digit() || c == '.');
            rest = rest.strip_prefix(number).ok_or_else(invalid)?;
            let unit = prefix(rest, |c| !c.is_ascii_digit() && c != '.');
            rest = rest.strip_prefix(unit).ok_or_else(invalid)?;
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
                return Err(invalid());
            }
            if unit.is_empty() {
                return Err(DurationError::MissingUnit(text.to_owned()));
            }
            let scale = unit_nanos(unit).ok_or_else(|| DurationError::UnknownUnit {
                unit: unit.to_owned(),
                text: text.to_owned(),
            })?;
            if !whole.is_empty() {
                let value: i64 = whole.parse().map_err(|_| invalid())?;
                total += i128::from(value) * i128::from(scale);
            }
            total += fraction_nanos(fraction, scale);
            if total > i128::from(i64::MAX) {
                return Err(invalid());
            }
        }
        let nanos = i64::try_from(total).map_err(|_| invalid())?;
        Ok(Self {
            nanos: if negative { -nanos } else { nanos },
        })
    }
}

fn prefix(text: &str, pass: impl Fn(char) -> bool) -> &str {
    let end = text.find(|c| !pass(c)).unwrap_or(text.len());
    &text[..end]
}

fn unit_nanos(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3600 * SECOND,
        _ => return None,
    })
}

/// Digits behind the point, times the unit; digits below a nanosecond are cut.
fn fraction_nanos(digits: &str, scale: i64) -> i128 {
    let mut scale = i128::from(scale);
    let mut sum = 0;
    let mut denominator = 1;
    for digit in digits.bytes().take(18) {
        denominator *= 10;
        sum = sum * 10 + i128::from(digit.wrapping_sub(b'0'));
    }
    scale *= sum;
    scale / denominator
}

impl fmt::Display for Duration {
    /// Go's `Duration.String`: `1h0m0s`, `1m30s`, `1.5s`, `300ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0s");
        }
        if self.nanos < 0 {
            f.write_str("-")?;
        }
        let nanos = self.nanos.unsigned_abs();
        let second = SECOND.unsigned_abs();
        if nanos < second {
            let (scale, unit) = match nanos {
                0..1_000 => (1, "ns"),
                1_000..1_000_000 => (1_000, "\u{b5}s"),
                _ => (1_000_000, "ms"),
            };
            return write!(f, "{}{unit}", decimal(nanos, scale));
        }
        let (minutes, rest) = (nanos / (60 * second), nanos % (60 * second));
        let (hours, minutes) = (minutes / 60, minutes % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", decimal(rest, second))
    }
}

/// `value / scale` as a decimal without trailing zeros; `scale` is a power of ten.
fn decimal(value: u64, scale: u64) -> String {
    let whole = value / scale;
    let rest = value % scale;
    if rest == 0 {
        return whole.to_string();
    }
    let width = scale.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(feature = "crds")]
impl schemars::JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_go_reads() {
        let good = [
            ("0", 0),
            ("90s", 90 * SECOND),
            ("1m30s", 90 * SECOND),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1h", 3600 * SECOND),
            ("-2ms", -2_000_000),
            ("3\u{b5}s", 3_000),
        ];
        for (text, want) in good {
            assert_eq!(
                Duration::parse(text).map(Duration::as_nanos),
                Ok(want),
                "{text}"
            );
        }
        for text in [
            "",
            "-",
            "s",
            ".s",
            "1",
            "3 s",
            "1d",
            "1.2.3s",
            "99999999999h",
            "\u{e9}",
        ] {
            assert!(Duration::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn writes_what_go_writes() {
        let cases = [
            (0, "0s"),
            (90 * SECOND, "1m30s"),
            (180 * SECOND, "3m0s"),
            (3600 * SECOND, "1h0m0s"),
            (1_500_000_000, "1.5s"),
            (300_000_000, "300ms"),
            (1_500, "1.5\u{b5}s"),
            (-SECOND, "-1s"),
        ];
        for (nanos, want) in cases {
            assert_eq!(Duration::from_nanos(nanos).to_string(), want);
        }
    }

    #[test]
    fn cuts_to_whole_seconds() {
        for (nanos, want) in [(999_999_999, 0), (1_500_000_000, 1), (-1_500_000_000, -1)] {
            assert_eq!(Duration::from_nanos(nanos).whole_secs(), want);
        }
    }

    proptest! {
        #[test]
        fn text_and_back(nanos in -i64::MAX..i64::MAX) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(Duration::parse(&duration.to_string()), Ok(duration));
        }

        #[test]
        fn any_text_ends(text in ".{0,40}") {
            let _ = Duration::parse(&text);
        }
    }
}
