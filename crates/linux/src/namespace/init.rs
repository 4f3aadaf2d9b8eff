//! The sandbox's first process: everything between `clone` and the program's `exec`.
//!
//! This code runs in a copy of a process that may have had many threads, so it may use system
//! calls only: no allocation, no lock, no panic. All strings are made before, in [`Plan`].

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::fd::RawFd;

/// The command name of the first process, as seen in `ps`.
pub(super) const NAME: &str = "sandbox-init";

/// What the first process needs, made by the parent before `clone`.
pub(super) struct Plan {
    pub(super) program: CString,
    pub(super) argv: Strings,
    pub(super) envp: Strings,
    /// Contents of `uid_map` and `gid_map` when there is a user namespace.
    pub(super) id_maps: Option<(Vec<u8>, Vec<u8>)>,
    /// Where the program's stdout and stderr go; `None` inherits.
    pub(super) output: Option<RawFd>,
    /// An open `/dev/null`.
    pub(super) null: RawFd,
    /// Readable end of a pipe whose only other end the parent holds: end of file means that the
    /// parent died before `PR_SET_PDEATHSIG` took effect.
    pub(super) alive: RawFd,
    /// The other end of `alive`, to be closed in the child.
    pub(super) alive_parent: RawFd,
    /// Failures are written here; closed by a successful `exec`.
    pub(super) errors: RawFd,
}

/// A null-terminated array of C strings.
pub(super) struct Strings {
    pointers: Vec<*const c_char>,
    _owned: Vec<CString>,
}

impl Strings {
    pub(super) fn new(owned: Vec<CString>) -> Self {
        let mut pointers: Vec<_> = owned.iter().map(|s| s.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self {
            pointers,
            _owned: owned,
        }
    }
}

/// What the first process was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    DeathSignal = 1,
    IdMaps,
    PrivateMounts,
    MountProc,
    MountRun,
    MakeFolders,
    Hostname,
    Signals,
    Fork,
    Output,
    Exec,
}

impl Step {
    /// The step's name, and whether its failure speaks of missing rights.
    pub(super) fn from_byte(byte: u8) -> (&'static str, bool) {
        const NAMES: [(Step, &str, bool); 11] = [
            (
                Step::DeathSignal,
                "ask for a signal on the parent's death",
                false,
            ),
            (Step::IdMaps, "write the user namespace's id maps", true),
            (Step::PrivateMounts, "make all mounts private", true),
            (Step::MountProc, "mount a proc of its own on /proc", true),
            (Step::MountRun, "mount a tmpfs on /run", true),
            (Step::MakeFolders, "make folders below /run", false),
            (Step::Hostname, "set the host name", true),
            (Step::Signals, "set signal handlers", false),
            (Step::Fork, "start the program's process", false),
            (Step::Output, "redirect the program's output", false),
            (Step::Exec, "execute the program", false),
        ];
        let found = NAMES.iter().find(|(step, ..)| *step as u8 == byte);
        found.map_or(("start", false), |(_, name, rights)| (name, *rights))
    }
}

type Done = Result<(), Step>;

/// `clone(2)` with these namespace flags; in the child this never returns.
///
/// Gives the child's PID, or the `errno` of `clone`.
pub(super) fn start(flags: c_int, plan: &Plan) -> Result<i32, std::io::Error> {
    // SAFETY: without CLONE_VM and with a null stack this is fork(2) in new namespaces: the child
    // runs on a copy of this stack. The child calls `first_process`, which keeps to
    // async-signal-safe calls and never returns. The last three arguments are unused with these
    // flags, so that their order, which differs between architectures, does not matter.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            (flags | libc::SIGCHLD) as libc::c_long,
            0,
            0,
            0,
            0,
        )
    };
    match pid {
        0 => first_process(plan),
        -1 => Err(std::io::Error::last_os_error()),
        pid => Ok(pid as i32),
    }
}

/// PID 1: prepare, start the program as PID 2, reap until that ends.
fn first_process(plan: &Plan) -> ! {
    if let Err(step) = prepare(plan) {
        fail(plan.errors, step);
    }
    // SAFETY: fork in one more copy, as in `start`; both branches keep to system calls. fork(2)
    // of the C library is not used, as it takes locks that a lost thread may hold.
    let program =
        unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD as libc::c_long, 0, 0, 0, 0) };
    match program {
        0 => {
            let step = execute(plan);
            fail(plan.errors, step)
        }
        -1 => fail(plan.errors, Step::Fork),
        pid => {
            // SAFETY: closes descriptors of this process only, which uses none above 2.
            unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
            reap(pid as i32)
        }
    }
}

