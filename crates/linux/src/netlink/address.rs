//! Addresses of interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::address::{self, AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::AddressMessageBuilder;

use super::{Asked, Netlink, Result};

/// How an address is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddressFlags {
    /// IPv6: use it at once, without asking whether somebody else has it (RFC 4862 §5.4).
    pub nodad: bool,
    /// Make no route to the address's prefix.
    pub no_prefix_route: bool,
    /// How long it lasts, seconds, and is never chosen as a source of connections by itself; none:
    /// for ever. Added again it lasts that long anew.
    pub lifetime: Option<u32>,
    /// Who made it (`IFA_PROTO`; kernels before 5.18 do not keep it).
    pub protocol: Option<u8>,
}

/// The interface's index, the address and its prefix length.
pub(super) fn from_message(message: &AddressMessage) -> Option<(u32, IpAddr, u8)> {
    let attributes = &message.attributes;
    // With a peer, Local is the own address and Address the peer's; IPv6 without one has no Local.
    let local = attributes.iter().find_map(|a| {
        if let AddressAttribute::Local(ip) = a {
            Some(*ip)
        } else {
            None
        }
    });
    let address = attributes.iter().find_map(|a| {
        if let AddressAttribute::Address(ip) = a {
            Some(*ip)
        } else {
            None
        }
    });
    Some((
        message.header.index,
        local.or(address)?,
        message.header.prefix_len,
    ))
}

impl Netlink {
    /// Adds an address to an interface. One with a lifetime may be there already.
    pub async fn add_address(
        &self,
        index: u32,
        ip: IpAddr,
        prefix: u8,
        flags: AddressFlags,
    ) -> Result<()> {
        let mut request = self.handle.address().add(index, ip, prefix);
        let message = request.message_mut();
        let mut wide = address::AddressFlags::empty();
        if flags.nodad {
            message.header.flags |= AddressHeaderFlags::Nodad;
            wide |= address::AddressFlags::Nodad;
        }
        if flags.no_prefix_route {
            // This one has no place in the header's octet: it needs the attribute, which then
            // stands for all flags.
            wide |= address::AddressFlags::Noprefixroute;
        }
        if !wide.is_empty() {
            message.attributes.push(AddressAttribute::Flags(wide));
        }
        if let Some(seconds) = flags.lifetime {
            let mut times = address::CacheInfo::default();
            times.ifa_valid = seconds;
            message.attributes.push(AddressAttribute::CacheInfo(times));
        }
        if let Some(protocol) = flags.protocol {
            let protocol = address::AddressProtocol::from(protocol);
            message
                .attributes
                .push(AddressAttribute::Protocol(protocol));
        }
        if flags.lifetime.is_some() {
            request = request.replace();
        }
        request
            .execute()
            .await
            .asked(|| format!("add address {ip}/{prefix} to link {index}"))
    }

    /// Removes an address from an interface.
    pub async fn del_address(&self, index: u32, ip: IpAddr, prefix: u8) -> Result<()> {
        let message = match ip {
            IpAddr::V4(ip) => AddressMessageBuilder::<Ipv4Addr>::new()
                .index(index)
                .address(ip, prefix)
                .build(),
            IpAddr::V6(ip) => AddressMessageBuilder::<Ipv6Addr>::new()
                .index(index)
                .address(ip, prefix)
                .build(),
        };
        let done = self.handle.address().del(message).execute().await;
        done.asked(|| format!("remove address {ip}/{prefix} from link {index}"))
    }
}
