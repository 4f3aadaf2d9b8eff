//! How a virtual server chooses a destination: the kernel's schedulers (`ipvsadm(8)`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The kernel's schedulers. Those it lacks it refuses.
const SCHEDULERS: [&str; 14] = [
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "fo", "ovf", "mh", "twos",
];
/// Those that have flags: `sh-fallback`, `sh-port` and so on.
const WITH_FLAGS: [&str; 2] = ["sh", "mh"];

/// A scheduler with its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scheduling {
    name: &'static str,
    fallback: bool,
    port: bool,
}

impl Default for Scheduling {
    /// Round robin, as kube-proxy's.
    fn default() -> Self {
        Self {
            name: "rr",
            fallback: false,
            port: false,
        }
    }
}

impl Scheduling {
    /// The kernel's name of it.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Where the chosen destination takes nothing, another one is chosen (`-fallback`).
    pub const fn has_fallback(&self) -> bool {
        self.fallback
    }

    /// The client's port counts as well as its address (`-port`).
    pub const fn uses_port(&self) -> bool {
        self.port
    }
}

/// Not a scheduler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadScheduling {
    /// No such scheduler.
    #[error("{0:?} is no scheduler of IPVS: it is one of {known}", known = SCHEDULERS.join(", "))]
    Name(String),
    /// No such flag of this scheduler.
    #[error("{flag:?} is no flag of {name}: only sh and mh have any, NAME-fallback and NAME-port")]
    Flag {
        /// The scheduler.
        name: &'static str,
        /// What was asked of it.
        flag: String,
    },
}

impl FromStr for Scheduling {
    type Err = BadScheduling;

    /// A name, and flags behind commas: `wrr`, `mh,mh-port`.
    fn from_str(text: &str) -> Result<Self, BadScheduling> {
        let mut parts = text.split(',').map(str::trim);
        let wanted = parts.next().unwrap_or_default();
        let known = SCHEDULERS.iter().find(|name| **name == wanted);
        let name = *known.ok_or_else(|| BadScheduling::Name(wanted.to_owned()))?;
        let mut scheduling = Self {
            name,
            ..Self::default()
        };
        for flag in parts {
            let own = flag.strip_prefix(name).and_then(|it| it.strip_prefix('-'));
            match own.filter(|_| WITH_FLAGS.contains(&name)) {
                Some("fallback") => scheduling.fallback = true,
                Some("port") => scheduling.port = true,
                _ => {
                    let flag = flag.to_owned();
                    return Err(BadScheduling::Flag { name, flag });
                }
            }
        }
        Ok(scheduling)
    }
}

impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            fallback,
            port,
        } = self;
        f.write_str(name)?;
        for (flag, has) in [("fallback", fallback), ("port", port)] {
            if *has {
                write!(f, ",{name}-{flag}")?;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Scheduling {
    type Error = BadScheduling;

    fn try_from(text: String) -> Result<Self, BadScheduling> {
        text.parse()
    }
}

impl From<Scheduling> for String {
    fn from(scheduling: Scheduling) -> Self {
        scheduling.to_string()
    }
}
