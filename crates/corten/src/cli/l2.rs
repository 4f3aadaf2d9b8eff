//! `corten l2`: which node has which address in layer 2, why, and who is next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use api::corten::v1alpha1::NodeStateStatus;
use api::crds::yaml;
use api::metallb::ServiceL2Status;
use kube::core::params::ListParams;
use kube::core::{ObjectList, Request};
use plan::explain::l2::{self, Explained};
use plan::world::{Event, Settings, World};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::nodes::{Nodes, Where};
use super::table::{Form, aligned, row};
use super::{Failure, runtime, serving};
use crate::source::dir::DirSource;
use crate::source::kube::{KubeSource, Role, path};
use crate::source::{QUEUE, Source};

/// How long reading everything may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Only what these nodes have, or would have next.
    nodes: Vec<String>,
    #[command(flatten)]
    place: Where,
    /// The namespace that configuration objects live in.
    #[arg(short, long, env = "METALLB_NAMESPACE", default_value_t = serving::own_namespace())]
    namespace: String,
    /// As the agents' flag: only Services of this spec.loadBalancerClass.
    #[arg(long)]
    lb_class: Option<String>,
    /// As the agents' flag: the label that excludes nodes does not count.
    #[arg(long)]
    ignore_exclude_lb: bool,
    /// In another form than tables.
    #[arg(short, long, value_enum)]
    output: Option<Form>,
}

impl Options {
    fn settings(&self) -> Settings {
        let class = self.lb_class.as_deref().filter(|class| !class.is_empty());
        Settings {
            namespace: self.namespace.as_str().into(),
            lb_class: class.map(Into::into),
            ignore_exclude_label: self.ignore_exclude_lb,
            native_bgp: false,
        }
    }
}

/// What is known, and what the agents say.
struct Known {
    world: World,
    states: BTreeMap<String, NodeStateStatus>,
    /// By Service, as `namespace/name`, the nodes that say they announce it; `None`: nobody says so
    /// here.
    announced: Option<BTreeMap<String, BTreeSet<String>>>,
}

pub(super) fn main(options: &Options) -> Result<(), Failure> {
    let known = runtime()?.block_on(Known::read(options))?;
    for node in &options.nodes {
        if known.world.node(node).is_none() {
            return Err(format!("{node}: there is no such node").into());
        }
    }
    let shown = known.explained(&options.nodes);
    match options.output {
        Some(Form::Json) => println!("{:#}", known.items(&shown, &options.nodes)),
        Some(Form::Yaml) => print!("{}", yaml::emit(&known.items(&shown, &options.nodes))),
        None | Some(Form::Wide) => {
            if shown.is_empty() {
                eprintln!("No addresses found");
            } else {
                let table = known.table(&shown, options.output.is_some());
                println!("{}", aligned(&table));
            }
            print!("{}", aligned(&known.spread(&options.nodes)));
        }
    }
    Ok(())
}

impl Known {
    async fn read(options: &Options) -> Result<Self, Failure> {
        let nodes = Nodes::open(&options.place).await?;
        let states = nodes.states().await?;
        let (out, updates) = mpsc::channel(QUEUE);
        let mut world = World::new(options.settings());
        let announced = match &nodes {
            Nodes::Dir(dir) => {
                for (node, state) in &states {
                    world.apply(Event::State {
                        node: node.as_str().into(),
                        form: Some(state.clone().into()),
                    });
                }
                let source = DirSource::new(dir, &options.namespace).quiet();
                fill(&mut world, source.run(out), updates).await?;
                None
            }
            Nodes::Cluster(client) => {
                let source = KubeSource::new(client.clone(), &options.namespace, Role::Agent);
                fill(&mut world, source.run(out), updates).await?;
                let request = Request::new(path::<ServiceL2Status>(Some(&options.namespace)));
                let request = request.list(&ListParams::default())?;
                let list = client.request::<ObjectList<ServiceL2Status>>(request).await;
                list.inspect_err(|error| {
                    let error = error as &dyn std::error::Error;
                    tracing::warn!(error, "what the agents announce is not known");
                })
                .ok()
                .map(|list| by_service(list.items))
            }
        };
        Ok(Self {
            world,
            states,
            announced,
        })
    }

