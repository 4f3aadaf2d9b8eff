//! One fact as a line of the journal.

use api::corten::v1alpha1::AcceptedConfigSpec;
use ipnet::IpNet;
use plan::config::{Hidden, Kept, Object, ObjectKind, ObjectRef, SecretFacts};
use plan::name::{Name, ServiceKey};
use plan::world::{Event, Node, NodeState, PodKey, Rival, Service, Slice};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Hex digits of a line's digest: enough to find damage, which is no attack.
const DIGEST: usize = 16;

/// What World's events say, as it is written. Events that come from elsewhere than a source have no
/// record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Record {
    Config {
        object: ObjectRef,
        form: Option<Value>,
    },
    Service {
        key: ServiceKey,
        form: Option<Box<Service>>,
    },
    Slice {
        key: ServiceKey,
        form: Option<Slice>,
    },
    Node {
        name: Name,
        form: Option<Node>,
    },
    Secret {
        namespace: Name,
        name: Name,
        form: Option<Facts>,
    },
    LastGood {
        spec: AcceptedConfigSpec,
    },
    State {
        node: Name,
        form: Option<NodeState>,
    },
    Rival {
        pod: PodKey,
        form: Option<Rival>,
    },
    ServiceRange {
        name: Name,
        form: Option<Vec<IpNet>>,
    },
}

/// What is known of a Secret, with the password: the file is root's alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Facts {
    basic_auth: bool,
    password: Option<Vec<u8>>,
}

/// Why a line says nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("its digest does not agree with it")]
    Digest,
    #[error("it cannot be read")]
    Json(#[from] serde_json::Error),
    #[error("its object cannot be read")]
    Object(#[from] api::object::DecodeError),
    #[error("{0} is no configuration")]
    Kind(String),
}

impl Record {
    /// Of an event; none where nothing is kept of it.
    pub(super) fn of(event: &Event) -> Option<Self> {
        Some(match event {
            Event::Config { object, form } => Self::Config {
                object: object.clone(),
                form: match form {
                    Some(form) => Some(serde_json::to_value(&**form).ok()?),
                    None => None,
                },
            },
            Event::Service { key, form } => Self::Service {
                key: key.clone(),
                form: form.clone(),
            },
            Event::Slice { key, form } => Self::Slice {
                key: key.clone(),
                form: form.clone(),
            },
            Event::Node { name, form } => Self::Node {
                name: name.clone(),
                form: form.clone(),
            },
            Event::Secret {
                namespace,
                name,
                form,
            } => Self::Secret {
                namespace: namespace.clone(),
                name: name.clone(),
                form: form.as_ref().map(|facts| Facts {
                    basic_auth: facts.basic_auth,
                    password: facts.password.as_ref().map(|it| it.reveal().to_vec()),
                }),
            },
            Event::LastGood(kept) => Self::LastGood { spec: kept.spec() },
            Event::State { node, form } => Self::State {
                node: node.clone(),
                form: form.clone(),
            },
            Event::Rival { pod, form } => Self::Rival {
                pod: pod.clone(),
                form: form.clone(),
            },
            Event::ServiceRange { name, form } => Self::ServiceRange {
                name: name.clone(),
                form: form.clone(),
            },
            _ => return None,
        })
    }

    /// The event again.
    pub(super) fn event(self) -> Result<Event, RecordError> {
        Ok(match self {
            Self::Config { object, form } => Event::Config {
                object,
                form: match form {
                    Some(form) => {
                        let decoded = api::object::Object::decode(form)?;
                        let form = Object::try_from(decoded.object);
                        let form = form.map_err(|it| RecordError::Kind(it.kind().to_owned()))?;
                        Some(form.into())
                    }
                    None => None,
                },
            },
            Self::Service { key, form } => Event::Service { key, form },
            Self::Slice { key, form } => Event::Slice { key, form },
            Self::Node { name, form } => Event::Node { name, form },
            Self::Secret {
                namespace,
                name,
                form,
            } => Event::Secret {
                namespace,
                name,
                form: form.map(|facts| SecretFacts {
                    basic_auth: facts.basic_auth,
                    password: facts.password.map(|it| Hidden::from(&*it)),
                }),
            },
            // What could not be read of it then is not in it now.
            Self::LastGood { spec } => Event::LastGood(Kept::read(&spec).0),
            Self::State { node, form } => Event::State { node, form },
            Self::Rival { pod, form } => Event::Rival { pod, form },
            Self::ServiceRange { name, form } => Event::ServiceRange { name, form },
        })
    }

    /// The same thing, gone; none for what does not go.
    pub(super) fn gone(&self) -> Option<Event> {
        Some(match self.clone() {
            Self::Config { object, .. } => Event::Config { object, form: None },
            Self::Service { key, .. } => Event::Service { key, form: None },
            Self::Slice { key, .. } => Event::Slice { key, form: None },
            Self::Node { name, .. } => Event::Node { name, form: None },
            Self::Secret {
                namespace, name, ..
            } => Event::Secret {
                namespace,
                name,
                form: None,
            },
            Self::LastGood { .. } => return None,
            Self::State { node, .. } => Event::State { node, form: None },
            Self::Rival { pod, .. } => Event::Rival { pod, form: None },
            Self::ServiceRange { name, .. } => Event::ServiceRange { name, form: None },
        })
    }

    /// Of two records of one thing the later holds.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Config { object, .. } => format!("config {object}"),
            Self::Service { key, .. } => format!("service {key}"),
            Self::Slice { key, .. } => format!("slice {key}"),
            Self::Node { name, .. } => format!("node {name}"),
            Self::Secret {
                namespace, name, ..
            } => format!("secret {namespace}/{name}"),
            Self::LastGood { .. } => "last good".to_owned(),
            Self::State { node, .. } => format!("state {node}"),
            Self::Rival { pod, .. } => format!("rival {pod}"),
            Self::ServiceRange { name, .. } => format!("service range {name}"),
        }
    }

    /// The thing is there.
    pub(super) const fn is_there(&self) -> bool {
        match self {
            Self::Config { form, .. } => form.is_some(),
            Self::Service { form, .. } => form.is_some(),
            Self::Slice { form, .. } => form.is_some(),
            Self::Node { form, .. } => form.is_some(),
            Self::Secret { form, .. } => form.is_some(),
            Self::LastGood { .. } => true,
            Self::State { form, .. } => form.is_some(),
            Self::Rival { form, .. } => form.is_some(),
            Self::ServiceRange { form, .. } => form.is_some(),
        }
    }

    /// It may bear a password.
    pub(super) fn is_secret(&self) -> bool {
        match self {
            Self::Config { object, .. } => object.kind == ObjectKind::BGPPeer,
            Self::Secret { .. } => true,
            _ => false,
        }
    }

    /// As a line, with its end.
    pub(super) fn line(&self) -> Result<String, RecordError> {
        let text = serde_json::to_string(self)?;
        Ok(format!("{} {text}\n", digest(&text)))
    }

    /// From a line, without its end.
    pub(super) fn read(line: &str) -> Result<Self, RecordError> {
        let (sum, text) = line.split_once(' ').ok_or(RecordError::Digest)?;
        if digest(text) != sum {
            return Err(RecordError::Digest);
        }
        Ok(serde_json::from_str(text)?)
    }
}

fn digest(text: &str) -> String {
    let bytes = Sha256::digest(text.as_bytes());
    let digits = bytes.iter().take(DIGEST / 2);
    digits.map(|byte| format!("{byte:02x}")).collect()
}
