//! The one cluster that `cargo xtask cluster` keeps on a machine: a process in the background
//! holds the sandbox, and commands enter it.
//!
//! ```text
//! cluster up ── starts ──► keeper (holds the lock) ── sandbox: PID 1 ── keeper's inside: Cluster
//! cluster kubectl, exec, load-image ── nsenter ─────────────┘
//! cluster down ── kills the keeper; the kernel does the rest; then the cgroups are removed
//! ```
//!
//! Owns: `target/cluster` (lock, log, state) and the lab's folder `target/lab/cluster`; with
//! `LAB_CLUSTER=NAME` it is `NAME` in place of `cluster`.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Cluster, Options, Parts, Proxy, cgroups, config, parts};
use crate::controlplane::Account;
use crate::controlplane::build::target;
use crate::{Lab, Outcome, sandbox};

/// Another cluster beside the one that `cargo xtask cluster` keeps: tests have their own.
const NAME: &str = "LAB_CLUSTER";
const USAGE: &str = "\
usage: cluster up [--nodes N] [--proxy nftables|none] [--dual-stack]
       cluster kubectl ARGUMENT...
       cluster exec client|router|api|node-N PROGRAM [ARGUMENT]...
       cluster load-image FILE.tar...
       cluster down";
/// How often the keeper's log is looked at.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long a look at the lock may take.
const MOMENT: Duration = Duration::from_secs(1);
/// How long a killed keeper may take to be gone.
const GONE: Duration = Duration::from_secs(20);

