//! `corten agent`

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use plan::desired::Agent;
use plan::forward::Mode;
use plan::world::Event;
use proto::member::Profile;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::conntrack::Conntrack;
use super::metallb::Speaker as Compatible;
use super::proxying::Proxying;
use super::serving::{Probes, Serving, go_bool};
use super::{
    Cluster, Common, Failure, Forward, Signals, chain, cluster, host, kube_proxy, runtime,
};
use crate::agent::exclude::Exclude;
use crate::agent::forward::BackEnd;
use crate::agent::reply::{Choice, Chosen, Mask};
use crate::agent::succession::{self, Alone, Begun, Turn};
use crate::agent::{self, AgentError, Config, Ending};
use crate::http::Metrics;
use crate::kept::Keeping;
use crate::nodes;
use crate::obstacles;
use crate::probe::Door;
use crate::removal::Removal;
use crate::sink::Sink;
use crate::sink::board::Board;
use crate::sink::dir::DirSink;
use crate::sink::kube::KubeSink;
use crate::source::dir::DirSource;
use crate::source::kube::{KubeSource, Role};
use crate::source::{Source, Stopped};
use crate::status::Health;

/// Between two looks at a host that lacks something.
const LOOK: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    node: Node,
    /// This agent's Pod: it owns the objects that the agent puts up, which go with it.
    #[arg(long, env = "METALLB_POD_NAME")]
    pod_name: Option<String>,
    /// This agent's Pod: `corten probe` finds it by that.
    #[arg(long, env = "CORTEN_POD_UID")]
    pod_uid: Option<String>,
    /// The DaemonSet that this agent is of: only when that, or its namespace, is deleted does the
    /// agent remove at its end what it keeps in the kernel.
    #[arg(long, default_value = "", hide_default_value = true)]
    daemonset: String,
    /// Keep what is known in this folder, which should be memory-backed: an agent that restarts
    /// while the API server is away goes on from it; empty: keep nothing.
    // clap's own parser of paths refuses an empty one.
    #[arg(long, default_value = "/run/corten", value_name = "FOLDER",
        value_parser = OsStringValueParser::new().map(PathBuf::from))]
    keep_in: PathBuf,
    /// Read manifests and allocations from this directory instead of a cluster.
    #[arg(long, conflicts_with_all = ["kubeconfig", "api_server"])]
    dir: Option<PathBuf>,
    /// What to forward [default: off in a cluster, all with --dir].
    #[arg(long, value_enum)]
    forward: Option<Forward>,
    #[command(flatten)]
    serving: Serving,
    #[command(flatten)]
    compatible: Compatible,
}

/// Options of the agent's node.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Node {
    /// This node's name as its Node object has it [default: the host's name].
    #[arg(long, alias = "hostname-override", env = "METALLB_NODE_NAME")]
    node_name: Option<String>,
    /// UDP port of failure detection; equal on all nodes.
    #[arg(long, default_value_t = 7949)]
    member_port: u16,
    /// How fast a node's death is found: within 115 ms, 45 ms (at three times the cost), or 1.1 s
    /// for busy machines and wide networks; equal on all nodes.
    #[arg(
        long,
        value_enum,
        env = "CORTEN_MEMBER_PROFILE",
        default_value = "default"
    )]
    member_profile: MemberProfile,
    /// File with the secret that authenticates beats, or the directory where the Secret is mounted;
    /// equal on all nodes.
    #[arg(long, alias = "ml-secret-key-path", env = "METALLB_ML_SECRET_KEY_PATH")]
    member_key_file: Option<PathBuf>,
    /// Where /healthz and /livez of the service proxy are served with --forward all, as kube-proxy
    /// does; empty: nowhere [default: 0.0.0.0:10256 in a cluster, nowhere with a directory].
    #[arg(long, value_name = "ADDRESS:PORT")]
    healthz_bind_address: Option<String>,
    /// Replies to what comes in by these interfaces leave by them, whatever the routes: names,
    /// PREFIX* for all that could be announced on, or INTERFACE=GATEWAY where no default route
    /// leads over it (once for each family).
    #[arg(long, value_name = "INTERFACE[=GATEWAY]", value_delimiter = ',')]
    reply_by_ingress: Vec<Chosen>,
    /// One to four neighbouring bits of connections' and packets' marks, for --reply-by-ingress,
    /// that nothing else on the nodes uses.
    #[arg(long, value_name = "BITS", default_value = "0xf000000")]
    reply_mark_mask: Mask,
    /// Take part in elections also where the Node bears the label
    /// node.kubernetes.io/exclude-from-external-load-balancers.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", value_parser = go_bool)]
    ignore_exclude_lb: bool,
    /// File with the names of interfaces that layer 2 never uses, as MetalLB has it
    /// (announcedInterfacesToExclude: a list of regular expressions); without the file MetalLB's own
    /// list holds; empty: all interfaces are used.
    #[arg(
        long,
        default_value = "/etc/metallb/excludel2.yaml",
        value_name = "FILE"
    )]
    exclude_l2_file: PathBuf,
    /// Where kube-proxy's metrics, /proxyMode and /configz are served with --forward all, to everybody who
    /// reaches it; empty: nowhere [default: 127.0.0.1:10249 in a cluster, nowhere with a directory].
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_bind_address: Option<String>,
    #[command(flatten)]
    proxying: Proxying,
    #[command(flatten)]
    conntrack: Conntrack,
}

