//! Back ends: what a Service's pods would run, as tasks with sockets in a host's namespace.

mod http;
mod udp;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::AbortHandle;

/// What a back end has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// TCP connections accepted (UDP: none).
    pub connections: u64,
    /// TCP connections open now.
    pub open: u64,
    /// Requests, or datagrams, answered.
    pub requests: u64,
    /// Requests by the client's address, as the back end sees it.
    pub clients: BTreeMap<IpAddr, u64>,
}

impl Counters {
    fn request(&mut self, client: SocketAddr) {
        self.requests += 1;
        *self.clients.entry(client.ip()).or_default() += 1;
    }
}

/// A running back end. It runs until it is stopped or its host is killed; dropping this does
/// nothing.
#[derive(Debug, Clone)]
pub struct Backend {
    counters: Shared,
    task: AbortHandle,
}

impl Backend {
    /// What it has seen so far.
    pub fn counters(&self) -> Counters {
        self.counters.get().clone()
    }

    /// Ends it, with all its connections.
    pub fn stop(&self) {
        self.task.abort();
    }
}

#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<Counters>>);

impl Shared {
    fn get(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bound socket for both families, or for IPv4 where the kernel has no IPv6.
fn bound(kind: Type, protocol: Protocol, port: u16) -> io::Result<Socket> {
    let v6 = (|| {
        let socket = Socket::new(Domain::IPV6, kind, Some(protocol))?;
        socket.set_only_v6(false)?;
        Ok((socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))))
    })();
    let (socket, address) = match v6 {
        Ok(both) => both,
        Err(e) if io::Error::kind(&e) == io::ErrorKind::Unsupported => {
            let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
            (socket, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }
        Err(e) => return Err(e),
    };
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The address without the IPv6 clothes of IPv4 clients.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
