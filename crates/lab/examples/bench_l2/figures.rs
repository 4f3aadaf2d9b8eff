//! What is measured: times of one kind, and the figures made of them.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// Times of one kind, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<f64>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1e3);
        self.0.sort_by(f64::total_cmp);
    }

    /// By nearest rank; of fewer than a hundred the 99th percentile is the longest.
    pub(crate) fn at(&self, share: usize) -> f64 {
        let rank = (self.0.len() * share).div_ceil(100).max(1);
        let time = self.0.get(rank - 1).copied().unwrap_or(0.0);
        (time * 10.0).round() / 10.0
    }

    /// The longest; none is zero.
    pub(crate) fn longest(&self) -> f64 {
        self.at(100)
    }
}

/// The figures so far.
#[derive(Debug, Default)]
pub(crate) struct Figures(Map<String, Value>);

impl Figures {
    pub(crate) fn put(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(name.into(), value.into());
    }

    /// Median and 99th percentile, as `NAME_p50_ms` and `NAME_p99_ms`.
    pub(crate) fn put_times(&mut self, name: &str, times: &Times) {
        self.put(format!("{name}_p50_ms"), times.at(50));
        self.put(format!("{name}_p99_ms"), times.at(99));
    }

    /// The table, and the line for machines.
    pub(crate) fn print(&self) {
        for (name, value) in &self.0 {
            println!("{name:<42}{value:>10}");
        }
        println!("{}", json!({"bench": "l2", "figures": self.0}));
    }
}
