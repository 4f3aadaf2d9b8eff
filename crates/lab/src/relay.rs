//! A TCP relay between two hosts that can hold back what clients send: a request that is on its
//! way for as long as a test wants.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::LabError;
use crate::host::Host;

/// A running relay; dropping it ends it, with its connections.
#[derive(Debug)]
pub struct Relay {
    held: Arc<AtomicUsize>,
    hold: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Listens at `at` on the host `front`; each connection goes on to `to` from the host `back`.
    pub fn start(
        front: &Host,
        at: SocketAddr,
        back: &Host,
        to: SocketAddr,
    ) -> Result<Self, LabError> {
        let listener = front.make(&format!("listen on {at}"), || {
            let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&at.into())?;
            socket.listen(128)?;
            TcpListener::from_std(socket.into())
        })?;
        let held = Arc::new(AtomicUsize::new(0));
        let (hold, gate) = watch::channel(false);
        let back = back.clone();
        let (count, mut tasks) = (Arc::clone(&held), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((client, _)) = accepted else { continue };
                        let (back, count, gate) = (back.clone(), Arc::clone(&count), gate.clone());
                        connections.spawn(async move {
                            // What breaks a connection is the test's business.
                            let _ = relay(client, &back, to, &count, gate).await;
                        });
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self {
            held,
            hold,
            _tasks: tasks,
        })
    }

    /// From now on what clients send waits here; what the server sends goes through.
    pub fn hold(&self) {
        self.hold.send_replace(true);
    }

    /// Lets go on what waits.
    pub fn release(&self) {
        self.hold.send_replace(false);
    }

    /// Connections with something that waits here.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

async fn relay(
    client: TcpStream,
    back: &Host,
    to: SocketAddr,
    held: &AtomicUsize,
    mut gate: watch::Receiver<bool>,
) -> io::Result<()> {
    let socket = back.make("make a socket", || match to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    });
    let server = socket.map_err(io::Error::other)?.connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from_client.read(&mut buffer).await?;
            if *gate.borrow() {
                held.fetch_add(1, Ordering::Relaxed);
                let open = gate.wait_for(|hold| !hold).await.is_ok();
                held.fetch_sub(1, Ordering::Relaxed);
                if !open {
                    return Ok::<_, io::Error>(());
                }
            }
            match buffer.get(..read) {
                Some([]) | None => return to_server.shutdown().await,
                Some(sent) => to_server.write_all(sent).await?,
            }
        }
    };
    let down = async { tokio::io::copy(&mut from_server, &mut to_client).await };
    tokio::try_join!(up, down).map(drop)
}
