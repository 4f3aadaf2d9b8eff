//! What all steps use: the cluster, the images, objects and answers.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lab::cluster::image::Image;
use lab::cluster::{Cluster, TOOLS};
use lab::{Lab, Outcome, bin, wait_for};
use serde_json::Value;

/// For a step that takes seconds on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(150);
/// The image that the manifests name.
pub(crate) const FIRST: &str = "corten:0.1.0";
/// The same program under another name.
pub(crate) const SECOND: &str = "corten:0.1.1";
pub(crate) const SYSTEM: &str = "metallb-system";
/// The examples' first address.
pub(crate) const ADDRESS: &str = "10.0.0.101";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a command to its end; its output.
fn run(command: &mut Command) -> Result<String, Failure> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(format!("{command:?}: {output:?}").into()),
    }
}

pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) cluster: Cluster,
    /// What is applied as `deploy/corten.yaml`.
    pub(crate) manifest: PathBuf,
}

/// The published file.
const PUBLISHED: &str = "deploy/corten.yaml";

/// A copy of it that is slow to find a death: three nodes share the test machine's cores, and a
/// process that is not run for 110 ms counts as dead, whatever these tests are about.
fn patient(lab: &Lab) -> Result<PathBuf, Failure> {
    let text = std::fs::read_to_string(root().join(PUBLISHED))?;
    let (from, to) = ("--member-profile=default", "--member-profile=slow");
    assert_eq!(text.matches(from).count(), 1, "{from} in {PUBLISHED}");
    let copy = lab.dir().join("corten.yaml");
    std::fs::write(&copy, text.replace(from, to))?;
    Ok(copy)
}

