//! Endpoints, ports, kinds of Services, names.

use std::net::{IpAddr, SocketAddr};

use lab::{Outcome, wait_for};
use serde_json::{Value, json};

use super::town::{Fate, SOON, Town, cluster_ip, fate};

fn on(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

fn web(more: Value) -> Value {
    let mut spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

/// All Pods behind it are met, from a node and from a Pod.
pub(super) async fn endpoints(town: &Town<'_>) -> Outcome {
    let to = on(town.service("basic", web(json!({}))).await?, 80);
    let all: Vec<&str> = (0..3).map(|node| town.pod(node)).collect();
    town.spread(&town.node(0), to, &all).await?;
    let answered = town.pod_gets(1, to).await?;
    assert!(all.contains(&answered.as_str()), "{answered}");
    // A Pod sees whose connection it is.
    let own = town.cluster.api();
    let pod = own
        .get(&format!("/api/v1/namespaces/default/pods/{}", town.pod(1)))
        .await?;
    let page = town.page_in_pod(1, &format!("http://{to}/")).await?;
    let client = page.split_whitespace().nth(1).unwrap_or_default();
    let client: SocketAddr = client.parse()?;
    let ip = pod["status"]["podIP"].as_str().unwrap_or_default();
    if !page.starts_with(town.pod(1)) {
        assert_eq!(client.ip().to_string(), ip, "{page}");
    }
    town.delete("basic").await
}

/// Several ports of several names, and one number for two protocols.
pub(super) async fn ports(town: &Town<'_>) -> Outcome {
    let ports = json!({"ports": [
        {"name": "one", "port": 80, "targetPort": 80},
        {"name": "two", "port": 8081, "targetPort": 81},
        {"name": "same", "port": 80, "targetPort": 80, "protocol": "UDP"},
    ]});
    let ip = town.service("ports", web(ports)).await?;
    let host = town.node(1);
    town.gets(&host, on(ip, 80)).await?;
    town.gets(&host, on(ip, 8081)).await?;
    town.echoes(&host, on(ip, 80)).await?;
    // A port that it never had.
    town.refused(&host, on(ip, 82)).await?;
    // Ports come and go.
    let ports = json!([
        {"name": "one", "port": 80, "targetPort": 80},
        {"name": "three", "port": 8082, "targetPort": 81},
    ]);
    town.patch("ports", json!({"spec": {"ports": ports}}))
        .await?;
    town.gets(&host, on(ip, 8082)).await?;
    town.refused(&host, on(ip, 8081)).await?;
    town.gets(&host, on(ip, 80)).await?;
    town.delete("ports").await
}

/// At every node, from outside, from the node itself and from a Pod.
pub(super) async fn node_port(town: &Town<'_>) -> Outcome {
    let ports = json!({"type": "NodePort", "ports": [
        {"name": "tcp", "port": 80, "nodePort": 31080},
        {"name": "udp", "port": 80, "nodePort": 31080, "protocol": "UDP"},
    ]});
    town.service("node-port", web(ports)).await?;
    let client = town.cluster.client().clone();
    let all: Vec<&str> = (0..3).map(|node| town.pod(node)).collect();
    town.spread(&client, town.at(0, 31080)?, &all).await?;
    town.gets(&client, town.at(2, 31080)?).await?;
    town.gets(&town.node(1), town.at(1, 31080)?).await?;
    town.pod_gets(1, town.at(2, 31080)?).await?;
    town.echoes(&client, town.at(1, 31080)?).await?;
    // Another number.
    let port = json!([{"name": "tcp", "port": 80, "nodePort": 31081}]);
    town.patch("node-port", json!({"spec": {"ports": port}}))
        .await?;
    town.gets(&client, town.at(0, 31081)?).await?;
    let nobody = |fate: &Fate| !matches!(fate, Fate::Answered(..));
    town.fate(&client, town.at(0, 31080)?, "nobody's", nobody)
        .await?;
    town.delete("node-port").await
}

/// Waits until `connections` in a row have met one Pod only, or several.
async fn met(town: &Town<'_>, host: &lab::Host, to: SocketAddr, one: bool) -> Outcome {
    let what = format!(
        "{to} to lead to {} Pod",
        if one { "one" } else { "more than one" }
    );
    wait_for(SOON, &what, async || {
        let mut pods = std::collections::BTreeSet::new();
        // By chance all 40 of the unkept meet one of three: 1 in 10^18.
        for _ in 0..40 {
            match fate(host, to).await {
                Fate::Answered(name, _) => pods.insert(name),
                other => return Err(format!("{other:?}")),
            };
        }
        match (pods.len() == 1) == one {
            true => Ok(()),
            false => Err(format!("{pods:?}")),
        }
    })
    .await?;
    let _ = town;
    Ok(())
}

/// Clients stay where they were, while that is wanted.
pub(super) async fn affinity(town: &Town<'_>) -> Outcome {
    let spec = json!({
        "type": "NodePort", "sessionAffinity": "ClientIP",
        "ports": [{"port": 80, "nodePort": 31082}],
    });
    let ip = town.service("affinity", web(spec)).await?;
    let (node, client) = (town.node(2), town.cluster.client().clone());
    let places = [(&node, on(ip, 80)), (&client, town.at(1, 31082)?)];
    for affinity in ["ClientIP", "None", "ClientIP"] {
        // What belongs to ClientIP alone goes with it.
        let patch = json!({"spec": {"sessionAffinity": affinity, "sessionAffinityConfig": null}});
        town.patch("affinity", patch).await?;
        for (host, to) in places {
            met(town, host, to, affinity == "ClientIP").await?;
        }
    }
    town.delete("affinity").await
}

/// From a name to an address and back, with and without a node port.
pub(super) async fn kinds(town: &Town<'_>) -> Outcome {
    let name = json!({"type": "ExternalName", "externalName": "example.test"});
    town.service("kinds", name.clone()).await?;
    let (host, client) = (town.node(0), town.cluster.client().clone());
    let nobody = |fate: &Fate| !matches!(fate, Fate::Answered(..));
    for kind in ["ClusterIP", "NodePort"] {
        let spec = json!({"type": kind, "externalName": null, "selector": {"app": "web"},
            "ports": [{"port": 80}]});
        let service = town.patch("kinds", json!({"spec": spec})).await?;
        let to = on(cluster_ip(&service)?, 80);
        town.gets(&host, to).await?;
        let mut node_port = None;
        if kind == "NodePort" {
            let to = town.at(1, town.node_port("kinds", 0).await?)?;
            town.gets(&client, to).await?;
            node_port = Some(to);
        }
        let spec = json!({"type": "ExternalName", "externalName": "example.test",
            "clusterIP": null, "clusterIPs": null, "ports": null, "selector": null,
            "internalTrafficPolicy": null, "externalTrafficPolicy": null, "ipFamilies": null,
            "ipFamilyPolicy": null, "sessionAffinity": null});
        town.patch("kinds", json!({"spec": spec})).await?;
        town.fate(&host, to, "nobody's", nobody).await?;
        if let Some(to) = node_port {
            town.fate(&client, to, "nobody's", nobody).await?;
        }
    }
    town.delete("kinds").await
}

/// The cluster's own two Services.
pub(super) async fn names(town: &Town<'_>) -> Outcome {
    let lookup = |name| {
        [
            "exec",
            town.pod(0),
            "-c",
            "web",
            "--",
            "/tools",
            "lookup",
            name,
        ]
    };
    let kubernetes = lookup("kubernetes.default.svc.cluster.local");
    let found = wait_for(SOON, "the DNS", async || {
        let found = town.cluster.kubectl(&kubernetes, "").await;
        found.map_err(|e| e.to_string())
    });
    assert_eq!(found.await?.trim(), "10.96.0.1");
    // Plain HTTP is not what it speaks, and it says so.
    let said = match town.page_in_pod(2, "http://kubernetes.default:443/").await {
        Ok(page) => page,
        Err(error) => error.to_string(),
    };
    assert!(said.contains("400 Bad Request"), "{said}");
    Ok(())
}

/// A Pod that reaches itself.
pub(super) async fn hairpin(town: &Town<'_>) -> Outcome {
    let spec = json!({"type": "NodePort", "selector": {"at": "node-1"}, "ports": [{"port": 80}]});
    let ip = town.service("hairpin", spec).await?;
    assert_eq!(town.pod_gets(0, on(ip, 80)).await?, town.pod(0));
    let port = town.node_port("hairpin", 0).await?;
    assert_eq!(town.pod_gets(0, town.at(0, port)?).await?, town.pod(0));
    town.delete("hairpin").await
}

/// Nobody serves it: who asks is told so.
pub(super) async fn rejected(town: &Town<'_>) -> Outcome {
    let spec = json!({"type": "NodePort", "selector": {"app": "nobody"}, "ports": [{"port": 80}]});
    let ip = town.service("rejected", spec).await?;
    let (host, client) = (town.node(1), town.cluster.client().clone());
    town.refused(&host, on(ip, 80)).await?;
    let port = town.node_port("rejected", 0).await?;
    town.refused(&client, town.at(2, port)?).await?;
    let said = match town.page_in_pod(1, &format!("http://{ip}/")).await {
        Ok(page) => page,
        Err(error) => error.to_string(),
    };
    assert!(said.contains("connection refused"), "{said}");
    town.patch("rejected", json!({"spec": {"selector": {"app": "web"}}}))
        .await?;
    town.gets(&host, on(ip, 80)).await?;
    town.gets(&client, town.at(2, port)?).await?;
    town.delete("rejected").await
}

/// Services of other proxies.
pub(super) async fn labels(town: &Town<'_>) -> Outcome {
    let host = town.node(2);
    let nobody = |fate: &Fate| !matches!(fate, Fate::Answered(..));
    let label = "service.kubernetes.io/service-proxy-name";
    let ip = town
        .service_with("labels", json!({label: "other"}), web(json!({})))
        .await?;
    let to = on(ip, 80);
    // One that is made later answers, so this one has been seen.
    let later = on(town.service("later", web(json!({}))).await?, 80);
    town.gets(&host, later).await?;
    town.fate(&host, to, "nobody's", nobody).await?;
    town.patch("labels", json!({"metadata": {"labels": {label: null}}}))
        .await?;
    town.gets(&host, to).await?;
    town.patch("labels", json!({"metadata": {"labels": {label: "other"}}}))
        .await?;
    town.fate(&host, to, "nobody's", nobody).await?;
    // The other label, `headless`, counts on EndpointSlices only: kube-proxy 1.36 looks there, and
    // Kubernetes does not copy it from the Service.
    let headless = "service.kubernetes.io/headless";
    town.patch(
        "labels",
        json!({"metadata": {"labels": {label: null, headless: ""}}}),
    )
    .await?;
    town.gets(&host, to).await?;
    town.delete("later").await?;
    town.delete("labels").await
}
