//! The subject switch (`spec/bgp.md` A3): who stands on the nodes, Corten or FRR with MetalLB's
//! template. What the one passes and the other fails is a bug of ours.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use lab::Process;
use lab::router::Frr;

use crate::stage::{Outcome, Stage};

/// A session as MetalLB's template writes it.
#[derive(Clone, Copy)]
pub(crate) struct Neighbour {
    pub(crate) address: &'static str,
    pub(crate) asn: u32,
    /// Of it: `timers 10 30`.
    pub(crate) says: &'static [&'static str],
    /// `ipv4`, `ipv6`.
    pub(crate) families: &'static [&'static str],
}

/// What the objects say of a prefix to some neighbours, as MetalLB's speaker hands it to its
/// template.
#[derive(Clone, Copy)]
pub(crate) struct Route {
    pub(crate) prefix: &'static str,
    pub(crate) local_pref: Option<u32>,
    pub(crate) communities: &'static [&'static str],
    pub(crate) large: &'static [&'static str],
    /// Addresses.
    pub(crate) to: &'static [&'static str],
}

/// `ipv4` or `ipv6`.
fn family(prefix: &str) -> &'static str {
    if prefix.contains(':') { "ipv6" } else { "ipv4" }
}

/// What MetalLB's template (`internal/bgp/frr/templates`) makes of them for a node: filters of each
/// neighbour, then the sessions, then the prefixes, `networks` of them.
pub(crate) fn config(
    router_id: &str,
    neighbours: &[Neighbour],
    routes: &[Route],
    networks: &BTreeSet<&str>,
) -> String {
    let mut filters = String::new();
    let mut sessions = String::new();
    let mut families = String::new();
    for Neighbour {
        address: peer,
        asn,
        says,
        families: own,
    } in neighbours
    {
        let of = |prefix: &str| if prefix.contains(':') { "ipv6" } else { "ip" };
        let mut permit = 0;
        let _ = writeln!(filters, "route-map {peer}-in deny 20");
        for route in routes.iter().filter(|route| route.to.contains(peer)) {
            let prefix = route.prefix;
            let family = of(prefix);
            let pref = route.local_pref.map(|it| format!("local-preference {it}"));
            let said = route.communities.iter();
            let sets = pref
                .into_iter()
                .chain(said.map(|it| format!("community {it} additive")))
                .chain(
                    route
                        .large
                        .iter()
                        .map(|it| format!("large-community {it} additive")),
                );
            for set in sets {
                permit += 1;
                let list = format!("{peer}-{permit}");
                let _ = write!(
                    filters,
                    "{family} prefix-list {list} seq 1 permit {prefix}\n\
                     route-map {peer}-out permit {permit}\n \
                     match {family} address prefix-list {list}\n set {set}\n on-match next\n"
                );
            }
            let _ = writeln!(
                filters,
                "{family} prefix-list {peer}-{family} permit {prefix}"
            );
        }
        for family in ["ip", "ipv6"] {
            permit += 1;
            let _ = write!(
                filters,
                "route-map {peer}-out permit {permit}\n \
                 match {family} address prefix-list {peer}-{family}\n"
            );
        }
        let _ = writeln!(sessions, "  neighbor {peer} remote-as {asn}");
        for line in says.iter().chain(&["timers connect 1"]) {
            let _ = writeln!(sessions, "  neighbor {peer} {line}");
        }
        for family in *own {
            let _ = write!(
                families,
                "  address-family {family} unicast\n    neighbor {peer} activate\n    \
                 neighbor {peer} route-map {peer}-in in\n    \
                 neighbor {peer} route-map {peer}-out out\n  exit-address-family\n"
            );
        }
    }
    for prefix in networks {
        let _ = write!(
            families,
            "  address-family {} unicast\n    network {prefix}\n  exit-address-family\n",
            family(prefix)
        );
    }
    format!(
        "{filters}router bgp 64500\n  no bgp ebgp-requires-policy\n  no bgp network import-check\n  \
         no bgp default ipv4-unicast\n  bgp graceful-restart preserve-fw-state\n  \
         bgp router-id {router_id}\n{sessions}{families}"
    )
}

/// Who stands on the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Corten,
    MetalLb,
}

/// It runs.
pub(crate) struct Running {
    _agents: Vec<Process>,
    routers: Vec<(Frr, BTreeSet<&'static str>)>,
}

impl Subject {
    /// Starts it on every node: Corten on the directory of manifests; MetalLB's FRR with each
    /// node's neighbours, filters for all routes, and the prefixes that the node announces.
    pub(crate) async fn start(
        self,
        stage: &Stage,
        neighbours: impl Fn(usize) -> Vec<Neighbour>,
        routes: &[Route],
        announced: impl Fn(usize) -> Vec<&'static str>,
    ) -> Outcome<Running> {
        let mut running = Running {
            _agents: Vec::new(),
            routers: Vec::new(),
        };
        if self == Self::Corten {
            running._agents = stage.start()?;
            return Ok(running);
        }
        for (number, node) in stage.scene.nodes.iter().enumerate() {
            let networks = BTreeSet::from_iter(announced(number));
            let id = node.ip.to_string();
            let config = config(&id, &neighbours(number), routes, &networks);
            let frr = Frr::start(&node.host, &config, "").await?;
            running.routers.push((frr, networks));
        }
        Ok(running)
    }
}

impl Running {
    /// The objects have changed: MetalLB's speakers would have each node announce these from now
    /// on. Corten reads the objects.
    pub(crate) fn announce(&mut self, announced: impl Fn(usize) -> Vec<&'static str>) -> Outcome {
        for (number, (frr, networks)) in self.routers.iter_mut().enumerate() {
            let now = BTreeSet::from_iter(announced(number));
            let gone = networks.difference(&now).map(|it| ("no ", *it));
            let new = now.difference(networks).map(|it| ("", *it));
            let mut commands = vec!["configure terminal".into(), "router bgp 64500".into()];
            for (no, prefix) in gone.chain(new) {
                commands.push(format!("address-family {} unicast", family(prefix)));
                commands.push(format!("{no}network {prefix}"));
                commands.push("exit-address-family".into());
            }
            let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
            frr.ask(&commands)?;
            *networks = now;
        }
        Ok(())
    }
}
