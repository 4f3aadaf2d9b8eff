//! Flags of the HTTP servers, as MetalLB has them (`spec/metallb.md` §6.1), and the servers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use kube::Client;

use super::{Common, Failure, host};
use crate::http::access::Guard;
use crate::http::tls::{TlsFlagError, TlsSettings};
use crate::http::{self, METRICS, Metrics, certificate};
use crate::status::Health;

/// Where a process in a cluster serves metrics and probes.
#[derive(Clone, Debug, Args)]
pub(super) struct Serving {
    /// Port of /metrics (HTTPS, for tokens that may get the nonResourceURL /metrics); 0: none.
    #[arg(long, default_value_t = 9120)]
    port: u16,
    /// Port of /healthz and /readyz (plain HTTP); 0: none.
    #[arg(long, default_value_t = 17472)]
    health_probe_port: u16,
    /// Serve /metrics to everybody who reaches the port, in plain HTTP.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", value_parser = go_bool)]
    metrics_plain_http: bool,
    /// Directory with tls.crt and tls.key for /metrics; without it, a certificate of its own.
    #[arg(
        long,
        default_value = "",
        value_name = "DIR",
        hide_default_value = true
    )]
    metrics_cert_dir: String,
    #[command(flatten)]
    tls: Tls,
}

/// What TLS servers speak.
#[derive(Clone, Debug, Args)]
pub(super) struct Tls {
    /// Oldest version of TLS: VersionTLS12 or VersionTLS13.
    #[arg(long, default_value = "VersionTLS13")]
    tls_min_version: String,
    /// Cipher suites for TLS 1.2, Go's names, with commas; empty: all good ones.
    #[arg(long, default_value = "", hide_default_value = true)]
    tls_cipher_suites: String,
    /// Curves, Go's numbers, with commas; empty: all good ones.
    #[arg(long, default_value = "", hide_default_value = true)]
    tls_curve_preferences: String,
}

impl Tls {
    /// The settings; what had no effect is logged.
    pub(super) fn settings(&self) -> Result<TlsSettings, TlsFlagError> {
        let settings = TlsSettings::from_flags(
            &self.tls_min_version,
            &self.tls_cipher_suites,
            &self.tls_curve_preferences,
        )?;
        for note in &settings.notes {
            tracing::warn!("{note}");
        }
        Ok(settings)
    }
}

/// From where probes come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probes {
    /// From the kubelet to the Pod's own address.
    Pod,
    /// From the kubelet on this host, whose network the Pod has.
    Host,
}

impl Serving {
    /// Where probes and metrics are served on a host.
    pub(super) fn on_host(&self) -> [SocketAddr; 2] {
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        [
            SocketAddr::new(any, self.port),
            SocketAddr::new(loopback, self.health_probe_port),
        ]
    }

    /// TLS settings for every server of the process.
    pub(super) fn tls(&self) -> Result<TlsSettings, TlsFlagError> {
        self.tls.settings()
    }

    /// Serves until the process ends.
    pub(super) async fn serve(
        &self,
        common: &Common,
        client: Client,
        probes: Probes,
        health: Health,
        metrics: Metrics,
    ) -> Result<(), Failure> {
        if common.no_http || common.http_address.is_some() {
            return common.serve(health, metrics).await;
        }
        let everywhere = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let from = match probes {
            Probes::Pod => everywhere,
            Probes::Host => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let for_metrics = self.serve_metrics(everywhere, client, health.clone(), metrics);
        let for_probes = async {
            if self.health_probe_port == 0 {
                std::future::pending::<()>().await;
            }
            let address = SocketAddr::new(from, self.health_probe_port);
            http::serve_probes(address, health).await?;
            Ok(())
        };
        tokio::select! {
            ended = for_probes => ended,
            ended = for_metrics => ended,
        }
    }

    async fn serve_metrics(
        &self,
        from: IpAddr,
        client: Client,
        health: Health,
        metrics: Metrics,
    ) -> Result<(), Failure> {
        let address = SocketAddr::new(from, self.port);
        if self.port == 0 {
            std::future::pending::<()>().await;
        }
        if self.metrics_plain_http {
            http::serve_plain_metrics(address, health, metrics).await?;
            return Ok(());
        }
        let dir = (!self.metrics_cert_dir.is_empty()).then(|| Path::new(&self.metrics_cert_dir));
        let certificate = certificate::current(dir, &[host::name()?])?;
        let guard = Guard::new(client, METRICS);
        http::serve_metrics_securely(address, metrics, guard, &self.tls()?, certificate).await?;
        Ok(())
    }
}

/// A bool as Go's flags take it: alone, or `=true`, `=false` and their kin.
pub(super) fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("give true or false".to_owned()),
    }
}

/// The namespace of the Pod that we run in.
pub(super) fn own_namespace() -> String {
    let file = PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount/namespace");
    match std::fs::read_to_string(file) {
        Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "metallb-system".to_owned(),
    }
}

/// Says which flags and variables were accepted without effect.
pub(super) fn unused(given: &[(&str, &str, &str)]) {
    for (name, value, why) in given {
        if !value.is_empty() {
            tracing::info!("{name} {value} is accepted and has no effect: {why}");
        }
    }
}
