//! Needs root; without it each test says so and passes, except under CI. The kernel is the
//! oracle: both ends are in a network namespace of the test's own.

use std::{
    future::Future,
    net::{Ipv4Addr, Ipv6Addr},
};

use tokio::net::TcpSocket;

use super::*;
use crate::{alone::alone, netlink::Netlink};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Runs a test in a network namespace of its own, whose loopback is up.
fn on_loopback<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    alone(async || {
        let netlink = Netlink::open().expect("netlink");
        let lo = netlink.index_of("lo").await.expect("lo");
        netlink.set_up(lo).await.expect("up");
        test().await;
    });
}

fn listener(ip: IpAddr, options: Options<'_>) -> (tokio::net::TcpListener, SocketAddr) {
    let listener = listen(SocketAddr::new(ip, 0), options).expect("listen");
    let at = listener.local_addr().expect("address");
    let listener = tokio::net::TcpListener::from_std(listener).expect("reactor");
    (listener, at)
}

fn dialled(
    peer: SocketAddr,
    password: Option<&[u8]>,
    options: Options<'_>,
) -> impl Future<Output = io::Result<tokio::net::TcpStream>> + use<> {
    let socket = dial(peer, None, password, options).expect("dial");
    TcpSocket::from_std_stream(socket).connect(peer)
}

/// A counter of the calling thread's network namespace.
fn counter(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").expect("netstat");
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        if let Some((_, value)) = pairs.find(|(n, _)| *n == name) {
            return value.parse().expect("a number");
        }
    }
    panic!("no counter {name}");
}

/// Dials until a counter says that the kernel has dropped a segment; nothing was accepted then.
async fn dropped(
    name: &str,
    listener: &tokio::net::TcpListener,
    dialling: impl Future<Output = io::Result<tokio::net::TcpStream>>,
) {
    let counted = async {
        while counter(name) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        connected = dialling => panic!("connected: {connected:?}"),
        accepted = listener.accept() => panic!("accepted: {accepted:?}"),
        () = counted => {}
    }
}

#[test]
fn a_password_must_be_equal() {
    on_loopback(|| async {
        for ip in [V4, V6] {
            let (listener, at) = listener(ip, Options::default());
            set_password(&listener, ip, None, b"secret").expect("password");
            let dialling = dialled(at, Some(b"secret"), Options::default());
            let (accepted, connected) = tokio::join!(listener.accept(), dialling);
            accepted.expect("accepted");
            connected.expect("connected");
        }
        let (listener, at) = listener(V4, Options::default());
        set_password(&listener, V4, None, b"secret").expect("password");
        let wrong = dialled(at, Some(b"another"), Options::default());
        dropped("TCPMD5Failure", &listener, wrong).await;
        let none = dialled(at, None, Options::default());
        dropped("TCPMD5NotFound", &listener, none).await;
    });
}

#[test]
fn a_prefix_of_peers_shares_a_password() {
    on_loopback(|| async {
        let (listener, at) = listener(V4, Options::default());
        let net = Ipv4Addr::new(127, 0, 0, 0).into();
        set_password(&listener, net, Some(8), b"secret").expect("password");
        let dialling = dialled(at, Some(b"secret"), Options::default());
        let (accepted, connected) = tokio::join!(listener.accept(), dialling);
        accepted.expect("accepted");
        connected.expect("connected");
    });
}

#[test]
fn a_long_password_is_refused() {
    let peer = SocketAddr::new(V4, 179);
    let long = [b'x'; MAX_PASSWORD + 1];
    let error = dial(peer, None, Some(&long), Options::default()).expect_err("too long");
    assert_eq!(error.to_string(), "cannot set the password of a connection");
    assert_eq!(
        std::error::Error::source(&error).expect("why").to_string(),
        "the password is longer than 80 bytes"
    );
}

#[test]
fn far_senders_are_dropped() {
    on_loopback(|| async {
        let near = Options {
            ttl: Some(255),
            min_ttl: Some(255),
            ..Options::default()
        };
        for ip in [V4, V6] {
            let (listener, at) = listener(ip, near);
            let (accepted, connected) = tokio::join!(listener.accept(), dialled(at, None, near));
            accepted.expect("accepted");
            connected.expect("connected");
        }
        let (listener, at) = listener(V4, near);
        let far = Options {
            ttl: Some(64),
            ..Options::default()
        };
        dropped("TCPMinTTLDrop", &listener, dialled(at, None, far)).await;
    });
}

#[test]
fn the_source_and_the_device_are_chosen() {
    on_loopback(|| async {
        let device = Options {
            device: Some("lo"),
            ..Options::default()
        };
        let (listener, at) = listener(V4, device);
        let source = SocketAddr::from(([127, 0, 0, 9], 0));
        let socket = dial(at, Some(source), None, device).expect("dial");
        let dialling = TcpSocket::from_std_stream(socket).connect(at);
        let (accepted, connected) = tokio::join!(listener.accept(), dialling);
        connected.expect("connected");
        assert_eq!(accepted.expect("accepted").1.ip(), source.ip());

        let missing = Options {
            device: Some("none"),
            ..Options::default()
        };
        let error = dial(at, None, None, missing).expect_err("no such device");
        assert_eq!(error.to_string(), "cannot bind to device none");
        let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
        let error = dial(at, Some(foreign), None, Options::default()).expect_err("not ours");
        assert_eq!(error.to_string(), "cannot connect from 192.0.2.1");
    });
}

#[test]
fn what_the_kernel_lacks_is_told_from_a_missing_right() {
    let failed = |errno| TcpError {
        what: "set the password of a connection".to_owned(),
        source: io::Error::from_raw_os_error(errno),
    };
    for (errno, unsupported, denied) in [
        (libc::ENOPROTOOPT, true, false),
        (libc::EPERM, false, true),
        (libc::EINVAL, false, false),
    ] {
        let error = failed(errno);
        assert_eq!(
            (error.is_unsupported(), error.is_denied()),
            (unsupported, denied)
        );
    }
}
