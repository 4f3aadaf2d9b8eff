//! Manifests are edited while everything runs.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use lab::wait_until;

use crate::support::{Outcome, POOL, SOON, Stage, ip, service, slice};

/// The bound on an edit's effect.
const BOUND: Duration = Duration::from_secs(1);
/// Enough for a quick look.
const GLANCE: Duration = Duration::from_millis(30);

/// Asserts that somebody, or nobody, answers for `ip` within the bound after `since`.
async fn in_time(stage: &Stage, since: Instant, ip: IpAddr, answered: bool) -> Outcome {
    let what = format!("{ip} answered for: {answered}");
    wait_until(SOON, &what, async || {
        let names = stage.answering(ip, GLANCE).await;
        names.is_ok_and(|names| names.is_empty() != answered)
    })
    .await?;
    let took = since.elapsed();
    println!("{what}, after {took:?}");
    assert!(took < BOUND, "{what}, but only after {took:?}");
    Ok(())
}

#[test]
fn an_edit_takes_effect_in_under_a_second() {
    lab::run(
        "edits::an_edit_takes_effect_in_under_a_second",
        async |lab| {
            let mut stage = Stage::build(&lab, 2).await?;
            stage.serve("one")?;
            stage.start()?;
            stage.holds("one", &["10.0.0.101"]).await?;
            stage.owner(ip("10.0.0.101")).await?;

            let since = Instant::now();
            stage.serve("two")?;
            in_time(&stage, since, ip("10.0.0.102"), true).await?;
            stage.holds("two", &["10.0.0.102"]).await?;
            stage.scene.page(ip("10.0.0.102")).await?;

            // A pool that ends where it is used, and a Service that finds no address.
            stage.write("pool.yaml", &POOL.replace("150", "102"))?;
            stage.serve("three")?;
            stage
                .logged("node-1", &["three", "AllocationFailed"])
                .await?;
            let since = Instant::now();
            stage.write("pool.yaml", &POOL.replace("150", "103"))?;
            in_time(&stage, since, ip("10.0.0.103"), true).await?;
            stage.scene.page(ip("10.0.0.103")).await?;

            // Another Service waits for an address that is freed.
            stage.serve("four")?;
            stage
                .logged("node-1", &["four", "AllocationFailed"])
                .await?;
            assert_eq!(stage.held()?.get("four"), None);
            stage.remove("two.yaml")?;
            stage.holds("four", &["10.0.0.102"]).await?;
            stage.holds("two", &[]).await?;
            stage.owner(ip("10.0.0.102")).await?;
            stage.scene.page(ip("10.0.0.102")).await?;

            // Endpoints change: only the second node's pod answers.
            let text = service("one", "") + &slice("one", false, &stage.scene.nodes[1..]);
            let since = Instant::now();
            stage.write("one.yaml", &text)?;
            let only = async || {
                for _ in 0..8 {
                    let page = stage.scene.page(ip("10.0.0.101")).await;
                    if !page.is_ok_and(|pod| pod == "pod-2") {
                        return false;
                    }
                }
                true
            };
            wait_until(SOON, "pages from pod-2 alone", only).await?;
            let took = since.elapsed();
            lab.say(format!("endpoints changed after {took:?}"));
            assert!(took < BOUND, "endpoints changed after {took:?}");
            Ok(())
        },
    );
}

#[test]
fn a_deleted_service_ends_answers_and_forwarding() {
    lab::run(
        "edits::a_deleted_service_ends_answers_and_forwarding",
        async |lab| {
            let mut stage = Stage::build(&lab, 2).await?;
            stage.serve("one")?;
            stage.start()?;
            let address = ip("10.0.0.101");
            stage.owner(address).await?;
            // Each node forwards, not only the one that answers ARP.
            for node in ["node-1", "node-2"] {
                stage.reach_by(address, node).await?;
                stage.scene.page(address).await?;
            }
            let since = Instant::now();
            stage.remove("one.yaml")?;
            in_time(&stage, since, address, false).await?;
            stage.holds("one", &[]).await?;
            for node in ["node-1", "node-2"] {
                stage.reach_by(address, node).await?;
                wait_until(SOON, &format!("no page through {node}"), async || {
                    !stage.answers(address).await
                })
                .await?;
            }
            stage.reach_nobody(address).await?;
            // It is free: the next Service gets it.
            stage.serve("two")?;
            stage.holds("two", &["10.0.0.101"]).await?;
            Ok(())
        },
    );
}

#[test]
fn what_is_broken_is_told_and_the_rest_stays() {
    lab::run(
        "edits::what_is_broken_is_told_and_the_rest_stays",
        async |lab| {
            let mut stage = Stage::build(&lab, 2).await?;
            stage.serve("one")?;
            stage.start()?;
            stage.holds("one", &["10.0.0.101"]).await?;
            stage.owner(ip("10.0.0.101")).await?;

            let good = service("one", "") + &slice("one", false, &stage.scene.nodes);
            stage.write(
                "one.yaml",
                &good.replace("http, port: 80}\n  - ", "http, port: many}\n  - "),
            )?;
            let line = stage
                .logged("node-1", &["one.yaml:7", "spec.ports[0].port"])
                .await?;
            assert!(line.contains("Service default/one"), "{line}");
            stage
                .logged("node-2", &["one.yaml:7", "spec.ports[0].port"])
                .await?;
            // Wrong only for who knows pools.
            stage.write(
                "pool.yaml",
                &POOL.replace("101-10.0.0.150", "150-10.0.0.101"),
            )?;
            stage
                .logged("node-1", &["pool.yaml:6", "spec.addresses[0]"])
                .await?;
            stage.write("text.yaml", "}{ not YAML\n")?;
            stage.logged("node-1", &["text.yaml:1"]).await?;
            stage.write("unknown.yaml", &service("other", "colour: red"))?;
            stage
                .logged("node-1", &["unknown.yaml:9", "spec.colour"])
                .await?;

            // What they replaced is in force, what else is there too.
            stage.owner(ip("10.0.0.101")).await?;
            stage.scene.page(ip("10.0.0.101")).await?;
            let (old, new) = (stage.scene.nodes.len(), "two");
            assert_eq!(old, 2);
            stage.remove("text.yaml")?;
            stage.remove("unknown.yaml")?;
            stage.serve(new)?;
            // A pool that turned bad gives nothing new.
            stage.logged("node-1", &["two", "AllocationFailed"]).await?;
            assert_eq!(stage.held()?.get(new), None);

            // Mended, they take effect.
            let since = Instant::now();
            stage.write("pool.yaml", POOL)?;
            in_time(&stage, since, ip("10.0.0.102"), true).await?;
            stage.write(
                "one.yaml",
                &good.replace("http, port: 80}\n  - ", "http, port: 8080}\n  - "),
            )?;
            wait_until(SOON, "a page at port 8080", async || {
                let to = std::net::SocketAddr::new(ip("10.0.0.101"), 8080);
                stage.client().http_get(to, "/").await.is_ok()
            })
            .await?;
            Ok(())
        },
    );
}