/// Names the step in its error.
pub(crate) async fn step(name: &str, story: impl Future<Output = Outcome>) -> Outcome {
    story
        .await
        .map_err(|error| format!("{name}: {}", chain(&*error)).into())
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

impl Stage {
    /// Every node has both images; `myapp` runs. Nothing of Corten is there yet.
    pub(crate) async fn set(lab: Lab, cluster: Cluster) -> Result<Self, Failure> {
        let program = lab.dir().join("corten");
        // Debugging symbols are nine tenths of it.
        let built = bin("corten")?;
        run(Command::new("strip").arg("-o").arg(&program).arg(&built))?;
        // A published program is static; this one brings its libraries along.
        let needs = run(Command::new("ldd").arg(&built))?;
        let libraries = needs
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        let mut files = vec![("/corten", program.as_path())];
        files.extend(libraries.map(|library| (library, Path::new(library))));
        let archive = lab.dir().join("corten.tar");
        Image {
            reference: FIRST,
            files: &files,
            entrypoint: &["/corten"],
            arguments: &[],
        }
        .write(&archive)?;
        cluster.load_image(&archive).await?;
        // As containerd has them that come without a registry's name.
        let full = [FIRST, SECOND].map(|name| format!("docker.io/library/{name}"));
        cluster.tag_image(&full[0], &full[1]).await?;
        let manifest = patient(&lab)?;
        let stage = Self {
            lab,
            cluster,
            manifest,
        };
        stage.apply(&myapp()).await?;
        let wait = ["rollout", "status", "deployment/myapp", "--timeout=150s"];
        stage.kubectl(&wait).await?;
        stage.lab.say("images loaded, myapp runs");
        Ok(stage)
    }

    pub(crate) async fn kubectl(&self, args: &[&str]) -> Result<String, Failure> {
        Ok(self.cluster.kubectl(args, "").await?)
    }

    /// Empties the connection tables of the nodes. A SYN that came before kube-proxy knew of the
    /// Service stands there untranslated for two minutes, and a later connection from the same
    /// port is treated like it: that says nothing of who announces.
    pub(crate) fn forget_flows(&self) -> Result<(), Failure> {
        for node in self.cluster.nodes() {
            // One without power has none.
            if let Ok(mut conntrack) = node.command("conntrack") {
                run(conntrack.arg("-F"))?;
            }
        }
        Ok(())
    }

    /// A line of a shell; files are of the repository.
    pub(crate) async fn line(&self, line: &str) -> Result<String, Failure> {
        let words: Vec<String> = line
            .split_whitespace()
            .map(|word| match root().join(word) {
                _ if word == PUBLISHED => self.manifest.display().to_string(),
                path if path.exists() => path.display().to_string(),
                _ => word.to_owned(),
            })
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.split_first() {
            Some((&"kubectl", args)) => self.kubectl(args).await,
            _ => Err(format!("only kubectl is known here: {line}").into()),
        }
    }

    pub(crate) async fn apply(&self, manifest: &str) -> Result<String, Failure> {
        Ok(self
            .cluster
            .kubectl(&["apply", "-f", "-"], manifest)
            .await?)
    }

    /// Waits until all of Corten's Pods are new and ready.
    pub(crate) async fn rolled_out(&self) -> Outcome {
        for workload in ["deployment/corten-controller", "daemonset/corten-agent"] {
            let rollout = [
                "rollout",
                "status",
                "-n",
                SYSTEM,
                workload,
                "--timeout=180s",
            ];
            if let Err(error) = self.kubectl(&rollout).await {
                let pods = ["describe", "pods", "-n", SYSTEM];
                let pods = self.kubectl(&pods).await.unwrap_or_default();
                return Err(format!("{error}\n{pods}").into());
            }
        }
        Ok(())
    }

    /// The Service's first address.
    pub(crate) async fn address_of(&self, service: &str) -> Result<Option<IpAddr>, Failure> {
        let path = format!("/api/v1/namespaces/default/services/{service}");
        let service = self.cluster.api().get(&path).await?;
        let ip = &service["status"]["loadBalancer"]["ingress"][0]["ip"];
        Ok(ip.as_str().map(str::parse).transpose()?)
    }

    /// Waits until the Service has an address, and gives it.
    pub(crate) async fn addressed(&self, service: &str) -> Result<IpAddr, Failure> {
        let what = format!("an address of {service}");
        let address = wait_for(SOON, &what, async || match self.address_of(service).await {
            Ok(Some(ip)) => Ok(ip),
            Ok(None) => Err("none".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        Ok(address.await?)
    }

    /// Waits until the client gets a page from this address; gives the Pod's name.
    pub(crate) async fn answers(&self, address: impl Display) -> Result<String, Failure> {
        let to = SocketAddr::new(address.to_string().parse()?, 80);
        let client = self.cluster.client();
        let what = format!("an answer from {to}");
        let answer = wait_for(SOON, &what, async || {
            client.http_get(to, "/").await.map_err(|e| chain(&e))
        });
        Ok(answer.await?.backend().to_owned())
    }

    /// Waits until a node answers ARP for the address.
    pub(crate) async fn announced(&self, address: IpAddr) -> Outcome {
        let (client, window) = (self.cluster.client(), Duration::from_millis(300));
        wait_for(SOON, "a node to answer ARP", async || {
            let answers = client.who_has("eth0", address, window).await;
            match answers.map_err(|e| chain(&e))?.as_slice() {
                [] => Err("none".to_owned()),
                _ => Ok(()),
            }
        })
        .await?;
        Ok(())
    }

    /// Which node answers ARP for the address, asked from outside.
    pub(crate) async fn announcer(&self, address: &str) -> Result<usize, Failure> {
        let mut macs = Vec::new();
        for node in self.cluster.nodes() {
            let mac = node.host().mac("eth0").await?;
            macs.push(mac.map(|octet| format!("{octet:02x}")).join(":"));
        }
        self.answers(address).await?;
        let mut command = self.cluster.client().command("ip")?;
        command.args(["neighbour", "show", "to", address]);
        let output = command.output()?;
        let line = String::from_utf8(output.stdout)?;
        let found = macs.iter().position(|mac| line.contains(mac.as_str()));
        found.ok_or_else(|| format!("{line:?} is none of {macs:?}").into())
    }

    /// The objects of a list.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Value>, Failure> {
        let list = self.cluster.api().get(path).await?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }
}

/// The Deployment that the examples' Service selects.
fn myapp() -> String {
    format!(
        "\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: myapp}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: myapp}}}}
  template:
    metadata: {{labels: {{app: myapp}}}}
    spec:
      terminationGracePeriodSeconds: 4
      containers:
      - name: web
        image: {TOOLS}
        args: [serve]
        # kube-proxy hears of a Pod's end no sooner than the Pod.
        lifecycle: {{preStop: {{sleep: {{seconds: 2}}}}}}
        # A machine that stands still for a moment is no answer.
        readinessProbe: {{httpGet: {{port: 80}}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 5}}
"
    )
}
