//! Options of the service proxy, under kube-proxy's names.

use dataplane::ipvs::Timeouts;
use ipnet::IpNet;
use plan::forward::ipvs::Scheduling;
use plan::forward::{Detector, NodePorts, Sources};
use serde_json::json;

use super::Failure;
use crate::agent::forward::BackEnd;

/// For the node's own address in the API.
const PRIMARY: &str = "primary";
/// For 127.0.0.1 and `::1` (KEP-6032).
const LOCALHOST: (&str, [&str; 2]) = ("localhost", ["127.0.0.1/32", "::1/128"]);
/// For all addresses but these.
const ALL: (&str, [&str; 2]) = ("all", ["0.0.0.0/0", "::/0"]);
/// 24 days: with 1000 ticks a second the kernel counts no further.
const LONGEST: u32 = 24 * 24 * 3600;
/// Bytes that the name of an interface may have.
const NAME: usize = 15;

#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Proxying {
    /// The Pods' addresses, by which they are known as local; none: Pods are not told from others.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    cluster_cidr: Vec<IpNet>,
    /// How Pods are told from others: connections from elsewhere to a cluster IP are masqueraded,
    /// and Pods reach external addresses whatever the policy.
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        default_value = "ClusterCIDR",
        value_name = "MODE"
    )]
    detect_local_mode: Mode,
    /// With BridgeInterface: the bridge that the node's Pods are on.
    #[arg(long, value_name = "NAME")]
    pod_bridge_interface: Option<String>,
    /// With InterfaceNamePrefix: how the names of the Pods' interfaces begin.
    #[arg(long, value_name = "PREFIX")]
    pod_interface_name_prefix: Option<String>,
    /// The addresses of this node with node ports: ranges of them, `primary`, the node's first
    /// address of each family, `localhost` for 127.0.0.1 and ::1, `all` for all but these. A family
    /// without any has all.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', default_value = PRIMARY)]
    nodeport_addresses: Vec<String>,
    /// Masquerade all connections to cluster IPs.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true",
        value_parser = super::serving::go_bool)]
    masquerade_all: bool,
    /// What balances, with --forward all: the rule set itself, or IPVS beside it for those who come
    /// from there.
    #[arg(long, value_enum, ignore_case = true, default_value = "nftables")]
    proxy_mode: ProxyMode,
    /// With ipvs: how an endpoint is chosen (rr, wrr, lc, wlc, sh, dh, sed, nq, mh and the kernel's
    /// others; flags behind commas: mh,mh-port), unless the Service's annotation
    /// corten.dev/ipvs-scheduler says otherwise.
    #[arg(long, value_name = "SCHEDULER", default_value_t)]
    ipvs_scheduler: Scheduling,
    /// With ipvs: how long a silent TCP connection is known; 0s: as the kernel has it.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = whole_seconds)]
    ipvs_tcp_timeout: u32,
    /// The same of one that an end has closed.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = whole_seconds)]
    ipvs_tcpfin_timeout: u32,
    /// The same of a client's datagrams.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = whole_seconds)]
    ipvs_udp_timeout: u32,
}

/// A duration as Go's flags take it, as IPVS has it.
fn whole_seconds(text: &str) -> Result<u32, String> {
    let seconds = super::conntrack::seconds(text)?;
    // The kernel counts in ticks, up to 2^31.
    match u32::try_from(seconds) {
        Ok(seconds) if seconds <= LONGEST => Ok(seconds),
        _ => Err("it is longer than 24 days".to_owned()),
    }
}

/// `--proxy-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum ProxyMode {
    #[default]
    Nftables,
    Ipvs,
}

/// `--detect-local-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    #[default]
    #[value(name = "ClusterCIDR")]
    ClusterCidr,
    #[value(name = "NodeCIDR")]
    NodeCidr,
    #[value(name = "BridgeInterface")]
    Bridge,
    #[value(name = "InterfaceNamePrefix")]
    Prefix,
}

impl Proxying {
    /// What balances where all Services are forwarded. Virtual servers cannot win over another
    /// program's rules, which translate before them.
    pub(super) fn back_end(&self, mode: plan::forward::Mode) -> Result<BackEnd, Failure> {
        match (self.proxy_mode, mode) {
            (ProxyMode::Nftables, _) => Ok(BackEnd::Nftables),
            (ProxyMode::Ipvs, plan::forward::Mode::All) => {
                let timeouts = Timeouts {
                    tcp: self.ipvs_tcp_timeout,
                    tcp_fin: self.ipvs_tcpfin_timeout,
                    udp: self.ipvs_udp_timeout,
                };
                Ok(BackEnd::Ipvs(self.ipvs_scheduler, timeouts))
            }
            (ProxyMode::Ipvs, _) => Err("--proxy-mode ipvs needs --forward all: another proxy's \
                 rules would take the packets before IPVS does"
                .into()),
        }
    }

