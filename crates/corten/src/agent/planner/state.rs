//! What this node says of itself: by beats, and in its NodeState.

use api::corten::v1alpha1::{DrainPhase, ForwardMode, Interface, NodeStateStatus, Tenure};
use plan::announce::tenure;
use plan::forward::Mode;
use plan::world::{Event, NodeState};

use super::Planner;
use crate::agent::{beat, interfaces, member};

impl Planner {
    /// Says what this node's interfaces are, what it has, whether it drains and whether it stands by,
    /// when that has changed.
    pub(super) fn describe(&mut self) -> bool {
        let node = self.parts.agent.node.clone();
        let next = self.version + 1;
        let placed = |address| {
            let announced = self.desired.l2.get(&address);
            announced.is_some_and(|it| it.placed.is_some())
        };
        let mut state = interfaces::state(
            &self.snapshot,
            &self.parts.exclude,
            placed,
            self.incarnation,
            next,
        );
        let phase = self.drain.phase();
        // Others take the addresses over before this node gives them up.
        state.draining = phase == Some(DrainPhase::Leaving);
        let known = self.world.node_state(&node);
        let as_known = known.is_some_and(|known| known.interfaces == state.interfaces);
        // What was changed besides is told first: it counts in what follows.
        let told = known.is_some_and(|known| known.tenures == self.tenures);
        if self.synced && told && (!self.unsettled.is_empty() || !as_known) {
            let beat = status(&state, self.parts.agent.mode);
            self.settle_tenures(&beat);
        }
        state.tenures.clone_from(&self.tenures);
        state.withheld = self.strangers.withheld();
        let known = self.world.node_state(&node);
        let shown = (phase, self.standing_by.clone());
        if shown == self.shown
            && known
                .is_some_and(|known| known.incarnation == self.incarnation && known.says_as(&state))
        {
            return false;
        }
        self.version = next;
        self.unpublished = Some(NodeStateStatus {
            draining: phase.is_some(),
            drain: phase,
            standing_by: self.standing_by.clone().unwrap_or_default(),
            ..status(&state, self.parts.agent.mode)
        });
        self.shown = shown;
        self.terms.note(&state);
        self.apply(Event::State {
            node,
            form: Some(state),
        });
        true
    }

    /// Tells the other nodes what is new of this one: what is given up is given up by then.
    pub(super) async fn publish(&mut self) {
        // What the agent before this one had must not seem to be given up.
        if !self.synced {
            return;
        }
        let Some(status) = self.unpublished.take() else {
            return;
        };
        let beat = beat::encode(&status);
        let state = self.world.node_state(&self.parts.agent.node);
        let silent = state.and_then(tenure::after_silence);
        let silent = silent.map(|state| {
            beat::encode(&NodeStateStatus {
                tenures: tenures(&state),
                ..status.clone()
            })
        });
        self.parts.state.send_replace(Some(status));
        let command = member::Command::State(beat, silent);
        let _ = self.parts.member.send(command).await;
    }
}

fn tenures(state: &NodeState) -> Vec<Tenure> {
    let tenures = state.tenures.iter();
    let tenures = tenures.map(|(address, term)| Tenure {
        address: address.to_string(),
        term: *term,
    });
    tenures.collect()
}

/// The published form of this node's state.
fn status(state: &NodeState, mode: Mode) -> NodeStateStatus {
    let mac = |octets: [u8; 6]| octets.map(|octet| format!("{octet:02x}")).join(":");
    NodeStateStatus {
        interfaces: state
            .interfaces
            .iter()
            .map(|(name, interface)| Interface {
                name: name.to_string(),
                up: interface.up,
                mac: interface.mac.map(mac),
                subnets: interface.subnets.iter().map(ToString::to_string).collect(),
            })
            .collect(),
        forward: match mode {
            Mode::Off => ForwardMode::Off,
            Mode::Vips => ForwardMode::Vips,
            Mode::All => ForwardMode::All,
        },
        // The publisher adds them: beats are not the place for them.
        bgp: Vec::new(),
        standing_by: String::new(),
        tenures: tenures(state),
        withheld: state.withheld.iter().map(ToString::to_string).collect(),
        draining: state.draining,
        drain: None,
        incarnation: state.incarnation,
        version: state.version,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
