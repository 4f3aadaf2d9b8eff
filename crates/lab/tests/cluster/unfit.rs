//! A node that lacks what an agent needs: the agent says so where people look, and goes on living.

use std::net::SocketAddr;

use lab::controlplane::{Account, binary_or_skip};
use lab::{Host, LabError, Outcome, Process, WaitError, bin, wait_for};

use crate::stage::{MINUTES, SOON, Stage, turn};

#[test]
fn what_a_node_lacks_is_said_and_nothing_ends() {
    let name = "unfit::what_a_node_lacks_is_said_and_nothing_ends";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    let _turn = turn();
    lab::run_for(name, MINUTES, async |lab| {
        let stage = Stage::build(lab, &binary, 1).await?;
        let host = &stage.scene.nodes[0].host;
        for (capability, forward, what) in [
            ("net_raw", "off", "may not answer ARP and NDP"),
            (
                "net_admin",
                "all",
                "may not program the kernel's forwarding",
            ),
        ] {
            let pod = capability.replace('_', "-");
            let mut process = without(&stage, host, capability, forward, &pod)?;
            let lacks = format!("lacks the capability {}", capability.to_uppercase());
            says(host, "/readyz", 503, &[what, &lacks, "remedy: "]).await?;
            told(&stage, &pod, &[what, &lacks, "remedy: "]).await?;
            let log = process.log();
            assert!(log.contains(&lacks), "{log}");
            // It lives: a kubelet would leave it alone.
            says(host, "/healthz", 200, &["ok"]).await?;
            process.terminate();
            let ended = process.wait(SOON).await?;
            assert!(ended.success(), "{ended}: {}", process.log());
            stage.say(format!("{capability}: said"));
        }
        // A kernel without IPVS, as most of those are that this runs on; guests have it.
        match host.run(dataplane::ipvs::check)? {
            Err(dataplane::ipvs::Error::Missing) => without_ipvs(&stage, host).await?,
            other => stage.say(format!("this kernel has IPVS: {other:?}")),
        }
        cilium(&stage, host).await?;
        // With all that it needs, the same node is fit.
        let _agent = stage.agent(&stage.scene.nodes[0])?;
        stage.ready(host).await?;
        Ok(())
    });
}

/// A feature of the kernel that forwarding needs is named, with the remedy.
async fn without_ipvs(stage: &Stage, host: &Host) -> Outcome {
    let mut command = host.command(bin("corten")?)?;
    command.arg("agent");
    let mut process = start(stage, host, command, "all", "ipvs", &["--proxy-mode=ipvs"])?;
    let parts = ["CONFIG_IP_VS", "remedy: load the modules ip_vs"];
    says(host, "/readyz", 503, &parts).await?;
    told(stage, "ipvs", &parts).await?;
    says(host, "/healthz", 200, &["ok"]).await?;
    end(&mut process).await?;
    stage.say("IPVS: said");
    Ok(())
}

/// Cilium in kube-proxy's place, which acts before nftables does.
async fn cilium(stage: &Stage, host: &Host) -> Outcome {
    let parts = ["Cilium carries Services", "remedy: forward nothing"];
    host.netlink().add_bridge("cilium_host").await?;
    let mut vips = proxy(stage, host, "vips", None)?;
    says(host, "/readyz", 503, &parts).await?;
    told(stage, "vips", &parts).await?;
    says(host, "/healthz", 200, &["ok"]).await?;
    // With kube-proxy beside it Cilium does not.
    nft(host, "add table ip kube-proxy")?;
    stage.ready(host).await?;
    end(&mut vips).await?;
    for table in ["ip kube-proxy", "inet corten"] {
        nft(host, &format!("delete table {table}"))?;
    }
    // Alone beside Cilium, Corten does not know of it: but somebody carries Services.
    let mut all = proxy(stage, host, "all", Some(stage.plane.server()))?;
    says(host, "/readyz", 503, &parts).await?;
    end(&mut all).await?;
    // Nobody does: nothing is at this port.
    let mut all = proxy(
        stage,
        host,
        "all",
        Some(SocketAddr::new(stage.plane.server().ip(), 9)),
    )?;
    stage.ready(host).await?;
    end(&mut all).await?;
    // What Corten forwards itself is no sign of Cilium.
    let mut all = proxy(stage, host, "all", Some(stage.plane.server()))?;
    stage.ready(host).await?;
    end(&mut all).await?;
    let index = host.interface("cilium_host").await?.index;
    host.netlink().del_link(index).await?;
    stage.say("Cilium: said");
    Ok(())
}

