//! One Service: keep, give, clear or refuse, in MetalLB's order of steps.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use api::annotations::IP_ALLOCATED_FROM_POOL;
use serde::{Deserialize, Serialize};

use super::allocator::{Allocation, Allocator, Pending, Wants};
use super::error::{AllocationError, Families, Quoted};
use super::propose::Asker;
use super::request::{self, Want};
use crate::name::Name;
use crate::world::{FamilyPolicy, Labels, Service, ServiceType};

/// Settings of the controller that decide which Services are its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// `--lb-class`: only Services of exactly this class; `None`: only those without one.
    pub lb_class: Option<Name>,
}

/// What to record for a Service, what its status should say, and what to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// How it ended.
    pub outcome: Outcome,
    /// The addresses the Service has from now on; to be recorded before the status is written.
    pub allocation: Option<Allocation>,
    /// `status.loadBalancer.ingress` as it should be.
    pub ingress: Vec<IpAddr>,
    /// The annotation `metallb.io/ip-allocated-from-pool` as it should be.
    pub pool_annotation: Option<Name>,
    /// Events, in order.
    pub notes: Vec<Note>,
    /// Why the Service lacks an address (all, or one of two, or the one it asks for).
    pub pending: Option<Pending>,
}

/// How a decision ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The Service is of another class: nothing of it is touched.
    NotOurs,
    /// It is no load balancer: it has no address, and that is right.
    Cleared,
    /// It has its address.
    Settled,
    /// An error of the Service or the configuration, or no address left. Nothing is retried until
    /// something changes.
    Failed,
}

/// `type` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// For the record.
    Normal,
    /// Somebody should act.
    Warning,
}

/// `reason` of an event, with MetalLB's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// `IPAllocated`
    IpAllocated,
    /// `ClearAssignment`
    ClearAssignment,
    /// `AdditionalAssignFailed`
    AdditionalAssignFailed,
    /// `AllocationFailed`
    AllocationFailed,
    /// `LoadBalancerFailed`
    LoadBalancerFailed,
    /// `not enough clusterips`
    NotEnoughClusterIps,
    /// `nolbIPsIPFamily`
    NoLbIpsFamily,
    /// `noclusterIPsIPFamily`
    NoClusterIpsFamily,
    /// `deprecatedAnnotation`
    DeprecatedAnnotation,
}

