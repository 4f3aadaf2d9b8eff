//! `healthCheckNodePort`: nodes with endpoints of a Service under policy Local say so.

use std::net::{IpAddr, SocketAddr};

use lab::{bin, wait_for};

use crate::support::{Outcome, SOON, Stage, service, slice};

const PORT: u16 = 30_999;

/// Waits until this node's port answers so: the code, and how many endpoints; `None`: not at all.
async fn says(stage: &Stage, node: IpAddr, wanted: Option<(u16, u64)>) -> Outcome {
    let at = SocketAddr::new(node, PORT);
    let what = format!("{at} to say {wanted:?}");
    let found = wait_for(SOON, &what, async || {
        let answer = stage.client().http_get(at, "/").await;
        let said = answer.ok().map(|answer| {
            let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
            assert_eq!(body["service"]["name"], "one", "{body}");
            assert_eq!(body["service"]["namespace"], "default", "{body}");
            assert_eq!(body["serviceProxyHealthy"], true, "{body}");
            (answer.status, body["localEndpoints"].as_u64().unwrap_or(99))
        });
        if said == wanted {
            Ok(())
        } else {
            Err(format!("{said:?}"))
        }
    });
    Ok(found.await?)
}

#[test]
fn nodes_say_whether_they_have_endpoints() {
    lab::run(
        "health::nodes_say_whether_they_have_endpoints",
        async |lab| {
            let mut stage = Stage::build(&lab, 2).await?;
            let local = format!("externalTrafficPolicy: Local\n  healthCheckNodePort: {PORT}");
            let head = service("one", &local);
            stage.write(
                "one.yaml",
                &(head.clone() + &slice("one", false, &stage.scene.nodes[..1])),
            )?;
            let (first, second) = (stage.scene.nodes[0].ip, stage.scene.nodes[1].ip);
            // Somebody else has the port on the second node: that is told, and tried again.
            let host = stage.scene.nodes[1].host.clone();
            let other = host.run(|| std::net::TcpListener::bind(("0.0.0.0", PORT)))??;
            stage.start()?;
            says(&stage, first, Some((200, 1))).await?;
            let parts = ["FailedToStartServiceHealthcheck", "on port 30999"];
            stage.logged("node-2", &parts).await?;
            drop(other);
            says(&stage, second, Some((503, 0))).await?;

            // The endpoint moves.
            stage.write(
                "one.yaml",
                &(head + &slice("one", false, &stage.scene.nodes[1..])),
            )?;
            says(&stage, first, Some((503, 0))).await?;
            says(&stage, second, Some((200, 1))).await?;

            // Another policy needs no check.
            stage.serve("one")?;
            says(&stage, first, None).await?;
            says(&stage, second, None).await
        },
    );
}

/// kube-proxy's other port: its metrics and no others, how it forwards, and its configuration.
async fn metrics(stage: &Stage, at: SocketAddr) -> Outcome {
    let get = async |path: &str| stage.client().http_get(at, path).await;
    assert_eq!(get("/proxyMode").await?.body, "nftables");
    assert_eq!(get("/healthz").await?.body, "ok");
    let told: serde_json::Value = serde_json::from_str(&get("/configz").await?.body)?;
    // It is not taken for kube-proxy itself.
    assert!(told["corten.dev"]["version"].is_string(), "{told}");
    let told = &told["kubeproxy.config.k8s.io"];
    assert_eq!(told["kind"], "KubeProxyConfiguration");
    assert_eq!(told["hostnameOverride"], "node-1");
    assert_eq!(told["healthzBindAddress"], "0.0.0.0:10256");
    wait_for(
        SOON,
        "the first synchronisation in the metrics",
        async || {
            let text = get("/metrics").await.map_err(|error| error.to_string())?;
            let synced =
                "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1";
            match text.body.contains(synced) && !text.body.contains("metallb_") {
                true => Ok(()),
                false => Err(text.body),
            }
        },
    )
    .await?;
    assert_eq!(get("/readyz").await?.status, 404);
    Ok(())
}

#[test]
fn the_proxys_own_health_is_kube_proxys() {
    lab::run(
        "health::the_proxys_own_health_is_kube_proxys",
        async |lab| {
            let stage = Stage::build(&lab, 1).await?;
            let node = &stage.scene.nodes[0];
            let mut command = node.host.command(bin("corten")?)?;
            command.arg("run").arg(&stage.dir);
            command.args([
                "--node-name",
                "node-1",
                "--healthz-bind-address",
                "0.0.0.0:10256",
                "--metrics-bind-address",
                "0.0.0.0",
            ]);
            let _process = node.host.spawn("run", command)?;
            let codes = async |wanted: [u16; 2]| -> Outcome {
                let what = format!("/healthz and /livez to say {wanted:?}");
                let found = wait_for(SOON, &what, async || {
                    let mut codes = [0; 2];
                    for (code, path) in codes.iter_mut().zip(["/healthz", "/livez"]) {
                        let at = SocketAddr::new(node.ip, 10256);
                        let answer = stage.client().http_get(at, path).await;
                        *code = answer.map_err(|error| error.to_string())?.status;
                    }
                    if codes == wanted {
                        Ok(())
                    } else {
                        Err(format!("{codes:?}"))
                    }
                });
                Ok(found.await?)
            };
            codes([200, 200]).await?;
            metrics(&stage, SocketAddr::new(node.ip, 10249)).await?;
            // The cluster autoscaler is about to delete the node.
            let nodes = format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: node-1}}\n\
             spec: {{taints: [{{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}}]}}\n\
             status: {{addresses: [{{type: InternalIP, address: {}}}]}}\n",
                node.ip
            );
            stage.write("nodes.yaml", &nodes)?;
            codes([503, 200]).await
        },
    );
}
