//! Keeps certificates, trust and registration in order, in this order: the Secret, the bundles
//! that the API server trusts by, the certificate that is served. So the API server never meets a
//! leaf whose authority it does not know.
//!
//! Every replica does this, on the same Secret: who loses a race for it (resourceVersion) reads
//! what the other wrote. What is right is not written again. The definition whose conversion needs
//! the bundle is watched: until it has that, objects of the kind cannot be read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use rustls::sign::CertifiedKey;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::certs::{self, CA_CERT, CertError, Renewal, SecretData, TLS_CERT, TLS_KEY};
use super::registration::{
    self, CONFIGURATION, PEER_CRD, Policy, Probe, Service, conversion_patch, holds, next_policy,
};
use super::review::PROBE;
use crate::backoff::Backoff;
use crate::one;
use crate::owner::Owner;

/// Field manager of the entries.
const MANAGER: &str = "corten-webhook";
/// Between two looks when all is well.
const PERIOD: Duration = Duration::from_secs(10);
/// Bounds of the time between two looks after one that failed.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));
/// Between two looks while the API server does not reach us.
const SOON: Duration = Duration::from_secs(2);
/// Looks that come soon before the patient ones; then it is said.
const SOON_ROUNDS: u32 = 15;
/// A request that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(10);
const CONFIGURATIONS: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Where certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificates {
    /// Made here, kept in this Secret, shared by the replicas.
    Own {
        /// The Secret's name.
        secret: String,
    },
    /// Somebody else's, in a directory with `tls.crt` and `tls.key`. Who made them also tells the
    /// API server to trust them: no Secret is looked at and no bundle written.
    Given(PathBuf),
}

/// Why a round failed; the next one tries again.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The API server refused.
    #[error("cannot {what}")]
    Api {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: Error,
    },
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The certificate cannot be made or used.
    #[error(transparent)]
    Cert(#[from] CertError),
    /// The API server took too long.
    #[error("the API server did not answer in {PATIENCE:?}")]
    Late,
}

/// Owns what this process has told the API server to trust.
pub(super) struct Keeper {
    pub(super) client: Client,
    pub(super) service: Service,
    pub(super) certificates: Certificates,
    pub(super) wanted: Policy,
    pub(super) owner: Owner,
    pub(super) serve: watch::Sender<Option<Arc<CertifiedKey>>>,
    pub(super) trusted: Vec<u8>,
    /// What is served, to see a change.
    pub(super) served: Vec<u8>,
}

impl Keeper {
    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut unreached = 0;
        let (tell, mut changed) = mpsc::channel(1);
        let mut watching = JoinSet::new();
        if matches!(self.certificates, Certificates::Own { .. }) {
            watching.spawn(definition(self.client.clone(), tell));
        }
        loop {
            let wait = match self.round().await {
                Ok(policy) => {
                    backoff.reset();
                    unreached = if policy == self.wanted {
                        0
                    } else {
                        unreached + 1
                    };
                    if unreached == SOON_ROUNDS {
                        self.complain();
                    }
                    if (1..SOON_ROUNDS).contains(&unreached) {
                        SOON
                    } else {
                        PERIOD
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the webhook is not in order; trying again"
                    );
                    backoff.next()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                Some(()) = changed.recv() => {}
            }
        }
    }

    fn complain(&self) {
        tracing::warn!(
            service = self.service.name,
            "the API server does not reach the webhook: objects pass with the rules of their CRDs \
             alone; look at the Service and at network policies"
        );
    }

    /// One look at everything; the policy that is in force after it.
    async fn round(&mut self) -> Result<Policy, KeeperError> {
        let (data, own) = match &self.certificates {
            Certificates::Own { secret } => (self.own(secret).await?, true),
            Certificates::Given(dir) => (given(dir)?, false),
        };
        let (Some(cert), Some(key)) = (data.get(TLS_CERT), data.get(TLS_KEY)) else {
            // `own` and `given` end in data that are complete.
            return Ok(Policy::Ignore);
        };
        let loaded = Arc::new(certs::certified_key(cert, key)?);
        let bundle = data.get(CA_CERT).filter(|bundle| own && !bundle.is_empty());
        if let Some(bundle) = bundle {
            self.trusted.clone_from(bundle);
        }
        let bundle = bundle.map(|bundle| base64(bundle));
        let told = self.tell(bundle.as_ref()).await;
        // Served in any case: without rights to write, somebody else may have told.
        if self.served != *cert {
            tracing::info!("serving a new webhook certificate");
            self.served.clone_from(cert);
            self.serve.send_replace(Some(loaded));
        }
        let policy = told?;
        if self.wanted == Policy::Ignore {
            return Ok(Policy::Ignore);
        }
        let next = next_policy(policy, self.wanted, self.probe().await);
        if next != policy {
            match next {
                Policy::Fail => tracing::info!("the API server reaches the webhook"),
                Policy::Ignore => self.complain(),
            }
            let wanted = registration::configuration(&self.service, bundle.as_ref(), next);
            self.apply(&wanted).await?;
        }
        Ok(next)
    }

