//! `corten controller`

use std::process;
use std::time::Duration;

use plan::world::Settings;
use tokio::sync::watch;

use super::metallb::Controller as Compatible;
use super::serving::{Probes, Serving};
use super::webhook::{Flags as WebhookFlags, Mode};
use super::{Cluster, Common, Failure, cluster, host, runtime, stopped};
use crate::backoff::Backoff;
use crate::controller::{self, Candidacy, Deadline, candidacy, elector};
use crate::http::Metrics;
use crate::member_secret;
use crate::obstacles;
use crate::owner::Owner;
use crate::removal::Settled;
use crate::sink::board::Board;
use crate::sink::kube::KubeSink;
use crate::source::kube::{KubeSource, Role};
use crate::status::Health;
use crate::webhook::Webhook;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    cluster: Cluster,
    /// This replica's name in the Lease; the default is the host's name and the process number.
    #[arg(long, env = "METALLB_POD_NAME")]
    pod_name: Option<String>,
    #[command(flatten)]
    serving: Serving,
    #[command(flatten)]
    webhook: WebhookFlags,
    #[command(flatten)]
    compatible: Compatible,
}

impl Options {
    fn settings(&self) -> Settings {
        Settings {
            native_bgp: self.compatible.both.native_bgp(),
            ..self.common.settings()
        }
    }
}

pub(super) fn main(options: Options) -> Result<(), Failure> {
    runtime()?.block_on(async {
        options.compatible.tell();
        let tls = options.serving.tls()?;
        let client = cluster::connect(&options.cluster).await?;
        let namespace = &options.common.namespace;
        let native_bgp = options.compatible.both.native_bgp();
        let metrics = Metrics::new()?;
        let owner = Owner::new(&client, namespace, &options.compatible.deployment);
        let webhook = options
            .webhook
            .options(namespace, tls, owner.clone(), native_bgp);
        let webhook = match webhook {
            Some(webhook) => Some(Webhook::start(client.clone(), webhook, &metrics).await?),
            None => None,
        };
        let identity = match &options.pod_name {
            Some(name) => name.clone(),
            None => format!("{}-{}", host::name()?, process::id()),
        };
        let health = Health::default();
        let serve = options.serving.serve(
            &options.common,
            client.clone(),
            Probes::Pod,
            health.clone(),
            metrics.clone(),
        );
        if options.webhook.webhook_mode == Mode::Onlywebhook {
            // Nothing to wait for: it is ready as soon as it serves.
            health.set_standby(true);
            let ended = tokio::select! {
                ended = serve => ended,
                signal = stopped() => signal.map(|signal| tracing::info!(signal, "stopping")),
            };
            stop(webhook).await;
            return ended;
        }
        make_member_secret(&options, &client, owner.clone());
        if let Some(pod) = options.pod_name.clone().filter(|pod| !pod.is_empty()) {
            let namespace = namespace.clone();
            tokio::spawn(obstacles::tell(
                client.clone(),
                namespace,
                pod,
                health.clone(),
            ));
        }
        let (candidacy_in, candidacy) = watch::channel(Candidacy::Unknown);
        tokio::spawn(candidacy::follow(
            client.clone(),
            namespace.clone(),
            health.clone(),
            metrics.clone(),
            candidacy_in,
        ));
        let (deadline, leads_until) = watch::channel(Deadline::Withdrawn);
        let elector = tokio::spawn(elector::run(
            client.clone(),
            options.common.namespace.clone(),
            identity.clone(),
            owner,
            candidacy.clone(),
            deadline,
        ));
        let mut known = candidacy.clone();
        let lead = async {
            // Before, nothing says that this replica could take over.
            let known = known.wait_for(|it| *it != Candidacy::Unknown).await.is_ok();
            if known {
                lead(&options, client, &identity, leads_until, health, metrics).await;
            }
        };
        let ended = tokio::select! {
            ended = serve => ended,
            () = lead => Err("the elector ended".into()),
            signal = stopped() => {
                tracing::info!(signal = signal?, "stopping");
                Ok(())
            }
        };
        // Nobody listens to the elector any more: it gives the lease back and ends.
        elector.await?;
        stop(webhook).await;
        ended
    })
}

async fn stop(webhook: Option<Webhook>) {
    if let Some(webhook) = webhook {
        webhook.stop().await;
    }
}

/// The agents' Secret, where one is asked for; allocation does not wait for it.
fn make_member_secret(options: &Options, client: &kube::Client, owner: Owner) {
    let name = options.compatible.ml_secret_name.clone();
    if name.is_empty() {
        return;
    }
    let (client, namespace) = (client.clone(), options.common.namespace.clone());
    tokio::spawn(async move {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        while let Err(error) =
            member_secret::ensure(client.clone(), &namespace, &name, &owner).await
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the agents' Secret was not made; trying again"
            );
            tokio::time::sleep(backoff.next()).await;
        }
    });
}

/// For ever: each time this replica leads, runs a term.
async fn lead(
    options: &Options,
    client: kube::Client,
    identity: &str,
    mut leads_until: watch::Receiver<Deadline>,
    health: Health,
    metrics: Metrics,
) {
    loop {
        health.set_standby(true);
        if leads_until
            .wait_for(|deadline| *deadline != Deadline::Withdrawn)
            .await
            .is_err()
        {
            return;
        }
        health.set_standby(false);
        let source = KubeSource::new(client.clone(), &options.common.namespace, Role::Controller)
            .telling(&health);
        let source = Settled::new(
            source,
            &client,
            &options.common.namespace,
            &options.compatible.deployment,
            &health,
        );
        let board = Board::new(
            client.clone(),
            &options.common.namespace,
            options.pod_name.as_deref(),
        );
        let sink = KubeSink::new(client.clone(), identity, &options.common.namespace).on(board);
        let settings: Settings = options.settings();
        controller::term(
            source,
            sink,
            settings,
            leads_until.clone(),
            health.clone(),
            metrics.clone(),
        )
        .await;
    }
}
