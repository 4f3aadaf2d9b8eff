//! A real cluster: kubelets, containers, kube-proxy and DNS, and Corten in kube-proxy's place; and
//! that nothing of it stays.

#[path = "../install/load.rs"]
mod load;
mod proxy;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use lab::cluster::{Cluster, Options, Parts, TOOLS};
use lab::{Lab, Outcome, wait_for};
use serde_json::Value;

/// For a whole test: a minute and a half on an idle machine.
const MINUTES: Duration = Duration::from_secs(700);
/// For a step that takes a second there.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn pods_names_and_services_work_and_nothing_stays() {
    let name = "pods_names_and_services_work_and_nothing_stays";
    let Some(parts) = Parts::or_skip(name) else {
        return;
    };
    lab::run_for(name, MINUTES, async |lab| {
        let options = Options {
            dual_stack: true,
            audit: true,
            ..Options::default()
        };
        let mut cluster = Cluster::up(&lab, &parts, options).await?;
        story(&lab, &mut cluster).await?;
        lab.say("story told");
        let hosts: Vec<_> = cluster
            .nodes()
            .iter()
            .map(|node| node.host().clone())
            .collect();
        drop(cluster);
        lab.say("down");
        for host in hosts {
            let gone = async || match host.processes() {
                Ok(left) if left.is_empty() => Ok(()),
                left => Err(format!("{left:?}")),
            };
            wait_for(SOON, &format!("no process on {}", host.name()), gone).await?;
        }
        Ok(())
    });
    assert_eq!(leftovers(std::process::id()), Vec::<String>::new());
}

