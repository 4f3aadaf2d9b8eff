//! The interface with the Services' addresses: what is for them is this host's, so that IPVS gets
//! it.
//!
//! Addresses stand there alone (`/32`, `/128`), and nothing of this host asks or answers for them
//! elsewhere (see `settings`). The interface is marked by an alias; one without is left alone.

use std::collections::BTreeSet;
use std::net::IpAddr;

use linux::netlink::{AddressFlags, Interface, Netlink, NetlinkError};
use tokio::runtime::Runtime;

use super::{ALIAS, DEVICE, Error};

/// Who made an address (`ip -d address` shows it as proto): the number of our routes.
const PROTOCOL: u8 = 155;

/// A socket for links and addresses, whose calls block.
#[derive(Debug)]
pub(super) struct Device {
    runtime: Runtime,
    netlink: Netlink,
    /// The interface's index, once it was found.
    index: Option<u32>,
}

impl Device {
    /// Opens it in the calling thread's network namespace. Changes nothing.
    pub(super) fn open() -> Result<Self, Error> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_io().build().map_err(Error::Runtime)?;
        let netlink = runtime.block_on(async { Netlink::open() })?;
        Ok(Self {
            runtime,
            netlink,
            index: None,
        })
    }

    /// Puts exactly `wanted` on the interface, which is made first if need be. Says how many
    /// addresses came and went.
    pub(super) fn bring(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<(usize, usize), Error> {
        let found = match self.find()? {
            Some(found) => found,
            None if wanted.is_empty() => return Ok((0, 0)),
            None => self.make()?,
        };
        self.index = Some(found.index);
        if !found.up {
            self.runtime.block_on(self.netlink.set_up(found.index))?;
        }
        let there = addresses(&found);
        let (mut come, mut gone) = (0, 0);
        for address in there.difference(wanted) {
            self.remove_address(*address)?;
            gone += 1;
        }
        for address in wanted.difference(&there) {
            self.add_address(*address)?;
            come += 1;
        }
        Ok((come, gone))
    }

    /// Exactly `wanted` is there, and works.
    pub(super) fn has(&self, wanted: &BTreeSet<IpAddr>) -> Result<bool, Error> {
        Ok(match self.find()? {
            Some(found) => found.up && addresses(&found) == *wanted,
            None => wanted.is_empty(),
        })
    }

    /// Leaves these alone and takes others off.
    pub(super) fn keep(&mut self, needed: &BTreeSet<IpAddr>) -> Result<(), Error> {
        let found = match self.find() {
            Err(Error::Foreign) => None,
            found => found?,
        };
        if let Some(found) = found {
            self.index = Some(found.index);
            for address in addresses(&found).difference(needed) {
                self.remove_address(*address)?;
            }
        }
        Ok(())
    }

    /// Puts an address there.
    pub(super) fn add_address(&mut self, address: IpAddr) -> Result<(), Error> {
        let index = match self.index {
            Some(index) => index,
            None => match self.find()? {
                Some(found) => found.index,
                None => self.make()?.index,
            },
        };
        self.index = Some(index);
        let flags = AddressFlags {
            nodad: true,
            protocol: Some(PROTOCOL),
            ..AddressFlags::default()
        };
        let length = length(address);
        let added = self.netlink.add_address(index, address, length, flags);
        match self.runtime.block_on(added) {
            Err(error) if !error.is_there() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Takes an address off.
    pub(super) fn remove_address(&mut self, address: IpAddr) -> Result<(), Error> {
        let Some(index) = self.index else {
            return Ok(());
        };
        let removed = self.netlink.del_address(index, address, length(address));
        match self.runtime.block_on(removed) {
            Err(error) if !error.is_missing() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Takes the interface away, if it is ours.
    pub(super) fn remove(&mut self) -> Result<(), Error> {
        self.index = None;
        match self.find() {
            Err(Error::Foreign) | Ok(None) => Ok(()),
            Err(error) => Err(error),
            Ok(Some(found)) => Ok(self.runtime.block_on(self.netlink.del_link(found.index))?),
        }
    }

    fn find(&self) -> Result<Option<Interface>, Error> {
        self.runtime.block_on(async {
            let interfaces = self.netlink.interfaces().await?;
            let Some(found) = interfaces.into_iter().find(|it| it.name == DEVICE) else {
                return Ok(None);
            };
            let alias = self.netlink.alias_of(found.index).await?;
            match alias.as_deref() {
                Some(ALIAS) => Ok(Some(found)),
                _ => Err(Error::Foreign),
            }
        })
    }

    fn make(&self) -> Result<Interface, Error> {
        let made = async {
            self.netlink.add_dummy(DEVICE).await?;
            let index = self.netlink.index_of(DEVICE).await?;
            self.netlink.set_alias(index, ALIAS).await?;
            self.netlink.set_up(index).await
        };
        let made: Result<(), NetlinkError> = self.runtime.block_on(made);
        made?;
        self.find()?.ok_or(Error::Foreign)
    }
}

const fn length(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The interface's, but for those of the kernel.
fn addresses(interface: &Interface) -> BTreeSet<IpAddr> {
    let there = interface.addresses.iter().map(|(address, _)| *address);
    there.filter(|it| !is_of_link(*it)).collect()
}

/// An address that the kernel gave by itself.
const fn is_of_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
