//! How fast deaths are found, and what that costs.

use std::time::Duration;

/// Intervals of failure detection; equal on all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Between beats to each guardian; each is up to a tenth shorter, so that nodes do not march in
    /// step.
    pub beat: Duration,
    /// Between the probes that follow three missed beats.
    pub probe: Duration,
    /// How many.
    pub probes: u32,
    /// After this time a node that was never heard is dead, and one that hears nobody goes on alone.
    pub lost: Duration,
}

impl Profile {
    /// A death is found in 80 to 115 ms.
    pub const DEFAULT: Self = Self {
        beat: Duration::from_millis(30),
        probe: Duration::from_millis(4),
        probes: 5,
        lost: Duration::from_secs(1),
    };
    /// A death is found in 25 to 40 ms, at three times the cost.
    pub const FAST: Self = Self {
        beat: Duration::from_millis(10),
        probe: Duration::from_millis(1),
        probes: 5,
        lost: Duration::from_secs(1),
    };
    /// For busy machines and wide networks: a death is found in 0.8 to 1.1 s.
    pub const SLOW: Self = Self {
        beat: Duration::from_millis(300),
        probe: Duration::from_millis(40),
        probes: 5,
        lost: Duration::from_secs(3),
    };

    /// Beats that a guardian waits for before it probes.
    const MISSED: u32 = 3;

    /// Silence after which a guardian probes.
    pub fn patience(&self) -> Duration {
        self.beat * Self::MISSED
    }

    /// Silence after which a guardian votes.
    pub fn detection(&self) -> Duration {
        self.patience() + self.probe * self.probes
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self::DEFAULT
    }
}
