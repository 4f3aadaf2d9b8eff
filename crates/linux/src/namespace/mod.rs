//! Namespaces: a sandbox of its own for a lab, and named network namespaces inside it.
//!
//! - [`Sandbox`] runs a program in PID, mount, network, UTS and IPC namespaces of its own (and a
//!   user namespace when the caller is not root). Its first process is PID 1 there, so that the
//!   kernel removes everything when it ends, in whatever way (`pid_namespaces(7)`).
//! - [`NetNs`] is one network namespace inside that sandbox: a host of the lab.
//!
//! Owns: `/run` inside the sandbox (a private tmpfs); network namespaces are bind-mounted on
//! `/run/netns`, where iproute2 looks for them too. Nothing here touches the machine's own
//! mounts: [`NetNs::create`] refuses to work outside a sandbox.

mod init;
mod netns;
mod sandbox;
#[cfg(test)]
mod tests;

pub use netns::{HostView, NetNs, NetNsError};
pub use sandbox::{Sandbox, SandboxChild, SandboxError};

/// The private tmpfs of a sandbox.
pub const RUN_DIR: &str = "/run";
/// Exists inside a sandbox only; free for the lab's files.
pub const SANDBOX_DIR: &str = "/run/sandbox";
/// Where network namespaces are bind-mounted inside a sandbox.
pub const NETNS_DIR: &str = "/run/netns";

/// True when the calling process lives in a [`Sandbox`].
pub fn in_sandbox() -> bool {
    // The folder alone could be left by somebody: it must also be ours as PID 1's child.
    std::path::Path::new(SANDBOX_DIR).is_dir()
        && std::fs::read_to_string("/proc/1/comm").is_ok_and(|c| c.trim() == init::NAME)
}
