//! A UDP port with two sockets: one for datagrams that somebody waits for, one for those that may
//! wait themselves. The kernel tells them apart by two bytes (`SO_ATTACH_REUSEPORT_CBPF`, a classic
//! BPF program that sees a datagram's content and names a socket), and notes when each arrived
//! (`SO_TIMESTAMPNS`), so that whoever reads late knows.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, SystemTime};

use libc::sock_filter;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{datagram, option};

const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// The sockets of a port, in the order in which they were bound.
const URGENT: u32 = 0;
const PATIENT: u32 = 1;

/// Which datagrams may wait: those whose two bytes at an offset, masked, are one of these values.
/// One that ends before may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern<'a> {
    /// From the content's first byte on; big-endian.
    pub offset: u32,
    /// The bits that count.
    pub mask: u16,
    /// Few.
    pub values: &'a [u16],
}

impl Pattern<'_> {
    fn program(&self) -> Vec<sock_filter> {
        let op = |code, k, jt| sock_filter { code, jt, jf: 0, k };
        // A load from beyond the end ends the program with 0, which is URGENT.
        let mut program = vec![op(LOAD_HALF, self.offset, 0), op(AND, self.mask.into(), 0)];
        for value in self.values {
            program.push(op(JUMP_EQUAL, (*value).into(), 0));
            program.push(op(RETURN, PATIENT, 0));
            // Skip the return that was just pushed unless it is equal.
            if let [.., jump, _] = program.as_mut_slice() {
                jump.jf = 1;
            }
        }
        program.push(op(RETURN, URGENT, 0));
        program
    }
}

/// The sockets; neither blocks.
#[derive(Debug)]
pub struct Divided {
    /// For what is to be read at once, and for sending.
    pub urgent: UdpSocket,
    /// For what may wait; `None` where the kernel cannot divide: then nothing waits.
    pub patient: Option<UdpSocket>,
}

impl Divided {
    /// Binds to all addresses of the host, of both families where it has both, in the network
    /// namespace of this thread. Nobody else may have the port.
    pub fn bind(port: u16, pattern: &Pattern<'_>) -> io::Result<Self> {
        let all = |ip: IpAddr| Self::bind_to(SocketAddr::new(ip, port), pattern);
        all(Ipv6Addr::UNSPECIFIED.into()).or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Err(error),
            _ => all(Ipv4Addr::UNSPECIFIED.into()),
        })
    }

    /// Binds to one address.
    pub fn bind_to(at: SocketAddr, pattern: &Pattern<'_>) -> io::Result<Self> {
        // Sockets that share a port would share it with another program's too.
        drop(bind(at, false)?);
        Self::divide(at, pattern).or_else(|_| {
            Ok(Self {
                urgent: bind(at, false)?.into(),
                patient: None,
            })
        })
    }

    fn divide(at: SocketAddr, pattern: &Pattern<'_>) -> io::Result<Self> {
        let urgent = bind(at, true)?;
        // Before the second one is there: nothing is to go astray.
        attach(&urgent, &pattern.program())?;
        // The port may have been the kernel's choice.
        let at = urgent.local_addr()?.as_socket().unwrap_or(at);
        let patient = bind(at, true)?;
        datagram::switch_on(&patient, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)?;
        Ok(Self {
            urgent: urgent.into(),
            patient: Some(patient.into()),
        })
    }
}

fn bind(at: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(shared)?;
    if at.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&at.into())?;
    Ok(socket)
}

fn attach(socket: &Socket, program: &[sock_filter]) -> io::Result<()> {
    let header = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        // The kernel only reads it.
        filter: program.as_ptr().cast_mut(),
    };
    // `header` points to `len` instructions in `program`, which outlives the call; the kernel copies
    // and checks them.
    option::set(
        socket,
        libc::SOL_SOCKET,
        libc::SO_ATTACH_REUSEPORT_CBPF,
        &header,
    )
}

