//! `corten forward --cleanup` after the real kube-proxy, on nodes with a real kubelet: what is
//! kube-proxy's goes, all else is as it was.

use std::process::Output;

use lab::{Host, Outcome, bin};

use super::change::nft;
use super::town::Fault;

/// What it calls its chains, in part.
const CHAINS: [&str; 9] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-SVC-",
    "KUBE-SEP-",
    "KUBE-EXT-",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    "KUBE-FORWARD",
    "KUBE-PROXY-",
];

fn forward(host: &Host, arguments: &[&str]) -> Result<(Output, String), Fault> {
    let mut command = host.command(bin("corten")?)?;
    let output = command.arg("forward").args(arguments).output()?;
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    let said = said.concat();
    Ok((output, said))
}

/// It is not cleaned up after while it runs.
pub(super) fn runs(host: &Host) -> Outcome {
    let before = nft(host, &["list", "tables"])?;
    let (output, said) = forward(host, &["--cleanup"])?;
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("kube-proxy runs on this node (process "),
        "{said}"
    );
    assert_eq!(nft(host, &["list", "tables"])?, before);
    let (output, said) = forward(host, &[])?;
    assert!(
        output.status.success() && said.contains("kube-proxy: runs"),
        "{said}"
    );
    Ok(())
}

/// The tables that are neither proxy's, without the chains and rules of kube-proxy's in them.
fn others(host: &Host) -> Result<String, Fault> {
    let mut all = String::new();
    for table in nft(host, &["list", "tables"])?.lines() {
        if table.ends_with(" kube-proxy") || table == "table inet corten" {
            continue;
        }
        let words: Vec<&str> = table.split(' ').collect();
        let text = nft(host, &[&["-s", "list"][..], &words].concat())?;
        let mut within = false;
        for line in text.lines() {
            let its = CHAINS.iter().any(|chain| line.contains(chain)) || line.contains("MARK-MASQ");
            within |= its && line.starts_with("\tchain ");
            if !within && !its {
                all += &format!("{line}\n");
            }
            within &= line != "\t}";
        }
    }
    // Empty lines part chains.
    Ok(all
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| format!("{line}\n"))
        .collect())
}

/// It has ended: what it left, of which lines with these words tell, goes.
pub(super) fn clean(host: &Host, left: &[&str]) -> Outcome {
    for table in ["table inet other", "table ip filter", "table ip6 nat"] {
        let rule = format!(
            "add {table}; add chain {0} kept; add rule {0} kept tcp dport 7 drop; \
             add chain {0} mine {{ type filter hook input priority 7; }}; \
             add rule {0} mine tcp dport 7 jump kept",
            table.trim_start_matches("table ")
        );
        nft(host, &[&rule])?;
    }
    let before = others(host)?;
    assert!(before.contains("KUBE-KUBELET-CANARY"), "{before}");
    let (output, said) = forward(host, &["--cleanup", "--dry-run"])?;
    assert!(output.status.success(), "{said}");
    for part in left {
        let tells = |line: &str| line.starts_with("would remove: ") && line.contains(part);
        assert!(said.lines().any(tells), "{part}: {said}");
    }
    let (output, said) = forward(host, &["--cleanup"])?;
    assert!(output.status.success(), "{said}");
    for part in left {
        let tells = |line: &str| line.starts_with("removed: ") && line.contains(part);
        assert!(said.lines().any(tells), "{part}: {said}");
    }
    let tables = nft(host, &["list", "tables"])?;
    assert!(!tables.contains(" kube-proxy"), "{tables}");
    assert!(tables.contains("table inet corten"), "{tables}");
    let ruleset = nft(host, &["list", "ruleset"])?;
    for chain in CHAINS {
        assert!(!ruleset.contains(chain), "{chain} is in {ruleset}");
    }
    assert_eq!(others(host)?, before);
    let (output, said) = forward(host, &["--cleanup"])?;
    assert!(
        output.status.success() && said.contains("nothing of kube-proxy's"),
        "{said}"
    );
    for table in [["ip", "filter"], ["ip6", "nat"]] {
        for what in ["flush", "delete"] {
            for chain in ["mine", "kept"] {
                nft(host, &[what, "chain", table[0], table[1], chain])?;
            }
        }
    }
    nft(host, &["delete", "table", "inet", "other"])?;
    Ok(())
}
