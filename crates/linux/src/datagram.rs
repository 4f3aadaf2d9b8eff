//! UDP sockets that tell how far a datagram came: its TTL and the interface it came in on (BFD,
//! RFC 5881 §5, RFC 5883 §5).
//!
//! One socket per family and port serves every session; what is sent may name its source and
//! interface.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, RawFd},
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use crate::option;

/// Network control, as BGP's.
const NETWORK_CONTROL: u32 = 0xc0;
/// Room for all control messages, aligned for their headers.
const CONTROL: usize = 16;

/// A datagram that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its length; what did not fit in the buffer is lost.
    pub length: usize,
    /// Who sent it; a link-local address has its scope.
    pub from: SocketAddr,
    /// Where it was sent to.
    pub to: IpAddr,
    /// Its TTL or hop limit on arrival.
    pub ttl: u8,
    /// Index of the interface that it came in on.
    pub interface: u32,
}

/// A socket that could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot open a socket at {at}: {step}")]
pub struct DatagramError {
    at: SocketAddr,
    step: &'static str,
    source: io::Error,
}

impl DatagramError {
    /// What kind of trouble the kernel has with it.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// A UDP socket in the tokio runtime in which it was opened, in the network namespace of the
/// thread that opened it.
///
/// Cancel safety: a dropped `recv` has lost nothing.
#[derive(Debug)]
pub struct Datagrams {
    socket: AsyncFd<Descriptor>,
}

/// The socket, and that it is fit for [`AsyncFd::register`].
#[derive(Debug)]
pub(crate) struct Descriptor(pub(crate) Socket);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Datagrams {
    /// Binds to an address and port; datagrams leave with this TTL. With a `device`, an interface
    /// or a VRF, it hears and sends by that alone.
    pub fn bind(at: SocketAddr, ttl: u8, device: Option<&str>) -> Result<Self, DatagramError> {
        let fail = |step| move |source| DatagramError { at, step, source };
        let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))
            .map_err(fail("open"))?;
        socket
            .set_nonblocking(true)
            .map_err(fail("make it non-blocking"))?;
        socket
            .bind_device(device.map(str::as_bytes))
            .map_err(fail("bind to the device"))?;
        if at.is_ipv6() {
            socket.set_only_v6(true).map_err(fail("IPv6 only"))?;
            socket
                .set_unicast_hops_v6(ttl.into())
                .map_err(fail("set the hop limit"))?;
            socket
                .set_tclass_v6(NETWORK_CONTROL)
                .map_err(fail("set the traffic class"))?;
            for name in [libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVPKTINFO] {
                switch_on(&socket, libc::IPPROTO_IPV6, name).map_err(fail("ask for details"))?;
            }
        } else {
            socket.set_ttl_v4(ttl.into()).map_err(fail("set the TTL"))?;
            socket
                .set_tos_v4(NETWORK_CONTROL)
                .map_err(fail("set the traffic class"))?;
            for name in [libc::IP_RECVTTL, libc::IP_PKTINFO] {
                switch_on(&socket, libc::IPPROTO_IP, name).map_err(fail("ask for details"))?;
            }
        }
        socket.bind(&at.into()).map_err(fail("bind"))?;
        // SAFETY: the descriptor is owned by the Socket, which is owned by the AsyncFd; nothing
        // replaces or closes it before both are dropped.
        let socket = unsafe { AsyncFd::register(Descriptor(socket)) };
        let socket = socket.map_err(|e| fail("wait for it")(e.into()))?;
        Ok(Self { socket })
    }

    /// The address and port that it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let address = self.socket.get_ref().0.local_addr()?;
        address
            .as_socket()
            .ok_or_else(|| io::ErrorKind::Other.into())
    }

    /// Waits for a datagram.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let read = |d: &Descriptor| receive(&d.0, buffer);
        self.socket.async_io(Interest::READABLE, read).await
    }

    /// The same for who waits for several sockets: the last to ask is woken.
    pub fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<Received>> {
        loop {
            let mut guard = ready!(self.socket.poll_read_ready(context))?;
            if let Ok(read) = guard.try_io(|socket| receive(&socket.get_ref().0, buffer)) {
                return Poll::Ready(read);
            }
        }
    }

    /// Takes what has come already, or fails with `WouldBlock`.
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        receive(&self.socket.get_ref().0, buffer)
    }

    /// Changes the TTL or hop limit that datagrams leave with.
    pub fn set_ttl(&self, ttl: u8) -> io::Result<()> {
        let socket = &self.socket.get_ref().0;
        if self.local_addr()?.is_ipv6() {
            socket.set_unicast_hops_v6(ttl.into())
        } else {
            socket.set_ttl_v4(ttl.into())
        }
    }

    /// Sends at once, or fails with `WouldBlock`: a late datagram is worth less than the next.
    pub fn send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        self.socket.get_ref().0.send_to(datagram, &to.into())?;
        Ok(())
    }
}

