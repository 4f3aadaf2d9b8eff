//! Which chains and rules of one of iptables' tables go, so that all others stay as they are. Pure.
//!
//! A chain that somebody else's rule leads to stays with what it leads to itself: without it that
//! rule could not be. Of such chains the kernel could not delete one either, and a transaction that
//! asks for it would fail as a whole.

use std::collections::{BTreeMap, BTreeSet};

use linux::nft::{ChainInfo, RuleInfo};

use super::names;

/// What goes of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Doomed {
    /// Chains, with all of their rules.
    pub(super) chains: Vec<String>,
    /// Rules of chains that stay, by chain and handle.
    pub(super) rules: Vec<(String, u64)>,
    /// Chains of kube-proxy's that stay, and what leads to them.
    pub(super) kept: Vec<(String, String)>,
}

/// Looks through a table.
pub(super) fn doomed(chains: &[ChainInfo], rules: &[RuleInfo]) -> Doomed {
    let base: BTreeSet<&str> = chains
        .iter()
        .filter(|chain| chain.hook.is_some() && names::BUILT_IN.contains(&&*chain.name))
        .map(|chain| &*chain.name)
        .collect();
    let mut going: BTreeSet<&str> = chains
        .iter()
        .filter(|chain| chain.hook.is_none() && names::is_chain(&chain.name))
        .map(|chain| &*chain.name)
        .collect();
    let mut kept: BTreeMap<&str, String> = BTreeMap::new();
    let mut keep = |going: &mut BTreeSet<&str>, chain, why| {
        going.remove(chain);
        kept.entry(chain).or_insert(why);
    };
    // What the kernel counts and no rule shows: elements of maps.
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for rule in rules {
        *seen.entry(&rule.chain).or_default() += 1;
        for target in &rule.targets {
            *seen.entry(target).or_default() += 1;
        }
    }
    for chain in chains {
        let seen = seen.get(&*chain.name).copied().unwrap_or(0);
        if chain.uses > seen && going.contains(&*chain.name) {
            keep(&mut going, &*chain.name, "a map leads there".to_owned());
        }
    }
    // Chains that stay lead to chains that stay.
    let entry = |rule: &RuleInfo, target: &str| {
        base.contains(&*rule.chain) && rule.targets.len() == 1 && names::is_entry(target)
    };
    loop {
        let before = going.len();
        for rule in rules {
            for target in &rule.targets {
                let stays = !going.contains(&*rule.chain);
                if stays && going.contains(&**target) && !entry(rule, target) {
                    let why = format!("a rule in chain {} leads there", rule.chain);
                    keep(&mut going, &**target, why);
                }
            }
        }
        // Whoever marks packets needs the other half.
        let halves = [names::MARK, names::MASQUERADE];
        if !going.contains(halves[0]) && going.contains(halves[1]) {
            let marks = chains.iter().any(|chain| chain.name == names::MARK);
            if marks {
                let why = format!("chain {} stays", names::MARK);
                keep(&mut going, halves[1], why);
            }
        }
        if going.len() == before {
            break;
        }
    }
    let leads = |rule: &&RuleInfo| {
        let stays = |target: &str| target == names::MASQUERADE && !going.contains(target);
        !going.contains(&*rule.chain)
            && rule
                .targets
                .iter()
                .any(|target| entry(rule, target) && !stays(target))
    };
    let rules = rules.iter().filter(leads);
    Doomed {
        rules: rules.map(|it| (it.chain.clone(), it.handle)).collect(),
        chains: going.into_iter().map(str::to_owned).collect(),
        kept: kept
            .into_iter()
            .map(|(chain, why)| (chain.to_owned(), why))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chains and rules from lines: `NAME` a chain, `*NAME` a base chain, `CHAIN > TARGET` a rule
    /// (with nothing behind, one that leads nowhere). Handles count from 1.
    fn table(text: &str) -> (Vec<ChainInfo>, Vec<RuleInfo>) {
        let (mut chains, mut rules) = (Vec::new(), Vec::new());
        for word in text.split(',').map(str::trim) {
            match word.split_once('>') {
                Some((chain, target)) => rules.push(RuleInfo {
                    chain: chain.trim().to_owned(),
                    handle: rules.len() as u64 + 1,
                    targets: target.split_whitespace().map(str::to_owned).collect(),
                    mark: Vec::new(),
                }),
                None => chains.push(ChainInfo {
                    table: "nat".to_owned(),
                    name: word.trim_start_matches('*').to_owned(),
                    hook: word.starts_with('*').then_some((0, -100)),
                    uses: 0,
                }),
            }
        }
        for chain in &mut chains {
            let uses = rules.iter().map(|rule| {
                let targets = rule.targets.iter().filter(|it| **it == chain.name);
                u32::from(rule.chain == chain.name) + targets.count() as u32
            });
            chain.uses = uses.sum();
        }
        (chains, rules)
    }

    fn look(text: &str) -> (String, String, String) {
        let (chains, rules) = table(text);
        let doomed = doomed(&chains, &rules);
        let rules = doomed.rules.iter().map(|(_, handle)| handle.to_string());
        let kept = doomed.kept.iter().map(|(chain, _)| &**chain);
        (
            doomed.chains.join(" "),
            Vec::from_iter(rules).join(" "),
            Vec::from_iter(kept).join(" "),
        )
    }

    #[test]
    fn what_goes_and_what_stays() {
        for (what, text, chains, rules, kept) in [
            (
                "nothing there",
                "*PREROUTING, cali-x, PREROUTING > cali-x",
                "",
                "",
                "",
            ),
            (
                "kube-proxy's",
                "*PREROUTING, *POSTROUTING, KUBE-SERVICES, KUBE-SVC-A, KUBE-SEP-A, KUBE-MARK-MASQ, \
                 KUBE-POSTROUTING, KUBE-KUBELET-CANARY, KUBE-MARK-DROP, PREROUTING > KUBE-SERVICES, \
                 PREROUTING >, POSTROUTING > KUBE-POSTROUTING, KUBE-SERVICES > KUBE-SVC-A, \
                 KUBE-SVC-A > KUBE-MARK-MASQ, KUBE-SVC-A > KUBE-SEP-A, KUBE-SEP-A > KUBE-MARK-DROP",
                "KUBE-MARK-MASQ KUBE-POSTROUTING KUBE-SEP-A KUBE-SERVICES KUBE-SVC-A",
                "1 3",
                "",
            ),
            (
                "another program masquerades by its mark",
                "*PREROUTING, *POSTROUTING, KUBE-SERVICES, KUBE-MARK-MASQ, KUBE-POSTROUTING, CNI, \
                 PREROUTING > KUBE-SERVICES, POSTROUTING > KUBE-POSTROUTING, CNI > KUBE-MARK-MASQ, \
                 KUBE-SERVICES > KUBE-MARK-MASQ",
                "KUBE-SERVICES",
                "1",
                "KUBE-MARK-MASQ KUBE-POSTROUTING",
            ),
            (
                "another program leads to a Service",
                "*OUTPUT, KUBE-SERVICES, KUBE-SVC-A, KUBE-SEP-A, KUBE-SVC-B, CNI, \
                 OUTPUT > KUBE-SERVICES, KUBE-SERVICES > KUBE-SVC-A, KUBE-SERVICES > KUBE-SVC-B, \
                 KUBE-SVC-A > KUBE-SEP-A, CNI > KUBE-SVC-A",
                "KUBE-SERVICES KUBE-SVC-B",
                "1",
                "KUBE-SEP-A KUBE-SVC-A",
            ),
            (
                "a built-in chain that leads where kube-proxy's rules do not",
                "*PREROUTING, KUBE-SERVICES, KUBE-MARK-MASQ, PREROUTING > KUBE-MARK-MASQ, \
                 PREROUTING > KUBE-SERVICES",
                "KUBE-SERVICES",
                "2",
                "KUBE-MARK-MASQ",
            ),
            (
                "a base chain of another name",
                "*mine, KUBE-SERVICES, mine > KUBE-SERVICES",
                "",
                "",
                "KUBE-SERVICES",
            ),
            (
                "kube-proxy's names on base chains",
                "*KUBE-SERVICES, *OUTPUT, KUBE-SERVICES >",
                "",
                "",
                "",
            ),
        ] {
            let found = look(text);
            let wanted = (chains.to_owned(), rules.to_owned(), kept.to_owned());
            assert_eq!(found, wanted, "{what}");
        }
    }

    #[test]
    fn what_a_map_leads_to_stays() {
        let (mut chains, rules) = table("*OUTPUT, KUBE-SERVICES, OUTPUT > KUBE-SERVICES");
        chains[1].uses += 1;
        let doomed = doomed(&chains, &rules);
        assert_eq!(doomed.chains, [""; 0]);
        let kept = [("KUBE-SERVICES".to_owned(), "a map leads there".to_owned())];
        assert_eq!(doomed.kept, kept);
    }
}
