//! The Secret that MetalLB's speakers share for memberlist, and Corten's agents for their beats:
//! 16 random bytes in base64 under `secretkey` (`spec/metallb.md` §3.1). Made once; never changed.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use rustls::crypto::ring::default_provider;

use crate::owner::Owner;

/// Key of the Secret, and name of the file where it is mounted.
pub const KEY: &str = "secretkey";

/// Why there is no Secret.
#[derive(Debug, thiserror::Error)]
pub enum MemberSecretError {
    /// The API server refused.
    #[error("cannot {what}")]
    Api {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: Error,
    },
    /// The system has no random numbers.
    #[error("no random numbers for the Secret")]
    Random,
}

/// Makes the Secret where there is none.
pub async fn ensure(
    client: Client,
    namespace: &str,
    name: &str,
    owner: &Owner,
) -> Result<(), MemberSecretError> {
    let failed = |what: String| move |source| MemberSecretError::Api { what, source };
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let there = secrets.get_opt(name).await;
    if there
        .map_err(failed(format!("read Secret {name}")))?
        .is_some()
    {
        return Ok(());
    }
    let owner_references = owner
        .references()
        .await
        .map_err(failed("read the Deployment that is to own it".to_owned()))?;
    let mut random = [0; 16];
    let filled = default_provider().secure_random.fill(&mut random);
    filled.map_err(|_| MemberSecretError::Random)?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            owner_references,
            ..ObjectMeta::default()
        },
        data: Some([(KEY.to_owned(), ByteString(text(&random)))].into()),
        ..Secret::default()
    };
    match secrets.create(&PostParams::default(), &secret).await {
        Ok(_) => {
            tracing::info!(secret = name, "member secret made");
            Ok(())
        }
        // Another replica was first.
        Err(Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(failed(format!("create Secret {name}"))(error)),
    }
}

/// Base64 without padding.
fn text(bytes: &[u8]) -> Vec<u8> {
    let json = serde_json::to_value(ByteString(bytes.to_vec())).unwrap_or_default();
    let padded = json.as_str().unwrap_or_default();
    padded.trim_end_matches('=').as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_without_padding() {
        assert_eq!(super::text(&[0xfb; 16]), b"+/v7+/v7+/v7+/v7+/v7+w");
    }
}
