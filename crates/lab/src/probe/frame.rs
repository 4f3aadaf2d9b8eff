//! Frames of the probes. Written apart from `proto`, whose answers they test.

use std::net::{Ipv4Addr, Ipv6Addr};

use linux::netlink::Mac;

const BROADCAST: Mac = [0xff; 6];
const ADVERTISEMENT: u8 = 136;
const SOLICITATION: u8 = 135;
const ICMPV6: u8 = 58;

/// "Who has `target`?" (RFC 826).
pub(super) fn arp_request(own: Mac, source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let head = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1];
    [
        &BROADCAST[..],
        &own,
        &head,
        &own,
        &source.octets(),
        &[0; 6],
        &target.octets(),
    ]
    .concat()
}

/// Who says in this frame that it has `target`.
pub(super) fn arp_reply(frame: &[u8], target: Ipv4Addr) -> Option<Mac> {
    let arp = frame
        .get(12..)?
        .strip_prefix(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2])?;
    let (mac, rest) = arp.split_first_chunk::<6>()?;
    rest.starts_with(&target.octets()).then_some(*mac)
}

/// Whom an ARP reply is for: the sender of the question.
pub(super) fn arp_asker(frame: &[u8]) -> Option<Ipv4Addr> {
    frame
        .get(38..)?
        .first_chunk::<4>()
        .copied()
        .map(Ipv4Addr::from)
}

/// A neighbour solicitation to the target's solicited-node group (RFC 4861 §4.3).
pub(super) fn solicitation(own: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let mut icmp = [
        &[SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..],
        &target.octets(),
        &[1, 1],
        &own,
    ]
    .concat();
    let sum = checksum(source, group, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let [length_high, length_low] = (icmp.len() as u16).to_be_bytes();
    let ethernet = [0x33, 0x33, 0xff, a, b, c];
    let ip = [
        0x86,
        0xdd,
        0x60,
        0,
        0,
        0,
        length_high,
        length_low,
        ICMPV6,
        255,
    ];
    [
        &ethernet[..],
        &own,
        &ip,
        &source.octets(),
        &group.octets(),
        &icmp,
    ]
    .concat()
}

/// Who says in this frame that it has `target`: the option's address, or else the sender's.
pub(super) fn advertisement(frame: &[u8], target: Ipv6Addr) -> Option<Mac> {
    let sender = *frame.get(6..)?.first_chunk::<6>()?;
    let is_icmp = frame.get(12..14)? == [0x86, 0xdd] && *frame.get(20)? == ICMPV6;
    let message = frame.get(54..)?;
    let is_answer = is_icmp
        && message.first() == Some(&ADVERTISEMENT)
        && message.get(8..24)? == target.octets();
    let option = message
        .get(24..)
        .and_then(|o| o.strip_prefix(&[2, 1]))
        .and_then(|o| o.first_chunk::<6>());
    is_answer.then(|| option.copied().unwrap_or(sender))
}

/// RFC 4443 §2.3.
fn checksum(source: Ipv6Addr, to: Ipv6Addr, icmp: &[u8]) -> u16 {
    let length = (icmp.len() as u32).to_be_bytes();
    let all = [
        &source.octets()[..],
        &to.octets(),
        &length,
        &[0, 0, 0, ICMPV6],
        icmp,
    ]
    .concat();
    let sum: u32 = all
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | w.get(1).map_or(0, |b| u32::from(*b)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 1];
    const OTHER: Mac = [2, 0, 0, 0, 0, 2];

    #[test]
    fn only_a_reply_for_the_target_counts() {
        let (source, target) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let request = arp_request(OWN, source, target);
        assert_eq!(request.len(), 42);
        assert_eq!(arp_reply(&request, target), None);
        let mut reply = arp_request(OTHER, target, source);
        reply[21] = 2;
        assert_eq!(arp_reply(&reply, target), Some(OTHER));
        assert_eq!(arp_reply(&reply, source), None);
        assert_eq!(arp_reply(&reply[..25], target), None);
    }

    #[test]
    fn a_solicitation_has_a_right_checksum() {
        let (source, target) = (
            "fd00::1".parse().expect("ip"),
            "fd00::2:3".parse().expect("ip"),
        );
        let frame = solicitation(OWN, source, target);
        let group = Ipv6Addr::from(*frame[38..].first_chunk::<16>().expect("group"));
        assert_eq!(group.to_string(), "ff02::1:ff02:3");
        // The sum over a message with its checksum in place is zero.
        assert_eq!(checksum(source, group, &frame[54..]), 0);
        assert_eq!(advertisement(&frame, target), None);
    }
}
