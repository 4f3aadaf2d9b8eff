//! FRR (Debian's 8.4): zebra, bgpd and bfdd.

use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::{output, write};
use crate::{Host, LabError, Process, wait_for};

const LIB: &str = "/usr/lib/frr";
/// As the daemons see it, each on its own host.
const RUN: &str = "/run/frr";
/// How long a daemon may take to read its configuration and open its socket.
const SOON: Duration = Duration::from_secs(60);
const DAEMONS: [&str; 3] = ["zebra", "bgpd", "bfdd"];

/// FRR's daemons on a host; dropping them kills them.
#[derive(Debug)]
pub struct Frr {
    host: Host,
    daemons: Vec<(&'static str, Process)>,
}

impl Frr {
    /// Starts zebra, bgpd with this configuration, and bfdd with that one. Ready when each answers
    /// `vtysh`.
    pub async fn start(host: &Host, bgpd: &str, bfdd: &str) -> Result<Self, LabError> {
        let dir = host.run_dir().join("frr");
        let failed = |what: &'static str| {
            move |e| LabError::io(host.name(), format!("{what} FRR's folder"), e)
        };
        std::fs::create_dir_all(&dir).map_err(failed("make"))?;
        let (user, group) = account(host)?;
        chown(&dir, Some(user), Some(group)).map_err(failed("give away"))?;
        let mut router = Self {
            host: host.clone(),
            daemons: Vec::new(),
        };
        for (daemon, text) in DAEMONS.into_iter().zip(["", bgpd, bfdd]) {
            let file = dir.join(format!("{daemon}.conf"));
            write(host, &file, text)?;
            chown(&file, Some(user), Some(group)).map_err(failed("give away a file in"))?;
            router.spawn(daemon)?;
            router.answers(daemon).await?;
        }
        Ok(router)
    }

    /// Starts one more of its daemons (`ospfd`, `ripd`), with nothing configured.
    pub async fn add(&mut self, daemon: &'static str) -> Result<(), LabError> {
        let (user, group) = account(&self.host)?;
        let file = self
            .host
            .run_dir()
            .join("frr")
            .join(format!("{daemon}.conf"));
        write(&self.host, &file, "")?;
        chown(&file, Some(user), Some(group))
            .map_err(|e| LabError::io(self.host.name(), "give away a file in FRR's folder", e))?;
        self.spawn(daemon)?;
        self.answers(daemon).await
    }

    /// Has the daemons take this configuration, as of a file that all share.
    pub fn configure(&self, text: &str) -> Result<(), LabError> {
        let file = self.host.run_dir().join("frr/all.conf");
        write(&self.host, &file, text)?;
        let mut vtysh = self.host.command("vtysh")?;
        vtysh.args(["--vty_socket", RUN, "-f", &format!("{RUN}/all.conf")]);
        output(&self.host, vtysh).map(drop)
    }

    fn spawn(&mut self, daemon: &'static str) -> Result<(), LabError> {
        let mut command = self.host.command(format!("{LIB}/{daemon}"))?;
        command
            .args(["-f", &format!("{RUN}/{daemon}.conf")])
            .args(["-i", &format!("{RUN}/{daemon}.pid")])
            .args(["-z", &format!("{RUN}/zserv.api")])
            .args(["--vty_socket", RUN, "-A", "127.0.0.1", "--log", "stdout"]);
        match daemon {
            "bgpd" => command.args(["-p", "179"]),
            "bfdd" => command.args(["--bfdctl", &format!("{RUN}/bfdd.sock")]),
            _ => &mut command,
        };
        let process = self.host.spawn(daemon, command)?;
        self.daemons.push((daemon, process));
        Ok(())
    }

    async fn answers(&self, daemon: &str) -> Result<(), LabError> {
        let what = format!("{} of {} to answer", daemon, self.host.name());
        wait_for(SOON, &what, async || {
            self.ask_daemon(daemon, "show version")
                .map_err(|e| crate::sandbox::chain(&e))
        })
        .await
        .map(drop)
        .map_err(|e| LabError::io(self.host.name(), "start FRR", std::io::Error::other(e)))
    }

    fn ask_daemon(&self, daemon: &str, command: &str) -> Result<String, LabError> {
        let mut vtysh = self.host.command("vtysh")?;
        vtysh.args(["--vty_socket", RUN, "-d", daemon, "-c", command]);
        output(&self.host, vtysh)
    }

    /// What `vtysh -c` prints; several lines configure (`["configure terminal", …]`).
    pub fn ask(&self, commands: &[&str]) -> Result<String, LabError> {
        let mut vtysh = self.host.command("vtysh")?;
        vtysh.args(["--vty_socket", RUN]);
        for command in commands {
            vtysh.args(["-c", command]);
        }
        output(&self.host, vtysh)
    }

    /// The answer to a `show … json` command.
    pub fn json(&self, command: &str) -> Result<Value, LabError> {
        let text = self.ask(&[command])?;
        serde_json::from_str(&text)
            .map_err(|e| LabError::io(self.host.name(), format!("read {command}"), e.into()))
    }

    /// The next hops of a prefix's best paths, in order.
    pub fn next_hops(&self, prefix: &str) -> Result<Vec<String>, LabError> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let found = self.json(&format!("show bgp {family} unicast {prefix} json"))?;
        let paths = found.get("paths").and_then(Value::as_array);
        let mut hops: Vec<String> = paths
            .into_iter()
            .flatten()
            .filter(|path| {
                let is = |key: &str| path.pointer(key).and_then(Value::as_bool) == Some(true);
                is("/multipath") || is("/bestpath/overall")
            })
            .filter_map(|path| path.pointer("/nexthops/0/ip")?.as_str().map(str::to_owned))
            .collect();
        hops.sort_unstable();
        Ok(hops)
    }

    /// The state of the session with a peer, as FRR calls it (`Established`).
    pub fn session(&self, peer: &str) -> Result<String, LabError> {
        let found = self.json(&format!("show bgp neighbors {peer} json"))?;
        let state = found.get(peer).and_then(|p| p.get("bgpState"));
        Ok(state.and_then(Value::as_str).unwrap_or("none").to_owned())
    }

    /// A daemon's process.
    ///
    /// # Panics
    /// When FRR has none of this name.
    pub fn daemon(&mut self, name: &str) -> &mut Process {
        let found = self.daemons.iter_mut().find(|(daemon, _)| *daemon == name);
        &mut found.expect("zebra, bgpd or bfdd").1
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }
}

/// The account that FRR changes to.
fn account(host: &Host) -> Result<(u32, u32), LabError> {
    let path = PathBuf::from("/etc/passwd");
    let text = std::fs::read_to_string(&path)
        .map_err(|e| LabError::io(host.name(), "read the accounts", e))?;
    let ids = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some("frr")).then_some(())?;
        let user = fields.nth(1)?.parse().ok()?;
        Some((user, fields.next()?.parse().ok()?))
    });
    ids.ok_or_else(|| host.lacks("account frr: install the Debian package frr"))
}
