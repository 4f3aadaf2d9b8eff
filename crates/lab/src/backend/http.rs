//! An HTTP/1.1 server: says its own name and who asks.

use std::io;
use std::net::SocketAddr;

use socket2::{Protocol, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Backend, Shared, bound, plain};
use crate::error::LabError;
use crate::host::Host;

/// Requests are small; more than this is no request.
const REQUEST: usize = 16 << 10;

impl Host {
    /// Starts an HTTP server on this port of all addresses. It answers every request with
    /// `<name> <client address>:<client port>` and keeps connections open.
    pub fn serve_http(&self, port: u16) -> Result<Backend, LabError> {
        let listener = self.make(&format!("listen on TCP port {port}"), || {
            let socket = bound(Type::STREAM, Protocol::TCP, port)?;
            socket.listen(1024)?;
            TcpListener::from_std(socket.into())
        })?;
        let counters = Shared::default();
        let task = tokio::spawn(serve(listener, self.name().to_owned(), counters.clone()));
        let task = task.abort_handle();
        self.own_task(task.clone());
        Ok(Backend { counters, task })
    }
}

async fn serve(listener: TcpListener, name: String, counters: Shared) {
    // Aborting this task drops the set, and with it all connections.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // What fails here is the connection (ECONNABORTED), not the listener.
                let Ok((stream, client)) = accepted else { continue };
                connections.spawn(connection(stream, plain(client), name.clone(), counters.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(mut stream: TcpStream, client: SocketAddr, name: String, counters: Shared) {
    {
        let mut counters = counters.get();
        counters.connections += 1;
        counters.open += 1;
    }
    let _open = Open(counters.clone());
    // A client that goes away is the test's business.
    let _ = answer_all(&mut stream, client, &name, &counters).await;
}

/// Counts a connection as open while it lives, however it ends.
struct Open(Shared);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.get().open -= 1;
    }
}

async fn answer_all(
    stream: &mut TcpStream,
    client: SocketAddr,
    name: &str,
    counters: &Shared,
) -> io::Result<()> {
    let mut received = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = received.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if received.len() > REQUEST || stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
        received.drain(..end);
        counters.get().request(client);
        let body = format!("{name} {client}\n");
        let close = head.contains("connection: close");
        let connection = if close { "close" } else { "keep-alive" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        if close {
            return stream.shutdown().await;
        }
    }
}
