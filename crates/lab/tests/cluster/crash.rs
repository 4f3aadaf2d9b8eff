//! The controller is killed (SIGKILL) again and again under load, and started again. No address is
//! given twice at any moment; when it has come to rest, no Service has an address that its pool
//! does not allow, and none waits while an address is free.
//!
//! `CRASH_KILLS` says how often (20), `CRASH_SEED` which story (by the clock; it is printed).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime};

use lab::controlplane::{Patch, binary_or_skip};
use lab::{Host, Outcome, Process, wait_for, wait_until};
use serde_json::{Value, json};

use crate::stage::{Fault, SOON, Stage, ingress, turn};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const POOLS: &str = "/apis/metallb.io/v1beta1/namespaces/metallb-system/ipaddresspools";
const POOL_ANNOTATION: &str = "metallb.io/address-pool";
const IP_ANNOTATION: &str = "metallb.io/loadBalancerIPs";
const SHARING_ANNOTATION: &str = "metallb.io/allow-shared-ip";
/// How often a Service that gives an address up is changed meanwhile.
const CHANGES: u64 = 12;
/// Names of Services: more than there are addresses.
const NAMES: u64 = 40;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn nothing_is_lost_however_often_the_controller_dies() {
    let name = "crash::nothing_is_lost_however_often_the_controller_dies";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    let _turn = turn();
    let kills = number("CRASH_KILLS").unwrap_or(20);
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // The inner run, too, must know it.
    let seed = number("CRASH_SEED").unwrap_or_else(|| clock.map_or(1, |since| since.as_secs()));
    let deadline = Duration::from_secs(120 + 15 * kills);
    lab::run_for(name, deadline, async move |lab| {
        let stage = Stage::build(lab, &binary, 0).await?;
        stage
            .lab
            .say(format!("CRASH_SEED={seed} CRASH_KILLS={kills}"));
        let host = stage.lab.host("controller").await?;
        stage.scene.lan.attach(&host, &["10.0.0.6/24"]).await?;
        let mut story = Story {
            random: Random(seed | 1),
            pools: Pools::default(),
            operations: 0,
            stage,
        };
        story.pools.write(&story.stage, true).await?;
        let mut controller = story.stage.controller(&host)?;
        let mut early = 0;
        let start = Instant::now();
        story.pair().await?;
        for kill in 1..=kills {
            if kill % 2 == 0 {
                let lives = Duration::from_millis(story.random.below(500));
                story.load(lives).await?;
            }
            story.hand_over(kill).await?;
            if kill % 2 == 1 {
                let lives = Duration::from_millis(story.random.below(500));
                story.load(lives).await?;
            }
            controller.kill();
            story.never(kill).await?;
            controller = story.stage.controller(&host)?;
            if story.random.below(4) == 0 {
                // In the middle of its start.
                let lives = Duration::from_millis(story.random.below(150));
                story.load(lives).await?;
                controller.kill();
                early += 1;
                story.never(kill).await?;
                controller = story.stage.controller(&host)?;
            }
            story.rest(kill, &host, &mut controller).await?;
        }
        story.stage.say(format!(
            "{kills} kills and {early} during the start, {} changes, in {:.1} s: nothing lost",
            story.operations,
            start.elapsed().as_secs_f64()
        ));
        Ok(())
    });
}

/// Two Services that ask for one address; whoever gives it up takes the other one.
const PAIR: [&str; 2] = ["pair-a", "pair-b"];
const PAIR_ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 70, 0, 1), Ipv4Addr::new(10, 70, 0, 2)];

/// xorshift: reproducible, and good enough to choose.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// The pools as they were written last.
struct Pools {
    /// Given to whoever asks for none.
    auto: BTreeSet<Ipv4Addr>,
    /// Only by its name.
    named: BTreeSet<Ipv4Addr>,
}

fn range(from: [u8; 4], count: u8) -> BTreeSet<Ipv4Addr> {
    let [a, b, c, d] = from;
    (0..count).map(|n| Ipv4Addr::new(a, b, c, d + n)).collect()
}