/// Every node runs a server, which others find by address, by name and through kube-proxy.
async fn story(lab: &Lab, cluster: &mut Cluster) -> Outcome {
    cluster.kubectl(&["apply", "-f", "-"], &manifests()).await?;
    let wait = ["rollout", "status", "daemonset/web", "--timeout=120s"];
    cluster.kubectl(&wait, "").await?;
    lab.say("a server on each node");
    let pods = cluster
        .api()
        .get("/api/v1/namespaces/default/pods?labelSelector=app%3Dweb")
        .await?;
    let mut pods = pods["items"].as_array().cloned().unwrap_or_default();
    pods.sort_by_key(|pod| pod["spec"]["nodeName"].to_string());
    let nodes: Vec<_> = pods
        .iter()
        .map(|pod| pod["spec"]["nodeName"].as_str())
        .collect();
    assert_eq!(nodes, ["node-1", "node-2", "node-3"].map(Some));
    let (from, to) = (pod_name(&pods[0])?, pod_name(&pods[1])?);

    // From Pod to Pod on another node, in both families, with the client's own address.
    let own = addresses(&pods[0]["status"]["podIPs"], "ip")?;
    for (ip, own) in addresses(&pods[1]["status"]["podIPs"], "ip")?
        .into_iter()
        .zip(own)
    {
        let url = format!("http://{}/", SocketAddr::new(ip, 80));
        let page = cluster
            .kubectl(&["exec", from, "--", "/tools", "get", &url], "")
            .await?;
        let mut words = page.split_whitespace();
        assert_eq!(words.next(), Some(to), "{page}");
        let client: SocketAddr = words.next().unwrap_or_default().parse()?;
        assert_eq!(client.ip(), own);
    }
    lab.say("Pod to Pod");

    // The audit log has it, with the authorizer's decision.
    let log = cluster.audit_log().ok_or("no audit log")?;
    let exec = format!("/pods/{from}/exec");
    wait_for(SOON, "exec in the audit log", async || {
        let text = fs::read_to_string(&log).map_err(|e| e.to_string())?;
        let mut lines = text.lines();
        match lines.any(|line| line.contains(&exec) && line.contains("\"allow\"")) {
            true => Ok(()),
            false => Err(format!("{} lines without it", text.lines().count())),
        }
    })
    .await?;

    // The name is the Service's addresses, and behind them is a Pod.
    let service = cluster
        .api()
        .get("/api/v1/namespaces/default/services/web")
        .await?;
    let mut expected: Vec<String> = service["spec"]["clusterIPs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| ip.as_str().map(str::to_owned))
        .collect();
    expected.sort();
    assert_eq!(expected.len(), 2, "{service}");
    let full = "web.default.svc.cluster.local";
    let lookup = ["exec", from, "--", "/tools", "lookup", full];
    let found = eventually(cluster, &lookup).await?;
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
    let page = eventually(
        cluster,
        &["exec", from, "--", "/tools", "get", "http://web/"],
    )
    .await?;
    assert!(page.starts_with("web-"), "{page}");
    lab.say("the Service by its name");

    // From outside of the cluster, through a node port.
    let port = service["spec"]["ports"][0]["nodePort"]
        .as_u64()
        .ok_or("no node port")?;
    let to = SocketAddr::new("10.0.0.12".parse()?, port.try_into()?);
    let client = cluster.client().clone();
    let answer = wait_for(SOON, "an answer to the client", async || {
        client.http_get(to, "/").await.map_err(|e| e.to_string())
    });
    assert!(answer.await?.backend().starts_with("web-"));

    let names: Result<Vec<String>, String> = pods
        .iter()
        .map(|pod| pod_name(pod).map(str::to_owned))
        .collect();
    proxy::story(lab, cluster, names?).await?;

    // A node where Corten stands in kube-proxy's place loses its power, and comes back with its
    // Pod.
    let last = pod_name(&pods[2])?;
    proxy::change::alone(cluster, 2).await?;
    let node = cluster.node(2).ok_or("no third node")?;
    node.kill().await?;
    assert!(
        node.command("true").is_err(),
        "a node without power runs nothing"
    );
    proxy::change::forget(node.host())?;
    lab.say("a node killed");
    let node = cluster.node(2).ok_or("no third node")?;
    node.start().await?;
    let path = format!("/api/v1/namespaces/default/pods/{last}");
    // A disk that has much to write holds containerd up.
    wait_for(SOON * 3, "the Pod to be back", async || {
        let pod = cluster.api().get(&path).await.map_err(|e| e.to_string())?;
        let container = &pod["status"]["containerStatuses"][0];
        match (
            container["ready"].as_bool(),
            container["restartCount"].as_u64(),
        ) {
            (Some(true), Some(1..)) => Ok(()),
            _ => Err(container.to_string()),
        }
    })
    .await?;
    let page = eventually(
        cluster,
        &["exec", last, "--", "/tools", "get", "http://web/"],
    )
    .await?;
    assert!(page.starts_with("web-"), "{page}");
    lab.say("and back");
    Ok(())
}

/// kubectl until it succeeds: kube-proxy and the DNS follow the API.
async fn eventually(cluster: &Cluster, args: &[&str]) -> Result<String, lab::WaitError> {
    wait_for(SOON, &args.join(" "), async || {
        cluster.kubectl(args, "").await.map_err(|e| e.to_string())
    })
    .await
}

fn pod_name(pod: &Value) -> Result<&str, String> {
    pod["metadata"]["name"]
        .as_str()
        .ok_or_else(|| format!("no name: {pod}"))
}

fn addresses(
    list: &Value,
    key: &str,
) -> Result<Vec<IpAddr>, Box<dyn std::error::Error + Send + Sync>> {
    let list = list.as_array().into_iter().flatten();
    let parsed = list.map(|entry| Ok(entry[key].as_str().unwrap_or_default().parse()?));
    parsed.collect()
}

fn manifests() -> String {
    format!(
        "\
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: web}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: {TOOLS}
        args: [serve]
        resources: {{limits: {{memory: 64Mi, cpu: 500m}}}}
        # A machine that stands still for a moment is no answer.
        readinessProbe: {{httpGet: {{port: 80}}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 9}}
      - name: second
        image: {TOOLS}
        args: [serve, '81']
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {{app: web}}
  ports: [{{protocol: TCP, port: 80, targetPort: 80}}]
"
    )
}

/// The one that `cargo xtask cluster` keeps, under another name.
struct Kept {
    program: std::path::PathBuf,
    name: String,
}

impl Kept {
    fn run(&self, args: &[&str]) -> Output {
        let output = Command::new(&self.program)
            .args(args)
            .env("LAB_CLUSTER", &self.name)
            .output();
        output.expect("the program runs")
    }

    /// Standard output of a command that must succeed.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{args:?}:\n{out}\n{err}");
        out
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.run(&["down"]);
    }
}

