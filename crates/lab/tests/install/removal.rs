//! `kubectl delete -f` removes what Corten has put on nodes and in the cluster, but no Service's
//! address: a reinstall renumbers nothing. `helm uninstall` does the same, in its own order; the
//! namespace is the user's then. `corten uninstall --release` takes the addresses too.

use std::process::Output;

use lab::chart::Chart;
use lab::controlplane::Account;
use lab::{Outcome, bin, wait_for};

use crate::stage::{ADDRESS, SOON, SYSTEM, Stage, root};

/// The Service that is given up, so that its address is the first free one.
const THIRD: &str = "\
apiVersion: v1
kind: Service
metadata: {name: third}
spec:
  type: LoadBalancer
  selector: {app: myapp}
  ports: [{protocol: TCP, port: 80, targetPort: 80}]
";

pub(crate) async fn story(stage: &Stage, chart: &Chart) -> Outcome {
    forwarding(stage).await?;
    stage.apply(THIRD).await?;
    let kept = stage.addressed("third").await?.to_string();
    stage.kubectl(&["delete", "service", "myapp-svc"]).await?;

    let delete = "kubectl delete -f deploy/corten.yaml --timeout=150s";
    stage.line(delete).await?;
    nothing_is_left(stage).await?;
    assert_eq!(
        stage.address_of("third").await?.map(|ip| ip.to_string()),
        Some(kept.clone())
    );
    stage.lab.say("removed; Services keep their addresses");

    let charted = "helm install corten deploy/chart --create-namespace --set forward=vips";
    helm(stage, chart, charted).await?;
    stage.line("kubectl apply -f examples/l2").await?;
    stage.answers(ADDRESS).await?;
    stage.answers(&kept).await?;
    assert_eq!(
        stage.addressed("third").await?.to_string(),
        kept,
        "renumbered"
    );
    assert_eq!(stage.addressed("myapp-svc").await?.to_string(), ADDRESS);
    stage.rolled_out().await?;
    forwarded(stage).await?;
    stage
        .lab
        .say("installed again, by helm: nothing is renumbered");

    let refused = release(stage).await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("still leads"),
        "{said}"
    );
    helm(stage, chart, "helm uninstall corten").await?;
    unowned(stage).await?;
    let namespace = format!("kubectl delete namespace {SYSTEM} --timeout=150s");
    stage.line(&namespace).await?;
    nothing_is_left(stage).await?;
    stage.lab.say("removed by helm");
    assert!(stage.address_of("third").await?.is_some());
    let done = release(stage).await?;
    assert!(done.status.success(), "{done:?}");
    for service in ["myapp-svc", "second", "third"] {
        assert_eq!(stage.address_of(service).await?, None, "{service}");
        let path = format!("/api/v1/namespaces/default/services/{service}");
        let service = stage.cluster.api().get(&path).await?;
        let annotations = &service["metadata"]["annotations"];
        assert!(
            annotations["metallb.io/ip-allocated-from-pool"].is_null(),
            "{service}"
        );
        assert!(service["metadata"]["finalizers"].is_null(), "{service}");
    }
    stage.lab.say("released");
    Ok(())
}

/// The agents keep something in the kernel, also while they are restarted.
async fn forwarding(stage: &Stage) -> Outcome {
    let manifest = std::fs::read_to_string(root().join("deploy/corten.yaml"))?;
    let forwards = manifest.replace("--forward=off", "--forward=vips");
    assert_ne!(manifest, forwards);
    stage.apply(&forwards).await?;
    stage.rolled_out().await?;
    stage.answers(ADDRESS).await?;
    let before = forwarded(stage).await?;
    let on_one = "--field-selector=spec.nodeName=node-1";
    let agent = [
        "delete",
        "pods",
        "-n",
        SYSTEM,
        "-l",
        "component=speaker",
        on_one,
    ];
    stage.kubectl(&agent).await?;
    stage.rolled_out().await?;
    assert_eq!(tables(stage)?, before, "the table outlives its agent");
    stage.answers(ADDRESS).await?;
    stage.lab.say("agents forward, and were restarted");
    Ok(())
}

/// Waits until each node has a table of ours: an agent is ready before it has its place.
async fn forwarded(stage: &Stage) -> Result<Vec<Option<String>>, lab::WaitError> {
    wait_for(SOON, "a table on each node", async || match tables(stage) {
        Ok(tables) if tables.iter().all(Option::is_some) => Ok(tables),
        other => Err(format!("{other:?}")),
    })
    .await
}

/// Runs a line of helm on the client; files are of the repository.
async fn helm(stage: &Stage, chart: &Chart, line: &str) -> Outcome {
    let homes = stage.lab.dir().join("helm");
    let mut command = stage.cluster.client().command(chart.program())?;
    for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(home, &homes);
    }
    command
        .current_dir(root())
        .args(line.split_whitespace().skip(1))
        .args(["--namespace", SYSTEM, "--timeout", "150s", "--kubeconfig"])
        .arg(stage.cluster.plane().kubeconfig(Account::Admin));
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{line}: {output:?}").into()),
    }
}

/// Waits until the namespace, which helm leaves, has nothing of Corten any more.
async fn unowned(stage: &Stage) -> Outcome {
    wait_for(SOON, "the namespace to be empty", async || {
        for kind in ["pods", "leases", "secrets", "serviceaccounts", "services"] {
            let list = format!("kubectl get {kind} -n {SYSTEM} -o name");
            let names = stage.line(&list).await.map_err(|e| e.to_string())?;
            if !names.lines().all(|name| name == "serviceaccount/default") {
                return Err(names);
            }
        }
        Ok(())
    })
    .await?;
    Ok(())
}

/// Each node's table of ours, with its handle, which a new table would not have.
fn tables(stage: &Stage) -> Result<Vec<Option<String>>, Box<dyn std::error::Error + Send + Sync>> {
    let nodes = stage.cluster.nodes().iter().map(|node| {
        let output = node
            .host()
            .command("nft")?
            .args(["-a", "list", "tables"])
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        let mut lines = text.lines();
        Ok(lines
            .find(|line| line.contains(" corten"))
            .map(str::to_owned))
    });
    nodes.collect()
}

async fn nothing_is_left(stage: &Stage) -> Outcome {
    wait_for(SOON, "the nodes to be clean", async || {
        match tables(stage) {
            Ok(tables) if tables.iter().all(Option::is_none) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    for node in stage.cluster.nodes() {
        for show in [["address", "show"], ["route", "show"]] {
            let output = node.host().command("ip")?.args(show).output()?;
            let text = String::from_utf8(output.stdout)?;
            assert!(
                !text.contains("10.0.0.10") && !text.contains("kube-lb"),
                "{text}"
            );
        }
    }
    for kind in [
        "namespaces",
        "leases -A",
        "crds",
        "clusterroles",
        "clusterrolebindings",
        "validatingwebhookconfigurations",
    ] {
        let names = stage.line(&format!("kubectl get {kind} -o name")).await?;
        let ours = ["corten", "metallb"];
        let left: Vec<&str> = names
            .lines()
            .filter(|line| ours.iter().any(|name| line.contains(name)))
            .collect();
        assert!(left.is_empty(), "left: {left:?}");
    }
    Ok(())
}

async fn release(stage: &Stage) -> Result<Output, Box<dyn std::error::Error + Send + Sync>> {
    let mut command = stage.cluster.client().command(bin("corten")?)?;
    command
        .args([
            "uninstall",
            "--release",
            "--namespace",
            SYSTEM,
            "--kubeconfig",
        ])
        .arg(stage.cluster.plane().kubeconfig(Account::Admin));
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}
