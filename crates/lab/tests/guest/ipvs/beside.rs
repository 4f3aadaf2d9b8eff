//! `--forward vips` beside the real kube-proxy in its IPVS mode.
//!
//! Its nftables and iptables modes are in `realcluster`: the machine's own kernel may lack IPVS.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use lab::controlplane::binary_or_skip;
use lab::{Host, Lab, Outcome, Process, wait_for};
use linux::ipvs::Socket;
use serde_json::json;

use super::backend::families;
use super::ground::{
    BRIEFLY, Found, Ground, MODULES, Open, SOON, ask, hear, refusal, server, silence, talk,
};
use super::objects::Objects;

/// kube-proxy runs a program for each set, member, chain and jump: some 200 programs.
const SYNCED: Duration = Duration::from_secs(240);
const TCP: u8 = 6;
const UDP: u8 = 17;
/// What kube-proxy's rules need besides.
const MORE: [&str; 17] = [
    "ip6_tables",
    "ip6t_REJECT",
    "ip_set",
    "ip_set_bitmap_port",
    "ip_set_hash_ip",
    "ip_set_hash_ipport",
    "ip_set_hash_ipportip",
    "ip_set_hash_ipportnet",
    "ipt_REJECT",
    "nft_compat",
    "xt_addrtype",
    "xt_comment",
    "xt_conntrack",
    "xt_ipvs",
    "xt_mark",
    "xt_MASQUERADE",
    "xt_set",
];

#[test]
fn vips_beside_kube_proxy() {
    let name = "ipvs::beside::vips_beside_kube_proxy";
    let Some(kubernetes) = binary_or_skip(name) else {
        return;
    };
    let modules = [&MODULES[..], &MORE].concat();
    lab::guest::run(name, &modules, async move |lab| {
        let ground = Ground::new(&lab).await?;
        let api = SocketAddr::from(([127, 0, 0, 1], 8001));
        // As few ports as show it: see SYNCED.
        let objects = Objects::new(&[
            ("web", &["TCP", "UDP"], json!({})),
            (
                "local",
                &["TCP"],
                json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 30_099}),
            ),
            (
                "ranged",
                &["TCP"],
                json!({"loadBalancerSourceRanges": ["192.0.2.0/24", "fd99::/64"]}),
            ),
        ]);
        let dir = lab.dir().join("manifests");
        objects.write(&dir)?;
        objects.serve(&ground.node, api)?;
        let mut proxy = kube_proxy(&ground.node, &kubernetes, api)?;
        let mut ready = BTreeSet::new();
        wait_for(SYNCED, "kube-proxy's rules", async || {
            if let Ok(Some(status)) = proxy.try_wait() {
                return Ok(Err(format!("{status}: {}", proxy.log())));
            }
            ready.extend(synced(&ground.node).await);
            match ready.len() {
                2 => Ok(Ok(())),
                _ => Err(format!("{ready:?}: {}", proxy.log())),
            }
        })
        .await??;
        lab.say("kube-proxy forwards by IPVS");
        story(&lab, &ground, &dir).await
    });
}

fn kube_proxy(node: &Host, kubernetes: &Path, api: SocketAddr) -> Found<Process> {
    let mut proxy = node.command(kubernetes)?;
    proxy.args([
        "kube-proxy",
        "--proxy-mode=ipvs",
        "--ipvs-strict-arp",
        "--hostname-override=node",
        "--cluster-cidr=10.244.0.0/16,fd10::/64",
        "--kube-api-content-type=application/json",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
        // Once for each family, which is dear here.
        "--ipvs-sync-period=1h",
        "--ipvs-min-sync-period=30m",
    ]);
    proxy.arg(format!("--master=http://{api}"));
    Ok(node.spawn("kube-proxy", proxy)?)
}

/// The families that kube-proxy has written all of: virtual servers come first, and the rules that
/// masquerade last. A connection that begins in between ends with them, with kube-proxy alone too.
async fn synced(node: &Host) -> Vec<&'static str> {
    let at = SocketAddr::from(([127, 0, 0, 1], 10249));
    let Ok(metrics) = node.http_get(at, "/metrics").await else {
        return Vec::new();
    };
    let mark = "kubeproxy_sync_proxy_rules_last_timestamp_seconds";
    let lines = metrics.body.lines().filter(|line| line.starts_with(mark));
    let lines = lines.filter(|line| !line.ends_with(" 0"));
    let of = |line: &str| ["IPv4", "IPv6"].into_iter().find(|it| line.contains(it));
    lines.filter_map(of).collect()
}

/// `corten run`, ready to forward this.
async fn start(ground: &Ground, dir: &Path, forward: &str) -> Found<Process> {
    let cidr = ["--cluster-cidr", "10.244.0.0/16,fd10::/64"];
    ground.run(dir, forward, &cidr).await
}

/// The connections that a virtual server of kube-proxy's has led somewhere.
fn led(kernel: &mut Socket, at: SocketAddr, protocol: u8) -> Found<u32> {
    let found = kernel.destinations(&server(&at.to_string(), protocol)?)?;
    assert_eq!(found.len(), 2, "{at}");
    Ok(found.iter().map(|it| it.active + it.inactive).sum())
}

