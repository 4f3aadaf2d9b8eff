//! `errorSummary`: the fault that MetalLB's parser would stop at, in its words
//! (`spec/metallb.md` §1.10).

use crate::config::{Finding, ObjectKind, ObjectRef, Verdict};

/// Of the objects that are not in force the one that MetalLB reads first, and its first fault.
pub(super) fn of<'v>(bad: impl Iterator<Item = (&'v ObjectRef, &'v Verdict)>) -> Option<String> {
    let (object, verdict) = bad.min_by_key(|(object, _)| (turn(object.kind), *object))?;
    let mut findings = verdict.findings().iter();
    let fault = findings.find(|finding| !finding.warning)?;
    Some(text(object, fault))
}

/// When MetalLB reads the objects of a kind. It does not read those of the native kinds.
const fn turn(kind: ObjectKind) -> u8 {
    match kind {
        ObjectKind::BFDProfile => 0,
        ObjectKind::BGPPeer => 1,
        ObjectKind::Community => 2,
        ObjectKind::IPAddressPool => 3,
        ObjectKind::L2Advertisement => 4,
        ObjectKind::BGPAdvertisement => 5,
        ObjectKind::AddressPool | ObjectKind::Advertisement | ObjectKind::Peer => 6,
    }
}

/// What is wrong within an object is framed by its kind and name.
fn text(object: &ObjectRef, fault: &Finding) -> String {
    if !fault.upstream.is_empty() {
        return fault.upstream.clone();
    }
    let (name, message) = (&object.name, &fault.message);
    match object.kind {
        ObjectKind::BFDProfile => format!("parsing bfd profile {name}: {message}"),
        ObjectKind::BGPPeer if fault.field.starts_with("spec.nodeSelectors") => {
            format!("parsing peer {name} {message}\nfailed to convert peer {name} node selector")
        }
        ObjectKind::BGPPeer => format!("parsing peer {name} {message}"),
        ObjectKind::IPAddressPool => format!("parsing address pool {name}: {message}"),
        _ => message.clone(),
    }
}
