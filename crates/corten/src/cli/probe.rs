//! `corten probe`: what a kubelet runs in an agent's container.

use super::{Failure, runtime};
use crate::probe;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// UID of the Pod whose agent is asked.
    #[arg(long, env = "CORTEN_POD_UID")]
    pod_uid: String,
}

pub(super) fn main(options: &Options) -> Result<(), Failure> {
    runtime()?.block_on(probe::ask(&options.pod_uid))?;
    Ok(())
}
