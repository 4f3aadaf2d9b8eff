//! The workspace's own binaries.

use std::path::PathBuf;

use crate::error::LabError;

/// The built binary of a package, in the folder of the running test's profile
/// (`target/<profile>/<name>`).
pub fn bin(name: &str) -> Result<PathBuf, LabError> {
    let program =
        std::env::current_exe().map_err(|e| LabError::io("lab", "find the own program", e))?;
    let folder = program.parent().unwrap_or(&program);
    // Tests and examples lie one level deeper than programs.
    let folder = if folder.ends_with("deps") || folder.ends_with("examples") {
        folder.parent().unwrap_or(folder)
    } else {
        folder
    };
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    let release = if folder.ends_with("release") {
        " --release"
    } else {
        ""
    };
    Err(LabError::NoBinary {
        path,
        package: name.to_owned(),
        release,
    })
}
