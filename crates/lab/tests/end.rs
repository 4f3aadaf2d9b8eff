//! However a lab ends, nothing of it stays: no process, no namespace.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::{wait_for, wait_until};
use rustix::process::{Pid, Signal, kill_process};

const SOON: Duration = Duration::from_secs(20);
/// All processes of one lab, those outside included, have this in their environment.
const MARK: &str = "LAB_TEST_MARK";

/// The lab that is killed; it runs only when the other test starts it.
#[test]
fn victim() {
    if std::env::var_os(MARK).is_none() {
        return;
    }
    lab::run("victim", async |lab| {
        let lan = lab.segment("lan").await?;
        let mut processes = Vec::new();
        for name in ["one", "two", "three"] {
            let host = lab.host(name).await?;
            lan.attach(&host, &[]).await?;
            let mut command = host.command("sh")?;
            // A child that ignores polite signals, and an orphan.
            command.args([
                "-c",
                "trap '' TERM INT HUP; (sleep 1000 &) ; sleep 1000; sleep 1000",
            ]);
            processes.push(host.spawn("sleep", command)?);
            wait_until(SOON, "its children", async || {
                host.processes().is_ok_and(|p| p.len() == 3)
            })
            .await?;
        }
        println!("ready");
        std::future::pending().await
    });
}

#[derive(Debug)]
struct Marked {
    pid: Pid,
    name: String,
    namespaces: BTreeSet<u64>,
}

fn marked(mark: &str) -> Vec<Marked> {
    let wanted = format!("{MARK}={mark}");
    let all = std::fs::read_dir("/proc").expect("proc").flatten();
    let found = all.filter_map(|entry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        environment
            .split(|b| *b == 0)
            .any(|v| v == wanted.as_bytes())
            .then_some(())?;
        let name = std::fs::read_to_string(entry.path().join("comm"))
            .ok()?
            .trim()
            .to_owned();
        let namespaces = ["net", "pid"].iter();
        let namespaces =
            namespaces.flat_map(|kind| std::fs::metadata(entry.path().join("ns").join(kind)));
        Some(Marked {
            pid,
            name,
            namespaces: namespaces.map(|m| m.ino()).collect(),
        })
    });
    found.collect()
}

/// All namespaces of all processes of the machine.
fn namespaces() -> BTreeSet<u64> {
    let all = std::fs::read_dir("/proc").expect("proc").flatten();
    let links = all.flat_map(|entry| ["net", "pid"].map(|kind| entry.path().join("ns").join(kind)));
    links.flat_map(std::fs::metadata).map(|m| m.ino()).collect()
}

fn start(mark: &str) -> Option<Child> {
    let program = std::env::current_exe().expect("own program");
    // A shell without job control starts its background processes with SIGINT ignored, and that is
    // handed down: here it must have its effect.
    let mut child = Command::new("env")
        .arg("--default-signal=INT,TERM,HUP")
        .arg(program)
        .args(["victim", "--exact", "--nocapture"])
        .env(MARK, mark)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("start");
    let mut output = child.stdout.take().expect("stdout");
    let mut seen = Vec::new();
    let mut byte = [0];
    // Ends at "ready", or with the process.
    while output.read(&mut byte).expect("read") > 0 {
        seen.extend(byte);
        if seen.ends_with(b"ready\n") {
            return Some(child);
        }
    }
    let status = child.wait().expect("wait");
    assert!(
        status.success(),
        "the victim failed: {}",
        String::from_utf8_lossy(&seen)
    );
    None // skipped, which it has said
}

#[derive(Debug, Clone, Copy)]
enum Victim {
    /// PID 1 of the sandbox.
    FirstProcess,
    /// What the user started, outside the sandbox.
    Outside,
}

/// False when the lab was skipped.
async fn ends(victim: Victim, signal: Signal) -> bool {
    let mark = format!("{victim:?}-{signal:?}-{}", std::process::id());
    let Some(mut outside) = start(&mark) else {
        return false;
    };
    // Outside, first process, test, three processes on each of three hosts: the shells start theirs
    // when they are run.
    let all = wait_for(SOON, "all processes", async || {
        let all = marked(&mark);
        if all.len() >= 12 { Ok(all) } else { Err(all) }
    });
    let before = all.await.unwrap_or_else(|e| panic!("{e}"));
    let own = ["net", "pid"].map(|kind| format!("/proc/self/ns/{kind}"));
    let own = own.map(|link| std::fs::metadata(link).expect("own namespace").ino());
    let mut inside: BTreeSet<u64> = before.iter().flat_map(|m| m.namespaces.clone()).collect();
    inside.retain(|namespace| !own.contains(namespace));
    // A PID namespace, the sandbox's network and three hosts'. (The segment's namespace has no
    // process.)
    assert_eq!(inside.len(), 5, "{before:?}");
    let killed = before.iter().find(|m| match victim {
        Victim::FirstProcess => m.name == "sandbox-init",
        Victim::Outside => m.pid.as_raw_nonzero().get().unsigned_abs() == outside.id(),
    });
    kill_process(killed.expect("the victim").pid, signal).expect("kill");
    // A process that is ending has no environment any more, but still its namespaces.
    let gone = wait_for(
        SOON,
        "the end of all processes and namespaces",
        async || {
            let ended = outside.try_wait().is_ok_and(|status| status.is_some());
            let left = (marked(&mark), namespaces().intersection(&inside).count());
            if ended && left.0.is_empty() && left.1 == 0 {
                Ok(())
            } else {
                Err((ended, left))
            }
        },
    );
    gone.await
        .unwrap_or_else(|e| panic!("{victim:?} by {signal:?}: {e}"));
    true
}

#[tokio::test]
async fn nothing_is_left_however_a_lab_ends() {
    // One after the other: the kernel gives the numbers of namespaces again.
    let ends = [
        (Victim::FirstProcess, Signal::KILL),
        (Victim::Outside, Signal::KILL),
        (Victim::Outside, Signal::INT),
        (Victim::Outside, Signal::TERM),
    ];
    for (victim, signal) in ends {
        if !self::ends(victim, signal).await {
            return;
        }
    }
}
