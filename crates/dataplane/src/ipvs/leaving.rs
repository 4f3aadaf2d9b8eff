//! Virtual servers of an executor that is no more, while another back end forwards: its rules take
//! all new connections before IPVS sees them, and those that IPVS has go on until they end.
//!
//! Datagrams are not waited for, as where an endpoint leaves. The kernel's connections of theirs
//! are forgotten with their server: a packet of a known one passes no rule that translates.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use linux::ipvs::{Request, Server, Socket};
use plan::net::Protocol;

use super::device::Device;
use super::difference::OURS;
use super::{Error, failed};
use crate::conntrack::Reconciler;

/// The module is there; asking IPVS itself would load it.
const LOADED: &str = "/proc/thread-self/net/ip_vs";

/// What is left. All calls block.
#[derive(Debug)]
pub struct Leaving {
    socket: Socket,
    device: Device,
}

impl Leaving {
    /// Looks what is left in the calling thread's network namespace, and lets go what nobody uses;
    /// `None`: that was all. The kernel need not have IPVS.
    pub fn begin() -> Result<Option<Self>, Error> {
        let mut device = Device::open()?;
        if !Path::new(LOADED).exists() {
            device.remove()?;
            return Ok(None);
        }
        let socket = Socket::open().map_err(failed("open a socket to"))?;
        let mut leaving = Self { socket, device };
        // What is told to take nothing new may turn out to be idle.
        let left = leaving.tick()? && leaving.tick()?;
        Ok(left.then_some(leaving))
    }

    /// Lets go what nobody uses any more; false: nothing is left.
    pub fn tick(&mut self) -> Result<bool, Error> {
        let mut needed: BTreeSet<IpAddr> = BTreeSet::new();
        let mut gone = BTreeSet::new();
        for server in ours(&mut self.socket)? {
            let key = server.key;
            let (mut requests, mut left) = (Vec::new(), false);
            if is_udp(&server) {
                gone.insert(SocketAddr::new(key.address, key.port));
            } else {
                let found = self.socket.destinations(&key).map_err(failed("read"))?;
                for found in found {
                    let in_use = found.active + found.inactive > 0;
                    left |= found.weight > 0 || in_use;
                    if found.weight > 0 {
                        requests.push(Request::SetDestination(key, found.at, 0));
                    } else if !in_use {
                        requests.push(Request::DeleteDestination(key, found.at));
                    }
                }
            }
            if left {
                needed.insert(key.address);
            } else {
                requests = vec![Request::DeleteServer(key)];
            }
            // What is gone already is as it should be.
            self.socket.change(&requests).map_err(failed("write"))?;
        }
        if needed.is_empty() {
            self.device.remove()?;
        } else {
            self.device.keep(&needed)?;
        }
        forget(&gone);
        Ok(!needed.is_empty())
    }
}

/// Takes away at once what an executor left in the calling thread's network namespace, but for the
/// rule set, which is that of [`crate::nft::Nft`] too. The kernel need not have IPVS.
pub fn leave() -> Result<(), Error> {
    Device::open()?.remove()?;
    if Path::new(LOADED).exists() {
        let mut socket = Socket::open().map_err(failed("open a socket to"))?;
        let ours = ours(&mut socket)?;
        let requests: Vec<_> = ours
            .iter()
            .map(|it| Request::DeleteServer(it.key))
            .collect();
        socket.change(&requests).map_err(failed("delete"))?;
        let udp = ours.iter().filter(|it| is_udp(it));
        forget(
            &udp.map(|it| SocketAddr::new(it.key.address, it.key.port))
                .collect(),
        );
    }
    Ok(())
}

fn ours(socket: &mut Socket) -> Result<Vec<Server>, Error> {
    let mut found = socket.servers().map_err(failed("list"))?;
    found.retain(|it| it.settings.flags & OURS != 0);
    Ok(found)
}

fn is_udp(server: &Server) -> bool {
    server.key.protocol == Protocol::Udp.number()
}

fn forget(gone: &BTreeSet<SocketAddr>) {
    if gone.is_empty() {
        return;
    }
    let forgotten = Reconciler::open().and_then(|mut it| it.forget_all(gone));
    if let Err(error) = forgotten {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "UDP clients may wait in vain until they pause");
    }
}