fn prepare(plan: &Plan) -> Done {
    // The signal is asked for first: from then on this process cannot outlive its parent.
    // SAFETY: prctl with integer arguments.
    let asked = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    check(asked, Step::DeathSignal)?;
    if !parent_lives(plan) {
        return Err(Step::DeathSignal);
    }
    if let Some((uids, gids)) = &plan.id_maps {
        // Without "deny" an unprivileged process may not write a gid map (user_namespaces(7)).
        write_file(c"/proc/self/setgroups", b"deny", Step::IdMaps)?;
        write_file(c"/proc/self/uid_map", uids, Step::IdMaps)?;
        write_file(c"/proc/self/gid_map", gids, Step::IdMaps)?;
    }
    let none = c"none";
    mount(
        none,
        c"/",
        none,
        libc::MS_REC | libc::MS_PRIVATE,
        None,
        Step::PrivateMounts,
    )?;
    let strict = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount(c"proc", c"/proc", c"proc", strict, None, Step::MountProc)?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    mount(
        c"tmpfs",
        c"/run",
        c"tmpfs",
        flags,
        Some(c"mode=755"),
        Step::MountRun,
    )?;
    for path in [c"/run/sandbox", c"/run/netns", c"/run/lock"] {
        // SAFETY: `path` is a terminated string.
        let made = unsafe { libc::mkdir(path.as_ptr(), 0o755) };
        check(made, Step::MakeFolders)?;
    }
    let host = c"sandbox";
    // SAFETY: pointer and length are those of `host`.
    let named = unsafe { libc::sethostname(host.as_ptr(), host.count_bytes()) };
    check(named, Step::Hostname)?;
    handle_signals()
}

fn parent_lives(plan: &Plan) -> bool {
    let mut poll = libc::pollfd {
        fd: plan.alive,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: closes our copy of the parent's end; `poll` is one valid pollfd.
    unsafe {
        libc::close(plan.alive_parent);
        libc::poll(&mut poll, 1, 0) == 0
    }
}

/// PID 1 ignores every signal that it has no handler for, so the polite ones need one.
fn handle_signals() -> Done {
    extern "C" fn end(signal: c_int) {
        // SAFETY: _exit is async-signal-safe; the kernel then kills all other processes here.
        unsafe { libc::_exit(128 + signal) }
    }
    // SAFETY: `action` is a valid, zeroed sigaction whose handler is async-signal-safe; the signal
    // mask is emptied for this single-threaded process.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(c_int) = end;
        action.sa_sigaction = handler as libc::sighandler_t;
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            check(
                libc::sigaction(signal, &action, std::ptr::null_mut()),
                Step::Signals,
            )?;
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        check(
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()),
            Step::Signals,
        )?;
        libc::prctl(libc::PR_SET_NAME, c"sandbox-init".as_ptr());
    }
    Ok(())
}

/// PID 2 up to `exec`; returns only on failure.
fn execute(plan: &Plan) -> Step {
    // SAFETY: dup2 on descriptors that the parent opened for us; the range call only marks
    // descriptors as close-on-exec; the argument arrays are null-terminated arrays of terminated
    // strings that live in `plan`.
    unsafe {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
            libc::signal(signal, libc::SIG_DFL);
        }
        if libc::dup2(plan.null, 0) < 0 {
            return Step::Output;
        }
        if let Some(output) = plan.output
            && (libc::dup2(output, 1) < 0 || libc::dup2(output, 2) < 0)
        {
            return Step::Output;
        }
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC as c_int,
        );
        let (argv, envp) = (plan.argv.pointers.as_ptr(), plan.envp.pointers.as_ptr());
        libc::execve(plan.program.as_ptr(), argv, envp);
    }
    Step::Exec
}

/// Waits for every orphan; ends with the program's status (128 + signal when killed).
fn reap(program: i32) -> ! {
    loop {
        let mut status = 0;
        // SAFETY: `status` is writable; _exit ends this process.
        unsafe {
            let pid = libc::waitpid(-1, &mut status, libc::__WALL);
            if pid == program {
                let killed = libc::WIFSIGNALED(status);
                libc::_exit(if killed {
                    128 + libc::WTERMSIG(status)
                } else {
                    libc::WEXITSTATUS(status)
                });
            }
            if pid < 0 && *libc::__errno_location() == libc::ECHILD {
                libc::_exit(1);
            }
        }
    }
}

fn mount(
    source: &CStr,
    target: &CStr,
    kind: &CStr,
    flags: libc::c_ulong,
    data: Option<&CStr>,
    step: Step,
) -> Done {
    let data = data.map_or(std::ptr::null(), |d| d.as_ptr());
    // SAFETY: all pointers are terminated strings or null.
    let done = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.cast(),
        )
    };
    check(done, step)
}

fn write_file(path: &CStr, content: &[u8], step: Step) -> Done {
    // SAFETY: `path` is terminated; pointer and length are those of `content`; the descriptor is
    // ours and closed here.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        check(fd, step)?;
        let written = libc::write(fd, content.as_ptr().cast(), content.len());
        check(
            if written == content.len() as isize {
                0
            } else {
                -1
            },
            step,
        )?;
        libc::close(fd);
    }
    Ok(())
}

fn check(result: c_int, step: Step) -> Done {
    if result < 0 { Err(step) } else { Ok(()) }
}

/// Tells the parent what failed and why, and ends.
fn fail(errors: RawFd, step: Step) -> ! {
    // SAFETY: errno of the call that just failed; `message` is on the stack; _exit ends us.
    unsafe {
        let [a, b, c, d] = (*libc::__errno_location()).to_ne_bytes();
        let message = [step as u8, a, b, c, d];
        libc::write(errors, message.as_ptr().cast(), message.len());
        libc::_exit(127)
    }
}
