//! The kinds of `corten.dev` in terms of `metallb.io`'s, whose rules they share, and what they can
//! say beyond those.

use std::net::IpAddr;

use api::corten::v1alpha1::{
    Advertisement, AdvertisementSpec, BgpAnnouncement, Layer2, LinuxDevice, LinuxNative, MacMode,
    Peer, PeerSpec,
};
use api::metallb::{BGPAdvertisementSpec, BGPPeerSpec, L2AdvertisementSpec, SecretReference};

use super::object::ObjectKind;
use super::verdict::Findings;
use super::{Draft, L2Advertisement, bgp, l2, linux, peer, receive};

/// Longer paths serve nobody, and some routers refuse them.
const MOST_PREPENDED: u8 = 10;

/// What fields are called in the shared rules, and in the kind.
pub(super) const fn names(kind: ObjectKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        ObjectKind::Advertisement => &[
            ("spec.ipAddressPools", "spec.pools"),
            ("spec.ipAddressPoolSelectors", "spec.poolSelectors"),
            ("spec.interfaces", "spec.layer2.interfaces"),
            (
                "spec.preferredNodeSelectors",
                "spec.layer2.preferredNodeSelectors",
            ),
            ("spec.peers", "spec.bgp.peers"),
            ("spec.aggregationLength", "spec.bgp.aggregationLength"),
            ("spec.aggregationLengthV6", "spec.bgp.aggregationLengthV6"),
            ("spec.localPref", "spec.bgp.localPref"),
            ("spec.communities", "spec.bgp.communities"),
        ],
        ObjectKind::Peer => &[("spec.ebgpMultiHop", "spec.multihop")],
        _ => &[],
    }
}

/// An advertisement in layer 2 or by BGP, whichever it says.
pub(super) fn advertisement(object: &Advertisement, found: &mut Findings) -> Option<Draft> {
    let (name, spec) = (&object.metadata.name, &object.spec);
    match (&spec.layer2, &spec.bgp, &spec.linux) {
        (Some(layer2), None, None) => {
            let (choice, ad) = l2::check(name, &l2_spec(spec, layer2), found);
            let ad = L2Advertisement {
                virtual_mac: layer2.mac == MacMode::Virtual,
                hand_back: layer2.hand_back,
                ..ad
            };
            Some(Draft::L2(choice, ad))
        }
        (None, Some(by_bgp), None) => {
            let mut draft = bgp::check(name, &bgp_spec(spec, by_bgp), found);
            if by_bgp.prepend > MOST_PREPENDED {
                found.error(
                    "spec.bgp.prepend",
                    format!("invalid value {}, must be in 0-10 range", by_bgp.prepend),
                    "choose a value from 0 to 10",
                );
            }
            draft.advertisement.med = by_bgp.med;
            draft.advertisement.prepend = by_bgp.prepend;
            draft.advertisement.weighted = by_bgp.weighted;
            Some(Draft::Bgp(Box::new(draft)))
        }
        (None, None, Some(linux)) => Some(on_interface(name, spec, linux, found)),
        (None, None, None) => {
            found.error(
                "spec",
                "exactly one of layer2, bgp and linux must be given, and none is",
                "add layer2: {} to answer for the addresses by ARP and NDP, or bgp: {}",
            );
            None
        }
        _ => {
            found.error(
                "spec",
                "exactly one of layer2, bgp and linux must be given",
                "use one Advertisement for each",
            );
            None
        }
    }
}

/// Addresses on a network interface: on the LAN's the election is that of layer 2.
fn on_interface(
    name: &str,
    spec: &AdvertisementSpec,
    linux: &LinuxNative,
    found: &mut Findings,
) -> Draft {
    if linux.device == LinuxDevice::KubeLb0 {
        let (choice, ad) = linux::check(name, spec, linux, found);
        return Draft::Linux(choice, ad);
    }
    for (field, default) in [
        ("aggregationLength", linux.aggregation_length == 32),
        ("aggregationLengthV6", linux.aggregation_length_v6 == 128),
    ] {
        if !default {
            found.error(
                format!("spec.linux.{field}"),
                "an address on the LAN has the prefix length of its subnet",
                "leave it out; it is for device: kube-lb0",
            );
        }
    }
    let (choice, ad) = l2::check(name, &l2_spec(spec, &Layer2::default()), found);
    let ad = L2Advertisement {
        on_interface: true,
        ..ad
    };
    Draft::L2(choice, ad)
}

fn l2_spec(spec: &AdvertisementSpec, layer2: &Layer2) -> L2AdvertisementSpec {
    L2AdvertisementSpec {
        ip_address_pools: spec.pools.clone(),
        ip_address_pool_selectors: spec.pool_selectors.clone(),
        node_selectors: spec.node_selectors.clone(),
        interfaces: layer2.interfaces.clone(),
        service_selectors: spec.service_selectors.clone(),
        preferred_node_selectors: layer2.preferred_node_selectors.clone(),
    }
}

fn bgp_spec(spec: &AdvertisementSpec, by_bgp: &BgpAnnouncement) -> BGPAdvertisementSpec {
    BGPAdvertisementSpec {
        aggregation_length: by_bgp.aggregation_length,
        aggregation_length_v6: by_bgp.aggregation_length_v6,
        local_pref: by_bgp.local_pref,
        communities: by_bgp.communities.clone(),
        ip_address_pools: spec.pools.clone(),
        ip_address_pool_selectors: spec.pool_selectors.clone(),
        node_selectors: spec.node_selectors.clone(),
        peers: by_bgp.peers.clone(),
        service_selectors: spec.service_selectors.clone(),
    }
}

