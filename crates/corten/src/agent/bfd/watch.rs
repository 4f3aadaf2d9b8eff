//! A peer's hold on its BFD session.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU8;
use std::time::Duration;

use linux::netlink::Interface;
use plan::announce::bgp::{PeerKey, PeerSession};
use plan::config::{BfdProfile, RemoteAs};
use proto::bfd::{Hops, Key, Settings};
use tokio::sync::mpsc;

use super::{Bfd, Request, Target};

/// Keeps the session as the peer's settings want it. [`Watch::end`] ends it.
pub(in crate::agent) struct Watch {
    bfd: Bfd,
    owner: PeerKey,
    /// Between which addresses, once BGP has been up.
    target: Option<Target>,
    /// What was asked for.
    asked: Option<(Target, Settings)>,
    failed: mpsc::Sender<()>,
    failures: mpsc::Receiver<()>,
}

impl Watch {
    pub(in crate::agent) fn new(bfd: Bfd, owner: PeerKey) -> Self {
        // Of several failures that nobody has heard of, one is enough.
        let (failed, failures) = mpsc::channel(1);
        Self {
            bfd,
            owner,
            target: None,
            asked: None,
            failed,
            failures,
        }
    }

    /// BGP is up between these addresses.
    pub(in crate::agent) fn up(
        &mut self,
        session: &PeerSession,
        local: SocketAddr,
        peer: SocketAddr,
        interfaces: &[Interface],
    ) {
        self.target = Some(target(session, local, peer, interfaces));
    }

    /// The peer is another one: where it is shows when BGP is up again.
    pub(in crate::agent) fn forget(&mut self) {
        self.target = None;
    }

    /// Asks for what `session` wants, if that is news.
    pub(in crate::agent) async fn follow(&mut self, session: &PeerSession) {
        let wanted = session.bfd.as_ref().zip(self.target.as_ref());
        let wanted = wanted.map(|(profile, target)| {
            let settings = settings(profile, target.key.multihop);
            (target.clone(), settings)
        });
        if wanted == self.asked {
            return;
        }
        let kept = wanted.as_ref().map(|(target, _)| target);
        if let Some((target, _)) = self.asked.take()
            && Some(&target) != kept
        {
            let owner = self.owner.clone();
            self.bfd.send(Request::Release { owner, target }).await;
        }
        if let Some((target, settings)) = wanted.clone() {
            let request = Request::Set {
                owner: self.owner.clone(),
                target,
                settings,
                failed: self.failed.clone(),
            };
            self.bfd.send(request).await;
        }
        self.asked = wanted;
    }

    /// Waits until the path has failed.
    pub(in crate::agent) async fn failure(&mut self) {
        // `failed` keeps the channel open.
        let _ = self.failures.recv().await;
    }

    /// Ends the session; the neighbour is told that it is no failure.
    pub(in crate::agent) async fn end(&mut self) {
        if let Some((target, _)) = self.asked.take() {
            let owner = self.owner.clone();
            self.bfd.send(Request::Release { owner, target }).await;
        }
    }
}

fn target(
    session: &PeerSession,
    local: SocketAddr,
    peer: SocketAddr,
    interfaces: &[Interface],
) -> Target {
    let interface = match peer {
        SocketAddr::V6(peer) if peer.scope_id() != 0 => Some(peer.scope_id()),
        _ => None,
    };
    let near = interface.is_some() || on_link(peer.ip(), interfaces);
    Target {
        vrf: session.vrf.clone(),
        key: Key {
            peer: peer.ip(),
            local: Some(local.ip()),
            interface,
            multihop: is_far(session.remote, session.asn, session.multihop, near),
        },
    }
}

/// Over several hops where FRR says so: `ebgpMultiHop`, or an internal peer behind a router.
fn is_far(remote: RemoteAs, own: u32, multihop: bool, near: bool) -> bool {
    let internal = match remote {
        RemoteAs::Internal => true,
        RemoteAs::External => false,
        RemoteAs::Number(asn) => asn == own,
    };
    multihop || (internal && !near)
}

fn on_link(ip: IpAddr, interfaces: &[Interface]) -> bool {
    let mut addresses = interfaces.iter().flat_map(|it| &it.addresses);
    addresses.any(|(own, length)| {
        ipnet::IpNet::new(*own, *length).is_ok_and(|subnet| subnet.contains(&ip))
    })
}

fn settings(profile: &BfdProfile, multihop: bool) -> Settings {
    let millis = |ms: u32| Duration::from_millis(ms.into());
    Settings {
        transmit: millis(profile.transmit_ms),
        receive: millis(profile.receive_ms),
        multiplier: NonZeroU8::new(profile.multiplier).unwrap_or(NonZeroU8::MIN),
        echo: profile.echo_ms.map(millis),
        passive: profile.passive,
        hops: if multihop {
            Hops::Multi {
                minimum_ttl: profile.minimum_ttl,
            }
        } else {
            Hops::Single
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_internal_peers_behind_a_router_are_far_unless_told() {
        let own: IpAddr = "10.0.0.11".parse().expect("address");
        let interface = Interface {
            index: 2,
            name: "eth0".to_owned(),
            mac: None,
            up: true,
            carrier: true,
            flags: linux::netlink::LinkFlags::default(),
            master: None,
            mtu: 1500,
            addresses: vec![(own, 24)],
        };
        let near = "10.0.0.1".parse().expect("address");
        let far = "10.9.0.1".parse().expect("address");
        let interfaces = [interface];
        assert!(on_link(near, &interfaces));
        assert!(!on_link(far, &interfaces));
        let number = RemoteAs::Number;
        for (remote, peer, multihop, wanted) in [
            (RemoteAs::Internal, near, false, false),
            (RemoteAs::Internal, far, false, true),
            (number(64500), far, false, true),
            (number(64501), far, false, false),
            (RemoteAs::External, far, false, false),
            (RemoteAs::External, near, true, true),
        ] {
            let found = is_far(remote, 64500, multihop, on_link(peer, &interfaces));
            assert_eq!(found, wanted, "{remote:?} {peer} {multihop}");
        }
    }

    #[test]
    fn settings_are_what_the_profile_says() {
        let profile = BfdProfile {
            name: "fast".into(),
            receive_ms: 100,
            transmit_ms: 200,
            multiplier: 4,
            echo_ms: Some(50),
            passive: true,
            minimum_ttl: 250,
        };
        let near = settings(&profile, false);
        let ms = Duration::from_millis;
        assert_eq!((near.receive, near.transmit), (ms(100), ms(200)));
        assert_eq!((near.multiplier.get(), near.echo), (4, Some(ms(50))));
        assert_eq!((near.passive, near.hops), (true, Hops::Single));
        let far = settings(&profile, true);
        assert_eq!(far.hops, Hops::Multi { minimum_ttl: 250 });
    }
}
