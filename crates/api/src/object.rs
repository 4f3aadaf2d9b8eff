//! One object of any kind: decoding by `apiVersion` and `kind`, and what was not understood.
//!
//! Decoding keeps the API server's manners: a null field is an unset one, an unknown field is
//! reported but harmless, and a field of the wrong type names its path.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Kind;
use crate::core::{EndpointSlice, Namespace, Node, Pod, Secret, Service, ServiceCIDR};
use crate::corten::v1alpha1::{AcceptedConfig, AddressPool, Advertisement, NodeState, Peer};
use crate::meta::ObjectMeta;
use crate::metallb::{
    BFDProfile, BGPAdvertisement, BGPPeer, Community, ConfigurationState, IPAddressPool,
    L2Advertisement, ServiceBGPStatus, ServiceL2Status, v1beta1,
};

mod unread;

#[cfg(test)]
mod tests;

/// What came of decoding one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object.
    pub object: Object,
    /// Paths that the kind does not have, like `spec.adresses` or `spec.ports[0].foo`.
    pub unknown_fields: Vec<String>,
}

/// Why an object could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct DecodeError {
    /// Path of the field, like `spec.ports[0].port`; `.` is the object itself.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

macro_rules! objects {
    ($($variant:ident),* $(,)?) => {
        /// An object of any kind that Corten reads.
        #[derive(Clone, Debug, PartialEq)]
        // One at a time is decoded and taken apart; boxes would only be in the way.
        #[allow(clippy::large_enum_variant, missing_docs)]
        pub enum Object {
            $($variant($variant),)*
            /// A kind that Corten does not know; not an error.
            Foreign {
                /// `group/version`.
                api_version: String,
                /// Kind.
                kind: String,
                /// Name, empty if there is none.
                name: String,
            },
        }

        impl Object {
            /// The kind as written in a manifest.
            pub fn kind(&self) -> &str {
                match self {
                    $(Self::$variant(_) => $variant::KIND,)*
                    Self::Foreign { kind, .. } => kind,
                }
            }

            /// Metadata of a known kind.
            pub fn metadata(&self) -> Option<&ObjectMeta> {
                match self {
                    $(Self::$variant(object) => Some(&object.metadata),)*
                    Self::Foreign { .. } => None,
                }
            }

            /// Metadata of a known kind, to be changed.
            pub fn metadata_mut(&mut self) -> Option<&mut ObjectMeta> {
                match self {
                    $(Self::$variant(object) => Some(&mut object.metadata),)*
                    Self::Foreign { .. } => None,
                }
            }

            /// Whether objects of this kind live in a namespace; none if the kind is foreign.
            pub fn namespaced(&self) -> Option<bool> {
                match self {
                    $(Self::$variant(_) => Some($variant::NAMESPACED),)*
                    Self::Foreign { .. } => None,
                }
            }
        }

        /// Decodes a kind of the current version.
        fn decode_as(api_version: &str, kind: &str, value: &mut Value) -> Option<Result<Decoded, DecodeError>> {
            $(if kind == $variant::KIND && api_version == $variant::api_version() {
                return Some(typed::<$variant>(value.take(), Object::$variant));
            })*
            None
        }
    };
}

// `BGPPeer` is the storage version; the older one is converted to it when decoded.
objects!(
    Service,
    EndpointSlice,
    Node,
    Namespace,
    ServiceCIDR,
    Secret,
    Pod,
    IPAddressPool,
    L2Advertisement,
    BGPAdvertisement,
    BGPPeer,
    BFDProfile,
    Community,
    ServiceL2Status,
    ServiceBGPStatus,
    ConfigurationState,
    AddressPool,
    Advertisement,
    Peer,
    AcceptedConfig,
    NodeState,
);

impl Object {
    /// Decodes an object by its `apiVersion` and `kind`.
    pub fn decode(mut value: Value) -> Result<Decoded, DecodeError> {
        let api_version = type_field(&value, "apiVersion")?;
        let kind = type_field(&value, "kind")?;
        strip_nulls(&mut value);
        if let Some(result) = decode_as(&api_version, &kind, &mut value) {
            return result;
        }
        if kind == v1beta1::BGPPeer::KIND && api_version == v1beta1::BGPPeer::api_version() {
            return typed::<v1beta1::BGPPeer>(value, |peer| Self::BGPPeer(peer.into()));
        }
        let name = value
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let object = Self::Foreign {
            api_version,
            kind,
            name: name.to_owned(),
        };
        Ok(Decoded {
            object,
            unknown_fields: Vec::new(),
        })
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Foreign { name, .. } => name,
            known => known.metadata().map_or("", |metadata| &metadata.name),
        }
    }

    /// The object's namespace; empty for cluster-scoped and foreign kinds.
    pub fn namespace(&self) -> &str {
        self.metadata().map_or("", |metadata| &metadata.namespace)
    }
}

fn type_field(value: &Value, name: &str) -> Result<String, DecodeError> {
    let error = |message: &str| DecodeError {
        path: name.to_owned(),
        message: message.to_owned(),
    };
    let Some(object) = value.as_object() else {
        return Err(DecodeError {
            path: ".".to_owned(),
            message: "not an object".to_owned(),
        });
    };
    match object.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        None | Some(Value::Null | Value::String(_)) => Err(error("not set")),
        Some(_) => Err(error("not a string")),
    }
}

fn typed<T: Kind + DeserializeOwned>(
    mut value: Value,
    wrap: impl FnOnce(T) -> Object,
) -> Result<Decoded, DecodeError> {
    if let Value::Object(map) = &mut value {
        map.remove("apiVersion");
        map.remove("kind");
    }
    let mut unknown_fields = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let result = serde_ignored::deserialize(tracked, |path| {
        let path = render(&path);
        if !unread::is_known(T::GROUP, T::KIND, &path) {
            unknown_fields.push(path);
        }
    });
    match result {
        Ok(object) => Ok(Decoded {
            object: wrap(object),
            unknown_fields,
        }),
        Err(error) => Err(DecodeError {
            path: track.path().to_string(),
            message: error.to_string(),
        }),
    }
}

/// Removes null members, which mean unset. Nulls in lists stay: they are errors.
fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, member| !member.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

fn render(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", render(parent)),
        Path::Map { parent, key } => {
            let parent = render(parent);
            if parent.is_empty() {
                key.clone()
            } else {
                format!("{parent}.{key}")
            }
        }
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => render(parent),
    }
}
