//! A node, a client and pods: three network namespaces in a sandbox.
//!
//! ```text
//!   client 10.0.0.9 ── 10.0.0.1 node 10.1.0.1 ── 10.1.0.2 … 10.1.0.9 pods
//!          fd00::9  ── fd00::1       fd01::1  ── fd01::2  … fd01::9
//! ```
//! The test itself runs in the node. VIPs 10.0.0.101, fd00::101 and cluster IPs 10.96.0.0/16,
//! fd96::/64 lead to the node.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use linux::namespace::{NetNs, Sandbox, in_sandbox};
use plan::forward::{Frontend, FrontendKind, PortKey, ServicePort};
use plan::name::ServiceKey;
use plan::net::{Family, Protocol};
use plan::world::Policy;

/// Runs `body` in a sandbox: the test binary starts itself again there with this test alone.
pub(crate) fn sandboxed(test: &str, body: impl FnOnce()) {
    if in_sandbox() {
        return body();
    }
    let sandbox = Sandbox::current_exe()
        .expect("own path")
        .arg(test)
        .arg("--exact")
        .arg("--nocapture");
    match sandbox.spawn() {
        Ok(mut child) => {
            let status = child.wait_timeout(Duration::from_secs(300)).expect("wait");
            assert!(
                status.is_some_and(|s| s.success()),
                "in the sandbox: {status:?}"
            );
        }
        Err(error) if error.is_denied() && std::env::var_os("CI").is_none() => {
            println!("skipped: {error}");
        }
        Err(error) => panic!("{error}"),
    }
}

/// The namespaces.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) client: NetNs,
    pub(crate) pods: NetNs,
}

pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("ip is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Self {
            client: NetNs::create("client").expect("namespace"),
            pods: NetNs::create("pods").expect("namespace"),
        };
        for (key, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            // Every rejection is answered, not one in a second.
            ("ipv4/icmp_ratelimit", "0"),
            ("ipv6/icmp/ratelimit", "0"),
        ] {
            std::fs::write(format!("/proc/sys/net/{key}"), value).expect("sysctl");
        }
        // No address is tentative, not for a moment.
        let no_dad = || std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
        for written in [Ok(no_dad()), lab.client.run(no_dad), lab.pods.run(no_dad)] {
            written.expect("enter").expect("sysctl");
        }
        for (index, name) in ["client", "pods"].into_iter().enumerate() {
            ip(&format!(
                "link add {name} type veth peer name eth0 netns {name}"
            ));
            ip(&format!("link set {name} up"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} link set eth0 up"));
            ip(&format!("addr add 10.{index}.0.1/24 dev {name}"));
            ip(&format!("addr add fd0{index}::1/64 dev {name} nodad"));
        }
        ip("link set lo up");
        ip("-n client addr add 10.0.0.9/24 dev eth0");
        ip("-n client addr add fd00::9/64 dev eth0 nodad");
        ip("-n client route add 10.0.0.101 via 10.0.0.1");
        ip("-n client route add fd00::101 via fd00::1");
        for host in 2..10 {
            ip(&format!("-n pods addr add 10.1.0.{host}/24 dev eth0"));
            ip(&format!("-n pods addr add fd01::{host}/64 dev eth0 nodad"));
        }
        for (name, index) in [("client", 0), ("pods", 1)] {
            ip(&format!("-n {name} route add default via 10.{index}.0.1"));
            ip(&format!("-n {name} route add default via fd0{index}::1"));
        }
        // The host's own connections need a route before the rules see them.
        ip("route add default via 10.1.0.9");
        ip("route add default via fd01::9");
        lab
    }

    /// Servers on every pod address that answer "own address, peer's address".
    pub(crate) fn serve(&self, port: u16) {
        let of_host = |host| [format!("10.1.0.{host}"), format!("fd01::{host}")];
        for address in (2..10u16).flat_map(of_host) {
            self.serve_at(SocketAddr::new(address.parse().expect("address"), port));
        }
    }

    /// More pods: `addresses` lead to the pods' namespace, and servers answer there too.
    pub(crate) fn serve_more(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        for at in addresses {
            let bits = if at.is_ipv6() { 128 } else { 32 };
            ip(&format!("-n pods addr add {}/{bits} dev lo", at.ip()));
            self.serve_at(at);
        }
    }

    fn serve_at(&self, at: SocketAddr) {
        self.pods.run(|| serve(at)).expect("enter");
    }
}

