//! BGP's routes and the addresses on `kube-lb0`: handed over once what they lead to is programmed.

use std::net::IpAddr;

use plan::announce::bgp::Change;
use plan::announce::linux::Placing;
use plan::status::News;

use super::Planner;
use crate::http::announced::Protocol;

impl Planner {
    /// Says when every route has been handed over: End-of-RIB waits for that.
    pub(super) async fn ready_routes(&mut self) {
        let waits = !self.routes.is_empty() || !self.placings.is_empty();
        if !self.advertised && !waits && self.gate.barrier().is_none() {
            self.advertised = true;
            self.parts.bgp.ready().await;
            self.parts.addresses.settle().await;
            self.parts.l2.settle().await;
            self.parts.statuses.settle_routes().await;
            // The lists of the start, and what was kept, were much at once.
            linux::memory::trim();
        }
    }

    /// A session, a drain or a withdrawal.
    pub(super) async fn retract(&mut self, change: Change) {
        match &change {
            Change::Route { peer, prefix, .. } => {
                self.routes.remove(&(peer.clone(), *prefix));
            }
            Change::Session {
                peer,
                session: None,
            } => self.routes.retain(|(of, _), _| of != peer),
            Change::Session { .. } | Change::Drain { .. } => {}
        }
        let password = match &change {
            Change::Session { peer, .. } => self.world.password(peer),
            _ => None,
        };
        self.parts.bgp.apply(change, password).await;
    }

    /// A route: it waits until what it leads to is programmed.
    pub(super) async fn advertise(&mut self, change: Change, barrier: Option<u64>) {
        let Change::Route { peer, prefix, .. } = &change else {
            return;
        };
        let key = (peer.clone(), *prefix);
        match barrier {
            Some(job) => {
                self.routes.insert(key, (job, change));
            }
            None => {
                self.routes.remove(&key);
                self.parts.bgp.apply(change, None).await;
            }
        }
    }

    /// Tells people for whom routes are handed over.
    pub(super) async fn say(&mut self, news: Vec<(IpAddr, News)>) {
        let node = self.parts.agent.node.clone();
        for (address, news) in news {
            let announced = &self.parts.metrics.announced;
            for service in &news.ended {
                announced.end(service, Protocol::Bgp, address);
            }
            for service in &news.began {
                announced.begin(&node, service.clone(), Protocol::Bgp, address);
                let message = format!("announcing from node \"{node}\" with protocol \"bgp\"");
                self.report(service, false, "nodeAssigned", message);
            }
            for service in news.touched {
                let peers = self.said.table().peers(&service);
                self.parts.statuses.advertised(service, peers).await;
            }
        }
    }

    /// Puts an address on `kube-lb0`, and says so to whom it is new.
    pub(super) async fn place(&mut self, address: IpAddr, placing: Placing) {
        self.placings.remove(&address);
        self.parts
            .addresses
            .place(address, Some(placing.length))
            .await;
        let old = self.placed.insert(address, placing.services.clone());
        let old = old.unwrap_or_default();
        let gone = old.iter().filter(|it| !placing.services.contains(it));
        let announced = &self.parts.metrics.announced;
        gone.for_each(|service| announced.end(service, Protocol::Linux, address));
        for service in placing.services.iter().filter(|it| !old.contains(it)) {
            let node = &self.parts.agent.node;
            announced.begin(node, service.clone(), Protocol::Linux, address);
            let message = format!("announcing from node \"{node}\" with protocol \"linux\"");
            self.report(service, false, "nodeAssigned", message);
        }
    }

    pub(super) async fn take_off(&mut self, address: IpAddr) {
        self.placings.remove(&address);
        self.parts.addresses.place(address, None).await;
        for service in self.placed.remove(&address).unwrap_or_default() {
            let announced = &self.parts.metrics.announced;
            announced.end(&service, Protocol::Linux, address);
        }
    }
}
