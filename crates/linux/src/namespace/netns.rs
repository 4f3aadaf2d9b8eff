//! Network namespaces by name: a lab's hosts.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::mount::{mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::{NETNS_DIR, in_sandbox};

/// Why a network namespace could not be made or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// Namespaces are made in a sandbox only, so that nothing is left on the machine.
    #[error("network namespace {0}: not inside a sandbox")]
    NotInSandbox(String),
    /// Names are file names.
    #[error(
        "network namespace {0:?}: a name has 1 to 64 letters, digits, '-', '_' or '.', not '.' first"
    )]
    Name(String),
    /// A system call failed.
    #[error("network namespace {name}: cannot {step}")]
    Failed {
        /// The namespace.
        name: String,
        /// What failed.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A network namespace. Cloning shares it; the kernel removes it when the last clone, process and
/// its name in `/run/netns` are gone.
#[derive(Debug, Clone)]
pub struct NetNs {
    name: Arc<str>,
    fd: Arc<OwnedFd>,
}

/// What a process in a namespace sees besides the network: a host of its own.
#[derive(Debug, Clone)]
pub struct HostView {
    /// Its host name.
    pub hostname: String,
    /// The folder that appears as its `/run`.
    pub run: PathBuf,
}

impl NetNs {
    /// Makes a namespace and its name below `/run/netns`. Its loopback is down.
    pub fn create(name: &str) -> Result<Self, NetNsError> {
        if !valid_name(name) {
            return Err(NetNsError::Name(name.to_owned()));
        }
        if !in_sandbox() {
            return Err(NetNsError::NotInSandbox(name.to_owned()));
        }
        let path = Self::path_of(name);
        let fail = |step, source| NetNsError::Failed {
            name: name.to_owned(),
            step,
            source,
        };
        File::create_new(&path).map_err(|e| fail("make its file", e))?;
        // A thread has a network namespace of its own; the one that makes it then ends.
        let made = on_thread(|| {
            // SAFETY: changes this thread only, which ends right after. No descriptor table is
            // unshared, so none gets lost.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET)? };
            let own = Path::new("/proc/thread-self/ns/net");
            mount_bind(own, &path)?;
            File::open(own)
        });
        match made {
            Ok(file) => Ok(Self {
                name: name.into(),
                fd: Arc::new(file.into()),
            }),
            Err(source) => {
                let _ = std::fs::remove_file(&path);
                Err(fail("make it", source))
            }
        }
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, NetNsError> {
        let file = File::open("/proc/thread-self/ns/net");
        let fail = |source| NetNsError::Failed {
            name: "(own)".to_owned(),
            step: "open it",
            source,
        };
        file.map(|file| Self {
            name: "(own)".into(),
            fd: Arc::new(file.into()),
        })
        .map_err(fail)
    }

    /// Takes the name away; processes inside keep the namespace alive.
    pub fn remove_name(&self) -> Result<(), NetNsError> {
        let path = Self::path_of(&self.name);
        let gone = unmount(&path, rustix::mount::UnmountFlags::DETACH).map_err(io::Error::from);
        let gone = gone.and_then(|()| std::fs::remove_file(&path));
        gone.map_err(|source| self.fail("remove its name", source))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kernel's number for it: equal for two handles of one namespace only.
    pub fn inode(&self) -> Result<u64, NetNsError> {
        let file = self.fd.try_clone().map(File::from);
        let inode = file.and_then(|f| f.metadata()).map(|m| m.ino());
        inode.map_err(|source| self.fail("look at it", source))
    }

    /// Runs `f` on a thread inside; sockets made there stay there.
    ///
    /// Blocks the caller until `f` returns. A panic in `f` goes on in the caller.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
        let entered = on_thread(|| {
            self.enter_thread()?;
            Ok(f())
        });
        entered.map_err(|source| self.fail("enter it", source))
    }

    /// Moves the calling thread inside, for good. For threads that live in one namespace.
    pub fn enter_thread(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(
            self.fd.as_fd(),
            Some(LinkNameSpaceType::Network),
        )?)
    }

    /// Lets `command` start inside, with a host name and `/run` of its own when asked.
    pub fn place(&self, command: &mut Command, view: Option<&HostView>) -> Result<(), NetNsError> {
        let ns = Arc::clone(&self.fd);
        let text = |bytes: &[u8]| {
            CString::new(bytes).map_err(|_| self.fail("use", io::ErrorKind::InvalidInput.into()))
        };
        let view = match view {
            None => None,
            Some(view) => Some((
                view.hostname.clone(),
                text(view.run.as_os_str().as_bytes())?,
            )),
        };
        let enter = move || {
            move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network))?;
            if let Some((hostname, run)) = &view {
                // SAFETY: the process is single-threaded here; descriptors stay shared.
                unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWUTS)? };
                mount_bind(run.as_c_str(), c"/run")?;
                rustix::system::sethostname(hostname.as_bytes())?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec `enter` makes only system calls on values made before: no
        // allocation, no lock.
        unsafe { command.pre_exec(enter) };
        Ok(())
    }

    fn path_of(name: &str) -> PathBuf {
        Path::new(NETNS_DIR).join(name)
    }

    fn fail(&self, step: &'static str, source: io::Error) -> NetNsError {
        NetNsError::Failed {
            name: self.name.to_string(),
            step,
            source,
        }
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn valid_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.chars().all(allowed)
}

fn on_thread<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, f)?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
