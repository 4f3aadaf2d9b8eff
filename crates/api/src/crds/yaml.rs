//! Block YAML from JSON values: just what the CRD files need.
//!
//! Keys are sorted, lists sit at their key's column as `kubectl` and `controller-gen` write
//! them. A text that could be taken for anything else is quoted, in JSON's way, which YAML reads.

use std::fmt::Write;

use serde_json::Value;

/// The value as a YAML document without a `---` line.
pub fn emit(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            for (i, key) in keys.into_iter().enumerate() {
                // The first key of a list item follows the dash on its line.
                if i > 0 || !out.ends_with("- ") {
                    pad(indent, out);
                }
                out.push_str(&scalar_text(key));
                out.push(':');
                member(&map[key], indent, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (i, item) in items.iter().enumerate() {
                if i > 0 || !out.ends_with("- ") {
                    pad(indent, out);
                }
                out.push_str("- ");
                block(item, indent + 2, out);
            }
        }
        scalar => {
            out.push_str(&flow(scalar));
            out.push('\n');
        }
    }
}

fn member(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            block(value, indent + 2, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            block(value, indent, out);
        }
        _ => {
            out.push(' ');
            block(value, indent, out);
        }
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar_text(text),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        other => other.to_string(),
    }
}

fn scalar_text(text: &str) -> String {
    if is_plain(text) {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// Whether the text may stand without quotes and is still a text for YAML 1.1 and 1.2.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else {
        return false;
    };
    let safe_inside = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(
                c,
                ' ' | '-' | '_' | '.' | '/' | '$' | '(' | ')' | ';' | ',' | '=' | '+'
            )
    };
    let reserved = [
        "true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", ".nan", ".inf", "none",
    ];
    (first.is_ascii_alphabetic() || matches!(first, '.' | '$' | '/') && text.len() > 1)
        && !text.ends_with(' ')
        && text.chars().all(safe_inside)
        && !reserved.contains(&text.to_ascii_lowercase().as_str())
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn block_style() {
        let value = json!({
            "b": [{"x": 1, "a": "yes"}, "text", [1, 2], {}],
            "a": {"empty": {}, "list": [], "rule": "self == 'x'", "z": null, "t": true},
            "c": "64500",
        });
        let want = "\
a:
  empty: {}
  list: []
  rule: \"self == 'x'\"
  t: true
  z: null
b:
- a: \"yes\"
  x: 1
- text
- - 1
  - 2
- {}
c: \"64500\"
";
        assert_eq!(emit(&value), want);
    }
}
