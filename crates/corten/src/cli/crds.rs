//! `corten crds`

use std::io::Write;

use super::Failure;

pub(super) fn main() -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for (_, text) in api::crds::files() {
        write!(out, "---\n{text}")?;
    }
    Ok(())
}
