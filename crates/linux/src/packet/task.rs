//! The socket in a tokio task.

use std::{
    io,
    task::{Context, Poll, ready},
};

use tokio::io::{Interest, unix::AsyncFd};

use super::PacketSocket;

/// A [`PacketSocket`] that is waited for in the tokio runtime in which it was made. Registering
/// is unsafe for a descriptor in general, so it is done here.
///
/// Cancel safety: a dropped `recv` has lost no frame.
#[derive(Debug)]
pub struct AsyncPacketSocket {
    socket: AsyncFd<PacketSocket>,
}

impl AsyncPacketSocket {
    /// Registers the socket with the current runtime.
    pub fn new(socket: PacketSocket) -> io::Result<Self> {
        // SAFETY: the descriptor is owned by the PacketSocket, which is owned by the AsyncFd;
        // nothing replaces or closes it before both are dropped.
        let socket = unsafe { AsyncFd::register(socket) };
        Ok(Self { socket: socket? })
    }

    /// Waits for a frame; what does not fit in the buffer is lost.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = |socket: &PacketSocket| socket.recv(buffer);
        self.socket.async_io(Interest::READABLE, read).await
    }

    /// The same for who waits for several sockets: the last to ask is woken.
    pub fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.socket.poll_read_ready(context))?;
            if let Ok(read) = guard.try_io(|socket| socket.get_ref().recv(buffer)) {
                return Poll::Ready(read);
            }
        }
    }

    /// Takes what has come already, or fails with `WouldBlock`.
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.get_ref().recv(buffer)
    }

    /// Sends a whole frame, or fails at once with `WouldBlock` when the device's queue is full:
    /// a late answer is worth less than the next one.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.get_ref().send(frame)
    }
}
