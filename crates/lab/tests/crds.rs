//! The CRDs before a real API server: their rules are within its cost budget, and it judges
//! every line of `crates/api/testdata/judged.jsonl` as the line says. The same lines are held
//! against the offline validator in `api::schema`.

use std::path::Path;
use std::time::Duration;

use lab::Outcome;
use lab::controlplane::{Api, ControlPlane, Patch, binary_or_skip};
use serde_json::{Value, json};

const MINUTES: Duration = Duration::from_secs(180);
const PEERS: &str = "/apis/metallb.io/v1beta2/namespaces/metallb-system/bgppeers";

#[test]
fn the_api_server_judges_as_the_table_says() {
    let name = "the_api_server_judges_as_the_table_says";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    lab::run_for(name, MINUTES, async |lab| {
        let lan = lab.segment("lan").await?;
        let server = lab.host("api").await?;
        lan.attach(&server, &["10.0.0.5/24"]).await?;
        let plane = ControlPlane::start(&binary, &lab, &server, server.address(false)?).await?;

        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
        let crds = crds.to_str().ok_or("a path in UTF-8")?;
        plane
            .kubectl_ok(&server, &["create", "-f", crds], "")
            .await?;
        let wait = [
            "wait",
            "--for=condition=Established",
            "--timeout=20s",
            "-f",
            crds,
        ];
        plane.kubectl_ok(&server, &wait, "").await?;
        plane
            .kubectl_ok(&server, &["create", "namespace", "metallb-system"], "")
            .await?;

        let judged = table(plane.api()).await?;
        lab.say(format!("{judged} objects judged"));
        immutable_field(plane.api()).await?;
        both_versions(plane.api()).await?;
        plane.stop();
        Ok(())
    });
}

async fn table(api: &Api) -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
    let mut judged = 0;
    let mut wrong = Vec::new();
    for line in include_str!("../../api/testdata/judged.jsonl").lines() {
        let line: Value = serde_json::from_str(line)?;
        let (object, says) = (&line["object"], line["says"].as_str().unwrap_or_default());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let plural = match text(&object["kind"]).as_str() {
            "Community" => "communities".to_owned(),
            kind => format!("{}s", kind.to_lowercase()),
        };
        let version = text(&object["apiVersion"]);
        let path = format!("/apis/{version}/namespaces/metallb-system/{plural}");
        let answer = api.create(&path, object).await;
        let right = match &answer {
            Ok(_) => line["expect"] == "good",
            Err(error) => {
                // The server says `spec.a in body should be`, the table `should be`.
                line["expect"] != "good"
                    && error.status() == Some(422)
                    && error.to_string().contains(says)
            }
        };
        if !right {
            wrong.push(format!("{line}\n    {answer:?}"));
        }
        judged += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(judged)
}

/// Graceful restart is set once, also when it was unset before.
async fn immutable_field(api: &Api) -> Outcome {
    let peer = |name: &str| {
        json!({
            "apiVersion": "metallb.io/v1beta2",
            "kind": "BGPPeer",
            "metadata": {"name": name, "namespace": "metallb-system"},
            "spec": {"myASN": 64500, "peerASN": 64501, "peerAddress": "10.0.0.1"},
        })
    };
    api.create(PEERS, &peer("kept")).await?;
    let path = format!("{PEERS}/kept");
    let set = |to: bool| json!({"spec": {"enableGracefulRestart": to}});
    let refused = api
        .patch(&path, Patch::Merge, &set(true))
        .await
        .expect_err("immutable");
    assert!(
        refused
            .to_string()
            .contains("cannot be changed after creation"),
        "{refused}"
    );
    api.patch(&path, Patch::Merge, &set(false)).await?;
    Ok(())
}

/// What v1beta1 writes, v1beta2 reads, and no timer appears.
async fn both_versions(api: &Api) -> Outcome {
    let older = json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": "BGPPeer",
        "metadata": {"name": "older", "namespace": "metallb-system"},
        "spec": {"myASN": 64500, "peerASN": 64501, "peerAddress": "10.0.0.1", "routerID": "1.1.1.1"},
    });
    let collection = PEERS.replace("v1beta2", "v1beta1");
    api.create(&collection, &older).await?;
    let newer = api.get(&format!("{PEERS}/older")).await?;
    let mut want = older["spec"].clone();
    // The newer version has defaults of its own.
    want["peerPort"] = json!(179);
    want["disableMP"] = json!(false);
    want["dualStackAddressFamily"] = json!(false);
    assert_eq!(newer["spec"], want);
    let back = api.get(&format!("{collection}/older")).await?;
    assert_eq!(back["spec"]["routerID"], "1.1.1.1");
    Ok(())
}
