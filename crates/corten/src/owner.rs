//! The controller's Deployment owns what the controller makes in its namespace: the Lease, and the
//! Secrets of the webhook and of the agents. They go when it is deleted, also where the namespace
//! stays (`helm uninstall`).

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client, Error};

/// Who owns what is made.
#[derive(Clone)]
pub struct Owner {
    deployments: Api<Deployment>,
    /// Empty: nobody.
    name: String,
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Owner");
        shown.field("name", &self.name).finish_non_exhaustive()
    }
}

impl Owner {
    /// The Deployment of this name; an empty one is none.
    pub fn new(client: &Client, namespace: &str, deployment: &str) -> Self {
        Self {
            deployments: Api::namespaced(client.clone(), namespace),
            name: deployment.to_owned(),
        }
    }

    /// What an object bears that it owns.
    ///
    /// # Errors
    /// When the Deployment cannot be read.
    pub async fn references(&self) -> Result<Option<Vec<OwnerReference>>, Error> {
        if self.name.is_empty() {
            return Ok(None);
        }
        let found = self.deployments.get_metadata(&self.name).await?;
        Ok(Some(vec![OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            name: self.name.clone(),
            uid: found.metadata.uid.unwrap_or_default(),
            ..OwnerReference::default()
        }]))
    }

    /// The same for what is made also where the Deployment cannot be read: it is nobody's then.
    ///
    /// # Errors
    /// When there is no such Deployment: Corten is being removed, and nothing is to be made.
    pub(crate) async fn known_references(&self) -> Result<Option<Vec<OwnerReference>>, Error> {
        match self.references().await {
            Err(error) if !matches!(&error, Error::Api(status) if status.code == 404) => {
                tracing::warn!(
                    deployment = self.name,
                    error = &error as &dyn std::error::Error,
                    remedy = "kubectl apply -f deploy/rbac.yaml",
                    "cannot be read: what is made now stays when Corten is removed"
                );
                Ok(None)
            }
            known => known,
        }
    }
}
