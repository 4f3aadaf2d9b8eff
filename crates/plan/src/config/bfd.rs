//! BFDProfile → [`BfdProfile`].

use api::metallb::BFDProfileSpec;
use serde::{Deserialize, Serialize};

use super::object::{Object, ObjectRef, Objects};
use super::verdict::Findings;
use crate::name::Name;

/// Settings of BFD sessions; what the object leaves out is FRR's default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdProfile {
    /// Its name.
    pub name: Name,
    /// Least interval between received packets, in milliseconds.
    pub receive_ms: u32,
    /// Least interval between sent packets, in milliseconds.
    pub transmit_ms: u32,
    /// How many packets may be missed.
    pub multiplier: u8,
    /// Echo packets are sent: this interval in milliseconds.
    pub echo_ms: Option<u32>,
    /// Waits for the neighbour to begin.
    pub passive: bool,
    /// Least TTL of packets of multihop sessions.
    pub minimum_ttl: u8,
}

/// Ranges of a BFD profile.
pub(super) fn check(name: &str, spec: &BFDProfileSpec, found: &mut Findings) -> BfdProfile {
    let mut number = |field: &str, value: Option<u32>, least: u32, most: u32, default: u32| {
        if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
            found.error(
                format!("spec.{field}"),
                format!("invalid value {value}, must be in {least}-{most} range"),
                format!("choose a value from {least} to {most}"),
            );
        }
        value.unwrap_or(default)
    };
    let small = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
    let receive_ms = number("receiveInterval", spec.receive_interval, 10, 60000, 300);
    let transmit_ms = number("transmitInterval", spec.transmit_interval, 10, 60000, 300);
    let multiplier = number("detectMultiplier", spec.detect_multiplier, 2, 255, 3);
    let echo_ms = number("echoInterval", spec.echo_interval, 10, 60000, 50);
    let minimum_ttl = number("minimumTtl", spec.minimum_ttl, 1, 254, 254);
    BfdProfile {
        name: name.into(),
        receive_ms,
        transmit_ms,
        multiplier: small(multiplier),
        echo_ms: spec.echo_mode.then_some(echo_ms),
        passive: spec.passive_mode,
        minimum_ttl: small(minimum_ttl),
    }
}

/// Why `profile` must not be deleted: the first object that uses it. `None`: it may go.
pub fn deletion_denied(objects: &Objects, profile: &ObjectRef) -> Option<String> {
    let user = objects.iter().find(|(reference, object)| {
        let used = match &***object {
            Object::BGPPeer(peer) => &peer.spec.bfd_profile,
            Object::Peer(peer) => &peer.spec.bfd_profile,
            _ => return false,
        };
        reference.namespace == profile.namespace && **used == *profile.name
    });
    user.map(|(user, _)| {
        format!(
            "failed to delete BFDProfile {}, used by {:?} {}",
            profile.name, user.kind, user.name
        )
    })
}
