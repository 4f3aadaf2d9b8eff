//! The argument lists of the control plane's processes: which flags, and why.

use std::net::SocketAddr;

use super::files::{Account, Files};

/// A namespace has all its ports to itself.
const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEER: &str = "http://127.0.0.1:2380";
/// ClusterIPs: room for 262,144 and 65,536 Services.
const SERVICE_RANGES: &str = "10.96.0.0/14,fd00:96::/108";
/// Those that Corten meets. No node lifecycle controller: nodes have no
/// kubelet that would renew their leases, and would be tainted.
const CONTROLLERS: &str = "endpoints-controller,endpointslice-controller,\
    endpointslice-mirroring-controller,namespace-controller,\
    garbage-collector-controller,serviceaccount-controller";

/// The name of the API server's part.
pub(super) const API_SERVER: &str = "kube-apiserver";

/// A process: the binary's part and its arguments.
pub(super) type Part = (&'static str, Vec<String>);

pub(super) fn etcd() -> Part {
    let args = vec![
        "--name=lab".to_owned(),
        // The host's own /run is in memory: the data die with the lab.
        "--data-dir=/run/etcd".to_owned(),
        "--unsafe-no-fsync".to_owned(),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        format!("--listen-peer-urls={ETCD_PEER}"),
        format!("--initial-advertise-peer-urls={ETCD_PEER}"),
        format!("--initial-cluster=lab={ETCD_PEER}"),
        "--log-level=warn".to_owned(),
    ];
    ("etcd", args)
}

pub(super) fn api_server(files: &Files, server: SocketAddr) -> Part {
    let key = files.key().display().to_string();
    let args = vec![
        format!("--etcd-servers={ETCD}"),
        // Loopback would not be seen from other namespaces.
        format!("--bind-address={}", server.ip()),
        format!("--advertise-address={}", server.ip()),
        format!("--secure-port={}", server.port()),
        // It makes its certificate and key here, before it reads the latter.
        format!("--cert-dir={}", files.certificates().display()),
        format!("--service-account-key-file={key}"),
        format!("--service-account-signing-key-file={key}"),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--token-auth-file={}", files.tokens().display()),
        "--authorization-mode=Node,RBAC".to_owned(),
        // Pods without ServiceAccount tokens: no kubelet would mount them.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        format!("--service-cluster-ip-range={SERVICE_RANGES}"),
        "--endpoint-reconciler-type=none".to_owned(),
        "--allow-privileged=true".to_owned(),
    ];
    (API_SERVER, args)
}

pub(super) fn controller_manager(files: &Files) -> Part {
    let args = vec![
        format!(
            "--kubeconfig={}",
            files.kubeconfig(Account::Admin).display()
        ),
        format!("--controllers={CONTROLLERS}"),
        format!("--service-cluster-ip-range={SERVICE_RANGES}"),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        // The lab measures Corten, not this client's rate limit.
        "--kube-api-qps=1000".to_owned(),
        "--kube-api-burst=1000".to_owned(),
    ];
    ("kube-controller-manager", args)
}

/// The socket's name in the host's `/run`: a path in the lab's folder could be
/// longer than a socket's may be (108 bytes, unix(7)).
pub(super) const SOCKET: &str = "api.sock";

/// Plain HTTP on a unix socket for [`super::api::Api`].
pub(super) fn proxy(files: &Files) -> Part {
    let args = vec![
        format!(
            "--kubeconfig={}",
            files.kubeconfig(Account::Admin).display()
        ),
        "proxy".to_owned(),
        format!("--unix-socket=/run/{SOCKET}"),
    ];
    ("kubectl", args)
}
