//! Running a test, or the demo, in a sandbox of its own.
//!
//! The caller runs twice: outside it starts itself again in a [`linux::namespace::Sandbox`] and
//! passes output and status on; inside it runs the body on a tokio runtime with one thread. A
//! body that is still running at the deadline is killed with everything in its lab.
//!
//! Owns: the folder `target/lab/<name>`, removed when the body passed.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use linux::namespace::{Sandbox, SandboxError, in_sandbox};

use crate::Lab;
use crate::cluster::cgroups;

/// What a test body gives: any error fails the test.
pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// The deadline of [`run`].
pub const DEADLINE: Duration = Duration::from_secs(60);
/// What the killing from outside waits longer than the timeout inside.
const GRACE: Duration = Duration::from_secs(2);
/// The inner run's exit status when the body passed: a test binary that ran no test at all ends
/// with 0, which must not count.
const PASSED: u8 = 86;
/// Names the lab that the process is the inside of.
const INSIDE: &str = "LAB_INSIDE";
/// Set to keep logs and captures of tests that pass.
const KEEP: &str = "LAB_KEEP";

/// Runs a test's body in a lab of its own, with the usual [`DEADLINE`].
///
/// `name` is the test's full name as `cargo test` shows it. Call it from a `#[test]` function, as
/// all that the function does. Without the right to make namespaces the test is skipped, which is
/// said on stderr; with `CI=true` that is a failure.
///
/// # Panics
/// When the body fails, to fail the test.
pub fn run(name: &str, body: impl AsyncFnOnce(Lab) -> Outcome) {
    run_for(name, DEADLINE, body);
}

/// [`run`] with another deadline.
///
/// # Panics
/// When the body fails, to fail the test.
pub fn run_for(name: &str, deadline: Duration, body: impl AsyncFnOnce(Lab) -> Outcome) {
    if inside(name) {
        match play(name, deadline, body) {
            Ok(()) => std::process::exit(PASSED.into()),
            Err(e) => panic!("{}", chain(&*e)),
        }
    }
    let folder = fresh_folder(name);
    let args = [name, "--exact", "--nocapture", "--include-ignored"];
    match outside(name, deadline, &args, true) {
        Ok(status) if status.code() == Some(PASSED.into()) => tidy(&folder),
        Ok(status) if status.code() == Some(0) => panic!("no test has the name {name:?}"),
        Ok(status) => panic!(
            "lab {name} failed ({status}); logs and captures: {}",
            folder.display()
        ),
        Err(e) if e.is_denied() && std::env::var("CI").as_deref() != Ok("true") => skip(name, &e),
        Err(e) => panic!("{}", chain(&e)),
    }
}

/// The same for a program's `main`: arguments and terminal are passed on, and there is no
/// deadline. Interrupting the program removes the lab.
pub fn main(name: &str, body: impl AsyncFnOnce(Lab) -> Outcome) -> std::process::ExitCode {
    if inside(name) {
        return match play(name, Duration::MAX, body) {
            Ok(()) => PASSED.into(),
            Err(e) => {
                eprintln!("{name}: {}", chain(&*e));
                1.into()
            }
        };
    }
    let folder = fresh_folder(name);
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match outside(name, Duration::MAX, &args, false) {
        Ok(status) if status.code() == Some(PASSED.into()) => {
            tidy(&folder);
            0.into()
        }
        Ok(status) => {
            eprintln!("{name}: failed; logs and captures: {}", folder.display());
            u8::try_from(status.code().unwrap_or(1))
                .unwrap_or(1)
                .max(1)
                .into()
        }
        Err(e) => {
            eprintln!("{name}: {}", chain(&e));
            1.into()
        }
    }
}

/// An error and its sources in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

/// Cargo's target folder, above the running program; the folder for temporary files elsewhere.
pub fn target_dir() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let marked = program
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file());
    marked.map_or_else(std::env::temp_dir, Path::to_owned)
}

pub(crate) fn folder(name: &str) -> PathBuf {
    target_dir()
        .join("lab")
        .join(name.replace("::", "-").replace('/', "-"))
}

fn fresh_folder(name: &str) -> PathBuf {
    let folder = folder(name);
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

fn tidy(folder: &Path) {
    if std::env::var_os(KEEP).is_none() {
        let _ = std::fs::remove_dir_all(folder);
    }
}

pub(crate) fn inside(name: &str) -> bool {
    std::env::var(INSIDE).as_deref() == Ok(name) && in_sandbox()
}

fn skip(name: &str, why: &SandboxError) {
    // Straight to stderr: the test harness would swallow what a passing test prints.
    let _ = writeln!(std::io::stderr(), "skipped: lab {name}: {}", chain(why));
}

fn outside(
    name: &str,
    deadline: Duration,
    args: &[&str],
    capture: bool,
) -> Result<ExitStatus, SandboxError> {
    let cgroup = cgroups::name();
    let mut sandbox = Sandbox::current_exe()?
        .env(INSIDE, name)
        .env(cgroups::VARIABLE, &cgroup);
    for arg in args {
        sandbox = sandbox.arg(*arg);
    }
    let mut printer = None;
    if capture {
        let (read, write) = std::io::pipe().map_err(|source| SandboxError::Failed {
            step: "make a pipe",
            source,
        })?;
        sandbox = sandbox.output(write.into());
        printer = Some(std::thread::spawn(move || pass_on(read)));
    }
    let mut child = sandbox.spawn()?;
    let failed = |source| SandboxError::Failed {
        step: "wait for the lab",
        source,
    };
    let limit = deadline.saturating_add(GRACE);
    let status = match child.wait_timeout(limit).map_err(failed)? {
        Some(status) => status,
        None => {
            println!("lab {name}: killed after {} s", limit.as_secs());
            child.kill().and_then(|()| child.wait()).map_err(failed)?
        }
    };
    if let Some(printer) = printer {
        let _ = printer.join();
    }
    // Of labs that had containers; the kernel removes everything else.
    cgroups::remove(&cgroup).map_err(|source| SandboxError::Failed {
        step: "remove the lab's cgroups",
        source,
    })?;
    Ok(status)
}

/// Prints what the inside says, so that the test harness captures it with the test's own output.
fn pass_on(read: std::io::PipeReader) {
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    while read.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        print!("{}", String::from_utf8_lossy(&line));
        line.clear();
    }
}

/// Completes the captures when the body ends, by a panic too.
struct Closing(Lab);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn play(name: &str, deadline: Duration, body: impl AsyncFnOnce(Lab) -> Outcome) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let lab = Lab::new(name, folder(name))?;
        let _closing = Closing(lab.clone());
        match tokio::time::timeout(deadline, body(lab)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("not done after {} s", deadline.as_secs()).into()),
        }
    });
    // Prober and capture threads may still be at work; the sandbox's end is theirs.
    runtime.shutdown_background();
    outcome
}
