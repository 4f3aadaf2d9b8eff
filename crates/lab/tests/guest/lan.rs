//! Layer 2 on a VLAN and on a bond: who is answered, by which tag, and what is told when another
//! port of the bond is active.
//!
//! ```text
//!   tagged  eth0, eth0.100, eth0.200 ─┐
//!   plain   eth0 ─────────────────────┴─ lan ── eth0, eth0.100 node bond0 (eth1, eth2) ══ pair ── far
//! ```

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use lab::{Host, Lab, Outcome, bin, wait_for, wait_until};
use linux::netlink::Mac;
use linux::packet::{PacketSocket, Traffic};
use proto::{arp, ndp};

use crate::kernel::ip;

/// Long enough for an emulated machine.
const SOON: Duration = Duration::from_secs(60);
/// How long answers are collected.
const WINDOW: Duration = Duration::from_millis(400);
/// Longer than gratuitous frames of a burst are apart.
const QUIET: Duration = Duration::from_millis(2500);
/// Shorter than refreshes are apart (45 s at least).
const REFRESH: Duration = Duration::from_secs(35);

/// On the VLAN alone, on all interfaces, with MAC addresses of their own on the VLAN and the bond.
const TAGGED: [&str; 2] = ["10.0.100.101", "fd00:100::101"];
const EVERYWHERE: &str = "10.0.100.102";
const OWN: &str = "10.0.100.103";
const OWN_MAC: Mac = [0x02, 0xc0, 10, 0, 100, 103];
const BONDED: &str = "10.0.1.101";
const BONDED_MAC: Mac = [0x02, 0xc0, 10, 0, 1, 101];

const MANIFESTS: &str = "\
apiVersion: v1
kind: Node
metadata: {name: node}
status: {addresses: [{type: InternalIP, address: 10.0.0.11}]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: tagged, namespace: metallb-system}
spec: {addresses: [10.0.100.101/32, 'fd00:100::101/128']}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: tagged, namespace: metallb-system}
spec: {ipAddressPools: [tagged], interfaces: [eth0.100]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: everywhere, namespace: metallb-system}
spec: {addresses: [10.0.100.102/32]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: everywhere, namespace: metallb-system}
spec: {ipAddressPools: [everywhere]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: own, namespace: metallb-system}
spec: {addresses: [10.0.100.103/32]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: bonded, namespace: metallb-system}
spec: {addresses: [10.0.1.101/32]}
---
apiVersion: corten.dev/v1alpha1
kind: Advertisement
metadata: {name: own, namespace: metallb-system}
spec: {pools: [own, bonded], layer2: {mac: Virtual}}
";

/// A Service with an address of that pool; its endpoint is nobody.
fn service(pool: &str, families: &[&str]) -> String {
    let mut text = format!(
        "---\napiVersion: v1\nkind: Service\n\
         metadata: {{name: {pool}, annotations: {{metallb.io/address-pool: {pool}}}}}\n\
         spec: {{type: LoadBalancer, ipFamilyPolicy: PreferDualStack, ipFamilies: [{}], \
         ports: [{{port: 80}}]}}\n",
        families.join(", ")
    );
    for family in families {
        let address = match *family {
            "IPv4" => "10.244.1.2",
            _ => "fd10::2",
        };
        text += &format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {pool}-{}, labels: {{kubernetes.io/service-name: {pool}}}}}\n\
             addressType: {family}\nports: [{{port: 80}}]\n\
             endpoints: [{{addresses: ['{address}'], nodeName: node}}]\n",
            family.to_lowercase()
        );
    }
    text
}

/// What comes in on an interface.
struct Ear {
    arp: PacketSocket,
    ndp: PacketSocket,
}

/// Who says that it has what.
type Claim = (IpAddr, Mac);

impl Ear {
    async fn open(
        host: &Host,
        device: &str,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let index = host.interface(device).await?.index;
        let open = |traffic| host.run(|| PacketSocket::open(index, traffic));
        Ok(Self {
            arp: open(Traffic::Arp)??,
            ndp: open(Traffic::Ndp)??,
        })
    }

