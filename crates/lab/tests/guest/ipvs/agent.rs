//! The program itself with IPVS, from manifests to packets.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dataplane::ipvs::DEVICE;
use lab::{Lab, Outcome, Process, wait_for};
use linux::ipvs::{Request, Socket};

use super::backend::families;
use super::ground::{
    BRIEFLY, Found, Ground, MODULES, Open, SOON, ask, endpoint, hear, server, talk, turns, until,
};
use crate::kernel::ip;

const TCP: u8 = 6;

const COMMON: &str = "\
apiVersion: v1
kind: Node
metadata: {name: node}
status: {addresses: [{type: InternalIP, address: 10.0.0.11}, {type: InternalIP, address: \"fd00::11\"}]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: pool, namespace: metallb-system}
spec: {addresses: [192.168.10.1-192.168.10.9, \"fd97::1-fd97::9\"]}
";
const ADVERTISEMENT: &str = "\
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: all, namespace: metallb-system}
";

/// A Service at 10.96.0.NUMBER and fd96::NUMBER, with the Pods of these numbers.
fn service(name: &str, number: u8, annotations: &str, pods: &[u8]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\n\
         spec:\n  type: LoadBalancer\n  clusterIPs: [10.96.0.{number}, \"fd96::{number}\"]\n  \
         ipFamilies: [IPv4, IPv6]\n  ipFamilyPolicy: RequireDualStack\n  ports:\n  \
         - {{name: tcp, port: 80, targetPort: 8080, nodePort: 3008{number}}}\n  \
         - {{name: udp, protocol: UDP, port: 80, targetPort: 8080}}\n---\n"
    );
    for it in families() {
        let family = if it.cluster.is_ipv4() { "IPv4" } else { "IPv6" };
        let pods = pods.iter().map(|pod| {
            let pod = endpoint(it.cluster, *pod).ip();
            format!("{{addresses: [\"{pod}\"], nodeName: node}}")
        });
        let pods: Vec<String> = pods.collect();
        text += &format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  \
             name: {name}-{}\n  labels: {{kubernetes.io/service-name: {name}}}\n\
             addressType: {family}\nports:\n- {{name: tcp, port: 8080}}\n\
             - {{name: udp, protocol: UDP, port: 8080}}\nendpoints: [{}]\n---\n",
            family.to_lowercase(),
            pods.join(", ")
        );
    }
    text
}

/// The ground, a directory of manifests, and a socket for what the kernel has.
struct Town {
    ground: Ground,
    dir: PathBuf,
    kernel: Socket,
}

impl Town {
    async fn new(lab: &Lab) -> Found<Self> {
        let ground = Ground::new(lab).await?;
        let dir = lab.dir().join("manifests");
        fs::create_dir_all(&dir)?;
        let town = Self {
            kernel: ground.node.run(Socket::open)??,
            ground,
            dir,
        };
        town.write("common", COMMON)?;
        Ok(town)
    }

    fn write(&self, name: &str, text: &str) -> Outcome {
        // At one instant: half a file would be a change, too.
        let new = self.dir.join(format!(".{name}"));
        fs::write(&new, text)?;
        Ok(fs::rename(new, self.dir.join(format!("{name}.yaml")))?)
    }

    /// Starts `corten run` and waits until it is ready.
    async fn start(&self, more: &[&str]) -> Found<Process> {
        self.ground.run(&self.dir, "all", more).await
    }

    async fn metric(&self, name: &str) -> Found<u64> {
        let at = SocketAddr::from(([127, 0, 0, 1], 17472));
        let text = self.ground.node.http_get(at, "/metrics").await?.body;
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(value.ok_or("no such metric")?.trim().parse()?)
    }

    /// Waits until the virtual server at `at` has this scheduler, and its destinations these
    /// weights, in order.
    fn has(&mut self, at: SocketAddr, scheduler: &str, weights: &[u32]) -> Outcome {
        let key = server(&at.to_string(), TCP)?;
        until(&format!("{at} with {scheduler} and {weights:?}"), || {
            let found = self.kernel.server(&key)?;
            let found = found.map_or_else(String::new, |it| it.settings.scheduler);
            let mut there = self.kernel.destinations(&key)?;
            there.sort_unstable_by_key(|it| it.at);
            let there: Vec<u32> = there.iter().map(|it| it.weight).collect();
            match found == scheduler && there == weights {
                true => Ok(()),
                false => Err(format!("{found:?} and {there:?}").into()),
            }
        })
    }

    /// The addresses on our interface, as text.
    fn addresses(&self) -> String {
        ip(&self.ground.node, &format!("-o address show {DEVICE}")).unwrap_or_default()
    }
}

const IPVS: [&str; 8] = [
    "--proxy-mode",
    "ipvs",
    "--ipvs-scheduler",
    "wrr",
    "--ipvs-tcp-timeout",
    "20m",
    "--nodeport-addresses",
    "primary,localhost",
];
/// Cluster IPs of `web` and `with-sh`.
const WEB: [&str; 2] = ["10.96.0.1", "fd96::1"];
const OTHER: [&str; 2] = ["10.96.0.2", "fd96::2"];

fn at(address: &str) -> Found<SocketAddr> {
    Ok(SocketAddr::new(address.parse()?, 80))
}

#[test]
fn services_by_the_program() {
    let name = "ipvs::agent::services_by_the_program";
    lab::guest::run(name, &MODULES, async |lab| {
        let mut town = Town::new(&lab).await?;
        town.write("web", &service("web", 1, "", &[2, 3]))?;
        let sticky = "corten.dev/ipvs-scheduler: sh";
        town.write("with-sh", &service("with-sh", 2, sticky, &[2, 3]))?;
        let agent = town.start(&IPVS).await?;
        assert_eq!(town.kernel.timeouts()?.tcp, 1200);
        lab.say("ready with IPVS");
        let mut kept = balance(&mut town)?;
        lab.say("schedulers, weights, an endpoint that leaves");
        silence(&town).await?;
        lab.say("no answers to ARP and NDP but for what is announced");
        mended(&lab, &mut town).await?;
        let agent = crash(&town, agent, &mut kept).await?;
        lab.say("another process goes on");
        switched(&lab, &mut town, agent, kept).await
    });
}

/// Who is chosen; gives connections with Pod a, which has left.
fn balance(town: &mut Town) -> Found<Vec<Open>> {
    let mut kept = Vec::new();
    let addresses = families();
    for (it, other) in addresses.iter().zip(OTHER) {
        let (web, other) = (SocketAddr::new(it.cluster, 80), at(other)?);
        // The flag's for who says nothing: with equal weights strictly in turn.
        town.has(web, "wrr", &[1, 1])?;
        let client = &town.ground.client;
        let seen = turns(client, web, 4)?;
        assert!(["abab", "baba"].contains(&&*seen), "{seen}");
        let seen = [ask(client, web)?.0, ask(client, web)?.0].concat();
        assert!(["ab", "ba"].contains(&&*seen), "{seen}");
        for _ in 0..2 {
            kept.push(Open::new(client, web)?);
        }
        let external = SocketAddr::new(it.external, 80);
        for to in [external, SocketAddr::new(it.node, 30_081)] {
            town.has(to, "wrr", &[1, 1])?;
            Open::new(&town.ground.client, to)?.lives()?;
        }
        // Not by a virtual server: those cannot route what has a loopback address.
        let loopback: IpAddr = match it.node {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let mut own = Open::new(&town.ground.node, SocketAddr::new(loopback, 30_081))?;
        own.lives()?;
        assert!(!own.heard.ip().is_loopback(), "{}", own.heard);
        ask(&town.ground.client, external)?;
        town.has(other, "sh", &[1, 1])?;
        let seen = turns(&town.ground.client, other, 4)?;
        assert!(["aaaa", "bbbb"].contains(&&*seen), "{seen}");
    }
    // By node and by address.
    let weights = "corten.dev/ipvs-weights: \"node=2, 10.244.1.2=3, fd10::2=3\"";
    town.write("web", &service("web", 1, weights, &[2, 3]))?;
    for web in WEB {
        town.has(at(web)?, "wrr", &[3, 2])?;
        let seen = turns(&town.ground.client, at(web)?, 10)?;
        assert_eq!(seen.matches('a').count(), 6, "{seen}");
    }
    // Another scheduler under open connections.
    let least = format!("corten.dev/ipvs-scheduler: lc, {weights}");
    town.write("web", &service("web", 1, &least, &[2, 3]))?;
    for web in WEB {
        town.has(at(web)?, "lc", &[3, 2])?;
        Open::new(&town.ground.client, at(web)?)?.lives()?;
    }
    // Pod a leaves.
    town.write("web", &service("web", 1, "", &[3]))?;
    for web in WEB {
        town.has(at(web)?, "wrr", &[0, 1])?;
        assert_eq!(turns(&town.ground.client, at(web)?, 3)?, "bbb");
    }
    for open in &mut kept {
        open.lives()?;
    }
    kept.retain(|open| open.by == "a");
    assert_eq!(kept.len(), 2);
    Ok(kept)
}

/// Service addresses are the node's own, but it answers for none, until one is announced.
async fn silence(town: &Town) -> Outcome {
    let node = &town.ground.node;
    let there = town.addresses();
    for address in ["10.96.0.1", "192.168.10.1", "fd96::1", "fd97::1"] {
        assert!(there.contains(&format!(" {address}/")), "{there}");
        unanswered(town, address).await?;
    }
    // It would, without the setting.
    let strict = "net.ipv4.conf.all.arp_ignore";
    node.sysctl(strict, "0")?;
    answered(town, WEB[0]).await?;
    node.sysctl(strict, "1")?;
    town.write("advertisement", ADVERTISEMENT)?;
    for announced in ["192.168.10.1", "fd97::1"] {
        answered(town, announced).await?;
    }
    for address in WEB {
        unanswered(town, address).await?;
    }
    // So that nobody waits for a successor.
    Ok(fs::remove_file(town.dir.join("advertisement.yaml"))?)
}

/// Nobody on the client's segment says that it has the address.
async fn unanswered(town: &Town, address: &str) -> Outcome {
    let window = Duration::from_millis(300);
    let client = &town.ground.client;
    let answers = client.who_has("eth0", address.parse()?, window).await?;
    assert_eq!(answers, Vec::<[u8; 6]>::new(), "{address}");
    Ok(())
}

/// The node says so.
async fn answered(town: &Town, address: &str) -> Outcome {
    let Ground { client, node, .. } = &town.ground;
    let (address, mac) = (address.parse()?, node.mac("eth0").await?);
    wait_for(SOON, &format!("an answer for {address}"), async || {
        let answers = client.who_has("eth0", address, BRIEFLY).await;
        match answers.map_err(|error| error.to_string())? {
            answers if answers == [mac] => Ok(()),
            answers => Err(format!("{answers:?}")),
        }
    })
    .await?;
    Ok(())
}

/// What others take away comes back by itself.
async fn mended(lab: &Lab, town: &mut Town) -> Outcome {
    let repairs = "corten_forward_repairs_total";
    let before = town.metric(repairs).await?;
    let to = at(OTHER[0])?;
    let start = Instant::now();
    let gone = Request::DeleteServer(server(&to.to_string(), TCP)?);
    town.kernel.change(&[gone])?;
    town.has(to, "sh", &[1, 1])?;
    let took = start.elapsed().as_secs_f64();
    lab.say(format!("a virtual server is back after {took:.1} s"));
    assert_eq!(turns(&town.ground.client, to, 1)?.len(), 1);
    // Counted behind the deed.
    wait_for(SOON, "one more repair", async || {
        let after = town
            .metric(repairs)
            .await
            .map_err(|error| error.to_string())?;
        if after > before {
            Ok(())
        } else {
            Err(after.to_string())
        }
    })
    .await?;
    Ok(())
}

/// A process that is killed leaves all as it is, and the next one changes nothing.
async fn crash(town: &Town, mut agent: Process, kept: &mut [Open]) -> Found<Process> {
    agent.kill();
    let new = || -> Outcome {
        for web in WEB {
            assert_eq!(turns(&town.ground.client, at(web)?, 2)?, "bb");
        }
        Ok(())
    };
    new()?;
    let agent = town.start(&IPVS).await?;
    let written = "corten_forward_elements_written_total";
    assert_eq!(town.metric(written).await?, 0);
    new()?;
    for open in kept {
        open.lives()?;
    }
    Ok(agent)
}

/// Without IPVS and with it again: connections go on, and nothing stays.
async fn switched(lab: &Lab, town: &mut Town, mut agent: Process, mut kept: Vec<Open>) -> Outcome {
    let mut talks = Vec::new();
    for web in WEB {
        let talk = talk(&town.ground.client, at(web)?, BRIEFLY)?;
        until("an answer", || hear(&talk).map(drop))?;
        talks.push(talk);
    }
    agent.terminate();
    agent.wait(SOON).await?;
    let mut agent = town.start(&[]).await?;
    lab.say("ready with nftables");
    for open in &mut kept {
        open.lives()?;
    }
    for talk in &talks {
        until("an answer to who has asked before", || hear(talk).map(drop))?;
    }
    let mut new = Vec::new();
    for web in WEB {
        new.push(Open::new(&town.ground.client, at(web)?)?);
        // Virtual servers take nothing any more.
        let key = server(&at(web)?.to_string(), TCP)?;
        let left = town.kernel.destinations(&key)?;
        let takes = left.iter().any(|it| it.weight > 0);
        assert!(!left.is_empty() && !takes, "{left:?}");
    }
    // They go with the last connection.
    drop(kept);
    until("nothing of IPVS is left", || {
        let left: Vec<_> = town
            .kernel
            .servers()?
            .into_iter()
            .map(|it| it.key)
            .collect();
        match (left.is_empty(), town.addresses()) {
            (true, there) if there.is_empty() => Ok(()),
            (_, there) => Err(format!("{left:?}, {there}").into()),
        }
    })?;
    lab.say("nothing of IPVS is left");

    agent.terminate();
    agent.wait(SOON).await?;
    let agent = town.start(&IPVS).await?;
    for open in &mut new {
        open.lives()?;
    }
    for web in WEB {
        town.has(at(web)?, "wrr", &[1])?;
        assert_eq!(turns(&town.ground.client, at(web)?, 2)?, "bb");
    }
    for talk in &talks {
        until("an answer to who has asked before", || hear(talk).map(drop))?;
    }
    drop(agent);
    Ok(())
}
