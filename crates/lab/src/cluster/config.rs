//! Configuration files of a node's programs, and the cluster's plan of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use serde_json::json;

use super::parts::{CNI_BIN, TOOLS};
use crate::controlplane::{SERVICE_RANGE_V4, SERVICE_RANGE_V6};

/// Addresses of the cluster's DNS, in the Service ranges.
const DNS_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10));
const DNS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 10));

/// kube-proxy's flags that are the same everywhere.
pub(super) const KUBE_PROXY: [&str; 4] = [
    // The machine-wide table of connections is read-only in a namespace.
    "--conntrack-max-per-core=0",
    "--conntrack-min=0",
    "--conntrack-tcp-timeout-established=0s",
    "--conntrack-tcp-timeout-close-wait=0s",
];

/// Which addresses nodes, Pods and Services have.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) dual_stack: bool,
}

impl Network {
    /// A node's addresses on the LAN, with prefix lengths.
    pub(super) fn node(number: u8) -> [String; 2] {
        [
            format!("10.0.0.{}/24", 10 + number),
            format!("fd00::{}/64", 10 + u16::from(number)),
        ]
    }

    /// The ranges of a node's Pods.
    pub(super) fn pods(&self, number: u8) -> Vec<String> {
        let mut ranges = vec![format!("10.244.{number}.0/24")];
        if self.dual_stack {
            ranges.push(format!("fd01:{number:x}::/64"));
        }
        ranges
    }

    /// All Pods' ranges, separated by commas.
    pub(super) fn pod_ranges(&self) -> &'static str {
        match self.dual_stack {
            true => "10.244.0.0/16,fd01::/16",
            false => "10.244.0.0/16",
        }
    }

    /// The families of Services, as a Service has them.
    pub(super) fn families(&self) -> &'static [&'static str] {
        match self.dual_stack {
            true => &["IPv4", "IPv6"],
            false => &["IPv4"],
        }
    }

    /// The cluster's DNS.
    pub(super) fn dns(&self) -> Vec<IpAddr> {
        match self.dual_stack {
            true => vec![DNS_V4, DNS_V6],
            false => vec![DNS_V4],
        }
    }
}

pub(super) fn containerd() -> String {
    format!(
        "\
version = 3
root = '/var/lib/containerd'
state = '/run/containerd'
# What containers here do not use.
disabled_plugins = ['io.containerd.nri.v1.nri', 'io.containerd.tracing.processor.v1.otlp', \
'io.containerd.snapshotter.v1.blockfile', 'io.containerd.snapshotter.v1.btrfs', \
'io.containerd.snapshotter.v1.devmapper', 'io.containerd.snapshotter.v1.erofs', \
'io.containerd.snapshotter.v1.zfs']

[grpc]
address = '/run/containerd/containerd.sock'

[plugins.'io.containerd.cri.v1.images']
snapshotter = 'overlayfs'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{TOOLS}'

[plugins.'io.containerd.cri.v1.runtime']
# A sandbox may not lower a score, and has no profiles.
restrict_oom_score_adj = true
disable_apparmor = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{CNI_BIN}']
conf_dir = '/etc/cni/net.d'
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'runc'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
"
    )
}

/// Its cgroups lie below `cgroup`, so that they can be found and removed.
pub(super) fn kubelet(cgroup: &Path, network: &Network) -> String {
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        // The API server, and nobody else, is on this network to ask.
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "clusterDNS": network.dns(),
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.node",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        // The machine's disk and memory are not the node's.
        "evictionHard": {
            "memory.available": "0%", "nodefs.available": "0%",
            "nodefs.inodesFree": "0%", "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "serializeImagePulls": false,
        "volumePluginDir": "/var/lib/kubelet/plugins-exec",
        // A status soon after a change; the lease says that the node lives.
        "nodeStatusUpdateFrequency": "2s",
        "nodeLeaseDurationSeconds": 40,
        "shutdownGracePeriod": "0s",
        "staticPodPath": "",
    });
    // JSON is YAML.
    config.to_string()
}

