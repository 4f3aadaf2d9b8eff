//! Another BGP speaker on this node that has a session with the same peer, by the same address:
//! MetalLB's speaker, FRR, Calico's BIRD.
//!
//! A router has one session for each pair of addresses. Where graceful restart is on it takes a new
//! connection for a restart and ends the old one, so two speakers would end each other's sessions
//! for ever (`spec/bgp.md` T4). We look before we connect, at the kernel's table of connections,
//! and stand by while the other one is there.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use plan::announce::bgp::PeerSession;

/// A speaker listens there, and a router may have dialled it.
const BGP: u16 = 179;
/// `TCP_ESTABLISHED`, as the table has it.
const ESTABLISHED: &str = "01";

/// An open connection of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Connection {
    local: SocketAddr,
    remote: SocketAddr,
    inode: u64,
}

/// Its end of a session that another speaker of this node has with `peer`, by the address that
/// ours would have. `None` also where that cannot be known.
pub(super) async fn find(session: &PeerSession, peer: SocketAddr) -> Option<SocketAddr> {
    // In a VRF the same addresses may mean others; by the loopback device one speaks to a speaker
    // of this very node.
    if session.vrf.is_some() || peer.ip().is_loopback() {
        return None;
    }
    let source = session.source.or_else(|| source(peer))?;
    let mut found = None;
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let text = tokio::fs::read_to_string(table).await.unwrap_or_default();
        found = found.or_else(|| {
            let mut connections = text.lines().filter_map(parse);
            connections.find(|it| rivals(it, source, peer) && !is_ours(it.inode))
        });
    }
    found.map(|it| it.local)
}

/// The address that the kernel would connect from. Nothing is sent.
fn source(peer: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn rivals(connection: &Connection, source: IpAddr, peer: SocketAddr) -> bool {
    let Connection { local, remote, .. } = connection;
    local.ip() == source
        && remote.ip() == peer.ip()
        && (remote.port() == peer.port() || local.port() == BGP)
}

/// Whether the socket is this process's.
fn is_ours(inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let descriptors = fs::read_dir("/proc/self/fd").into_iter().flatten();
    descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| target.as_os_str() == wanted.as_str())
}

/// Reads a line of the table (`proc_pid_net(5)`); `None`: it is no open connection.
fn parse(line: &str) -> Option<Connection> {
    let mut fields = line.split_whitespace();
    let local = address(fields.nth(1)?)?;
    let remote = address(fields.next()?)?;
    if fields.next()? != ESTABLISHED {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    Some(Connection {
        local,
        remote,
        inode,
    })
}

/// `0B00000A:00B3`: words in the machine's order, the port as one reads it.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut octets = [0; 16];
    let mut words = 0;
    for (n, octets) in octets.chunks_mut(4).enumerate() {
        let Some(word) = ip.get(n * 8..n * 8 + 8) else {
            break;
        };
        octets.copy_from_slice(&u32::from_str_radix(word, 16).ok()?.to_ne_bytes());
        words = n + 1;
    }
    let ip = match (words, octets) {
        (1, [a, b, c, d, ..]) if ip.len() == 8 => IpAddr::from([a, b, c, d]),
        (4, octets) if ip.len() == 32 => Ipv6Addr::from(octets).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    // A session with 10.0.0.1, dialled; one that it dialled; one that is being closed; HTTP.
    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:00B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4070 1 x
   1: 0B00000A:D431 0100000A:00B3 01 00000000:00000000 02:00000543 00000000   101        0 4071 2 x
   2: 0C00000A:00B3 0100000A:D431 01 00000000:00000000 02:00000543 00000000   101        0 4072 2 x
   3: 0D00000A:D431 0100000A:00B3 06 00000000:00000000 03:00000543 00000000     0        0 0 2 x
   4: 0D00000A:D432 0100000A:0050 01 00000000:00000000 02:00000543 00000000   101        0 4074 2 x
   5: 0000000000000000FFFF00000E00000A:D431 0000000000000000FFFF00000100000A:00B3 01 0:0 02:5 0 101 0 4075 2 x
   6: 000080FE0000000000000000110000FE:D431 000080FE0000000000000000010000FE:00B3 01 0:0 02:5 0 101 0 4076 2 x
   7: garbage 0100000A:00B3 01 0:0 02:5 0 101 0 4076 2 x
";

    #[test]
    fn only_an_open_session_with_the_peer_is_one() {
        let all: Vec<Connection> = TABLE.lines().filter_map(parse).collect();
        let found = |source: &str, peer: &str| {
            let source = source.parse().expect("an address");
            let peer = peer.parse().expect("an address");
            let mut all = all.iter();
            let found = all.find(|it| rivals(it, source, peer));
            found.map(|it| (it.local.to_string(), it.inode))
        };
        let wanted = |local: &str, inode| Some((local.to_owned(), inode));
        for (source, peer, want) in [
            ("10.0.0.11", "10.0.0.1:179", wanted("10.0.0.11:54321", 4071)),
            ("10.0.0.12", "10.0.0.1:179", wanted("10.0.0.12:179", 4072)),
            ("10.0.0.14", "10.0.0.1:179", wanted("10.0.0.14:54321", 4075)),
            (
                "fe80::fe00:11",
                "[fe80::fe00:1]:179",
                wanted("[fe80::fe00:11]:54321", 4076),
            ),
            // Another source, another peer, another port; none that is open.
            ("10.0.0.21", "10.0.0.1:179", None),
            ("10.0.0.11", "10.0.0.2:179", None),
            ("10.0.0.11", "10.0.0.1:1790", None),
            ("10.0.0.13", "10.0.0.1:179", None),
        ] {
            assert_eq!(found(source, peer), want, "{source} {peer}");
        }
    }

    #[tokio::test]
    async fn the_kernels_table_reads_and_our_own_connections_do_not_count() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let at = listener.local_addr().expect("its address");
        let ours = std::net::TcpStream::connect(at).expect("a connection");
        let text = fs::read_to_string("/proc/self/net/tcp").expect("the table");
        let local = ours.local_addr().expect("its address");
        let mut all = text.lines().filter_map(parse);
        let found = all.find(|it| it.local == local).expect("in the table");
        assert!(rivals(&found, local.ip(), at));
        assert!(is_ours(found.inode));
        assert!(!is_ours(u64::MAX));
        assert_eq!(source(at), Some(at.ip()));
    }
}
