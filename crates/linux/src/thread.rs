//! How the kernel schedules a thread.

use std::io;

/// Slice that a prompt thread asks for, in nanoseconds: the kernel's least.
const SLICE: u64 = 100_000;

/// `struct sched_attr` of its first version (`sched_setattr(2)`).
#[repr(C)]
#[derive(Debug, Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks that the calling thread, which never has much to do at once, does it soon after it is
/// woken, also on a busy machine: ordinary scheduling with a short slice, which since Linux 6.12
/// means an early deadline. It takes no right, and no time from others; older kernels ignore it.
pub fn be_prompt() -> io::Result<()> {
    let mut attr = SchedAttr::default();
    let size = size_of::<SchedAttr>() as u32;
    // SAFETY: the kernel writes at most `size` bytes to `attr`, which is alive and as long.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) };
    if read < 0 {
        return Err(io::Error::last_os_error());
    }
    attr.size = size;
    attr.runtime = SLICE;
    // SAFETY: the kernel reads `attr.size` bytes of `attr`, which is alive during the call.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_ask_to_be_prompt() {
        assert_eq!(size_of::<SchedAttr>(), 48);
        std::thread::spawn(be_prompt)
            .join()
            .expect("no panic")
            .expect("no right is needed");
    }
}
