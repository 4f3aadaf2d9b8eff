//! The stage: an API server, a host for the controller in front of which the webhook's Service
//! is, and what is asked of both.
//!
//! There is no kube-proxy: the controller's host has the Service's ClusterIP as an address of its
//! own, and listens on the Service's port.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lab::controlplane::{Account, ControlPlane};
use lab::{Host, Lab, Process, bin, wait_for};
use serde_json::{Value, json};

pub(crate) const MINUTES: Duration = Duration::from_secs(300);
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// The keeper looks every 10 s.
pub(crate) const NEXT_LOOK: Duration = Duration::from_secs(50);
pub(crate) const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/\
    validatingwebhookconfigurations/metallb-webhook-configuration";
pub(crate) const SECRET: &str = "/api/v1/namespaces/metallb-system/secrets/metallb-webhook-cert";
/// What every refusal of an overlapping pool says.
pub(crate) const OVERLAPS: &str = "overlaps with already defined CIDR";

/// One control plane at a time.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct Story {
    pub(crate) lab: Lab,
    pub(crate) plane: ControlPlane,
    pub(crate) api: Host,
    /// Where the webhook's Service leads.
    pub(crate) controller: Host,
    /// A second replica's.
    pub(crate) standby: Host,
}

pub(crate) fn root(path: &str) -> String {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join(path).display().to_string()
}

pub(crate) fn object(kind: &str, name: &str, spec: Value) -> Value {
    let version = if kind == "BGPPeer" {
        "v1beta2"
    } else {
        "v1beta1"
    };
    json!({
        "apiVersion": format!("metallb.io/{version}"),
        "kind": kind,
        "metadata": {"name": name, "namespace": "metallb-system"},
        "spec": spec,
    })
}

pub(crate) fn pool(name: &str, range: &str) -> Value {
    object("IPAddressPool", name, json!({"addresses": [range]}))
}

impl Story {
    pub(crate) async fn build(lab: &Lab, binary: &Path) -> Result<Self, Fault> {
        let lan = lab.segment("lan").await?;
        let (api, controller) = (lab.host("api").await?, lab.host("controller").await?);
        let standby = lab.host("standby").await?;
        lan.attach(&api, &["10.0.0.5/24"]).await?;
        lan.attach(&controller, &["10.0.0.10/24"]).await?;
        lan.attach(&standby, &["10.0.0.11/24"]).await?;
        let plane = ControlPlane::start(binary, lab, &api, api.address(false)?).await?;
        let story = Self {
            lab: lab.clone(),
            plane,
            api,
            controller,
            standby,
        };
        story.install().await?;
        Ok(story)
    }

    /// Starts `corten controller` under a name, with more flags.
    pub(crate) fn run(&self, host: &Host, name: &str, flags: &[&str]) -> Result<Process, Fault> {
        let mut command = host.command(bin("corten")?)?;
        command
            .args(["controller", "--webhook-port", "443", "--pod-name", name])
            .arg("--log-level=debug")
            .arg("--kubeconfig")
            .arg(self.plane.kubeconfig(Account::Controller))
            .args(flags);
        Ok(host.spawn(name, command)?)
    }

    /// Six entries that are in force.
    pub(crate) async fn registered(&self) -> Result<(), Fault> {
        wait_for(NEXT_LOOK, "six entries with policy Fail", async || {
            let entries = self.entries().await.map_err(|error| error.to_string())?;
            let good = entries
                .iter()
                .all(|(policy, bundle)| policy == "Fail" && !bundle.is_empty());
            if entries.len() == 6 && good {
                Ok(())
            } else {
                Err(format!("{entries:?}"))
            }
        })
        .await?;
        Ok(())
    }

    /// How often the API server asked the replica on the first host, by path and answer.
    pub(crate) async fn asked(&self, path: &str, answer: &str) -> Result<u64, Fault> {
        let text = self.scrape("lab-admin").await??;
        let line = format!("corten_webhook_requests_total{{answer=\"{answer}\",path=\"{path}\"}} ");
        let found = text.lines().find_map(|found| found.strip_prefix(&line));
        Ok(found.map_or(Ok(0), str::parse)?)
    }

