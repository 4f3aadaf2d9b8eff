//! externalTrafficPolicy: Local.

use lab::wait_until;

use crate::support::{Outcome, SOON, Stage, ip, service, slice};

fn serve_on(stage: &Stage, nodes: &[&str]) -> Outcome {
    let nodes = nodes.iter().map(|name| stage.scene.node(name));
    let text = service("one", "externalTrafficPolicy: Local") + &slice("one", false, nodes);
    stage.write("one.yaml", &text)
}

#[test]
fn the_owner_has_an_endpoint_and_the_client_keeps_its_address() {
    lab::run(
        "local::the_owner_has_an_endpoint_and_the_client_keeps_its_address",
        async |lab| {
            let mut stage = Stage::build(&lab, 3).await?;
            let address = ip("10.0.0.101");
            let client = stage.client().address(false)?;
            stage.start()?;
            // Each in turn, so that at least two of them are not who would own it otherwise.
            for name in ["node-2", "node-3", "node-1"] {
                serve_on(&stage, &[name])?;
                wait_until(SOON, &format!("{name} to own it"), async || {
                    stage.owner(address).await.is_ok_and(|owner| owner == name)
                })
                .await?;
                let node = stage.scene.node(name);
                let before = node.backend.counters();
                wait_until(SOON, &format!("a page from {name}"), async || {
                    let page = stage.scene.page(address).await;
                    page.is_ok_and(|pod| pod == node.pod.name())
                })
                .await?;
                let after = node.backend.counters();
                let news = |ip| after.clients.get(ip) > before.clients.get(ip);
                let clients: Vec<_> = after.clients.keys().filter(|ip| news(ip)).collect();
                assert_eq!(clients, [&client], "who the pod on {name} saw");
            }
            // Without any endpoint nobody answers.
            serve_on(&stage, &[])?;
            stage.unowned(address).await?;
            Ok(())
        },
    );
}

#[test]
fn who_still_comes_to_the_old_owner_is_led_to_the_new_one() {
    lab::run(
        "local::who_still_comes_to_the_old_owner_is_led_to_the_new_one",
        async |lab| {
            let mut stage = Stage::build(&lab, 2).await?;
            let address = ip("10.0.0.101");
            serve_on(&stage, &["node-1"])?;
            stage.start()?;
            assert_eq!(stage.owner(address).await?, "node-1");
            // A client that learns nothing.
            stage.reach_by(address, "node-1").await?;
            let pod = |name| stage.scene.node(name).pod.name().to_owned();
            assert_eq!(stage.scene.page(address).await?, pod("node-1"));
            serve_on(&stage, &["node-2"])?;
            wait_until(
                SOON,
                "a page from the new one by way of the old one",
                async || {
                    let page = stage.scene.page(address).await;
                    page.is_ok_and(|page| page == pod("node-2"))
                },
            )
            .await?;
            // For a while only: policy Local is to keep the client's address.
            wait_until(2 * SOON, "the old one to drop", async || {
                !stage.answers(address).await
            })
            .await?;
            assert_eq!(stage.owner(address).await?, "node-2");
            Ok(())
        },
    );
}