/// Carries out a command line (without the program's name).
pub fn main(arguments: &[OsString]) -> ExitCode {
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.to_str().unwrap_or_default(), rest),
        None => ("", [].as_slice()),
    };
    let done = match command {
        "up" => options(rest).and_then(|options| up(options, rest)),
        "keep" => return keep(rest),
        "kubectl" => kubectl(rest),
        "exec" => exec(rest),
        "load-image" => load_images(rest),
        "down" if rest.is_empty() => down(),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(0)
        }
        _ => Err(Failure::Usage(format!("no such command: {command:?}"))),
    };
    match done {
        Ok(code) => code.into(),
        Err(Failure::Usage(text)) => {
            eprintln!("cluster: {text}\n{USAGE}");
            2.into()
        }
        Err(Failure::Failed(text)) => {
            eprintln!("cluster: {text}");
            1.into()
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Failure {
    Usage(String),
    Failed(String),
}

type Done<T = u8> = Result<T, Failure>;

fn failed<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl Fn(E) -> Failure {
    move |error| Failure::Failed(format!("cannot {what}: {error}"))
}

fn options(arguments: &[OsString]) -> Done<Options> {
    let mut options = Options::default();
    let mut words = arguments
        .iter()
        .map(|word| word.to_str().unwrap_or_default());
    while let Some(word) = words.next() {
        let bad = |value: &str| Failure::Usage(format!("{word} cannot be {value:?}"));
        match word {
            "--nodes" => {
                let value = words.next().unwrap_or_default();
                options.nodes = value.parse().map_err(|_| bad(value))?;
                if !(1..=super::MOST_NODES).contains(&options.nodes) {
                    return Err(bad(value));
                }
            }
            "--proxy" => {
                options.proxy = match words.next().unwrap_or_default() {
                    "nftables" => Proxy::Nftables,
                    "none" => Proxy::None,
                    other => return Err(bad(other)),
                }
            }
            "--dual-stack" => options.dual_stack = true,
            other => return Err(Failure::Usage(format!("no such option: {other:?}"))),
        }
    }
    Ok(options)
}

/// The cluster's name, and its lab's.
fn name() -> String {
    std::env::var(NAME).unwrap_or_else(|_| "cluster".to_owned())
}

fn folder() -> PathBuf {
    target(&name())
}

fn file(name: &str) -> PathBuf {
    folder().join(name)
}

/// The lock that a keeper holds while it lives; `None` when another one has it.
fn lock() -> Done<Option<File>> {
    let path = file("lock");
    fs::create_dir_all(folder()).map_err(failed("make the cluster's folder"))?;
    let open = File::options()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(&path);
    let open = open.map_err(failed(path.display()))?;
    match open.try_lock() {
        Ok(()) => Ok(Some(open)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(e)) => Err(failed(path.display())(e)),
    }
}

/// [`lock`] when it may be somebody's for a moment only, who looks whether a cluster is up.
fn lock_soon() -> Done<Option<File>> {
    let end = Instant::now() + MOMENT;
    loop {
        match lock()? {
            None if Instant::now() < end && !linux::namespace::in_sandbox() => {
                std::thread::sleep(INTERVAL);
            }
            other => return Ok(other),
        }
    }
}

fn up(options: Options, arguments: &[OsString]) -> Done {
    let Some(held) = lock()? else {
        return Err(Failure::Failed(
            "a cluster is up already; `cargo xtask cluster down` ends it".to_owned(),
        ));
    };
    let parts = Parts::ensure().map_err(|e| Failure::Failed(sandbox::chain(&e)))?;
    drop(parts);
    // What a keeper left that was killed.
    cgroups::sweep().map_err(failed("look at cgroups"))?;
    for stale in ["state.json", "log"] {
        let _ = fs::remove_file(file(stale));
    }
    let log = File::create(file("log")).map_err(failed("write the log"))?;
    let second = log.try_clone().map_err(failed("share the log"))?;
    let program = std::env::current_exe().map_err(failed("find the own program"))?;
    let mut keeper = Command::new(program);
    keeper
        .arg("keep")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(second)
        // Ctrl-C at the terminal is not meant for it.
        .process_group(0);
    // The keeper takes the lock over.
    drop(held);
    let mut keeper = keeper.spawn().map_err(failed("start the keeper"))?;
    let started = Instant::now();
    follow(&mut keeper)?;
    let words = [
        format!("\nup in {:.1} s", started.elapsed().as_secs_f64()),
        format!(
            "  {}, Services {}, proxy {:?}",
            super::count(options.nodes),
            config::service_ranges(&config::Network {
                dual_stack: options.dual_stack
            }),
            options.proxy
        ),
        "  cargo xtask cluster kubectl get nodes".to_owned(),
        "  cargo xtask cluster exec client curl http://ADDRESS/".to_owned(),
        "  cargo xtask cluster load-image FILE.tar".to_owned(),
        "  cargo xtask cluster down".to_owned(),
        format!("  logs: {}", state()?["dir"].as_str().unwrap_or_default()),
    ];
    println!("{}", words.join("\n"));
    Ok(0)
}

/// Shows the keeper's log until the cluster is up.
fn follow(keeper: &mut Child) -> Done<()> {
    let path = file("log");
    let mut log = File::open(&path).map_err(failed("read the log"))?;
    let mut at = 0;
    let mut show = || -> io::Result<()> {
        let mut news = Vec::new();
        log.seek(SeekFrom::Start(at))?;
        at += log.read_to_end(&mut news)? as u64;
        io::stdout().write_all(&news)
    };
    loop {
        let ended = keeper.try_wait().map_err(failed("watch the keeper"))?;
        let ready = file("state.json").is_file();
        show().map_err(failed("show the log"))?;
        if let Some(status) = ended {
            let _ = cgroups::sweep();
            return Err(Failure::Failed(format!(
                "the cluster did not come up ({status}); log: {}; logs of its parts: {}",
                path.display(),
                sandbox::folder(&name()).display()
            )));
        }
        if ready {
            return Ok(());
        }
        std::thread::sleep(INTERVAL);
    }
}

/// The keeper: outside it waits for its inside, which has the cluster.
fn keep(arguments: &[OsString]) -> ExitCode {
    let (held, options) = match (lock_soon(), options(arguments)) {
        (Ok(Some(held)), Ok(options)) => (Some(held), options),
        // The inside: its outside has the lock.
        (Ok(None), Ok(options)) if linux::namespace::in_sandbox() => (None, options),
        (locked, options) => {
            eprintln!("cluster: {locked:?} {options:?}");
            return 1.into();
        }
    };
    if let Some(mut lock) = held.as_ref()
        && let Err(e) = write!(lock, "{}", std::process::id())
    {
        eprintln!("cluster: cannot write the lock: {e}");
        return 1.into();
    }
    sandbox::main(&name(), async |lab| hold(lab, options).await)
}

async fn hold(lab: Lab, options: Options) -> Outcome {
    let parts = Parts::ensure()?;
    let cluster = Cluster::up(&lab, &parts, options).await?;
    // It would grow for as long as the cluster stays.
    lab.close();
    let nodes = cluster.nodes().iter();
    let nodes: serde_json::Map<String, Value> = nodes
        .map(|node| (node.name().to_owned(), node.pid().into()))
        .collect();
    let state = json!({
        "dir": lab.dir(),
        "kubernetes": parts.kubernetes,
        "ctr": parts.ctr,
        "kubeconfig": cluster.plane().kubeconfig(Account::Admin),
        "nodes": nodes,
    });
    let (new, path) = (file("state.new"), file("state.json"));
    fs::write(&new, state.to_string())?;
    fs::rename(new, path)?;
    std::future::pending().await
}

/// What the keeper's inside wrote.
fn state() -> Done<Value> {
    let down = || Failure::Failed("no cluster is up; `cargo xtask cluster up` starts one".into());
    if lock()?.is_some() {
        return Err(down());
    }
    let text = fs::read_to_string(file("state.json")).map_err(|_| down())?;
    serde_json::from_str(&text).map_err(failed("read state.json"))
}

/// The keeper's PID, which it wrote into its lock.
fn keeper() -> Done<i32> {
    let text = fs::read_to_string(file("lock")).map_err(failed("read the keeper's PID"))?;
    text.trim().parse().map_err(failed("read the keeper's PID"))
}

/// PID 1 of the sandbox, numbered as here: the keeper's child.
fn first_process() -> Done<i32> {
    let keeper = keeper()?;
    let children = children(keeper).map_err(failed("list processes"))?;
    let found = children.first().copied();
    found.ok_or_else(|| Failure::Failed("the keeper has no sandbox".to_owned()))
}

fn children(parent: i32) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // PID (name) state PPID …, and a name may have blanks and parentheses (proc_pid_stat(5)).
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let of = rest
            .split_whitespace()
            .nth(1)
            .and_then(|ppid| ppid.parse::<i32>().ok());
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let (Some(pid), true) = (pid, of == Some(parent)) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// A command on a host of the cluster, in the caller's folder.
fn on(host: &str, state: &Value) -> Done<Command> {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--target={}", first_process()?))
        .args(["--mount", "--pid", "--ipc", "--wd=.", "nsenter"]);
    if let Some(pid) = state["nodes"][host]
        .as_u64()
        .and_then(|pid| pid.try_into().ok())
    {
        command.args(super::node::enter(pid)).arg("--net");
    } else if ["api", "client", "router"].contains(&host) {
        command.arg(format!("--net={}/{host}", linux::namespace::NETNS_DIR));
    } else {
        let nodes = state["nodes"]
            .as_object()
            .into_iter()
            .flat_map(|nodes| nodes.keys());
        let nodes: Vec<&str> = nodes.map(String::as_str).collect();
        return Err(Failure::Failed(format!(
            "no host is named {host:?}; there are api, client, router, {}",
            nodes.join(", ")
        )));
    }
    command.env(
        "PATH",
        format!(
            "{}:{}",
            parts::PATH,
            std::env::var("PATH").unwrap_or_default()
        ),
    );
    Ok(command)
}

/// Runs a command for the user and passes its exit code on.
fn pass(mut command: Command) -> Done {
    let status = command.status().map_err(failed("run nsenter"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or(1))
}

fn text<'a>(state: &'a Value, key: &str) -> &'a str {
    state[key].as_str().unwrap_or_default()
}

fn kubectl(arguments: &[OsString]) -> Done {
    let state = state()?;
    let mut command = on("client", &state)?;
    command
        .args([text(&state, "kubernetes"), "kubectl"])
        .args(["--kubeconfig", text(&state, "kubeconfig")])
        .arg("--cache-dir")
        .arg(Path::new(text(&state, "dir")).join("kubectl-cache"))
        .args(arguments);
    pass(command)
}

fn exec(arguments: &[OsString]) -> Done {
    let [host, program, rest @ ..] = arguments else {
        return Err(Failure::Usage(
            "`exec` wants a host and a program".to_owned(),
        ));
    };
    let mut command = on(host.to_str().unwrap_or_default(), &state()?)?;
    command.arg("--").arg(program).args(rest);
    pass(command)
}

fn load_images(archives: &[OsString]) -> Done {
    if archives.is_empty() {
        return Err(Failure::Usage("`load-image` wants a file".to_owned()));
    }
    let state = state()?;
    for archive in archives {
        load_image(&state, archive)?;
    }
    Ok(0)
}

fn load_image(state: &Value, archive: &OsStr) -> Done<()> {
    for node in state["nodes"]
        .as_object()
        .into_iter()
        .flat_map(|nodes| nodes.keys())
    {
        // Handed over open: the node need not see its folder.
        let open = File::open(archive).map_err(failed(format!("read {archive:?}")))?;
        let mut command = on(node, state)?;
        command
            .args(["--", text(state, "ctr"), "--namespace", "k8s.io"])
            .args(["image", "import", "--local", "-"])
            .stdin(open);
        println!("{node}:");
        if pass(command)? != 0 {
            return Err(Failure::Failed(format!("{node} does not take {archive:?}")));
        }
    }
    Ok(())
}

fn down() -> Done {
    if lock()?.is_none() {
        let keeper = keeper()?;
        let pid = Pid::from_raw(keeper);
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).map_err(failed("end the keeper"))?;
        }
        let end = Instant::now() + GONE;
        while lock()?.is_none() || Path::new("/proc").join(keeper.to_string()).exists() {
            if Instant::now() > end {
                return Err(Failure::Failed(format!(
                    "the keeper (PID {keeper}) does not end"
                )));
            }
            std::thread::sleep(INTERVAL);
        }
        cgroups::remove_of(keeper).map_err(failed("remove the cgroups"))?;
    } else {
        println!("no cluster is up");
    }
    cgroups::sweep().map_err(failed("look at cgroups"))?;
    for folder in [sandbox::folder(&name()), folder()] {
        match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(failed(format!("remove {}", folder.display()))(e));
            }
            _ => {}
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Done<Options> {
        let words: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
        options(&words)
    }

    #[test]
    fn options_are_what_was_typed() {
        assert_eq!(parsed(""), Ok(Options::default()));
        let all = Options {
            nodes: 5,
            proxy: Proxy::None,
            dual_stack: true,
            audit: false,
        };
        assert_eq!(parsed("--nodes 5 --proxy none --dual-stack"), Ok(all));
        for bad in [
            "--nodes",
            "--nodes 0",
            "--nodes 31",
            "--proxy ipvs",
            "--proxy",
            "now",
        ] {
            assert!(matches!(parsed(bad), Err(Failure::Usage(_))), "{bad}");
        }
    }
}
