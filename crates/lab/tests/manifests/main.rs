//! What `deploy/` publishes: the plain YAML is what the chart says; the chart takes MetalLB's values
//! or says why not; a real API server takes all of it, the rights in it are the least, and the
//! controller starts with them and with the very arguments of its Deployment.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::chart::{Chart, NAMESPACE, deploy};
use lab::controlplane::{Account, Api, ControlPlane, binary_or_skip};
use lab::{Host, Outcome, bin, wait_for};
use serde_json::Value;

mod rights;
mod values;

const MINUTES: Duration = Duration::from_secs(480);
const SOON: Duration = Duration::from_secs(60);

#[test]
fn the_plain_yaml_is_what_the_chart_says() {
    let Some(chart) = Chart::or_skip("the_plain_yaml_is_what_the_chart_says") else {
        return;
    };
    for (name, want) in chart.files().expect("rendered") {
        let have = fs::read_to_string(deploy().join(name)).expect("deploy's file");
        let differs = have.lines().zip(want.lines()).find(|(a, b)| a != b);
        assert!(
            have == want,
            "deploy/{name} is not as the chart has it: run `cargo xtask manifests`; {differs:?}"
        );
    }
}

#[test]
fn every_right_has_its_reason() {
    for name in ["rbac.yaml", "webhook.yaml"] {
        let text = fs::read_to_string(deploy().join(name)).expect("deploy's file");
        let mut rights = 0;
        for line in text.lines().filter(|line| line.starts_with("  verbs:")) {
            assert!(line.contains("] # "), "{name}: no reason for {line:?}");
            assert!(!line.contains('*'), "{name}: {line:?}");
            rights += 1;
        }
        assert!(rights > 5, "{name} has {rights} rules");
    }
}

#[test]
fn an_api_server_takes_all_of_it() {
    let name = "an_api_server_takes_all_of_it";
    let (Some(binary), Some(chart)) = (binary_or_skip(name), Chart::or_skip(name)) else {
        return;
    };
    let variants = [
        chart.render(&["forward=all", "apiServer=https://10.0.0.5:6443"]),
        chart.render(&[
            "networkpolicies.enabled=true",
            "networkpolicies.defaultDeny=true",
        ]),
        chart.render(&[
            "tls.controllerMetricsTLSSecret=a",
            "tls.speakerMetricsTLSSecret=b",
        ]),
    ];
    let variants = variants.map(|rendered| rendered.expect("good values"));
    lab::run_for(name, MINUTES, async |lab| {
        let lan = lab.segment("lan").await?;
        let (server, host) = (lab.host("api").await?, lab.host("controller").await?);
        lan.attach(&server, &["10.0.0.5/24"]).await?;
        lan.attach(&host, &["10.0.0.10/24"]).await?;
        let plane = ControlPlane::start(&binary, &lab, &server, server.address(false)?).await?;
        let published = deploy().join("corten.yaml").display().to_string();
        let apply = ["apply", "-f", &published];
        let said = plane.kubectl_ok(&server, &apply, "").await?;
        assert!(
            said.contains("deployment.apps/corten-controller created"),
            "{said}"
        );
        let again = plane.kubectl_ok(&server, &apply, "").await?;
        assert!(
            !again.contains("created"),
            "applied twice, it makes {again}"
        );
        for object in [
            "apps/v1/namespaces/metallb-system/deployments/corten-controller",
            "apps/v1/namespaces/metallb-system/daemonsets/corten-agent",
            "policy/v1/namespaces/metallb-system/poddisruptionbudgets/corten-controller",
        ] {
            // kubectl calls some of them configured whatever it changes.
            let there = plane.api().get(&format!("/apis/{object}")).await?;
            assert_eq!(there["metadata"]["generation"], 1, "{object} was changed");
        }
        lab.say("applied, twice");
        for variant in &variants {
            let dry = ["apply", "--dry-run=server", "-f", "-"];
            plane.kubectl_ok(&server, &dry, variant).await?;
        }
        lab.say("variants taken");
        rights::pod_security(plane.api()).await?;
        rights::least_rights(plane.api()).await?;
        lab.say("rights are the least");
        controller_starts(&plane, &host).await?;
        plane.stop();
        Ok(())
    });
}

fn words(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The arguments are ones that the program takes; the controller starts with them and its rights,
/// and makes the Secret without which no agent's Pod starts.
async fn controller_starts(plane: &ControlPlane, host: &Host) -> Outcome {
    let program = bin("corten")?;
    let controller = template(plane.api(), "deployments", "corten-controller").await?;
    let agent = template(plane.api(), "daemonsets", "corten-agent").await?;
    let arguments = |pod: &Value| words(&pod["spec"]["containers"][0]["args"]);
    for args in [arguments(&controller), arguments(&agent)] {
        assert!(takes(&program, &args), "{args:?}");
    }
    assert!(!takes(&program, &["agent".into(), "--no-such-flag".into()]));
    assert!(takes(
        &program,
        &["sysctl".into(), "net.ipv4.ip_forward=1".into()]
    ));
    let tracking = ["sysctl", "--conntrack", "--conntrack-min=1"].map(Into::into);
    assert!(takes(&program, &tracking));

    let mut command = host.command(program)?;
    command
        .args(arguments(&controller))
        .arg("--kubeconfig")
        .arg(plane.kubeconfig(Account::Controller))
        .env("METALLB_NAMESPACE", NAMESPACE)
        .env("METALLB_POD_NAME", "corten-controller-0");
    let mut process = host.spawn("controller", command)?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/corten-memberlist");
    let secret = wait_for(SOON, "the agents' Secret", async || {
        plane
            .api()
            .get(&path)
            .await
            .map_err(|error| error.to_string())
    })
    .await?;
    assert_eq!(
        secret["metadata"]["ownerReferences"][0]["name"],
        "corten-controller"
    );
    let ended = process.try_wait().map_err(|error| error.to_string())?;
    assert!(ended.is_none(), "{}", process.log());
    Ok(())
}

/// Help comes only after what stands before it was understood.
fn takes(program: &Path, args: &[String]) -> bool {
    let output = Command::new(program).args(args).arg("--help").output();
    output.is_ok_and(|output| output.status.success())
}

pub(crate) async fn template(
    api: &Api,
    kind: &str,
    name: &str,
) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
    let object = api
        .get(&format!(
            "/apis/apps/v1/namespaces/{NAMESPACE}/{kind}/{name}"
        ))
        .await?;
    Ok(object["spec"]["template"].clone())
}
