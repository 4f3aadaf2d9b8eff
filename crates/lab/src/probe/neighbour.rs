//! Who answers for an address on the link.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use linux::netlink::Mac;
use linux::packet::{PacketSocket, Traffic};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::frame;
use crate::error::LabError;
use crate::host::Host;

/// Answers are repeated, as a first one may be lost while bridges learn.
const REPEATS: u32 = 3;

impl Host {
    /// Asks on `device` by ARP (or NDP) who has `target`, three times, and collects everyone who
    /// answers within `window`: more than one means two owners. In the order of their answers.
    pub async fn who_has(
        &self,
        device: &str,
        target: IpAddr,
        window: Duration,
    ) -> Result<Vec<Mac>, LabError> {
        let interface = self.interface(device).await?;
        let own = interface
            .mac
            .ok_or_else(|| self.lacks(format!("Ethernet address on {device}")))?;
        // The source matters little, but an answer to one that is not on the link may not come.
        let sources = interface.addresses.iter().map(|(ip, _)| *ip);
        let source = sources
            .filter(|ip| ip.is_ipv6() == target.is_ipv6())
            .find(|ip| *ip != target);
        let ask: (Traffic, Vec<u8>) = match (target, source) {
            (IpAddr::V4(target), Some(IpAddr::V4(source))) => {
                (Traffic::Arp, frame::arp_request(own, source, target))
            }
            // An ARP probe (RFC 5227) needs no address.
            (IpAddr::V4(target), _) => (
                Traffic::Arp,
                frame::arp_request(own, Ipv4Addr::UNSPECIFIED, target),
            ),
            (IpAddr::V6(target), Some(IpAddr::V6(source))) => {
                (Traffic::Ndp, frame::solicitation(own, source, target))
            }
            (IpAddr::V6(_), _) => return Err(self.lacks(format!("IPv6 address on {device}"))),
        };
        let index = interface.index;
        self.run_apart("ask for a neighbour", move || {
            collect(index, target, &ask.1, ask.0, window)
        })
        .await
    }

    /// Runs `f` on a thread inside while the lab goes on.
    pub(crate) async fn run_apart<T: Send + 'static>(
        &self,
        what: &str,
        f: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, LabError> {
        let ns = self.netns().clone();
        let ran = tokio::task::spawn_blocking(move || ns.run(f)).await;
        let ran = ran.map_err(|e| LabError::io(self.name(), what, io::Error::other(e)))?;
        ran?.map_err(|e| LabError::io(self.name(), what, e))
    }
}

fn collect(
    index: u32,
    target: IpAddr,
    ask: &[u8],
    traffic: Traffic,
    window: Duration,
) -> io::Result<Vec<Mac>> {
    let socket = PacketSocket::open(index, traffic).map_err(io::Error::other)?;
    let start = Instant::now();
    let mut owners: Vec<Mac> = Vec::new();
    let mut buffer = [0; 2048];
    let mut asked = 0;
    while start.elapsed() < window {
        if asked < REPEATS && start.elapsed() >= window / (REPEATS + 1) * asked {
            socket.send(ask)?;
            asked += 1;
        }
        let next = if asked < REPEATS {
            window / (REPEATS + 1) * asked
        } else {
            window
        };
        let limit =
            Timespec::try_from(next.saturating_sub(start.elapsed())).map_err(io::Error::other)?;
        poll(
            &mut [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)],
            Some(&limit),
        )?;
        loop {
            let length = match socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            };
            let owner = answer(buffer.get(..length).unwrap_or_default(), target);
            owners.extend(owner.filter(|mac| !owners.contains(mac)));
        }
    }
    Ok(owners)
}

fn answer(frame: &[u8], target: IpAddr) -> Option<Mac> {
    match target {
        IpAddr::V4(target) => frame::arp_reply(frame, Ipv4Addr::from(target.octets())),
        IpAddr::V6(target) => frame::advertisement(frame, Ipv6Addr::from(target.octets())),
    }
}