    /// Brings bundles and entries to the API server; the policy that they have.
    async fn tell(&self, bundle: Option<&Value>) -> Result<Policy, KeeperError> {
        let there = self.get(CONFIGURATIONS, CONFIGURATION).await?;
        let there = there.unwrap_or_default();
        let policy = match self.wanted {
            Policy::Ignore => Policy::Ignore,
            // What is in force stays: raising it needs a proof, lowering it a reason.
            Policy::Fail => registration::policy_of(&there),
        };
        // A bundle that the API server does not have yet is not trusted before this is written.
        let wanted = registration::configuration(&self.service, bundle, policy);
        if !holds(&there, &wanted) {
            self.apply(&wanted).await?;
            tracing::info!(name = CONFIGURATION, "webhook entries written");
        }
        if let Some(bundle) = bundle
            && let Some(crd) = self.get(CRDS, PEER_CRD).await?
            && let Some(patch) = conversion_patch(&crd, &self.service, bundle)
        {
            let target = format!("{CRDS}/{PEER_CRD}?fieldManager={MANAGER}");
            let request = request("PATCH", &target, "application/merge-patch+json", &patch);
            self.send::<Value>(request, "patch the conversion of BGPPeer")
                .await?;
            tracing::info!(name = PEER_CRD, "conversion bundle written");
        }
        Ok(policy)
    }

    async fn apply(&self, configuration: &Value) -> Result<(), KeeperError> {
        let target = format!("{CONFIGURATIONS}/{CONFIGURATION}?fieldManager={MANAGER}&force=true");
        let request = request(
            "PATCH",
            &target,
            "application/apply-patch+yaml",
            configuration,
        );
        let what = format!("apply ValidatingWebhookConfiguration {CONFIGURATION}");
        self.send::<Value>(request, &what).await.map(drop)
    }

    /// Lets objects pass when no webhook answers: for a planned stop. Other replicas raise the
    /// policy again.
    pub(super) async fn withdraw(&self) -> Result<(), KeeperError> {
        let there = self.get(CONFIGURATIONS, CONFIGURATION).await?;
        let there = there.unwrap_or_default();
        if registration::policy_of(&there) == Policy::Ignore {
            return Ok(());
        }
        let bundle = match &self.certificates {
            Certificates::Own { .. } => registration::bundle_of(&there),
            Certificates::Given(_) => None,
        };
        let wanted = registration::configuration(&self.service, bundle.as_ref(), Policy::Ignore);
        self.apply(&wanted).await
    }

    /// Creates an object without effect that our own webhook refuses.
    async fn probe(&self) -> Probe {
        let namespace = &self.service.namespace;
        let pools = crate::source::kube::path::<api::metallb::IPAddressPool>(Some(namespace));
        let target = format!("{pools}/{PROBE}?fieldManager={MANAGER}&force=true&dryRun=All");
        let object = registration::probe(namespace);
        let request = request("PATCH", &target, "application/apply-patch+yaml", &object);
        let probe = match self.send::<Value>(request, "probe the webhook").await {
            Ok(_) => Probe::of(None),
            Err(KeeperError::Api {
                source: Error::Api(status),
                ..
            }) => {
                let probe = Probe::of(Some((status.code, &status.message)));
                if probe == Probe::Unknown {
                    tracing::warn!(
                        code = status.code,
                        message = status.message,
                        "cannot see whether the API server reaches the webhook"
                    );
                }
                probe
            }
            Err(_) => Probe::Unknown,
        };
        tracing::debug!(?probe, "webhook probed");
        probe
    }

