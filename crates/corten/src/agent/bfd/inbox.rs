//! Hands what the sockets heard to the sessions.

use std::io;
use std::time::Duration;

use linux::datagram::{Datagrams, Received};
use linux::packet::AsyncPacketSocket;
use proto::bfd::{Arrival, ECHO_PORT, Error, Key, MULTIHOP_PORT, Sessions};

use crate::http::bfd::Counts;

/// A socket that is read.
#[derive(Clone, Copy)]
pub(super) enum Hearing<'a> {
    /// An interface's.
    Frames(&'a AsyncPacketSocket),
    /// A port's.
    Port(&'a Datagrams),
}

/// What was read, into the buffer.
#[derive(Debug)]
pub(super) enum Heard {
    /// A frame of this length.
    Frame(usize),
    Datagram(Received),
}

pub(super) struct Inbox<'a> {
    pub(super) sessions: &'a mut Sessions,
    pub(super) counts: &'a Counts,
    pub(super) vrf: &'a str,
    /// On which interface neighbours were heard.
    pub(super) met: &'a mut Vec<(Key, u32)>,
    /// The kernel sends the neighbours' echo packets back.
    pub(super) forwards: bool,
}

impl Inbox<'_> {
    /// Of an interface.
    pub(super) fn frame(
        &mut self,
        now: Duration,
        interface: u32,
        buffer: &[u8],
        heard: io::Result<Heard>,
    ) {
        let length = match heard {
            Ok(Heard::Frame(length)) => length,
            Ok(Heard::Datagram(_)) => return,
            Err(error) => return self.unreadable(&error),
        };
        let frame = buffer.get(..length).unwrap_or_default();
        let back = self.sessions.on_frame(now, interface, self.forwards, frame);
        if let Some(key) = back {
            let labels = [&key.peer.to_string(), self.vrf];
            self.counts.echo_in.with_label_values(&labels).inc();
        }
    }

    /// Of a port.
    pub(super) fn datagram(
        &mut self,
        now: Duration,
        port: u16,
        buffer: &[u8],
        heard: io::Result<Heard>,
    ) {
        let received = match heard {
            Ok(Heard::Datagram(received)) => received,
            Ok(Heard::Frame(_)) => return,
            Err(error) => return self.unreadable(&error),
        };
        let arrival = Arrival {
            from: received.from.ip(),
            to: received.to,
            interface: received.interface,
            ttl: received.ttl,
            multihop: port == MULTIHOP_PORT,
        };
        let payload = buffer.get(..received.length).unwrap_or_default();
        let labels = [&arrival.from.to_string(), self.vrf];
        let taken = if port == ECHO_PORT {
            let taken = self.sessions.on_echo(now, &arrival, payload);
            taken.map(|()| &self.counts.echo_in)
        } else {
            let taken = self.sessions.on_control(now, &arrival, payload);
            taken.map(|key| {
                self.met.push((key, arrival.interface));
                &self.counts.control_in
            })
        };
        match taken {
            Ok(count) => count.with_label_values(&labels).inc(),
            Err(error) => {
                tracing::debug!(%error, "a BFD packet is dropped");
                self.dropped(reason(&error));
            }
        }
    }

    fn unreadable(&self, error: &io::Error) {
        tracing::debug!(%error, "a BFD packet cannot be read");
        self.dropped("unreadable");
    }

    fn dropped(&self, reason: &str) {
        self.counts.dropped.with_label_values(&[reason]).inc();
    }
}

/// As the metric names it.
const fn reason(error: &Error) -> &'static str {
    match error {
        Error::Truncated { .. } | Error::Length { .. } => "length",
        Error::Version { .. } => "version",
        Error::Multiplier => "multiplier",
        Error::Multipoint => "multipoint",
        Error::MyDiscriminator | Error::YourDiscriminator { .. } => "discriminator",
        Error::Authenticated => "authenticated",
        Error::Ttl { .. } => "ttl",
        Error::UnknownDiscriminator { .. } | Error::OtherSession { .. } => "no_session",
        Error::Stranger { .. } => "stranger",
        Error::AdminDown => "admin_down",
        Error::Echo { .. } => "echo",
    }
}
