//! The rules of allocation on a real API server, row by row (`spec/metallb.md` §2.2 to 2.6): what a
//! user does, the address that comes of it, and the event that says so. The rows are data
//! ([`table`]); one control plane serves them all.

mod table;

use std::collections::BTreeSet;
use std::fmt;

use lab::controlplane::{Api, ApiError, Patch, binary_or_skip};
use lab::{Outcome, wait_for};
use serde_json::{Value, json};

use crate::stage::{Fault, MINUTES, SOON, Stage, turn};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const POOLS: &str = "/apis/metallb.io/v1beta1/namespaces/metallb-system/ipaddresspools";

/// One row of the tables.
struct Row {
    name: &'static str,
    steps: &'static [Step],
}

/// What a user does, or sees. Objects are JSON.
#[derive(Debug)]
enum Step {
    /// Writes the pool `.0` with the addresses `.1` and the further spec `.2`.
    Pool(&'static str, &'static [&'static str], &'static str),
    /// Removes a pool.
    NoPool(&'static str),
    /// Creates the Service `.0` with the annotations `.1` (their prefix is added) and the spec `.2`.
    Service(&'static str, &'static str, &'static str),
    /// Merges into the annotations of the Service `.0` what `.1` says, and `.2` into its spec.
    Edit(&'static str, &'static str, &'static str),
    /// Removes a Service.
    NoService(&'static str),
    /// The Service comes to have these addresses.
    Has(&'static str, &'static [&'static str]),
    /// All that was done has been seen, and the Service has these addresses.
    Still(&'static str, &'static [&'static str]),
    /// The annotation that names the pool.
    From(&'static str, &'static str),
    /// An event `REASON` of the Service whose message has these words.
    Told(&'static str, &'static str, &'static str),
}

#[test]
fn every_row() {
    let name = "rows::every_row";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    let _turn = turn();
    lab::run_for(name, MINUTES, async |lab| {
        let stage = Stage::build(lab, &binary, 0).await?;
        let mut controller = stage.controller(&stage.api_host)?;
        let mut play = Play { stage, barriers: 0 };
        play.pool("barrier", &["192.0.2.0/24"], r#"{"autoAssign": false}"#)
            .await?;
        let mut failed = Vec::new();
        let rows = table::sections().into_iter().flatten();
        let mut count = 0;
        for row in rows {
            count += 1;
            if let Err(error) = play.row(row).await {
                failed.push(format!("{}: {error}", row.name));
            }
            play.clear().await?;
        }
        play.stage.say(format!("{count} rows"));
        assert!(failed.is_empty(), "{failed:#?}");
        // Four Services on two addresses: who has one keeps it, however often.
        play.pool("two", &["10.1.0.1-10.1.0.2"], "{}").await?;
        for name in ["r1", "r2", "r3", "r4"] {
            play.service(name, "{}", "{}").await?;
        }
        let before = play.settled().await?;
        for restart in 1..=5 {
            controller.kill();
            controller = play.stage.controller(&play.stage.api_host)?;
            play.barrier().await?;
            assert_eq!(play.settled().await?, before, "restart {restart}");
        }
        play.stage.say(format!("five restarts: {before:?}"));
        Ok(())
    });
}

struct Play {
    stage: Stage,
    barriers: u32,
}

fn object(text: &str) -> Result<Value, Fault> {
    serde_json::from_str(text).map_err(|error| format!("{text}: {error}").into())
}

/// Annotations with their prefix.
fn annotations(text: &str) -> Result<Value, Fault> {
    let plain = object(text)?;
    let all = plain.as_object().into_iter().flatten();
    Ok(all
        .map(|(key, value)| (format!("metallb.io/{key}"), value.clone()))
        .collect())
}

impl Play {
    fn api(&self) -> &Api {
        self.stage.plane.api()
    }

    async fn row(&mut self, row: &Row) -> Outcome {
        for step in row.steps {
            if let Err(error) = self.step(step).await {
                return Err(format!("{step:?}: {error}").into());
            }
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Outcome {
        match *step {
            Step::Pool(name, addresses, spec) => self.pool(name, addresses, spec).await,
            Step::NoPool(name) => Ok(self.delete(POOLS, name).await?),
            Step::Service(name, annotations, spec) => self.service(name, annotations, spec).await,
            Step::Edit(name, notes, spec) => {
                let patch = json!({
                    "metadata": {"annotations": annotations(notes)?},
                    "spec": object(spec)?,
                });
                let path = format!("{SERVICES}/{name}");
                self.api().patch(&path, Patch::Merge, &patch).await?;
                Ok(())
            }
            Step::NoService(name) => Ok(self.delete(SERVICES, name).await?),
            Step::Has(name, addresses) => Ok(self.stage.has(name, addresses).await?),
            Step::Still(name, addresses) => {
                self.barrier().await?;
                let found = self.stage.addresses(name).await;
                if found != addresses {
                    return Err(format!("{found:?}").into());
                }
                Ok(())
            }
            Step::From(name, pool) => Ok(wait_for(SOON, "the pool's annotation", async || {
                let service = self.stage.service(name).await;
                let service = service.map_err(|error| error.to_string())?;
                let notes = &service["metadata"]["annotations"];
                match notes["metallb.io/ip-allocated-from-pool"].as_str() {
                    Some(found) if found == pool => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?),
            Step::Told(name, reason, words) => Ok(wait_for(SOON, "the event", async || {
                let events = self.stage.events(name).await;
                let events = events.map_err(|error| vec![error.to_string()])?;
                let told = |event: &String| {
                    event.starts_with(reason)
                        && event.contains("metallb-controller")
                        && event.contains(words)
                };
                if events.iter().any(told) {
                    Ok(())
                } else {
                    Err(events)
                }
            })
            .await?),
        }
    }

    async fn pool(&self, name: &str, addresses: &[&str], spec: &str) -> Outcome {
        let mut spec = object(spec)?;
        spec["addresses"] = json!(addresses);
        let path = format!("{POOLS}/{name}");
        match self.api().get(&path).await {
            Ok(_) => {
                let patch = json!({"spec": spec});
                self.api().patch(&path, Patch::Merge, &patch).await?;
            }
            Err(_) => {
                let pool = json!({
                    "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
                    "metadata": {"name": name}, "spec": spec,
                });
                self.api().create(POOLS, &pool).await?;
            }
        }
        Ok(())
    }

    async fn service(&self, name: &str, notes: &str, spec: &str) -> Outcome {
        let mut service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "annotations": annotations(notes)?},
            "spec": {
                "type": "LoadBalancer",
                "allocateLoadBalancerNodePorts": false,
                "ipFamilyPolicy": "SingleStack",
                "selector": {"app": "myapp"},
                "ports": [{"port": 80}],
            },
        });
        for (key, value) in object(spec)?.as_object().into_iter().flatten() {
            service["spec"][key] = value.clone();
        }
        self.api().create(SERVICES, &service).await?;
        Ok(())
    }

    async fn delete(&self, collection: &str, name: &str) -> Result<(), ApiError> {
        self.api()
            .delete(&format!("{collection}/{name}"))
            .await
            .map(drop)
    }

    /// Waits until the controller has seen all that was done: a Service made now has its address.
    /// The pools come by another watch, and a pool is made now too.
    async fn barrier(&mut self) -> Outcome {
        self.barriers += 1;
        let (name, octet) = (format!("barrier-{}", self.barriers), self.barriers);
        let address = format!("198.51.100.{octet}");
        self.pool(
            &name,
            &[&format!("{address}/32")],
            r#"{"autoAssign": false}"#,
        )
        .await?;
        let notes = json!({"address-pool": name}).to_string();
        self.service(&name, &notes, "{}").await?;
        self.stage.has(&name, &[&address]).await?;
        self.delete(SERVICES, &name).await?;
        self.delete(POOLS, &name).await?;
        Ok(())
    }

    /// Removes the row's Services and pools, and waits until the controller has seen it.
    async fn clear(&mut self) -> Outcome {
        for (collection, keep) in [(SERVICES, "kubernetes"), (POOLS, "barrier")] {
            let list = self.api().get(collection).await?;
            for item in list["items"].as_array().into_iter().flatten() {
                let name = item["metadata"]["name"].as_str().unwrap_or_default();
                if name != keep {
                    self.delete(collection, name).await?;
                }
            }
        }
        self.barrier().await
    }

    /// Waits until two of the four have an address each; who has which.
    async fn settled(&self) -> Result<BTreeSet<String>, Fault> {
        let held = wait_for(SOON, "two addresses on two Services", async || {
            let mut held = BTreeSet::new();
            for name in ["r1", "r2", "r3", "r4"] {
                if let [address] = self.stage.addresses(name).await.as_slice() {
                    held.insert(format!("{name} {address}"));
                }
            }
            if held.len() == 2 { Ok(held) } else { Err(held) }
        });
        Ok(held.await?)
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