    /// The addresses that some layer 2 advertisement is for, or nothing at all, and that concern these
    /// nodes.
    fn explained(&self, nodes: &[String]) -> Vec<Explained> {
        let all = self.world.addresses().filter(|it| !self.is_elsewhere(*it));
        let all = all.map(|it| l2::address(&self.world, it));
        let concerns = |it: &Explained| {
            let owner = it.owner.iter().map(|(node, _)| node);
            let mut named = owner.chain(&it.next);
            nodes.is_empty() || named.any(|node| nodes.iter().any(|it| **it == **node))
        };
        all.filter(concerns).collect()
    }

    /// Whether an address is announced by BGP or on `kube-lb0`, and not in layer 2.
    fn is_elsewhere(&self, address: IpAddr) -> bool {
        let config = self.world.config();
        let Some(pool) = self.world.allocator().pool_of(address) else {
            return false;
        };
        let mut layer2 = config.l2.values().map(|ad| &ad.pools);
        let bgp = config.bgp.advertisements.values().map(|ad| &ad.pools);
        let linux = config.linux.values().map(|ad| &ad.pools);
        let mut others = bgp.chain(linux);
        !layer2.any(|pools| pools.contains(&pool.name))
            && others.any(|pools| pools.contains(&pool.name))
    }

    /// The link-layer address that an address is at, on an interface of its owner.
    fn mac(&self, it: &Explained, interface: &str) -> Option<String> {
        if let Some(own) = it.mac {
            return Some(own.to_string());
        }
        let (owner, _) = it.owner.as_ref()?;
        let mut interfaces = self.states.get(&**owner)?.interfaces.iter();
        interfaces.find(|it| it.name == interface)?.mac.clone()
    }

    /// The same of all its interfaces.
    fn macs(&self, it: &Explained) -> String {
        if let Some(own) = it.mac {
            return format!("{own} (virtual)");
        }
        let macs = it.interfaces.iter().filter_map(|name| self.mac(it, name));
        macs.collect::<Vec<_>>().join(",")
    }

    /// The nodes that say they announce a Service of the address.
    fn announcing(&self, it: &Explained) -> Option<BTreeSet<String>> {
        let announced = self.announced.as_ref()?;
        let services = it.services.iter();
        let nodes = services.filter_map(|key| announced.get(&key.to_string()));
        Some(nodes.flatten().cloned().collect())
    }

    /// Why it is so, and what the agents say otherwise.
    fn why(&self, it: &Explained) -> String {
        let mut why = match (&it.owner, it.nobody()) {
            (Some((_, why)), _) => why.to_string(),
            (None, why) => why.unwrap_or_default(),
        };
        if it.local && it.owner.is_some() {
            why += ", of those with an endpoint";
        }
        let owner = it.owner.as_ref().map(|(node, _)| &**node);
        let address = it.address.to_string();
        let state = owner.and_then(|owner| self.states.get(owner));
        if state.is_some_and(|it| it.withheld.contains(&address)) {
            why += "; withheld: a station that is no node has it";
        }
        let Some(announcing) = self.announcing(it) else {
            return why;
        };
        if owner.is_some_and(|owner| !announcing.contains(owner)) {
            why += "; it does not say that it announces it";
        }
        for other in announcing
            .iter()
            .filter(|node| Some(node.as_str()) != owner)
        {
            why += &format!("; {other} says that it announces it");
        }
        why
    }

    /// The table's rows, the head first.
    fn table(&self, shown: &[Explained], wide: bool) -> Vec<Vec<String>> {
        let mut head = row(["ADDRESS", "SERVICE", "NODE", "INTERFACES"]);
        if wide {
            head.extend(row(["MAC"]));
        }
        head.extend(row(["NEXT", "WHY"]));
        if wide {
            head.extend(row(["NOT ABLE"]));
        }
        let mut rows = vec![head];
        for it in shown {
            let owner = it.owner.as_ref().map(|(node, _)| &**node);
            let mut cells = vec![
                it.address.to_string(),
                joined(&it.services),
                owner.unwrap_or("<none>").to_owned(),
                joined(&it.interfaces),
            ];
            if wide {
                cells.push(self.macs(it));
            }
            cells.extend([joined(&it.next), self.why(it)]);
            if wide {
                let unfit = it.unfit.iter();
                let unfit = unfit.map(|(node, why)| format!("{node} ({why})"));
                cells.push(unfit.collect::<Vec<_>>().join(", "));
            }
            rows.push(cells);
        }
        rows
    }

