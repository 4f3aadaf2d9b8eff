//! The BGP part of a node's desired state, and its changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::route::{Known, Speaker};
use super::session::Drain;
use super::{Attributes, PeerSession};
use crate::name::Name;
use crate::world::{Dirty, World, pack};

/// Name of the object that a peer comes from; BGPPeer and Peer share one space of names.
pub type PeerKey = Name;

/// The sessions of a node with what is advertised on them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bgp {
    /// By peer.
    pub peers: BTreeMap<PeerKey, PeerDesired>,
}

/// One session and what is advertised on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerDesired {
    /// What the session is like.
    pub session: PeerSession,
    /// The node stops advertising here: its routes ask to be left (RFC 8326), and are withdrawn by
    /// the executor after it has waited.
    pub drain: Option<Drain>,
    /// What is advertised.
    pub routes: BTreeMap<IpNet, Arc<Attributes>>,
}

/// A change of [`Bgp`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Change {
    /// A session that is there begins to drain, or does so no more.
    Drain {
        /// Whose.
        peer: PeerKey,
        /// Why; `None`: it does so no more.
        drain: Option<Drain>,
    },
    /// A session begins, changes ([`PeerSession::change_to`] says how deeply), or ends with all
    /// its routes.
    Session {
        /// Whose.
        peer: PeerKey,
        /// What it is to be like; `None`: it ends.
        session: Option<Box<PeerSession>>,
    },
    /// A route on a session that is there.
    Route {
        /// Whose.
        peer: PeerKey,
        /// Of what.
        prefix: IpNet,
        /// What it says; `None`: it is withdrawn.
        attributes: Option<Arc<Attributes>>,
    },
}

impl Bgp {
    /// Plans the dirty keys anew, puts the result in place and returns what changed.
    pub fn replan(&mut self, world: &World, me: &str, dirty: &Dirty) -> Vec<Change> {
        let mut changes = Vec::new();
        // A hub hears of every node.
        let hub = || self.peers.values().any(|peer| peer.session.add_path);
        let whole = dirty.bgp || dirty.nodes.contains(me) || (!dirty.nodes.is_empty() && hub());
        if !whole && (dirty.routes.is_empty() || self.peers.is_empty()) {
            return changes;
        }
        let speaker = Speaker::find(world, me);
        let mut prefixes: BTreeSet<IpNet> = BTreeSet::new();
        let speaks = speaker.as_ref();
        let held = |address| speaks.map(|speaker| speaker.prefixes(address));
        if whole {
            self.replan_sessions(speaks, &mut changes);
            prefixes.extend(self.peers.values().flat_map(|peer| peer.routes.keys()));
            prefixes.extend(world.addresses().filter_map(held).flatten());
        } else {
            prefixes.extend(dirty.routes.iter().copied().filter_map(held).flatten());
        }
        let routes = self
            .peers
            .values()
            .filter_map(|peer| peer.routes.values().next());
        let mut known = Known(routes.cloned().collect());
        for prefix in prefixes {
            let mut routes = speaks
                .map(|speaker| speaker.routes(prefix, &mut known))
                .unwrap_or_default();
            for (name, peer) in &mut self.peers {
                let new = routes.remove(name);
                if peer.routes.get(&prefix) == new.as_ref() {
                    continue;
                }
                match new.clone() {
                    Some(attributes) => peer.routes.insert(prefix, attributes),
                    None => peer.routes.remove(&prefix),
                };
                changes.push(Change::Route {
                    peer: name.clone(),
                    prefix,
                    attributes: new,
                });
            }
        }
        if whole {
            let peers = self.peers.values_mut();
            peers.for_each(|peer| pack(&mut peer.routes));
        }
        changes
    }

    fn replan_sessions(&mut self, speaker: Option<&Speaker<'_>>, changes: &mut Vec<Change>) {
        let sessions = speaker.map(Speaker::sessions).unwrap_or_default();
        self.peers.retain(|name, _| {
            let stays = sessions.contains_key(name);
            if !stays {
                changes.push(Change::Session {
                    peer: name.clone(),
                    session: None,
                });
            }
            stays
        });
        for (peer, (session, drain)) in sessions {
            let known = self.peers.get(&peer);
            if known.map(|known| &known.session) != Some(&session) {
                changes.push(Change::Session {
                    peer: peer.clone(),
                    session: Some(Box::new(session.clone())),
                });
            }
            if known.and_then(|known| known.drain) != drain {
                let peer = peer.clone();
                changes.push(Change::Drain { peer, drain });
            }
            let routes = self.peers.remove(&peer).map(|known| known.routes);
            let desired = PeerDesired {
                session,
                drain,
                routes: routes.unwrap_or_default(),
            };
            self.peers.insert(peer, desired);
        }
    }
}
