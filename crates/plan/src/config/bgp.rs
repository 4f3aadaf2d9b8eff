//! The rules of the BGP kinds that need no other object: syntax and ranges.

use std::net::IpAddr;

use api::duration::Duration;
use api::metallb::{BFDProfile, BGPAdvertisement, BGPPeer, Community};

use super::community::CommunityValue;
use super::l2::PoolChoice;
use super::verdict::Findings;

const SECOND: i64 = 1_000_000_000;

/// What MetalLB demands of a BGPPeer in any of its modes with FRR.
pub(super) fn peer(object: &BGPPeer, found: &mut Findings) {
    let spec = &object.spec;
    if spec.my_asn == 0 {
        found.error(
            "spec.myASN",
            "missing local ASN",
            "set myASN to the cluster's AS number",
        );
    }
    match (spec.peer_asn, spec.dynamic_asn) {
        (0, None) => found.error(
            "spec.peerASN",
            "missing peer ASN and dynamicASN",
            "set peerASN, or dynamicASN to internal or external",
        ),
        (asn, Some(_)) if asn != 0 => found.error(
            "spec.dynamicASN",
            "both peer ASN and dynamicASN specified",
            "leave out one of the two",
        ),
        _ => {}
    }
    if spec.local_asn == Some(0) {
        found.error(
            "spec.localASN",
            "invalid local ASN 0",
            "set 1 or more, or leave it out",
        );
    }
    match (spec.peer_address.as_str(), spec.interface.as_str()) {
        ("", "") => found.error(
            "spec.peerAddress",
            "missing peer address and interface",
            "set peerAddress, or interface for an unnumbered session",
        ),
        ("", _) => {}
        (_, "") => ip(
            "spec.peerAddress",
            "BGPPeer address",
            &spec.peer_address,
            found,
        ),
        _ => found.error(
            "spec.interface",
            "both peer address and interface specified",
            "leave out one of the two",
        ),
    }
    if !spec.source_address.is_empty() {
        ip(
            "spec.sourceAddress",
            "source IP",
            &spec.source_address,
            found,
        );
    }
    if !spec.router_id.is_empty() {
        ip("spec.routerID", "router ID", &spec.router_id, found);
    }
    if !(1..=16384).contains(&spec.peer_port) {
        found.error(
            "spec.peerPort",
            format!(
                "invalid port {}, must be in the range 1-16384",
                spec.peer_port
            ),
            "choose a port in the range; 179 is the default",
        );
    }
    timers(spec.hold_time, spec.keepalive_time, found);
    if let Some(connect) = spec.connect_time {
        let nanos = connect.as_nanos();
        if nanos % SECOND != 0 || !(SECOND..=65535 * SECOND).contains(&nanos) {
            found.error(
                "spec.connectTime",
                format!("invalid connect time {connect}: must be whole seconds from 1s to 65535s"),
                "choose whole seconds",
            );
        }
    }
    found.selectors("spec.nodeSelectors", &spec.node_selectors);
    if !spec.password.is_empty() && !spec.password_secret.name.is_empty() {
        found.error(
            "spec.passwordSecret",
            "can not have both password and secret ref set",
            "leave out spec.password",
        );
    }
    if spec.ebgp_multi_hop && spec.peer_asn == spec.my_asn && spec.my_asn != 0 {
        found.error(
            "spec.ebgpMultiHop",
            "invalid ebgp-multihop parameter set for an ibgp peer",
            "leave it out: sessions within one AS may be many hops long anyway",
        );
    }
    if spec.disable_mp {
        found.warning(
            "spec.disableMP",
            "disableMP is deprecated and has no effect",
            "leave it out",
        );
    }
}

fn ip(field: &str, what: &str, text: &str, found: &mut Findings) {
    if text.parse::<IpAddr>().is_err() {
        found.error(
            field,
            format!("invalid {what} {text:?}"),
            "write an IPv4 or IPv6 address",
        );
    }
}

