//! TCP MD5 signatures (RFC 2385, `linux/tcp.h`).

use std::{io, net::IpAddr, os::fd::AsRawFd};

use crate::option;

/// The longest password that the kernel takes, in bytes.
pub const MAX_PASSWORD: usize = libc::TCP_MD5SIG_MAXKEYLEN;

const FLAG_PREFIX: u8 = 1;

/// `struct tcp_md5sig`, 216 bytes.
#[repr(C)]
#[derive(Clone, Copy)]
struct Md5Sig {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix: u8,
    key_length: u16,
    interface: libc::c_int,
    key: [u8; MAX_PASSWORD],
}

/// Signs, and demands signed, what is exchanged with `peer` (a whole `prefix` of peers, if given)
/// by this socket; an empty password ends that. On a listener it holds for connections accepted
/// later.
///
/// A peer with another password does not answer: the kernel drops its segments and counts them in
/// `TCPMD5Failure`.
pub fn set_password(
    socket: &impl AsRawFd,
    peer: IpAddr,
    prefix: Option<u8>,
    password: &[u8],
) -> io::Result<()> {
    let mut key = [0; MAX_PASSWORD];
    let Some(start) = key.get_mut(..password.len()) else {
        let why = format!("the password is longer than {MAX_PASSWORD} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    };
    start.copy_from_slice(password);
    let signature = Md5Sig {
        address: storage(peer),
        flags: if prefix.is_some() { FLAG_PREFIX } else { 0 },
        prefix: prefix.unwrap_or(0),
        key_length: password.len() as u16,
        // A key without an interface counts on each.
        interface: 0,
        key,
    };
    let name = match prefix {
        Some(_) => libc::TCP_MD5SIG_EXT,
        None => libc::TCP_MD5SIG,
    };
    option::set(socket, libc::IPPROTO_TCP, name, &signature)
}

fn storage(ip: IpAddr) -> libc::sockaddr_storage {
    let address = socket2::SockAddr::from(std::net::SocketAddr::new(ip, 0));
    // SAFETY: sockaddr_storage is plain data for which zeroes are valid.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    // SAFETY: a SockAddr is at most as long as a sockaddr_storage, and they do not overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            (&raw mut storage).cast::<u8>(),
            address.len() as usize,
        );
    }
    storage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(size_of::<Md5Sig>(), 216);
        assert_eq!(std::mem::offset_of!(Md5Sig, key), 136);
    }
}
