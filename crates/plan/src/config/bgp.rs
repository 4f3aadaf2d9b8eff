//! BGPAdvertisement → [`BgpAdvertisement`]: the rules of one object, those with its pools and
//! those with other advertisements of the same pool.

use std::collections::{BTreeMap, BTreeSet};

use api::metallb::BGPAdvertisementSpec;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::bfd::BfdProfile;
use super::community::{CommunityError, CommunityValue};
use super::context::Context;
use super::l2::PoolChoice;
use super::peer::Peer;
use super::pool::Entry;
use super::selector::{Selector, chooses};
use super::verdict::Findings;
use crate::ipam::Pool;
use crate::name::Name;
use crate::net::Family;
use crate::world::Labels;

/// What is in force of BGP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bgp {
    /// Routers to hold sessions with.
    pub peers: BTreeMap<Name, Peer>,
    /// Advertisements with pools and communities resolved.
    pub advertisements: BTreeMap<Name, BgpAdvertisement>,
    /// BFD profiles, used or not.
    pub bfd_profiles: BTreeMap<Name, BfdProfile>,
}

impl Bgp {
    /// The BFD profile of a peer.
    pub fn profile_of(&self, peer: &Peer) -> Option<&BfdProfile> {
        self.bfd_profiles.get(peer.bfd_profile.as_ref()?)
    }

    /// Whether some advertisement gives weights.
    pub fn weighs(&self) -> bool {
        self.advertisements.values().any(|ad| ad.weighted)
    }

    pub(super) fn echoes(&self, peer: &Peer) -> bool {
        self.profile_of(peer)
            .is_some_and(|profile| profile.echo_ms.is_some())
    }
}

/// Which pools are advertised to which peers, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpAdvertisement {
    /// Its name.
    pub name: Name,
    /// The pools it reaches, by name or by label.
    pub pools: BTreeSet<Name>,
    /// Nodes that may announce; empty: all.
    pub node_selectors: Vec<Selector>,
    /// Services it is for; empty: all.
    pub service_selectors: Vec<Selector>,
    /// Peers to advertise to, whether they are in force or not; empty: all.
    pub peers: BTreeSet<Name>,
    /// Prefix length of IPv4 addresses.
    pub length_v4: u8,
    /// Prefix length of IPv6 addresses.
    pub length_v6: u8,
    /// LOCAL_PREF towards internal peers; `None`: not set.
    pub local_pref: Option<u32>,
    /// Communities, aliases resolved.
    pub communities: BTreeSet<CommunityValue>,
    /// MULTI_EXIT_DISC.
    pub med: u32,
    /// How many times more our AS number stands in the path.
    pub prepend: u8,
    /// Routers get traffic weights.
    pub weighted: bool,
}

impl BgpAdvertisement {
    /// Prefix length of the routes of an address.
    pub fn length(&self, family: Family) -> u8 {
        match family {
            Family::V4 => self.length_v4,
            Family::V6 => self.length_v6,
        }
    }

    /// Whether a node with these labels may announce.
    pub fn allows_node(&self, labels: &Labels) -> bool {
        chooses(&self.node_selectors, labels)
    }

    /// Whether it is for a Service with these labels.
    pub fn allows_service(&self, labels: &Labels) -> bool {
        chooses(&self.service_selectors, labels)
    }

    /// Whether it is for a peer.
    pub fn allows_peer(&self, name: &str) -> bool {
        self.peers.is_empty() || self.peers.contains(name)
    }
}

/// An advertisement whose pools and communities are still names.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) choice: PoolChoice,
    pub(super) communities: Vec<String>,
    pub(super) advertisement: BgpAdvertisement,
}

const COMMUNITY: &str = "write 65000:100 or large:65000:1:2";

