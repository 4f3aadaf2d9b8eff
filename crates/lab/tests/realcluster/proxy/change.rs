//! kube-proxy gives way to Corten and comes back, on nodes under load.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lab::cluster::{Cluster, Proxy};
use lab::controlplane::Account;
use lab::{Host, Outcome, Process, bin, wait_for};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use super::leftovers;
use super::town::{Fate, Fault, SOON, Town};
use crate::load::Load;

/// A connection that is made once and used all the time.
struct Long {
    answers: Arc<AtomicU64>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Long {
    async fn start(host: &Host, to: SocketAddr) -> Result<Self, Fault> {
        let mut stream = host.connect(to).await?;
        let answers = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&answers);
        let task = tokio::spawn(async move {
            let mut buffer = [0; 1024];
            loop {
                let request = format!("GET / HTTP/1.1\r\nHost: {to}\r\n\r\n");
                stream.write_all(request.as_bytes()).await?;
                if stream.read(&mut buffer).await? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Ok(Self { answers, task })
    }

    /// It is answered still.
    async fn goes_on(&self) -> Outcome {
        let before = self.answers.load(Ordering::Relaxed);
        wait_for(SOON, "an answer on an old connection", async || {
            match self.answers.load(Ordering::Relaxed) > before {
                true => Ok(()),
                false if self.task.is_finished() => Err("it has ended"),
                false => Err("none yet"),
            }
        })
        .await?;
        Ok(())
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Users of one Service while proxies come and go: from outside at two nodes, from a node, and long
/// connections from both.
pub(super) struct Users {
    loads: Vec<Load>,
    long: Vec<Long>,
    pub(super) inside: SocketAddr,
}

const PORT: u16 = 31090;

impl Users {
    pub(super) async fn come(town: &Town<'_>) -> Result<Self, Fault> {
        let spec = json!({"type": "NodePort", "selector": {"app": "web"},
            "ports": [{"port": 80, "nodePort": PORT}]});
        let inside = SocketAddr::new(town.service("users", spec).await?, 80);
        let (client, node) = (town.cluster.client().clone(), town.node(2));
        let places = [
            (&client, town.at(0, PORT)?),
            (&client, town.at(1, PORT)?),
            (&node, inside),
        ];
        let (mut loads, mut long) = (Vec::new(), Vec::new());
        for (host, to) in places {
            town.gets(host, to).await?;
            loads.push(Load::start(host, to)?);
            long.push(Long::start(host, to).await?);
        }
        Ok(Self {
            loads,
            long,
            inside,
        })
    }

    /// All have been answered again, on old connections and on new ones.
    pub(super) async fn go_on(&self) -> Outcome {
        for long in &self.long {
            long.goes_on().await?;
        }
        for load in &self.loads {
            let before = load.answered();
            wait_for(SOON, "pages", async || match load.answered() > before + 5 {
                true => Ok(()),
                false => Err(load.answered()),
            })
            .await?;
        }
        Ok(())
    }

    /// None of them has lost a connection.
    pub(super) async fn leave(self, town: &Town<'_>) -> Outcome {
        self.go_on().await?;
        for load in self.loads {
            let figures = load.stop().await?;
            assert!(figures.sent > 0 && figures.failed == 0, "{figures:?}");
        }
        town.delete("users").await
    }
}

/// What `nft` prints on a node.
pub(super) fn nft(host: &Host, arguments: &[&str]) -> Result<String, Fault> {
    let mut command = host.command("nft")?;
    let output = command.args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(said),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
    }
}

async fn ready(host: &Host) -> Outcome {
    let to = SocketAddr::from(([127, 0, 0, 1], 17472));
    let what = format!("the agent of {} to be ready", host.name());
    wait_for(SOON, &what, async || {
        match host.http_get(to, "/readyz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.body),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    Ok(())
}

/// kube-proxy's part is taken over, node by node: first both, then Corten alone.
pub(super) async fn to_corten(town: &mut Town<'_>, users: &Users) -> Outcome {
    town.cluster.install_kinds().await?;
    for index in 0..3 {
        let node = town.cluster.node(index).ok_or("no node")?;
        node.start_proxy(Proxy::Corten)?;
        ready(&town.node(index)).await?;
        users.go_on().await?;
        let host = town.node(index);
        leftovers::runs(&host)?;
        let node = town.cluster.node(index).ok_or("no node")?;
        node.stop_proxy(Proxy::Nftables);
        leftovers::clean(&host, &["table ip kube-proxy", "table ip6 kube-proxy"])?;
        users.go_on().await?;
    }
    Ok(())
}

/// And back: first both, then kube-proxy alone. An agent with `--forward off` takes away what the
/// one before it has left.
pub(super) async fn to_kube_proxy(town: &mut Town<'_>, users: &Users) -> Outcome {
    for index in 0..3 {
        let node = town.cluster.node(index).ok_or("no node")?;
        node.start_proxy(Proxy::Nftables)?;
        let element = format!("{} . tcp . 80", IpAddr::to_string(&users.inside.ip()));
        wait_for(SOON, "kube-proxy's rules", async || {
            let map = ["list", "map", "ip", "kube-proxy", "service-ips"];
            match nft(&town.node(index), &map) {
                Ok(said) if said.contains(&element) => Ok(()),
                Ok(said) => Err(said),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        users.go_on().await?;
        let node = town.cluster.node(index).ok_or("no node")?;
        node.stop_proxy(Proxy::Corten);
        let mut off = agent(town, index, "off")?;
        cleared(&town.node(index)).await?;
        users.go_on().await?;
        off.kill();
    }
    Ok(())
}

/// Waits until Corten's table is gone.
async fn cleared(host: &Host) -> Outcome {
    wait_for(SOON, "Corten's table to be gone", async || {
        match nft(host, &["list", "tables"]) {
            Ok(said) if !said.lines().any(|line| line == "table inet corten") => Ok(()),
            Ok(said) => Err(said),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    Ok(())
}

/// An agent on a node that forwards something else than all.
fn agent(town: &Town<'_>, index: usize, forward: &str) -> Result<Process, Fault> {
    let plane = town.cluster.plane();
    let node = town.cluster.nodes().get(index).ok_or("no node")?;
    let mut command = node.command(bin("corten")?)?;
    command
        .arg("agent")
        .arg("--kubeconfig")
        .arg(plane.kubeconfig(Account::Agent))
        .arg(format!("--api-server=https://{}", plane.server()))
        .args(["--forward", forward, "--http-address=127.0.0.1:17472"])
        .arg(format!("--node-name={}", node.name()));
    Ok(node.host().spawn(&format!("agent-{forward}"), command)?)
}

/// An address that no node has.
const BALANCED: &str = "10.0.0.202";

/// External addresses alone, beside kube-proxy in two of its modes: who carries them shows when
/// kube-proxy and its rules are gone. Cluster IPs then lead nowhere.
pub(super) async fn beside(town: &mut Town<'_>) -> Outcome {
    let spec = json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]});
    let inside = SocketAddr::new(town.service("beside", spec).await?, 80);
    town.balanced("beside", BALANCED).await?;
    let (host, client) = (town.node(0), town.cluster.client().clone());
    let outside = SocketAddr::new(BALANCED.parse()?, 80);
    let via = host.address(false)?.to_string();
    client.add_route(&format!("{BALANCED}/32"), &via).await?;
    for (proxy, left) in [
        (
            Proxy::Nftables,
            &["table ip kube-proxy", "table ip6 kube-proxy"][..],
        ),
        (
            Proxy::Iptables,
            &["of table ip nat", "of table ip filter", "of table ip6 nat"],
        ),
    ] {
        let node = town.cluster.node(0).ok_or("no node")?;
        node.stop_proxy(proxy);
        node.start_proxy(proxy)?;
        town.gets(&host, inside).await?;
        town.gets(&client, outside).await?;
        let load = Load::start(&client, outside)?;
        let mut vips = agent(town, 0, "vips")?;
        ready(&host).await?;
        town.gets(&host, inside).await?;
        town.gets(&client, outside).await?;
        let node = town.cluster.node(0).ok_or("no node")?;
        node.stop_proxy(proxy);
        leftovers::clean(&host, left)?;
        town.gets(&client, outside).await?;
        let nobody = |fate: &Fate| !matches!(fate, Fate::Answered(..));
        town.fate(&host, inside, "nobody's", nobody).await?;
        let figures = load.stop().await?;
        assert!(
            figures.sent > 0 && figures.failed == 0,
            "{proxy:?}: {figures:?}"
        );
        vips.kill();
        let mut off = agent(town, 0, "off")?;
        cleared(&host).await?;
        off.kill();
    }
    town.delete("beside").await
}

/// Corten alone on a node, which is what comes up there from now on.
pub(crate) async fn alone(cluster: &mut Cluster, index: usize) -> Outcome {
    let node = cluster.node(index).ok_or("no such node")?;
    node.start_proxy(Proxy::Corten)?;
    ready(node.host()).await?;
    node.stop_proxy(Proxy::Nftables);
    Ok(())
}

/// A kernel that has lost its power knows no rules.
pub(crate) fn forget(host: &Host) -> Outcome {
    nft(host, &["flush", "ruleset"])?;
    Ok(())
}
