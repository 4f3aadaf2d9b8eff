//! The Secrets that peers name: what is known of them and what is wrong with them
//! (`spec/metallb.md` §1.4, `passwordSecret`). A password is here for the task of its peer alone:
//! nothing shows or serialises it, and plans bear its digest.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use api::core::{BASIC_AUTH, Secret};

use super::verdict::Findings;
use crate::name::Name;

/// The key of the password.
const KEY: &str = "password";

/// A password. It cannot be serialised, and its Debug shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Arc<[u8]>);

impl Hidden {
    /// The password itself.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Hidden {
    fn from(password: &[u8]) -> Self {
        Self(password.into())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

/// What is known of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFacts {
    /// It is of type `kubernetes.io/basic-auth`.
    pub basic_auth: bool,
    /// What it has under the key `password`.
    pub password: Option<Hidden>,
}

impl SecretFacts {
    /// The password, where a peer may use it.
    pub fn usable(&self) -> Option<&Hidden> {
        self.password.as_ref().filter(|_| self.basic_auth)
    }
}

impl From<&Secret> for SecretFacts {
    fn from(secret: &Secret) -> Self {
        // FRR reads its configuration by lines: the newline that `echo` and files end in was never
        // part of a password.
        let password = secret.value(KEY).map(|mut value| {
            while value.pop_if(|last| matches!(last, b'\n' | b'\r')).is_some() {}
            Hidden::from(&*value)
        });
        Self {
            basic_auth: secret.type_ == BASIC_AUTH,
            password,
        }
    }
}

/// Judges the Secret that a peer names, in MetalLB's order. Every fault goes away when the Secret
/// comes or is replaced.
pub(super) fn check(
    peer: &str,
    secret: &str,
    namespace: &str,
    known: &BTreeMap<Name, SecretFacts>,
    found: &mut Findings,
) {
    let (message, remedy) = match known.get(secret) {
        None => (
            format!("secret ref not found for peer config \"{namespace}/{peer}\""),
            format!("create the Secret {secret:?} of type {BASIC_AUTH} in namespace {namespace}"),
        ),
        Some(SecretFacts {
            basic_auth: false, ..
        }) => (
            format!(
                "secret type mismatch on \"{namespace}/{secret}\", type \"{BASIC_AUTH}\" is \
                 expected"
            ),
            "delete the Secret and create it with this type".to_owned(),
        ),
        Some(SecretFacts { password: None, .. }) => (
            format!("password not specified in the secret \"{namespace}/{secret}\""),
            format!("add the key {KEY:?} to the Secret"),
        ),
        Some(_) => return,
    };
    // MetalLB quotes namespace and name apart, and leaves a blank after "expected".
    let blank = if message.ends_with("expected") {
        " "
    } else {
        ""
    };
    let quoted = message.replace(&format!("{namespace}/"), &format!("{namespace}\"/\""));
    found.transient("spec.passwordSecret", message, remedy);
    found.upstream(format!(
        "parsing peer {peer} {quoted}{blank}\nfailed to parse peer {peer} password secret"
    ));
}
