//! One side of the comparison: a node with a proxy, what is around it, and the fates of packets
//! there.
//!
//! ```text
//!   outside, other nodes' Pods ── 172.18.0.9 ── 172.18.0.11 node 10.243.0.1 ── 10.243.0.2 ── Pods
//! ```
//! Both nodes have the same name and addresses but for the one by which they reach the API. Nobody
//! answers: what the rules did to a connection's first packet is read from the kernel's connection
//! tracking, which has what it let pass, and from the ICMP messages that came back.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use lab::controlplane::{Account, ControlPlane};
use lab::{Host, Lab, Process, Segment, bin};
use linux::conntrack::Conntrack;
use plan::net::Protocol;
use serde_json::{Value, json};

use crate::Fault;
use crate::packet::{Tuple, Wire};

pub(crate) const NODE: &str = "node";
/// The node's addresses: the primary ones, those towards its Pods, and some that are also Services'.
pub(crate) const PRIMARY: [&str; 2] = ["172.18.0.11", "fd18::11"];
pub(crate) const SECOND: [&str; 2] = ["10.243.0.1", "fd17::1"];
pub(crate) const OWN_VIP: [&str; 2] = ["192.0.2.10", "fd99::10"];
/// Messages are read after so many packets, before they are too many for a socket.
const AT_ONCE: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Corten,
    KubeProxy,
}

impl Who {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Corten => "corten",
            Self::KubeProxy => "kube-proxy",
        }
    }
}

/// The proxies' settings, the same for both.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) cluster_cidr: Option<&'static str>,
    pub(crate) masquerade_all: bool,
    pub(crate) node_port_addresses: &'static [&'static str],
}

impl Settings {
    fn flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        if let Some(ranges) = self.cluster_cidr {
            flags.push(format!("--cluster-cidr={ranges}"));
        }
        if self.masquerade_all {
            flags.push("--masquerade-all".to_owned());
        }
        if !self.node_port_addresses.is_empty() {
            let ranges = self.node_port_addresses.join(",");
            flags.push(format!("--nodeport-addresses={ranges}"));
        }
        flags
    }

    fn configuration(&self, kubeconfig: &Path) -> Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "hostnameOverride": NODE,
            "clientConnection": {"kubeconfig": kubeconfig},
            "clusterCIDR": self.cluster_cidr.unwrap_or_default(),
            "nodePortAddresses": self.node_port_addresses,
            "nftables": {
                "minSyncPeriod": "10ms", "syncPeriod": "30s", "masqueradeAll": self.masquerade_all,
            },
            // The machine-wide table of connections is read-only in a namespace.
            "conntrack": {
                "maxPerCore": 0, "min": 0,
                "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
            },
        })
    }
}

/// Where a packet is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    Outside,
    Pods,
    Node,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// It went there; with another source, if that was changed.
    To(SocketAddr, Option<IpAddr>),
    Rejected,
    Dropped,
}

pub(crate) struct Side {
    pub(crate) who: Who,
    pub(crate) node: Host,
    outside: Host,
    pods: Host,
    process: Option<Process>,
}

impl Side {
    pub(crate) async fn build(lab: &Lab, lan: &Segment, who: Who) -> Result<Self, Fault> {
        let name = who.name();
        let node = lab.node(&format!("{name}-node")).await?;
        let outside = lab.host(&format!("{name}-outside")).await?;
        let pods = lab.host(&format!("{name}-pods")).await?;
        let number = 11 + who as u8;
        lan.attach(&node, &[&format!("10.0.0.{number}/24")]).await?;
        let out = lab.segment(&format!("{name}-out")).await?;
        out.stop_capture();
        let [v4, v6] = PRIMARY;
        out.attach(&node, &[&format!("{v4}/24"), &format!("{v6}/64")])
            .await?;
        out.attach(&outside, &["172.18.0.9/24", "fd18::9/64"])
            .await?;
        let inner = lab.segment(&format!("{name}-inner")).await?;
        inner.stop_capture();
        let [v4, v6] = SECOND;
        inner
            .attach(&node, &[&format!("{v4}/24"), &format!("{v6}/64")])
            .await?;
        inner
            .attach(&pods, &["10.243.0.2/24", "fd17::2/64"])
            .await?;
        for own in OWN_VIP {
            let length = if own.contains(':') { 128 } else { 32 };
            node.add_address("lo", &format!("{own}/{length}")).await?;
        }
        for (host, to, via) in [
            (&node, "0.0.0.0/0", "172.18.0.9"),
            (&node, "::/0", "fd18::9"),
            (&node, "10.244.1.0/24", "10.243.0.2"),
            (&node, "10.225.0.0/16", "10.243.0.2"),
            (&node, "fd01:0:0:1::/64", "fd17::2"),
            (&node, "fd01:0:0:80::/64", "fd17::2"),
            (&outside, "0.0.0.0/0", PRIMARY[0]),
            (&outside, "::/0", PRIMARY[1]),
            (&pods, "0.0.0.0/0", SECOND[0]),
            (&pods, "::/0", SECOND[1]),
        ] {
            host.add_route(to, via).await?;
        }
        // Whose messages are to be read.
        for (host, ranges) in [
            (
                &outside,
                &[
                    "198.18.0.0/15",
                    "10.226.0.0/16",
                    "fd51::/64",
                    "fd52::/64",
                    "fd01:0:0:40::/64",
                ][..],
            ),
            (
                &pods,
                &[
                    "10.225.0.0/16",
                    "10.244.1.2/32",
                    "fd01:0:0:80::/64",
                    "fd01:0:0:1::2/128",
                ][..],
            ),
        ] {
            for range in ranges {
                let mut command = host.command("ip")?;
                command.args(["route", "add", "local", range, "dev", "lo"]);
                run(&mut command)?;
            }
        }
        // Nobody answers: the kernel would forget a connection whose only answer is a reset.
        for host in [&node, &pods] {
            let mut command = host.command("nft")?;
            command.arg(
                "table inet quiet {\nchain output {\ntype filter hook output priority 200;\n\
                 tcp flags rst drop\n}\n}\n",
            );
            run(&mut command)?;
        }
        for (key, value) in [
            // Every rejection is answered.
            ("net.ipv4.icmp_ratemask", "0"),
            ("net.ipv4.icmp_ratelimit", "0"),
            ("net.ipv6.icmp.ratelimit", "0"),
            ("net.ipv6.icmp.ratemask", "0"),
            ("net.ipv4.conf.all.send_redirects", "0"),
            ("net.ipv4.conf.default.send_redirects", "0"),
            ("net.ipv4.conf.eth1.send_redirects", "0"),
            ("net.ipv4.conf.eth2.send_redirects", "0"),
        ] {
            node.sysctl(key, value)?;
        }
        Ok(Self {
            who,
            node,
            outside,
            pods,
            process: None,
        })
    }