/// `--member-profile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum MemberProfile {
    Default,
    Fast,
    Slow,
}

impl From<MemberProfile> for Profile {
    fn from(profile: MemberProfile) -> Self {
        match profile {
            MemberProfile::Default => Self::DEFAULT,
            MemberProfile::Fast => Self::FAST,
            MemberProfile::Slow => Self::SLOW,
        }
    }
}

impl Node {
    /// What balances, where something is forwarded.
    pub(super) fn back_end(&self, mode: Mode) -> Result<Option<BackEnd>, Failure> {
        let back_end = self.proxying.back_end(mode)?;
        Ok((mode != Mode::Off).then_some(back_end))
    }

    /// The agent's configuration.
    pub(super) fn config(
        &self,
        common: &Common,
        mode: Mode,
        dir: Option<&Path>,
    ) -> Result<Config, Failure> {
        let node = match &self.node_name {
            Some(name) => name.clone(),
            None => host::name()?,
        };
        let mut settings = common.settings();
        settings.ignore_exclude_label = self.ignore_exclude_lb;
        let is_cluster = dir.is_none();
        let healthz = bind(
            "--healthz-bind-address",
            self.healthz_bind_address.as_deref(),
            is_cluster.then_some(SocketAddr::from(([0; 4], HEALTHZ))),
            HEALTHZ,
        )?;
        let proxy_metrics = bind(
            "--metrics-bind-address",
            self.metrics_bind_address.as_deref(),
            is_cluster.then_some(SocketAddr::from(([127, 0, 0, 1], METRICS))),
            METRICS,
        )?;
        let proxy_configuration = self.configz(&node, healthz, proxy_metrics);
        // In a cluster the API tells; a file that cannot be read is mended by the next one.
        let before = dir.and_then(|dir| nodes::load(dir).ok()?.remove(&node));
        Ok(Config {
            before,
            agent: Agent {
                node: node.into(),
                mode,
                sources: self.proxying.sources()?,
                node_ports: self.proxying.node_ports()?,
            },
            back_end: self.proxying.back_end(mode)?,
            settings,
            member_port: self.member_port,
            member_profile: self.member_profile.into(),
            exclude: self.exclude(),
            reply: Choice {
                interfaces: self.reply_by_ingress.clone(),
                mask: self.reply_mark_mask,
                ..Choice::default()
            },
            healthz,
            proxy_metrics,
            proxy_configuration,
            member_key: self
                .member_key_file
                .as_ref()
                .map(|path| match path.is_dir() {
                    true => path.join(crate::member_secret::KEY),
                    false => path.clone(),
                }),
        })
    }
}

impl Node {
    /// What kube-proxy's `/configz` tells: this proxy's settings by the names of
    /// KubeProxyConfiguration, and no others; and whose they are.
    fn configz(
        &self,
        node: &str,
        healthz: Option<SocketAddr>,
        metrics: Option<SocketAddr>,
    ) -> serde_json::Value {
        let address = |at: Option<SocketAddr>| at.map(|at| at.to_string()).unwrap_or_default();
        let mut configuration = self.proxying.configuration();
        configuration["apiVersion"] = "kubeproxy.config.k8s.io/v1alpha1".into();
        configuration["kind"] = "KubeProxyConfiguration".into();
        configuration["hostnameOverride"] = node.into();
        configuration["healthzBindAddress"] = address(healthz).into();
        configuration["metricsBindAddress"] = address(metrics).into();
        configuration["conntrack"] = self.conntrack.configuration();
        let own = serde_json::json!({"version": env!("CARGO_PKG_VERSION")});
        serde_json::json!({kube_proxy::GROUP: configuration, kube_proxy::OWN: own})
    }
}