    /// How many addresses each node has, and whether it may have some.
    fn counted(&self, nodes: &[String]) -> Vec<(String, usize, Option<String>)> {
        let addresses = self.world.addresses();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for address in addresses {
            let standing = self.world.standing(address);
            if let Some(owner) = standing.and_then(|it| it.owner()) {
                *counts.entry(owner.to_string()).or_default() += 1;
            }
        }
        let names = self.world.node_names();
        let names = names.filter(|name| nodes.is_empty() || nodes.iter().any(|it| **it == ***name));
        names
            .map(|name| {
                let unfit = l2::node(&self.world, name).map(|why| why.to_string());
                let count = counts.get(&**name).copied().unwrap_or(0);
                (name.to_string(), count, unfit)
            })
            .collect()
    }

    fn spread(&self, nodes: &[String]) -> Vec<Vec<String>> {
        let mut rows = vec![row(["NODE", "ADDRESSES", "STATE"])];
        for (node, count, unfit) in self.counted(nodes) {
            let state = unfit.unwrap_or_else(|| "able".to_owned());
            rows.push(vec![node, count.to_string(), state]);
        }
        rows
    }

    /// For programs.
    fn items(&self, shown: &[Explained], nodes: &[String]) -> Value {
        let names = |list: &[plan::name::Name]| list.iter().map(ToString::to_string).collect();
        let items = shown.iter().map(|it| {
            let owner = it.owner.as_ref().map(|(node, _)| &**node);
            let interfaces = it
                .interfaces
                .iter()
                .map(|name| json!({"name": **name, "mac": self.mac(it, name)}));
            let next: Vec<String> = names(&it.next);
            let services: Vec<String> = it.services.iter().map(ToString::to_string).collect();
            let unfit = it.unfit.iter();
            let unfit = unfit.map(|(node, why)| json!({"node": **node, "why": why.to_string()}));
            json!({
                "address": it.address,
                "services": services,
                "node": owner,
                "interfaces": interfaces.collect::<Vec<_>>(),
                "virtualMac": it.mac.map(|mac| mac.to_string()),
                "next": next,
                "why": self.why(it),
                "announcedBy": self.announcing(it),
                "notAble": unfit.collect::<Vec<_>>(),
            })
        });
        let items: Vec<Value> = items.collect();
        let counted = self.counted(nodes).into_iter();
        let counted = counted.map(
            |(node, count, unfit)| json!({"node": node, "addresses": count, "notAble": unfit}),
        );
        json!({"items": items, "nodes": counted.collect::<Vec<_>>()})
    }
}

fn by_service(items: Vec<ServiceL2Status>) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for status in items.into_iter().map(|it| it.status) {
        let service = format!("{}/{}", status.service_namespace, status.service_name);
        found.entry(service).or_default().insert(status.node);
    }
    found
}

fn joined<T: ToString>(list: &[T]) -> String {
    let list: Vec<String> = list.iter().map(ToString::to_string).collect();
    list.join(",")
}

/// Takes in everything that there is now.
async fn fill(
    world: &mut World,
    source: impl Future + Send,
    mut updates: mpsc::Receiver<Event>,
) -> Result<(), Failure> {
    let taken = async {
        while let Some(event) = updates.recv().await {
            let synced = event == Event::Synced;
            world.apply(event);
            if synced {
                return true;
            }
        }
        false
    };
    let read = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            taken = taken => taken,
            _ = source => false,
        }
    });
    match read.await {
        Ok(true) => Ok(()),
        _ => Err(format!(
            "not all that layer 2 depends on could be read within {} s; you need the right to list \
             Services, EndpointSlices, Nodes, and Pods and the kinds of metallb.io and corten.dev in \
             Corten's namespace",
            PATIENCE.as_secs()
        )
        .into()),
    }
}

#[cfg(test)]
mod tests;
