//! Raw ICMPv6 sockets on one interface (RFC 3542): router discovery for BGP peers that are known
//! by their interface alone. Messages are read here and not by the kernel, whose `accept_ra` would
//! also take the router for a default router.

use std::{
    io,
    net::{Ipv6Addr, SocketAddrV6},
    num::NonZeroU32,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    datagram::{Descriptor, Received, receive, switch_on},
    option,
};

/// Neighbour discovery demands it (RFC 4861 §6.1).
const HOPS: u32 = 255;
/// `linux/icmpv6.h`; libc lacks it.
const ICMPV6_FILTER: libc::c_int = 1;

/// A socket that could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} on interface {interface}")]
pub struct Icmpv6Error {
    what: &'static str,
    interface: u32,
    source: io::Error,
}

/// A raw ICMPv6 socket in the tokio runtime in which it was opened, in the network namespace of
/// the thread that opened it. The kernel writes and checks checksums; what we send to groups does
/// not come back.
///
/// Cancel safety: a dropped `recv` has lost nothing.
#[derive(Debug)]
pub struct Icmpv6 {
    socket: AsyncFd<Descriptor>,
    interface: u32,
}

impl Icmpv6 {
    /// Opens a socket on the interface with this index that receives messages of these types, also
    /// those to these groups.
    pub fn open(interface: u32, types: &[u8], groups: &[Ipv6Addr]) -> Result<Self, Icmpv6Error> {
        let fail = |what| {
            move |source| Icmpv6Error {
                what,
                interface,
                source,
            }
        };
        // Index 0 would mean every interface.
        let index = NonZeroU32::new(interface)
            .ok_or_else(|| fail("hear")(io::Error::from_raw_os_error(libc::ENODEV)))?;
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))
            .map_err(fail("open a raw ICMPv6 socket"))?;
        // First of all: nothing else may come in.
        filter(&socket, types).map_err(fail("choose what ICMPv6 to hear"))?;
        socket
            .bind_device_by_index_v6(Some(index))
            .map_err(fail("bind to the device"))?;
        socket
            .set_nonblocking(true)
            .and_then(|()| socket.set_multicast_if_v6(interface))
            .and_then(|()| socket.set_multicast_loop_v6(false))
            .and_then(|()| socket.set_multicast_hops_v6(HOPS))
            .and_then(|()| socket.set_unicast_hops_v6(HOPS))
            .map_err(fail("send ICMPv6"))?;
        for name in [libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVPKTINFO] {
            switch_on(&socket, libc::IPPROTO_IPV6, name).map_err(fail("ask for details"))?;
        }
        for group in groups {
            socket
                .join_multicast_v6(group, interface)
                .map_err(fail("join a group"))?;
        }
        // SAFETY: the descriptor is owned by the Socket, which is owned by the AsyncFd; nothing
        // replaces or closes it before both are dropped.
        let socket = unsafe { AsyncFd::register(Descriptor(socket)) };
        let socket = socket.map_err(|e| fail("wait for ICMPv6")(e.into()))?;
        Ok(Self { socket, interface })
    }

    /// Waits for a message: its bytes begin with the ICMPv6 type.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let read = |d: &Descriptor| receive(&d.0, buffer);
        self.socket.async_io(Interest::READABLE, read).await
    }

    /// Sends a message at once, or fails with `WouldBlock`. The kernel chooses the source, which
    /// towards a group of the link is link-local.
    pub fn send(&self, message: &[u8], to: Ipv6Addr) -> io::Result<()> {
        let to = SocketAddrV6::new(to, 0, 0, self.interface);
        self.socket.get_ref().0.send_to(message, &to.into())?;
        Ok(())
    }
}

/// RFC 3542 §3.2: a bit set keeps a type out.
fn filter(socket: &Socket, types: &[u8]) -> io::Result<()> {
    let mut blocked = [u32::MAX; 8];
    for kind in types {
        if let Some(word) = blocked.get_mut(usize::from(kind >> 5)) {
            *word &= !(1 << (kind & 31));
        }
    }
    option::set(socket, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &blocked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        alone::alone,
        netlink::{Netlink, VethEnd},
    };

    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

    /// Needs root; without it it says so and passes, except under CI.
    #[test]
    fn what_is_asked_for_is_heard_from_link_local_addresses() {
        alone(async || {
            // Addresses are there at once.
            std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").expect("no DAD");
            let netlink = Netlink::open().expect("netlink");
            let end = |name| VethEnd {
                name,
                mac: None,
                netns: None,
            };
            netlink.add_veth(end("a"), end("b")).await.expect("veth");
            let mut indexes = Vec::new();
            for name in ["a", "b"] {
                let index = netlink.index_of(name).await.expect("an index");
                netlink.set_up(index).await.expect("up");
                indexes.push(index);
            }
            let [a, b] = indexes[..] else { panic!("two") };
            // The addresses come with the carrier.
            while netlink
                .interfaces()
                .await
                .expect("interfaces")
                .iter()
                .any(|it| [a, b].contains(&it.index) && it.addresses.is_empty())
            {
                tokio::task::yield_now().await;
            }
            let sender = Icmpv6::open(a, &[], &[]).expect("sender");
            let receiver = Icmpv6::open(b, &[134], &[ALL_ROUTERS]).expect("receiver");
            let mut buffer = [0; 64];
            // A solicitation is kept out, an advertisement is not.
            let message = |kind: u8| [kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            for group in [ALL_NODES, ALL_ROUTERS] {
                sender.send(&message(133), group).expect("sent");
                sender.send(&message(134), group).expect("sent");
                let received = receiver.recv(&mut buffer).await.expect("received");
                assert_eq!((received.length, buffer[0]), (16, 134));
                // The kernel wrote the checksum.
                assert_ne!(buffer[2..4], [0, 0]);
                assert_eq!((received.ttl, received.interface), (255, b));
                assert_eq!(received.to, group);
                let std::net::SocketAddr::V6(from) = received.from else {
                    panic!("{}", received.from);
                };
                assert!(from.ip().is_unicast_link_local(), "{from}");
                assert_eq!(from.scope_id(), b);
            }
            let error = Icmpv6::open(4_000, &[], &[]).expect_err("no such interface");
            assert_eq!(error.to_string(), "cannot send ICMPv6 on interface 4000");
        });
    }
}