    /// Asks a process to stop and waits for its end.
    pub(crate) async fn end(&self, process: &mut Process) -> Result<(), Fault> {
        process.terminate();
        process.wait(SOON).await?;
        Ok(())
    }

    pub(crate) async fn kubectl(&self, args: &[&str]) -> Result<String, Fault> {
        Ok(self.plane.kubectl_ok(&self.api, args, "").await?)
    }

    /// What kubectl says to an object: Ok, or why not.
    pub(crate) async fn apply(&self, object: &Value) -> Result<Result<String, String>, Fault> {
        let args = ["apply", "-f", "-"];
        let text = object.to_string();
        let output = self.plane.kubectl(&self.api, &args, &text).await?;
        let said = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
        Ok(match output.status.success() {
            true => Ok(said(&output.stdout)),
            false => Err(said(&output.stderr)),
        })
    }

    pub(crate) async fn accepted(&self, object: &Value) -> Result<(), Fault> {
        match self.apply(object).await? {
            Ok(_) => Ok(()),
            Err(why) => Err(format!("{object} was refused: {why}").into()),
        }
    }

    /// Refused by the webhook itself, with these words.
    pub(crate) async fn refused(&self, object: &Value, words: &str) -> Result<(), Fault> {
        match self.apply(object).await? {
            Err(why) if why.contains(words) && why.contains("denied the request") => Ok(()),
            Err(why) => Err(format!("{words:?} is not in the webhook's {why:?}").into()),
            Ok(said) => Err(format!("{said}: not refused, {words:?} expected").into()),
        }
    }

    pub(crate) async fn refused_by_cel(&self, object: &Value, field: &str) -> Result<(), Fault> {
        match self.apply(object).await? {
            Err(why) if why.contains(field) && !why.contains("denied the request") => Ok(()),
            other => Err(format!("{field:?} expected from the CRD's rules: {other:?}").into()),
        }
    }

    pub(crate) async fn install(&self) -> Result<(), Fault> {
        let crds = root("deploy/crds");
        let (rbac, webhook) = (root("deploy/rbac.yaml"), root("deploy/webhook.yaml"));
        self.kubectl(&["apply", "-f", &crds, "-f", &rbac, "-f", &webhook])
            .await?;
        self.kubectl(&["wait", "--for=condition=Established", "-f", &crds])
            .await?;
        let address = self
            .kubectl(&[
                "get",
                "service",
                "metallb-webhook-service",
                "-n",
                "metallb-system",
                "-o",
                "jsonpath={.spec.clusterIP}",
            ])
            .await?;
        let address = format!("{}/32", address.trim());
        self.controller.add_address("eth0", &address).await?;
        self.api.add_route(&address, "10.0.0.10").await?;
        Ok(())
    }

    /// `FailurePolicy bundles` of all entries.
    pub(crate) async fn entries(&self) -> Result<Vec<(String, String)>, Fault> {
        let there = self.plane.api().get(CONFIGURATION).await?;
        let entries = there["webhooks"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(entries
            .map(|entry| {
                (
                    text(&entry["failurePolicy"]),
                    text(&entry["clientConfig"]["caBundle"]),
                )
            })
            .collect())
    }

    /// kubectl as an HTTPS client with a token.
    pub(crate) async fn scrape(&self, token: &str) -> Result<Result<String, String>, Fault> {
        let args = [
            "--kubeconfig=/dev/null",
            "--server=https://10.0.0.10:9120",
            "--insecure-skip-tls-verify",
            &format!("--token={token}"),
            "get",
            "--raw=/metrics",
        ];
        let output = self.plane.kubectl(&self.api, &args, "").await?;
        let said = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
        Ok(match output.status.success() {
            true => Ok(said(&output.stdout)),
            false => Err(said(&output.stderr)),
        })
    }
}