async fn end(process: &mut Process) -> Outcome {
    process.terminate();
    let ended = process.wait(SOON).await?;
    assert!(ended.success(), "{ended}: {}", process.log());
    Ok(())
}

fn nft(host: &Host, arguments: &str) -> Outcome {
    let mut command = host.command("nft")?;
    let output = command.args(arguments.split(' ')).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {said}");
    Ok(())
}

/// An agent that forwards, told of Kubernetes' own Service as every Pod is.
fn proxy(
    stage: &Stage,
    host: &Host,
    forward: &str,
    kubernetes: Option<SocketAddr>,
) -> Result<Process, LabError> {
    let mut command = host.command(bin("corten")?)?;
    command
        .arg("agent")
        .arg("--kubeconfig")
        .arg(stage.plane.kubeconfig(Account::Agent))
        .args(["--api-server", &format!("https://{}", stage.plane.server())])
        .args(["--node-name", host.name(), "--pod-name", forward])
        .args(["--forward", forward, "--http-address", "127.0.0.1:17472"]);
    if let Some(at) = kubernetes {
        command.env("KUBERNETES_SERVICE_HOST", at.ip().to_string());
        command.env("KUBERNETES_SERVICE_PORT", at.port().to_string());
    }
    host.spawn(&format!("agent-{forward}"), command)
}

/// An agent whose Pod was not given a capability.
fn without(
    stage: &Stage,
    host: &Host,
    capability: &str,
    forward: &str,
    pod: &str,
) -> Result<Process, LabError> {
    let mut command = host.command("setpriv")?;
    command
        .args(["--bounding-set", &format!("-{capability}"), "--"])
        .arg(bin("corten")?)
        .arg("agent");
    start(stage, host, command, forward, pod, &[])
}

fn start(
    stage: &Stage,
    host: &Host,
    mut command: std::process::Command,
    forward: &str,
    pod: &str,
    more: &[&str],
) -> Result<Process, LabError> {
    command
        .arg("--kubeconfig")
        .arg(stage.plane.kubeconfig(Account::Agent))
        .args(["--api-server", &format!("https://{}", stage.plane.server())])
        .args(["--node-name", host.name(), "--pod-name", pod])
        .args(["--forward", forward, "--log-level", "debug"])
        .args(["--http-address", "127.0.0.1:17472"])
        .args(more);
    host.spawn(&format!("agent-{pod}"), command)
}

/// Waits until the process on a host answers so.
async fn says(host: &Host, path: &str, status: u16, parts: &[&str]) -> Result<(), WaitError> {
    let to = SocketAddr::from(([127, 0, 0, 1], 17472));
    wait_for(SOON, &format!("{status} at {path}"), async || {
        let answer = host.http_get(to, path).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let said = parts.iter().all(|part| answer.body.contains(part));
        match answer.status == status && said {
            true => Ok(()),
            false => Err(format!("{}: {}", answer.status, answer.body)),
        }
    })
    .await
}

/// Waits for the event on the agent's Pod.
async fn told(stage: &Stage, pod: &str, parts: &[&str]) -> Result<(), WaitError> {
    let path = format!(
        "/api/v1/namespaces/metallb-system/events\
         ?fieldSelector=involvedObject.kind%3DPod,involvedObject.name%3D{pod}"
    );
    wait_for(SOON, &format!("an event on Pod {pod}"), async || {
        let list = stage.plane.api().get(&path).await;
        let list = list.map_err(|error| error.to_string())?;
        let mut events = list["items"].as_array().into_iter().flatten();
        let found = events.any(|event| {
            let message = event["message"].as_str().unwrap_or_default();
            event["reason"] == "NotReady" && parts.iter().all(|part| message.contains(part))
        });
        if found { Ok(()) } else { Err(list.to_string()) }
    })
    .await
}