/// Lengths, communities, names and selectors of one object.
pub(super) fn check(name: &str, spec: &BGPAdvertisementSpec, found: &mut Findings) -> Draft {
    let (v4, v6) = (spec.aggregation_length, spec.aggregation_length_v6);
    let (length_v4, length_v6) = lengths("spec", (v4, v6), 0, found);
    if !spec.service_selectors.is_empty() {
        for (field, default) in [
            ("aggregationLength", v4 == 32),
            ("aggregationLengthV6", v6 == 128),
        ] {
            if !default {
                found.error(
                    "spec.serviceSelectors",
                    format!(
                        "serviceSelectors and {field} are mutually exclusive, both cannot be set \
                         in {name}"
                    ),
                    "leave out the aggregation lengths, or use two advertisements",
                );
            }
        }
    }
    found.unique("spec.communities", &spec.communities);
    for (n, community) in spec.communities.iter().enumerate() {
        // Without a colon it is an alias.
        if community.contains(':')
            && let Err(error) = community.parse::<CommunityValue>()
        {
            found.error(
                format!("spec.communities[{n}]"),
                format!("invalid community {community:?} in BGP advertisement: {error}"),
                COMMUNITY,
            );
            found.upstream(community_message(community, &error));
        }
    }
    found.unique("spec.peers", &spec.peers);
    let choice = PoolChoice::check(
        &spec.ip_address_pools,
        &spec.ip_address_pool_selectors,
        found,
    );
    Draft {
        choice,
        communities: spec.communities.clone(),
        advertisement: BgpAdvertisement {
            name: name.into(),
            pools: BTreeSet::new(),
            node_selectors: found.selectors("spec.nodeSelectors", &spec.node_selectors),
            service_selectors: found.selectors("spec.serviceSelectors", &spec.service_selectors),
            peers: spec.peers.iter().map(|name| name.as_str().into()).collect(),
            length_v4,
            length_v6,
            local_pref: (spec.local_pref != 0).then_some(spec.local_pref),
            communities: BTreeSet::new(),
            med: 0,
            prepend: 0,
            weighted: false,
        },
    }
}

/// Aggregation lengths of both families, which stand in `place`; `least` is the shortest one of
/// IPv6.
pub(super) fn lengths(
    place: &str,
    (v4, v6): (i32, i32),
    least: u8,
    found: &mut Findings,
) -> (u8, u8) {
    let mut length = |field: &str, family: &str, length: i32, least: u8, most: u8| {
        let fits = u8::try_from(length).ok();
        let fits = fits.filter(|length| (least..=most).contains(length));
        fits.unwrap_or_else(|| {
            found.error(
                format!("{place}.{field}"),
                format!("invalid aggregation length {length} for {family}"),
                format!("choose a prefix length from {least} to {most}"),
            );
            most
        })
    };
    (
        length("aggregationLength", "IPv4", v4, 1, 32),
        length("aggregationLengthV6", "IPv6", v6, least, 128),
    )
}

/// MetalLB's text of a community that cannot be read.
fn community_message(text: &str, error: &CommunityError) -> String {
    format!("{error}\ninvalid community {text:?} in BGP advertisement")
}

/// The values of communities; an alias goes before a value that is written like it.
pub(super) fn resolve(
    communities: &[String],
    aliases: &BTreeMap<Name, CommunityValue>,
    found: &mut Findings,
) -> BTreeSet<CommunityValue> {
    let mut values = BTreeSet::new();
    for (n, text) in communities.iter().enumerate() {
        let value = aliases.get(text.as_str()).copied();
        match value.map_or_else(|| text.parse(), Ok) {
            Ok(value) => {
                values.insert(value);
            }
            Err(error) => {
                found.transient(
                    format!("spec.communities[{n}]"),
                    format!(
                        "invalid community {text:?} in BGP advertisement: {error}, and no \
                         Community in force has this alias"
                    ),
                    "create a Community with this alias, or write the value",
                );
                found.upstream(community_message(text, &error));
            }
        }
    }
    values
}

/// An aggregate must not reach beyond a pool.
pub(super) fn check_lengths(
    place: &str,
    (v4, v6): (u8, u8),
    (pool, entries): (&Pool, &[Entry]),
    found: &mut Findings,
) {
    for Entry { text, widest } in entries {
        let block = *widest;
        let (field, length, wanted) = match block {
            IpNet::V4(_) => ("aggregationLength", block.prefix_len(), v4),
            IpNet::V6(_) => ("aggregationLengthV6", block.prefix_len(), v6),
        };
        if wanted < length {
            found.error(
                format!("{place}.{field}"),
                format!(
                    "invalid aggregation length {wanted}: prefix {length} in this pool is more \
                     specific than the aggregation length for addresses {text} (pool {:?})",
                    pool.name
                ),
                format!(
                    "choose {length} or longer, or leave out pool {:?}",
                    pool.name
                ),
            );
        }
    }
}

