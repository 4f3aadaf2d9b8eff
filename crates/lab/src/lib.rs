//! Network namespaces as hosts: end-to-end tests and the demo.
//!
//! A test calls [`run`] with its own name and a body; the body gets a [`Lab`] in a sandbox that
//! the kernel removes when the test ends, in whatever way:
//!
//! ```no_run
//! #[test]
//! fn two_hosts_talk() {
//!     lab::run("two_hosts_talk", async |lab| {
//!         let lan = lab.segment("lan").await?;
//!         let (one, two) = (lab.host("one").await?, lab.host("two").await?);
//!         lan.attach(&one, &["10.0.0.1/24"]).await?;
//!         lan.attach(&two, &["10.0.0.2/24"]).await?;
//!         Ok(())
//!     });
//! }
//! ```
//!
//! - [`Segment`]: a bridge, with ports that can be cut or unplugged, and a capture;
//! - [`Host`]: a namespace with processes, back ends and probes; nodes, routers and pods are hosts;
//! - [`wait_for`]: the only place where a test waits;
//! - [`controlplane`]: a real Kubernetes API server on a host;
//! - [`cluster`]: a real Kubernetes cluster, whose nodes are hosts;
//! - [`guest`]: another kernel, for what this one lacks;
//! - [`chart`]: the published manifests, rendered by helm;
//! - [`rights`]: what accounts may do, against what an audit log says they did.

pub mod backend;
mod bin;
mod capture;
pub mod chart;
pub mod cluster;
pub mod controlplane;
mod error;
pub mod guest;
mod host;
mod lab;
pub mod narrate;
pub mod probe;
mod process;
mod relay;
pub mod rights;
pub mod router;
pub mod sandbox;
pub mod scene;
mod segment;
pub mod uplink;
mod wait;

pub use backend::{Backend, Counters};
pub use bin::bin;
pub use error::LabError;
pub use host::{Host, Role};
pub use lab::Lab;
pub use probe::{Answer, Ask, Asker, Gaps, Prober, Target};
pub use process::Process;
pub use relay::Relay;
pub use sandbox::{Outcome, main, run, run_for};
pub use segment::Segment;
pub use wait::{WaitError, wait_for, wait_until};
