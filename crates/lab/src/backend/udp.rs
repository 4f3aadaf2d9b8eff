//! A UDP echo: sends each datagram back, with its own name behind it.

use socket2::{Protocol, Type};
use tokio::net::UdpSocket;

use super::{Backend, Shared, bound, plain};
use crate::error::LabError;
use crate::host::Host;

impl Host {
    /// Starts a UDP echo on this port of all addresses. The answer is the datagram followed by
    /// the host's name.
    pub fn serve_udp(&self, port: u16) -> Result<Backend, LabError> {
        let socket = self.make(&format!("bind UDP port {port}"), || {
            UdpSocket::from_std(bound(Type::DGRAM, Protocol::UDP, port)?.into())
        })?;
        let counters = Shared::default();
        let task = tokio::spawn(echo(socket, self.name().to_owned(), counters.clone()));
        let task = task.abort_handle();
        self.own_task(task.clone());
        Ok(Backend { counters, task })
    }
}

async fn echo(socket: UdpSocket, name: String, counters: Shared) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        // Errors are echoes of ICMP messages about earlier answers.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        counters.get().request(plain(client));
        let answer = [&buffer[..length], name.as_bytes()].concat();
        let _ = socket.send_to(&answer, client).await;
    }
}