impl Default for Pools {
    fn default() -> Self {
        Self {
            auto: range([10, 50, 0, 0], 16),
            named: range([10, 60, 0, 0], 6),
        }
    }
}

impl Pools {
    async fn write(&self, stage: &Stage, first: bool) -> Outcome {
        for (name, addresses, auto) in [("auto", &self.auto, true), ("named", &self.named, false)] {
            let list: Vec<String> = addresses.iter().map(|ip| format!("{ip}/32")).collect();
            let spec = json!({"addresses": list, "autoAssign": auto});
            let api = stage.plane.api();
            if first {
                let pool = json!({
                    "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
                    "metadata": {"name": name}, "spec": spec,
                });
                api.create(POOLS, &pool).await?;
            } else {
                let patch = json!({"spec": spec});
                api.patch(&format!("{POOLS}/{name}"), Patch::Merge, &patch)
                    .await?;
            }
        }
        Ok(())
    }
}

struct Story {
    stage: Stage,
    random: Random,
    pools: Pools,
    operations: u64,
}

impl Story {
    /// The pair, with its pool: the first has the address, the second waits for it.
    async fn pair(&self) -> Outcome {
        let api = self.stage.plane.api();
        let list = PAIR_ADDRESSES.map(|ip| format!("{ip}/32"));
        let pool = json!({
            "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": "pair"},
            "spec": {"addresses": list, "autoAssign": false},
        });
        api.create(POOLS, &pool).await?;
        for name in PAIR {
            let annotations = json!({IP_ANNOTATION: PAIR_ADDRESSES[0].to_string()});
            let service = object(name, &annotations, 80);
            api.create(SERVICES, &service).await?;
        }
        Ok(())
    }

    async fn asks(&self, name: &str, address: Ipv4Addr) -> Outcome {
        let patch = json!({"metadata": {"annotations": {IP_ANNOTATION: address.to_string()}}});
        let path = format!("{SERVICES}/{name}");
        let api = self.stage.plane.api();
        api.patch(&path, Patch::Merge, &patch).await?;
        Ok(())
    }

    /// The one that has the pair's address asks for another, and the one that waits gets it. That
    /// is two writes, in this order: nobody ever sees the address with both. Every other time the
    /// giver is changed again and again meanwhile, so that the controller's write meets a newer
    /// form and comes to nothing.
    async fn hand_over(&self, kill: u64) -> Outcome {
        let [address, other] = PAIR_ADDRESSES;
        let held = [address.to_string()];
        let look = async || {
            let has = [
                self.stage.addresses(PAIR[0]).await,
                self.stage.addresses(PAIR[1]).await,
            ];
            match has.each_ref().map(|has| *has == held) {
                [true, false] => Ok((PAIR[0], PAIR[1])),
                [false, true] => Ok((PAIR[1], PAIR[0])),
                _ => Err(has),
            }
        };
        let (giver, taker) = wait_for(SOON, "one of the pair to have its address", look).await?;
        self.asks(taker, address).await?;
        let waits = async || self.stage.addresses(taker).await.is_empty();
        wait_until(SOON, "the other one to wait for it", waits).await?;
        self.asks(giver, other).await?;
        let changes = if kill.is_multiple_of(2) { CHANGES } else { 0 };
        for change in 0..changes {
            let patch = json!({"metadata": {"labels": {"change": format!("{kill}-{change}")}}});
            let path = format!("{SERVICES}/{giver}");
            let api = self.stage.plane.api();
            api.patch(&path, Patch::Merge, &patch).await?;
            self.never(kill).await?;
        }
        let handed = async || {
            let services = self.list().await.map_err(|error| error.to_string())?;
            let of = |name: &str| services.iter().find(|service| service.name == name);
            match (of(giver), of(taker)) {
                (Some(from), Some(to))
                    if from.address == Some(other) && to.address == Some(address) =>
                {
                    Ok((from.version, to.version))
                }
                pair => Err(format!("{pair:?}")),
            }
        };
        let (left, entered) = wait_for(SOON, "the other one to have it", handed).await?;
        // Versions of one store are in the order of the writes: a moment with two is never missed.
        // But where the giver was changed, its version may be of a change that came after.
        assert!(
            left < entered || changes > 0,
            "kill {kill}: {address} was given to {taker} ({entered}) before {giver} had left it ({left})"
        );
        Ok(())
    }

    /// Changes without a pause for so long.
    async fn load(&mut self, time: Duration) -> Outcome {
        let start = Instant::now();
        while start.elapsed() < time {
            self.change().await?;
            self.operations += 1;
        }
        Ok(())
    }

    /// One change. Keys and ports of sharing stay as they are created: what the controller may
    /// give together never depends on a change that it has not seen.
    async fn change(&mut self) -> Outcome {
        let name = format!("s{}", self.random.below(NAMES));
        let path = format!("{SERVICES}/{name}");
        let api = self.stage.plane.api().clone();
        let tolerated = match self.random.below(20) {
            0..10 => {
                let service = self.service(&name);
                api.create(SERVICES, &service).await
            }
            10..15 => api.delete(&path).await,
            15..17 => {
                // Another wish, or none any more.
                let wish = self.wish();
                let patch = json!({"metadata": {"annotations": {
                    POOL_ANNOTATION: wish.get(POOL_ANNOTATION),
                    IP_ANNOTATION: wish.get(IP_ANNOTATION),
                }}});
                api.patch(&path, Patch::Merge, &patch).await
            }
            17 => {
                let kind = ["ClusterIP", "LoadBalancer"][self.random.below(2) as usize];
                let patch = json!({"spec": {"type": kind}});
                api.patch(&path, Patch::Merge, &patch).await
            }
            18 => {
                self.pools.auto = match self.random.below(3) {
                    0 => range([10, 50, 0, 0], 16),
                    1 => range([10, 50, 0, 4], 10),
                    _ => &range([10, 50, 0, 0], 8) | &range([10, 51, 0, 0], 8),
                };
                return self.pools.write(&self.stage, false).await;
            }
            _ => {
                self.pools.named = match self.random.below(2) {
                    0 => range([10, 60, 0, 0], 6),
                    _ => range([10, 60, 0, 3], 6),
                };
                return self.pools.write(&self.stage, false).await;
            }
        };
        match tolerated {
            Ok(_) => Ok(()),
            // It is there already, or not there.
            Err(error) if matches!(error.status(), Some(404 | 409)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What a Service asks for: mostly nothing, else a pool, or an address that may be in none.
    fn wish(&mut self) -> BTreeMap<&'static str, String> {
        match self.random.below(6) {
            0 => BTreeMap::from([(POOL_ANNOTATION, "named".to_owned())]),
            1 => {
                let ip = Ipv4Addr::new(10, 50, 0, self.random.below(20) as u8);
                BTreeMap::from([(IP_ANNOTATION, ip.to_string())])
            }
            _ => BTreeMap::new(),
        }
    }

    fn service(&mut self, name: &str) -> Value {
        let mut annotations = self.wish();
        if self.random.below(3) == 0 {
            let key = ["red", "blue"][self.random.below(2) as usize];
            annotations.insert(SHARING_ANNOTATION, key.to_owned());
        }
        object(name, &json!(annotations), 80 + self.random.below(3))
    }

    async fn list(&self) -> Result<Vec<Service>, Fault> {
        let list = self.stage.plane.api().get(SERVICES).await?;
        let items = list["items"].as_array().into_iter().flatten();
        Ok(items.filter_map(Service::of).collect())
    }

    /// What holds at any moment, also with a controller that died just now.
    async fn never(&self, kill: u64) -> Outcome {
        let services = self.list().await?;
        let given = twice(&services);
        if given.is_empty() {
            return Ok(());
        }
        Err(format!("kill {kill}: given twice: {given:#?}").into())
    }

    /// The controller leads, nothing is changed: all comes to be as it should.
    async fn rest(&self, kill: u64, host: &Host, controller: &mut Process) -> Outcome {
        wait_until(SOON, "a controller that is ready or ended", async || {
            self.stage.ready(host).await.is_ok()
                || controller.try_wait().is_ok_and(|ended| ended.is_some())
        })
        .await?;
        wait_for(SOON, &format!("rest after kill {kill}"), async || {
            let services = self.list().await.map_err(|error| vec![error.to_string()])?;
            let mut wrong = twice(&services);
            wrong.extend(self.wrong(&services));
            if wrong.is_empty() { Ok(()) } else { Err(wrong) }
        })
        .await?;
        Ok(())
    }

    /// Addresses outside the rules, and Services that wait for nothing.
    fn wrong(&self, services: &[Service]) -> Vec<String> {
        let Pools { auto, named } = &self.pools;
        let known =
            |ip: &Ipv4Addr| auto.contains(ip) || named.contains(ip) || PAIR_ADDRESSES.contains(ip);
        let used: BTreeSet<Ipv4Addr> = services.iter().filter_map(|s| s.address).collect();
        let mut wrong = Vec::new();
        for service in services {
            let Service {
                name,
                address,
                pool,
                wish,
                ..
            } = service;
            match address {
                Some(ip) if !service.balanced => {
                    wrong.push(format!("{name}: no balancer has {ip}"))
                }
                Some(ip) if !known(ip) => {
                    wrong.push(format!("{name}: {ip} is in no pool"));
                }
                Some(ip) if pool.as_deref() == Some("named") && !named.contains(ip) => {
                    wrong.push(format!("{name}: {ip} is not in its pool"));
                }
                Some(ip) if wish.is_some_and(|wish| wish != *ip) => {
                    wrong.push(format!("{name}: {ip} is not what it asks for"));
                }
                Some(_) => {}
                None if !service.balanced => {}
                None => {
                    let free = match (wish, pool) {
                        (Some(ip), _) => (known(ip) && !used.contains(ip)).then_some(*ip),
                        (None, Some(_)) => named.difference(&used).next().copied(),
                        (None, None) => auto.difference(&used).next().copied(),
                    };
                    if let Some(ip) = free {
                        wrong.push(format!("{name}: waits, and {ip} is free"));
                    }
                }
            }
        }
        wrong
    }
}

fn object(name: &str, annotations: &Value, port: u64) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false,
            "ports": [{"port": port}],
        },
    })
}