/// What is open, and should stay so.
#[derive(Default)]
struct Kept {
    connections: Vec<(String, Open)>,
    talks: Vec<UdpSocket>,
}

impl Kept {
    fn open(&mut self, host: &Host, to: SocketAddr) -> Found<&Open> {
        let name = format!("{} to {to}", host.name());
        let open = Open::new(host, to).map_err(|error| format!("{name}: {error}"))?;
        self.connections.push((name, open));
        Ok(self.connections.last().map(|(_, open)| open).ok_or("one")?)
    }

    fn live(&mut self, when: &str) -> Outcome {
        for (name, open) in &mut self.connections {
            let lives = open.lives();
            lives.map_err(|error| format!("{name}, {when}: {error}"))?;
        }
        for talk in &self.talks {
            hear(talk).map_err(|error| format!("{talk:?}, {when}: {error}"))?;
        }
        Ok(())
    }
}

async fn story(lab: &Lab, ground: &Ground, dir: &Path) -> Outcome {
    let Ground { client, node, pods } = ground;
    let mut kernel = node.run(Socket::open)??;
    let mut kept = Kept::default();
    // By kube-proxy alone.
    for it in families() {
        let balanced = SocketAddr::new(it.external, 80);
        let open = kept.open(client, balanced)?;
        assert_ne!(open.heard.ip(), it.client, "kube-proxy masquerades");
        assert_eq!(led(&mut kernel, balanced, TCP)?, 1);
        let talk = talk(client, balanced, SOON)?;
        hear(&talk)?;
        kept.talks.push(talk);
    }
    let mut agent = start(ground, dir, "vips").await?;
    lab.say("ready beside it");
    kept.live("with Corten")?;
    announced(ground).await?;
    for it in families() {
        let at = |address, port| SocketAddr::new(address, port);
        let balanced = at(it.external, 80);
        // External addresses are Corten's: no virtual server of kube-proxy's sees a connection,
        // from elsewhere, from the node, from a Pod.
        let datagrams = led(&mut kernel, balanced, UDP)?;
        for host in [client, client, node, &pods[0]] {
            kept.open(host, balanced)?;
            ask(host, balanced)?;
        }
        assert_eq!(led(&mut kernel, balanced, TCP)?, 1, "{balanced}");
        assert_eq!(led(&mut kernel, balanced, UDP)?, datagrams, "{balanced}");
        // Everything else is kube-proxy's still.
        let (cluster, port) = (at(it.cluster, 80), at(it.node, 30_081));
        for (to, host) in [(cluster, client), (cluster, node), (port, client)] {
            let before = led(&mut kernel, to, TCP)?;
            kept.open(host, to)?;
            assert_eq!(led(&mut kernel, to, TCP)?, before + 1, "{to}");
        }
        // Policy Local: the Pod here, and the client's address.
        for _ in 0..2 {
            let open = Open::new(client, at(it.external_of(2), 80))?;
            assert_eq!((&*open.by, open.heard.ip()), ("a", it.client));
        }
        // Who may not come does not, and a port of nobody is refused.
        silence(client, at(it.external_of(3), 80))?;
        refusal(client, at(it.external, 81))?;
    }
    lab.say("external addresses are Corten's, all else kube-proxy's");

    agent.kill();
    kept.live("after Corten was killed")?;
    for it in families() {
        let balanced = SocketAddr::new(it.external, 80);
        kept.open(client, balanced)?;
        assert_eq!(led(&mut kernel, balanced, TCP)?, 1, "{balanced}");
    }
    // Back to kube-proxy alone: what is open goes on, whoever has begun it.
    let off = start(ground, dir, "off").await?;
    wait_for(SOON, "Corten's table to go", async || {
        let mut nft = node.command("nft").map_err(|error| error.to_string())?;
        nft.args(["list", "tables"]);
        let tables = nft.output().map_err(|error| error.to_string())?;
        let tables = String::from_utf8_lossy(&tables.stdout).into_owned();
        if tables.contains("corten") {
            return Err(tables);
        }
        Ok(())
    })
    .await?;
    kept.live("with kube-proxy alone")?;
    for it in families() {
        let balanced = SocketAddr::new(it.external, 80);
        kept.open(client, balanced)?;
        assert_eq!(led(&mut kernel, balanced, TCP)?, 2, "{balanced}");
    }
    drop(off);
    Ok(())
}

/// kube-proxy's strict ARP, and Corten's answers: what is announced is forwarded.
async fn announced(ground: &Ground) -> Outcome {
    let Ground { client, node, .. } = ground;
    let mac = node.mac("eth0").await?;
    for it in families() {
        wait_for(SOON, "an answer for what is announced", async || {
            let answers = client.who_has("eth0", it.external, BRIEFLY).await;
            match answers.map_err(|error| error.to_string())? {
                answers if answers == [mac] => Ok(()),
                answers => Err(format!("{answers:?}")),
            }
        })
        .await?;
        // The addresses are the node's own all the same.
        let answers = client.who_has("eth0", it.cluster, BRIEFLY).await?;
        assert_eq!(answers, Vec::<[u8; 6]>::new(), "{}", it.cluster);
    }
    Ok(())
}
