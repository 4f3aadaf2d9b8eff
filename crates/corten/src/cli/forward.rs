//! `corten forward`: whose rules forward Services on this node, and the end of kube-proxy's.
//!
//! It works in the network namespace that it is started in: on the node itself, or in the agent's
//! container (`kubectl exec`), which has the node's.

use dataplane::leftovers::Leftovers;
use dataplane::nft::{Nft, TABLE};

use super::{Failure, kube_proxy};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Take away what a kube-proxy that has ended left on this node: its nftables tables, its chains
    /// in those of iptables and what leads to them, its virtual servers, sets and interface of IPVS.
    /// The kubelet's chains and everybody else's rules stay. Exit 1 when something is left that only
    /// another program can remove.
    #[arg(long)]
    cleanup: bool,
    /// With --cleanup: say what would be removed, and change nothing.
    #[arg(long, requires = "cleanup")]
    dry_run: bool,
    /// With --cleanup: also while kube-proxy runs here, which writes its rules again.
    #[arg(long, requires = "cleanup")]
    force: bool,
}

pub(super) fn main(options: &Options) -> Result<(), Failure> {
    let running = kube_proxy::running();
    if !options.cleanup {
        return show(running);
    }
    if let Some(running) = running.filter(|_| !options.force && !options.dry_run) {
        return Err(format!(
            "kube-proxy runs on this node ({running}) and would write its rules again; remedy: \
             kubectl -n kube-system delete daemonset kube-proxy, wait for the end of its Pods, and \
             run this once more (--force: remove them all the same)"
        )
        .into());
    }
    let found = match options.dry_run {
        true => Leftovers::find()?,
        false => Leftovers::clean()?,
    };
    let verb = match options.dry_run {
        true => "would remove",
        false => "removed",
    };
    print(verb, &found.lines());
    print("kept", &found.kept());
    if found.is_empty() {
        println!("nothing of kube-proxy's is here");
    }
    if !options.dry_run && !Nft::is_there()? {
        println!(
            "nothing of Corten's is here either: its agent has --forward all in kube-proxy's place"
        );
    }
    match found.out_of_reach() {
        left if left.is_empty() => Ok(()),
        left => Err(left.join("\n").into()),
    }
}

/// Who forwards here. Changes nothing.
fn show(running: Option<String>) -> Result<(), Failure> {
    match Nft::is_there()? {
        true => println!("Corten: table inet {TABLE}"),
        false => println!("Corten: nothing"),
    }
    match running {
        Some(running) => println!("kube-proxy: runs ({running})"),
        None => println!("kube-proxy: does not run here, as far as can be seen"),
    }
    let found = Leftovers::find()?;
    print("kube-proxy's", &found.lines());
    print("kube-proxy's", &found.out_of_reach());
    print("not removed by --cleanup", &found.kept());
    if found.is_empty() {
        println!("kube-proxy's: nothing");
    }
    Ok(())
}

fn print(what: &str, lines: &[String]) {
    for line in lines {
        println!("{what}: {line}");
    }
}
