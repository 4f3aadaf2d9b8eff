//! `corten controller`

use std::process;

use plan::world::Settings;
use tokio::sync::watch;

use super::{Cluster, Common, Failure, cluster, host, runtime, stopped};
use crate::controller::{self, Deadline, elector};
use crate::http::Metrics;
use crate::sink::kube::KubeSink;
use crate::source::kube::{KubeSource, Role};
use crate::status::Health;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    cluster: Cluster,
    /// This replica's name in the Lease; the default is the host's name and the process number.
    #[arg(long, env = "METALLB_POD_NAME")]
    pod_name: Option<String>,
}

pub(super) fn main(options: Options) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let client = cluster::connect(&options.cluster).await?;
        let identity = match &options.pod_name {
            Some(name) => name.clone(),
            None => format!("{}-{}", host::name()?, process::id()),
        };
        let health = Health::default();
        let metrics = Metrics::new()?;
        let (deadline, leads_until) = watch::channel(Deadline::Withdrawn);
        let elector = tokio::spawn(elector::run(
            client.clone(),
            options.common.namespace.clone(),
            identity.clone(),
            deadline,
        ));
        let serve = options.common.serve(health.clone(), metrics.clone());
        let lead = lead(&options, client, &identity, leads_until, health, metrics);
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
        ended
    })
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
        let source = KubeSource::new(client.clone(), &options.common.namespace, Role::Controller);
        let sink = KubeSink::new(client.clone(), identity);
        let settings: Settings = options.common.settings();
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
