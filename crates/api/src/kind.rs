//! What every kind has: its group, version and names; and how a whole object is written.

/// The names of a Kubernetes kind, enough to build its URLs.
pub trait Kind {
    /// API group; empty for the core group.
    const GROUP: &'static str;
    /// Version within the group, like `v1beta1`.
    const VERSION: &'static str;
    /// Kind as written in a manifest.
    const KIND: &'static str;
    /// Resource name as used in URLs.
    const PLURAL: &'static str;
    /// False for cluster-scoped kinds.
    const NAMESPACED: bool;

    /// `group/version`, or the version alone in the core group.
    fn api_version() -> String {
        if Self::GROUP.is_empty() {
            Self::VERSION.to_owned()
        } else {
            format!("{}/{}", Self::GROUP, Self::VERSION)
        }
    }
}

/// Implements [`Kind`] and `Serialize` for a struct of `metadata` and the named parts.
/// `apiVersion` and `kind` are constants of the type, so the struct does not carry them; parts
/// that hold nothing are left out, as a user would.
macro_rules! kind {
    ($ty:ident, $group:literal, $version:literal, $plural:literal, $namespaced:literal, [$($part:ident $(= $json:literal)?),*]) => {
        impl $crate::Kind for $ty {
            const GROUP: &'static str = $group;
            const VERSION: &'static str = $version;
            const KIND: &'static str = stringify!($ty);
            const PLURAL: &'static str = $plural;
            const NAMESPACED: bool = $namespaced;
        }

        impl serde::Serialize for $ty {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap;
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("apiVersion", &<Self as $crate::Kind>::api_version())?;
                map.serialize_entry("kind", <Self as $crate::Kind>::KIND)?;
                map.serialize_entry("metadata", &self.metadata)?;
                $(
                    #[allow(unused_assignments, unused_mut)]
                    let mut name = stringify!($part);
                    $(name = $json;)?
                    if !$crate::de::is_default(&self.$part) {
                        map.serialize_entry(name, &self.$part)?;
                    }
                )*
                map.end()
            }
        }
    };
}
pub(crate) use kind;
