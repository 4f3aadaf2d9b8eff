//! BGP roles (RFC 9234): what each side of an external session is to the other, and what follows
//! for routes.
//!
//! Nothing is passed on from one neighbour to another here, so two of the rules of §5 have no
//! place: routes that come without ONLY_TO_CUSTOMER get none, and none is held back for it.

use std::fmt;

use super::{Asn, Attributes, Capability, Open};

/// What a speaker is to its neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Gives transit.
    Provider = 0,
    /// A route server.
    RouteServer = 1,
    /// Of a route server.
    RouteServerClient = 2,
    /// Takes transit.
    Customer = 3,
    /// A peer of equal rank.
    Peer = 4,
}

impl Role {
    const ALL: [Self; 5] = [
        Self::Provider,
        Self::RouteServer,
        Self::RouteServerClient,
        Self::Customer,
        Self::Peer,
    ];

    /// By the number in the capability; the others are not assigned.
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|role| *role as u8 == number)
    }

    /// The only one that the other side may have (§4.2, table 2).
    pub const fn counterpart(self) -> Self {
        match self {
            Self::Provider => Self::Customer,
            Self::Customer => Self::Provider,
            Self::RouteServer => Self::RouteServerClient,
            Self::RouteServerClient => Self::RouteServer,
            Self::Peer => Self::Peer,
        }
    }

    /// Whether a route that we send in this role must say ONLY_TO_CUSTOMER (§5: to a customer, a
    /// peer, a route server's client).
    pub(super) const fn marks(self) -> bool {
        matches!(self, Self::Provider | Self::RouteServer | Self::Peer)
    }

    /// Whether a route that we receive in this role has leaked (§5).
    pub(super) fn is_leak(self, attributes: &Attributes, remote_as: Asn) -> bool {
        attributes.only_to_customer.is_some_and(|asn| match self {
            Self::Provider | Self::RouteServer => true,
            Self::Peer => asn != remote_as,
            Self::Customer | Self::RouteServerClient => false,
        })
    }
}

/// In the RFC's words.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Provider => "provider",
            Self::RouteServer => "route server",
            Self::RouteServerClient => "route server client",
            Self::Customer => "customer",
            Self::Peer => "peer",
        })
    }
}

/// Our role towards a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalRole {
    /// The role.
    pub role: Role,
    /// The neighbour must say its own.
    pub strict: bool,
}

/// Roles that do not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleMismatch {
    /// Ours.
    pub ours: Role,
    /// The numbers that the peer says; empty: it says none, though we insist.
    pub theirs: Vec<u8>,
}

impl fmt::Display for RoleMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ours, wanted) = (self.ours, self.ours.counterpart());
        let named = |number: &u8| match Role::of(*number) {
            Some(role) => role.to_string(),
            None => format!("number {number}"),
        };
        let theirs: Vec<String> = self.theirs.iter().map(named).collect();
        match theirs.as_slice() {
            [] => write!(
                f,
                "the peer says no role, and strictRole wants one; remedy: give it the role \
                 {wanted}, or unset strictRole"
            ),
            [one] => write!(
                f,
                "the peer's role is {one}, ours is {ours}; remedy: give it the role {wanted}, or \
                 correct ours"
            ),
            more => write!(
                f,
                "the peer says more than one role ({}), ours is {ours}; remedy: give it the role \
                 {wanted} alone",
                more.join(", ")
            ),
        }
    }
}

/// Whether the peer's OPEN fits our role (§4.2). Without a role of ours its own is not looked at.
pub(super) fn check(ours: LocalRole, theirs: &Open) -> Result<(), RoleMismatch> {
    let mut said: Vec<u8> = Vec::new();
    for capability in &theirs.capabilities {
        if let Capability::Role(number) = capability
            && !said.contains(number)
        {
            said.push(*number);
        }
    }
    let fits = match said.as_slice() {
        [] => !ours.strict,
        [one] => *one == ours.role.counterpart() as u8,
        _ => false,
    };
    let (ours, theirs) = (ours.role, said);
    if fits {
        Ok(())
    } else {
        Err(RoleMismatch { ours, theirs })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::open, *};

    #[test]
    fn roles_that_fit() {
        use Role::{Customer, Peer, Provider, RouteServer, RouteServerClient};
        let pairs = [
            (Provider, Customer),
            (Customer, Provider),
            (RouteServer, RouteServerClient),
            (RouteServerClient, RouteServer),
            (Peer, Peer),
        ];
        for ours in Role::ALL {
            for number in 0..=u8::MAX {
                let theirs = Open {
                    // Twice the same is as once.
                    capabilities: vec![Capability::Role(number), Capability::Role(number)],
                    ..open()
                };
                let role = LocalRole {
                    role: ours,
                    strict: number % 2 == 0,
                };
                let fits = Role::of(number).is_some_and(|it| pairs.contains(&(ours, it)));
                assert_eq!(check(role, &theirs).is_ok(), fits, "{ours} {number}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let said = |ours: Role, strict: bool, theirs: &[u8]| {
            let theirs = Open {
                capabilities: theirs.iter().copied().map(Capability::Role).collect(),
                ..open()
            };
            check(LocalRole { role: ours, strict }, &theirs)
                .err()
                .map(|it| it.to_string())
        };
        assert_eq!(said(Role::Customer, false, &[]), None);
        for (ours, strict, theirs, want) in [
            (
                Role::Customer,
                true,
                &[][..],
                "the peer says no role, and strictRole wants one; remedy: give it the role \
                 provider, or unset strictRole",
            ),
            (
                Role::Customer,
                false,
                &[3],
                "the peer's role is customer, ours is customer; remedy: give it the role \
                 provider, or correct ours",
            ),
            (
                Role::RouteServer,
                false,
                &[77],
                "the peer's role is number 77, ours is route server; remedy: give it the role \
                 route server client, or correct ours",
            ),
            (
                Role::Customer,
                false,
                &[0, 4],
                "the peer says more than one role (provider, peer), ours is customer; remedy: \
                 give it the role provider alone",
            ),
        ] {
            assert_eq!(said(ours, strict, theirs).as_deref(), Some(want));
        }
    }

    #[test]
    fn leaks() {
        let remote = Asn(64513);
        for (role, none, theirs, other) in [
            (Role::Provider, false, true, true),
            (Role::RouteServer, false, true, true),
            (Role::Peer, false, false, true),
            (Role::Customer, false, false, false),
            (Role::RouteServerClient, false, false, false),
        ] {
            for (only_to_customer, leak) in [
                (None, none),
                (Some(remote), theirs),
                (Some(Asn(65000)), other),
            ] {
                let attributes = Attributes {
                    only_to_customer,
                    ..Attributes::default()
                };
                let found = role.is_leak(&attributes, remote);
                assert_eq!(found, leak, "{role} {only_to_customer:?}");
            }
        }
    }
}
