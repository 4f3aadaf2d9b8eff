//! The kinds that are watched, each as the object that a manifest would give.

use api::core::{EndpointSlice, Namespace, Node, Pod, Secret, Service, ServiceCIDR};
use api::corten::v1alpha1::{AcceptedConfig, AddressPool, Advertisement, NodeState, Peer};
use api::meta::ObjectMeta;
use api::metallb::{
    BFDProfile, BGPAdvertisement, BGPPeer, Community, ConfigurationState, IPAddressPool,
    L2Advertisement, ServiceBGPStatus, ServiceL2Status,
};
use api::object::Object;

use super::watch::Watched;

macro_rules! watched {
    ($($kind:ident),* $(,)?) => {
        $(impl Watched for $kind {
            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn into_object(self) -> Object {
                Object::$kind(self)
            }

            fn named(namespace: &str, name: &str) -> Object {
                let mut object = Self::default();
                object.metadata.namespace = namespace.to_owned();
                object.metadata.name = name.to_owned();
                Object::$kind(object)
            }
        })*
    };
}

watched!(
    Service,
    EndpointSlice,
    Namespace,
    Node,
    NodeState,
    IPAddressPool,
    L2Advertisement,
    BGPAdvertisement,
    BGPPeer,
    BFDProfile,
    Community,
    AddressPool,
    Advertisement,
    Peer,
    AcceptedConfig,
    ServiceCIDR,
    Secret,
    Pod,
    ConfigurationState,
    ServiceL2Status,
    ServiceBGPStatus,
);
