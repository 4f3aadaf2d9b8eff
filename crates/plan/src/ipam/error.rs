//! Why a Service has no address. The texts of MetalLB's cases are MetalLB's.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::name::{Name, ServiceKey};
use crate::net::{Family, Protocol};

/// The families that an address is wanted in, as MetalLB names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Families {
    /// One address.
    One(Family),
    /// One address of each family.
    Dual,
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One(Family::V4) => "ipv4",
            Self::One(Family::V6) => "ipv6",
            Self::Dual => "dual",
        })
    }
}

/// `["192.0.2.1" "2001:db8::1"]`.
pub(super) struct Quoted<'a>(pub(super) &'a [IpAddr]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (n, ip) in self.0.iter().enumerate() {
            let space = if n == 0 { "" } else { " " };
            write!(f, "{space}\"{ip}\"")?;
        }
        f.write_str("]")
    }
}

/// `a/b,c/d`.
struct Listed<'a>(&'a [ServiceKey]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, service) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{service}")?;
        }
        Ok(())
    }
}

/// Why no address could be given or kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum AllocationError {
    /// Every pool that may serve the Service is full, or there is none.
    #[error("no available IPs")]
    Exhausted,
    /// The pool that was asked for is full, or has no block of the family.
    #[error("no available IPs in pool {pool} for {families} IPFamily")]
    PoolExhausted {
        /// The pool.
        pool: Name,
        /// What was wanted of it.
        families: Families,
    },
    /// There is no pool of this name.
    #[error("unknown pool {0:?}")]
    UnknownPool(Name),
    /// There is no pool at all.
    #[error("no IPAddressPool is in force")]
    NoPools,
    /// The pool is frozen and gives nothing new.
    #[error("pool {0} gives no new addresses: its newest form is not valid")]
    Frozen(Name),
    /// No pool holds all of these addresses, or they are `.0` or `.255` where those are avoided.
    #[error("{} is not allowed in config", Quoted(.0))]
    NotInPool(Vec<IpAddr>),
    /// The pool is for other namespaces or Services.
    #[error("pool {0} not compatible for ip assignment")]
    NotCompatible(Name),
    /// The address has other users and they do not share it with this Service.
    #[error("can't change sharing key for \"{service}\", address also in use by {}", Listed(.others))]
    InUse {
        /// The Service that wants the address.
        service: ServiceKey,
        /// The address.
        address: IpAddr,
        /// Those who have it.
        others: Vec<ServiceKey>,
    },
    /// The address is shared, and another user has this port.
    #[error("port {protocol}/{port} is already in use on \"{address}\"")]
    PortInUse {
        /// The port's protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
        /// The address.
        address: IpAddr,
    },
    /// More than two addresses.
    #[error("more than two addresses {}", Quoted(.0))]
    TooMany(Vec<IpAddr>),
    /// Two addresses of one family.
    #[error("\"{0}\" \"{1}\" has the same family")]
    SameFamily(IpAddr, IpAddr),
    /// The addresses asked for are not of the Service's families.
    #[error("requested loadBalancer IP(s) {} does not match the ipFamily of the service", Quoted(.0))]
    WrongFamily(Vec<IpAddr>),
    /// Address and pool are both asked for and do not go together.
    #[error("requested loadBalancer IP(s) {} is not compatible with requested address pool {pool}", Quoted(.addresses))]
    NotInRequestedPool {
        /// The addresses asked for.
        addresses: Vec<IpAddr>,
        /// The pool asked for.
        pool: Name,
    },
    /// Annotation and field both name an address.
    #[error("service can not have both metallb.io/loadBalancerIPs and svc.Spec.LoadBalancerIP")]
    RequestedTwice,
    /// The annotation does not parse.
    #[error("invalid metallb.io/loadBalancerIPs: {0:?}")]
    BadAnnotation(String),
    /// The field does not parse.
    #[error("invalid spec.loadBalancerIP {0:?}")]
    BadField(String),
    /// The Service has no cluster IP, so that its family is not known.
    #[error("the Service has no cluster IP, so that its IP family is not known")]
    NoFamily,
    /// `RequireDualStack` with fewer than two cluster IPs.
    #[error("ipFamilyPolicy RequireDualStack needs two cluster IPs")]
    NotEnoughClusterIps,
}

/// An allocation that would give an address twice. The one that was recorded first stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is recorded for {}, {refused} can not have it too", Listed(.holders))]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// Those who keep it.
    pub holders: Vec<ServiceKey>,
    /// The Service whose allocation was refused.
    pub refused: ServiceKey,
    /// Why they can not share.
    #[source]
    pub reason: Box<AllocationError>,
}