    pub(super) fn sources(&self) -> Result<Sources, Failure> {
        let detector = match self.detect_local_mode {
            Mode::ClusterCidr => Detector::ClusterCidr(self.cluster_cidr.clone()),
            Mode::NodeCidr => Detector::NodeCidr,
            Mode::Bridge => Detector::Bridge(name(
                "--pod-bridge-interface",
                self.pod_bridge_interface.as_deref(),
            )?),
            Mode::Prefix => Detector::Prefix(name(
                "--pod-interface-name-prefix",
                self.pod_interface_name_prefix.as_deref(),
            )?),
        };
        Ok(Sources {
            detector,
            masquerade_all: self.masquerade_all,
        })
    }
}

impl Proxying {
    /// These options as fields of KubeProxyConfiguration (v1alpha1).
    pub(super) fn configuration(&self) -> serde_json::Value {
        let cidrs: Vec<String> = self.cluster_cidr.iter().map(ToString::to_string).collect();
        let mode = match self.detect_local_mode {
            Mode::ClusterCidr => "ClusterCIDR",
            Mode::NodeCidr => "NodeCIDR",
            Mode::Bridge => "BridgeInterface",
            Mode::Prefix => "InterfaceNamePrefix",
        };
        let masquerade = json!({"masqueradeAll": self.masquerade_all});
        let mut fields = json!({
            "clusterCIDR": cidrs.join(","),
            "detectLocalMode": mode,
            "detectLocal": {
                "bridgeInterface": self.pod_bridge_interface.as_deref().unwrap_or_default(),
                "interfaceNamePrefix":
                    self.pod_interface_name_prefix.as_deref().unwrap_or_default(),
            },
            "nodePortAddresses": self.nodeport_addresses,
        });
        match self.proxy_mode {
            ProxyMode::Nftables => {
                fields["mode"] = "nftables".into();
                fields["nftables"] = masquerade;
            }
            ProxyMode::Ipvs => {
                fields["mode"] = "ipvs".into();
                fields["iptables"] = masquerade;
                let scheduler = self.ipvs_scheduler.to_string();
                let in_go = |seconds: u32| super::conntrack::in_go(seconds.into());
                fields["ipvs"] = json!({
                    "scheduler": scheduler,
                    "strictARP": true,
                    "tcpTimeout": in_go(self.ipvs_tcp_timeout),
                    "tcpFinTimeout": in_go(self.ipvs_tcpfin_timeout),
                    "udpTimeout": in_go(self.ipvs_udp_timeout),
                });
            }
        }
        fields
    }

    pub(super) fn node_ports(&self) -> Result<NodePorts, Failure> {
        let mut ports = NodePorts::default();
        if self.nodeport_addresses.iter().all(|it| it == PRIMARY) {
            return Ok(ports);
        }
        let range = |text: &str| match text.parse::<IpNet>() {
            Ok(range) => Ok(range.trunc()),
            Err(_) => Err(format!(
                "--nodeport-addresses {text:?} is no range like 192.0.2.0/24, and none of \
                 {PRIMARY}, {}, {}",
                LOCALHOST.0, ALL.0
            )),
        };
        let mut ranges = Vec::new();
        for text in &self.nodeport_addresses {
            match [LOCALHOST, ALL].iter().find(|(word, _)| word == text) {
                Some((_, both)) => ranges.extend(both.iter().copied()),
                None if text == PRIMARY => ports.primary = true,
                None => ranges.push(text),
            }
        }
        ports.ranges = Some(ranges.into_iter().map(range).collect::<Result<_, _>>()?);
        for family in ports.unrestricted() {
            tracing::warn!(
                "--nodeport-addresses has no range of {family}: node ports are on all its addresses"
            );
        }
        Ok(ports)
    }
}

