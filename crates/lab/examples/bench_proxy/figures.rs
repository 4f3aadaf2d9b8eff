//! What was measured: a table, and as its last line one JSON object.

use serde_json::{Map, Value, json};

/// Figures in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<(String, Option<f64>, String)>);

impl Figures {
    /// One figure; `None`: it did not finish.
    pub(crate) fn set(&mut self, name: impl Into<String>, value: Option<f64>, what: &str) {
        self.0.push((name.into(), value, what.to_owned()));
    }

    pub(crate) fn print(&self) {
        println!("| figure | value | what |");
        println!("| --- | --- | --- |");
        let mut figures = Map::new();
        for (name, value, what) in &self.0 {
            let value = match value {
                Some(value) => json!(round(*value)),
                None => Value::from("did not finish"),
            };
            println!(
                "| {name} | {} | {what} |",
                value.to_string().trim_matches('"')
            );
            figures.insert(name.clone(), value);
        }
        println!("{}", json!({"bench": "proxy", "figures": figures}));
    }
}

fn round(value: f64) -> f64 {
    match value.abs() {
        10.0.. => (value * 10.0).round() / 10.0,
        _ => (value * 1e4).round() / 1e4,
    }
}

/// The middle of sorted numbers.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// `15k`, `200`.
pub(crate) fn short(number: u32) -> String {
    match number % 1000 {
        0 => format!("{}k", number / 1000),
        _ => number.to_string(),
    }
}
