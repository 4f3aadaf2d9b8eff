//! The stage: a scene of nodes and pods, a control plane that knows them, and Corten on it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lab::controlplane::{Account, ControlPlane, ControlPlaneError, PodName};
use lab::scene::{Node, Scene};
use lab::{Host, Lab, LabError, Process, WaitError, bin, wait_for};
use serde_json::Value;

/// No test takes as long; machines differ.
pub(crate) const MINUTES: Duration = Duration::from_secs(600);
/// How long something may take that should take no time, on a machine that has too much to do.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Name and namespace of every pod's Service.
pub(crate) const PODS: &str = "default";

/// One control plane at a time: their times are measured.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Any error that a story meets.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) scene: Scene,
    /// Where the control plane runs.
    pub(crate) api_host: Host,
    pub(crate) plane: ControlPlane,
    last: Cell<Instant>,
}

impl Stage {
    /// The CRDs, the accounts, `nodes` Nodes with a ready pod each; nothing of Corten runs yet.
    pub(crate) async fn build(lab: Lab, binary: &Path, nodes: u8) -> Result<Self, Fault> {
        let scene = Scene::build(&lab, nodes).await?;
        let api_host = lab.host("api").await?;
        scene
            .lan
            .attach(&api_host, &["10.0.0.5/24", "fd00::5/64"])
            .await?;
        let plane = ControlPlane::start(binary, &lab, &api_host, api_host.address(false)?).await?;
        let stage = Self {
            lab,
            scene,
            api_host,
            plane,
            last: Cell::new(Instant::now()),
        };
        let crds = root("deploy/crds");
        stage
            .kubectl(&["apply", "-f", &crds, "-f", &root("deploy/rbac.yaml")], "")
            .await?;
        let established = ["wait", "--for=condition=Established", "-f", &crds];
        stage.kubectl(&established, "").await?;
        for node in &stage.scene.nodes {
            stage.register(node).await?;
        }
        stage.say("the control plane, CRDs, accounts, nodes and pods are there");
        Ok(stage)
    }

    /// The kubelet's part: the Node and its pod.
    async fn register(&self, node: &Node) -> Result<(), Fault> {
        let api = self.plane.api();
        let name = node.host.name();
        let addresses = [node.ip, node.host.address(true)?];
        api.create_node(name, &addresses, &[]).await?;
        let pod = PodName {
            namespace: PODS,
            name: node.pod.name(),
        };
        let addresses = [node.pod_ip, node.pod_ip6];
        api.run_pod(name, pod, &[("app", "myapp")], &addresses)
            .await?;
        Ok(())
    }

    /// Prints a step with the time since the last one.
    pub(crate) fn say(&self, step: impl std::fmt::Display) {
        let now = Instant::now();
        let took = now - self.last.replace(now);
        self.lab.say(format!("{:5} ms  {step}", took.as_millis()));
    }

    /// kubectl on the client, as admin; gives what it printed.
    pub(crate) async fn kubectl(
        &self,
        args: &[&str],
        stdin: &str,
    ) -> Result<String, ControlPlaneError> {
        self.plane.kubectl_ok(&self.scene.client, args, stdin).await
    }

    /// Applies manifests.
    pub(crate) async fn apply(&self, manifests: &str) -> Result<String, ControlPlaneError> {
        self.kubectl(&["apply", "-f", "-"], manifests).await
    }

    /// Starts `corten controller` on a host.
    pub(crate) fn controller(&self, host: &Host) -> Result<Process, LabError> {
        let mut command = host.command(bin("corten")?)?;
        command
            .arg("controller")
            .arg("--kubeconfig")
            .arg(self.plane.kubeconfig(Account::Controller))
            .args(["--pod-name", host.name(), "--log-level", "debug"])
            // tests/webhook has its rights and its Service.
            .args(["--webhook-mode", "disabled"])
            .args(["--http-address", "127.0.0.1:17472"]);
        host.spawn("controller", command)
    }

    /// Starts `corten agent` on a node, in kube-proxy's place.
    pub(crate) fn agent(&self, node: &Node) -> Result<Process, LabError> {
        self.next_agent(node, "agent")
    }

    /// The same, with a log of its own: another one may run on the node.
    pub(crate) fn next_agent(&self, node: &Node, log: &str) -> Result<Process, LabError> {
        let mut command = node.host.command(bin("corten")?)?;
        command
            .arg("agent")
            .arg("--kubeconfig")
            .arg(self.plane.kubeconfig(Account::Agent))
            .args(["--api-server", &format!("https://{}", self.plane.server())])
            .args(["--forward", "all", "--node-name", node.host.name()])
            .args(["--log-level", "debug", "--http-address", "127.0.0.1:17472"]);
        node.host.spawn(log, command)
    }

