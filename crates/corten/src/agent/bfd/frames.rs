//! Packet sockets for echo over IPv4, one for each interface that neighbours with echo are on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use linux::packet::{AsyncPacketSocket, PacketSocket, Traffic};

/// Whether the kernel forwards packets, and so sends the neighbours' echo packets back.
const FORWARDS: &str = "/proc/sys/net/ipv4/ip_forward";
/// How long an answer to that counts.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Frames {
    sockets: BTreeMap<u32, AsyncPacketSocket>,
    forwards: Option<(Instant, bool)>,
    /// The last trouble that was told.
    told: Option<String>,
}

impl Frames {
    /// Opens sockets on these interfaces, and closes those on others. Without one there is no echo
    /// on its interface.
    pub(super) fn open(&mut self, interfaces: &BTreeSet<u32>) {
        self.sockets.retain(|index, _| interfaces.contains(index));
        for index in interfaces {
            if self.sockets.contains_key(index) {
                continue;
            }
            let opened = PacketSocket::open(*index, Traffic::Bfd);
            let opened = opened.map_err(|error| crate::cli::chain(&error));
            let socket = opened.and_then(|socket| {
                AsyncPacketSocket::new(socket).map_err(|error| error.to_string())
            });
            match socket {
                Ok(socket) => {
                    self.sockets.insert(*index, socket);
                }
                Err(why) if self.told.as_ref() != Some(&why) => {
                    tracing::warn!(
                        why,
                        "BFD has no echo: control packets alone find a dead path"
                    );
                    self.told = Some(why);
                }
                Err(_) => {}
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &AsyncPacketSocket)> {
        self.sockets.iter().map(|(index, socket)| (*index, socket))
    }

    pub(super) fn send(&self, interface: u32, frame: &[u8]) -> io::Result<()> {
        match self.sockets.get(&interface) {
            Some(socket) => socket.send(frame),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Whether this host's kernel sends the neighbours' echo packets back.
    pub(super) fn kernel_forwards(&mut self) -> bool {
        let now = Instant::now();
        match self.forwards {
            _ if self.sockets.is_empty() => true,
            Some((read, forwards)) if now.duration_since(read) < FRESH => forwards,
            _ => {
                let text = std::fs::read_to_string(FORWARDS).unwrap_or_default();
                let forwards = text.trim() == "1";
                self.forwards = Some((now, forwards));
                forwards
            }
        }
    }
}
