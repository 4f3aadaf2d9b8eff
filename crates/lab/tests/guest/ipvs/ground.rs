//! A client, a node and two Pods that say who they are and whom they hear.
//!
//! ```text
//!   client 10.0.0.9 ── 10.0.0.11 node ── a 10.244.1.2, fd10::2
//!          fd00::9  ── fd00::11       ── b 10.244.1.3, fd10::3
//! ```
//! Cluster IPs are of 10.96.0.0/16 and fd96::/64, external addresses of 192.168.10.0/24 and
//! fd97::/64: the client reaches all of them by the node.

use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use lab::{Host, Lab, Outcome, Process, bin, wait_for};
use linux::ipvs::ServerKey;

/// What a step gives, or why it failed.
pub(crate) type Found<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The port that Pods listen on.
pub(crate) const PORT: u16 = 8080;
/// Long enough for an emulated machine.
pub(crate) const SOON: Duration = Duration::from_secs(120);
/// How long silence is listened to.
pub(crate) const BRIEFLY: Duration = Duration::from_millis(500);

/// Debian's modules of all this: the kernel finds them by itself, but takes a second for each.
pub(crate) const MODULES: [&str; 22] = [
    "bridge",
    "dummy",
    "ip_vs",
    "ip_vs_mh",
    "ip_vs_rr",
    "ip_vs_sh",
    "ip_vs_wrr",
    "nf_conntrack_netlink",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_inet",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_hash",
    "nft_masq",
    "nft_nat",
    "nft_reject_inet",
    "nft_redir",
    "veth",
    "sctp",
    "xt_nat",
];

pub(crate) struct Ground {
    pub(crate) client: Host,
    pub(crate) node: Host,
    pub(crate) pods: Vec<Host>,
}

/// The address of Pod `number` (a is 2) in the family of `of`.
pub(crate) fn endpoint(of: IpAddr, number: u8) -> SocketAddr {
    let address = match of {
        IpAddr::V4(_) => IpAddr::from([10, 244, 1, number]),
        IpAddr::V6(_) => IpAddr::from([0xfd10, 0, 0, 0, 0, 0, 0, u16::from(number)]),
    };
    SocketAddr::new(address, PORT)
}

/// A virtual server of this protocol at `at`.
pub(crate) fn server(at: &str, protocol: u8) -> Result<ServerKey, std::net::AddrParseError> {
    let at: SocketAddr = at.parse()?;
    Ok(ServerKey {
        address: at.ip(),
        protocol,
        port: at.port(),
    })
}

impl Ground {
    /// Starts `corten run` on the node and waits until it is ready.
    pub(crate) async fn run(&self, dir: &Path, forward: &str, more: &[&str]) -> Found<Process> {
        let mut command = self.node.command(bin("corten")?)?;
        command.arg("run").arg(dir);
        command.args(["--node-name", "node", "--forward", forward]);
        command.args(more);
        let process = self.node.spawn(&format!("corten-{forward}"), command)?;
        wait_for(SOON, "the agent to be ready", async || {
            let at = SocketAddr::from(([127, 0, 0, 1], 17472));
            match self.node.http_get(at, "/readyz").await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.body),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        Ok(process)
    }

    pub(crate) async fn new(lab: &Lab) -> Found<Self> {
        let lan = lab.segment("lan").await?;
        let (client, node) = (lab.host("client").await?, lab.node("node").await?);
        lan.attach(&client, &["10.0.0.9/24", "fd00::9/64"]).await?;
        lan.attach(&node, &["10.0.0.11/24", "fd00::11/64"]).await?;
        for (to, via) in [
            ("10.96.0.0/16", "10.0.0.11"),
            ("192.168.10.0/24", "10.0.0.11"),
            ("fd96::/64", "fd00::11"),
            ("fd97::/64", "fd00::11"),
        ] {
            client.add_route(to, via).await?;
        }
        // Every rejection is answered, not one in a second.
        node.sysctl("net.ipv4.icmp_ratelimit", "0")?;
        node.sysctl("net.ipv6.icmp.ratelimit", "0")?;
        let mut pods = Vec::new();
        for (name, number) in [("a", 2), ("b", 3)] {
            let addresses = [[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()];
            let addresses = addresses.map(|of| endpoint(of, number).ip());
            let pod = lab.pod(&node, &addresses, name).await?;
            for address in addresses {
                serve(&pod, name, SocketAddr::new(address, PORT))?;
            }
            pods.push(pod);
        }
        Ok(Self { client, node, pods })
    }
}

/// Whoever connects is told the Pod's name and its own address, and gets every line back.
fn serve(pod: &Host, name: &'static str, at: SocketAddr) -> Outcome {
    let (tcp, udp) = pod.run(|| (TcpListener::bind(at), UdpSocket::bind(at)))?;
    let (tcp, udp) = (tcp?, udp?);
    std::thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            std::thread::spawn(move || echo(name, stream));
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(format!("{name} {peer}").as_bytes(), peer);
        }
    });
    Ok(())
}

