//! The connection: how it comes and goes, and the bytes on it.

use std::net::{IpAddr, SocketAddr};

use api::corten::v1alpha1::SessionState;
use linux::netlink::Interface;
use proto::bgp::Messages;
use proto::bgp::fsm::{ConnectionId, DialError, Output};
use tokio::net::TcpStream;

use super::super::listener::Heard;
use super::super::rib::Origin;
use super::super::{connection, route};
use super::Task;

/// UPDATEs are made while fewer bytes than this wait for the kernel.
const OUTBOX: usize = 64 * 1024;

/// A connection with what waits to be sent on it.
pub(super) struct Live {
    pub(super) id: ConnectionId,
    pub(super) stream: TcpStream,
    pub(super) outbox: Vec<u8>,
}

impl Task {
    pub(super) fn dialled(
        &mut self,
        dialled: Result<(ConnectionId, Result<TcpStream, DialError>), tokio::task::JoinError>,
    ) {
        let now = self.now();
        match dialled {
            Ok((id, Ok(stream))) => {
                self.live = Some(Live {
                    id,
                    stream,
                    outbox: Vec::new(),
                });
                self.fsm.dialled(now, id);
            }
            Ok((id, Err(error))) => self.fsm.dial_failed(now, id, error),
            // Given up by the state machine.
            Err(_) => {}
        }
    }

    /// The neighbour can connect.
    pub(super) fn waits(&mut self) {
        self.told = None;
        if let (None, Some(port)) = (self.established, self.session.listen) {
            let waits = format!("waiting for the neighbour to connect to port {port}");
            self.line
                .show(&self.label, SessionState::Connecting, &waits);
        }
    }

    /// The neighbour has connected, or cannot.
    pub(super) fn heard(&mut self, heard: Heard) {
        let stream = match heard {
            Heard::Connection(stream) => stream,
            Heard::Open => return self.waits(),
            Heard::Trouble(why) => return self.trouble(&DialError::Other(why), "no session"),
        };
        let suits = connection::accepted(&stream, &self.session);
        let id = suits.then(|| self.fsm.accept(self.now())).flatten();
        let Some(id) = id else {
            tracing::debug!(peer = &*self.peer, "a connection is not wanted now");
            let refused = &self.context.metrics.bgp_connections_refused;
            return refused.with_label_values(&["unwanted"]).inc();
        };
        // What the state machine says of an older connection comes before its first word on this.
        let mut stream = Some(stream);
        while let Some(output) = self.fsm.poll() {
            if matches!(&output, Output::Send(of, _) if *of == id)
                && let Some(stream) = stream.take()
            {
                let outbox = Vec::new();
                self.live = Some(Live { id, stream, outbox });
            }
            self.output(output);
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) {
        let Some(live) = &self.live else { return };
        let id = live.id;
        match live.stream.try_read(buffer) {
            Ok(0) => self.lost(),
            Ok(length) => {
                let now = self.now();
                let bytes = buffer.get(..length).unwrap_or_default();
                self.fsm.received(now, id, bytes);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => self.lost(),
        }
    }

    /// The connection is gone.
    pub(super) fn lost(&mut self) {
        if let Some(live) = self.live.take() {
            self.fsm.closed(self.now(), live.id);
        }
    }

    pub(super) fn close(&mut self, id: ConnectionId) {
        if self.live.as_ref().is_some_and(|live| live.id == id) {
            self.flush();
            let live = self.live.take().filter(|_| self.ending);
            self.last = live.map(|live| live.stream);
        } else {
            // An attempt to connect: there is one at a time.
            self.dials.abort_all();
        }
    }

    /// Makes UPDATEs for the established connection.
    pub(super) fn fill(&mut self) -> bool {
        let now = self.now();
        let Some(live) = &mut self.live else {
            return false;
        };
        if self.established != Some(live.id) || self.out.is_idle() || live.outbox.len() >= OUTBOX {
            return false;
        }
        let before = live.outbox.len();
        self.out.poll(&mut live.outbox, OUTBOX);
        let more = live.outbox.len() > before;
        if more {
            self.fsm.queued(now, live.id);
            let new = live.outbox.get(before..).unwrap_or_default();
            self.counts.sent(Messages::in_bytes(new));
        }
        more
    }

    /// Gives the kernel what it takes at once.
    pub(super) fn flush(&mut self) -> bool {
        let now = self.now();
        let Some(live) = &mut self.live else {
            return false;
        };
        let mut sent = 0;
        while let Some(rest) = live.outbox.get(sent..).filter(|rest| !rest.is_empty()) {
            match live.stream.try_write(rest) {
                Ok(0) | Err(_) => break,
                Ok(length) => sent += length,
            }
        }
        if sent == 0 {
            return false;
        }
        if sent < live.outbox.len() {
            live.outbox.drain(..sent);
        } else if self.out.is_idle() {
            // Little is sent for hours now: it needs no room.
            live.outbox = Vec::new();
        } else {
            live.outbox.clear();
        }
        self.fsm.written(now, live.id, live.outbox.len());
        true
    }

    pub(super) fn local_addresses(&self) -> proto::bgp::LocalAddresses {
        let addresses = self.live.as_ref().and_then(|live| {
            let local = live.stream.local_addr().ok()?;
            let peer = live.stream.peer_addr().ok()?;
            Some((local, peer.ip()))
        });
        let (local, peer): (SocketAddr, IpAddr) = match addresses {
            Some(found) => found,
            None => return proto::bgp::LocalAddresses::default(),
        };
        route::local_addresses(local, peer, &self.context.interfaces.borrow())
    }

    /// Where the session's routes come from.
    pub(super) fn origin(&self) -> Origin {
        let local = self.live.as_ref().map(|live| live.stream.local_addr());
        let interfaces = self.context.interfaces.borrow();
        let of = |which: &dyn Fn(&Interface) -> bool| {
            interfaces.iter().find(|it| which(it)).map(|it| it.index)
        };
        Origin {
            external: false,
            device: local
                .and_then(Result::ok)
                .and_then(|local| of(&|it| it.addresses.iter().any(|(ip, _)| *ip == local.ip()))),
            vrf: self
                .session
                .vrf
                .as_ref()
                .and_then(|vrf| of(&|it| it.name == **vrf)),
        }
    }

    /// Has BFD follow the path of the connection.
    pub(super) fn follow_path(&mut self) {
        let Some(live) = &self.live else { return };
        if let (Ok(local), Ok(peer)) = (live.stream.local_addr(), live.stream.peer_addr()) {
            let interfaces = self.context.interfaces.borrow();
            self.bfd.up(&self.session, local, peer, &interfaces);
        }
    }
}
