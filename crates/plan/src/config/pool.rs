//! IPAddressPool and AddressPool → [`Pool`].

use api::metallb::IPAddressPoolSpec;
use ipnet::IpNet;

use super::address::{self, Blocks};
use super::context::{Entries, KnownRange};
use super::object::{ObjectKind, ObjectRef};
use super::verdict::Findings;
use crate::ipam::{Pool, ServiceAllocation};
use crate::name::Name;

/// A pool as its object says, with the entry of `spec.addresses` that each block came from.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) pool: Pool,
    pub(super) block_entries: Vec<usize>,
    pub(super) entries: Vec<Entry>,
}

/// An entry of `spec.addresses`.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) text: String,
    /// Its largest block.
    pub(super) widest: IpNet,
}

/// The rules that need no other object.
pub(super) fn check(name: &str, spec: &IPAddressPoolSpec, found: &mut Findings) -> Draft {
    let (mut blocks, mut block_entries, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    let mut own: Blocks<usize> = Blocks::default();
    if spec.addresses.is_empty() {
        found.error(
            "spec.addresses",
            "pool has no prefixes defined",
            "list at least one CIDR or range",
        );
    }
    for (n, entry) in spec.addresses.iter().enumerate() {
        let field = format!("spec.addresses[{n}]");
        let parsed = match address::parse(entry) {
            Ok(parsed) => parsed,
            Err(error) => {
                found.error(field, error.to_string(), error.remedy());
                found.upstream(format!(
                    "parsing address pool {name}: invalid CIDR {entry:?} in pool {name:?}: {error}"
                ));
                continue;
            }
        };
        entries.extend(
            parsed
                .iter()
                .min_by_key(|block| block.prefix_len())
                .map(|widest| Entry {
                    text: entry.clone(),
                    widest: *widest,
                }),
        );
        for block in parsed {
            if let Some((other, earlier)) = own.meets(&block) {
                found.error(
                    field,
                    format!("CIDR {block} overlaps with {other} of spec.addresses[{earlier}]"),
                    "list every address once",
                );
                found.upstream(overlap(&block, name, other));
                break;
            }
            own.insert(block, n);
            blocks.push(block);
            block_entries.push(n);
        }
    }
    let allocation = spec.service_allocation.as_ref().map(|wanted| {
        let at = |field: &str| format!("spec.serviceAllocation.{field}");
        found.unique(&at("namespaces"), &wanted.namespaces);
        if wanted.priority < 0 {
            found.warning(
                at("priority"),
                format!(
                    "priority {} counts as unset, which is last",
                    wanted.priority
                ),
                "use 1 for the first pool, then 2 and so on",
            );
        }
        ServiceAllocation {
            priority: u32::try_from(wanted.priority).unwrap_or(0),
            namespaces: wanted
                .namespaces
                .iter()
                .map(|n| Name::from(n.as_str()))
                .collect(),
            namespace_selectors: found
                .selectors(&at("namespaceSelectors"), &wanted.namespace_selectors),
            service_selectors: found.selectors(&at("serviceSelectors"), &wanted.service_selectors),
        }
    });
    Draft {
        pool: Pool {
            name: name.into(),
            blocks,
            auto_assign: spec.auto_assign,
            avoid_buggy_ips: spec.avoid_buggy_ips,
            allocation,
            frozen: false,
        },
        block_entries,
        entries,
    }
}

fn overlap(block: &IpNet, pool: &str, other: &IpNet) -> String {
    format!("CIDR \"{block}\" in pool {pool:?} overlaps with already defined CIDR \"{other}\"")
}

/// No block of a pool may meet one of an older pool; those that do, each with its older pool.
pub(super) fn check_overlaps(
    draft: &Draft,
    kind: ObjectKind,
    older: &Blocks<ObjectRef>,
    found: &mut Findings,
) -> Vec<(IpNet, ObjectRef)> {
    let mut met = Vec::new();
    let mut last = None;
    for (block, entry) in draft.pool.blocks.iter().zip(&draft.block_entries) {
        if last == Some(entry) {
            continue;
        }
        if let Some((other, owner)) = older.meets(block) {
            last = Some(entry);
            let what = if owner.kind == kind {
                "pool".to_owned()
            } else {
                format!("{:?}", owner.kind)
            };
            found.error(
                format!("spec.addresses[{entry}]"),
                format!(
                    "{} of the older {what} \"{}\"",
                    overlap(block, &draft.pool.name, other),
                    owner.name
                ),
                "leave the addresses to one of the two pools",
            );
            found.upstream(overlap(block, &draft.pool.name, other));
            met.push((*block, owner.clone()));
        }
    }
    met
}

/// Warns where a pool holds addresses that the cluster uses itself.
pub(super) fn check_ranges(draft: &Draft, ranges: &[KnownRange<'_>], found: &mut Findings) {
    let blocks = draft.pool.blocks.iter().copied();
    let entries = Entries::new(blocks.zip(draft.block_entries.iter().copied()));
    for ((entry, _), (range, more)) in entries.met(ranges) {
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        found.warning(
            format!("spec.addresses[{entry}]"),
            format!("overlaps with {range}{more}"),
            "keep the pool's addresses apart from those that the cluster uses itself",
        );
    }
}

/// Freezes a pool; addresses that an older pool has now are that pool's.
pub(super) fn freeze(draft: Draft, older: &Blocks<ObjectRef>) -> Pool {
    let mut pool = draft.pool;
    let blocks = std::mem::take(&mut pool.blocks);
    let rest = |block: IpNet| older.rest_of(block);
    pool.blocks = blocks.into_iter().flat_map(rest).collect();
    pool.frozen = true;
    pool
}
