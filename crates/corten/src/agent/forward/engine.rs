//! The back ends of forwarding, one of which is at work, and what they may lack.

use std::collections::BTreeMap;

use dataplane::ipvs::{self, Ipvs, Leaving, Timeouts};
use dataplane::nft::{self, Look, Nft, Report};
use plan::forward::ipvs::Scheduling;
use plan::forward::{Locality, PortKey, ServicePort, Table};

/// What balances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackEnd {
    /// The rule set itself.
    #[default]
    Nftables,
    /// Virtual servers beside it, by this scheduler unless the Service asks for another one, which
    /// know connections for so long.
    Ipvs(Scheduling, Timeouts),
}

impl BackEnd {
    /// What kube-proxy calls it.
    pub(crate) const fn proxy_mode(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Ipvs(..) => "ipvs",
        }
    }
}

/// Why forwarding does not start.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The kernel's tables.
    #[error(transparent)]
    Nft(#[from] nft::Error),
    /// The kernel's virtual servers.
    #[error(transparent)]
    Ipvs(#[from] ipvs::Error),
    /// The thread.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
}

/// What is wrong with the kernel's forwarding, and what to do about it.
pub(crate) fn words(error: &ForwardError) -> String {
    format!("{}; remedy: {}", crate::cli::chain(error), remedy(error))
}

/// The same of nf_tables alone.
pub(crate) fn nft_words(error: &nft::Error) -> String {
    format!(
        "{}; remedy: {}",
        crate::cli::chain(error),
        nft_remedy(error)
    )
}

const fn nft_remedy(error: &nft::Error) -> &'static str {
    match error {
        nft::Error::Kernel { .. } => "boot a newer kernel on this node, or forward nothing",
        nft::Error::Missing { .. } => {
            "load the module nf_tables on this node, or boot a kernel that has it, or forward nothing"
        }
        nft::Error::Unsupported { .. } => {
            "load what it needs on this node, or boot a kernel that has it, or forward nothing"
        }
        nft::Error::Denied => "securityContext.capabilities.add: [NET_ADMIN]",
        nft::Error::Owned { .. } => "end the other process",
        nft::Error::Structure { .. } | nft::Error::Netlink { .. } | nft::Error::Busy { .. } => {
            "`nft list ruleset` on this node shows what is there"
        }
    }
}

fn remedy(error: &ForwardError) -> String {
    let text = match error {
        ForwardError::Nft(error) | ForwardError::Ipvs(ipvs::Error::Rules(error)) => {
            nft_remedy(error)
        }
        ForwardError::Ipvs(error) => match error {
            ipvs::Error::Missing => {
                "load the modules ip_vs and ip_vs_rr on this node, or leave --proxy-mode out"
            }
            ipvs::Error::Denied => "securityContext.capabilities.add: [NET_ADMIN]",
            ipvs::Error::Setting { key, value, .. } => {
                return format!(
                    "`corten sysctl {key}={value}` as root (the init container's list)"
                );
            }
            ipvs::Error::Foreign => "take that interface away, or rename it",
            ipvs::Error::Device(_) => {
                "load the module dummy; `ip -d address` on this node shows what is there"
            }
            _ => "/proc/net/ip_vs on this node shows what is there",
        },
        ForwardError::Thread(_) => "look for limits of processes and memory",
    };
    text.to_owned()
}

/// Whether this node can forward so.
pub(crate) fn check(back_end: BackEnd) -> Result<(), ForwardError> {
    match back_end {
        BackEnd::Nftables => Nft::open().map(drop)?,
        BackEnd::Ipvs(..) => ipvs::check()?,
    }
    Ok(())
}

/// A back end at work.
pub(super) enum Engine {
    Nftables {
        nft: Box<Nft>,
        /// Virtual servers of an earlier agent, whose connections go on.
        leaving: Option<Leaving>,
    },
    Ipvs(Box<Ipvs>),
}

impl Engine {
    pub(super) fn open(back_end: BackEnd) -> Result<Self, ForwardError> {
        Ok(match back_end {
            BackEnd::Nftables => Self::Nftables {
                nft: Box::new(Nft::open()?),
                leaving: None,
            },
            BackEnd::Ipvs(usual, timeouts) => {
                let mut ipvs = Ipvs::open(usual)?;
                ipvs.set_timeouts(timeouts)?;
                Self::Ipvs(Box::new(ipvs))
            }
        })
    }

    pub(super) fn set_locality(&mut self, locality: Locality) {
        match self {
            Self::Nftables { nft, .. } => nft.set_locality(locality),
            Self::Ipvs(ipvs) => ipvs.set_locality(locality),
        }
    }

