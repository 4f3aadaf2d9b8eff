//! A Deployment grows and shrinks, and the Service follows; Pods find it by its name.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use lab::{Outcome, wait_for};

use crate::stage::{ADDRESS, SOON, Stage, chain};

pub(crate) async fn story(stage: &Stage) -> Outcome {
    by_name(stage).await?;
    scale(stage, 30).await?;
    scale(stage, 0).await?;
    scale(stage, 3).await?;
    by_name(stage).await?;
    stage.lab.say("scaled 3, 30, 0, 3");
    Ok(())
}

/// A Pod asks the cluster's DNS, and then the Service.
async fn by_name(stage: &Stage) -> Outcome {
    let path = "/api/v1/namespaces/default/pods?labelSelector=app%3Dmyapp";
    let pods = stage.list(path).await?;
    let from = pods.iter().find(|pod| {
        pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running"
    });
    let from = from.and_then(|pod| pod["metadata"]["name"].as_str());
    let from = from.ok_or("no Pod runs")?;
    let service = "/api/v1/namespaces/default/services/myapp-svc";
    let service = stage.cluster.api().get(service).await?;
    let full = "myapp-svc.default.svc.cluster.local";
    for (args, want) in [
        (["lookup", full], service["spec"]["clusterIP"].as_str()),
        (["get", "http://myapp-svc/"], Some("myapp-")),
    ] {
        let exec = ["exec", from, "--", "/tools", args[0], args[1]];
        let said = wait_for(SOON, &args.join(" "), async || {
            stage.kubectl(&exec).await.map_err(|e| e.to_string())
        })
        .await?;
        assert!(said.contains(want.unwrap_or("no address")), "{said}");
    }
    Ok(())
}

/// Every Pod answers the client, and nobody else does.
async fn scale(stage: &Stage, replicas: usize) -> Outcome {
    let number = format!("--replicas={replicas}");
    stage
        .kubectl(&["scale", "deployment/myapp", &number])
        .await?;
    let client = stage.cluster.client();
    let to = SocketAddr::new(ADDRESS.parse()?, 80);
    let path = "/api/v1/namespaces/default/pods?labelSelector=app%3Dmyapp";
    let mut seen = BTreeSet::new();
    wait_for(SOON, &format!("{replicas} Pods to answer"), async || {
        let pods = stage.list(path).await.map_err(|e| e.to_string())?;
        let names: BTreeSet<String> = pods
            .iter()
            .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
            .collect();
        if names.len() != replicas {
            return Err(format!("{} Pods", names.len()));
        }
        if replicas == 0 {
            return match client.http_get(to, "/").await {
                Ok(answer) => Err(format!("{} answers", answer.backend())),
                Err(_) => Ok(()),
            };
        }
        for _ in 0..replicas {
            let answer = client.http_get(to, "/").await.map_err(|e| chain(&e))?;
            seen.insert(answer.backend().to_owned());
        }
        seen.retain(|name| names.contains(name));
        match seen.len() == replicas {
            true => Ok(()),
            false => Err(format!("{} of them have answered", seen.len())),
        }
    })
    .await?;
    Ok(())
}
