//! Links: what there is, and making and changing them.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::link::{
    self, AfSpecInet, AfSpecUnspec, BridgePortState, InetDevConf, InfoData, InfoVeth,
    LinkAttribute, LinkMessage,
};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkDummy, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::{Asked, Netlink, NetlinkError, Result};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// One interface as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, if it has one of six octets.
    pub mac: Option<Mac>,
    /// Switched on by the administrator.
    pub up: bool,
    /// Has a carrier (cable, peer) as well.
    pub carrier: bool,
    /// What kind of link it is.
    pub flags: LinkFlags,
    /// The bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// Largest payload of a frame.
    pub mtu: u32,
    /// Addresses with their prefix lengths, in the kernel's order.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// Properties of a link that decide what can be done on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkFlags {
    /// Frames to all are possible.
    pub broadcast: bool,
    /// Neighbours are not resolved here.
    pub noarp: bool,
    /// The loopback.
    pub loopback: bool,
    /// A tunnel or the like, with one other end.
    pub point_to_point: bool,
}

impl Interface {
    pub(super) fn from_message(message: &LinkMessage) -> Self {
        let has = |flag| message.header.flags.contains(flag);
        let mut interface = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            up: has(link::LinkFlags::Up),
            carrier: has(link::LinkFlags::LowerUp),
            flags: LinkFlags {
                broadcast: has(link::LinkFlags::Broadcast),
                noarp: has(link::LinkFlags::Noarp),
                loopback: has(link::LinkFlags::Loopback),
                point_to_point: has(link::LinkFlags::Pointopoint),
            },
            master: None,
            mtu: 0,
            addresses: Vec::new(),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name.clone_from(name),
                LinkAttribute::Address(mac) => interface.mac = mac.as_slice().try_into().ok(),
                LinkAttribute::Controller(index) => {
                    interface.master = Some(*index).filter(|i| *i != 0)
                }
                LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
                _ => {}
            }
        }
        interface
    }
}

/// One end of a veth pair to be made.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// Its Ethernet address; the kernel's choice if none.
    pub mac: Option<Mac>,
    /// The namespace that it goes to; the socket's own if none.
    pub netns: Option<BorrowedFd<'a>>,
}

impl VethEnd<'_> {
    fn fill<T>(&self, mut message: LinkMessageBuilder<T>) -> LinkMessageBuilder<T> {
        message = message.name(self.name);
        if let Some(mac) = self.mac {
            message = message.address(mac.to_vec());
        }
        if let Some(netns) = self.netns {
            message = message.setns_by_fd(netns.as_raw_fd());
        }
        message
    }
}

impl Netlink {
    /// The index of the interface with this name.
    pub async fn index_of(&self, name: &str) -> Result<u32> {
        use futures::TryStreamExt;
        let mut found = self.handle.link().get().match_name(name).execute();
        match found
            .try_next()
            .await
            .asked(|| format!("find link {name}"))?
        {
            Some(message) => Ok(message.header.index),
            None => {
                let missing = std::io::Error::from_raw_os_error(libc::ENODEV);
                Err(NetlinkError::new(format!("find link {name}"), missing))
            }
        }
    }

    /// Makes a pair of connected interfaces.
    pub async fn add_veth(&self, one: VethEnd<'_>, other: VethEnd<'_>) -> Result<()> {
        let peer = other.fill(LinkMessageBuilder::<LinkUnspec>::new()).build();
        let pair = one.fill(LinkVeth::new(one.name, other.name));
        let pair = pair
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let done = self.handle.link().add(pair).execute().await;
        done.asked(|| format!("add veth pair {} and {}", one.name, other.name))
    }

    /// Makes a bridge that forwards at once: no spanning tree, no multicast snooping (which
    /// would hold back neighbour discovery until it has learned).
    pub async fn add_bridge(&self, name: &str) -> Result<()> {
        let bridge = LinkBridge::new(name)
            .forward_delay(0)
            .mcast_snooping(false)
            .build();
        self.handle
            .link()
            .add(bridge)
            .execute()
            .await
            .asked(|| format!("add bridge {name}"))
    }