    pub(super) fn adopt(
        &mut self,
        table: &BTreeMap<PortKey, ServicePort>,
    ) -> Result<Report, ForwardError> {
        match self {
            Self::Nftables { nft, leaving } => {
                let report = nft.adopt(table)?;
                // What an earlier agent may have had with the other back end. Should it stay, this
                // one forwards all the same.
                match Leaving::begin() {
                    Ok(left) => *leaving = left,
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "virtual servers of an earlier agent may be left");
                    }
                }
                if leaving.is_some() {
                    tracing::info!(
                        "connections through an earlier agent's virtual servers go on, which go \
                         with the last of them"
                    );
                }
                Ok(report)
            }
            Self::Ipvs(ipvs) => Ok(ipvs.adopt(table)?),
        }
    }

    pub(super) fn apply(
        &mut self,
        changes: &[(PortKey, Option<ServicePort>)],
    ) -> Result<Report, ForwardError> {
        match self {
            Self::Nftables { nft, .. } => Ok(nft.apply(changes)?),
            Self::Ipvs(ipvs) => Ok(ipvs.apply(changes)?),
        }
    }

    /// Looks whether others have changed what is there.
    pub(super) fn look(&mut self) -> Result<Look, ForwardError> {
        match self {
            Self::Nftables { nft, .. } => Ok(nft.look()?),
            Self::Ipvs(ipvs) => Ok(ipvs.look()?),
        }
    }

    /// Compares what is there with what should be, and mends it.
    pub(super) fn check(&mut self) -> Result<Report, ForwardError> {
        match self {
            Self::Nftables { nft, .. } => Ok(nft.check()?),
            Self::Ipvs(ipvs) => Ok(ipvs.check()?),
        }
    }

    /// Endpoints or virtual servers leave, and are to be looked at.
    pub(super) fn drains(&self) -> bool {
        match self {
            Self::Nftables { leaving, .. } => leaving.is_some(),
            Self::Ipvs(ipvs) => ipvs.drains(),
        }
    }

    pub(super) fn tick(&mut self) -> Result<(), ForwardError> {
        match self {
            Self::Nftables { leaving, .. } => {
                let left = leaving.as_mut().map_or(Ok(false), Leaving::tick)?;
                if !left {
                    *leaving = None;
                    tracing::info!("an earlier agent's virtual servers are gone");
                }
                Ok(())
            }
            Self::Ipvs(ipvs) => Ok(ipvs.tick()?),
        }
    }

    /// What the kernel has counted of connections to node ports on the loopback, if there are any.
    pub(super) fn loopback_connections(&mut self) -> Result<Option<u64>, ForwardError> {
        match self {
            Self::Nftables { nft, .. } => Ok(nft.loopback_connections()?),
            Self::Ipvs(ipvs) => Ok(ipvs.loopback_connections()?),
        }
    }

    /// What others may have changed, for people.
    pub(super) const fn what(&self) -> &'static str {
        match self {
            Self::Nftables { .. } => "the nftables table inet corten",
            Self::Ipvs(_) => "the nftables table inet corten, virtual servers or corten-ipvs0",
        }
    }

    /// The service ports that should be in force.
    pub(super) fn table(&self) -> &Table {
        match self {
            Self::Nftables { nft, .. } => nft.table(),
            Self::Ipvs(ipvs) => ipvs.table(),
        }
    }
}

/// The same where nothing is forwarded any more; true when there was something. The kernel need not
/// know either.
pub(super) fn clear() -> Result<bool, ForwardError> {
    // On a thread of its own: a runtime within a runtime cannot wait.
    let left = std::thread::spawn(ipvs::leave).join();
    left.map_err(|_| std::io::Error::other("it panicked"))??;
    Ok(Nft::clear()?)
}

/// Takes away what either back end has left in the kernel.
pub(super) fn remove() -> Result<(), ForwardError> {
    ipvs::leave()?;
    Ok(Nft::open()?.remove()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_lacks_is_said_with_the_remedy() {
        use std::io::Error as Io;
        let refused = || linux::nft::Error::Dump {
            what: "tables",
            source: Io::from_raw_os_error(95),
        };
        let nftables = [
            (
                nft::Error::Missing { source: refused() },
                ["CONFIG_NF_TABLES", "load the module nf_tables"],
            ),
            (
                nft::Error::Unsupported {
                    what: "rule 3".to_owned(),
                    needs: "CONFIG_NFT_NUMGEN".to_owned(),
                    source: refused(),
                },
                ["CONFIG_NFT_NUMGEN", "load what it needs"],
            ),
            (nft::Error::Denied, ["NET_ADMIN", "capabilities.add"]),
            (
                nft::Error::Kernel {
                    found: "5.4".to_owned(),
                },
                ["5.4", "newer kernel"],
            ),
        ];
        let ipvs = [
            (
                ipvs::Error::Missing,
                ["CONFIG_IP_VS", "load the modules ip_vs"],
            ),
            (
                ipvs::Error::Setting {
                    key: "net.ipv4.vs.conntrack",
                    value: "1",
                    source: Io::from_raw_os_error(30),
                },
                ["Read-only", "`corten sysctl net.ipv4.vs.conntrack=1`"],
            ),
            (
                ipvs::Error::Rules(nft::Error::Denied),
                ["NET_ADMIN", "capabilities.add"],
            ),
        ];
        let ipvs = ipvs.map(|(error, parts)| (ForwardError::from(error), parts));
        let nftables = nftables.map(|(error, parts)| (ForwardError::from(error), parts));
        for (error, parts) in nftables.into_iter().chain(ipvs) {
            let words = words(&error);
            assert!(words.contains("; remedy: "), "{words}");
            for part in parts {
                assert!(words.contains(part), "{part:?} is not in {words:?}");
            }
        }
    }
}
