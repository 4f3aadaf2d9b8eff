//! What goes wrong in a lab.

use std::io;
use std::path::PathBuf;

use linux::namespace::NetNsError;
use linux::netlink::NetlinkError;

/// Why the lab could not do something.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A network namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// A link, address or route.
    #[error("{place}")]
    Netlink {
        /// The host or segment.
        place: String,
        /// What was refused.
        source: NetlinkError,
    },
    /// A file, socket or process.
    #[error("{place}: cannot {what}")]
    Io {
        /// The host, or the lab.
        place: String,
        /// What failed.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// An address with prefix length that is none.
    #[error("{0:?} is no address with a prefix length")]
    Address(String),
    /// A host has no port, or no address of a family, where one is needed.
    #[error("{host}: has no {what}")]
    Lacks {
        /// The host.
        host: String,
        /// What it lacks.
        what: String,
    },
    /// A binary of the workspace is not built.
    #[error("{} is not there: build it with `cargo build -p {package}{release}`", path.display())]
    NoBinary {
        /// Where it was looked for.
        path: PathBuf,
        /// What to build.
        package: String,
        /// The profile's switch.
        release: &'static str,
    },
}

impl LabError {
    pub(crate) fn io(place: &str, what: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            place: place.to_owned(),
            what: what.into(),
            source,
        }
    }
}

/// Adds the host or segment to what netlink says.
pub(crate) trait At<T> {
    fn at(self, place: &str) -> Result<T, LabError>;
}

impl<T> At<T> for Result<T, NetlinkError> {
    fn at(self, place: &str) -> Result<T, LabError> {
        self.map_err(|source| LabError::Netlink {
            place: place.to_owned(),
            source,
        })
    }
}