/// A peer; its port may be any.
pub(super) fn peer(object: &Peer, found: &mut Findings) -> Option<peer::Peer> {
    let spec = &object.spec;
    let metadata = &object.metadata;
    let checked = peer::check(&metadata.name, &metadata.namespace, &peer_spec(spec), found);
    if spec.peer_port == 0 {
        found.error(
            "spec.peerPort",
            "invalid port 0, must be in the range 1-65535",
            "choose a port in the range; 179 is the default",
        );
    }
    let ttl_security = ttl_security(spec, found);
    let next_hop = next_hop(spec, found);
    let listen = listen(spec, found);
    let role = role(spec, checked.as_ref(), found);
    let policy = spec.receive.as_ref();
    let receive = policy.map(|policy| receive::check(policy, &spec.vrf, found));
    checked.map(|peer| peer::Peer {
        port: spec.peer_port,
        ttl_security,
        link_bandwidth: spec.link_bandwidth.unwrap_or(peer.link_bandwidth),
        next_hop,
        listen,
        add_path: spec.add_path,
        role,
        receive,
        drain_on_cordon: spec.drain_on_cordon,
        ..peer
    })
}

fn ttl_security(spec: &PeerSpec, found: &mut Findings) -> Option<u8> {
    let hops = spec.ttl_security_hops?;
    if !(1..=254).contains(&hops) {
        found.error(
            "spec.ttlSecurityHops",
            format!("invalid value {hops}, must be in 1-254 range"),
            "choose 1 for a neighbour on the same link",
        );
    }
    if spec.multihop {
        found.error(
            "spec.ttlSecurityHops",
            "both ttlSecurityHops and multihop specified",
            "leave out multihop: ttlSecurityHops says how many hops there are",
        );
    }
    Some(hops)
}

/// A role is said only between systems (RFC 9234 §4).
fn role(
    spec: &PeerSpec,
    peer: Option<&peer::Peer>,
    found: &mut Findings,
) -> Option<peer::LocalRole> {
    let Some(role) = spec.role else {
        if spec.strict_role {
            found.error(
                "spec.strictRole",
                "strictRole without role",
                "set role to what the cluster is to the neighbour, or leave out strictRole",
            );
        }
        return None;
    };
    if peer.is_some_and(|it| it.remote.is_internal(it.local_asn.unwrap_or(it.my_asn))) {
        found.error(
            "spec.role",
            "role specified for a peer of our own AS",
            "leave it out: roles are for peers of another AS",
        );
    }
    let strict = spec.strict_role;
    Some(peer::LocalRole { role, strict })
}

/// Who connects to us is known by its address.
fn listen(spec: &PeerSpec, found: &mut Findings) -> Option<u16> {
    let listen = spec.listen.as_ref()?;
    if listen.port == 0 {
        found.error(
            "spec.listen.port",
            "invalid port 0, must be in the range 1-65535",
            "choose a port that nobody has on the nodes; the neighbour connects to it",
        );
    }
    if !spec.interface.is_empty() {
        found.error(
            "spec.listen",
            "both listen and interface specified",
            "write the neighbour's peerAddress, or leave out listen",
        );
    }
    Some(listen.port)
}

/// An IPv4 prefix may have an IPv6 next hop (RFC 8950), not the reverse.
fn next_hop(spec: &PeerSpec, found: &mut Findings) -> peer::NextHops {
    let Some(given) = &spec.next_hop else {
        return peer::NextHops::default();
    };
    let ipv4 = peer::ip("spec.nextHop.ipv4", "next hop", &given.ipv4, found);
    let ipv6 = match peer::ip("spec.nextHop.ipv6", "next hop", &given.ipv6, found) {
        Some(IpAddr::V4(address)) => {
            found.error(
                "spec.nextHop.ipv6",
                format!("invalid next hop \"{address}\" of IPv6 prefixes"),
                "write an IPv6 address",
            );
            None
        }
        Some(IpAddr::V6(address)) => Some(address),
        None => None,
    };
    peer::NextHops { ipv4, ipv6 }
}

fn peer_spec(spec: &PeerSpec) -> BGPPeerSpec {
    BGPPeerSpec {
        my_asn: spec.my_asn,
        peer_asn: spec.peer_asn,
        dynamic_asn: spec.dynamic_asn,
        local_asn: spec.local_asn,
        peer_address: spec.peer_address.clone(),
        interface: spec.interface.clone(),
        source_address: spec.source_address.clone(),
        // Its own rule for ports is MetalLB's alone.
        peer_port: BGPPeerSpec::default().peer_port,
        hold_time: spec.hold_time,
        keepalive_time: spec.keepalive_time,
        connect_time: spec.connect_time,
        router_id: spec.router_id.clone(),
        node_selectors: spec.node_selectors.clone(),
        password: String::new(),
        password_secret: SecretReference {
            name: spec.password_secret.name.clone(),
            namespace: String::new(),
        },
        bfd_profile: spec.bfd_profile.clone(),
        enable_graceful_restart: spec.graceful_restart,
        ebgp_multi_hop: spec.multihop,
        vrf: spec.vrf.clone(),
        disable_mp: false,
        dual_stack_address_family: spec.dual_stack,
    }
}
