//! The kernel-side filter: classic BPF (`socket(7)`, SO_ATTACH_FILTER). Offsets count from the
//! frame's first byte.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use libc::sock_filter;

use super::Traffic;

const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const LOAD_HALF_AT_INDEX: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_IND) as u16;
/// Of the byte at an offset the lower half times 4: the length of an IPv4 header.
const INDEX_IP_LENGTH: u16 = (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16;
const JUMP_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// The kernel's judgement of the destination. It is "another host" for a unicast address that is
/// not the interface's and, whatever the address, for a VLAN that has no interface here: the tag
/// itself is gone before a socket that is bound to one EtherType sees the frame.
const KIND: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
const OTHER_HOST: u32 = libc::PACKET_OTHERHOST as u32;
/// The interface that the kernel has found a frame to be for. A socket is handed the frames of
/// whatever lies on top of its interface too: of VLANs, whose tag is gone by then, and of macvlans.
const INTERFACE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX) as u32;
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;

const ETHERTYPE: u32 = 12;
const IPV6_NEXT_HEADER: u32 = 20;
const ICMPV6: u32 = 58;
const ICMPV6_TYPE: u32 = 54;
const SOLICITATION: u32 = 135;
const ADVERTISEMENT: u32 = 136;

const IPV4: u32 = 14;
const IPV4_FRAGMENT: u32 = 20;
const FRAGMENT_OFFSET: u32 = 0x1fff;
const IPV4_PROTOCOL: u32 = 23;
const UDP: u32 = 17;
const UDP_DESTINATION: u32 = IPV4 + 2;
const BFD_CONTROL: u32 = 3784;
const BFD_ECHO: u32 = 3785;

const DROP: sock_filter = op(RETURN, 0);
const TAKE: sock_filter = op(RETURN, u32::MAX);

const fn op(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// If what was loaded is `k`, skip `yes` instructions, else `no`.
const fn equal(k: u32, yes: u8, no: u8) -> sock_filter {
    sock_filter {
        code: JUMP_EQUAL,
        jt: yes,
        jf: no,
        k,
    }
}

/// If what was loaded has any of these bits, skip `yes` instructions, else `no`.
const fn any_of(bits: u32, yes: u8, no: u8) -> sock_filter {
    sock_filter {
        code: JUMP_SET,
        jt: yes,
        jf: no,
        k: bits,
    }
}

fn program(interface: u32, traffic: Traffic) -> Vec<sock_filter> {
    let mut program = vec![
        op(LOAD_WORD, INTERFACE),
        equal(interface, 1, 0),
        DROP,
        op(LOAD_BYTE, KIND),
        equal(OTHER_HOST, 0, 1),
        DROP,
        op(LOAD_HALF, ETHERTYPE),
    ];
    let ethertype = u32::from(traffic.ethertype());
    match traffic {
        Traffic::Arp => program.push(equal(ethertype, 1, 0)),
        Traffic::Ndp => program.extend([
            equal(ethertype, 0, 5),
            op(LOAD_BYTE, IPV6_NEXT_HEADER),
            equal(ICMPV6, 0, 3),
            op(LOAD_BYTE, ICMPV6_TYPE),
            equal(SOLICITATION, 2, 0),
            equal(ADVERTISEMENT, 1, 0),
        ]),
        Traffic::Bfd => program.extend([
            equal(ethertype, 0, 8),
            op(LOAD_BYTE, IPV4_PROTOCOL),
            equal(UDP, 0, 6),
            op(LOAD_HALF, IPV4_FRAGMENT),
            any_of(FRAGMENT_OFFSET, 4, 0),
            op(INDEX_IP_LENGTH, IPV4),
            op(LOAD_HALF_AT_INDEX, UDP_DESTINATION),
            equal(BFD_CONTROL, 2, 0),
            equal(BFD_ECHO, 1, 0),
        ]),
    }
    program.extend([DROP, TAKE]);
    program
}

/// Gives the socket the filter for its interface and kind of traffic.
pub(super) fn attach(fd: BorrowedFd<'_>, interface: u32, traffic: Traffic) -> io::Result<()> {
    let mut program = program(interface, traffic);
    let header = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `header` is a sock_fprog of the length given; it points to `len` instructions in
    // `program`, which outlives the call. The kernel copies and checks them.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const header).cast(),
            size_of_val(&header) as libc::socklen_t,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