/// A pair of interfaces for each Pod, addresses from the node's own ranges.
pub(super) fn cni(network: &Network, number: u8) -> String {
    let ranges: Vec<_> = network
        .pods(number)
        .into_iter()
        .map(|subnet| json!([{"subnet": subnet}]))
        .collect();
    let mut routes = vec![json!({"dst": "0.0.0.0/0"})];
    if network.dual_stack {
        routes.push(json!({"dst": "::/0"}));
    }
    json!({
        "cniVersion": "1.0.0",
        "name": "lab",
        "plugins": [
            {
                "type": "ptp", "ipMasq": false,
                "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

/// The cluster's DNS as manifests. It asks the API server at `server`, not at the Service's
/// address, so that it works before, and without, kube-proxy.
pub(super) fn dns(image: &str, server: std::net::SocketAddr, network: &Network) -> String {
    let corefile = "\
.:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
    }
    cache 5
    loadbalance
}
";
    let labels = json!({"k8s-app": "kube-dns"});
    let probe = |path: &str, port: u16, seconds: u32| json!({"httpGet": {"path": path, "port": port}, "periodSeconds": seconds, "failureThreshold": 30});
    let meta = |name: &str| json!({"name": name, "namespace": "kube-system", "labels": labels});
    let policy = if network.dual_stack {
        "RequireDualStack"
    } else {
        "SingleStack"
    };
    let items = json!([
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("coredns")},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
         "metadata": {"name": "system:coredns"},
         "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
         ]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
         "metadata": {"name": "system:coredns"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
         "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}]},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("coredns"), "data": {"Corefile": corefile}},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta("kube-dns"),
         "spec": {
            "selector": labels, "clusterIPs": network.dns(), "clusterIP": network.dns()[0],
            "ipFamilyPolicy": policy, "ipFamilies": network.families(),
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            ],
         }},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("coredns"),
         "spec": {
            "replicas": 1, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": "coredns", "dnsPolicy": "Default",
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{
                        "name": "coredns", "image": image, "imagePullPolicy": "Never",
                        "args": ["-conf", "/etc/coredns/Corefile"],
                        "env": [
                            {"name": "KUBERNETES_SERVICE_HOST", "value": server.ip()},
                            {"name": "KUBERNETES_SERVICE_PORT", "value": server.port().to_string()},
                        ],
                        "ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"}],
                        "readinessProbe": probe("/ready", 8181, 1),
                        "livenessProbe": probe("/health", 8080, 10),
                        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
                    }],
                    "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
                },
            },
         }},
    ]);
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// What a person may want to know.
pub(super) fn service_ranges(network: &Network) -> String {
    match network.dual_stack {
        true => format!("{SERVICE_RANGE_V4} {SERVICE_RANGE_V6}"),
        false => SERVICE_RANGE_V4.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_pods_and_services_have_both_families_when_asked() {
        let (one, both) = (Network { dual_stack: false }, Network { dual_stack: true });
        assert_eq!(Network::node(3), ["10.0.0.13/24", "fd00::13/64"]);
        assert_eq!(one.pods(3), ["10.244.3.0/24"]);
        assert_eq!(both.pods(10), ["10.244.10.0/24", "fd01:a::/64"]);
        assert_eq!(both.dns().len(), 2);
        assert!(cni(&both, 1).contains("fd01:1::/64") && !cni(&one, 1).contains("::/0"));
    }

    #[test]
    fn the_kubelet_s_cgroups_are_below_ours() {
        let text = kubelet(
            Path::new("/corten-lab-7/node-1"),
            &Network { dual_stack: false },
        );
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["cgroupRoot"], "/corten-lab-7/node-1");
        assert_eq!(config["clusterDNS"], json!(["10.96.0.10"]));
    }
}
