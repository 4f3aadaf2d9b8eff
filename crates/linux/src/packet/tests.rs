//! Needs root; without it each test says so and passes, except under CI.
//!
//! The kernel is the oracle: a client in the kernel resolves an address that only our responder
//! on the other end of a veth pair answers for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use proto::{arp, ethernet, ndp, responder::Outcome};

use super::*;
use crate::{
    alone::alone,
    netlink::{AddressFlags, Netlink, VethEnd},
};

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const VIP4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x12ab, 0xcdef);

/// Two ends of a cable in a network namespace of its own: the kernel's end has addresses, ours
/// has none.
struct Cable {
    netlink: Netlink,
    client: u32,
    ours: u32,
}

impl Cable {
    async fn lay() -> Self {
        let netlink = Netlink::open().expect("netlink");
        let end = |name, mac| VethEnd {
            name,
            mac: Some(mac),
            netns: None,
        };
        netlink
            .add_veth(end("client", CLIENT_MAC), end("ours", MAC))
            .await
            .expect("veth");
        let client = netlink.index_of("client").await.expect("client");
        let ours = netlink.index_of("ours").await.expect("ours");
        let nodad = AddressFlags {
            nodad: true,
            ..AddressFlags::default()
        };
        for (ip, prefix) in [("10.0.0.9", 24), ("fd00::9", 64)] {
            let ip = ip.parse().expect("address");
            netlink
                .add_address(client, ip, prefix, nodad)
                .await
                .expect("address");
        }
        for index in [client, ours] {
            netlink.set_up(index).await.expect("up");
        }
        let cable = Self {
            netlink,
            client,
            ours,
        };
        cable.carries().await;
        cable
    }

    /// Waits until frames get through: after `up` the kernel still drops some, silently.
    async fn carries(&self) {
        let sender = PacketSocket::open(self.client, Traffic::Arp).expect("sender");
        let receiver = PacketSocket::open(self.ours, Traffic::Arp).expect("receiver");
        let frame = arp::gratuitous(
            ethernet::Mac(CLIENT_MAC),
            Ipv4Addr::LOCALHOST,
            ethernet::Mac(CLIENT_MAC),
        )[0];
        while receiver.recv(&mut [0; 64]).is_err() {
            // Refused until the interface is up.
            let _ = sender.send(&frame);
            tokio::task::yield_now().await;
        }
    }

    /// What the kernel at the client's end has in its neighbour table.
    async fn resolved(&self, ip: IpAddr) -> Option<[u8; 6]> {
        let all = self.netlink.neighbours().await.expect("neighbours");
        let entry = all.iter().find(|n| n.device == self.client && n.ip == ip);
        entry.and_then(|n| n.mac)
    }
}

/// Runs a test with a cable in a network namespace of its own.
fn with_cable<F: Future<Output = ()>>(test: impl FnOnce(Cable) -> F + Send) {
    alone(async || test(Cable::lay().await).await);
}

/// Receives frames until `take` has made something of one.
async fn until<T>(socket: &AsyncPacketSocket, mut take: impl FnMut(&[u8]) -> Option<T>) -> T {
    let mut buffer = [0; 2048];
    loop {
        let length = socket.recv(&mut buffer).await.expect("recv");
        if let Some(taken) = take(&buffer[..length]) {
            return taken;
        }
    }
}

fn open(interface: u32, traffic: Traffic) -> AsyncPacketSocket {
    AsyncPacketSocket::new(PacketSocket::open(interface, traffic).expect("socket"))
        .expect("reactor")
}

