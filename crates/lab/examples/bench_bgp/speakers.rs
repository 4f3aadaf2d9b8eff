//! Who speaks: Corten's agent and its rivals, each with the same prefixes and the same peers.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use std::{fs, io};

use lab::router::{Bird, Frr, GoBgp};
use lab::{Host, Process, bin, wait_for};

use super::Fault;
use super::api::{Api, NAMESPACE, NODE};
use super::sink::{ASN, FEEDER, PEERS, address, feed, prefix};
use super::usage;

/// The longest that 100k Services take to be read and reported.
const LOADED: Duration = Duration::from_secs(600);
/// A process is at rest when it uses less than a twentieth of a core in this time, so many times.
const REST: (Duration, u32) = (Duration::from_millis(200), 5);

/// A program that can advertise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Corten,
    Frr,
    Bird,
    GoBgp,
}

impl Who {
    pub(crate) const ALL: [Self; 4] = [Self::Corten, Self::Frr, Self::Bird, Self::GoBgp];

    /// What its figures begin with.
    pub(crate) fn stem(self) -> &'static str {
        match self {
            Self::Corten => "",
            Self::Frr => "frr_",
            Self::Bird => "bird_",
            Self::GoBgp => "gobgp_",
        }
    }
}

/// The hosts of the sessions.
pub(crate) struct Hosts {
    /// 10.0.0.11.
    pub(crate) speaker: Host,
    /// The peers' addresses and the API server's.
    pub(crate) peers: Host,
}

/// A speaker that runs; dropping it ends it.
pub(crate) enum Speaker {
    Corten(Process, Api),
    Frr(Frr),
    Bird(Bird),
    GoBgp(GoBgp, Receiver<Result<(), String>>),
}

impl Speaker {
    /// Starts it with so many prefixes. Its peers must listen already.
    pub(crate) async fn start(
        who: Who,
        hosts: &Hosts,
        count: u32,
        port: u16,
    ) -> Result<Self, Fault> {
        let host = &hosts.speaker;
        Ok(match who {
            Who::Corten => {
                let at = SocketAddr::from((address(10), port));
                let api = Api::start(&hosts.peers, at, count)?;
                Self::Corten(agent(host, &api)?, api)
            }
            Who::Frr => Self::Frr(Frr::start(host, &frr(count), "").await?),
            Who::Bird => Self::Bird(Bird::start(host, &bird(count)).await?),
            Who::GoBgp => {
                let fed = feed(&hosts.peers, count)?;
                Self::GoBgp(GoBgp::start(host, &gobgp()).await?, fed)
            }
        })
    }

    /// Its processes.
    pub(crate) fn pids(&mut self) -> Vec<u32> {
        match self {
            Self::Corten(process, _) => vec![process.pid()],
            Self::Frr(frr) => ["bgpd", "zebra"]
                .map(|name| frr.daemon(name).pid())
                .to_vec(),
            Self::Bird(bird) => vec![bird.process().pid()],
            Self::GoBgp(gobgp, _) => vec![gobgp.process().pid()],
        }
    }

    /// Waits until it has all its prefixes and does nothing more.
    pub(crate) async fn loaded(&mut self) -> Result<(), Fault> {
        if let Self::GoBgp(_, fed) = self {
            wait_for(LOADED, "the feeder", async || match fed.try_recv() {
                Ok(fed) => Ok(fed),
                Err(error) => Err(error),
            })
            .await??;
        }
        let pids = self.pids();
        let mut looks = tokio::time::interval(REST.0);
        let (mut before, mut calm) = (usage::cpu(&pids), 0);
        looks.tick().await;
        for _ in 0..LOADED.as_millis() / REST.0.as_millis() {
            looks.tick().await;
            let now = usage::cpu(&pids);
            calm = match now.saturating_sub(before) < REST.0 / 20 {
                true => calm + 1,
                false => 0,
            };
            before = now;
            if calm == REST.1 {
                return Ok(());
            }
        }
        Err("the speaker does not come to rest".into())
    }
}

/// `corten agent` on the node of the API server's cluster.
fn agent(host: &Host, api: &Api) -> Result<Process, Fault> {
    let kubeconfig = host.run_dir().join("kubeconfig");
    fs::write(&kubeconfig, api.kubeconfig())?;
    // A first start: what the agent of the part before kept would be read and told too.
    match fs::remove_dir_all(host.run_dir().join("corten")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut command = host.command(bin("corten")?)?;
    command.args(["agent", "--kubeconfig", "/run/kubeconfig", "--no-http"]);
    command.args(["--namespace", NAMESPACE, "--node-name", NODE]);
    Ok(host.spawn("agent", command)?)
}

/// With what MetalLB's template has, less its filters, and without FRR's own waits.
fn frr(count: u32) -> String {
    let mut text = "\
frr defaults traditional
router bgp 64500
 bgp router-id 10.0.0.11
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 no bgp network import-check
 coalesce-time 0
"
    .to_owned();
    for peer in (1..=PEERS).map(address) {
        let _ = write!(
            text,
            " neighbor {peer} remote-as {ASN}\n neighbor {peer} timers connect 1\n \
             neighbor {peer} advertisement-interval 0\n"
        );
    }
    text += " address-family ipv4 unicast\n";
    for peer in (1..=PEERS).map(address) {
        let _ = writeln!(text, "  neighbor {peer} activate");
    }
    for prefix in (0..count).map(prefix) {
        let _ = writeln!(text, "  network {prefix}/32");
    }
    text
}

fn bird(count: u32) -> String {
    let mut text = "\
router id 10.0.0.11;
protocol device {}
template bgp peer {
  local 10.0.0.11 as 64500;
  connect delay time 1;
  connect retry time 1;
  ipv4 { export all; import none; next hop self; };
}
"
    .to_owned();
    for peer in (1..=PEERS).map(address) {
        let name = peer.octets()[3];
        let _ = writeln!(
            text,
            "protocol bgp peer{name} from peer {{ neighbor {peer} as {ASN}; }}"
        );
    }
    text += "protocol static {\n  ipv4;\n";
    for prefix in (0..count).map(prefix) {
        let _ = writeln!(text, "  route {prefix}/32 blackhole;");
    }
    text + "}\n"
}

/// Its prefixes come from the feeder: it has no configuration for them.
fn gobgp() -> String {
    let mut text = "\
[global.config]
  as = 64500
  router-id = \"10.0.0.11\"
  port = -1
"
    .to_owned();
    let peers = (1..=PEERS).map(|number| (number, ASN));
    for (number, asn) in peers.chain([FEEDER]) {
        let _ = write!(
            text,
            "[[neighbors]]\n  [neighbors.config]\n    neighbor-address = \"{}\"\n    \
             peer-as = {asn}\n  [neighbors.timers.config]\n    connect-retry = 1\n    \
             hold-time = 180\n    keepalive-interval = 60\n  [[neighbors.afi-safis]]\n    \
             [neighbors.afi-safis.config]\n      afi-safi-name = \"ipv4-unicast\"\n",
            address(number)
        );
    }
    text
}
