//! Asking for nodes that are not heard (`proto::inquiry`).

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Manager, Neighbour};
use crate::agent::port::{Command, Question};

impl Manager {
    /// Asks where the node is whose agent has the address `agent`: of each of its addresses, as each
    /// may be the way to its Pods; on each interface whose subnet the address is in, from this node's
    /// own one there. Who is behind a router is no neighbour, for the kernel either.
    pub(super) async fn ask_for(&self, agent: IpAddr) {
        let of_agent = |node: &&Neighbour| node.first().is_some_and(|(ip, _)| *ip == agent);
        let Some(node) = self.neighbours.iter().find(of_agent) else {
            return;
        };
        let snapshot = self.context.interfaces.borrow().clone();
        for interface in snapshot.iter() {
            let Some(port) = self.ports.get(&interface.index) else {
                continue;
            };
            for (peer, at) in node {
                let near = |(ip, length): &&(IpAddr, u8)| {
                    let subnet = IpNet::new(*ip, *length);
                    self.own.contains(ip) && subnet.is_ok_and(|subnet| subnet.contains(peer))
                };
                let Some((own, _)) = interface.addresses.iter().find(near) else {
                    continue;
                };
                let question = Question {
                    own: *own,
                    peer: *peer,
                    at: *at,
                };
                let _ = port.commands.send(Command::Ask(question)).await;
            }
        }
    }
}
