//! The argument lists of the control plane's processes: which flags, and why.

use std::net::SocketAddr;

use super::files::{Account, Files, User};

/// A namespace has all its ports to itself.
const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEER: &str = "http://127.0.0.1:2380";
/// ClusterIPs: room for 262,144 and 65,536 Services.
pub(crate) const SERVICE_RANGE_V4: &str = "10.96.0.0/14";
pub(crate) const SERVICE_RANGE_V6: &str = "fd00:96::/108";
/// Those that Corten meets. No node lifecycle controller: nodes have no
/// kubelet that would renew their leases, and would be tainted.
const CONTROLLERS: &str = "endpoints-controller,endpointslice-controller,\
    endpointslice-mirroring-controller,namespace-controller,\
    garbage-collector-controller,serviceaccount-controller";

/// What a control plane is for.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// There are kubelets: everything runs that runs in a cluster. Otherwise
    /// the lab plays them.
    pub(crate) kubelets: bool,
    /// ClusterIPs of both families; of IPv4 alone otherwise.
    pub(crate) dual_stack: bool,
    /// Every request is written to the audit log.
    pub(crate) audit: bool,
    /// A watch may begin with the list (`sendInitialEvents`).
    pub(crate) streamed_lists: bool,
    /// Who asks besides [`Account::ALL`].
    pub(crate) users: Vec<User>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            kubelets: false,
            dual_stack: true,
            audit: false,
            streamed_lists: true,
            users: Vec::new(),
        }
    }
}

impl Shape {
    fn service_ranges(&self) -> String {
        let ranges = match self.dual_stack {
            true => format!("{SERVICE_RANGE_V4},{SERVICE_RANGE_V6}"),
            false => SERVICE_RANGE_V4.to_owned(),
        };
        format!("--service-cluster-ip-range={ranges}")
    }
}

/// The user as which the scheduler asks, and the name of its kubeconfig.
pub(crate) const SCHEDULER: &str = "kube-scheduler";

/// The name of the controllers' part.
pub(super) const CONTROLLER_MANAGER: &str = "kube-controller-manager";

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

pub(super) fn api_server(files: &Files, server: SocketAddr, shape: &Shape) -> Part {
    let key = files.key().display().to_string();
    let mut args = vec![
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
        shape.service_ranges(),
        "--allow-privileged=true".to_owned(),
    ];
    if shape.audit {
        let (policy, log) = (files.audit_policy(), files.audit_log());
        args.push(format!("--audit-policy-file={}", policy.display()));
        args.push(format!("--audit-log-path={}", log.display()));
    }
    if !shape.streamed_lists {
        args.push("--feature-gates=WatchList=false".to_owned());
    }
    if shape.kubelets {
        // Webhooks are called at their Pods' addresses: no kube-proxy runs on
        // this host.
        args.push("--enable-aggregator-routing=true".to_owned());
        // Addresses first: nothing here resolves the nodes' names.
        args.push("--kubelet-preferred-address-types=InternalIP".to_owned());
    } else {
        // Pods without ServiceAccount tokens: no kubelet would mount them.
        args.push("--disable-admission-plugins=ServiceAccount".to_owned());
        args.push("--endpoint-reconciler-type=none".to_owned());
    }
    (API_SERVER, args)
}

pub(super) fn controller_manager(files: &Files, shape: &Shape) -> Part {
    let mut args = vec![
        format!(
            "--kubeconfig={}",
            files.kubeconfig(Account::Admin).display()
        ),
        shape.service_ranges(),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        // The lab measures Corten, not this client's rate limit.
        "--kube-api-qps=1000".to_owned(),
        "--kube-api-burst=1000".to_owned(),
    ];
    if shape.kubelets {
        args.push(format!("--root-ca-file={}", files.ca().display()));
        let key = files.key();
        args.push(format!(
            "--service-account-private-key-file={}",
            key.display()
        ));
        args.push("--use-service-account-credentials=true".to_owned());
        // It would make its folder below /usr/libexec.
        args.push("--flex-volume-plugin-dir=/run/flexvolume".to_owned());
    } else {
        args.push(format!("--controllers={CONTROLLERS}"));
    }
    (CONTROLLER_MANAGER, args)
}

pub(super) fn scheduler(files: &Files) -> Part {
    let config = files.kubeconfig_of(SCHEDULER);
    let args = vec![
        format!("--kubeconfig={}", config.display()),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
    ];
    (SCHEDULER, args)
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
