//! The kinds that say which node announces a Service (`spec/metallb.md` §1.8, §1.9).

use std::fmt::Debug;

use api::meta::ObjectMeta;
use api::metallb::{
    ServiceBGPStatus, ServiceBGPStatusStatus, ServiceL2Status, ServiceL2StatusStatus,
};
use api::object::Object;
use plan::name::{Name, ServiceKey};
use plan::status::{bgp_status, l2_status};
use serde::Serialize;

use crate::source::kube::Watched;

/// The status of such a kind.
pub(crate) trait Word:
    Clone + Debug + Default + PartialEq + Serialize + Send + Sync + 'static
{
    /// The kind.
    type Object: Watched;
    /// What names of objects begin with.
    const PREFIX: &'static str;
    /// One node alone announces a Service: it takes down what others say.
    const ALONE: bool;
    /// The list in it, which a patch has to take away where it is empty.
    const LIST: &'static str;

    /// An object of the kind.
    fn read(object: Object) -> Option<(ObjectMeta, Self)>;

    /// Node, name and namespace of the Service: they cannot change once they are there.
    fn subject(&self) -> [&str; 3];

    /// The names in the list.
    fn list(&self) -> impl Iterator<Item = &str>;

    /// What `node` says of `service`.
    fn of(service: &ServiceKey, node: &str, list: &[Name]) -> Self;
}

macro_rules! word {
    ($kind:ident, $status:ident, $prefix:literal, $alone:literal, $list:ident, $named:expr, $of:expr) => {
        impl Word for $status {
            type Object = $kind;
            const PREFIX: &'static str = $prefix;
            const ALONE: bool = $alone;
            const LIST: &'static str = stringify!($list);

            fn read(object: Object) -> Option<(ObjectMeta, Self)> {
                match object {
                    Object::$kind(object) => Some((object.metadata, object.status)),
                    _ => None,
                }
            }

            fn subject(&self) -> [&str; 3] {
                [&self.node, &self.service_name, &self.service_namespace]
            }

            fn list(&self) -> impl Iterator<Item = &str> {
                self.$list.iter().map($named)
            }

            fn of(service: &ServiceKey, node: &str, list: &[Name]) -> Self {
                $of(service, node, list)
            }
        }
    };
}

word!(
    ServiceL2Status,
    ServiceL2StatusStatus,
    "l2-",
    true,
    interfaces,
    |interface| &*interface.name,
    l2_status
);
word!(
    ServiceBGPStatus,
    ServiceBGPStatusStatus,
    "bgp-",
    false,
    peers,
    String::as_str,
    bgp_status
);
