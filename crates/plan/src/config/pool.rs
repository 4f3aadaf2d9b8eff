//! IPAddressPool → [`Pool`].

use api::metallb::IPAddressPool;
use ipnet::IpNet;

use super::address::{self, Blocks};
use super::verdict::Findings;
use crate::ipam::{Pool, ServiceAllocation};
use crate::name::Name;

/// A pool as its object says, with the entry of `spec.addresses` that each block came from.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) pool: Pool,
    pub(super) entries: Vec<usize>,
}

/// The rules that need no other object.
pub(super) fn check(object: &IPAddressPool, found: &mut Findings) -> Draft {
    let spec = &object.spec;
    let (mut blocks, mut entries) = (Vec::new(), Vec::new());
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
                continue;
            }
        };
        for block in parsed {
            if let Some((other, earlier)) = own.meets(&block) {
                found.error(
                    field,
                    format!("CIDR {block} overlaps with {other} of spec.addresses[{earlier}]"),
                    "list every address once",
                );
                break;
            }
            own.insert(block, n);
            blocks.push(block);
            entries.push(n);
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
            name: object.metadata.name.as_str().into(),
            blocks,
            auto_assign: spec.auto_assign,
            avoid_buggy_ips: spec.avoid_buggy_ips,
            allocation,
            frozen: false,
        },
        entries,
    }
}

/// No block of a pool may meet one of an older pool.
pub(super) fn check_overlaps(draft: &Draft, older: &Blocks<Name>, found: &mut Findings) {
    let mut last = None;
    for (block, entry) in draft.pool.blocks.iter().zip(&draft.entries) {
        if last == Some(entry) {
            continue;
        }
        if let Some((other, owner)) = older.meets(block) {
            last = Some(entry);
            found.error(
                format!("spec.addresses[{entry}]"),
                format!(
                    "CIDR \"{block}\" in pool \"{}\" overlaps with already defined CIDR \"{other}\" \
                     of the older pool \"{owner}\"",
                    draft.pool.name
                ),
                "leave the addresses to one of the two pools",
            );
        }
    }
}

/// Freezes a pool; addresses that an older pool has now are that pool's.
pub(super) fn freeze(draft: Draft, older: &Blocks<Name>) -> Pool {
    let mut pool = draft.pool;
    let blocks = std::mem::take(&mut pool.blocks);
    let rest = |block: IpNet| older.rest_of(block);
    pool.blocks = blocks.into_iter().flat_map(rest).collect();
    pool.frozen = true;
    pool
}
