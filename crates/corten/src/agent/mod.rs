//! The agent: announces and forwards this node's share of the addresses.
//!
//! ```text
//!  source ──Update──► planner ──Command──► l2 ──► one port per interface (ARP, NDP)
//!                      │  └────Change────► bgp ──► one task per peer ──Request─► bfd
//!  member ──Event───►   │ │ ──Job──► forward (a thread: netlink blocks) ──Done──► planner
//!  interfaces ─watch─►  │ ├──Command──► member (peers, payload)
//!                       │ ├──Change───► checks (ports for outer load balancers' health checks)
//!                       │ └──Command──► addresses (real ones on interfaces) ◄──Command── l2
//!                       └──watch──► publisher (NodeState)   └──Report──► reporter
//! ```
//! The planner owns World and Desired. An address is announced only after `forward` has
//! acknowledged its ports, and withdrawn before they are removed; no withdrawal waits for
//! `forward`.

mod addresses;
mod advertised;
mod beat;
mod bfd;
mod bgp;
mod checks;
mod drain;
pub mod exclude;
pub(crate) mod forward;
mod gate;
pub mod interfaces;
mod l2;
mod member;
mod planner;
mod port;
mod publisher;
mod reception;
pub mod reply;
mod statuses;
pub mod succession;
mod tally;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use api::corten::v1alpha1::NodeStateStatus;
use plan::desired::Agent;
use plan::forward::Mode;
use plan::world::{NodeState, Settings};
use proto::member::Profile;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use self::statuses::Statuses;
use self::succession::Place;
use crate::http::Metrics;
use crate::http::proxy::ProxyHealth;
use crate::removal::Removal;
use crate::report::Reporter;
use crate::sink::Sink;
use crate::source::{self, Source};
use crate::status::Health;

/// How long an agent that stops answers for addresses that nobody takes over: longer than it takes
/// the others to notice its silence, should they not have heard that it leaves.
const HAND_OVER: Duration = Duration::from_millis(1500);
/// How long the others wait for this node's next agent, which has said that it is ready, before they
/// hold the node for dead: it has to open its sockets and to read what it knows, on a busy machine.
const SUCCESSION: Duration = Duration::from_secs(5);
/// How long telling them may take: a few datagrams.
const TELLING: Duration = Duration::from_millis(500);

/// Frames that tie announced addresses to other stations, and that may wait: who claims an address
/// does so again.
const CLAIMS: usize = 256;

/// What the agent is told at start.
#[derive(Debug)]
pub struct Config {
    /// Its node, and what it forwards.
    pub agent: Agent,
    /// What balances where it forwards.
    pub back_end: forward::BackEnd,
    /// Settings of World.
    pub settings: Settings,
    /// What the agent before this one said of the node, where the source does not tell that.
    pub before: Option<NodeStateStatus>,
    /// UDP port of failure detection.
    pub member_port: u16,
    /// How fast it is.
    pub member_profile: Profile,
    /// File with the secret that authenticates beats.
    pub member_key: Option<PathBuf>,
    /// Interfaces that layer 2 never uses.
    pub exclude: exclude::Exclude,
    /// By which interfaces replies leave that came in by them.
    pub reply: reply::Choice,
    /// Where the health of the service proxy is served, in one's place.
    pub healthz: Option<SocketAddr>,
    /// Where its metrics are.
    pub proxy_metrics: Option<SocketAddr>,
    /// What is answered there to who asks for the proxy's configuration.
    pub proxy_configuration: serde_json::Value,
}

/// What an agent in a cluster looks at when it is stopped.
#[derive(Debug, Default)]
pub struct Ending {
    /// The node's place, which another agent may wait for.
    pub place: Option<Place>,
    /// Whether Corten is being removed.
    pub removal: Option<Removal>,
    /// Where what is known is kept.
    pub kept: Option<PathBuf>,
}

