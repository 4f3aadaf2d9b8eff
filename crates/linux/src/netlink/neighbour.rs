//! The neighbour tables (ARP and NDP caches).

use std::net::IpAddr;

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use super::{Asked, Mac, Netlink, Result};

/// What the kernel knows of a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface's index.
    pub device: u32,
    /// Its address.
    pub ip: IpAddr,
    /// Its Ethernet address, when known.
    pub mac: Option<Mac>,
}

impl Neighbour {
    fn from_message(message: &NeighbourMessage) -> Option<Self> {
        let (mut ip, mut mac) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                    ip = Some(IpAddr::V4(*v4))
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                    ip = Some(IpAddr::V6(*v6))
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = bytes.as_slice().try_into().ok()
                }
                _ => {}
            }
        }
        Some(Self {
            device: message.header.ifindex,
            ip: ip?,
            mac,
        })
    }
}

impl Netlink {
    /// All entries of both families.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>> {
        let all: Vec<_> = self
            .handle
            .neighbours()
            .get()
            .execute()
            .try_collect()
            .await
            .asked(|| "list neighbours".into())?;
        Ok(all.iter().filter_map(Neighbour::from_message).collect())
    }

    /// Adds a permanent entry, or puts it in the place of what was learned.
    pub async fn set_neighbour(&self, device: u32, ip: IpAddr, mac: Mac) -> Result<()> {
        let request = self
            .handle
            .neighbours()
            .add(device, ip)
            .link_layer_address(&mac)
            .replace();
        request
            .execute()
            .await
            .asked(|| format!("set neighbour {ip} of link {device}"))
    }

    /// Removes what is known of a neighbour, so that it is asked for anew.
    pub async fn del_neighbour(&self, device: u32, ip: IpAddr) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = device;
        let (family, destination) = match ip {
            IpAddr::V4(ip) => (AddressFamily::Inet, NeighbourAddress::Inet(ip)),
            IpAddr::V6(ip) => (AddressFamily::Inet6, NeighbourAddress::Inet6(ip)),
        };
        message.header.family = family;
        let attribute = NeighbourAttribute::Destination(destination);
        message.attributes.push(attribute);
        let done = self.handle.neighbours().del(message).execute().await;
        done.asked(|| format!("delete neighbour {ip} of link {device}"))
    }

    /// Lets a device receive frames for one more unicast Ethernet address (`bridge fdb add … self
    /// permanent`), also through the filter of its hardware.
    pub async fn add_station(&self, device: u32, mac: Mac) -> Result<()> {
        let request = self.handle.neighbours().add_bridge(device, &mac);
        let request = request.flags(NeighbourFlags::Own);
        let done = request.execute().await;
        done.asked(|| format!("let link {device} receive for {mac:02x?}"))
    }

    /// Undoes [`Netlink::add_station`].
    pub async fn del_station(&self, device: u32, mac: Mac) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = device;
        message.header.state = NeighbourState::Permanent;
        message.header.flags = NeighbourFlags::Own;
        let attribute = NeighbourAttribute::LinkLayerAddress(mac.to_vec());
        message.attributes.push(attribute);
        let done = self.handle.neighbours().del(message).execute().await;
        done.asked(|| format!("let link {device} receive for {mac:02x?} no longer"))
    }
}