/// What keeps an advertisement from a pool. `older` are those in force that reach it.
pub(super) fn check_pool<'a>(
    ad: &BgpAdvertisement,
    (pool, entries): (&Pool, &[Entry]),
    older: impl Iterator<Item = &'a BgpAdvertisement>,
    context: &Context<'_>,
    found: &mut Findings,
) {
    check_lengths("spec", (ad.length_v4, ad.length_v6), (pool, entries), found);
    for other in older {
        // A Service that has both is judged where it is announced.
        let by_service = !ad.service_selectors.is_empty() || !other.service_selectors.is_empty();
        if !by_service && !compatible(ad, other, pool, context) {
            let shown = |ad: &BgpAdvertisement| ad.local_pref.unwrap_or(0);
            found.error(
                "spec.localPref",
                format!(
                    "invalid local preference {}: local preference {} was already set for the \
                     same type of BGP update. Check existing BGP advertisements with common pools \
                     and aggregation lengths (pool {:?}, older advertisement {:?})",
                    shown(ad),
                    shown(other),
                    pool.name,
                    other.name
                ),
                "give both the same localPref, or peers, nodes or aggregation lengths that \
                 differ",
            );
        } else if same_wishes(ad, other) {
            found.warning(
                "spec",
                format!(
                    "duplicate definition of bgpadvertisements: for pool {:?} it says what {:?} \
                     says",
                    pool.name, other.name
                ),
                "leave out one of the two",
            );
        }
    }
}

/// Equal in all but the name and the pools.
fn same_wishes(a: &BgpAdvertisement, b: &BgpAdvertisement) -> bool {
    let bare = |ad: &BgpAdvertisement| BgpAdvertisement {
        name: "".into(),
        pools: BTreeSet::new(),
        ..ad.clone()
    };
    bare(a) == bare(b)
}

/// Whether no route of a Service that both are for gets two local preferences from them.
pub fn compatible(
    a: &BgpAdvertisement,
    b: &BgpAdvertisement,
    pool: &Pool,
    context: &Context<'_>,
) -> bool {
    agree(a, b, pool) || !context.share_node(&a.node_selectors, &b.node_selectors)
}

/// The same of two that are for the same node.
pub(crate) fn agree(a: &BgpAdvertisement, b: &BgpAdvertisement, pool: &Pool) -> bool {
    let has = |v4: bool| {
        let is = |block: &&IpNet| matches!(block, IpNet::V4(_)) == v4;
        pool.blocks.iter().any(|block| is(&block))
    };
    let lengths_differ =
        (!has(true) || a.length_v4 != b.length_v4) && (!has(false) || a.length_v6 != b.length_v6);
    let peers_differ = !a.peers.is_empty() && !b.peers.is_empty() && a.peers.is_disjoint(&b.peers);
    a.local_pref == b.local_pref || lengths_differ || peers_differ
}

/// Whether a peer with BFD echo would get routes of IPv6 from the advertisement: it names the
/// first such pool.
pub(super) fn echo_conflict<'a>(
    ad: &'a BgpAdvertisement,
    peer: &Peer,
    pools: &BTreeMap<Name, Pool>,
) -> Option<&'a Name> {
    let has_v6 = |name: &&Name| {
        let blocks = pools.get(*name).map(|pool| pool.blocks.as_slice());
        blocks
            .unwrap_or_default()
            .iter()
            .any(|block| matches!(block, IpNet::V6(_)))
    };
    ad.allows_peer(&peer.name)
        .then(|| ad.pools.iter().find(has_v6))?
}

/// What is said of it, whichever of the two is left out.
pub(super) fn echo_message(pool: &str, ad: &str, peer: &str) -> String {
    format!(
        "pool {pool} has bgpadvertisement {ad} which references peer {peer} which has bfd echo \
         enabled, which is not possible"
    )
}
