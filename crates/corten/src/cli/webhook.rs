//! Flags of the webhook (`spec/metallb.md` §6.1).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use clap::{Args, ValueEnum};

use super::serving::{go_bool, unused};
use crate::http::tls::TlsSettings;
use crate::owner::Owner;
use crate::webhook::{Certificates, Options, Policy, Service};

/// `--webhook-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// Webhook and controller.
    Enabled,
    /// No webhook.
    Disabled,
    /// The webhook alone: no addresses are given.
    Onlywebhook,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Flags {
    /// Whether to serve the webhook, and whether nothing else.
    #[arg(long, value_enum, default_value = "enabled")]
    pub(super) webhook_mode: Mode,
    /// Port of the webhook.
    #[arg(long, default_value_t = 9443)]
    webhook_port: u16,
    /// What the API server does with objects while it cannot reach the webhook. Fail is set only
    /// once it is known to reach it.
    #[arg(long, value_enum, default_value = "Fail")]
    webhook_failure_policy: Policy,
    /// Secret with the webhook's certificates.
    #[arg(long, default_value = "metallb-webhook-cert")]
    webhook_secret: String,
    /// Service in front of the webhook.
    #[arg(long, default_value = "metallb-webhook-service")]
    cert_service_name: String,
    /// Do not make certificates: take those in --cert-dir, and leave it to their maker to write
    /// the caBundle into metallb-webhook-configuration (and into the CRD of BGPPeer).
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", value_parser = go_bool)]
    disable_cert_rotation: bool,
    /// Directory with tls.crt and tls.key, for --disable-cert-rotation; read again every 10 s.
    #[arg(long, default_value = "/tmp/k8s-webhook-server/serving-certs")]
    cert_dir: String,
    #[arg(long, hide = true, action = clap::ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value = "false", default_missing_value = "true",
        value_parser = go_bool)]
    webhook_http2: bool,
}

impl Flags {
    /// The webhook's options, unless it is off.
    pub(super) fn options(
        &self,
        namespace: &str,
        tls: TlsSettings,
        owner: Owner,
        native_bgp: bool,
    ) -> Option<Options> {
        if self.webhook_http2 {
            unused(&[(
                "--webhook-http2",
                "true",
                "HTTP/1.1 serves the API server as well",
            )]);
        }
        (self.webhook_mode != Mode::Disabled).then(|| Options {
            address: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), self.webhook_port),
            service: Service {
                name: self.cert_service_name.clone(),
                namespace: namespace.to_owned(),
            },
            certificates: match self.disable_cert_rotation {
                true => Certificates::Given((&self.cert_dir).into()),
                false => Certificates::Own {
                    secret: self.webhook_secret.clone(),
                },
            },
            policy: self.webhook_failure_policy,
            tls,
            owner,
            native_bgp,
        })
    }
}