pub(crate) fn switch_on(socket: &Socket, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    option::set(socket, level, name, &on)
}

pub(crate) fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<Received> {
    let (length, from, details) = read(socket, buffer)?;
    let missing = |what: &str| io::Error::other(format!("the kernel did not tell {what}"));
    Ok(Received {
        length,
        from,
        to: details.to.ok_or_else(|| missing("the destination"))?,
        ttl: details.ttl.ok_or_else(|| missing("the TTL"))?,
        interface: details.interface,
    })
}

/// Takes a datagram that has come: its length, who sent it, and what else the socket was asked to
/// tell of it.
pub(crate) fn read(
    socket: &impl AsRawFd,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr, Details)> {
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut control = [0_u64; CONTROL];
    // SAFETY: msghdr is plain data for which zeroes are valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the closure sets the address' length to what the kernel wrote into its storage; all
    // that `header` points to is alive during the call and of the lengths given.
    let (length, from) = unsafe {
        SockAddr::try_init(|storage, length| {
            header.msg_name = storage.cast();
            header.msg_namelen = *length;
            let read = libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0);
            if read < 0 {
                return Err(io::Error::last_os_error());
            }
            *length = header.msg_namelen;
            Ok(read as usize)
        })?
    };
    let from = from
        .as_socket()
        .ok_or_else(|| io::Error::other("the kernel did not tell the sender"))?;
    Ok((length, from, details(&header)))
}

#[derive(Default)]
pub(crate) struct Details {
    to: Option<IpAddr>,
    interface: u32,
    ttl: Option<u8>,
    /// When it arrived, by the wall clock: since 1970.
    pub(crate) arrived: Option<Duration>,
}

/// Reads the control messages that the kernel has just written.
fn details(header: &libc::msghdr) -> Details {
    let mut found = Details::default();
    // SAFETY: `header` was filled in by recvmsg, and its control buffer is alive and aligned.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give null or a whole header inside the buffer.
    while let Some(message) = unsafe { next.as_ref() } {
        // SAFETY: as above; the data follows the header.
        let data = unsafe { libc::CMSG_DATA(next) };
        match (message.cmsg_level, message.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                // SAFETY: the kernel writes an int for these types.
                let ttl = unsafe { data.cast::<libc::c_int>().read_unaligned() };
                found.ttl = u8::try_from(ttl).ok();
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                // SAFETY: the kernel writes a timespec for this type.
                let stamp = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                let whole = u64::try_from(stamp.tv_sec).ok();
                let rest = u32::try_from(stamp.tv_nsec).ok();
                found.arrived = whole.zip(rest).map(|(s, ns)| Duration::new(s, ns));
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: the kernel writes an in_pktinfo for this type.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                let to = Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr));
                found.to = Some(to.into());
                found.interface = u32::try_from(info.ipi_ifindex).unwrap_or(0);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: the kernel writes an in6_pktinfo for this type.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                found.to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                found.interface = info.ipi6_ifindex;
            }
            _ => {}
        }
        // SAFETY: `next` is a header inside `header`'s control buffer.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_tells_how_it_came() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("runtime");
        runtime.block_on(async {
            for ip in ["127.0.0.1", "::1"] {
                let at = SocketAddr::new(ip.parse().expect("address"), 0);
                // A machine without IPv6 has no ::1.
                let Ok(receiver) = Datagrams::bind(at, 255, None) else {
                    assert_eq!(ip, "::1");
                    continue;
                };
                let sender = Datagrams::bind(at, 254, None).expect("sender");
                let to = receiver.local_addr().expect("address");
                sender.send(b"hello", to).expect("send");
                let mut buffer = [0; 64];
                let received = receiver.recv(&mut buffer).await.expect("recv");
                assert_eq!(buffer.get(..received.length), Some(b"hello".as_slice()));
                assert_eq!(received.from, sender.local_addr().expect("address"));
                assert_eq!((received.to, received.ttl), (to.ip(), 254));
                assert_ne!(received.interface, 0);
            }
        });
    }

    #[test]
    fn an_address_in_use_is_named() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("runtime");
        let _entered = runtime.enter();
        let first = Datagrams::bind(([127, 0, 0, 1], 0).into(), 255, None).expect("first");
        let at = first.local_addr().expect("address");
        let error = Datagrams::bind(at, 255, None).expect_err("in use");
        assert_eq!(
            error.to_string(),
            format!("cannot open a socket at {at}: bind")
        );
    }
}
