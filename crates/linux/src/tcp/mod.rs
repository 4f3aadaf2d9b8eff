//! TCP sockets of a BGP speaker: a source address, a device, a password (TCP MD5, RFC 2385) and
//! TTL security (GTSM, RFC 5082). Whoever uses them connects and accepts with tokio.
//!
//! TCP-AO (RFC 5925) is not here: few kernels have it, and no router of the lab.

mod md5;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

pub use md5::{MAX_PASSWORD, set_password};

use crate::option;

/// Network control (RFC 4271 names no value; routers use IP precedence 6).
const NETWORK_CONTROL: u32 = 0xc0;

/// A TCP socket could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct TcpError {
    what: String,
    source: io::Error,
}

impl TcpError {
    /// A right is missing (NET_ADMIN for passwords, NET_RAW for devices, NET_BIND_SERVICE for
    /// ports below 1024).
    pub fn is_denied(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }

    /// The kernel does not have what was asked of it, like passwords (`CONFIG_TCP_MD5SIG`).
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self.source.raw_os_error(),
            Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP)
        )
    }
}

impl TcpError {
    /// Another socket has the port.
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

fn failed<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> TcpError {
    let what = what.into();
    move |source| TcpError {
        what,
        source: source.into(),
    }
}

/// What a connection must have before it is made, or a listener before it accepts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// The device that packets must leave and come in by: an interface or a VRF.
    pub device: Option<&'a str>,
    /// TTL (hop limit) of what is sent, 1 to 255; the kernel's default if absent.
    pub ttl: Option<u8>,
    /// Segments with a smaller TTL are dropped by the kernel, 1 to 255.
    pub min_ttl: Option<u8>,
}

/// A socket that is ready to connect to `peer`, in the network namespace of the calling thread.
///
/// - `source`: the address to connect from; the kernel chooses if absent. It must be this host's.
/// - `password`: at most [`MAX_PASSWORD`] bytes.
///
/// The socket is non-blocking: hand it to `tokio::net::TcpSocket::from_std_stream` and connect.
pub fn dial(
    peer: SocketAddr,
    source: Option<SocketAddr>,
    password: Option<&[u8]>,
    options: Options<'_>,
) -> Result<TcpStream, TcpError> {
    let socket = open(peer, options)?;
    if let Some(password) = password {
        set_password(&socket, peer.ip(), None, password)
            .map_err(failed("set the password of a connection"))?;
    }
    if let Some(source) = source {
        socket
            .bind(&source.into())
            .map_err(failed(format!("connect from {}", source.ip())))?;
    }
    Ok(socket.into())
}

/// A listening socket, non-blocking, with no passwords yet ([`set_password`] for each peer): what
/// it accepts inherits its options.
pub fn listen(at: SocketAddr, options: Options<'_>) -> Result<TcpListener, TcpError> {
    let socket = open(at, options)?;
    let to_listen = |step: &str| format!("listen on {at}: {step}");
    socket
        .set_reuse_address(true)
        .map_err(failed(to_listen("reuse the address")))?;
    if at.is_ipv6() {
        // The other family has a socket of its own.
        socket
            .set_only_v6(true)
            .map_err(failed(to_listen("IPv6 only")))?;
    }
    socket.bind(&at.into()).map_err(failed(to_listen("bind")))?;
    socket.listen(64).map_err(failed(to_listen("listen")))?;
    Ok(socket.into())
}

fn open(towards: SocketAddr, options: Options<'_>) -> Result<Socket, TcpError> {
    let domain = Domain::for_address(towards);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))
        .map_err(failed("open a TCP socket"))?;
    socket
        .set_nonblocking(true)
        .map_err(failed("make a socket non-blocking"))?;
    socket
        .set_tcp_nodelay(true)
        .map_err(failed("switch off Nagle's delay"))?;
    let control = match towards {
        SocketAddr::V4(_) => socket.set_tos_v4(NETWORK_CONTROL),
        SocketAddr::V6(_) => socket.set_tclass_v6(NETWORK_CONTROL),
    };
    control.map_err(failed("set the traffic class"))?;
    if let Some(device) = options.device {
        socket
            .bind_device(Some(device.as_bytes()))
            .map_err(failed(format!("bind to device {device}")))?;
    }
    if let Some(ttl) = options.ttl {
        set_ttl(&SockRef::from(&socket), towards.ip(), ttl)?;
    }
    if let Some(min_ttl) = options.min_ttl {
        set_min_ttl(&socket, towards.ip(), min_ttl)
            .map_err(failed(format!("demand TTL {min_ttl}")))?;
    }
    Ok(socket)
}

/// Gives a connection another TTL (hop limit), and other demands on that of its peer's segments
/// (`None`: any).
pub fn set_hops(
    socket: &(impl AsFd + AsRawFd),
    peer: IpAddr,
    ttl: u8,
    min_ttl: Option<u8>,
) -> Result<(), TcpError> {
    set_ttl(&SockRef::from(socket), peer, ttl)?;
    let min_ttl = min_ttl.unwrap_or(0);
    set_min_ttl(socket, peer, min_ttl).map_err(failed(format!("demand TTL {min_ttl}")))
}

fn set_ttl(socket: &SockRef<'_>, family: IpAddr, ttl: u8) -> Result<(), TcpError> {
    let set = match family {
        IpAddr::V4(_) => socket.set_ttl_v4(ttl.into()),
        IpAddr::V6(_) => socket.set_unicast_hops_v6(ttl.into()),
    };
    set.map_err(failed(format!("set TTL {ttl}")))
}

/// Each family has its own level and number.
fn set_min_ttl(socket: &impl AsRawFd, family: IpAddr, min_ttl: u8) -> io::Result<()> {
    let (level, name) = match family {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MINTTL),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
    };
    option::set(socket, level, name, &libc::c_int::from(min_ttl))
}
