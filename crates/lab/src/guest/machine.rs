//! The emulator: one boot, one script, its console.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use linux::namespace::Sandbox;

use super::GuestError;
use super::kernel::{Kernel, which};

/// Never left to qemu: where KVM is offered, it may hang the guest.
const ACCELERATOR: &str = "tcg,thread=multi";
/// What the kernel is told: to be quiet, and to leave out what costs time in an emulator.
const WORDS: &str = "console=ttyS0 quiet loglevel=3 panic=-1 tsc=reliable no_timer_check \
                     mitigations=off nokaslr audit=0 random.trust_cpu=on";
/// How much of the console an error shows.
const END: usize = 4000;

/// What a guest leaves behind.
#[derive(Debug)]
pub(super) struct Ended {
    /// The script's exit status.
    pub(super) status: i32,
    /// All that it said.
    pub(super) console: String,
}

/// Boots, runs the shell script (a path on the host, read as root), and powers off. Everything the
/// script writes is gone then; what it prints is on the console. The emulator dies with the thread
/// that calls this.
pub(super) fn run(
    kernel: &Kernel,
    script: &Path,
    console: &Path,
    deadline: Duration,
) -> Result<Ended, GuestError> {
    let program = which("qemu-system-x86_64").unwrap_or_else(|| PathBuf::from("qemu"));
    let path = |path: &Path| path.display().to_string();
    let append = format!(
        "{WORDS} guest={} mods={}",
        path(script),
        path(&kernel.modules())
    );
    let root = "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap";
    let arguments = [
        ["-accel", ACCELERATOR],
        ["-machine", "q35"],
        ["-cpu", "max"],
        ["-smp", "2"],
        ["-m", "1024"],
        ["-display", "none"],
        ["-serial", &format!("file:{}", path(console))],
        ["-kernel", &path(&kernel.image())],
        ["-initrd", &path(&kernel.initrd())],
        ["-fsdev", root],
        ["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"],
        ["-append", &append],
    ];
    let mut sandbox = Sandbox::new(program);
    for word in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        sandbox = sandbox.arg(word);
    }
    for word in arguments.iter().flatten() {
        sandbox = sandbox.arg(*word);
    }
    let _ = fs::remove_file(console);
    let mut machine = sandbox.spawn()?;
    let ended = machine
        .wait_timeout(deadline)
        .map_err(GuestError::io("qemu"))?;
    drop(machine);
    let said = fs::read(console).map_err(GuestError::io(console))?;
    let said = String::from_utf8_lossy(&said).replace('\r', "");
    match status(&said) {
        Some(status) if ended.is_some() => Ok(Ended {
            status,
            console: said,
        }),
        _ if ended.is_none() => Err(GuestError::TooLate {
            after: deadline,
            console: end(&said).to_owned(),
        }),
        _ => Err(GuestError::NoStatus {
            console: end(&said).to_owned(),
        }),
    }
}

/// What `init.sh` said last.
fn status(console: &str) -> Option<i32> {
    let mut lines = console.lines().rev();
    lines.find_map(|line| line.trim().strip_prefix("GUEST-STATUS=")?.parse().ok())
}

/// The end of a text, by whole characters.
pub(super) fn end(text: &str) -> &str {
    let mut start = text.len().saturating_sub(END);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_the_last_word() {
        for (console, wanted) in [
            ("", None),
            ("Kernel panic - not syncing\n", None),
            ("GUEST-STATUS=0\n", Some(0)),
            ("x\nGUEST-STATUS=101\nreboot: Power down\n", Some(101)),
            ("GUEST-STATUS=\n", None),
        ] {
            assert_eq!(status(console), wanted, "{console:?}");
        }
    }

    #[test]
    fn the_end_of_a_long_text_is_whole() {
        assert_eq!(end("short"), "short");
        let long = "é".repeat(END);
        assert_eq!(end(&long).len(), END);
        assert!(end(&format!("{long}x")).ends_with("éx"));
    }
}
