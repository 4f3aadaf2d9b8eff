//! Sets of the `ipset` program by netlink: which there are, and their end. Their elements are nobody's
//! matter here.
//!
//! Source: `include/uapi/linux/netfilter/ipset/ip_set.h`, `net/netfilter/ipset/ip_set_core.c`.

use std::io;

use crate::nft::attr::{Attrs, Reader};
use crate::nft::{Error, Socket};

/// nfnetlink's subsystem of ipset, in the upper byte of a message's type.
const SUBSYSTEM: u16 = 6 << 8;
const DESTROY: u16 = SUBSYSTEM | 3;
const LIST: u16 = SUBSYSTEM | 7;

const PROTOCOL: u16 = 1;
const SETNAME: u16 = 2;
const FLAGS: u16 = 6;
/// Every kernel since 2.6.39 speaks it.
const VERSION: u8 = 6;
/// Of a list: names alone.
const NAMES: u32 = 1 << 1;
/// ipset's own error number: rules use the set.
const IN_USE: i32 = 4100;

/// The sets of one network namespace.
#[derive(Debug)]
pub struct Sets {
    socket: Socket,
}

impl Sets {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            socket: Socket::open()?,
        })
    }

    /// The names of all sets. The kernel loads ipset for that if it can.
    pub fn names(&mut self) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        let filter = |attrs: &mut Attrs<'_>| {
            attrs.bytes(PROTOCOL, &[VERSION]);
            attrs.u32(FLAGS, NAMES);
        };
        let family = libc::AF_INET as u8;
        self.socket
            .dump_of("sets of ipset", LIST, family, filter, &mut |body| {
                if let Some(name) = Reader::new(body).find(SETNAME)? {
                    names.push(name.string()?.to_owned());
                }
                Ok(())
            })?;
        Ok(names)
    }

    /// Destroys sets, each for itself. The answer has one place for each: why it is still there.
    pub fn destroy(&mut self, names: &[String]) -> Result<Vec<Option<io::Error>>, Error> {
        let requests = names.iter().map(|name| {
            let body = |attrs: &mut Attrs<'_>| {
                attrs.bytes(PROTOCOL, &[VERSION]);
                attrs.string(SETNAME, name);
            };
            (DESTROY, libc::AF_INET as u8, body)
        });
        let answers = self.socket.request(requests)?;
        Ok(answers.into_iter().map(left).collect())
    }
}

/// Why a set is still there, by the kernel's answer.
fn left(errno: i32) -> Option<io::Error> {
    match errno {
        0 | libc::ENOENT => None,
        IN_USE => Some(io::Error::from_raw_os_error(libc::EBUSY)),
        errno => Some(io::Error::from_raw_os_error(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;

    /// A set without elements of type `hash:ip`.
    fn create(sets: &mut Sets, name: &str) -> Vec<i32> {
        let body = |attrs: &mut Attrs<'_>| {
            attrs.bytes(PROTOCOL, &[VERSION]);
            attrs.string(SETNAME, name);
            attrs.string(3, "hash:ip");
            attrs.bytes(4, &[0]);
            attrs.bytes(5, &[libc::AF_INET as u8]);
            attrs.nest(7, |_| {});
        };
        let request = (SUBSYSTEM | 2, libc::AF_INET as u8, body);
        sets.socket.request([request]).unwrap()
    }

    #[test]
    fn sets_are_listed_and_destroyed() {
        alone(async || {
            let mut sets = Sets::open().unwrap();
            let Ok(none) = sets.names() else {
                return println!("skipped: this kernel has no ipset");
            };
            assert!(none.is_empty(), "{none:?}");
            for name in ["KUBE-CLUSTER-IP", "other"] {
                assert_eq!(create(&mut sets, name), [0]);
            }
            let mut names = sets.names().unwrap();
            names.sort();
            assert_eq!(names, ["KUBE-CLUSTER-IP", "other"]);
            let gone = ["KUBE-CLUSTER-IP", "nobody"].map(str::to_owned);
            let left = sets.destroy(&gone).unwrap();
            assert!(left.iter().all(Option::is_none), "{left:?}");
            assert_eq!(sets.names().unwrap(), ["other"]);
        });
    }

    #[test]
    fn what_the_kernel_answers_is_understood() {
        assert!(left(0).is_none() && left(libc::ENOENT).is_none());
        let busy = left(IN_USE).and_then(|error| error.raw_os_error());
        assert_eq!(busy, Some(libc::EBUSY));
        let denied = left(libc::EPERM).and_then(|error| error.raw_os_error());
        assert_eq!(denied, Some(libc::EPERM));
    }
}
