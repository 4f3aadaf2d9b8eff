//! What a Service asks for: its annotations and fields, read the way MetalLB reads them.

use std::net::IpAddr;

use api::annotations;

use crate::ipam::error::{AllocationError, Families};
use crate::ipam::{Allocation, SharingKey};
use crate::name::Name;
use crate::net::{Family, Protocol};
use crate::world::{FamilyPolicy, Policy, Service};

/// The value of an annotation, under its current or its deprecated key.
fn annotation<'a>(service: &'a Service, key: &str) -> Option<&'a str> {
    annotations::get(&service.annotations, key).map(|(value, _)| value)
}

/// The annotations with the deprecated prefix.
pub(super) fn deprecated(service: &Service) -> impl Iterator<Item = &str> {
    service
        .annotations
        .keys()
        .map(String::as_str)
        .filter(|key| key.starts_with(annotations::DEPRECATED_PREFIX))
}

/// The addresses in the status.
pub(super) fn status(service: &Service) -> Vec<IpAddr> {
    service.assigned().map(|ip| ip.to_canonical()).collect()
}

/// The pool asked for.
pub(super) fn pool(service: &Service) -> Option<Name> {
    annotation(service, annotations::ADDRESS_POOL)
        .filter(|name| !name.is_empty())
        .map(Name::from)
}

/// The addresses asked for, in the order of the annotation; empty: any.
pub(super) fn addresses(service: &Service) -> Result<Vec<IpAddr>, AllocationError> {
    let annotated =
        annotation(service, annotations::LOAD_BALANCER_IPS).filter(|text| !text.is_empty());
    let field = service
        .load_balancer_ip
        .as_deref()
        .filter(|text| !text.is_empty());
    match (annotated, field) {
        (None, None) => Ok(Vec::new()),
        (Some(_), Some(_)) => Err(AllocationError::RequestedTwice),
        (None, Some(text)) => match parse(text) {
            Some(ip) => Ok(vec![ip]),
            None => Err(AllocationError::BadField(text.to_owned())),
        },
        (Some(text), None) => {
            let ips = text
                .split(',')
                .map(|part| parse(part.trim()))
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| AllocationError::BadAnnotation(text.to_owned()))?;
            check_count(&ips)?;
            Ok(ips)
        }
    }
}

/// An IPv4 address in IPv6 dress is that IPv4 address, as for MetalLB.
fn parse(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// One address, or one of each family.
pub(super) fn check_count(ips: &[IpAddr]) -> Result<(), AllocationError> {
    match ips {
        [a, b] if Family::of(*a) == Family::of(*b) => Err(AllocationError::SameFamily(*a, *b)),
        [] | [_] | [_, _] => Ok(()),
        _ => Err(AllocationError::TooMany(ips.to_vec())),
    }
}

/// The families of a list that [`check_count`] let pass; `None` for an empty or odd list.
pub(super) fn families_of(ips: &[IpAddr]) -> Option<Families> {
    match ips {
        [ip] => Some(Families::One(Family::of(*ip))),
        [a, b] if Family::of(*a) != Family::of(*b) => Some(Families::Dual),
        _ => None,
    }
}

/// The families of the Service, from its cluster IPs.
pub(super) fn families(service: &Service) -> Result<Families, AllocationError> {
    let first = *service.families.first().ok_or(AllocationError::NoFamily)?;
    if service.families.contains(&first.other()) {
        Ok(Families::Dual)
    } else {
        Ok(Families::One(first))
    }
}

/// Which addresses an allocation must or should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// One of this family.
    One(Family),
    /// One of each.
    Both,
    /// One of each, or one of this family, or one of the other.
    Prefer(Family),
}

impl Want {
    pub(super) fn of(service: &Service, families: Families) -> Self {
        match families {
            Families::One(family) => Self::One(family),
            Families::Dual if service.family_policy == FamilyPolicy::PreferDualStack => {
                Self::Prefer(service.families.first().copied().unwrap_or(Family::V4))
            }
            Families::Dual => Self::Both,
        }
    }

    pub(super) const fn families(self) -> Families {
        match self {
            Self::One(family) => Families::One(family),
            Self::Both | Self::Prefer(_) => Families::Dual,
        }
    }
}

/// What decides whether the Service may share an address; `None`: it shares with nobody.
pub(crate) fn sharing(service: &Service) -> Option<SharingKey> {
    let sharing =
        annotation(service, annotations::ALLOW_SHARED_IP).filter(|key| !key.is_empty())?;
    let backend = match service.external_policy {
        Policy::Cluster => "".into(),
        Policy::Local => service.selector.clone(),
    };
    Some(SharingKey {
        sharing: sharing.into(),
        backend,
    })
}

/// The ports of the Service, sorted, each once.
pub(crate) fn ports(service: &Service) -> Vec<(Protocol, u16)> {
    let mut ports: Vec<_> = service
        .ports
        .iter()
        .map(|port| (port.protocol, port.port))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The use that `service` would make of `ips` of `pool`.
pub(super) fn allocation(service: &Service, pool: Name, ips: Vec<IpAddr>) -> Allocation {
    Allocation {
        ips,
        pool,
        sharing: sharing(service),
        ports: ports(service),
    }
}
