//! A thread without a runtime: how the kernel schedules it, and what it waits for.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

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

/// Waits until something can be read of one of these, or its other end is gone, for so long at most;
/// which it is. A signal ends the wait too.
pub fn await_readable<const N: usize>(
    of: [BorrowedFd<'_>; N],
    limit: Option<Duration>,
) -> io::Result<[bool; N]> {
    // One that the kernel cannot express is as good as none.
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let mut waits = of.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    match poll(&mut waits, limit.as_ref()) {
        Ok(_) => Ok(waits.map(|it| !it.revents().is_empty())),
        Err(Errno::INTR) => Ok([false; N]),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_wait_ends_with_what_can_be_read_with_the_other_end_and_with_its_limit() {
        let (mut a, b) = UnixStream::pair().expect("a pair");
        let (c, d) = UnixStream::pair().expect("a pair");
        let both = [b.as_fd(), d.as_fd()];
        let began = Instant::now();
        let limit = Some(Duration::from_millis(5));
        assert_eq!(await_readable(both, limit).expect("wait"), [false, false]);
        assert!(began.elapsed() >= Duration::from_millis(5));
        a.write_all(&[1]).expect("write");
        assert_eq!(await_readable(both, None).expect("wait"), [true, false]);
        drop(c);
        assert_eq!(await_readable(both, None).expect("wait"), [true, true]);
        let none = Some(Duration::ZERO);
        assert_eq!(await_readable([b.as_fd()], none).expect("wait"), [true]);
    }

    #[test]
    fn a_thread_may_ask_to_be_prompt() {
        assert_eq!(size_of::<SchedAttr>(), 48);
        std::thread::spawn(be_prompt)
            .join()
            .expect("no panic")
            .expect("no right is needed");
    }
}