impl Node {
    /// Where this agent is the node's service proxy, the kernel's connection tracking is made as
    /// kube-proxy makes it. What cannot be is told, and changes nothing else.
    pub(super) fn track(&self, mode: Mode, health: &Health) {
        if mode == Mode::All {
            let failed = self.conntrack.apply();
            let words = format!("connection tracking: {}", failed.join("; "));
            health.set_obstacle("conntrack", (!failed.is_empty()).then_some(words));
        }
    }
}

/// kube-proxy's ports.
const HEALTHZ: u16 = 10256;
const METRICS: u16 = 10249;

/// Where a flag says to listen. As with kube-proxy, an address without a port has the usual one.
fn bind(
    flag: &str,
    text: Option<&str>,
    default: Option<SocketAddr>,
    port: u16,
) -> Result<Option<SocketAddr>, Failure> {
    let Some(text) = text else {
        return Ok(default);
    };
    if text.is_empty() {
        return Ok(None);
    }
    let address = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port));
    match address.or_else(|_| text.parse()) {
        Ok(address) => Ok(Some(address)),
        Err(_) => {
            Err(format!("{flag} {text:?} is no address with a port, like [::]:{port}").into())
        }
    }
}

impl Node {
    /// A list that cannot be used does not keep the node from its work: MetalLB's own holds.
    fn exclude(&self) -> Exclude {
        if self.exclude_l2_file.as_os_str().is_empty() {
            return Exclude::nothing();
        }
        Exclude::read(&self.exclude_l2_file).unwrap_or_else(|error| {
            let remedy = "mend it and start the agent anew; until then MetalLB's own list holds";
            tracing::error!(error = chain(&error), remedy, "no list of interfaces");
            Exclude::default()
        })
    }
}

pub(super) fn main(options: Options) -> Result<(), Failure> {
    let default = if options.dir.is_some() {
        Forward::All
    } else {
        Forward::Off
    };
    let mode = Mode::from(options.forward.unwrap_or(default));
    let forwards = options.node.back_end(mode)?;
    if let Some(dir) = &options.dir {
        host::check_directory(dir)?;
        host::check_agent(mode, forwards)?;
    }
    runtime()?.block_on(async {
        let stop = Signals::listen()?.stop();
        let mut config = options
            .node
            .config(&options.common, mode, options.dir.as_deref())?;
        config.settings.native_bgp = options.compatible.both.native_bgp();
        options.compatible.tell();
        let health = Health::default();
        let metrics = Metrics::new()?;
        match &options.dir {
            Some(dir) => {
                let _place = Alone::take().await?;
                options.node.track(mode, &health);
                // A damaged state file is refused here, before anything is announced.
                let sink = DirSink::open(dir)?;
                let source = DirSource::new(dir, &options.common.namespace);
                let serve = options.common.serve(health.clone(), metrics.clone());
                let ending = Ending::default();
                run(serve, config, source, sink, health, metrics, stop, ending).await
            }
            None => {
                // Before anything that takes time: its predecessor may be stopped at any moment.
                let turn = Turn::queue(&health).await?;
                let mut stop = pin!(stop);
                let pod = options.pod_uid.as_deref().filter(|uid| !uid.is_empty());
                let door = pod.map(|uid| Door::open(uid, health.clone())).transpose()?;
                let client = cluster::client(&options.cluster).await?;
                // An agent need not wait for the API server: what it knew is kept.
                let (answered, asked) = oneshot::channel();
                let checked = {
                    let client = client.clone();
                    tokio::spawn(async move {
                        let version = cluster::check(&client).await?;
                        tracing::info!(version, "connected");
                        let _ = answered.send(());
                        Ok::<(), Failure>(())
                    })
                };
                let source =
                    KubeSource::new(client.clone(), &options.common.namespace, Role::Agent)
                        .of_proxy(mode == Mode::All)
                        .telling(&health);
                let source = After(asked, source);
                let board = Board::new(
                    client.clone(),
                    &options.common.namespace,
                    options.pod_name.as_deref(),
                );
                let sink = KubeSink::new(
                    client.clone(),
                    &config.agent.node,
                    &options.common.namespace,
                )
                .on(board);
                let watched = client.clone();
                let serve = || {
                    options.serving.serve(
                        &options.common,
                        client.clone(),
                        Probes::Host,
                        health.clone(),
                        metrics.clone(),
                    )
                };
                if let Some(pod) = options.pod_name.clone().filter(|pod| !pod.is_empty()) {
                    let namespace = options.common.namespace.clone();
                    tokio::spawn(obstacles::tell(
                        watched.clone(),
                        namespace,
                        pod,
                        health.clone(),
                    ));
                }
                tokio::select! {
                    fit = fit(mode, forwards, &health, serve()) => fit?,
                    () = &mut stop => return Ok(()),
                }
                let kept = Some(&options.keep_in).filter(|it| !it.as_os_str().is_empty());
                let mut begun = match kept {
                    Some(folder) => Begun::start(Keeping::new(source, folder, &health)),
                    None => Begun::start(source),
                };
                let place = tokio::select! {
                    place = turn.take(&mut begun, &health) => place?,
                    () = &mut stop => return Ok(()),
                };
                options.node.track(mode, &health);
                // Also where none is followed: one that has given up its place may be ending still.
                let member = (Ipv6Addr::UNSPECIFIED, options.node.member_port).into();
                succession::ports_free(&options.serving.on_host(), &[member]).await;
                if let Some(door) = &door {
                    door.serves();
                }
                let removal = (!options.daemonset.is_empty()).then(|| {
                    Removal::watch(&watched, &options.common.namespace, &options.daemonset)
                });
                let ending = Ending {
                    place: Some(place),
                    removal,
                    kept: kept.cloned(),
                };
                let serve = async {
                    tokio::select! {
                        ended = serve() => ended,
                        unfit = unfit(checked) => Err(unfit),
                    }
                };
                let (health, metrics) = (health.clone(), metrics.clone());
                run(serve, config, begun, sink, health, metrics, stop, ending).await
            }
        }
    })
}

