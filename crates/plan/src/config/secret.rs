//! The Secrets that peers name: what is known of them and what is wrong with them
//! (`spec/metallb.md` §1.4, `passwordSecret`). Their content is never here.

use std::collections::BTreeMap;

use api::core::{BASIC_AUTH, Secret};

use super::verdict::Findings;
use crate::name::Name;

/// The key of the password.
const KEY: &str = "password";

/// What is known of a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretFacts {
    /// It is of type `kubernetes.io/basic-auth`.
    pub basic_auth: bool,
    /// It has the key `password`.
    pub has_password: bool,
}

impl From<&Secret> for SecretFacts {
    fn from(secret: &Secret) -> Self {
        Self {
            basic_auth: secret.type_ == BASIC_AUTH,
            has_password: secret.has(KEY),
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
        Some(SecretFacts {
            has_password: false,
            ..
        }) => (
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
