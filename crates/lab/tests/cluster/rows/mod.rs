//! The rules of allocation on a real API server, row by row (`spec/metallb.md` §2.2 to 2.6): what a
//! user does, the address that comes of it, and the event that says so. The rows are data
//! ([`table`]); one control plane serves them all.
//!
//! What needs a controller that was away comes after the rows ([`Play::restarts`]).

mod stored;
mod table;

use std::collections::BTreeSet;
use std::fmt;

use lab::controlplane::{Api, ApiError, Patch, binary_or_skip};
use lab::{Outcome, Process, wait_for};
use serde_json::{Value, json};

use crate::stage::{Fault, MINUTES, SOON, Stage, turn};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const NAMESPACE: &str = "/api/v1/namespaces/default";
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
    /// Creates the Service `.0` with the annotations `.1` (those without a prefix get
    /// `metallb.io/`) and the spec `.2`.
    Service(&'static str, &'static str, &'static str),
    /// Merges `.1` into the labels of the Service `.0`.
    Label(&'static str, &'static str),
    /// Merges into the labels of the Services' namespace.
    Namespace(&'static str),
    /// Replaces fields of the stored spec of the Service `.0`, past the API server.
    Stored(&'static str, &'static str),
    /// Merges into the annotations of the Service `.0` what `.1` says, and `.2` into its spec.
    Edit(&'static str, &'static str, &'static str),
    /// Removes a Service.
    NoService(&'static str),
    /// The Service comes to have these addresses.
    Has(&'static str, &'static [&'static str]),
    /// All that was done has been seen, and the Service has these addresses.
    Still(&'static str, &'static [&'static str]),
    /// The annotation that names the pool; empty: it is not there.
    From(&'static str, &'static str),
    /// An event `REASON` of the Service whose message has these words.
    Told(&'static str, &'static str, &'static str),
    /// No event `REASON` of the Service so far.
    Never(&'static str, &'static str),
    /// No event at all of the controller about the Service so far.
    Silent(&'static str),
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
        let mut play = Play {
            stage,
            barriers: 0,
            unseen: false,
        };
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
        play.restarts(&mut controller).await
    });
}

struct Play {
    stage: Stage,
    barriers: u32,
    /// Pools or the namespace have changed since the last barrier.
    unseen: bool,
}

fn object(text: &str) -> Result<Value, Fault> {
    serde_json::from_str(text).map_err(|error| format!("{text}: {error}").into())
}

/// Annotations with their prefix.
fn annotations(text: &str) -> Result<Value, Fault> {
    let plain = object(text)?;
    let all = plain.as_object().into_iter().flatten();
    Ok(all
        .map(|(key, value)| match key.contains('/') {
            true => (key.clone(), value.clone()),
            false => (format!("metallb.io/{key}"), value.clone()),
        })
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
        // Services come by another watch than pools and namespaces: what is done to them may be
        // seen first.
        match step {
            Step::Pool(..) | Step::NoPool(_) | Step::Namespace(_) => self.unseen = true,
            Step::Service(..) | Step::Edit(..) | Step::Label(..) | Step::Stored(..)
                if self.unseen =>
            {
                self.barrier().await?;
            }
            _ => {}
        }
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
            Step::Label(name, labels) => {
                let patch = json!({"metadata": {"labels": object(labels)?}});
                let path = format!("{SERVICES}/{name}");
                self.api().patch(&path, Patch::Merge, &patch).await?;
                Ok(())
            }
            Step::Namespace(labels) => {
                let patch = json!({"metadata": {"labels": object(labels)?}});
                self.api().patch(NAMESPACE, Patch::Merge, &patch).await?;
                Ok(())
            }
            Step::Stored(name, spec) => stored::rewrite(&self.stage, name, &object(spec)?).await,
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
            Step::From(name, pool) => self.taken_from(name, pool).await,
            Step::Told(name, reason, words) => self.told(name, reason, words).await,
            Step::Never(name, reason) => self.never(name, reason).await,
            Step::Silent(name) => self.never(name, "").await,
        }
    }

    async fn taken_from(&self, name: &str, pool: &str) -> Outcome {
        let look = async || {
            let service = self.stage.service(name).await;
            let service = service.map_err(|error| error.to_string())?;
            let notes = &service["metadata"]["annotations"];
            match notes["metallb.io/ip-allocated-from-pool"].as_str() {
                Some(found) if found == pool => Ok(()),
                None if pool.is_empty() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        };
        Ok(wait_for(SOON, "the pool's annotation", look).await?)
    }

    async fn told(&self, name: &str, reason: &str, words: &str) -> Outcome {
        let look = async || {
            let events = self.stage.events(name).await;
            let events = events.map_err(|error| vec![error.to_string()])?;
            let beginning = format!("{reason} metallb-controller: ");
            let told = |event: &String| event.starts_with(&beginning) && event.contains(words);
            if events.iter().any(told) {
                Ok(())
            } else {
                Err(events)
            }
        };
        Ok(wait_for(SOON, "the event", look).await?)
    }

    /// The controller has told nothing of the Service that begins so.
    async fn never(&self, name: &str, beginning: &str) -> Outcome {
        let events = self.stage.events(name).await?;
        let ours = |event: &String| event.contains("metallb-controller: ");
        let mut events_of_ours = events.iter().filter(|event| ours(event));
        if events_of_ours.any(|event| event.starts_with(beginning)) {
            return Err(format!("{events:#?}").into());
        }
        Ok(())
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

    /// Waits until the controller has seen all that was done: a Service made now has its address,
    /// from a pool made now, for a label that the namespace has now. They come by three watches.
    async fn barrier(&mut self) -> Outcome {
        self.barriers += 1;
        let number = self.barriers;
        let (name, label) = (format!("barrier-{number}"), number.to_string());
        let address = format!("172.20.{}.{}", number >> 8, number & 255);
        let patch = json!({"metadata": {"labels": {"barrier": label}}});
        self.api().patch(NAMESPACE, Patch::Merge, &patch).await?;
        let spec = json!({
            "autoAssign": false,
            "serviceAllocation": {"namespaceSelectors": [{"matchLabels": {"barrier": label}}]},
        });
        self.pool(&name, &[&format!("{address}/32")], &spec.to_string())
            .await?;
        let notes = json!({"address-pool": name}).to_string();
        self.service(&name, &notes, "{}").await?;
        self.stage.has(&name, &[&address]).await?;
        self.delete(SERVICES, &name).await?;
        self.delete(POOLS, &name).await?;
        self.unseen = false;
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

    /// Four Services on two addresses: who has one keeps it, however often.
    async fn restarts(&mut self, controller: &mut Process) -> Outcome {
        self.pool("two", &["10.1.0.1-10.1.0.2"], "{}").await?;
        for name in ["r1", "r2", "r3", "r4"] {
            self.service(name, "{}", "{}").await?;
        }
        let before = self.settled().await?;
        for restart in 1..=5 {
            self.restart(controller).await?;
            assert_eq!(self.settled().await?, before, "restart {restart}");
        }
        self.stage.say(format!("five restarts: {before:?}"));

        // What happens while nobody leads: the pool is renamed, and a status is edited.
        controller.kill();
        self.delete(POOLS, "two").await?;
        self.pool("renamed", &["10.1.0.1-10.1.0.2"], "{}").await?;
        self.pool("odd", &["10.2.0.0/30"], r#"{"autoAssign": false}"#)
            .await?;
        self.service("odd", r#"{"address-pool": "odd"}"#, "{}")
            .await?;
        let status = json!({"status": {"loadBalancer": {"ingress": [
            {"ip": "10.2.0.1"}, {"ip": "10.2.0.2"},
        ]}}});
        let path = format!("{SERVICES}/odd/status");
        self.api().patch(&path, Patch::Merge, &status).await?;
        self.restart(controller).await?;
        assert_eq!(self.settled().await?, before, "renamed");
        for held in &before {
            let name = held.split(' ').next().unwrap_or_default();
            self.taken_from(name, "renamed").await?;
            self.never(name, "ClearAssignment").await?;
        }
        self.told(
            "odd",
            "nolbIPsIPFamily",
            "neither one address nor one of each family",
        )
        .await?;
        self.stage.has("odd", &["10.2.0.0"]).await?;
        Ok(())
    }

    /// Kills the controller, starts it again and waits until it decides.
    async fn restart(&mut self, controller: &mut Process) -> Outcome {
        controller.kill();
        *controller = self.stage.controller(&self.stage.api_host)?;
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