    /// What was claimed since it was last asked; a question claims nothing.
    fn heard(&self) -> Vec<Claim> {
        let mut claims = Vec::new();
        let mut frame = [0; 2048];
        while let Ok(length) = self.arp.recv(&mut frame) {
            if let Ok(packet) = arp::Packet::parse(&frame[..length])
                && (packet.operation == arp::Operation::Reply
                    || packet.sender_ip == packet.target_ip)
            {
                claims.push((
                    packet.sender_ip.into(),
                    frame[6..12].try_into().expect("six"),
                ));
            }
        }
        while let Ok(length) = self.ndp.recv(&mut frame) {
            if let Ok(packet) = ndp::Packet::parse(&frame[..length])
                && let ndp::Message::Advertisement { target, .. } = packet.message
            {
                claims.push((target.into(), frame[6..12].try_into().expect("six")));
            }
        }
        claims
    }

    /// The addresses that were claimed since, each once.
    fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = self.heard().into_iter().map(|(ip, _)| ip).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }

    /// Asks `mac` alone who has `target`, as one does that knows it; true once that was answered.
    fn is_answered(&self, own: Mac, mac: Mac, source: &str, target: &str) -> Result<bool, String> {
        let address = |text: &str| text.parse::<Ipv4Addr>().map(|ip| ip.octets());
        let (source, of) = match (address(source), address(target)) {
            (Ok(source), Ok(of)) => (source, of),
            other => return Err(format!("{other:?}")),
        };
        let head = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1];
        let frame = [&mac[..], &own, &head, &own, &source, &mac, &of].concat();
        self.arp.send(&frame).map_err(|error| error.to_string())?;
        Ok(self.heard().contains(&(IpAddr::from(of), mac)))
    }
}

/// Addresses in their order.
fn ips(texts: &[&str]) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = texts.iter().flat_map(|text| text.parse()).collect();
    all.sort();
    all
}