fn name(flag: &str, text: Option<&str>) -> Result<String, Failure> {
    match text {
        Some(text) if (1..=NAME).contains(&text.len()) => Ok(text.to_owned()),
        Some(text) => Err(format!(
            "{flag} {text:?} is no name of an interface: it has 1 to {NAME} characters"
        )
        .into()),
        None => Err(format!("this --detect-local-mode needs {flag}").into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        proxying: Proxying,
    }

    fn parse(line: &str) -> Result<Proxying, clap::Error> {
        let words = std::iter::once("corten").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.proxying)
    }

    #[test]
    fn where_node_ports_are() {
        let localhost = "127.0.0.1/32 ::1/128";
        for (line, primary, ranges) in [
            ("", false, None),
            ("--nodeport-addresses=primary", false, None),
            (
                "--nodeport-addresses=192.0.2.7/24,::/0",
                false,
                Some("192.0.2.0/24 ::/0"),
            ),
            (
                "--nodeport-addresses=primary,192.0.2.0/24",
                true,
                Some("192.0.2.0/24"),
            ),
            ("--nodeport-addresses=localhost", false, Some(localhost)),
            (
                "--nodeport-addresses=primary --nodeport-addresses=localhost",
                true,
                Some(localhost),
            ),
            (
                "--nodeport-addresses=127.0.0.1/8,all",
                false,
                Some("127.0.0.0/8 0.0.0.0/0 ::/0"),
            ),
        ] {
            let found = parse(line).expect(line).node_ports().expect(line);
            let ranges = ranges.map(|text: &str| {
                let words = text.split_whitespace();
                words.map(|range| range.parse().unwrap()).collect()
            });
            assert_eq!((found.primary, found.ranges), (primary, ranges), "{line}");
        }
        for line in [
            "--nodeport-addresses=Localhost",
            "--nodeport-addresses=10.0.0.1",
        ] {
            assert!(parse(line).expect(line).node_ports().is_err(), "{line}");
        }
    }

    #[test]
    fn what_configz_tells() {
        let told = |line: &str| parse(line).expect(line).configuration();
        let fields = told("");
        assert_eq!(fields["mode"], "nftables");
        assert_eq!(fields["nodePortAddresses"], json!(["primary"]));
        assert_eq!(fields["nftables"]["masqueradeAll"], false);
        let fields = told(
            "--cluster-cidr=10.244.0.0/16,fd01::/48 --masquerade-all \
             --nodeport-addresses=primary,localhost",
        );
        assert_eq!(fields["clusterCIDR"], "10.244.0.0/16,fd01::/48");
        assert_eq!(fields["detectLocalMode"], "ClusterCIDR");
        assert_eq!(fields["nftables"]["masqueradeAll"], true);
        assert_eq!(fields["nodePortAddresses"], json!(["primary", "localhost"]));
        let fields = told(
            "--proxy-mode=ipvs --ipvs-scheduler=wlc --masquerade-all --ipvs-tcp-timeout=90m \
             --detect-local-mode=InterfaceNamePrefix --pod-interface-name-prefix=veth",
        );
        assert_eq!(fields["mode"], "ipvs");
        assert_eq!(fields["ipvs"]["scheduler"], "wlc");
        assert_eq!(fields["ipvs"]["tcpTimeout"], "1h30m0s");
        assert_eq!(fields["ipvs"]["udpTimeout"], "0s");
        assert_eq!(fields["iptables"]["masqueradeAll"], true);
        assert_eq!(fields["detectLocalMode"], "InterfaceNamePrefix");
        assert_eq!(fields["detectLocal"]["interfaceNamePrefix"], "veth");
    }

    #[test]
    fn how_long_ipvs_knows_connections() {
        let all = plan::forward::Mode::All;
        for (line, expected) in [
            ("--proxy-mode=ipvs", Some((0, 0, 0))),
            (
                "--proxy-mode=ipvs --ipvs-tcp-timeout=20m --ipvs-tcpfin-timeout=1m30s \
                 --ipvs-udp-timeout=576h",
                Some((1200, 90, 2_073_600)),
            ),
            // kube-proxy, too, leaves the kernel's then.
            (
                "--proxy-mode=ipvs --ipvs-udp-timeout=900ms",
                Some((0, 0, 0)),
            ),
            ("--ipvs-tcp-timeout=20m", None),
        ] {
            let found = match parse(line).expect(line).back_end(all).expect(line) {
                BackEnd::Ipvs(_, it) => Some((it.tcp, it.tcp_fin, it.udp)),
                BackEnd::Nftables => None,
            };
            assert_eq!(found, expected, "{line}");
        }
        for line in [
            "--ipvs-tcp-timeout=-1s",
            "--ipvs-tcp-timeout=20",
            "--ipvs-udp-timeout=577h",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn kube_proxys_options() {
        let cidr = |text: &str| {
            let ranges = text.split_whitespace().map(|range| range.parse().unwrap());
            Detector::ClusterCidr(ranges.collect())
        };
        let table = [
            ("", Some(cidr(""))),
            ("--cluster-cidr=10.244.0.0/16", Some(cidr("10.244.0.0/16"))),
            (
                "--cluster-cidr 10.244.0.0/16,fd00::/56 --detect-local-mode=ClusterCIDR",
                Some(cidr("10.244.0.0/16 fd00::/56")),
            ),
            ("--detect-local-mode=NodeCIDR", Some(Detector::NodeCidr)),
            (
                "--detect-local-mode=BridgeInterface --pod-bridge-interface=cbr0",
                Some(Detector::Bridge("cbr0".to_owned())),
            ),
            (
                "--detect-local-mode=InterfaceNamePrefix --pod-interface-name-prefix=veth",
                Some(Detector::Prefix("veth".to_owned())),
            ),
            ("--detect-local-mode=BridgeInterface", None),
            (
                "--detect-local-mode=InterfaceNamePrefix --pod-interface-name-prefix=",
                None,
            ),
            (
                "--detect-local-mode=BridgeInterface --pod-bridge-interface=abcdefghijklmnop",
                None,
            ),
        ];
        for (line, expected) in table {
            let sources = parse(line).expect(line).sources();
            assert_eq!(sources.ok().map(|it| it.detector), expected, "{line}");
        }
        for line in ["--cluster-cidr=10.244.0.0", "--detect-local-mode=Guess"] {
            assert!(parse(line).is_err(), "{line}");
        }
        for (line, all) in [
            ("", false),
            ("--masquerade-all", true),
            ("--masquerade-all=true", true),
            ("--masquerade-all=false", false),
        ] {
            let sources = parse(line).expect(line).sources().expect(line);
            assert_eq!(sources.masquerade_all, all, "{line}");
        }
    }
}
