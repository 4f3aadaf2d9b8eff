//! `corten drain`: a node gives away what it announces, and no new connection is lost (design.md
//! §4.3). One that is open may be: another node does not know it (§4.7 is to mend that).

use std::collections::BTreeSet;
use std::time::Duration;

use api::corten::v1alpha1::{DrainPhase, NodeStateStatus, SessionState};
use tokio::time::Instant;

use super::nodes::{Nodes, Where};
use super::{Failure, runtime};

/// Between two looks at the node's state.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The node's name.
    node: String,
    #[command(flatten)]
    place: Where,
    /// Serve again, after a drain.
    #[arg(long)]
    undo: bool,
    /// How many seconds to wait for the end; 0: ask, and do not wait.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
}

pub(super) fn main(options: &Options) -> Result<(), Failure> {
    let limit = Duration::from_secs(options.timeout);
    runtime()?.block_on(async {
        let mut follower = Follower::new(&options.node, options.undo);
        let work = async {
            let nodes = Nodes::open(&options.place).await?;
            run(&nodes, options, &mut follower).await
        };
        if limit.is_zero() {
            return work.await;
        }
        match tokio::time::timeout_at(Instant::now() + limit, work).await {
            Ok(ended) => ended,
            Err(_) => Err(format!(
                "{} after {limit:?}: {}; it goes on, and `corten drain` looks again",
                options.node,
                follower.waits_for()
            )
            .into()),
        }
    })
}

async fn run(nodes: &Nodes, options: &Options, follower: &mut Follower) -> Result<(), Failure> {
    let node = &options.node;
    let Some(state) = nodes.state(node).await? else {
        return Err(format!(
            "{node}: no agent serves this node, or it has not said so yet; known: {}",
            Vec::from_iter(nodes.states().await?.into_keys()).join(" ")
        )
        .into());
    };
    nodes.ask_to_drain(node, !options.undo).await?;
    let said = if options.undo { "serve again" } else { "drain" };
    println!("{node}: asked to {said}");
    if options.timeout == 0 {
        return Ok(());
    }
    follower.look(&state);
    loop {
        if let Some(state) = nodes.state(node).await? {
            for line in follower.look(&state) {
                println!("{line}");
            }
            if follower.is_done() {
                return Ok(());
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What is told of a node's states, each step once.
#[derive(Debug)]
struct Follower {
    node: String,
    undo: bool,
    phase: Option<DrainPhase>,
    handed: bool,
    asked: bool,
    drained: BTreeSet<String>,
    held: Vec<String>,
    done: bool,
}

impl Follower {
    fn new(node: &str, undo: bool) -> Self {
        Self {
            node: node.to_owned(),
            undo,
            phase: None,
            handed: false,
            asked: false,
            drained: BTreeSet::new(),
            held: Vec::new(),
            done: false,
        }
    }

    /// What is new.
    fn look(&mut self, state: &NodeStateStatus) -> Vec<String> {
        let node = &self.node;
        let mut lines = Vec::new();
        self.phase = state.drain;
        if self.undo {
            self.done = state.drain.is_none() && !state.draining;
            lines.extend(self.done.then(|| format!("{node} serves again")));
            return lines;
        }
        let Some(phase) = state.drain else {
            return lines;
        };
        if phase != DrainPhase::HandingOver && !self.handed {
            self.handed = true;
            lines.push(format!("{node}: layer 2 addresses are handed over"));
        }
        let is = |wanted| state.bgp.iter().filter(move |it| it.state == wanted);
        let held = is(SessionState::Established).map(|it| it.peer.clone());
        self.held = held.collect();
        if phase == DrainPhase::Leaving && !self.asked && !self.held.is_empty() {
            self.asked = true;
            let held = self.held.join(", ");
            lines.push(format!(
                "{node}: its routes ask to be left, and are withdrawn some seconds later ({held})"
            ));
        }
        for session in is(SessionState::Drained) {
            if self.drained.insert(session.peer.clone()) {
                let (peer, address) = (&session.peer, &session.address);
                lines.push(format!("{node}: session {peer} ({address}) has ended"));
            }
        }
        self.done = phase == DrainPhase::Drained;
        lines.extend(self.done.then(|| format!("{node} is drained")));
        lines
    }

    const fn is_done(&self) -> bool {
        self.done
    }

    /// What the end waits for.
    fn waits_for(&self) -> String {
        match self.phase {
            _ if self.undo => "its agent still drains it".to_owned(),
            None => "its agent has not begun: is its Pod running?".to_owned(),
            Some(DrainPhase::HandingOver) => "layer 2 addresses are being handed over".to_owned(),
            Some(_) => format!("routes are being withdrawn from {}", self.held.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use api::corten::v1alpha1::BgpSession;

    use super::*;

    fn state(drain: Option<DrainPhase>, sessions: &[(&str, SessionState)]) -> NodeStateStatus {
        let session = |(peer, state): &(&str, SessionState)| BgpSession {
            peer: (*peer).to_owned(),
            address: "10.0.0.1:179".to_owned(),
            state: *state,
            ..BgpSession::default()
        };
        NodeStateStatus {
            draining: drain.is_some(),
            drain,
            bgp: sessions.iter().map(session).collect(),
            ..NodeStateStatus::default()
        }
    }

    #[test]
    fn each_step_is_told_once() {
        use DrainPhase::{Drained, HandingOver, Leaving};
        use SessionState::Established;
        let over = SessionState::Drained;
        let mut follower = Follower::new("n", false);
        let mut told = Vec::new();
        for (phase, sessions) in [
            (None, &[("a", Established), ("b", Established)][..]),
            (Some(HandingOver), &[("a", Established), ("b", Established)]),
            (Some(Leaving), &[("a", Established), ("b", Established)]),
            (Some(Leaving), &[("a", over), ("b", Established)]),
        ] {
            told.extend(follower.look(&state(phase, sessions)));
            assert!(!follower.is_done());
        }
        assert_eq!(follower.waits_for(), "routes are being withdrawn from b");
        told.extend(follower.look(&state(Some(Drained), &[("a", over), ("b", over)])));
        assert!(follower.is_done());
        assert_eq!(
            told,
            [
                "n: layer 2 addresses are handed over",
                "n: its routes ask to be left, and are withdrawn some seconds later (a, b)",
                "n: session a (10.0.0.1:179) has ended",
                "n: session b (10.0.0.1:179) has ended",
                "n is drained",
            ]
        );
    }

    #[test]
    fn undo_ends_when_nothing_drains_any_more() {
        let mut follower = Follower::new("n", true);
        assert_eq!(
            follower.look(&state(Some(DrainPhase::Drained), &[])),
            [""; 0]
        );
        assert!(!follower.is_done());
        assert_eq!(follower.look(&state(None, &[])), ["n serves again"]);
        assert!(follower.is_done());
    }
}