async fn story(lab: Lab) -> Outcome {
    let (lan, pair) = (lab.segment("lan").await?, lab.segment("pair").await?);
    let node = lab.node("node").await?;
    let (tagged, plain) = (lab.host("tagged").await?, lab.host("plain").await?);
    let far = lab.host("far").await?;
    lan.attach(&node, &["10.0.0.11/24", "fd00::11/64"]).await?;
    lan.attach(&tagged, &["10.0.0.9/24", "fd00::9/64"]).await?;
    lan.attach(&plain, &["10.0.0.8/24", "fd00::8/64"]).await?;
    pair.attach(&node, &[]).await?;
    pair.attach(&node, &[]).await?;
    pair.attach(&far, &["10.0.1.9/24"]).await?;
    for (host, vlan, last) in [(&node, 100, 11), (&tagged, 100, 9), (&tagged, 200, 9)] {
        let name = format!("eth0.{vlan}");
        ip(
            host,
            &format!("link add link eth0 name {name} type vlan id {vlan}"),
        )?;
        ip(host, &format!("link set {name} up"))?;
        // The other VLAN has the same subnet, so that it can be asked for the same addresses.
        host.add_address(&name, &format!("10.0.100.{last}/24"))
            .await?;
        host.add_address(&name, &format!("fd00:100::{last}/64"))
            .await?;
    }
    ip(
        &node,
        "link add bond0 type bond mode active-backup miimon 50",
    )?;
    for port in ["eth1", "eth2"] {
        ip(&node, &format!("link set {port} down"))?;
        ip(&node, &format!("link set {port} master bond0"))?;
    }
    ip(&node, "link set bond0 up")?;
    ip(&node, "link set bond0 type bond active_slave eth1")?;
    node.add_address("bond0", "10.0.1.11/24").await?;

    let on_vlan = Ear::open(&tagged, "eth0.100").await?;
    let on_other = Ear::open(&tagged, "eth0.200").await?;
    let untagged = Ear::open(&tagged, "eth0").await?;
    let beside = Ear::open(&plain, "eth0").await?;
    let dir = lab.dir().join("manifests");
    fs::create_dir_all(&dir)?;
    let services = service("tagged", &["IPv4", "IPv6"])
        + &service("everywhere", &["IPv4"])
        + &service("own", &["IPv4"])
        + &service("bonded", &["IPv4"]);
    fs::write(dir.join("all.yaml"), MANIFESTS.to_owned() + &services)?;
    let mut agent = node.command(bin("corten")?)?;
    agent.arg("run").arg(&dir);
    agent.args(["--node-name", "node", "--forward", "off"]);
    let agent = node.spawn("run", agent)?;

    // Gratuitous frames leave by the VLAN, with its tag and by no other.
    let mut told = Vec::new();
    let all = ips(&[TAGGED[0], TAGGED[1], EVERYWHERE, OWN]);
    wait_for(SOON, "every address to be told on the VLAN", async || {
        told.extend(on_vlan.addresses());
        match all.iter().find(|ip| !told.contains(ip)) {
            None => Ok(()),
            Some(missing) => Err(format!("{missing} is not; {}", agent.log())),
        }
    })
    .await?;
    let mut told = Vec::new();
    wait_for(SOON, "what is everywhere to be told untagged", async || {
        told.extend(untagged.addresses());
        if told.contains(&EVERYWHERE.parse().expect("ip")) {
            Ok(())
        } else {
            Err(told.clone())
        }
    })
    .await?;
    lab.say("told on the VLAN, and untagged");

    // Who asks on the VLAN is answered there, and only there.
    let mac = node.mac("eth0.100").await?;
    for address in ips(&TAGGED) {
        assert_eq!(
            tagged.who_has("eth0.100", address, WINDOW).await?,
            [mac],
            "{address}"
        );
        for device in ["eth0", "eth0.200"] {
            let found = tagged.who_has(device, address, WINDOW).await?;
            assert_eq!(found, [] as [Mac; 0], "{address} on {device}");
        }
    }
    let everywhere = ips(&[EVERYWHERE])[0];
    assert_eq!(tagged.who_has("eth0", everywhere, WINDOW).await?, [mac]);
    // The burst of gratuitous frames is over: what is heard now is an answer.
    let mut last = Instant::now();
    wait_until(SOON, "no more gratuitous frames", async || {
        for ear in [&on_vlan, &on_other, &untagged, &beside] {
            if !ear.heard().is_empty() {
                last = Instant::now();
            }
        }
        last.elapsed() > QUIET
    })
    .await?;
    assert_eq!(tagged.who_has("eth0.100", everywhere, WINDOW).await?, [mac]);
    assert_eq!(on_vlan.addresses(), [everywhere]);
    assert_eq!(untagged.heard(), [], "an answer without the question's tag");
    assert_eq!(
        tagged.who_has("eth0.200", everywhere, WINDOW).await?,
        [] as [Mac; 0]
    );
    for (ear, what) in [
        (&on_vlan, "VLAN 100"),
        (&untagged, "no tag"),
        (&beside, "plain"),
    ] {
        assert_eq!(
            ear.heard(),
            [],
            "an answer to another VLAN's question by {what}"
        );
    }
    lab.say("answered on the VLAN, by its tag alone");

    // A MAC address of an address's own is received for on the VLAN.
    let own = tagged.mac("eth0.100").await?;
    wait_for(
        SOON,
        "an answer from the address's own MAC address",
        async || match on_vlan.is_answered(own, OWN_MAC, "10.0.100.9", OWN)? {
            true => Ok(()),
            false => Err("none".to_owned()),
        },
    )
    .await?;

    // The bond: who knows the address reaches it, also when another port of the bond is active. The
    // switch thinks it behind the first one until it is told.
    let at_bond = Ear::open(&far, "eth0").await?;
    let own = far.mac("eth0").await?;
    let answered = async |deadline| {
        wait_for(deadline, "an answer from the bond", async || match at_bond
            .is_answered(own, BONDED_MAC, "10.0.1.9", BONDED)?
        {
            true => Ok(()),
            false => Err("none".to_owned()),
        })
        .await
    };
    answered(SOON).await?;
    let mut last = Instant::now();
    wait_until(SOON, "no more gratuitous frames at the bond", async || {
        if !at_bond.heard().is_empty() {
            last = Instant::now();
        }
        last.elapsed() > QUIET
    })
    .await?;
    ip(&node, "link set bond0 type bond active_slave eth2")?;
    let began = Instant::now();
    answered(REFRESH).await?;
    lab.say(format!(
        "answered {:?} after the bond's fail-over",
        began.elapsed()
    ));
    Ok(())
}

#[test]
fn vlans_and_bonds() {
    let name = "lan::vlans_and_bonds";
    let modules = ["8021q", "bonding", "bridge", "nf_tables", "veth"];
    lab::guest::run(name, &modules, story);
}
