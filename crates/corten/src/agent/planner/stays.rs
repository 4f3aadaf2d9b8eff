//! Addresses that stay with their owner (`handBack: false`): what this node has of them, and what it
//! makes of others that come and go.

use std::net::IpAddr;
use std::time::Instant;

use api::corten::v1alpha1::NodeStateStatus;
use plan::announce::tenure;
use plan::name::Name;
use plan::world::Event;

use super::{HEARING, Planner};
use crate::agent::beat;

impl Planner {
    /// Others may have taken what this node had.
    pub(super) fn falter(&mut self) {
        let had = std::mem::take(&mut self.tenures).into_iter();
        let left = had.filter_map(|(address, term)| Some((address, tenure::shaken(term)?)));
        self.tenures = left.collect();
    }

    /// Whether something that this node has is to be told anew once it has had company for a while.
    pub(super) fn awaits_company(&self) -> bool {
        self.apart.is_some() && self.world.config().stays() && !self.told.is_empty()
    }

    /// Looks whether this node has company: what it takes over alone, it may take from an owner that
    /// lives.
    pub(super) fn look_around(&mut self) {
        if !self.world.config().stays() {
            return;
        }
        let me = &self.parts.agent.node;
        let there = |node: &&Name| {
            *node != me && self.world.node_state(node).is_some() && self.world.presumed_alive(node)
        };
        let now = Instant::now();
        if self.parts.silence.holds() {
            self.falter();
            self.apart = Some(now);
        } else if self.parts.silence.has_changed() || !self.world.node_names().any(|it| there(&it))
        {
            self.apart = Some(now);
        } else if self.apart.is_some_and(|at| now >= at + HEARING) {
            self.apart = None;
            self.unsettled.extend(self.tenures.keys());
            self.unsettled.extend(self.told.keys());
        }
    }

    /// Takes in what failure detection says.
    pub(super) fn hear(&mut self, event: Event) {
        match &event {
            Event::State { node, .. } => {
                self.heard.insert(node.clone());
            }
            Event::Member {
                node,
                alive: Some(true),
            } if !self.world.presumed_alive(node) => {
                self.returned.insert(node.clone());
            }
            _ => {}
        }
        let dead = match &event {
            Event::Member {
                node,
                alive: Some(false),
            } => self.world.node_state(node).and_then(tenure::after_silence),
            _ => None,
        };
        if let Event::Member { node, .. } = &event
            && let Some(form) = dead
        {
            self.learn(Event::State {
                node: node.clone(),
                form: Some(form),
            });
        }
        self.learn(event);
    }

    /// A node that was cut off may have answered for addresses of this one until it heard of it, and
    /// clients believe it still.
    pub(super) async fn claim_again(&mut self) {
        let returned = std::mem::take(&mut self.returned);
        if returned.is_empty() {
            return;
        }
        let ranks = |address: &&IpAddr| {
            let best = self.world.standing(**address).into_iter();
            let mut best = best.flat_map(|standing| &standing.best);
            best.any(|(_, node)| returned.contains(node))
        };
        let addresses = self.told.keys().filter(ranks).copied().collect();
        self.parts.l2.repeat(addresses).await;
    }

    /// Brings what this node has of the addresses that stay up to date, as far as beats have room.
    pub(super) fn settle_tenures(&mut self, beat: &NodeStateStatus) {
        let mut new = Vec::new();
        let silent = self.parts.silence.holds();
        for address in std::mem::take(&mut self.unsettled) {
            let announced = self.told.contains_key(&address);
            let me = &self.parts.agent.node;
            let company = self.apart.is_none();
            let term = tenure::of(&self.world, me, address, announced, company, &self.terms);
            match term.and_then(|term| match silent {
                true => tenure::shaken(term),
                false => Some(term),
            }) {
                None => {
                    self.tenures.remove(&address);
                }
                Some(term) if self.tenures.contains_key(&address) => {
                    self.tenures.insert(address, term);
                }
                Some(term) => new.push((address, term)),
            }
        }
        let wanted = new.len();
        let taken = beat::add(beat, &mut self.tenures, new);
        if wanted > taken && !std::mem::replace(&mut self.crowded, true) {
            tracing::warn!(
                stay = self.tenures.len(),
                "this node has more addresses that stay (handBack: false) than its beats have room \
                 for: the others are handed back"
            );
        }
    }
}
