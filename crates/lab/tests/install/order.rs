//! The order of an installation does not matter: configuration before the programs, agents before
//! the controller, custom resource definitions upgraded with objects in them.

use lab::{Outcome, wait_for};

use crate::stage::{ADDRESS, SOON, SYSTEM, Stage};

pub(crate) async fn story(stage: &Stage) -> Outcome {
    let all = std::fs::read_to_string(&stage.manifest)?;
    let some = |keep: &dyn Fn(&str) -> bool| -> String {
        let documents = all.split("\n---\n").filter(|document| {
            let mut lines = document.lines();
            keep(
                lines
                    .find(|line| line.starts_with("kind: "))
                    .unwrap_or_default(),
            )
        });
        documents.collect::<Vec<_>>().join("\n---\n")
    };

    // An older version's definitions, and objects of them, before anything runs.
    let early = ["kind: Namespace", "kind: CustomResourceDefinition"];
    let definitions = some(&|kind| early.contains(&kind));
    let older = definitions.replace("maxItems: 4096", "maxItems: 1024");
    assert_ne!(definitions, older);
    stage.apply(&older).await?;
    let established = [
        "wait",
        "crd",
        "--all",
        "--for=condition=Established",
        "--timeout=60s",
    ];
    stage.kubectl(&established).await?;
    stage.line("kubectl apply -f examples/l2").await?;

    // Agents without a controller wait for the Secret that it makes.
    stage
        .apply(&some(&|kind| kind != "kind: Deployment"))
        .await?;
    let pods = format!("/api/v1/namespaces/{SYSTEM}/pods");
    wait_for(SOON, "three agents to wait", async || {
        let pods = stage.list(&pods).await.map_err(|e| e.to_string())?;
        let phases: Vec<_> = pods
            .iter()
            .map(|pod| pod["status"]["phase"].as_str())
            .collect();
        match phases == [Some("Pending"); 3] {
            true => Ok(()),
            false => Err(format!("{phases:?}")),
        }
    })
    .await?;
    assert_eq!(stage.address_of("myapp-svc").await?, None);

    stage.line("kubectl apply -f deploy/corten.yaml").await?;
    stage.rolled_out().await?;
    stage.answers(ADDRESS).await?;
    let pool = stage
        .line("kubectl get ipaddresspools -n metallb-system -o name")
        .await?;
    assert_eq!(pool, "ipaddresspool.metallb.io/ip-pool\n");

    // Objects are judged from now on.
    let bad = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: overlapping, namespace: metallb-system}
spec: {addresses: [10.0.0.140-10.0.0.160]}
";
    wait_for(SOON, "a bad pool to be refused", async || {
        match stage.apply(bad).await {
            Err(refused) if refused.to_string().contains("overlap") => Ok(()),
            other => {
                // Taken before the webhook was there: it goes again.
                let pool =
                    "kubectl delete ipaddresspool -n metallb-system overlapping --ignore-not-found";
                let _ = stage.line(pool).await;
                Err(format!("{other:?}"))
            }
        }
    })
    .await?;
    stage.lab.say("installed in another order");
    Ok(())
}
