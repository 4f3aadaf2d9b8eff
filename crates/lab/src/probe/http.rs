//! A small HTTP client.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::error::LabError;
use crate::host::Host;

/// Longer answers are not read.
const ANSWER: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(2);

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The lab back end that answered ([`Host::serve_http`]).
    pub fn backend(&self) -> &str {
        self.body.split_whitespace().next().unwrap_or_default()
    }

    /// The client's address as the back end saw it.
    pub fn client(&self) -> Option<SocketAddr> {
        self.body.split_whitespace().nth(1)?.parse().ok()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The lab's own trouble.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The network's or the server's.
    #[error("GET http://{to}{path}: cannot {step}")]
    Io {
        /// The server.
        to: SocketAddr,
        /// What was asked for.
        path: String,
        /// What failed.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What came is no HTTP.
    #[error("GET http://{to}: the answer is no HTTP: {start:?}")]
    NoHttp {
        /// The server.
        to: SocketAddr,
        /// How the answer starts.
        start: String,
    },
}

impl Host {
    /// Opens a TCP connection from this host.
    pub async fn connect(&self, to: SocketAddr) -> Result<TcpStream, HttpError> {
        let socket = self.make("make a TCP socket", || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })?;
        let connected = timeout(
            TIMEOUT,
            TcpSocket::from_std_stream(socket.into()).connect(to),
        )
        .await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        connected.map_err(|source| HttpError::Io {
            to,
            path: String::new(),
            step: "connect",
            source,
        })
    }

    /// Asks for `path` (`"/"`) over a connection of its own; 2 s for connecting, 2 s for the rest.
    pub async fn http_get(&self, to: SocketAddr, path: &str) -> Result<Answer, HttpError> {
        let mut stream = self.connect(to).await?;
        let answer = timeout(TIMEOUT, ask(&mut stream, to, path)).await;
        let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let failed = |source| HttpError::Io {
            to,
            path: path.to_owned(),
            step: "get an answer",
            source,
        };
        let answer = answer.map_err(failed)?;
        parse(&answer).ok_or_else(|| HttpError::NoHttp {
            to,
            start: answer.chars().take(60).collect(),
        })
    }
}

async fn ask(stream: &mut TcpStream, to: SocketAddr, path: &str) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER as u64).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut words = head.strip_prefix("HTTP/1.")?.split_whitespace();
    let status = words.nth(1)?.parse().ok()?;
    Some(Answer {
        status,
        body: body.to_owned(),
    })
}