    /// Makes a dummy interface.
    pub async fn add_dummy(&self, name: &str) -> Result<()> {
        let dummy = LinkDummy::new(name).build();
        self.handle
            .link()
            .add(dummy)
            .execute()
            .await
            .asked(|| format!("add dummy {name}"))
    }

    /// Marks a link with a text for people and programs (`ip link` shows it as alias).
    pub async fn set_alias(&self, index: u32, alias: &str) -> Result<()> {
        self.change(LinkUnspec::new_with_index(index).alias(alias), || {
            format!("mark link {index}")
        })
        .await
    }

    /// The mark of [`Netlink::set_alias`].
    pub async fn alias_of(&self, index: u32) -> Result<Option<String>> {
        use futures::TryStreamExt;
        let mut found = self.handle.link().get().match_index(index).execute();
        let message = found
            .try_next()
            .await
            .asked(|| format!("read link {index}"))?;
        let attributes = message.into_iter().flat_map(|message| message.attributes);
        Ok(attributes
            .into_iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::IfAlias(alias) => Some(alias),
                _ => None,
            }))
    }

    /// When an IPv4 address goes, others of its subnet stay (`promote_secondaries`); the kernel's
    /// own way takes them along.
    pub async fn keep_secondaries(&self, index: u32) -> Result<()> {
        let mut settings = InetDevConf::default();
        settings.promote_secondaries = 1;
        let inet = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(settings)]);
        let message = LinkUnspec::new_with_index(index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![inet]));
        self.change(message, || {
            format!("keep secondary addresses of link {index}")
        })
        .await
    }

    /// Removes a link.
    pub async fn del_link(&self, index: u32) -> Result<()> {
        self.handle
            .link()
            .del(index)
            .execute()
            .await
            .asked(|| format!("remove link {index}"))
    }

    /// Switches a link on.
    pub async fn set_up(&self, index: u32) -> Result<()> {
        self.change(LinkUnspec::new_with_index(index).up(), || {
            format!("set link {index} up")
        })
        .await
    }

    /// Switches a link off.
    pub async fn set_down(&self, index: u32) -> Result<()> {
        self.change(LinkUnspec::new_with_index(index).down(), || {
            format!("set link {index} down")
        })
        .await
    }

    /// Makes a link a port of a bridge, or of nothing.
    pub async fn set_master(&self, index: u32, master: Option<u32>) -> Result<()> {
        // Master 0 means none.
        let message = LinkUnspec::new_with_index(index).controller(master.unwrap_or(0));
        self.change(message, || {
            format!("set master of link {index} to {master:?}")
        })
        .await
    }

    /// Lets a bridge port forward, or drop everything. Its carrier stays as it is.
    ///
    /// A port that drops is "listening": the kernel turns "disabled" and "blocking" back into
    /// "forwarding" by itself on a bridge without spanning tree.
    pub async fn set_bridge_port(&self, index: u32, forwards: bool) -> Result<()> {
        let state = if forwards {
            BridgePortState::Forwarding
        } else {
            BridgePortState::Listening
        };
        let message = LinkBridgePort::new(index).state(state).build();
        let done = self.handle.link().set_port(message).execute().await;
        done.asked(|| format!("set bridge port {index} to {state:?}"))
    }

    /// Lets a bridge port drop frames from Ethernet addresses that the bridge has not learned there
    /// before (`bridge link set … locked on`), or take all again.
    pub async fn lock_bridge_port(&self, index: u32, locked: bool) -> Result<()> {
        let message = LinkBridgePort::new(index).locked(locked).build();
        let done = self.handle.link().set_port(message).execute().await;
        done.asked(|| format!("lock bridge port {index}: {locked}"))
    }

    /// Sets the Ethernet address.
    pub async fn set_mac(&self, index: u32, mac: Mac) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).address(mac.to_vec());
        self.change(message, || {
            format!("set the Ethernet address of link {index}")
        })
        .await
    }

    /// Sets the largest payload of a frame.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu);
        self.change(message, || format!("set the MTU of link {index} to {mtu}"))
            .await
    }

    async fn change(
        &self,
        message: LinkMessageBuilder<LinkUnspec>,
        what: impl FnOnce() -> String,
    ) -> Result<()> {
        self.handle
            .link()
            .change(message.build())
            .execute()
            .await
            .asked(what)
    }
}