#[test]
fn what_is_kept_can_be_used_and_goes_without_a_trace() {
    let name = "what_is_kept_can_be_used_and_goes_without_a_trace";
    let Some(_) = Parts::or_skip(name) else {
        return;
    };
    let cluster = Kept {
        program: lab::bin("cluster").expect("built with the tests"),
        name: format!("cluster-test-{}", std::process::id()),
    };
    let target = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target")
        .join(&cluster.name);
    let mounts = || fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let (before, start) = (mounts(), Instant::now());

    let down = cluster.run(&["kubectl", "get", "nodes"]);
    let said = String::from_utf8_lossy(&down.stderr).into_owned();
    assert!(
        !down.status.success() && said.contains("no cluster is up"),
        "{said}"
    );

    let said = cluster.ok(&["up", "--nodes", "1", "--proxy", "none"]);
    assert!(
        said.contains("CoreDNS ready") && said.contains("logs"),
        "{said}"
    );
    println!("up after {:.1} s", start.elapsed().as_secs_f64());
    let twice = cluster.run(&["up"]);
    let said = String::from_utf8_lossy(&twice.stderr).into_owned();
    assert!(
        !twice.status.success() && said.contains("up already"),
        "{said}"
    );

    let nodes = cluster.ok(&["kubectl", "get", "nodes", "-o", "name"]);
    assert_eq!(nodes, "node/node-1\n");
    assert_eq!(
        cluster
            .run(&["kubectl", "get", "node", "none"])
            .status
            .code(),
        Some(1)
    );
    assert_eq!(
        cluster.ok(&["exec", "node-1", "cat", "/proc/sys/kernel/hostname"]),
        "node-1\n"
    );
    let client = cluster.ok(&["exec", "client", "ip", "-o", "-4", "addr", "show", "eth0"]);
    assert!(client.contains("10.0.0.9/24"), "{client}");
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/tools.tar");
    cluster.ok(&["load-image", tools.to_str().expect("a plain path")]);

    let keeper = fs::read_to_string(target.join("lock")).expect("the keeper's lock");
    let keeper: u32 = keeper.trim().parse().expect("its PID");
    assert_ne!(
        leftovers(keeper),
        Vec::<String>::new(),
        "what is looked for is there"
    );
    cluster.ok(&["down"]);
    assert_eq!(leftovers(keeper), Vec::<String>::new());
    assert_eq!(ours(&before), ours(&mounts()));
    assert!(!target.exists());
    assert!(!Path::new("/proc").join(keeper.to_string()).exists());
    println!("down after {:.1} s", start.elapsed().as_secs_f64());
}

/// Mounts that a cluster would make.
fn ours(mounts: &str) -> Vec<String> {
    let marks = ["/run/node", "/lab/", "k8s.io", "kubelet", "cni-"];
    let ours = mounts
        .lines()
        .filter(|line| marks.iter().any(|mark| line.contains(mark)));
    ours.map(str::to_owned).collect()
}

/// Cgroups, and processes in them or in the sandbox, of a cluster whose sandbox this process
/// started.
fn leftovers(starter: u32) -> Vec<String> {
    let mark = format!("corten-lab-{starter}-");
    let mut found = Vec::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        let groups = fs::read_dir(hierarchy.path())
            .into_iter()
            .flatten()
            .flatten();
        let ours = groups.filter(|entry| entry.file_name().to_string_lossy().contains(&mark));
        found.extend(ours.map(|entry| entry.path().display().to_string()));
    }
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        for file in ["cgroup", "environ"] {
            let path = process.path().join(file);
            let content = fs::read(&path).unwrap_or_default();
            if String::from_utf8_lossy(&content).contains(&mark) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}