fn echo(name: &str, mut stream: TcpStream) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    writeln!(stream, "{name} {peer}")?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        stream.write_all(line.as_bytes())?;
        line.clear();
    }
    Ok(())
}

/// An open connection.
pub(crate) struct Open {
    lines: BufReader<TcpStream>,
    /// The Pod that answered.
    pub(crate) by: String,
    /// Whom it heard.
    pub(crate) heard: SocketAddr,
}

impl Open {
    /// Connects from `host`.
    pub(crate) fn new(host: &Host, to: SocketAddr) -> Found<Self> {
        Self::of(host.run(|| TcpStream::connect_timeout(&to, SOON))??)
    }

    /// Goes on with a connection.
    pub(crate) fn of(stream: TcpStream) -> Found<Self> {
        stream.set_read_timeout(Some(SOON))?;
        let mut lines = BufReader::new(stream);
        let mut greeting = String::new();
        lines.read_line(&mut greeting)?;
        let (by, heard) = greeting.trim().split_once(' ').ok_or("a greeting")?;
        let (by, heard) = (by.to_owned(), heard.parse()?);
        Ok(Self { lines, by, heard })
    }

    /// The other end answers still.
    pub(crate) fn lives(&mut self) -> Outcome {
        self.lines.get_mut().write_all(b"still there?\n")?;
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        match line.as_str() {
            "still there?\n" => Ok(()),
            other => Err(format!("{} answered {other:?}", self.by).into()),
        }
    }
}

impl Drop for Open {
    /// Ends it by a reset: IPVS remembers a proper end for two minutes, a reset for ten seconds.
    fn drop(&mut self) {
        let _ = socket2::SockRef::from(self.lines.get_ref()).set_linger(Some(Duration::ZERO));
    }
}

/// Which Pods answer `count` connections in turn.
pub(crate) fn turns(host: &Host, to: SocketAddr, count: usize) -> Found<String> {
    (0..count)
        .map(|_| Ok(Open::new(host, to)?.by.clone()))
        .collect()
}

/// Who answers a datagram, and whom it heard.
pub(crate) fn ask(host: &Host, to: SocketAddr) -> Found<(String, SocketAddr)> {
    let socket = talk(host, to, SOON)?;
    hear(&socket)
}

/// A socket for datagrams to `to`, each answered in this time.
pub(crate) fn talk(host: &Host, to: SocketAddr, patience: Duration) -> Found<UdpSocket> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => "0.0.0.0:0".parse()?,
        SocketAddr::V6(_) => "[::]:0".parse()?,
    };
    let socket = host.run(|| UdpSocket::bind(any))??;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(to)?;
    Ok(socket)
}

/// Sends a datagram: who answers, and whom it heard.
pub(crate) fn hear(socket: &UdpSocket) -> Found<(String, SocketAddr)> {
    socket.send(b"?")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    let said = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
    let (by, heard) = said.split_once(' ').ok_or("an answer")?;
    Ok((by.to_owned(), heard.parse()?))
}

/// A connection is refused. The kernel may overlook the refusal of its first packet, which comes
/// while it is sending.
pub(crate) fn refusal(host: &Host, to: SocketAddr) -> Outcome {
    fails(host, to, SOON, io::ErrorKind::ConnectionRefused)
}

/// A connection is not answered at all.
pub(crate) fn silence(host: &Host, to: SocketAddr) -> Outcome {
    fails(host, to, BRIEFLY, io::ErrorKind::TimedOut)
}

fn fails(host: &Host, to: SocketAddr, patience: Duration, with: io::ErrorKind) -> Outcome {
    match host.run(|| TcpStream::connect_timeout(&to, patience))? {
        Err(error) if error.kind() == with => Ok(()),
        other => Err(format!("{} to {to}: {other:?} instead of {with}", host.name()).into()),
    }
}

/// Looks until it is so.
pub(crate) fn until(what: &str, mut look: impl FnMut() -> Outcome) -> Outcome {
    let end = Instant::now() + SOON;
    loop {
        match look() {
            Ok(()) => return Ok(()),
            Err(seen) if Instant::now() > end => return Err(format!("{what}: {seen}").into()),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