    /// Waits until a process of ours says on a host that it is ready.
    pub(crate) async fn ready(&self, host: &Host) -> Result<(), WaitError> {
        let what = format!("/readyz on {}", host.name());
        let to = SocketAddr::from(([127, 0, 0, 1], 17472));
        wait_for(SOON, &what, async || {
            match host.http_get(to, "/readyz").await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.body),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// The value of a metric (the sum over its labels) on a host.
    pub(crate) async fn metric(&self, host: &Host, name: &str) -> Result<f64, Fault> {
        let to = SocketAddr::from(([127, 0, 0, 1], 17472));
        let text = host.http_get(to, "/metrics").await?.body;
        Ok(text
            .lines()
            .filter(|line| line.starts_with(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    pub(crate) async fn service(&self, name: &str) -> Result<Value, Fault> {
        let path = format!("/api/v1/namespaces/default/services/{name}");
        Ok(self.plane.api().get(&path).await?)
    }

    /// The addresses in a Service's status; none when it is not there.
    pub(crate) async fn addresses(&self, name: &str) -> Vec<String> {
        match self.service(name).await {
            Ok(service) => ingress(&service),
            Err(_) => Vec::new(),
        }
    }

    /// Waits until a Service's status has exactly these addresses.
    pub(crate) async fn has(&self, name: &str, addresses: &[&str]) -> Result<(), WaitError> {
        let what = format!("Service {name} to have {addresses:?}");
        wait_for(SOON, &what, async || {
            let found = self.addresses(name).await;
            if found == addresses {
                Ok(())
            } else {
                Err(found)
            }
        })
        .await
    }

    /// The events of a Service, oldest first, as `reason component: message`; a count above 1 in
    /// brackets.
    pub(crate) async fn events(&self, name: &str) -> Result<Vec<String>, Fault> {
        let path = format!(
            "/api/v1/namespaces/default/events\
             ?fieldSelector=involvedObject.kind%3DService,involvedObject.name%3D{name}"
        );
        let list = self.plane.api().get(&path).await?;
        let mut events: Vec<&Value> = list["items"].as_array().into_iter().flatten().collect();
        // Versions of one store are in the order of the writes.
        events.sort_by_key(|event| {
            let version = event["metadata"]["resourceVersion"].as_str();
            version.and_then(|text| text.parse::<u64>().ok())
        });
        Ok(events
            .into_iter()
            .map(|event| {
                let count = match event["count"].as_u64() {
                    Some(1) => String::new(),
                    count => format!(" [{count:?}]"),
                };
                format!(
                    "{} {}: {}{count}",
                    event["reason"].as_str().unwrap_or_default(),
                    event["source"]["component"].as_str().unwrap_or_default(),
                    event["message"].as_str().unwrap_or_default(),
                )
            })
            .collect())
    }

    /// Waits until a Service has an event with this beginning.
    pub(crate) async fn event(&self, name: &str, beginning: &str) -> Result<String, WaitError> {
        let what = format!("an event {beginning:?} on Service {name}");
        wait_for(SOON, &what, async || {
            let events = self.events(name).await.map_err(|e| vec![e.to_string()])?;
            let found = events.iter().rfind(|event| event.starts_with(beginning));
            found.cloned().ok_or(events)
        })
        .await
    }

    /// Which pods answer at `ip` in `pages` requests, each over a connection of its own.
    pub(crate) async fn spread(&self, ip: IpAddr, pages: u32) -> Result<BTreeSet<String>, Fault> {
        let mut pods = BTreeSet::new();
        for _ in 0..pages {
            let to = SocketAddr::new(ip, 80);
            let answer = self.scene.client.http_get(to, "/").await?;
            pods.insert(answer.backend().to_owned());
        }
        Ok(pods)
    }
}

/// `status.loadBalancer.ingress[].ip`.
pub(crate) fn ingress(service: &Value) -> Vec<String> {
    let entries = service["status"]["loadBalancer"]["ingress"].as_array();
    let entries = entries.into_iter().flatten();
    entries
        .filter_map(|entry| entry["ip"].as_str().map(str::to_owned))
        .collect()
}

/// A file or folder of the repository.
pub(crate) fn root(path: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path);
    path.display().to_string()
}

/// Memory of a process in KiB, as a line of its `/proc/PID/status` says: `VmRSS`, `RssAnon`.
pub(crate) fn memory_kib(process: &Process, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()));
    let status = status.unwrap_or_default();
    let line = status.lines().find_map(|found| found.strip_prefix(line));
    let number = line.and_then(|line| {
        line.trim_start_matches(':')
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    number.unwrap_or(0)
}