/// Why the agent cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Failure detection.
    #[error(transparent)]
    Member(#[from] member::MemberError),
    /// The kernel's interfaces.
    #[error(transparent)]
    Netlink(#[from] linux::netlink::NetlinkError),
    /// The way of replies.
    #[error("the rules for replies cannot be removed")]
    Reply(#[from] reply::ReplyError),
    /// The kernel's forwarding.
    #[error("forwarding cannot be set up")]
    Forward(#[from] forward::ForwardError),
    /// BFD's thread.
    #[error("BFD cannot be started")]
    Bfd(#[source] std::io::Error),
    /// A task ended, which none should.
    #[error("a task of the agent ended: {0}")]
    Task(String),
}

/// Runs until `stop` completes; then its successor on this node goes on, or its addresses are handed
/// over. Kernel state stays, unless Corten is being removed.
pub async fn run<S: Source, K: Sink>(
    config: Config,
    source: S,
    sink: K,
    health: Health,
    metrics: Metrics,
    stop: impl Future<Output = ()>,
    mut ending: Ending,
) -> Result<(), AgentError> {
    let (updates_in, updates) = mpsc::channel(source::QUEUE);
    let (events_in, events) = mpsc::channel(source::QUEUE);
    let (interfaces_in, interfaces) = watch::channel(interfaces::snapshot().await?);
    let (moved_in, moved) = mpsc::channel(interfaces::QUEUE);
    let (state_in, state) = watch::channel(None);
    let (sessions_in, sessions) = watch::channel(bgp::Sessions::default());
    let (reporter, reports) = Reporter::new(metrics.reports_dropped.clone());

    let (unheard_in, unheard) = watch::channel(member::Unheard::default());
    let (member, silence, member_task) =
        member::start(&config, events_in, unheard_in, metrics.member.clone())?;
    let (forward, done) = forward::start(
        config.agent.mode,
        config.back_end,
        health.clone(),
        metrics.clone(),
    )?;
    let addresses = addresses::Context {
        interfaces: interfaces.clone(),
        silence: silence.clone(),
        health: health.clone(),
        metrics: metrics.clone(),
    };
    let (addresses, addresses_task) = addresses::start(addresses);
    let (reception, reception_task) = reception::start();
    let (claims_in, claims) = mpsc::channel(CLAIMS);
    let l2 = l2::Context {
        node: config.agent.node.clone(),
        interfaces: interfaces.clone(),
        moved,
        exclude: config.exclude.clone(),
        addresses: addresses.clone(),
        reception: reception.clone(),
        claims: claims_in,
        reporter: reporter.clone(),
        silence: silence.clone(),
        unheard,
        beat: config.member_profile.beat,
        metrics: metrics.clone(),
    };
    let (l2, l2_task) = l2::start(l2);
    let (bfd, bfd_task) = bfd::start(metrics.clone()).map_err(AgentError::Bfd)?;
    let bgp = bgp::Context {
        node: config.agent.node.clone(),
        interfaces: interfaces.clone(),
        bfd: bfd.clone(),
        metrics: metrics.clone(),
        sessions: sessions_in,
    };
    let (bgp, bgp_task) = bgp::start(bgp);

    let mut tasks: JoinSet<Result<(), AgentError>> = JoinSet::new();
    tasks.spawn(async move {
        source.run(updates_in).await;
        Ok(())
    });
    tasks.spawn(async move { Ok(interfaces::follow(interfaces_in, moved_in).await?) });
    tasks.spawn(member_task.run());
    tasks.spawn(async move {
        l2_task.await;
        Ok(())
    });
    tasks.spawn(async move {
        reception_task.await;
        Ok(())
    });
    tasks.spawn(async move {
        addresses_task.await;
        Ok(())
    });
    tasks.spawn(async move {
        bgp_task.await;
        Ok(())
    });
    tasks.spawn(async move {
        bfd_task.await;
        Ok(())
    });
    let replies = reply::run(config.reply, health.clone());
    tasks.spawn(async move {
        replies.await;
        Ok(())
    });
    tasks.spawn(bgp::events::run(
        sink.clone(),
        config.agent.node.clone(),
        sessions.clone(),
    ));
    tasks.spawn(publisher::run(
        sink.clone(),
        config.agent.node.clone(),
        state,
        sessions,
    ));
    let (statuses, mending) = Statuses::start(sink.board(), &config.agent.node, &mut tasks);
    tasks.spawn(async move {
        reports.run(sink).await;
        Ok(())
    });
    let proxy = ProxyHealth::default();
    let (checks, checks_task) = checks::start(checks::Context {
        node: config.agent.node.clone(),
        proxy: proxy.clone(),
        reporter: reporter.clone(),
    });
    tasks.spawn(async move {
        checks_task.await;
        Ok(())
    });
    let healthz = config.healthz.filter(|_| config.agent.mode == Mode::All);
    if let Some(address) = healthz {
        let served = checks::serve_proxy(address, proxy.clone(), metrics.clone());
        tasks.spawn(async move {
            served.await;
            Ok(())
        });
    }
    let proxy_metrics = config.proxy_metrics;
    if let Some(address) = proxy_metrics.filter(|_| config.agent.mode == Mode::All) {
        let mode = config.back_end.proxy_mode();
        let served =
            checks::serve_proxy_metrics(address, mode, config.proxy_configuration, metrics.clone());
        tasks.spawn(async move {
            served.await;
            Ok(())
        });
    }
    let planner = planner::Planner::new(planner::Parts {
        statuses,
        agent: config.agent,
        before: config.before.map(NodeState::from),
        settings: config.settings,
        member: member.clone(),
        silence,
        forward,
        hand_over: HAND_OVER,
        l2: l2.clone(),
        addresses,
        exclude: config.exclude,
        checks,
        proxy,
        bgp: bgp.clone(),
        state: state_in,
        reporter,
        health,
        metrics,
    });
    tasks.spawn(async move {
        planner.run(updates, events, interfaces, done, claims).await;
        Ok(())
    });
    tokio::select! {
        ended = tasks.join_next() => Err(match ended {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => AgentError::Task(error.to_string()),
            _ => AgentError::Task("it had nothing more to do".to_owned()),
        }),
        () = stop => {
            mending.end();
            let follows = match &mut ending.place {
                Some(place) => place.has_successor().await,
                None => false,
            };
            let layer2 = async {
                if follows {
                    tracing::info!("this node's next agent goes on");
                } else {
                    // An end without a successor must not wait for one.
                    let _ = tokio::time::timeout(HAND_OVER, leave(&member, &l2)).await;
                    l2.end().await;
                }
            };
            let routes = async {
                bgp.stop().await;
                bfd.stop().await;
            };
            tokio::join!(layer2, routes);
            if follows {
                // Last of all: the others do without this node from here on.
                let _ = tokio::time::timeout(TELLING, make_way(&member)).await;
            }
            if !follows && ending.removal.is_some_and(|removal| removal.is_under_way()) {
                reception.remove().await;
                tasks.shutdown().await;
                if let Some(folder) = &ending.kept {
                    crate::kept::forget(folder);
                }
                forward::remove().await?;
                reply::remove().await?;
                bgp::rib::remove().await?;
                addresses::remove().await?;
            }
            Ok(())
        }
    }
}

/// Tells the others that this node's next agent follows.
async fn make_way(member: &member::Handle) {
    let (told, done) = oneshot::channel();
    let command = member::Command::MakeWay(SUCCESSION, told);
    if member.send(command).await {
        let _ = done.await;
    }
}

/// Tells the others to take over, and goes on answering for each address until one of them does.
async fn leave(member: &member::Handle, l2: &l2::L2) {
    // Before the others know: a claim must not be missed.
    let claimed = l2.hand_over().await;
    let (left, done) = oneshot::channel();
    if !member.send(member::Command::Leave(left)).await {
        return;
    }
    match done.await {
        Ok(others) if others > 0 => {
            let _ = claimed.await;
        }
        // Nobody is there to take over.
        _ => {}
    }
}