/// Takes a datagram that has come, or fails with `WouldBlock`: its length, who sent it, and for how
/// long it has waited, as far as the socket notes that.
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Duration)> {
    let (length, from, details) = datagram::read(&socket.as_raw_fd(), buffer)?;
    let waited = details.arrived.and_then(|arrived| {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()?;
        now.checked_sub(arrived)
    });
    Ok((length, from, waited.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::time::Instant;

    use super::*;
    use crate::thread::await_readable;

    const SOON: Duration = Duration::from_secs(30);
    const PATTERN: Pattern<'static> = Pattern {
        offset: 2,
        mask: 0xff04,
        values: &[0x2100, 0x2200],
    };

    fn ready(socket: &UdpSocket, limit: Duration) -> bool {
        let [ready] = await_readable([socket.as_fd()], Some(limit)).expect("wait");
        ready
    }

    fn take(socket: &UdpSocket) -> (Vec<u8>, SocketAddr, Duration) {
        assert!(ready(socket, SOON));
        let mut buffer = [0; 64];
        let (length, from, waited) = receive(socket, &mut buffer).expect("receive");
        (buffer[..length].to_vec(), from, waited)
    }

    #[test]
    fn datagrams_reach_the_socket_that_they_are_for_in_both_families() {
        let divided = Divided::bind(0, &PATTERN).expect("bind");
        let patient = divided.patient.as_ref().expect("the kernel can divide");
        let at = divided.urgent.local_addr().expect("address");
        assert_eq!(patient.local_addr().expect("address"), at);
        let families = if at.is_ipv6() { 2 } else { 1 };
        for ip in ["127.0.0.1", "::1"].into_iter().take(families) {
            let to = SocketAddr::new(ip.parse().expect("address"), at.port());
            // Many senders: without the program their ports would choose.
            for _ in 0..16 {
                let Ok(sender) = UdpSocket::bind((to.ip(), 0)) else {
                    // A machine may have IPv6 sockets and no ::1.
                    assert_eq!(ip, "::1");
                    break;
                };
                for (datagram, may_wait) in [
                    (b"Cm\x21\x00 beat".as_slice(), true),
                    (b"Cm\x21\x09 beat, other flags", true),
                    (b"Cm\x22\x01 ack", true),
                    (b"Cm\x21\x00", true),
                    (b"Cm\x21\x05 beat, answer wanted", false),
                    (b"Cm\x23\x00 probe", false),
                    (b"Cm\x11\x00 another version", false),
                    (b"Cm\x21", false),
                    (b"", false),
                ] {
                    sender.send_to(datagram, to).expect("send");
                    let (one, other) = match may_wait {
                        true => (patient, &divided.urgent),
                        false => (&divided.urgent, patient),
                    };
                    let (found, from, _) = take(one);
                    assert_eq!(found, datagram);
                    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                    assert_eq!(from, sender.local_addr().expect("address"));
                    assert!(!ready(other, Duration::ZERO), "{datagram:?} came twice");
                }
            }
        }
    }

    #[test]
    fn a_late_reader_is_told_how_late() {
        let divided = Divided::bind(0, &PATTERN).expect("bind");
        let patient = divided.patient.as_ref().expect("the kernel can divide");
        let port = divided.urgent.local_addr().expect("address").port();
        let sender = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let send = |bytes: &[u8]| sender.send_to(bytes, ("127.0.0.1", port)).expect("send");
        // The kernel begins to note times only soon after it was first asked to.
        let began = Instant::now();
        loop {
            let sent = Instant::now();
            send(b"Cm\x21\x00");
            assert!(ready(patient, SOON));
            // Nothing comes here: a wait that takes its time.
            assert!(!ready(&divided.urgent, Duration::from_millis(20)));
            let (_, _, waited) = take(patient);
            // Another clock: it need not agree to the last.
            assert!(waited < sent.elapsed() * 2, "{waited:?}");
            if waited >= Duration::from_millis(10) {
                break;
            }
            assert!(began.elapsed() < SOON, "{waited:?}");
        }
        // What is sent only once it is awaited has hardly waited. A busy machine may make it wait.
        let quick = || {
            send(b"Cm\x21\x00");
            take(patient).2 < Duration::from_millis(10)
        };
        while !quick() {
            assert!(began.elapsed() < SOON);
        }
    }

    #[test]
    fn a_port_is_not_shared_with_others() {
        let divided = Divided::bind(0, &PATTERN).expect("bind");
        let port = divided.urgent.local_addr().expect("address").port();
        let error = Divided::bind(port, &PATTERN).expect_err("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
