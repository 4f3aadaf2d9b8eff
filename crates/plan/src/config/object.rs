//! The objects that make the configuration, and how they are named.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use api::corten::v1alpha1::{AddressPool, Advertisement, Peer};
use api::meta::ObjectMeta;
use api::metallb::{
    BFDProfile, BGPAdvertisement, BGPPeer, Community, IPAddressPool, L2Advertisement,
};
use serde::{Deserialize, Serialize};

use crate::name::Name;

/// Kind, namespace and name of a configuration object; displays as `Kind namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}/{}", self.kind, self.namespace, self.name)
    }
}

macro_rules! kinds {
    ($($kind:ident),*) => {
        /// A kind of configuration object, spelled as in a manifest.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[allow(missing_docs)]
        pub enum ObjectKind {
            $($kind),*
        }

        /// A configuration object. BGPPeer is the storage version, v1beta2.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Object {
            $($kind($kind)),*
        }

        impl Object {
            /// Its kind.
            pub const fn kind(&self) -> ObjectKind {
                match self {
                    $(Self::$kind(_) => ObjectKind::$kind),*
                }
            }

            /// Its metadata.
            pub const fn metadata(&self) -> &ObjectMeta {
                match self {
                    $(Self::$kind(object) => &object.metadata),*
                }
            }

            /// Its metadata, to be changed.
            pub(super) const fn metadata_mut(&mut self) -> &mut ObjectMeta {
                match self {
                    $(Self::$kind(object) => &mut object.metadata),*
                }
            }

            /// Whether both want the same: equal but for status and metadata that no rule reads.
            pub fn same_form(&self, other: &Self) -> bool {
                match (self, other) {
                    $((Self::$kind(a), Self::$kind(b)) => {
                        a.spec == b.spec
                            && a.metadata.labels == b.metadata.labels
                            && a.metadata.creation_timestamp == b.metadata.creation_timestamp
                    })*
                    _ => false,
                }
            }
        }

        impl TryFrom<api::object::Object> for Object {
            /// The object, if it is no configuration.
            type Error = Box<api::object::Object>;

            fn try_from(object: api::object::Object) -> Result<Self, Self::Error> {
                match object {
                    $(api::object::Object::$kind(object) => Ok(Self::$kind(object)),)*
                    other => Err(Box::new(other)),
                }
            }
        }

        impl Serialize for Object {
            /// As a manifest, which `api::object::Object::decode` reads back.
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$kind(object) => object.serialize(serializer)),*
                }
            }
        }

        $(impl From<$kind> for Object {
            fn from(object: $kind) -> Self {
                Self::$kind(object)
            }
        })*
    };
}

kinds!(
    IPAddressPool,
    L2Advertisement,
    BGPAdvertisement,
    BGPPeer,
    BFDProfile,
    Community,
    AddressPool,
    Advertisement,
    Peer
);

impl Object {
    /// Kind, namespace and name.
    pub fn reference(&self) -> ObjectRef {
        let metadata = self.metadata();
        ObjectRef {
            kind: self.kind(),
            namespace: metadata.namespace.as_str().into(),
            name: metadata.name.as_str().into(),
        }
    }
}

/// Configuration objects by reference; shared, because last good forms are mostly the newest ones.
pub type Objects = BTreeMap<ObjectRef, Arc<Object>>;
