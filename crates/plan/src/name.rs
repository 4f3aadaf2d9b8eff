//! Names of Kubernetes objects, cheap to clone.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A name as Kubernetes spells it; shared, because the same few stand in many places.
pub type Name = Arc<str>;

/// Namespace and name of a Service; displays as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceKey {
    /// The Service's namespace.
    pub namespace: Name,
    /// The Service's name.
    pub name: Name,
}

impl ServiceKey {
    /// The key of the Service `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