/// A source that begins once the API server has answered.
struct After(oneshot::Receiver<()>, KubeSource);

impl Source for After {
    async fn run(self, out: mpsc::Sender<Event>) -> Stopped {
        if self.0.await.is_err() {
            // The server is no good, and the process ends for that.
            out.closed().await;
            return Stopped;
        }
        self.1.run(out).await
    }
}

/// Completes when the API server is found to be no good.
async fn unfit(checked: JoinHandle<Result<(), Failure>>) -> Failure {
    match checked.await {
        Ok(Ok(())) => std::future::pending().await,
        Ok(Err(failure)) => failure,
        Err(error) => error.into(),
    }
}

/// Waits until this host offers what an agent needs. Meanwhile it says what is missing, in log, event
/// and readiness, where a process that ended would only be started again.
async fn fit(
    mode: Mode,
    forwards: Option<BackEnd>,
    health: &Health,
    serve: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let mut serve = pin!(async {
        if let Err(error) = serve.await {
            tracing::warn!(error = &*error as &dyn std::error::Error, "no probes");
        }
        std::future::pending::<()>().await;
    });
    let mut told = Vec::new();
    loop {
        let look = tokio::task::spawn_blocking(move || host::lacks(mode, forwards));
        let lacks = look.await?;
        health.set_obstacle("host", (!lacks.is_empty()).then(|| lacks.join("; ")));
        if lacks.is_empty() {
            return Ok(());
        }
        if lacks != told {
            for lack in &lacks {
                tracing::error!("{lack}; looking again every {LOOK:?}");
            }
        }
        told = lacks;
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = &mut serve => {}
        }
    }
}

/// Runs the agent with its HTTP server until `stop`.
#[expect(clippy::too_many_arguments, reason = "each is a part of its own")]
async fn run<S: Source, K: Sink>(
    serve: impl Future<Output = Result<(), Failure>>,
    config: Config,
    source: S,
    sink: K,
    health: Health,
    metrics: Metrics,
    stop: impl Future<Output = ()>,
    ending: Ending,
) -> Result<(), Failure> {
    let agent = agent::run(config, source, sink, health, metrics, stop, ending);
    tokio::select! {
        ended = agent => Ok(ended.map_err(|error: AgentError| error)?),
        ended = serve => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_flag_says_to_listen() {
        let default = Some(SocketAddr::from(([127, 0, 0, 1], 10249)));
        let table = [
            (None, Ok("127.0.0.1:10249")),
            (Some(""), Ok("")),
            (Some("0.0.0.0:99"), Ok("0.0.0.0:99")),
            (Some("0.0.0.0"), Ok("0.0.0.0:10249")),
            (Some("[::1]:99"), Ok("[::1]:99")),
            (Some("::"), Ok("[::]:10249")),
            (Some("localhost:99"), Err(())),
            (Some(":10249"), Err(())),
        ];
        for (text, expected) in table {
            let expected = expected.map(|text| text.parse::<SocketAddr>().ok());
            let found = bind("--metrics-bind-address", text, default, METRICS);
            let found = found.map_err(|error| {
                assert!(
                    error.to_string().contains("--metrics-bind-address"),
                    "{error}"
                );
            });
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
