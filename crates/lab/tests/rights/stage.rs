//! The stage: an audited API server, `deploy/corten.yaml` applied to it, and Corten's processes
//! started as its Pods would be: their arguments, their accounts.
//!
//! There are no kubelets and no kube-proxy: the first controller's host has the ClusterIP of the
//! webhook's Service as an address of its own, and listens on the Service's port.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lab::chart::{NAMESPACE, deploy};
use lab::controlplane::{Account, ControlPlane};
use lab::scene::Scene;
use lab::{Host, Lab, Process, bin, wait_for};
use serde_json::Value;

/// No test takes as long; machines differ.
pub(crate) const MINUTES: Duration = Duration::from_secs(600);
/// The webhook's keeper looks every 10 s, and the machine may have too much to do.
pub(crate) const SOON: Duration = Duration::from_secs(90);
const KEY: &str = "--member-key-file=";

/// One control plane at a time.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) scene: Scene,
    pub(crate) plane: ControlPlane,
    pub(crate) api_host: Host,
    /// Where the webhook's Service leads.
    pub(crate) controller: Host,
    pub(crate) standby: Host,
}

impl Stage {
    pub(crate) async fn build(lab: Lab, binary: &Path) -> Result<Self, Fault> {
        let scene = Scene::build(&lab, 2).await?;
        let api_host = lab.host("api").await?;
        let (controller, standby) = (lab.host("controller").await?, lab.host("standby").await?);
        scene.lan.attach(&api_host, &["10.0.0.5/24"]).await?;
        scene.lan.attach(&controller, &["10.0.0.7/24"]).await?;
        scene.lan.attach(&standby, &["10.0.0.8/24"]).await?;
        let address = api_host.address(false)?;
        let plane = ControlPlane::start_audited(binary, &lab, &api_host, address).await?;
        let stage = Self {
            lab,
            scene,
            plane,
            api_host,
            controller,
            standby,
        };
        let published = deploy().join("corten.yaml").display().to_string();
        stage.kubectl(&["apply", "-f", &published], "").await?;
        for node in &stage.scene.nodes {
            let api = stage.plane.api();
            api.create_node(node.host.name(), &[node.ip], &[]).await?;
        }
        let service = format!("/api/v1/namespaces/{NAMESPACE}/services/metallb-webhook-service");
        let service = stage.plane.api().get(&service).await?;
        let ip = service["spec"]["clusterIP"]
            .as_str()
            .ok_or("no ClusterIP")?;
        let ip = format!("{ip}/32");
        stage.controller.add_address("eth0", &ip).await?;
        stage.api_host.add_route(&ip, "10.0.0.7").await?;
        stage.say("the manifests are applied");
        Ok(stage)
    }

    pub(crate) fn say(&self, step: impl std::fmt::Display) {
        self.lab.say(step.to_string());
    }

    pub(crate) async fn kubectl(&self, args: &[&str], stdin: &str) -> Result<String, Fault> {
        Ok(self.plane.kubectl_ok(&self.api_host, args, stdin).await?)
    }

    pub(crate) async fn apply(&self, manifests: &str) -> Result<(), Fault> {
        self.kubectl(&["apply", "-f", "-"], manifests).await?;
        Ok(())
    }

    /// The arguments of a Pod's only container.
    async fn arguments(&self, kind: &str, name: &str) -> Result<Vec<String>, Fault> {
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/{kind}/{name}");
        let object = self.plane.api().get(&path).await?;
        let list = &object["spec"]["template"]["spec"]["containers"][0]["args"];
        let list = list.as_array().ok_or("no arguments")?;
        let words = list.iter().filter_map(Value::as_str);
        Ok(words.map(str::to_owned).collect())
    }

    /// A replica of the Deployment.
    pub(crate) async fn replica(&self, host: &Host) -> Result<Process, Fault> {
        let mut command = host.command(bin("corten")?)?;
        command
            .args(self.arguments("deployments", "corten-controller").await?)
            .args(["--webhook-port", "443", "--kubeconfig"])
            .arg(self.plane.kubeconfig(Account::Controller))
            .env("METALLB_NAMESPACE", NAMESPACE)
            .env("METALLB_POD_NAME", host.name());
        Ok(host.spawn("controller", command)?)
    }

    /// The DaemonSet's Pod on a node.
    pub(crate) async fn agent(&self, node: &Host) -> Result<Process, Fault> {
        let key = self.member_key().await?;
        let arguments = self.arguments("daemonsets", "corten-agent").await?;
        let arguments = arguments.into_iter().map(|word| {
            // Where its Pod has the Secret mounted.
            match word.starts_with(KEY) {
                true => format!("{KEY}{key}"),
                false => word,
            }
        });
        let mut command = node.command(bin("corten")?)?;
        command
            .args(arguments)
            .arg("--kubeconfig")
            .arg(self.plane.kubeconfig(Account::Agent))
            .env("METALLB_NAMESPACE", NAMESPACE)
            .env("METALLB_POD_NAME", format!("agent-{}", node.name()))
            .env("METALLB_NODE_NAME", node.name());
        Ok(node.spawn("agent", command)?)
    }

    /// A folder with the Secret that the controller makes, as a kubelet would mount it.
    async fn member_key(&self) -> Result<String, Fault> {
        let template = "--output=go-template={{.data.secretkey | base64decode}}";
        let ask = [
            "get",
            "secret",
            "corten-memberlist",
            "-n",
            NAMESPACE,
            template,
        ];
        let key = wait_for(SOON, "the agents' Secret", async || {
            self.kubectl(&ask, "").await.map_err(|e| e.to_string())
        })
        .await?;
        let folder = self.lab.dir().join("ml_secret_key");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("secretkey"), key)?;
        Ok(folder.display().to_string())
    }

    /// Waits for what `path` holds to be as wanted.
    pub(crate) async fn shows(
        &self,
        path: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, Fault> {
        let what = format!("{path}: {what}");
        let found = wait_for(SOON, &what, async || {
            let found = self.plane.api().get(path).await;
            let found = found.map_err(|error| error.to_string())?;
            match wanted(&found) {
                true => Ok(found),
                false => Err(found.to_string()),
            }
        });
        Ok(found.await?)
    }
}