    pub(crate) fn start(&mut self, plane: &ControlPlane, settings: &Settings) -> Result<(), Fault> {
        let command = match self.who {
            Who::KubeProxy => {
                // What is no flag: how long it waits between two looks at what changed.
                let name = "kube-proxy.json";
                let kubeconfig = plane.kubeconfig(Account::Admin);
                let text = settings.configuration(&kubeconfig).to_string();
                std::fs::write(self.node.run_dir().join(name), text)?;
                let mut command = self.node.command(plane.binary())?;
                command
                    .arg("kube-proxy")
                    .arg("--config")
                    .arg(format!("/run/{name}"));
                command
            }
            Who::Corten => {
                let mut command = self.node.command(bin("corten")?)?;
                command
                    .arg("agent")
                    .arg("--kubeconfig")
                    .arg(plane.kubeconfig(Account::Agent))
                    .args(["--api-server", &format!("https://{}", plane.server())])
                    .args(["--forward", "all", "--node-name", NODE])
                    .args(["--keep-in=", "--http-address", "127.0.0.1:17472"])
                    .args(settings.flags());
                command
            }
        };
        self.process = Some(self.node.spawn(self.who.name(), command)?);
        Ok(())
    }

    /// Ends the proxy at once; its rules stay.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// The end of the proxy's log, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let process = self.process.as_mut()?;
        let status = process.try_wait().ok()??;
        let log = process.log();
        let end = log
            .get(log.len().saturating_sub(3000)..)
            .unwrap_or_default();
        Some(format!("{} ended ({status}): {end}", self.who.name()))
    }

    /// The node forgets all connections.
    pub(crate) fn forget(&self) -> Result<(), Fault> {
        Ok(self.node.run(|| Conntrack::open()?.flush())??)
    }

    /// Sends these, each the first of its connection, and says what became of each.
    pub(crate) fn fates(&self, packets: &[(Place, Tuple)]) -> Result<Vec<Fate>, Fault> {
        let mut refused = HashSet::new();
        let places = [
            (Place::Outside, &self.outside),
            (Place::Pods, &self.pods),
            (Place::Node, &self.node),
        ];
        for (place, host) in places {
            let all: Vec<&Tuple> = packets
                .iter()
                .filter(|(at, _)| *at == place)
                .map(|(_, tuple)| tuple)
                .collect();
            if all.is_empty() {
                continue;
            }
            let sent = host.run(|| -> io::Result<()> {
                let wire = Wire::open()?;
                let mut hear = |tuple| {
                    refused.insert(tuple);
                };
                for some in all.chunks(AT_ONCE) {
                    some.iter().try_for_each(|tuple| wire.send(tuple))?;
                    wire.refused(&mut hear)?;
                }
                // What is on its way yet: a packet is through when it was sent, but for another
                // processor's queue.
                std::thread::yield_now();
                wire.refused(&mut hear)
            });
            sent??;
        }
        let known = self.node.run(connections)??;
        Ok(packets
            .iter()
            .map(|(_, tuple)| match known.get(tuple) {
                // The node's own way to itself: it was known before it was rejected. A datagram
                // that nobody rejects is answered so too, as nobody listens there.
                Some((to, _)) if *to == tuple.destination && refused.contains(tuple) => {
                    Fate::Rejected
                }
                Some((to, from)) => {
                    let masqueraded = *from != tuple.source.ip();
                    Fate::To(*to, masqueraded.then_some(*from))
                }
                None if refused.contains(tuple) => Fate::Rejected,
                None => Fate::Dropped,
            })
            .collect())
    }

    /// The connections that the kernel knows.
    pub(crate) fn known(&self) -> Result<HashSet<Tuple>, Fault> {
        let known = self.node.run(connections)??;
        Ok(known.into_keys().collect())
    }
}

/// What the kernel knows in the calling thread's namespace: who replies, and to whom.
fn connections() -> Result<HashMap<Tuple, (SocketAddr, IpAddr)>, linux::nft::Error> {
    let mut conntrack = Conntrack::open()?;
    let mut known = HashMap::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for v6 in [false, true] {
            conntrack.of(protocol.number(), v6, &mut |flow| {
                let tuple = Tuple {
                    protocol,
                    source: flow.source,
                    destination: flow.destination,
                };
                known.insert(tuple, (flow.replier, flow.client.ip()));
            })?;
        }
    }
    Ok(known)
}

fn run(command: &mut std::process::Command) -> Result<(), Fault> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {output:?}").into()),
    }
}