/// Hold time 0 or at least 3 s, in whole seconds; keepalive not above it. One alone gives the
/// other.
fn timers(hold: Option<Duration>, keepalive: Option<Duration>, found: &mut Findings) {
    let negative = |time: &Option<Duration>| time.is_some_and(|time| time.as_nanos() < 0);
    let (hold_nanos, keepalive_nanos) = match (hold, keepalive) {
        (None, None) => return,
        (Some(hold), Some(keepalive)) => (hold.as_nanos(), keepalive.as_nanos()),
        (Some(hold), None) => (hold.as_nanos(), hold.as_nanos() / 3),
        (None, Some(keepalive)) => (keepalive.as_nanos().saturating_mul(3), keepalive.as_nanos()),
    };
    let seconds = hold_nanos / SECOND;
    if negative(&hold) || negative(&keepalive) || (seconds != 0 && seconds < 3) {
        found.error(
            "spec.holdTime",
            format!(
                "invalid hold time {}: must be 0 or >=3s",
                Duration::from_nanos(hold_nanos)
            ),
            "choose 3s or more, or 0s for no hold time",
        );
    } else if seconds > 65535 {
        found.error(
            "spec.holdTime",
            format!(
                "invalid hold time {}: the protocol has room for 65535s",
                Duration::from_nanos(hold_nanos)
            ),
            "choose 65535s or less",
        );
    } else if keepalive_nanos > hold_nanos {
        found.error(
            "spec.keepaliveTime",
            format!(
                "invalid keepaliveTime {}, must be lower than holdTime {}",
                Duration::from_nanos(keepalive_nanos),
                Duration::from_nanos(hold_nanos)
            ),
            "choose a third of the hold time",
        );
    }
}

/// Lengths, communities, names and selectors; aliases are resolved with the other objects.
pub(super) fn advertisement(object: &BGPAdvertisement, found: &mut Findings) {
    let spec = &object.spec;
    for (field, family, length, range) in [
        (
            "spec.aggregationLength",
            "IPv4",
            spec.aggregation_length,
            1..=32,
        ),
        (
            "spec.aggregationLengthV6",
            "IPv6",
            spec.aggregation_length_v6,
            0..=128,
        ),
    ] {
        if !range.contains(&length) {
            found.error(
                field,
                format!("invalid aggregation length {length} for {family}"),
                format!(
                    "choose a prefix length from {} to {}",
                    range.start(),
                    range.end()
                ),
            );
        }
    }
    if !spec.service_selectors.is_empty()
        && (spec.aggregation_length, spec.aggregation_length_v6) != (32, 128)
    {
        found.error(
            "spec.serviceSelectors",
            "serviceSelectors can not be used with aggregationLength or aggregationLengthV6",
            "leave out the aggregation lengths, or use two advertisements",
        );
    }
    found.unique("spec.communities", &spec.communities);
    for (n, community) in spec.communities.iter().enumerate() {
        // Without a colon it is an alias.
        if community.contains(':')
            && let Err(error) = community.parse::<CommunityValue>()
        {
            found.error(
                format!("spec.communities[{n}]"),
                error.to_string(),
                COMMUNITY,
            );
        }
    }
    found.unique("spec.peers", &spec.peers);
    PoolChoice::check(
        &spec.ip_address_pools,
        &spec.ip_address_pool_selectors,
        found,
    );
    found.selectors("spec.nodeSelectors", &spec.node_selectors);
    found.selectors("spec.serviceSelectors", &spec.service_selectors);
}

const COMMUNITY: &str = "write 65000:100 or large:65000:1:2";

/// Ranges of a BFD profile.
pub(super) fn bfd_profile(object: &BFDProfile, found: &mut Findings) {
    let spec = &object.spec;
    for (field, value, range) in [
        ("receiveInterval", spec.receive_interval, 10..=60000),
        ("transmitInterval", spec.transmit_interval, 10..=60000),
        ("detectMultiplier", spec.detect_multiplier, 2..=255),
        ("echoInterval", spec.echo_interval, 10..=60000),
        ("minimumTtl", spec.minimum_ttl, 1..=254),
    ] {
        if let Some(value) = value.filter(|value| !range.contains(value)) {
            let (low, high) = (range.start(), range.end());
            found.error(
                format!("spec.{field}"),
                format!("invalid value {value}, must be in {low}-{high} range"),
                format!("choose a value from {low} to {high}"),
            );
        }
    }
}

/// Values of aliases; that names are unique over all objects is checked with them.
pub(super) fn community(object: &Community, found: &mut Findings) {
    let aliases = &object.spec.communities;
    for (n, alias) in aliases.iter().enumerate() {
        if let Err(error) = alias.value.parse::<CommunityValue>() {
            found.error(
                format!("spec.communities[{n}].value"),
                format!("parsing community {:?}: {error}", alias.name),
                COMMUNITY,
            );
        }
        if aliases
            .iter()
            .take(n)
            .any(|earlier| earlier.name == alias.name)
        {
            found.error(
                format!("spec.communities[{n}].name"),
                format!("duplicate definition of community {:?}", alias.name),
                "give every alias its own name",
            );
        }
    }
}
