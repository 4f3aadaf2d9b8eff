//! The TCP connection of a session.

use std::io;
use std::net::SocketAddr;

use plan::announce::bgp::PeerSession;
use plan::config::{Hidden, Neighbour, Password};
use proto::bgp::fsm::DialError;
use tokio::net::{TcpSocket, TcpStream};

/// Connects as the session says. Dropped, it has not connected.
pub(super) async fn dial(
    session: PeerSession,
    password: Option<Hidden>,
) -> Result<TcpStream, DialError> {
    let Neighbour::Address(ip) = session.neighbour else {
        return Err(other("peers on an interface are not served yet"));
    };
    if let Password::Secret { .. } = session.password
        && password.is_none()
    {
        return Err(other("the Secret of the password has not been read"));
    }
    let peer = SocketAddr::new(ip, session.port);
    let options = linux::tcp::Options {
        device: session.vrf.as_deref(),
        ttl: Some(session.ttl),
        min_ttl: session.minimum_ttl,
    };
    let source = session.source.map(|ip| SocketAddr::new(ip, 0));
    let key = password.as_ref().map(Hidden::reveal);
    let socket = linux::tcp::dial(peer, source, key, options)
        .map_err(|error| other(crate::cli::chain(&error)))?;
    let connecting = TcpSocket::from_std_stream(socket).connect(peer);
    connecting.await.map_err(|error| failed(&error))
}

/// Whether a connection of the neighbour's is at the address that the session says; it gets the
/// session's TTL, and demands it from now on.
pub(super) fn accepted(stream: &TcpStream, session: &PeerSession) -> bool {
    let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else {
        return false;
    };
    if session.source.is_some_and(|source| source != local.ip()) {
        return false;
    }
    match linux::tcp::set_hops(stream, peer.ip(), session.ttl, session.minimum_ttl) {
        Ok(()) => true,
        Err(error) => {
            let error = crate::cli::chain(&error);
            tracing::warn!(%peer, error, "a neighbour's connection cannot be set up");
            false
        }
    }
}

fn other(why: impl Into<String>) -> DialError {
    DialError::Other(why.into())
}

fn failed(error: &io::Error) -> DialError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Refused,
        io::ErrorKind::TimedOut => DialError::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            DialError::Unreachable
        }
        _ => other(error.to_string()),
    }
}