impl Reason {
    /// The text in the event.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IpAllocated => "IPAllocated",
            Self::ClearAssignment => "ClearAssignment",
            Self::AdditionalAssignFailed => "AdditionalAssignFailed",
            Self::AllocationFailed => "AllocationFailed",
            Self::LoadBalancerFailed => "LoadBalancerFailed",
            Self::NotEnoughClusterIps => "not enough clusterips",
            Self::NoLbIpsFamily => "nolbIPsIPFamily",
            Self::NoClusterIpsFamily => "noclusterIPsIPFamily",
            Self::DeprecatedAnnotation => "deprecatedAnnotation",
        }
    }

    /// The event's type.
    pub const fn kind(self) -> Kind {
        match self {
            Self::IpAllocated | Self::ClearAssignment | Self::AdditionalAssignFailed => {
                Kind::Normal
            }
            _ => Kind::Warning,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event on the Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Its reason, which gives its type.
    pub reason: Reason,
    /// Its text.
    pub message: String,
}

impl Decision {
    /// Whether status or annotation of `service` differ from what they should be.
    pub fn needs_write(&self, service: &Service) -> bool {
        self.outcome != Outcome::NotOurs
            && (service.ingress.len() != self.ingress.len()
                || !service.assigned().eq(self.ingress.iter().copied())
                // Corten writes `ipMode: VIP`, which the API server gives to entries without one.
                || service.ingress.iter().any(|entry| entry.proxy)
                || service
                    .annotations
                    .get(IP_ALLOCATED_FROM_POOL)
                    .map(String::as_str)
                    != self.pool_annotation.as_deref())
    }

    fn new(outcome: Outcome, allocation: Option<Allocation>) -> Self {
        Self {
            outcome,
            ingress: allocation.as_ref().map_or_else(Vec::new, |a| a.ips.clone()),
            pool_annotation: allocation.as_ref().map(|a| a.pool.clone()),
            allocation,
            notes: Vec::new(),
            pending: None,
        }
    }

    fn not_ours(service: &Service) -> Self {
        Self {
            ingress: service.assigned().collect(),
            pool_annotation: service
                .annotations
                .get(IP_ALLOCATED_FROM_POOL)
                .map(|pool| pool.as_str().into()),
            ..Self::new(Outcome::NotOurs, None)
        }
    }
}

/// Decides about `service` as it is in World now.
///
/// Until pools, Namespaces and Services have been read do not call it: without pools every address
/// would be cleared. On a start call [`Allocator::adopt`] first, so that addresses are reclaimed
/// before new ones are given. Commit each decision before the next. `namespace_labels` are those of the Service's Namespace,
/// `None` while it is not known.
pub fn decide(
    allocator: &Allocator,
    service: &Service,
    namespace_labels: Option<&Labels>,
    options: &Options,
) -> Decision {
    let recorded = allocator.allocation(&service.key);
    if service.kind != ServiceType::LoadBalancer {
        // The API server wipes the class together with the type: what was allocated here is known
        // by the record or the annotation, and is cleaned up whatever the class is now.
        let ours = options.lb_class.is_none()
            || recorded.is_some()
            || service.annotations.contains_key(IP_ALLOCATED_FROM_POOL);
        return if ours {
            Decision::new(Outcome::Cleared, None)
        } else {
            Decision::not_ours(service)
        };
    }
    if service.class != options.lb_class {
        return Decision::not_ours(service);
    }
    let mut pass = Pass {
        allocator,
        asker: Asker {
            service,
            namespace_labels,
        },
        before: allocator.pending(&service.key),
        notes: Vec::new(),
        cleared: Vec::new(),
    };
    let mut decision = pass.run();
    decision.notes = pass.notes;
    if let Some(recorded) = recorded {
        decision.notes.extend(usurped(allocator, service, recorded));
    }
    if decision.allocation.as_ref() != recorded && decision.needs_write(service) {
        decision
            .notes
            .extend(request::deprecated(service).map(|key| Note {
                reason: Reason::DeprecatedAnnotation,
                message: format!("Service uses deprecated annotation {key}"),
            }));
    }
    decision
}

/// A deposed leader's last write may have landed after its successor gave the address to another
/// Service: the status is put right, and that is told.
fn usurped(allocator: &Allocator, service: &Service, recorded: &Allocation) -> Option<Note> {
    let foreign = service
        .assigned()
        .filter(|ip| !recorded.ips.contains(ip))
        .find_map(|ip| Some((ip, allocator.users(ip).find(|user| **user != service.key)?)));
    foreign.map(|(ip, holder)| Note {
        reason: Reason::ClearAssignment,
        message: format!("\"{ip}\" in its status belongs to \"{holder}\": taken back"),
    })
}

impl Allocator {
    /// Records what the statuses of `services` say, as far as it is allowed; on a start, when
    /// nothing else is known. Each comes with the labels of its Namespace. Of two Services with
    /// one address the one with more addresses has it, then the older one, then by name.
    pub fn adopt<'a>(
        &mut self,
        services: impl IntoIterator<Item = (&'a Service, Option<&'a Labels>)>,
        options: &Options,
    ) {
        let mut askers: Vec<Asker<'a>> = services
            .into_iter()
            .filter(|(service, _)| {
                service.kind == ServiceType::LoadBalancer && service.class == options.lb_class
            })
            .map(|(service, namespace_labels)| Asker {
                service,
                namespace_labels,
            })
            .collect();
        askers.sort_by_key(|asker| {
            let Service {
                ingress,
                created,
                key,
                ..
            } = asker.service;
            (Reverse(ingress.len()), created, key)
        });
        for asker in askers {
            let key = &asker.service.key;
            if self.allocation(key).is_none()
                && let Ok(allocation) = self.keep(asker, &request::status(asker.service))
            {
                // It was checked just now: there is no conflict, and nobody waits yet.
                let _ = self.record(key, Some(allocation));
            }
        }
    }
}

/// One pass over one Service of ours.
struct Pass<'a> {
    allocator: &'a Allocator,
    asker: Asker<'a>,
    /// What the last decision said the Service lacks.
    before: Option<&'a Pending>,
    notes: Vec<Note>,
    cleared: Vec<IpAddr>,
}

