//! API objects as World's events; the one place that knows which kind becomes which event.

use std::sync::Arc;

use api::corten::v1alpha1::AcceptedConfigSpec;
use api::object::Object;
use plan::config::{self, Kept, SecretFacts};
use plan::name::ServiceKey;
use plan::world::{Event, PodKey, Rival, Slice, service_ranges};

/// The event of an object that is there, or has changed; none for a kind that no planner reads.
pub(super) fn applied(object: Object) -> Option<Event> {
    let object = match config::Object::try_from(object) {
        Ok(object) => {
            return Some(Event::Config {
                object: object.reference(),
                form: Some(Arc::new(object)),
            });
        }
        Err(other) => *other,
    };
    match object {
        Object::Service(service) => {
            let service = Box::new(plan::world::Service::from(service));
            Some(Event::Service {
                key: service.key.clone(),
                form: Some(service),
            })
        }
        Object::EndpointSlice(slice) => Some(Event::Slice {
            key: ServiceKey::new(&slice.metadata.namespace, &slice.metadata.name),
            form: Slice::of(slice),
        }),
        Object::Namespace(namespace) => Some(Event::Namespace {
            name: namespace.metadata.name.into(),
            labels: Some(namespace.metadata.labels),
        }),
        Object::Node(node) => Some(Event::Node {
            name: node.metadata.name.as_str().into(),
            form: Some(node.into()),
        }),
        Object::ServiceCIDR(cidr) => Some(Event::ServiceRange {
            form: Some(service_ranges(&cidr)),
            name: cidr.metadata.name.into(),
        }),
        Object::Secret(secret) => Some(Event::Secret {
            form: Some(SecretFacts::from(&secret)),
            namespace: secret.metadata.namespace.into(),
            name: secret.metadata.name.into(),
        }),
        Object::Pod(pod) => Some(Event::Rival {
            pod: PodKey::new(&pod.metadata.namespace, &pod.metadata.name),
            form: Rival::of(&pod),
        }),
        Object::AcceptedConfig(accepted) => Some(last_good(&accepted.spec)),
        Object::NodeState(state) => Some(Event::State {
            node: state.metadata.name.into(),
            form: Some(state.status.into()),
        }),
        _ => None,
    }
}

/// Last good forms from before the start; what cannot be read of them is logged.
pub(super) fn last_good(accepted: &AcceptedConfigSpec) -> Event {
    let (kept, errors) = Kept::read(accepted);
    for error in errors {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a last good form cannot be read; the object is left out until it is mended"
        );
    }
    Event::LastGood(kept)
}

/// The event of an object that is gone.
pub(super) fn gone(object: &Object) -> Option<Event> {
    // Events of deletion are those of existence without a form: one list of kinds serves both.
    Some(match applied(object.clone())? {
        Event::Config { object, .. } => Event::Config { object, form: None },
        Event::Service { key, .. } => Event::Service { key, form: None },
        Event::Slice { key, .. } => Event::Slice { key, form: None },
        Event::Namespace { name, .. } => Event::Namespace { name, labels: None },
        Event::Node { name, .. } => Event::Node { name, form: None },
        Event::State { node, .. } => Event::State { node, form: None },
        Event::ServiceRange { name, .. } => Event::ServiceRange { name, form: None },
        Event::Secret {
            namespace, name, ..
        } => Event::Secret {
            namespace,
            name,
            form: None,
        },
        Event::Rival { pod, .. } => Event::Rival { pod, form: None },
        // What was good is known.
        Event::LastGood(_) => return None,
        other => other,
    })
}
