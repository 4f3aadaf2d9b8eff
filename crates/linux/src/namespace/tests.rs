//! Needs root or user namespaces; without them each test says so and passes, except under CI.

use super::*;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// Runs a shell in a sandbox; `None` when this user may not.
fn shell(script: &str) -> Option<(std::process::ExitStatus, String)> {
    let (read, write) = std::io::pipe().expect("pipe");
    let sandbox = Sandbox::new("/bin/sh")
        .arg("-c")
        .arg(script)
        .output(write.into());
    let mut child = match sandbox.spawn() {
        Ok(child) => child,
        Err(e) if e.is_denied() && std::env::var_os("CI").is_none() => {
            println!("skipped: {e}");
            return None;
        }
        Err(e) => panic!("{e:?}"),
    };
    let status = child
        .wait_timeout(Duration::from_secs(20))
        .expect("wait")
        .expect("ends in time");
    Some((status, std::io::read_to_string(read).expect("read")))
}

#[test]
fn a_sandbox_is_apart() {
    let script = "echo $$; readlink /proc/self/ns/net; ls /run; ls -d /proc/[0-9]* | wc -l; cat /proc/1/comm; id -u; exit 7";
    let Some((status, output)) = shell(script) else {
        return;
    };
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(status.code(), Some(7), "{output}");
    assert_eq!(lines[0], "2", "the program is PID 2");
    let own = std::fs::metadata("/proc/self/ns/net")
        .expect("own namespace")
        .ino();
    assert_ne!(lines[1], format!("net:[{own}]"));
    assert_eq!(&lines[2..5], ["lock", "netns", "sandbox"]);
    assert!(lines[5].parse::<u32>().expect("count") <= 5, "{output}");
    assert_eq!(lines[6], init::NAME);
    assert_eq!(lines[7], "0", "root inside");
}

#[test]
fn orphans_are_reaped() {
    // The inner shell's child outlives it, becomes PID 1's, ends, and must not stay a zombie.
    let script = "sh -c 'sh -c \"exit 0\" & echo $!' ; for i in $(seq 500); do \
                  grep -q 'State:.Z' /proc/[0-9]*/status 2>/dev/null || { echo clean; exit 0; }; done; exit 1";
    let Some((status, output)) = shell(script) else {
        return;
    };
    assert!(
        status.success() && output.ends_with("clean\n"),
        "{status}: {output}"
    );
}

#[test]
fn a_signal_to_the_program_is_its_status() {
    let Some((status, _)) = shell("kill -KILL $$") else {
        return;
    };
    assert_eq!(status.code(), Some(128 + 9));
}

#[test]
fn what_cannot_be_executed_is_named() {
    match Sandbox::new("/nonexistent/program").spawn() {
        Err(e) if e.is_denied() => println!("skipped: {e}"),
        Err(e) => assert_eq!(e.to_string(), "sandbox: cannot execute the program"),
        Ok(_) => panic!("started nothing"),
    }
}

#[test]
fn polite_signals_end_a_sandbox() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut child = match Sandbox::new("/bin/sleep").arg("1000").spawn() {
            Ok(child) => child,
            Err(e) if e.is_denied() => return println!("skipped: {e}"),
            Err(e) => panic!("{e:?}"),
        };
        let pid = rustix::process::Pid::from_raw(child.pid() as i32).expect("pid");
        rustix::process::kill_process(pid, signal).expect("kill");
        let status = child
            .wait_timeout(Duration::from_secs(10))
            .expect("wait")
            .expect("ends");
        assert_eq!(status.code(), Some(128 + signal.as_raw()));
    }
}

#[test]
fn no_namespace_outside_a_sandbox() {
    assert!(matches!(
        NetNs::create("x"),
        Err(NetNsError::NotInSandbox(_))
    ));
    assert!(matches!(NetNs::create("../x"), Err(NetNsError::Name(_))));
}

#[test]
fn the_own_namespace_can_be_entered() {
    let own = NetNs::current().expect("own");
    match own.run(|| {
        std::fs::metadata("/proc/thread-self/ns/net")
            .expect("ns")
            .ino()
    }) {
        Ok(inode) => assert_eq!(inode, own.inode().expect("inode")),
        Err(e) => println!("skipped: {e}"),
    }
}
