//! Echo over IPv4 as whole Ethernet frames, as FRR has it (RFC 5881 §4): an echo packet goes to the
//! neighbour's link-layer address and is addressed to its own sender, so that the neighbour's
//! forwarding plane sends it back. Neither a socket of UDP nor the routes of a host can send such
//! a packet, and the kernel drops those that come back, as their source is its own address.

use std::net::Ipv4Addr;

use super::{ECHO_LEN, ECHO_PORT, TTL};
use crate::bytes;
use crate::ethernet::{self, HEADER_LEN, Header, Mac};

/// Between whom a session's frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Index of the interface.
    pub(super) interface: u32,
    /// Our address.
    pub(super) own: Ipv4Addr,
    pub(super) ours: Mac,
    pub(super) theirs: Mac,
}

const UDP: u8 = 17;
const IP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const PACKET_LEN: usize = IP_LEN + UDP_LEN + ECHO_LEN;
/// Network control, as all of BFD.
const CLASS: u8 = 0xc0;
const DONT_FRAGMENT: u8 = 0x40;

/// Offsets in the IP header.
const TOTAL: usize = 2;
const FRAGMENT: usize = 6;
const HOPS: usize = 8;
const PROTOCOL: usize = 9;
const CHECKSUM: usize = 10;
const SOURCE: usize = 12;
const DESTINATION: usize = 16;

/// A UDP datagram over IPv4 in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) header: Header,
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
    pub(super) ttl: u8,
    /// The port that it is for.
    pub(super) port: u16,
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads a frame. `None`: it is something else, or broken.
    pub(super) fn parse(frame: &'a [u8]) -> Option<Self> {
        let (header, packet) = Header::parse(frame).ok()?;
        if header.ethertype != ethernet::IPV4 {
            return None;
        }
        let [first] = bytes::array(packet, 0)?;
        let ip_len = usize::from(first & 0x0f) * 4;
        let ip = packet.get(..ip_len)?;
        let [protocol] = bytes::array(ip, PROTOCOL)?;
        let fragment = bytes::be16(ip, FRAGMENT)? & 0x3fff;
        if first >> 4 != 4
            || ip_len < IP_LEN
            || protocol != UDP
            || fragment != 0
            || bytes::checksum(&[ip], 0) != 0
        {
            return None;
        }
        // What follows the packet is the frame's padding.
        let datagram = packet.get(ip_len..usize::from(bytes::be16(ip, TOTAL)?))?;
        let length = usize::from(bytes::be16(datagram, 4)?);
        let [ttl] = bytes::array(ip, HOPS)?;
        Some(Self {
            header,
            from: bytes::ipv4(ip, SOURCE)?,
            to: bytes::ipv4(ip, DESTINATION)?,
            ttl,
            port: bytes::be16(datagram, 2)?,
            payload: datagram.get(UDP_LEN..length)?,
        })
    }
}

/// An echo packet of ours, for the neighbour to send back.
pub(super) fn echo(link: &Link, payload: &[u8; ECHO_LEN]) -> Vec<u8> {
    let header = Header {
        destination: link.theirs,
        source: link.ours,
        ethertype: ethernet::IPV4,
    };
    let mut ip = [0; IP_LEN];
    ip[0] = 0x45;
    ip[1] = CLASS;
    ip[TOTAL..TOTAL + 2].copy_from_slice(&(PACKET_LEN as u16).to_be_bytes());
    ip[FRAGMENT] = DONT_FRAGMENT;
    ip[HOPS] = TTL;
    ip[PROTOCOL] = UDP;
    ip[SOURCE..DESTINATION].copy_from_slice(&link.own.octets());
    ip[DESTINATION..].copy_from_slice(&link.own.octets());
    let checksum = bytes::checksum(&[&ip], 0);
    ip[CHECKSUM..SOURCE].copy_from_slice(&checksum.to_be_bytes());

    let length = (UDP_LEN + ECHO_LEN) as u16;
    let mut udp = [0; UDP_LEN];
    udp[..2].copy_from_slice(&ECHO_PORT.to_be_bytes());
    udp[2..4].copy_from_slice(&ECHO_PORT.to_be_bytes());
    udp[4..6].copy_from_slice(&length.to_be_bytes());
    let pseudo = u64::from(length) + u64::from(UDP);
    let sum = bytes::checksum(&[&ip[SOURCE..], &udp, payload], pseudo);
    // RFC 768: zero says that there is none.
    let sum = if sum == 0 { 0xffff } else { sum };
    udp[6..].copy_from_slice(&sum.to_be_bytes());
    [&header.build()[..], &ip, &udp, payload].concat()
}

/// An echo packet of the neighbour, as a router sends it back.
pub(super) fn returned(frame: &[u8]) -> Option<Vec<u8>> {
    let (header, _) = Header::parse(frame).ok()?;
    let back = Header {
        destination: header.source,
        source: header.destination,
        ..header
    };
    let mut out = frame.to_vec();
    let (head, packet) = out.split_at_mut_checked(HEADER_LEN)?;
    head.copy_from_slice(&back.build());
    let [first] = bytes::array(packet, 0)?;
    let ip = packet.get_mut(..usize::from(first & 0x0f) * 4)?;
    let ttl = ip.get_mut(HOPS)?;
    *ttl = ttl.checked_sub(1)?;
    ip.get_mut(CHECKSUM..SOURCE)?.fill(0);
    let checksum = bytes::checksum(&[ip], 0);
    ip.get_mut(CHECKSUM..SOURCE)?
        .copy_from_slice(&checksum.to_be_bytes());
    Some(out)
}
