//! The admission and conversion webhook of `metallb.io` (`spec/metallb.md` §1.12).
//!
//! ```text
//!  API server ──HTTPS──► server ──► review (pure) ◄── objects (lists)
//!                          ▲
//!  Secret ◄──► keeper ─────┘ certificate          keeper ──► bundles, entries, policy
//! ```
//! Every replica serves; none of it needs leadership. How objects can be created while no webhook
//! serves: docs/adr/0007-webhook-without-a-trap.md.

pub mod certs;
pub mod convert;
mod keeper;
pub mod objects;
pub mod registration;
pub mod review;
mod server;
mod validity;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use keeper::now;
pub use keeper::{Certificates, KeeperError};
pub use registration::{Policy, Service};

use crate::http::Metrics;
use crate::http::listener::{TlsListener, bind};
use crate::http::tls::TlsSettings;
use crate::owner::Owner;

/// How long a stop waits for the policy to be lowered.
const GOODBYE: Duration = Duration::from_secs(2);

/// How the webhook runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub address: SocketAddr,
    /// The Service in front of it.
    pub service: Service,
    /// Where certificates come from.
    pub certificates: Certificates,
    /// The failure policy once the API server is known to reach us.
    pub policy: Policy,
    /// What is spoken.
    pub tls: TlsSettings,
    /// Who owns the Secret that is made, so that it goes with them.
    pub owner: Owner,
    /// `METALLB_BGP_TYPE=native`.
    pub native_bgp: bool,
}

/// Why the webhook does not serve.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The port is taken.
    #[error(
        "cannot listen on {address} for the webhook; choose another with --webhook-port, \
         or none with --webhook-mode disabled"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The TLS settings do not fit together.
    #[error("TLS settings cannot be used")]
    Tls(#[from] rustls::Error),
}

/// A webhook that serves until it is dropped.
pub struct Webhook {
    keeping: JoinSet<()>,
    serving: JoinSet<()>,
    goodbye: keeper::Keeper,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

impl Webhook {
    /// Listens and serves.
    pub async fn start(
        client: Client,
        options: Options,
        metrics: &Metrics,
    ) -> Result<Self, WebhookError> {
        let address = options.address;
        let listen = |source| WebhookError::Listen { address, source };
        let tcp = bind(address).await.map_err(listen)?;
        let (serve, certificate) = watch::channel(None);
        let tls = options.tls.server_config(certificate)?;
        let listener = TlsListener::new(tcp, tls).map_err(listen)?;
        let rules = review::Rules {
            namespace: options.service.namespace.clone(),
            native_bgp: options.native_bgp,
        };
        let router = server::router(client.clone(), rules, metrics.webhook_requests.clone());
        let keeper = |serve| keeper::Keeper {
            client: client.clone(),
            service: options.service.clone(),
            certificates: options.certificates.clone(),
            wanted: options.policy,
            owner: options.owner.clone(),
            serve,
            trusted: Vec::new(),
            served: Vec::new(),
        };
        let (mut keeping, mut serving) = (JoinSet::new(), JoinSet::new());
        let (unused, _) = watch::channel(None);
        let goodbye = keeper(unused);
        keeping.spawn(keeper(serve).run());
        serving.spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the webhook's server ended");
            }
        });
        tracing::info!(%address, service = options.service.name, "webhook listening");
        Ok(Self {
            keeping,
            serving,
            goodbye,
        })
    }

    /// A planned stop: first the API server is told not to insist on us, then nobody is served.
    pub async fn stop(mut self) {
        self.keeping.shutdown().await;
        match tokio::time::timeout(GOODBYE, self.goodbye.withdraw()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the webhook's failure policy was not lowered"
            ),
            Err(_) => tracing::warn!("the webhook's failure policy was not lowered in {GOODBYE:?}"),
        }
        self.serving.shutdown().await;
    }
}
