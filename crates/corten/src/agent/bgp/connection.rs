//! The TCP connection of a session.

use std::io;
use std::net::{IpAddr, SocketAddr};

use plan::announce::bgp::PeerSession;
use plan::config::{Hidden, Password};
use proto::bgp::fsm::DialError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::rival;

/// Connects to `peer` as the session says. Dropped, it has not connected.
pub(super) async fn dial(
    session: PeerSession,
    peer: Result<SocketAddr, String>,
    password: Option<Hidden>,
) -> Result<TcpStream, DialError> {
    let peer = peer.map_err(other)?;
    if let Password::Secret { .. } = session.password
        && password.is_none()
    {
        return Err(other("the Secret of the password has not been read"));
    }
    if let Some(by) = rival::find(&session, peer).await {
        let by = by.to_string();
        return Err(DialError::Occupied { by });
    }
    let options = linux::tcp::Options {
        device: session.vrf.as_deref(),
        ttl: Some(session.ttl),
        min_ttl: session.minimum_ttl,
    };
    let source = session.source.map(|ip| SocketAddr::new(ip, 0));
    let key = password.as_ref().map(Hidden::reveal);
    let socket = linux::tcp::dial(peer, source, key, options)
        .map_err(|error| other(refused(&error, key.is_some())))?;
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

/// Why there is no socket, with the remedy where the kernel lacks something.
fn refused(error: &linux::tcp::TcpError, signed: bool) -> String {
    let why = crate::cli::chain(error);
    match (error.is_unsupported(), signed) {
        (true, true) => format!(
            "{why}; remedy: boot a kernel with TCP MD5 signatures (CONFIG_TCP_MD5SIG), or hold the \
             session without a password"
        ),
        (true, false) => format!("{why}; remedy: boot a kernel that has it"),
        (false, _) if error.is_denied() => {
            format!("{why}; remedy: securityContext.capabilities.add: [NET_RAW, NET_ADMIN]")
        }
        (false, _) => why,
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

/// Closes a connection, and waits until the peer has closed it too: it has read all.
pub(super) async fn part(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let mut rest = [0; 4096];
    while let Ok(1..) = stream.read(&mut rest).await {}
}

/// Brings what an open connection can do without being opened anew in line with its session.
pub(super) fn retune(stream: &TcpStream, session: &PeerSession) {
    let peer: Option<IpAddr> = stream.peer_addr().ok().map(|peer| peer.ip());
    let Some(peer) = peer else { return };
    if let Err(error) = linux::tcp::set_hops(stream, peer, session.ttl, session.minimum_ttl) {
        let error = crate::cli::chain(&error);
        tracing::warn!(%peer, error, "an open session keeps its TTL");
    }
}
