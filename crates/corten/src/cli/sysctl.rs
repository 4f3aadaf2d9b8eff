//! `corten sysctl`: writes kernel settings and ends. The agents' init container runs it where they
//! forward, so that the agents themselves need no right to (design.md §4.8).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Failure;
use super::conntrack::Conntrack;

/// Where the kernel has its settings.
const SETTINGS: &str = "/proc/sys";

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Settings as KEY=VALUE, like net.ipv4.ip_forward=1. One that already is so is left alone.
    #[arg(required_unless_present = "conntrack", value_name = "KEY=VALUE")]
    settings: Vec<Setting>,
    /// Also those of connection tracking, as kube-proxy sets them; what cannot be set is said and
    /// left.
    #[arg(long = "conntrack")]
    conntrack: bool,
    #[command(flatten)]
    tracking: Conntrack,
}

/// A setting of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    key: String,
    value: String,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no KEY=VALUE, as net.ipv4.ip_forward=1");
        let (key, value) = text.split_once('=').ok_or_else(bad)?;
        // A name of an interface may have dots: then slashes part the key, as sysctl(8) has it.
        let parts = key.split(if key.contains('/') { '/' } else { '.' });
        let key: Vec<&str> = parts.collect();
        if value.trim().is_empty() || key.iter().any(|part| matches!(*part, "" | "." | "..")) {
            return Err(bad());
        }
        Ok(Self {
            key: key.join("/"),
            value: value.trim().to_owned(),
        })
    }
}

impl Setting {
    /// Makes it so. False where it was.
    fn apply(&self, root: &Path) -> Result<bool, Failure> {
        let path = root.join(&self.key);
        let there =
            fs::read_to_string(&path).map_err(|error| self.failed("read", &path, &error))?;
        // Tabs or blanks part the numbers of one that has several. Some settings reset others when
        // written, so one that is right is not.
        if there.split_whitespace().eq(self.value.split_whitespace()) {
            return Ok(false);
        }
        fs::write(&path, &self.value).map_err(|error| self.failed("written", &path, &error))?;
        Ok(true)
    }

    fn failed(&self, what: &str, path: &Path, error: &io::Error) -> Failure {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "this kernel has no such setting: take it off the list",
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "run it as root (container: securityContext.privileged)"
            }
            _ => "give a value that the kernel takes",
        };
        let (path, value) = (path.display(), &self.value);
        format!("{path} cannot be {what} (wanted: {value}): {error}; {remedy}").into()
    }
}

pub(super) fn main(options: &Options) -> Result<(), Failure> {
    if options.conntrack {
        options.tracking.apply();
    }
    let root = PathBuf::from(SETTINGS);
    for setting in &options.settings {
        let Setting { key, value } = setting;
        match setting.apply(&root)? {
            true => tracing::info!(key, value, "set"),
            false => tracing::info!(key, value, "already so"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(String, String)> {
        let setting: Setting = text.parse().ok()?;
        Some((setting.key, setting.value))
    }

    #[test]
    fn keys_are_paths_below_proc_sys_and_never_out_of_it() {
        let good = |key: &str, value: &str| Some((key.to_owned(), value.to_owned()));
        assert_eq!(
            parsed("net.ipv4.ip_forward=1"),
            good("net/ipv4/ip_forward", "1")
        );
        assert_eq!(
            parsed("net/ipv4/conf/eth0.5/rp_filter= 2"),
            good("net/ipv4/conf/eth0.5/rp_filter", "2")
        );
        for bad in [
            "",
            "net.ipv4.ip_forward",
            "a=",
            "=1",
            "a..b=1",
            "../../etc/passwd=1",
            "/a=1",
        ] {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_what_differs_is_written() {
        let root = std::env::temp_dir().join(format!("corten-sysctl-{}", std::process::id()));
        fs::create_dir_all(root.join("net")).expect("a folder");
        fs::write(root.join("net/range"), "32768\t60999\n").expect("written");
        let apply = |text: &str| {
            let setting: Setting = text.parse().expect("good");
            setting.apply(&root).map_err(|error| error.to_string())
        };
        assert_eq!(apply("net.range=32768 60999"), Ok(false));
        assert_eq!(apply("net.range=1024 65535"), Ok(true));
        let written = fs::read_to_string(root.join("net/range")).expect("read");
        assert_eq!(written, "1024 65535");
        let missing = apply("net.none=1").expect_err("not there");
        assert!(
            missing.contains("net/none") && missing.contains("take it off"),
            "{missing}"
        );
        fs::remove_dir_all(&root).expect("removed");
    }
}
