//! The command line: one module per command; each parses, builds and runs.
//!
//! Exit codes: 0 done, 1 failed (with what, where and what to do on stderr), 2 wrong usage.

mod agent;
mod bgp;
mod check;
mod cilium;
mod cluster;
mod conntrack;
mod controller;
mod crds;
mod drain;
mod forward;
mod host;
mod kube_proxy;
mod l2;
mod metallb;
mod nodes;
mod probe;
mod proxying;
mod run;
mod serving;
mod sysctl;
mod table;
mod uninstall;
mod webhook;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use plan::world::Settings;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::http::{self, Metrics};
use crate::log::{self, Level};
use crate::status::Health;

/// Addresses for LoadBalancer Services on your own hardware.
#[derive(Debug, Parser)]
#[command(name = "corten", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How much to log, on stderr.
    #[arg(long, global = true, value_enum, default_value = "info")]
    log_level: Level,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Give Services their addresses (in a cluster; any number of replicas, one leads).
    Controller(Box<controller::Options>),
    /// Announce and forward addresses on this node.
    Agent(Box<agent::Options>),
    /// Do both on a host without a cluster, from a directory of manifests.
    Run(Box<run::Options>),
    /// Judge manifests offline: exit 0 when all are good, 1 when not.
    Check(check::Options),
    /// Print the custom resource definitions as YAML, for `kubectl apply -f -`.
    Crds(crds::Options),
    /// Show the BGP sessions of all nodes: with whom, whether they are up, and if not, why.
    Bgp(bgp::Options),
    /// Show which node has which address in layer 2, why, and who is next; of one that nobody has, why.
    L2(l2::Options),
    /// Have a node give away what it announces, before it is taken down: no new connection is lost.
    Drain(drain::Options),
    /// Show whose rules forward Services on this node; take away what kube-proxy has left there.
    Forward(forward::Options),
    /// Ask the agent in this container whether it has started; exit 0 when it has.
    Probe(probe::Options),
    /// Set kernel settings and end: what nodes that forward need.
    Sysctl(sysctl::Options),
    /// After Corten was removed from a cluster: take the addresses from its Services.
    Uninstall(uninstall::Options),
}

/// Options of every long-running command.
#[derive(Clone, Debug, Args)]
struct Common {
    /// The namespace that configuration objects live in.
    #[arg(long, env = "METALLB_NAMESPACE", default_value_t = serving::own_namespace())]
    namespace: String,
    /// Serve only Services of this spec.loadBalancerClass; without it, only Services of none.
    #[arg(long)]
    lb_class: Option<String>,
    /// Serve /healthz, /readyz and /metrics together, in plain HTTP, on this address [default
    /// without a cluster: 127.0.0.1:17472].
    #[arg(long)]
    http_address: Option<SocketAddr>,
    /// Serve neither health nor metrics.
    #[arg(long, conflicts_with = "http_address")]
    no_http: bool,
}

/// Where everything is served without a cluster.
const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 17472);

impl Common {
    fn settings(&self) -> Settings {
        Settings {
            namespace: self.namespace.as_str().into(),
            lb_class: self
                .lb_class
                .as_deref()
                .filter(|class| !class.is_empty())
                .map(Into::into),
            ignore_exclude_label: false,
            native_bgp: false,
        }
    }

    /// Serves health and metrics together, or waits for ever when that is not wanted.
    async fn serve(&self, health: Health, metrics: Metrics) -> Result<(), Failure> {
        if self.no_http {
            std::future::pending::<()>().await;
        }
        http::serve(self.http_address.unwrap_or(LOOPBACK), health, metrics).await?;
        Ok(())
    }
}

/// How to reach a cluster.
#[derive(Clone, Debug, Default, Args)]
struct Cluster {
    /// Kubeconfig file; without it $KUBECONFIG, ~/.kube/config or the Pod's service account.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// URL of the API server, where the Service address of Kubernetes cannot be used (an agent
    /// that forwards Service addresses itself).
    #[arg(long, alias = "master")]
    api_server: Option<String>,
}

/// `--forward`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Forward {
    /// Leave it to another program (kube-proxy).
    Off,
    /// External addresses only, beside kube-proxy.
    Vips,
    /// Cluster addresses as well, in kube-proxy's place.
    All,
}

impl From<Forward> for plan::forward::Mode {
    fn from(forward: Forward) -> Self {
        match forward {
            Forward::Off => Self::Off,
            Forward::Vips => Self::Vips,
            Forward::All => Self::All,
        }
    }
}

/// Everything a command can fail with, as its chain of causes says it.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log::init(cli.log_level);
    let result = match cli.command {
        Command::Controller(options) => controller::main(*options),
        Command::Agent(options) => agent::main(*options),
        Command::Run(options) => run::main(*options),
        Command::Check(options) => return check::main(&options),
        Command::Crds(options) => crds::main(&options),
        Command::Bgp(options) => bgp::main(&options),
        Command::L2(options) => l2::main(&options),
        Command::Drain(options) => drain::main(&options),
        Command::Forward(options) => forward::main(&options),
        Command::Probe(options) => probe::main(&options),
        Command::Sysctl(options) => sysctl::main(&options),
        Command::Uninstall(options) => uninstall::main(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corten: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A runtime for the shell: one thread does, as no task computes for long.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// SIGTERM and SIGINT, noticed from the moment this is made: a stop during the start is one too.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Completes on one of them.
    async fn stop(mut self) {
        let signal = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal, "stopping");
    }
}

/// Completes on SIGTERM or SIGINT.
async fn stopped() -> Result<&'static str, Failure> {
    let mut signals = Signals::listen()?;
    Ok(tokio::select! {
        _ = signals.terminate.recv() => "SIGTERM",
        _ = signals.interrupt.recv() => "SIGINT",
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    /// What several modules flatten into one command may clash, which shows only at run time.
    #[test]
    fn the_flags_of_every_command_agree() {
        Cli::command().debug_assert();
    }

    /// The flags whose help says what an empty value means.
    #[test]
    fn empty_values_are_taken() {
        for flag in [
            "--keep-in=",
            "--healthz-bind-address=",
            "--metrics-bind-address=",
            "--daemonset=",
        ] {
            let parsed = Cli::command().try_get_matches_from(["corten", "agent", flag]);
            assert!(
                parsed.is_ok(),
                "{flag}: {}",
                parsed.err().map_or_else(String::new, |e| e.to_string())
            );
        }
    }
}
