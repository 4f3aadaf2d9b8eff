//! For the random sequences of [`crate::world`]: objects of BGP, and the routes found naively.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::config::CommunityValue;
use crate::net::Family;
use crate::world::tests::object;
use crate::world::{Policy, World};

/// Peers and advertisements that never conflict: a conflict's outcome is history by design.
pub(crate) fn an_object() -> impl Strategy<Value = config::Object> {
    let peers = prop_oneof![
        Just(json!({"name": "p0", "peerAddress": "10.9.0.1"})),
        Just(json!({"name": "p1", "peerAddress": "2001:db8:9::1"})),
        Just(json!({"name": "p2", "interface": "eth9"})),
        Just(json!({"name": "p4", "peerAddress": "10.9.0.4", "drainOnCordon": true})),
        Just(json!({"name": "p5", "peerAddress": "10.9.0.5", "addPath": true})),
        Just(json!({"name": "p3", "peerAddress": "10.9.0.3", "dualStackAddressFamily": true})),
    ];
    let nodes = prop_oneof![
        2 => Just(json!([])),
        1 => Just(json!([{"matchLabels": {"rack": "a"}}])),
        1 => Just(json!([{"matchExpressions": [{"key": "rack", "operator": "Exists"}]}])),
    ];
    let a_peer = (peers, nodes.clone(), 3u16..6).prop_map(|(mut spec, nodes, hold)| {
        let name = spec["name"].take();
        spec.as_object_mut().expect("fields").remove("name");
        spec["myASN"] = json!(1);
        spec["peerASN"] = json!(2);
        spec["nodeSelectors"] = nodes;
        spec["holdTime"] = json!(format!("{hold}s"));
        let name = name.as_str().expect("a name");
        match name {
            "p4" | "p5" => own("Peer", name, spec),
            _ => object("BGPPeer", name, "", spec),
        }
    });
    let an_advertisement = (
        (prop::sample::select(vec!["x", "y", "z", "w"]), nodes),
        prop_oneof![
            3 => Just(json!([])),
            1 => Just(json!(["a"])),
            1 => Just(json!(["six", "dual", "b"])),
        ],
        prop_oneof![
            3 => Just(json!([])),
            1 => Just(json!(["p0", "p1"])),
            1 => Just(json!(["p2"])),
        ],
        prop::sample::select(vec!["", "1:1", "1:1 2:2", "large:1:1:1"]),
        // An aggregate; Services with a label, where a conflict is judged for each.
        (
            any::<bool>(),
            prop::option::weighted(0.3, prop::sample::select(vec![0, 50, 200])),
        ),
        (0u32..3, any::<bool>()),
    )
        .prop_map(
            |((name, nodes), pools, peers, communities, (wide, red), (med, weighted))| {
                let communities: Vec<&str> = communities.split_whitespace().collect();
                let mut bgp = json!({"peers": peers, "communities": communities});
                let mut spec = json!({"nodeSelectors": nodes});
                if let Some(local_pref) = red {
                    spec["serviceSelectors"] = json!([{"matchLabels": {"team": "red"}}]);
                    bgp["localPref"] = json!(local_pref);
                } else if wide {
                    bgp["localPref"] = json!(150);
                    bgp["aggregationLength"] = json!(31);
                    bgp["aggregationLengthV6"] = json!(127);
                }
                if name == "w" {
                    bgp["med"] = json!(med);
                    bgp["weighted"] = json!(weighted);
                    spec["pools"] = pools;
                    spec["bgp"] = bgp;
                    return own("Advertisement", name, spec);
                }
                spec["ipAddressPools"] = pools;
                let (Value::Object(fields), Value::Object(more)) = (&mut spec, bgp) else {
                    panic!("not objects");
                };
                fields.extend(more);
                object("BGPAdvertisement", name, "", spec)
            },
        );
    prop_oneof![a_peer.boxed(), an_advertisement.boxed()]
}

/// What a cluster with BGP begins with.
pub(crate) fn beginning() -> Vec<config::Object> {
    let peer = json!({"myASN": 1, "peerASN": 2, "peerAddress": "10.9.0.1"});
    vec![
        object("BGPPeer", "p0", "", peer),
        own("Advertisement", "w", json!({"bgp": {"weighted": true}})),
    ]
}

