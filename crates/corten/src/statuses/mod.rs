//! Keeps the objects in line that say how things are (`plan::status` says what they should say).
//!
//! ```text
//!  planner ──watch: counters───► pools ─────────┐
//!  planner ──watch: verdicts───► native ────────┤
//!  planner ──watch: Configuration► configuration ├─► Board (API), which tells what is there
//!  planner ──Announced──────────► services ─────┘
//! ```
//! Each task owns what it last saw and what is wanted; it writes where the two differ, and again
//! when somebody edits or deletes what was written. Nothing waits for these tasks.

pub(crate) mod configuration;
pub(crate) mod native;
pub(crate) mod pools;
pub(crate) mod services;
