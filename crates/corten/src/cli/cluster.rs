//! Connecting to a cluster.

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::{Cluster, Failure};

/// The first Kubernetes whose CEL knows `ip()`, which the CRDs' rules use.
const FLOOR: (u32, u32) = (1, 31);

/// A client, after the server's version was found new enough.
pub(super) async fn connect(cluster: &Cluster) -> Result<Client, Failure> {
    let client = client(cluster).await?;
    let version = check(&client).await?;
    tracing::info!(version, "connected");
    Ok(client)
}

/// A client; nothing has been asked yet.
pub(super) async fn client(cluster: &Cluster) -> Result<Client, Failure> {
    let mut config = match &cluster.kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file).map_err(|error| {
                format!("kubeconfig {} cannot be used: {error}", file.display())
            })?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await.map_err(|error| {
            format!("no cluster found (give --kubeconfig, or run in a Pod): {error}")
        })?,
    };
    if let Some(url) = &cluster.api_server {
        config.cluster_url = url
            .parse()
            .map_err(|error| format!("--api-server {url}: {error}"))?;
    }
    tracing::debug!(url = %config.cluster_url, "the API server");
    Ok(crate::client::client(config)?)
}

/// Waits for an answer, which tells the server's version: it must be new enough.
pub(super) async fn check(client: &Client) -> Result<String, Failure> {
    let mut backoff = crate::backoff::Backoff::new(
        std::time::Duration::from_millis(200),
        std::time::Duration::from_secs(10),
    );
    let version = loop {
        match client.apiserver_version().await {
            Ok(version) => break version,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the API server does not answer; trying again"
                );
                tokio::time::sleep(backoff.next()).await;
            }
        }
    };
    let number = |text: &str| -> Option<u32> {
        text.trim_end_matches(|c: char| !c.is_ascii_digit())
            .parse()
            .ok()
    };
    if let (Some(major), Some(minor)) = (number(&version.major), number(&version.minor))
        && (major, minor) < FLOOR
    {
        return Err(format!(
            "Kubernetes {}.{} is too old: Corten needs {}.{} or newer, whose CEL has ip()",
            major, minor, FLOOR.0, FLOOR.1
        )
        .into());
    }
    Ok(version.git_version)
}
