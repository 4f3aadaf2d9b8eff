//! Tests in another kernel: Debian's, in a guest of qemu's own emulation (no KVM), for what the
//! kernel of the machine may lack: VRF, dummy links, IPVS, SCTP.
//!
//! A test calls [`run`] as others call [`crate::run`]; its body runs in a lab in the guest:
//!
//! ```no_run
//! #[test]
//! fn a_dummy_link() {
//!     lab::guest::run("a_dummy_link", &["dummy"], async |lab| {
//!         let host = lab.host("one").await?;
//!         assert!(host.command("ip")?.args(["link", "add", "d", "type", "dummy"]).status()?.success());
//!         Ok(())
//!     });
//! }
//! ```
//!
//! A boot takes seconds, so a test program has one: the first test that asks for it boots a guest
//! that runs the whole test program again, one test after the other, and every test finds its own
//! part of what the guest said. The guest's root is the host's, read-only below a layer in memory:
//! what a body writes stays in the guest, so the logs of a failed test are printed.

mod error;
mod kernel;
mod machine;

use std::fs;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use error::GuestError;

use crate::Lab;
use crate::controlplane::build::target;
use crate::sandbox::{Outcome, chain, folder, inside, run_for};

/// How long the guest may run.
const SESSION: Duration = Duration::from_secs(900);
/// How long one body may: everything takes several times as long as on the machine itself.
const DEADLINE: Duration = Duration::from_secs(420);
/// Set for programs in the guest.
const IN_GUEST: &str = "LAB_GUEST";
const BEGIN: &str = "guest-test begins: ";
const PASSED: &str = "guest-test passed: ";
const FAILED: &str = "guest-test failed: ";

/// Runs a test's body in a lab in the guest, with these kernel modules loaded. The kernel finds
/// others by itself, but takes a second for each.
///
/// `name` is the test's full name as `cargo test` shows it. Call it from a `#[test]` function, as
/// all that the function does. Where the programs that a guest needs are missing the test is
/// skipped, which is said on stderr; with `CI=true` that is a failure.
///
/// # Panics
/// When the body fails, or the guest does, to fail the test.
pub fn run(name: &str, modules: &[&str], body: impl AsyncFnOnce(Lab) -> Outcome) {
    if std::env::var_os(IN_GUEST).is_none() {
        return on_host(name);
    }
    if inside(name) {
        return run_for(name, DEADLINE, body);
    }
    println!("\n{BEGIN}{name}");
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        load(modules);
        run_for(name, DEADLINE, body);
    }));
    if let Err(panic) = outcome {
        print_logs(&folder(name));
        println!("\n{FAILED}{name}");
        resume_unwind(panic);
    }
    println!("\n{PASSED}{name}");
}

/// Asks the guest of this program how the test went.
fn on_host(name: &str) {
    static SESSION: OnceLock<Result<String, GuestError>> = OnceLock::new();
    match SESSION.get_or_init(session) {
        Ok(console) => match part(console, name) {
            (Some(true), said) => println!("{said}"),
            (Some(false), said) => panic!("{name} failed in the guest:\n{said}"),
            (None, _) => panic!(
                "{name} did not end in the guest, which said:\n{}",
                machine::end(console)
            ),
        },
        Err(missing @ GuestError::Missing(_)) => {
            let ci = std::env::var("CI").as_deref() == Ok("true");
            assert!(!ci, "{name} may not be skipped with CI=true: {missing}");
            // Straight to stderr: the test harness would swallow what a passing test prints.
            let _ = writeln!(std::io::stderr(), "skipped: lab {name}: {missing}");
        }
        Err(error) => panic!("{name}: {}", chain(error)),
    }
}

/// Boots the guest and runs this program in it; what the guest said.
fn session() -> Result<String, GuestError> {
    let program = std::env::current_exe().map_err(GuestError::io("the own program"))?;
    let started = Instant::now();
    let kernel = kernel::ensure()?;
    let fetched = started.elapsed();
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let folder = target("guest").join(format!("{name}-{}", std::process::id()));
    let folder = Folder::new(folder)?;
    let script = folder.0.join("script");
    let text = format!(
        "export PATH='{}' HOME=/root CI=true {IN_GUEST}=1\nexec '{}' --test-threads=1 --nocapture\n",
        kernel::path(),
        program.display()
    );
    fs::write(&script, text).map_err(GuestError::io(&script))?;
    let ended = machine::run(&kernel, &script, &folder.0.join("console"), SESSION)?;
    println!(
        "guest with {}: status {} after {:.1} s, {:.1} s of it to prepare the kernel",
        kernel.version()?.trim(),
        ended.status,
        started.elapsed().as_secs_f64(),
        fetched.as_secs_f64()
    );
    Ok(ended.console)
}

/// A folder of one run, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(path: PathBuf) -> Result<Self, GuestError> {
        fs::create_dir_all(&path).map_err(GuestError::io(&path))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether the test passed, and what was said between its begin and its end.
fn part<'a>(console: &'a str, name: &str) -> (Option<bool>, &'a str) {
    let line = |mark: &str| format!("\n{mark}{name}\n");
    let begin = line(BEGIN);
    let Some(from) = console.find(&begin) else {
        return (None, "");
    };
    let after = &console[from + begin.len()..];
    for (mark, passed) in [(PASSED, true), (FAILED, false)] {
        if let Some(to) = after.find(&line(mark)) {
            return (Some(passed), after[..to].trim());
        }
    }
    (None, after.trim())
}

/// Loads kernel modules, in the guest.
fn load(modules: &[&str]) {
    if !modules.is_empty() {
        let mut modprobe = Command::new("modprobe");
        let loaded = kernel::output(modprobe.arg("-a").args(modules));
        assert!(loaded.is_ok(), "{modules:?}: {loaded:?}");
    }
}

/// Shows the end of each log of a failed test.
fn print_logs(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if path.extension().is_some_and(|it| it == "log") {
            let text = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            println!("-- {}\n{}", path.display(), machine::end(&text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_has_its_own_part_of_the_console() {
        let console = "boot\n\nguest-test begins: a::b\none\n\nguest-test passed: a::b\nok\n\
                       test a::bc ... \nguest-test begins: a::bc\ntwo\n\nguest-test failed: a::bc\n\
                       \nguest-test begins: hung\nthree\n";
        for (name, wanted) in [
            ("a::b", (Some(true), "one")),
            ("a::bc", (Some(false), "two")),
            ("hung", (None, "three")),
            ("a", (None, "")),
        ] {
            assert_eq!(part(console, name), wanted, "{name}");
        }
    }
}
