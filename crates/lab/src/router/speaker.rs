//! A BGP speaker of a few lines: it says whatever bytes a test gives it, and tells what it hears.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::{Host, LabError};

const OPEN: u8 = 1;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;
const HEADER: usize = 19;
/// Seconds; longer than a test, as no KEEPALIVE follows the first.
const HOLD_TIME: u16 = 600;

/// Waits for its neighbour's connections; its own bytes, not ours, so that a mistake of the codec
/// does not hide itself.
#[derive(Debug)]
pub struct Speaker {
    host: Host,
    listener: TcpListener,
    ip: Ipv4Addr,
    asn: u16,
}

impl Speaker {
    /// At port 179 of this address, as a router of this AS.
    pub fn listen(host: &Host, ip: Ipv4Addr, asn: u16) -> Result<Self, LabError> {
        let at = SocketAddr::from((ip, 179));
        let listener = host.make(&format!("listen on {at}"), || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&at.into())?;
            socket.listen(16)?;
            TcpListener::from_std(socket.into())
        })?;
        Ok(Self {
            host: host.clone(),
            listener,
            ip,
            asn,
        })
    }

    /// The neighbour's next connection, once its OPEN is there; nothing has been said on it.
    pub async fn connection(&self) -> Result<Session, LabError> {
        let (stream, _) = self
            .listener
            .accept()
            .await
            .map_err(|e| self.failed("accept", e))?;
        let mut session = Session {
            stream,
            inbox: Vec::new(),
        };
        session
            .expect(OPEN)
            .await
            .map_err(|e| self.failed("hear an OPEN", e))?;
        Ok(session)
    }

    /// The neighbour's next session, once it is established: IPv4 and IPv6, 4-octet AS numbers,
    /// route refresh.
    pub async fn session(&self) -> Result<Session, LabError> {
        let mut session = self.connection().await?;
        session
            .establish(&self.open())
            .await
            .map_err(|e| self.failed("establish a session", e))?;
        Ok(session)
    }

    /// Its OPEN.
    pub fn open(&self) -> Vec<u8> {
        let mut capabilities = vec![1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 2, 0, 65, 4, 0, 0];
        capabilities.extend(self.asn.to_be_bytes());
        let mut open = vec![4];
        open.extend(self.asn.to_be_bytes());
        open.extend(HOLD_TIME.to_be_bytes());
        open.extend(self.ip.octets());
        let length = capabilities.len() as u8;
        open.extend([length + 2, 2, length]);
        open.extend(capabilities);
        message(OPEN, &open)
    }

    fn failed(&self, what: &str, e: io::Error) -> LabError {
        LabError::io(self.host.name(), format!("{what} at {}", self.ip), e)
    }
}

/// A connection; dropping it closes it without a word.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
    inbox: Vec<u8>,
}

impl Session {
    async fn establish(&mut self, open: &[u8]) -> io::Result<()> {
        self.send(open).await?;
        self.send(&message(KEEPALIVE, &[])).await?;
        self.expect(KEEPALIVE).await
    }

    async fn expect(&mut self, wanted: u8) -> io::Result<()> {
        match self.next().await? {
            Some((kind, _)) if kind == wanted => Ok(()),
            other => Err(io::Error::other(format!("{other:?}, not {wanted}"))),
        }
    }

    /// Says this.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next message: its type and body. `None`: the neighbour has closed the connection.
    pub async fn next(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some([high, low, kind]) = self.inbox.get(16..HEADER) {
                let (length, kind) = (usize::from(u16::from_be_bytes([*high, *low])), *kind);
                if self.inbox.len() >= length.max(HEADER) {
                    let rest = self.inbox.split_off(length.max(HEADER));
                    let mut found = std::mem::replace(&mut self.inbox, rest);
                    return Ok(Some((kind, found.split_off(HEADER))));
                }
            }
            match self.stream.read_buf(&mut self.inbox).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(e) => return Err(e),
            }
        }
    }

    /// Waits for the end of the session: the code and subcode of the NOTIFICATION, if there was
    /// one.
    pub async fn end(&mut self) -> io::Result<Option<[u8; 2]>> {
        let mut found = None;
        while let Some((kind, body)) = self.next().await? {
            if let (NOTIFICATION, Some([code, subcode])) = (kind, body.get(..2)) {
                found = Some([*code, *subcode]);
            }
        }
        Ok(found)
    }
}

/// A message of this type.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    out.extend(((HEADER + body.len()) as u16).to_be_bytes());
    out.push(kind);
    out.extend(body);
    out
}