#[test]
fn the_kernel_resolves_an_ipv4_address_that_we_answer_for() {
    with_cable(|cable| async move {
        let socket = open(cable.ours, Traffic::Arp);
        let mut responder = arp::Responder::new(ethernet::Mac(MAC));
        responder.announce(VIP4, None);
        let client = UdpSocket::bind("10.0.0.9:0").expect("client");
        client.send_to(b"hello", (VIP4, 9)).expect("send");
        let reply = until(&socket, |frame| match responder.on_frame(frame) {
            Outcome::Reply(frame) => Some(frame),
            _ => None,
        });
        socket.send(&reply.await).expect("send");
        while cable.resolved(VIP4.into()).await != Some(MAC) {
            tokio::task::yield_now().await;
        }
        // The address moves: the kernel believes the gratuitous frames. It does not within
        // `locktime` of 1 s after it has learned, so they are repeated as the announcer does.
        let new = [2, 0, 0, 0, 0, 0x55];
        while cable.resolved(VIP4.into()).await != Some(new) {
            for frame in arp::gratuitous(ethernet::Mac(new), VIP4, ethernet::Mac(new)) {
                socket.send(&frame).expect("send");
            }
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn the_kernel_resolves_an_ipv6_address_that_we_answer_for() {
    with_cable(|cable| async move {
        let socket = open(cable.ours, Traffic::Ndp);
        let mut groups = MulticastGroups::new(cable.ours);
        groups.join(ndp::solicited_node(VIP6)).expect("join");
        let mut responder = ndp::Responder::new(ethernet::Mac(MAC));
        responder.announce(VIP6, None);
        let client = UdpSocket::bind("[fd00::9]:0").expect("client");
        client.send_to(b"hello", (VIP6, 9)).expect("send");
        let reply = until(&socket, |frame| match responder.on_frame(frame) {
            Outcome::Reply(frame) => Some(frame),
            _ => None,
        });
        socket.send(&reply.await).expect("send");
        while cable.resolved(VIP6.into()).await != Some(MAC) {
            tokio::task::yield_now().await;
        }
        let new = [2, 0, 0, 0, 0, 0x55];
        let frame = ndp::unsolicited(ethernet::Mac(new), VIP6, ethernet::Mac(new));
        socket.send(&frame).expect("send");
        while cable.resolved(VIP6.into()).await != Some(new) {
            tokio::task::yield_now().await;
        }
    });
}

/// Foreign frames, then wanted ones, all marked: exactly the wanted must come out.
#[test]
fn the_filter_lets_only_its_traffic_through() {
    with_cable(|cable| async move {
        let arp =
            arp::gratuitous(ethernet::Mac(CLIENT_MAC), VIP4, ethernet::Mac(CLIENT_MAC))[0].to_vec();
        let na = ndp::unsolicited(ethernet::Mac(CLIENT_MAC), VIP6, ethernet::Mac(CLIENT_MAC));
        let changed = |frame: &[u8], at: usize, value: u8| {
            let mut frame = frame.to_vec();
            frame[at] = value;
            frame
        };
        let tagged =
            |frame: &[u8], vlan: u8| [&frame[..12], &[0x81, 0, 0x20, vlan], &frame[12..]].concat();
        let echo = changed(&na, 54, 128);
        let tcp = changed(&na, 20, 6);
        let to_other = |frame: &[u8]| [&[2, 0, 0, 0, 0, 0x33], &frame[6..]].concat();
        let to_us = |frame: &[u8]| [MAC.as_slice(), &frame[6..]].concat();
        let cases = [
            (
                Traffic::Arp,
                vec![tagged(&arp, 100), to_other(&arp), na.clone()],
                // A tag of VLAN 0 is for priority only.
                vec![tagged(&arp, 0), to_us(&arp), arp.clone()],
            ),
            (
                Traffic::Ndp,
                vec![tagged(&na, 100), to_other(&na), arp, echo, tcp],
                vec![tagged(&na, 0), to_us(&na), changed(&na, 54, 135), na],
            ),
        ];
        // From the client's end. Each frame is marked in its last byte, because the kernel takes
        // tags out; the kernel at that end speaks for itself meanwhile (MLD), unmarked.
        let sender = PacketSocket::open(cable.client, Traffic::Arp).expect("sender");
        for (traffic, foreign, wanted) in cases {
            let socket = open(cable.ours, traffic);
            for mut frame in foreign {
                *frame.last_mut().expect("byte") = 0xee;
                sender.send(&frame).expect("send");
            }
            let wanted: Vec<Vec<u8>> = wanted;
            for (mark, frame) in wanted.iter().enumerate() {
                let marked = changed(frame, frame.len() - 1, 0xf0 + mark as u8);
                sender.send(&marked).expect("send");
            }
            let mut marks: Vec<u8> = Vec::new();
            until(&socket, |frame| {
                marks.extend(frame.last().filter(|mark| **mark >= 0xee));
                (frame.last() == Some(&(0xef + wanted.len() as u8))).then_some(())
            })
            .await;
            let want: Vec<u8> = (0xf0..0xf0 + wanted.len() as u8).collect();
            assert_eq!(marks, want, "{traffic}");
        }
    });
}

#[test]
fn groups_open_the_device_and_close_it() {
    with_cable(|cable| async move {
        let listed = || {
            let all = std::fs::read_to_string("/proc/thread-self/net/dev_mcast").expect("list");
            all.lines()
                .filter(|l| l.contains("ours") && l.contains("3333ff1"))
                .count()
        };
        // More than one socket can hold (optmem_max is 128 KiB, formerly 20), and none that the
        // kernel itself is in for its link-local address.
        let all: Vec<Ipv6Addr> = (0x10_0000..0x10_1000u32)
            .map(|n| ndp::solicited_node(Ipv6Addr::from(u128::from(n))))
            .collect();
        let mut groups = MulticastGroups::new(cable.ours);
        for group in &all {
            groups.join(*group).expect("join");
        }
        groups.join(all[0]).expect("again");
        assert_eq!(listed(), all.len());
        println!("{groups:?}");
        groups.leave(all[0]).expect("leave");
        groups.leave(all[0]).expect("again");
        assert_eq!(listed(), all.len() - 1);
        cable.netlink.del_link(cable.ours).await.expect("delete");
        groups.leave(all[1]).expect("leave after the interface");
        drop(groups);
        assert_eq!(listed(), 0);
    });
}

#[test]
fn what_is_wrong_is_named() {
    with_cable(|_| async {
        for index in [0, 4711, u32::MAX] {
            let error = PacketSocket::open(index, Traffic::Ndp).expect_err("no such interface");
            assert!(error.is_missing() && !error.is_denied(), "{error:?}");
            let want = format!("cannot open a packet socket for NDP on interface {index}");
            assert_eq!(error.to_string(), want);
        }
        let error = MulticastGroups::new(4711).join(Ipv6Addr::LOCALHOST);
        assert!(error.is_err());
    });
}

#[test]
fn a_socket_outlives_its_interface_going_down() {
    with_cable(|cable| async move {
        let socket = PacketSocket::open(cable.ours, Traffic::Arp).expect("socket");
        cable.netlink.set_down(cable.ours).await.expect("down");
        let mut buffer = [0; 64];
        let error = loop {
            match socket.recv(&mut buffer) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let socket = AsyncPacketSocket::new(socket).expect("reactor");
        cable.netlink.set_up(cable.ours).await.expect("up");
        let client = UdpSocket::bind("10.0.0.9:0").expect("client");
        client.send_to(b"hello", (VIP4, 9)).expect("send");
        let packet = until(&socket, |frame| arp::Packet::parse(frame).ok()).await;
        assert_eq!(packet.target_ip, VIP4);
    });
}

#[test]
fn a_kernel_without_packet_sockets_is_told_from_a_missing_right() {
    for (errno, unsupported, denied) in [
        (libc::EAFNOSUPPORT, true, false),
        (libc::EPERM, false, true),
        (libc::ENODEV, false, false),
    ] {
        let error = PacketError::new("open", 1, io::Error::from_raw_os_error(errno));
        assert_eq!(
            (error.is_unsupported(), error.is_denied()),
            (unsupported, denied)
        );
    }
}

/// Of everything over IPv4 only what is for a port of BFD.
#[test]
fn bfd_is_told_from_the_rest() {
    with_cable(|cable| async move {
        let socket = open(cable.ours, Traffic::Bfd);
        let sender = PacketSocket::open(cable.client, Traffic::Arp).expect("sender");
        let frame = |words: u8, protocol: u8, fragment: u16, port: u16| {
            let mut frame = [&MAC[..], &CLIENT_MAC, &[0x08, 0x00, 0x40 | words]].concat();
            frame.resize(14 + usize::from(words) * 4 + 8, 0);
            frame[20..22].copy_from_slice(&fragment.to_be_bytes());
            frame[23] = protocol;
            let udp = 14 + usize::from(words) * 4;
            frame[udp + 2..udp + 4].copy_from_slice(&port.to_be_bytes());
            frame
        };
        let mut elsewhere = frame(5, 17, 0, 3784);
        elsewhere[5] = 0x77;
        let mut v6 = frame(5, 17, 0, 3784);
        v6[12..14].copy_from_slice(&[0x86, 0xdd]);
        let taken = [
            frame(5, 17, 0, 3784),
            frame(5, 17, 0x4000, 3785),
            frame(6, 17, 0, 3785),
        ];
        for dropped in [
            frame(5, 17, 0, 4784),
            frame(5, 17, 1, 3784),
            frame(5, 6, 0, 3784),
            frame(6, 17, 0, 53),
            elsewhere,
            v6,
        ] {
            sender.send(&dropped).expect("send");
        }
        for frame in &taken {
            sender.send(frame).expect("send");
        }
        for frame in taken {
            let next = until(&socket, |bytes| Some(bytes.to_vec())).await;
            assert_eq!(next, frame);
        }
    });
}
