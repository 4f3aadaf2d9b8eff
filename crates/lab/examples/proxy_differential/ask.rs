//! What is asked after a step: first packets to every address of a Service from every kind of
//! client, as often as it takes to meet every endpoint.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use plan::net::Protocol;

use crate::packet::Tuple;
use crate::side::{Fate, OWN_VIP, PRIMARY, Place, SECOND};
use crate::world::{PORTS, SERVICES, World, balanced, cluster_ip, external_ip, node_port, port};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Client {
    /// From outside, in most source ranges.
    Near,
    /// From outside, in few.
    Far,
    /// Pods of other nodes.
    RemotePod,
    LocalPod,
    /// A local Pod that is an endpoint now and then.
    Endpoint,
    /// The node, from its primary address, another one, and one that is also a Service's.
    Host,
    HostSecond,
    HostVip,
}

impl Client {
    const ALL: [Self; 8] = [
        Self::Near,
        Self::Far,
        Self::RemotePod,
        Self::LocalPod,
        Self::Endpoint,
        Self::Host,
        Self::HostSecond,
        Self::HostVip,
    ];

    const fn place(self) -> Place {
        match self {
            Self::Near | Self::Far | Self::RemotePod => Place::Outside,
            Self::LocalPod | Self::Endpoint => Place::Pods,
            Self::Host | Self::HostSecond | Self::HostVip => Place::Node,
        }
    }

    /// Whether each packet has a source of its own.
    pub(crate) const fn is_many(self) -> bool {
        matches!(
            self,
            Self::Near | Self::Far | Self::RemotePod | Self::LocalPod
        )
    }

    fn address(self, v6: bool, number: u32) -> Result<IpAddr, std::net::AddrParseError> {
        let fixed = |of: [&str; 2]| of[usize::from(v6)].parse();
        // Not in turns: the halves of a range take part alike.
        let low = number.wrapping_mul(40_503) & 0xffff;
        let v4 = |a: u8, b: u8| {
            let base = u32::from(Ipv4Addr::new(a, b, 0, 0));
            IpAddr::from(Ipv4Addr::from(base | low))
        };
        let far =
            |high: u128| IpAddr::from(Ipv6Addr::from((high << 64) + u128::from(number) + 256));
        Ok(match (self, v6) {
            (Self::Near, false) => v4(198, 18),
            (Self::Far, false) => v4(198, 19),
            (Self::RemotePod, false) => v4(10, 226),
            (Self::LocalPod, false) => v4(10, 225),
            (Self::Near, true) => far(0xfd51_0000_0000_0000),
            (Self::Far, true) => far(0xfd52_0000_0000_0000),
            (Self::RemotePod, true) => far(0xfd01_0000_0000_0040),
            (Self::LocalPod, true) => far(0xfd01_0000_0000_0080),
            (Self::Endpoint, _) => return fixed(["10.244.1.2", "fd01:0:0:1::2"]),
            (Self::Host, _) => return fixed(PRIMARY),
            (Self::HostSecond, _) => return fixed(SECOND),
            (Self::HostVip, _) => return fixed(OWN_VIP),
        })
    }
}

/// One client's packets to one address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Question {
    pub(crate) service: u8,
    pub(crate) protocol: Protocol,
    pub(crate) to: SocketAddr,
    pub(crate) client: Client,
}

/// A question, and how often it is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) question: Question,
    pub(crate) times: usize,
    /// All endpoints are met.
    pub(crate) whole: bool,
}

/// What was said to a question.
pub(crate) type Answer = BTreeSet<Fate>;

/// The questions about a Service: about its ports as often as needed (`whole`) or once; about what
/// is no port of its a few times (`whole`) or not.
pub(crate) fn about(world: &World, service: u8, whole: bool) -> Result<Vec<Ask>, crate::Fault> {
    let times = tries(world.endpoints(service));
    let mut asks = Vec::new();
    for v6 in [false, true] {
        let fronts = [
            cluster_ip(service, v6),
            external_ip(service, v6),
            balanced(service, v6),
            OWN_VIP[usize::from(v6)].to_owned(),
        ];
        let nodes = [PRIMARY, SECOND].map(|of| of[usize::from(v6)].to_owned());
        let of_fronts = fronts.iter().map(|at| (at, port as fn(u8, u8) -> u16));
        let of_nodes = nodes.iter().map(|at| (at, node_port as fn(u8, u8) -> u16));
        for (address, number) in of_fronts.chain(of_nodes) {
            let address: IpAddr = address.parse()?;
            // One number more, which no Service has.
            for index in 0..=PORTS {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let current = world.service(service);
                    let live = current.is_some_and(|service| service.has(index, protocol));
                    if !whole && !live {
                        continue;
                    }
                    for client in Client::ALL {
                        let question = Question {
                            service,
                            protocol,
                            to: SocketAddr::new(address, number(service, index)),
                            client,
                        };
                        asks.push(Ask {
                            question,
                            times: match (whole, live) {
                                (true, true) => times,
                                (true, false) => 1,
                                _ => 1,
                            },
                            whole,
                        });
                    }
                }
            }
        }
    }
    Ok(asks)
}

/// All Services' numbers.
pub(crate) fn all() -> impl Iterator<Item = u8> {
    0..SERVICES
}

/// So many packets meet each of `endpoints` but for a chance of 10^-4 (coupon collector; slots are
/// not quite equal). Who differs is asked again.
fn tries(endpoints: usize) -> usize {
    match endpoints {
        0 | 1 => 3,
        n => {
            let n = n as f64;
            let once = -(1.0 - 0.8 / n).ln();
            ((n * 1e4).ln() / once).ceil() as usize
        }
    }
}

/// The packets of a list of questions, each of another connection.
pub(crate) fn packets(
    asks: &[Ask],
    counter: &mut u32,
) -> Result<Vec<(Place, Tuple)>, crate::Fault> {
    let mut packets = Vec::new();
    for ask in asks {
        let Question {
            protocol,
            to,
            client,
            ..
        } = ask.question;
        for _ in 0..ask.times {
            *counter = counter.wrapping_add(1);
            let source = client.address(to.is_ipv6(), *counter)?;
            let from_port = 10_000 + (*counter % 50_000) as u16;
            let tuple = Tuple {
                protocol,
                source: SocketAddr::new(source, from_port),
                destination: to,
            };
            packets.push((client.place(), tuple));
        }
    }
    Ok(packets)
}

/// The answers to `asks`, in order.
pub(crate) fn answers(asks: &[Ask], fates: &[Fate]) -> Vec<Answer> {
    let mut rest = fates;
    asks.iter()
        .map(|ask| {
            let (now, later) = rest.split_at(ask.times.min(rest.len()));
            rest = later;
            now.iter().copied().collect()
        })
        .collect()
}
