//! What a plain scalar is: YAML 1.2 core schema, as far as JSON can hold it.

use serde_json::{Number, Value};

/// Resolves a scalar without quotes and without a tag.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        let text = text.strip_prefix('+').unwrap_or(text);
        if let Ok(value) = text.parse::<i64>() {
            return Some(value.into());
        }
        if let Ok(value) = text.parse::<u64>() {
            return Some(value.into());
        }
    }
    if !is_float(unsigned) {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    // A whole number is an integer whatever its form, as kubectl's way through JSON makes it.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        return Some((value as i64).into());
    }
    Number::from_f64(value)
}

fn radix(digits: &str, radix: u32) -> Option<Number> {
    // from_str_radix would take a sign.
    let all_digits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    all_digits
        .then(|| u64::from_str_radix(digits, radix).ok())
        .flatten()
        .map(Number::from)
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    if let Some(exponent) = exponent {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        if exponent.is_empty() || !digits(exponent) {
            return false;
        }
    }
    match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => !mantissa.is_empty() && digits(mantissa),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn core_schema() {
        let cases = [
            ("", json!(null)),
            ("~", json!(null)),
            ("true", json!(true)),
            ("yes", json!("yes")),
            ("no", json!("no")),
            ("on", json!("on")),
            ("64500", json!(64500)),
            ("-5", json!(-5)),
            ("+5", json!(5)),
            ("080", json!(80)),
            ("0o17", json!(15)),
            ("0x1F", json!(31)),
            ("0x", json!("0x")),
            ("0x-1", json!("0x-1")),
            ("18446744073709551615", json!(u64::MAX)),
            ("1e3", json!(1000)),
            ("80.0", json!(80)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("1.", json!(1)),
            (".", json!(".")),
            ("1e", json!("1e")),
            ("1_000", json!("1_000")),
            (".inf", json!(".inf")),
            ("inf", json!("inf")),
            ("nan", json!("nan")),
            ("10.0.0.1", json!("10.0.0.1")),
            ("64500:1", json!("64500:1")),
            ("2026-01-01", json!("2026-01-01")),
        ];
        for (text, want) in cases {
            assert_eq!(resolve(text), want, "{text}");
        }
    }
}
