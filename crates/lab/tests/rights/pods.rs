//! The running Pods on a real cluster, as the kernel has them, with the accounts' own tokens.

use std::fs;
use std::path::{Path, PathBuf};

use lab::cluster::{Cluster, Options, Parts};
use lab::rights::Rights;

use crate::install::{SYSTEM, Stage};
use crate::stage::{Fault, MINUTES, turn};

/// Capabilities 12 and 13 (linux/capability.h).
const NET_ADMIN_AND_RAW: &str = "0000000000003000";
const NONE: &str = "0000000000000000";

#[test]
fn pods_have_what_they_need_and_no_more() {
    let name = "pods::pods_have_what_they_need_and_no_more";
    let Some(parts) = Parts::or_skip(name) else {
        return;
    };
    let _turn = turn();
    lab::run_for(name, MINUTES, async |lab| {
        let options = Options {
            nodes: 1,
            audit: true,
            ..Options::default()
        };
        let cluster = Cluster::up(&lab, &parts, options).await?;
        let stage = Stage::set(lab, cluster).await?;
        stage.line("kubectl apply -f deploy/corten.yaml").await?;
        stage.rolled_out().await?;
        stage.line("kubectl apply -f examples/l2").await?;
        let address = stage.addressed("myapp-svc").await?;
        stage.answers(address).await?;

        let node = stage.cluster.nodes()[0].pid().ok_or("no node")?;
        let node = Path::new("/proc").join(node.to_string());
        let agents = processes("agent")?;
        assert_eq!(agents.len(), 1, "{agents:?}");
        let controllers = processes("controller")?;
        assert_eq!(controllers.len(), 2, "{controllers:?}");
        for (process, capabilities) in agents
            .iter()
            .map(|process| (process, NET_ADMIN_AND_RAW))
            .chain(controllers.iter().map(|process| (process, NONE)))
        {
            confined(process, capabilities)?;
            assert_ne!(namespace(process, "pid")?, namespace(&node, "pid")?);
        }
        for controller in &controllers {
            assert_ne!(namespace(controller, "net")?, namespace(&node, "net")?);
            // Real, effective, saved, for files.
            assert!(
                !field(controller, "Uid")?
                    .split_whitespace()
                    .any(|id| id == "0")
            );
        }
        stage.lab.say("Pods are confined");

        let rights = Rights::read(stage.cluster.api(), SYSTEM).await?;
        let log = fs::read_to_string(stage.cluster.audit_log().ok_or("no audit log")?)?;
        let denied = rights.judge(&log)?.denied;
        assert!(denied.is_empty(), "{denied:#?}");
        let own = format!("serviceaccount:{SYSTEM}:corten-agent");
        assert!(log.contains(&own), "the agents ask as their account");
        stage.lab.say("nothing denied");
        Ok(())
    });
}

/// No capability but these, none to be had, no other system calls than the runtime's, nothing to
/// write to.
fn confined(process: &Path, capabilities: &str) -> Result<(), Fault> {
    let expected = [
        ("CapEff", capabilities),
        ("CapPrm", capabilities),
        ("CapBnd", capabilities),
        ("CapAmb", NONE),
        ("NoNewPrivs", "1"),
        // SECCOMP_MODE_FILTER
        ("Seccomp", "2"),
    ];
    for (name, wanted) in expected {
        assert_eq!(field(process, name)?, wanted, "{name} of {process:?}");
    }
    let mounts = fs::read_to_string(process.join("mountinfo"))?;
    let root = mounts
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.get(4) == Some(&"/"))
        .ok_or("no root")?;
    assert!(root[5].split(',').any(|option| option == "ro"), "{root:?}");
    Ok(())
}

/// The Pods' processes with this subcommand: they are in this sandbox, and nobody else's.
fn processes(subcommand: &str) -> Result<Vec<PathBuf>, Fault> {
    let start = format!("/corten\0{subcommand}\0");
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        if command.starts_with(start.as_bytes()) {
            found.push(process.path());
        }
    }
    Ok(found)
}

/// A line of `/proc/PID/status`.
fn field(process: &Path, name: &str) -> Result<String, Fault> {
    let status = fs::read_to_string(process.join("status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let line = line.ok_or_else(|| format!("no {name} in {status}"))?;
    Ok(line.trim().to_owned())
}

fn namespace(process: &Path, kind: &str) -> Result<PathBuf, Fault> {
    Ok(fs::read_link(process.join("ns").join(kind))?)
}