    /// The Secret's data, created, renewed and adopted as needed.
    async fn own(&self, name: &str) -> Result<SecretData, KeeperError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.service.namespace);
        let names = certs::service_names(&self.service.name, &self.service.namespace);
        let api = |what: &str| {
            let what = format!("{what} Secret {name}");
            move |source| KeeperError::Api { what, source }
        };
        // Each loss of a race means that another has written.
        loop {
            let secret = in_time(secrets.get_opt(name), api("read")).await?;
            let data = secret.as_ref().map(data_of).unwrap_or_default();
            let Renewal::Write { data, why } = certs::renew(&data, &self.trusted, &names, now())?
            else {
                return Ok(data);
            };
            let existed = secret.is_some();
            let mut secret = match secret {
                Some(secret) => secret,
                None => {
                    let owner_references =
                        in_time(self.owner.known_references(), api("own")).await?;
                    Secret {
                        metadata: ObjectMeta {
                            name: Some(name.to_owned()),
                            owner_references,
                            ..ObjectMeta::default()
                        },
                        ..Secret::default()
                    }
                }
            };
            let entries = data
                .iter()
                .map(|(key, value)| (key.clone(), ByteString(value.clone())));
            secret.data.get_or_insert_default().extend(entries);
            let params = PostParams::default();
            let written = if existed {
                let replace = secrets.replace(name, &params, &secret);
                in_time(replace, api("replace")).await
            } else {
                in_time(secrets.create(&params, &secret), api("create")).await
            };
            match written {
                Ok(_) => {
                    tracing::info!(secret = name, why, "webhook certificates made");
                    return Ok(data);
                }
                Err(KeeperError::Api {
                    source: Error::Api(status),
                    ..
                }) if status.code == 409 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// An object of the cluster, if it is there.
    async fn get(&self, collection: &str, name: &str) -> Result<Option<Value>, KeeperError> {
        let request = http::Request::get(format!("{collection}/{name}")).body(Vec::new());
        match self.send(request, &format!("read {name}")).await {
            Ok(object) => Ok(Some(object)),
            Err(KeeperError::Api {
                source: Error::Api(status),
                ..
            }) if status.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn send<T: serde::de::DeserializeOwned>(
        &self,
        request: Result<http::Request<Vec<u8>>, http::Error>,
        what: &str,
    ) -> Result<T, KeeperError> {
        let failed = |source| KeeperError::Api {
            what: what.to_owned(),
            source,
        };
        let request = request.map_err(|error| failed(Error::HttpError(error)))?;
        in_time(self.client.request(request), failed).await
    }
}

/// For ever: tells that the definition is there, or has changed.
async fn definition(client: Client, changed: mpsc::Sender<()>) {
    let failed = |error: &Error| {
        tracing::warn!(
            name = PEER_CRD,
            error = error as &dyn std::error::Error,
            remedy = "kubectl apply -f deploy/webhook.yaml",
            "it cannot be watched: a change is seen within {PERIOD:?}; trying again"
        );
    };
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    // A word that waits already is enough.
    let seen = |_: Option<&_>| {
        let _ = changed.try_send(());
    };
    one::follow(definitions, PEER_CRD, seen, failed).await;
}

async fn in_time<T>(
    call: impl Future<Output = Result<T, Error>>,
    failed: impl FnOnce(Error) -> KeeperError,
) -> Result<T, KeeperError> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(KeeperError::Late),
    }
}

fn request(
    method: &str,
    target: &str,
    content: &str,
    body: &Value,
) -> Result<http::Request<Vec<u8>>, http::Error> {
    http::Request::builder()
        .method(method)
        .uri(target)
        .header("Content-Type", content)
        .body(body.to_string().into_bytes())
}

fn given(dir: &std::path::Path) -> Result<SecretData, KeeperError> {
    let mut data = SecretData::new();
    for name in [TLS_CERT, TLS_KEY] {
        let path = dir.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => {
                data.insert(name.to_owned(), bytes);
            }
            Err(source) => return Err(KeeperError::File { path, source }),
        }
    }
    Ok(data)
}

fn data_of(secret: &Secret) -> SecretData {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), value.0.clone()))
        .collect()
}

/// Bytes as the API has them in JSON.
fn base64(bytes: &[u8]) -> Value {
    serde_json::to_value(ByteString(bytes.to_vec())).unwrap_or_default()
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or_default()
}
