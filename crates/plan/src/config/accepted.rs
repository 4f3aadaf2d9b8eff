//! The memory of last good forms: what `AcceptedConfig` (in a cluster) or the state file (on
//! hosts) holds of [`Compiled::accepted`], and the way back.
//!
//! It holds the forms of objects whose newest form is bad, and no others. A password that was
//! written in an object is left out; its digest stays, and the way back takes the password from
//! the object's newest form if that still has it. If it has another, the last good form is lost
//! with the memory of the process: a session with the wrong password would be no better than none.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::corten::v1alpha1::{AcceptedConfigSpec, AcceptedForm};
use api::meta::ObjectMeta;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Compiled;
use super::object::{Object, ObjectRef, Objects};
use super::verdict::Verdict;

/// Why a form in memory is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeptError {
    /// It is no object.
    #[error("spec.objects[{entry}].form")]
    Decode {
        /// Its place.
        entry: usize,
        /// What is wrong.
        #[source]
        source: api::object::DecodeError,
    },
    /// It is an object of a kind that makes no configuration.
    #[error("spec.objects[{entry}].form: {kind} is no configuration")]
    Kind {
        /// Its place.
        entry: usize,
        /// Its kind.
        kind: String,
    },
}

/// Last good forms as they come from memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept(BTreeMap<ObjectRef, KeptForm>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct KeptForm {
    object: Arc<Object>,
    password_digest: Option<String>,
}

/// Stands for a password where the password itself must not be.
pub fn password_digest(namespace: &str, name: &str, password: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in [
        b"corten password",
        namespace.as_bytes(),
        name.as_bytes(),
        password,
    ] {
        hash.update(part);
        hash.update([0]);
    }
    let bytes = hash.finalize();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Compiled {
    /// What the memory must hold: the last good forms of the objects whose newest form is bad, in
    /// the order of their references.
    pub fn kept(&self) -> AcceptedConfigSpec {
        let bad = self
            .verdicts
            .iter()
            .filter(|(_, verdict)| !verdict.in_force());
        let forms = bad.filter_map(|(reference, _)| kept_form(self.accepted.get(reference)?));
        AcceptedConfigSpec {
            objects: forms.collect(),
        }
    }

    /// The password that is written in the object of a peer in force.
    pub fn password(&self, peer: &str) -> Option<&str> {
        let object = self.accepted.iter().find_map(|(reference, object)| {
            let verdict = self.verdicts.get(reference)?;
            let in_force = verdict.in_force()
                || matches!(
                    verdict,
                    Verdict::Bad {
                        last_good: true,
                        ..
                    }
                );
            match &**object {
                Object::BGPPeer(object) if in_force && *reference.name == *peer => Some(object),
                _ => None,
            }
        })?;
        Some(object.spec.password.as_str()).filter(|password| !password.is_empty())
    }
}

fn kept_form(object: &Object) -> Option<AcceptedForm> {
    let mut object = object.clone();
    let metadata = object.metadata_mut();
    *metadata = ObjectMeta {
        name: std::mem::take(&mut metadata.name),
        namespace: std::mem::take(&mut metadata.namespace),
        uid: std::mem::take(&mut metadata.uid),
        labels: std::mem::take(&mut metadata.labels),
        creation_timestamp: metadata.creation_timestamp.take(),
        ..ObjectMeta::default()
    };
    let password_digest = take_password(&mut object);
    match serde_json::to_value(&object) {
        Ok(Value::Object(mut form)) => {
            form.remove("status");
            Some(AcceptedForm {
                form,
                password_digest,
            })
        }
        _ => None,
    }
}

fn take_password(object: &mut Object) -> Option<String> {
    let Object::BGPPeer(peer) = object else {
        return None;
    };
    let password = std::mem::take(&mut peer.spec.password);
    let metadata = &peer.metadata;
    (!password.is_empty())
        .then(|| password_digest(&metadata.namespace, &metadata.name, password.as_bytes()))
}

impl Kept {
    /// Reads what [`Compiled::kept`] gave; what cannot be read is left out and told.
    pub fn read(spec: &AcceptedConfigSpec) -> (Self, Vec<KeptError>) {
        let mut kept = BTreeMap::new();
        let mut errors = Vec::new();
        for (entry, form) in spec.objects.iter().enumerate() {
            let decoded = api::object::Object::decode(Value::Object(form.form.clone()));
            let object = match decoded {
                Ok(decoded) => decoded.object,
                Err(source) => {
                    errors.push(KeptError::Decode { entry, source });
                    continue;
                }
            };
            match Object::try_from(object) {
                Ok(object) => {
                    let form = KeptForm {
                        password_digest: form.password_digest.clone(),
                        object: Arc::new(object),
                    };
                    kept.insert(form.object.reference(), form);
                }
                Err(other) => errors.push(KeptError::Kind {
                    entry,
                    kind: other.kind().to_owned(),
                }),
            }
        }
        (Self(kept), errors)
    }

    /// What [`Kept::read`] reads.
    pub fn spec(&self) -> AcceptedConfigSpec {
        let form = |kept: &KeptForm| {
            // Its password was left out before; its digest stands for it.
            let mut form = kept_form(&kept.object)?;
            form.password_digest.clone_from(&kept.password_digest);
            Some(form)
        };
        AcceptedConfigSpec {
            objects: self.0.values().filter_map(form).collect(),
        }
    }

    /// The forms that fit the objects there are: not those of an object that was made anew since,
    /// nor those whose password is lost.
    pub fn resolve(&self, objects: &Objects) -> Objects {
        let fitting = self.0.iter().filter_map(|(reference, kept)| {
            let newest = objects.get(reference)?;
            if newest.metadata().uid != kept.object.metadata().uid {
                return None;
            }
            let Some(digest) = &kept.password_digest else {
                return Some((reference.clone(), kept.object.clone()));
            };
            let Object::BGPPeer(newest) = &**newest else {
                return None;
            };
            let password = &newest.spec.password;
            if password_digest(&reference.namespace, &reference.name, password.as_bytes())
                != *digest
            {
                return None;
            }
            let mut object = (*kept.object).clone();
            if let Object::BGPPeer(peer) = &mut object {
                peer.spec.password.clone_from(password);
            }
            Some((reference.clone(), Arc::new(object)))
        });
        fitting.collect()
    }
}