/// What the rules look at.
#[derive(Debug)]
struct Service {
    name: String,
    /// `resourceVersion`
    version: u64,
    balanced: bool,
    address: Option<Ipv4Addr>,
    pool: Option<String>,
    wish: Option<Ipv4Addr>,
    sharing: Option<String>,
    port: u64,
}

impl Service {
    fn of(object: &Value) -> Option<Self> {
        let annotation = |name: &str| {
            let text = object["metadata"]["annotations"][name].as_str();
            text.map(str::to_owned)
        };
        Some(Self {
            name: object["metadata"]["name"].as_str()?.to_owned(),
            version: object["metadata"]["resourceVersion"]
                .as_str()?
                .parse()
                .ok()?,
            balanced: object["spec"]["type"] == "LoadBalancer",
            address: ingress(object).first().and_then(|ip| ip.parse().ok()),
            pool: annotation(POOL_ANNOTATION),
            wish: annotation(IP_ANNOTATION).and_then(|ip| ip.parse().ok()),
            sharing: annotation(SHARING_ANNOTATION),
            port: object["spec"]["ports"][0]["port"].as_u64()?,
        })
    }
}

/// Pairs that have one address and may not share it.
fn twice(services: &[Service]) -> Vec<String> {
    let mut given = Vec::new();
    for (n, one) in services.iter().enumerate() {
        for other in services.get(n + 1..).unwrap_or_default() {
            let shares =
                one.sharing.is_some() && one.sharing == other.sharing && one.port != other.port;
            let balanced = one.balanced && other.balanced;
            if balanced && one.address.is_some() && one.address == other.address && !shares {
                given.push(format!("{one:?} and {other:?}"));
            }
        }
    }
    given
}
