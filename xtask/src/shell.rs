//! Running programs: where things are, and output that is shown live and read as well.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::failure::{Failure, failed};

/// Lines read ahead of whoever prints them.
const AHEAD: usize = 1024;
/// How long after a program's end its output is waited for: an orphan may hold the pipe open.
const DRAIN: Duration = Duration::from_secs(2);

/// The repository.
pub(crate) fn root() -> PathBuf {
    // Cargo says it at run time too: the program may have been built elsewhere.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR");
    let manifest = manifest.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().map_or_else(|| ".".into(), Path::to_owned)
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    let root = root();
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root.join(dir),
        None => root.join("target"),
    }
}

/// Whether this is CI, where nothing may be skipped.
pub(crate) fn in_ci() -> bool {
    std::env::var("CI").as_deref() == Ok("true")
}

/// The path of a program, looked for as a shell does, and where administrators keep theirs.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// A program, to be run in the repository.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root());
    command
}

/// Cargo, the one that runs us.
pub(crate) fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = program(cargo);
    command.args(arguments);
    // What cargo says of xtask is not for what is built: build scripts that look at it would run
    // again, and half of the tree with them, whenever plain cargo and xtask take turns.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(says_of_us) {
            command.env_remove(name);
        }
    }
    command
}

/// The variables that `cargo run` sets for the program it runs.
fn says_of_us(variable: &str) -> bool {
    let names = [
        "CARGO_CRATE_NAME",
        "CARGO_BIN_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "OUT_DIR",
    ];
    names.contains(&variable)
        || variable.starts_with("CARGO_PKG_")
        || variable.starts_with("CARGO_MANIFEST_")
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let name = Path::new(command.get_program());
    let name = name.file_name().unwrap_or_default();
    let words = std::iter::once(name).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

/// Says what is run, runs it, and fails when it fails.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let line = line(command);
    println!("$ {line}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => failed(format!("`{line}` failed ({status})")),
        Err(error) => failed(format!("`{line}` does not run: {error}")),
    }
}

/// What the program prints on stdout; its stderr is shown.
pub(crate) fn output(command: &mut Command) -> Result<String, Failure> {
    let line = line(command);
    match command.stderr(Stdio::inherit()).output() {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => failed(format!("`{line}` failed ({})", output.status)),
        Err(error) => failed(format!("`{line}` does not run: {error}")),
    }
}

/// Runs a program and hands on each line as it comes, stdout and stderr in the order written.
pub(crate) fn stream(command: &mut Command, mut each: impl FnMut(&str)) -> io::Result<ExitStatus> {
    let (read, write) = io::pipe()?;
    command.stdout(write.try_clone()?).stderr(write);
    let spawned = command.spawn();
    // Our ends of the pipe, or reading would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = spawned?;
    let (send, receive) = sync_channel(AHEAD);
    std::thread::spawn(move || {
        let mut read = BufReader::new(read);
        let mut line = Vec::new();
        while read.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line);
            if send.send(text.trim_end_matches('\n').to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    loop {
        match receive.recv_timeout(DRAIN) {
            Ok(line) => each(&line),
            Err(RecvTimeoutError::Disconnected) => return child.wait(),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = child.try_wait()? {
                    return Ok(status);
                }
            }
        }
    }
}

/// Seconds as a person reads them.
pub(crate) fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        s @ 10..120 => format!("{s} s"),
        s => format!("{} min {} s", s / 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_keeps_order_and_status() {
        let mut lines = Vec::new();
        let mut command = program("sh");
        command.args(["-c", "echo one; echo two >&2; printf three; exit 7"]);
        let status = stream(&mut command, |line| lines.push(line.to_owned())).expect("sh runs");
        assert_eq!(status.code(), Some(7));
        assert_eq!(lines, ["one", "two", "three"]);
    }

    #[test]
    fn an_orphan_does_not_hold_us_up() {
        let mut lines = Vec::new();
        let mut command = program("sh");
        command.args(["-c", "sleep 30 & echo $!"]);
        let start = std::time::Instant::now();
        let status = stream(&mut command, |line| lines.push(line.to_owned())).expect("sh runs");
        let took = start.elapsed();
        let killed = program("kill").args(&lines).status().expect("kill runs");
        assert!(status.success() && killed.success() && took < Duration::from_secs(20));
    }

    #[test]
    fn which_finds_programs_alone() {
        assert!(which("sh").is_some());
        assert_eq!(which("no-such-program"), None);
    }

    #[test]
    fn cargo_hears_nothing_of_xtask() {
        // Cargo sets them for tests as well.
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
        let command = cargo(["version"]);
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"] {
            assert!(
                command
                    .get_envs()
                    .any(|(n, value)| n == name && value.is_none()),
                "{name}"
            );
        }
        assert!(!says_of_us("CARGO_TARGET_DIR") && !says_of_us("CARGO_TERM_COLOR"));
    }

    #[test]
    fn times_are_readable() {
        assert_eq!(seconds(Duration::from_millis(1250)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(75)), "75 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 5 s");
    }
}