/// `found` must be what follows from all Services, one by one, without any index.
pub(crate) fn check(world: &World, me: &str, found: &Bgp) {
    let config = world.config();
    let Some(node) = world.node(me) else {
        assert_eq!(*found, Bgp::default());
        return;
    };
    let excluded =
        node.labels.contains_key(EXCLUDE_LABEL) && !world.settings().ignore_exclude_label;
    let draining = world.node_state(me).is_some_and(|state| state.draining);
    let alone = !world.rivals().speaker_on(me);
    let on_node = |name: &&Name| alone && config.bgp.peers[*name].on_node(&node.labels);
    let names: Vec<&Name> = config.bgp.peers.keys().filter(on_node).collect();
    assert_eq!(found.peers.keys().collect::<Vec<_>>(), names);
    for (name, desired) in &found.peers {
        let wanted = &config.bgp.peers[name];
        let drains = excluded || draining || (node.cordoned && wanted.drain_on_cordon);
        assert_eq!(desired.drain.is_some(), drains);
        assert_eq!(
            desired.session.timers.hold,
            wanted.timers.map_or(180, |it| it.hold)
        );
        if wanted.add_path {
            // What a hub gets is in `hub`; that it is planned anew in time is seen elsewhere.
            continue;
        }
        // Prefix, then communities, whether all weigh, and the weight.
        type Sum = (BTreeSet<CommunityValue>, usize);
        let mut routes: BTreeMap<ipnet::IpNet, Sum> = BTreeMap::new();
        let mut unweighted = BTreeSet::new();
        for service in world.services() {
            for address in service.assigned().collect::<BTreeSet<_>>() {
                let held = world
                    .holders(address)
                    .any(|holder| holder.key == service.key);
                let family = Family::of(address);
                let pools: Vec<&Name> = config
                    .pools
                    .values()
                    .filter(|pool| pool.blocks.iter().any(|block| block.contains(&address)))
                    .map(|pool| &pool.name)
                    .collect();
                let ads: Vec<_> = config
                    .bgp
                    .advertisements
                    .values()
                    .filter(|ad| pools.iter().any(|pool| ad.pools.contains(*pool)))
                    .filter(|ad| ad.allows_service(&service.labels))
                    .collect();
                if !held {
                    continue;
                }
                let net = |ad: &config::BgpAdvertisement| {
                    let length = ad.length(family);
                    ipnet::IpNet::new(address, length)
                        .expect("a length")
                        .trunc()
                };
                unweighted.extend(ads.iter().filter(|ad| !ad.weighted).map(|ad| net(ad)));
                let mine: Vec<_> = ads
                    .into_iter()
                    .filter(|ad| ad.allows_node(&node.labels))
                    .collect();
                // Only those for some Services differ in preference and not in length.
                let prefs: BTreeSet<_> = mine
                    .iter()
                    .filter(|ad| ad.length_v4 == 32)
                    .map(|ad| (ad.local_pref, ad.peers.clone()))
                    .collect();
                let conflict = prefs.iter().any(|(pref, peers)| {
                    prefs.iter().any(|(other, others)| {
                        let apart =
                            !peers.is_empty() && !others.is_empty() && peers.is_disjoint(others);
                        pref != other && !apart
                    })
                });
                let endpoints: Vec<_> = world
                    .endpoints()
                    .slices(&service.key)
                    .flat_map(|slice| slice.endpoints.iter().map(move |it| (slice.family, it)))
                    .collect();
                let here = |node: &Option<Name>| node.as_deref() == Some(me);
                let local = service.external_policy == Policy::Local;
                let served = endpoints
                    .iter()
                    .any(|(_, it)| it.usable() && (!local || here(&it.node)));
                if conflict || node.network_unavailable || !served {
                    continue;
                }
                let ready: BTreeSet<_> = endpoints
                    .iter()
                    .filter(|(of, it)| *of == family && it.ready && here(&it.node))
                    .map(|(_, it)| it.address)
                    .collect();
                let weight = if local { ready.len() } else { 1 };
                for prefix in mine.iter().map(|ad| net(ad)).collect::<BTreeSet<_>>() {
                    let same = mine.iter().filter(|ad| net(ad) == prefix);
                    let mut for_me = same.filter(|ad| ad.allows_peer(name)).peekable();
                    if !desired.session.families.carries(family) {
                        continue;
                    }
                    let any = for_me.peek().is_some();
                    let communities = for_me.flat_map(|ad| ad.communities.clone());
                    let sum = routes.entry(prefix).or_default();
                    sum.0.extend(communities);
                    sum.1 += weight;
                    if any {
                        // A mark that no advertisement sets: the peer gets the prefix.
                        sum.0.insert(CommunityValue::Large(9, 9, 9));
                    }
                }
            }
        }
        let mark = CommunityValue::Large(9, 9, 9);
        let want: Vec<_> = routes
            .into_iter()
            .filter(|(_, (communities, _))| communities.contains(&mark))
            .map(|(prefix, (mut communities, weight))| {
                communities.remove(&mark);
                if drains {
                    communities.insert(GRACEFUL_SHUTDOWN);
                }
                let form = api::corten::v1alpha1::LinkBandwidth::Transitive;
                let weighs = !unweighted.contains(&prefix);
                (
                    prefix,
                    communities,
                    weighs.then(|| Bandwidth::of(weight, form)),
                )
            })
            .collect();
        let found: Vec<_> = desired
            .routes
            .iter()
            .map(|(prefix, it)| (*prefix, it.communities.clone(), it.bandwidth))
            .collect();
        assert_eq!(found, want, "{me} to {name}");
    }
}