impl Pass<'_> {
    /// MetalLB's steps, in its order.
    fn run(&mut self) -> Decision {
        let service = self.asker.service;
        if self.allocator.pools().next().is_none() {
            return self.failed(Reason::AllocationFailed, None, AllocationError::NoPools);
        }
        let families = match request::families(service) {
            Ok(families) => families,
            Err(error) => return self.failed(Reason::NoClusterIpsFamily, None, error),
        };
        if service.family_policy == FamilyPolicy::RequireDualStack && families != Families::Dual {
            let error = AllocationError::NotEnoughClusterIps;
            return self.failed(Reason::NotEnoughClusterIps, None, error);
        }
        let held: Vec<IpAddr> = match self.allocator.allocation(&service.key) {
            Some(recorded) => recorded.ips.clone(),
            None => request::status(service),
        };
        let mut current = self.current(&held, families);

        let pool = request::pool(service);
        if let (Some(pool), Some(allocation)) = (&pool, &current)
            && allocation.pool != *pool
        {
            current = None;
        }
        let requested = match request::addresses(service) {
            Ok(requested) => requested,
            Err(error) if current.is_some() => {
                return self.failed(Reason::LoadBalancerFailed, current, error);
            }
            Err(error) => return self.failed(Reason::AllocationFailed, None, error),
        };
        if !requested.is_empty()
            && current
                .as_ref()
                .is_some_and(|has| !same_set(&has.ips, &requested))
        {
            current = None;
        }
        let want = Want::of(service, families);
        let any = requested.is_empty();
        let allocation = match current {
            Some(allocation) => allocation,
            None => match self.allocate(families, want, pool, requested) {
                Ok(allocation) => {
                    self.note(
                        Reason::IpAllocated,
                        format!("Assigned IP {}", Quoted(&allocation.ips)),
                    );
                    allocation
                }
                Err(error) => return self.failed(Reason::AllocationFailed, None, error),
            },
        };
        match (want, allocation.ips.as_slice()) {
            (Want::Prefer(_), &[ip]) if any => self.add_second(allocation, ip),
            _ => Decision::new(Outcome::Settled, Some(allocation)),
        }
    }

    /// What the Service holds, if it may go on holding it.
    fn current(&mut self, held: &[IpAddr], families: Families) -> Option<Allocation> {
        if held.is_empty() {
            // The status may show the cleared addresses again, as an echo: they were told.
            self.cleared = self
                .before
                .map_or_else(Vec::new, |before| before.cleared.clone());
            return None;
        }
        let service = self.asker.service;
        let Some(held_families) = request::families_of(held) else {
            let text = format!(
                "Failed to retrieve LBIPs IPFamily for {}: neither one address nor one of each family",
                Quoted(held)
            );
            self.clear(held, Reason::NoLbIpsFamily, text);
            return None;
        };
        let tolerated =
            families == Families::Dual && service.family_policy == FamilyPolicy::PreferDualStack;
        if held_families != families && !tolerated {
            return None;
        }
        match self.allocator.keep(self.asker, held) {
            Ok(allocation) => Some(allocation),
            Err(error) => {
                let text = format!(
                    "current IP for \"{}\" not allowed by config, will attempt for new IP assignment: {error}",
                    service.key
                );
                self.clear(held, Reason::ClearAssignment, text);
                None
            }
        }
    }

    /// Says once that `held` is not the Service's any more.
    fn clear(&mut self, held: &[IpAddr], reason: Reason, text: String) {
        if self.before.is_none_or(|before| before.cleared != held) {
            self.note(reason, text);
        }
        self.cleared = held.to_vec();
    }

    /// PreferDualStack with one address: the other family from the same pool, if it has one.
    fn add_second(&mut self, held: Allocation, ip: IpAddr) -> Decision {
        match self.allocator.second(self.asker, ip) {
            Ok(both) => {
                if let Some(added) = both.ips.last() {
                    self.note(
                        Reason::IpAllocated,
                        format!("Assigned additional IP \"{added}\""),
                    );
                }
                Decision::new(Outcome::Settled, Some(both))
            }
            Err(error) => {
                let mut decision = self.failed(Reason::AdditionalAssignFailed, Some(held), error);
                decision.outcome = Outcome::Settled;
                decision
            }
        }
    }

    fn allocate(
        &self,
        families: Families,
        want: Want,
        pool: Option<Name>,
        requested: Vec<IpAddr>,
    ) -> Result<Allocation, AllocationError> {
        if !requested.is_empty() {
            if request::families_of(&requested) != Some(families) {
                return Err(AllocationError::WrongFamily(requested));
            }
            return self.allocator.explicit(self.asker, &requested, pool);
        }
        match pool {
            Some(pool) => self.allocator.in_pool(self.asker, &pool, want),
            None => self.allocator.anywhere(self.asker, want),
        }
    }

    /// The decision of a Service that lacks something; told if it is new.
    fn failed(
        &mut self,
        reason: Reason,
        kept: Option<Allocation>,
        error: AllocationError,
    ) -> Decision {
        let key = &self.asker.service.key;
        // With a bad request it kept its address so far: that it has none now is new.
        let lost = kept.is_none() && self.allocator.allocation(key).is_some();
        if lost || self.before.is_none_or(|before| before.error != error) {
            let text = match reason {
                Reason::AdditionalAssignFailed => {
                    format!("cannot assign additional IP in PreferDualStack: {error}")
                }
                Reason::LoadBalancerFailed => {
                    format!("invalid requested loadbalancer IPs: {error}")
                }
                _ => format!("Failed to allocate IP for \"{key}\": {error}"),
            };
            self.note(reason, text);
        }
        // What is kept is recorded, and then the status counts for nothing.
        let cleared = match kept {
            Some(_) => Vec::new(),
            None => std::mem::take(&mut self.cleared),
        };
        let mut decision = Decision::new(Outcome::Failed, kept);
        decision.pending = Some(Pending {
            wants: self.wants(&error),
            error,
            cleared,
        });
        decision
    }

    /// Whose release would mend this.
    fn wants(&self, error: &AllocationError) -> Wants {
        match error {
            AllocationError::Exhausted => Wants::Any,
            AllocationError::PoolExhausted { pool, .. } => Wants::Pool(pool.clone()),
            // Only addresses that were asked for can be in use.
            AllocationError::InUse { .. } | AllocationError::PortInUse { .. } => {
                Wants::Addresses(request::addresses(self.asker.service).unwrap_or_default())
            }
            _ => Wants::Nothing,
        }
    }

    fn note(&mut self, reason: Reason, message: String) {
        self.notes.push(Note { reason, message });
    }
}

fn same_set(a: &[IpAddr], b: &[IpAddr]) -> bool {
    a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>()
}