/// Servers at an address in the calling thread's namespace.
pub(crate) fn serve(at: SocketAddr) {
    let (tcp, udp) = (TcpListener::bind(at), UdpSocket::bind(at));
    let (tcp, udp) = (tcp.expect("listen"), udp.expect("bind"));
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let Ok(mut stream) = stream else { continue };
            let Ok(peer) = stream.peer_addr() else {
                continue;
            };
            let _ = write!(stream, "{at} {peer}");
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(format!("{at} {peer}").as_bytes(), peer);
        }
    });
}

/// What a client saw.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The endpoint that answered, and whom it answered.
    Answer {
        by: SocketAddr,
        peer: SocketAddr,
        from: SocketAddr,
    },
    Refused,
    Silence,
}

impl Seen {
    fn read(text: &str, from: SocketAddr) -> Self {
        let (by, peer) = text.split_once(' ').expect("two addresses");
        Self::Answer {
            by: by.parse().expect("address"),
            peer: peer.parse().expect("address"),
            from,
        }
    }

    fn error(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silence,
            _ => panic!("unexpected: {error}"),
        }
    }
}

/// How long silence is listened to, where silence is expected.
pub(crate) const BRIEFLY: Duration = Duration::from_millis(300);
/// The deadline of an answer or refusal.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Connects by TCP in the calling thread's namespace.
pub(crate) fn tcp(to: SocketAddr, patience: Duration) -> Seen {
    match TcpStream::connect_timeout(&to, patience) {
        Ok(mut stream) => {
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("read");
            Seen::read(&text, stream.local_addr().expect("local"))
        }
        Err(error) => Seen::error(&error),
    }
}

/// Sends a datagram from `source` and waits for the answer.
pub(crate) fn udp(source: SocketAddr, to: SocketAddr) -> Seen {
    let socket = UdpSocket::bind(source).expect("bind");
    socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
    socket.connect(to).expect("route");
    let sent = socket.send(b"?");
    sent.unwrap_or_else(|error| panic!("to {to}: {error}"));
    let mut buffer = [0; 128];
    match socket.recv(&mut buffer) {
        Ok(length) => {
            let text = String::from_utf8_lossy(&buffer[..length]);
            Seen::read(&text, socket.local_addr().expect("local"))
        }
        Err(error) => Seen::error(&error),
    }
}

pub(crate) fn key(name: &str, protocol: Protocol, family: Family) -> PortKey {
    PortKey {
        service: ServiceKey::new("default", name),
        port: "p".into(),
        protocol,
        family,
    }
}

pub(crate) fn frontend(socket: &str, kind: FrontendKind, policy: Policy) -> Frontend {
    let socket: SocketAddr = socket.parse().expect("socket");
    Frontend {
        address: socket.ip(),
        port: socket.port(),
        kind,
        policy,
    }
}

/// A service port with endpoints on the given pods.
pub(crate) fn service(
    frontends: Vec<Frontend>,
    pods: std::ops::Range<u8>,
    local: bool,
) -> ServicePort {
    let v6 = frontends.first().is_some_and(|f| f.address.is_ipv6());
    let endpoints: Vec<SocketAddr> = pods
        .map(|host| {
            let address = if v6 {
                format!("fd01::{host}")
            } else {
                format!("10.1.0.{host}")
            };
            SocketAddr::new(address.parse().expect("address"), 8080)
        })
        .collect();
    ServicePort {
        frontends,
        local: if local { endpoints.clone() } else { Vec::new() },
        usable_anywhere: !endpoints.is_empty(),
        cluster: endpoints,
        ..ServicePort::default()
    }
}

pub(crate) type Desired = BTreeMap<PortKey, ServicePort>;
