//! One side of the comparison: a control plane with a controller on it.

use std::path::{Path, PathBuf};

use lab::controlplane::{Account, Api, ApiError, ControlPlane, Write};
use lab::{Host, Lab, Process, Segment, bin, wait_until};
use serde_json::{Value, json};

use crate::{Fault, SOON};

pub(crate) const POOLS: &str = "/apis/metallb.io/v1beta1/namespaces/metallb-system/ipaddresspools";
pub(crate) const NAMESPACES: &str = "/api/v1/namespaces";

/// Whose controller runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Controller {
    Corten,
    /// MetalLB's, with its binary.
    MetalLb(PathBuf),
}

pub(crate) struct Side {
    pub(crate) plane: ControlPlane,
    host: Host,
    controller: Controller,
    process: Process,
}

impl Side {
    /// A control plane with the CRDs, a controller on the same host. `number` tells the sides'
    /// addresses apart.
    pub(crate) async fn start(
        lab: &Lab,
        lan: &Segment,
        number: u8,
        control_plane: &Path,
        controller: Controller,
    ) -> Result<Self, Fault> {
        let name = match controller {
            Controller::Corten => "corten",
            Controller::MetalLb(_) => "metallb",
        };
        let host = lab.host(name).await?;
        lan.attach(&host, &[&format!("10.0.0.{number}/24")]).await?;
        let plane = ControlPlane::start(control_plane, lab, &host, host.address(false)?).await?;
        let crds = root("deploy/crds");
        let install = ["apply", "-f", &crds, "-f", &root("deploy/rbac.yaml")];
        plane.kubectl_ok(&host, &install, "").await?;
        let established = ["wait", "--for=condition=Established", "-f", &crds];
        plane.kubectl_ok(&host, &established, "").await?;
        if controller != Controller::Corten {
            // It wants a Pod of its own, which owns its ConfigurationState.
            let pod = json!({
                "metadata": {"name": "controller"},
                "spec": {"containers": [{"name": "controller", "image": "controller"}]},
            });
            let pods = "/api/v1/namespaces/metallb-system/pods";
            plane.api().create(pods, &pod).await?;
        }
        let process = spawn(&host, &plane, &controller)?;
        Ok(Self {
            plane,
            host,
            controller,
            process,
        })
    }

    /// Stops the controller as Kubernetes would, and starts it again.
    pub(crate) async fn restart(&mut self) -> Result<(), Fault> {
        self.process.terminate();
        let ended = async || self.process.try_wait().is_ok_and(|status| status.is_some());
        wait_until(SOON, "the controller to end", ended).await?;
        self.process = spawn(&self.host, &self.plane, &self.controller)?;
        Ok(())
    }

    pub(crate) fn api(&self) -> &Api {
        self.plane.api()
    }

    /// Does a write; the HTTP status if it was refused.
    pub(crate) async fn write(&self, write: &Write) -> Result<Option<u16>, ApiError> {
        match self.api().write(write).await {
            Ok(()) => Ok(None),
            Err(ApiError::Refused { status, .. }) => Ok(Some(status)),
            Err(error) => Err(error),
        }
    }

    /// The controller does not run for a while.
    pub(crate) fn freeze(&self) {
        self.process.freeze();
    }

    pub(crate) fn thaw(&self) {
        self.process.thaw();
    }

    pub(crate) fn name(&self) -> &str {
        self.host.name()
    }

    /// The end of the controller's log, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.process.try_wait().ok()??;
        let log = self.process.log();
        let start = log.len().saturating_sub(2000);
        let end = log.get(start..).unwrap_or_default();
        Some(format!(
            "{}'s controller ended ({status}): {end}",
            self.host.name()
        ))
    }
}

fn spawn(host: &Host, plane: &ControlPlane, controller: &Controller) -> Result<Process, Fault> {
    let command = match controller {
        Controller::Corten => {
            let mut command = host.command(bin("corten")?)?;
            command
                .arg("controller")
                .arg("--kubeconfig")
                .arg(plane.kubeconfig(Account::Controller))
                .args(["--pod-name", host.name(), "--log-level", "debug"])
                .args(["--http-address", "127.0.0.1:17472"]);
            command
        }
        Controller::MetalLb(binary) => {
            let mut command = host.command(binary)?;
            command
                .env("KUBECONFIG", plane.kubeconfig(Account::Admin))
                .args(["--namespace", "metallb-system", "--pod-name", "controller"])
                .args(["--deployment", "controller", "--webhook-mode", "disabled"])
                .args(["--log-level", "debug"]);
            command
        }
    };
    Ok(host.spawn("controller", command)?)
}

/// A file or folder of the repository.
fn root(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path);
    path.display().to_string()
}

/// The items of a list.
pub(crate) async fn items(api: &Api, path: &str) -> Result<Vec<Value>, ApiError> {
    let mut list = api.get(path).await?;
    match list["items"].take() {
        Value::Array(items) => Ok(items),
        _ => Ok(Vec::new()),
    }
}
