//! The one ARP layout in use: Ethernet II, hardware Ethernet, protocol IPv4 (RFC 826).

use std::net::Ipv4Addr;

use super::Error;
use crate::{
    bytes,
    ethernet::{self, Header, Mac},
};

/// Length of the frames built here. Drivers pad to the medium's minimum.
pub const FRAME_LEN: usize = ethernet::HEADER_LEN + 28;

/// A built frame.
pub type Frame = [u8; FRAME_LEN];

/// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const OPERATION: usize = 20;
const SENDER_MAC: usize = 22;
const SENDER_IP: usize = 28;
const TARGET_MAC: usize = 32;
const TARGET_IP: usize = 38;

/// What the sender wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request = 1,
    /// The sender has the sender address.
    Reply = 2,
}

/// An ARP packet with its Ethernet addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Ethernet destination.
    pub destination: Mac,
    /// Ethernet source.
    pub source: Mac,
    /// Request or reply.
    pub operation: Operation,
    /// `ar$sha`.
    pub sender_mac: Mac,
    /// `ar$spa`; 0.0.0.0 in a probe (RFC 5227 §1.1).
    pub sender_ip: Ipv4Addr,
    /// `ar$tha`; ignored in requests.
    pub target_mac: Mac,
    /// `ar$tpa`.
    pub target_ip: Ipv4Addr,
}

impl Packet {
    /// Reads a frame; bytes behind the packet are padding.
    pub fn parse(frame: &[u8]) -> Result<Self, Error> {
        let (header, _) = Header::parse(frame)?;
        if header.ethertype != ethernet::ARP {
            return Err(Error::NotArp {
                ethertype: header.ethertype,
            });
        }
        let short = |offset| {
            move || Error::Truncated {
                offset,
                length: frame.len(),
            }
        };
        let found =
            bytes::array(frame, ethernet::HEADER_LEN).ok_or_else(short(ethernet::HEADER_LEN))?;
        if found != KIND {
            return Err(Error::Kind { found });
        }
        let operation = match bytes::be16(frame, OPERATION).ok_or_else(short(OPERATION))? {
            1 => Operation::Request,
            2 => Operation::Reply,
            operation => return Err(Error::Operation { operation }),
        };
        Ok(Self {
            destination: header.destination,
            source: header.source,
            operation,
            sender_mac: bytes::mac(frame, SENDER_MAC).ok_or_else(short(SENDER_MAC))?,
            sender_ip: bytes::ipv4(frame, SENDER_IP).ok_or_else(short(SENDER_IP))?,
            target_mac: bytes::mac(frame, TARGET_MAC).ok_or_else(short(TARGET_MAC))?,
            target_ip: bytes::ipv4(frame, TARGET_IP).ok_or_else(short(TARGET_IP))?,
        })
    }

    /// Of a gratuitous request from an address's own MAC address: the interface that sent it
    /// ([`gratuitous`]).
    pub fn station(&self) -> Option<Mac> {
        let tells = self.operation == Operation::Request && self.sender_ip == self.target_ip;
        let station = Some(self.target_mac).filter(|mac| mac.is_unicast());
        station.filter(|mac| tells && *mac != self.sender_mac)
    }

    /// The frame's bytes.
    pub fn build(&self) -> Frame {
        let header = Header {
            destination: self.destination,
            source: self.source,
            ethertype: ethernet::ARP,
        };
        let mut out = [0; FRAME_LEN];
        out[..ethernet::HEADER_LEN].copy_from_slice(&header.build());
        out[ethernet::HEADER_LEN..OPERATION].copy_from_slice(&KIND);
        out[OPERATION..SENDER_MAC].copy_from_slice(&(self.operation as u16).to_be_bytes());
        out[SENDER_MAC..SENDER_IP].copy_from_slice(&self.sender_mac.0);
        out[SENDER_IP..TARGET_MAC].copy_from_slice(&self.sender_ip.octets());
        out[TARGET_MAC..TARGET_IP].copy_from_slice(&self.target_mac.0);
        out[TARGET_IP..].copy_from_slice(&self.target_ip.octets());
        out
    }
}

/// The frames that tell the segment that `ip` is now at `mac`: a broadcast request and a
/// broadcast reply, sender address = target address = `ip` (RFC 5227 §3, MetalLB's pair).
///
/// The reply's target MAC is the sender's own: Linux takes a reply as gratuitous only then, and
/// otherwise refuses it for as long as its entry is fresh (measured, lab.md §7).
///
/// `station` is the MAC address of the interface that sends. Where `mac` is another, the address's
/// own, the request says so in its target MAC, which RFC 826 leaves without meaning: that is how
/// nodes that share `mac` know each other's frames from their own.
pub fn gratuitous(mac: Mac, ip: Ipv4Addr, station: Mac) -> [Frame; 2] {
    let request = Packet {
        destination: Mac::BROADCAST,
        source: mac,
        operation: Operation::Request,
        sender_mac: mac,
        sender_ip: ip,
        target_mac: if station == mac { Mac::ZERO } else { station },
        target_ip: ip,
    };
    let reply = Packet {
        operation: Operation::Reply,
        target_mac: mac,
        ..request
    };
    [request.build(), reply.build()]
}

/// The frame that asks whether somebody has `ip`, and from which nobody's cache learns (RFC 5227
/// §2.1.1): sender address 0.0.0.0.
pub fn probe(station: Mac, ip: Ipv4Addr) -> Frame {
    Packet {
        destination: Mac::BROADCAST,
        source: station,
        operation: Operation::Request,
        sender_mac: station,
        sender_ip: Ipv4Addr::UNSPECIFIED,
        target_mac: Mac::ZERO,
        target_ip: ip,
    }
    .build()
}

/// The frame by which `sender`, an address of the interface `station` itself, asks for another host:
/// at the MAC address that it had, or of all (RFC 826). Both learn from it, who asks and who answers.
pub fn request(station: Mac, sender: Ipv4Addr, target: Ipv4Addr, at: Option<Mac>) -> Frame {
    Packet {
        destination: at.unwrap_or(Mac::BROADCAST),
        source: station,
        operation: Operation::Request,
        sender_mac: station,
        sender_ip: sender,
        target_mac: Mac::ZERO,
        target_ip: target,
    }
    .build()
}
