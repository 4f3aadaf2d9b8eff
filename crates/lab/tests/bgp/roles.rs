//! BGP roles (RFC 9234): sessions of roles that fit, those that do not, and what routes say.

use lab::router::{Bird, Frr};
use lab::wait_for;

use crate::receive::{has, metric};
use crate::sessions::says;
use crate::stage::{SOON, Stage, object};

/// FRR's neighbour that stands for each case, and its role.
const FRR: [(u8, &str); 7] = [
    (121, "customer"),
    (122, "provider strict-mode"),
    (123, "peer"),
    (124, "customer"),
    (125, ""),
    (126, "rs-server strict-mode"),
    (127, ""),
];

/// What is said of BIRD's neighbours. The last passes on a route that is for customers only.
const BIRD: &str = "\
router id 10.0.0.2;
protocol device {}
protocol static { ipv4; route 172.30.0.0/16 blackhole; route 172.31.0.0/16 blackhole; }
template bgp corten {
  passive on;
  strict bind on;
  ipv4 { import all; export none; };
}
protocol bgp fits from corten { local 10.0.0.31 as 64502; neighbor 10.0.0.131 as 64500; local role rs_client; require roles on; }
protocol bgp differs from corten { local 10.0.0.32 as 64502; neighbor 10.0.0.132 as 64500; local role provider; }
protocol bgp leaks {
  local 10.0.0.33 as 64502;
  neighbor 10.0.0.133 as 64500;
  passive on;
  strict bind on;
  ipv4 {
    import all;
    export filter { if net = 172.30.0.0/16 then bgp_otc = 65000; accept; };
  };
}
";

/// Number, name, what its object says more, what is said of it (nothing: it is up).
const PEERS: [(u8, &str, &str, &str); 10] = [
    (121, "to-customer", "role: Provider", ""),
    (
        122,
        "to-provider",
        "role: Customer, strictRole: true, receive: {prefixes: [172.16.0.0/12]}",
        "",
    ),
    (123, "to-peer", "role: Peer", ""),
    (
        124,
        "two-customers",
        "role: Customer",
        "role mismatch: the peer's role is customer, ours is customer; remedy: give it the role \
         provider",
    ),
    (
        125,
        "no-role-there",
        "role: Customer, strictRole: true",
        "the peer says no role, and strictRole wants one",
    ),
    (
        126,
        "no-role-here",
        "",
        "Role Mismatch (2/11): do the roles of both sides fit",
    ),
    (127, "to-one-without", "role: Provider", ""),
    (131, "to-client", "role: RouteServer, strictRole: true", ""),
    (
        132,
        "two-providers",
        "role: Provider",
        "role mismatch: the peer's role is provider, ours is provider",
    ),
    (
        133,
        "leak",
        "role: Provider, receive: {prefixes: [172.16.0.0/12]}",
        "",
    ),
];

fn frr() -> String {
    let mut text = "\
frr defaults datacenter
router bgp 64501
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 no bgp network import-check
 coalesce-time 0
"
    .to_owned();
    for (number, role) in FRR {
        let neighbour = format!(" neighbor 10.0.0.{number}");
        text += &format!("{neighbour} remote-as 64500\n{neighbour} passive\n");
        if !role.is_empty() {
            text += &format!("{neighbour} local-role {role}\n");
        }
    }
    text + " address-family ipv4 unicast\n  network 172.20.0.0/16\n exit-address-family\n"
}

#[test]
fn roles_must_fit_and_routes_say_how_far_they_go() {
    lab::run(
        "roles::roles_must_fit_and_routes_say_how_far_they_go",
        async |lab| {
            let stage = Stage::of(&lab, 1).await?;
            let beside = lab.router("beside").await?;
            stage.scene.lan.attach(&beside, &["10.0.0.2/24"]).await?;
            let node = &stage.scene.nodes[0].host;
            let mut objects = object("IPAddressPool", "pool", "addresses: [192.168.1.0/24]")
                + &object("BGPAdvertisement", "all", "");
            for (number, name, more, _) in PEERS {
                let (router, asn) = match number {
                    ..=130 => (&stage.router, 64501),
                    _ => (&beside, 64502),
                };
                let theirs = format!("10.0.0.{}", number - 100);
                router.add_address("eth0", &format!("{theirs}/24")).await?;
                let ours = format!("10.0.0.{number}");
                node.add_address("eth0", &format!("{ours}/24")).await?;
                let spec = format!(
                    "myASN: 64500, peerASN: {asn}, connectTime: 1s, peerAddress: {theirs}, \
                     sourceAddress: {ours}, {more}"
                );
                objects += &object("Peer", name, &spec);
            }
            let frr = Frr::start(&stage.router, &frr(), "").await?;
            let bird = Bird::start(&beside, BIRD).await?;
            stage.write("objects.yaml", &objects)?;
            stage.label_nodes(&[""])?;
            stage.serve("web", "192.168.1.1", "internalTrafficPolicy: Cluster", &[0])?;
            let agent = stage.start()?.pop().expect("one");

            for (_, name, _, what) in PEERS {
                if !what.is_empty() {
                    says(&agent, name, what).await?;
                }
            }
            // What we send to a customer, and to a peer, is for customers only; to a provider it
            // says nothing.
            wait_for(SOON, "the route from each at FRR", async || {
                let found = frr.json("show bgp ipv4 unicast 192.168.1.1/32 json");
                let found = found.map_err(|error| error.to_string())?;
                let mut paths: Vec<(&str, Option<u64>)> = found["paths"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|path| {
                        let from = path["peer"]["peerId"].as_str().unwrap_or_default();
                        (from, path["otc"].as_u64())
                    })
                    .collect();
                paths.sort_unstable();
                // A router with a role marks what is not marked; the last has none, and shows what
                // we have sent.
                let wanted = [
                    ("10.0.0.121", Some(64500)),
                    ("10.0.0.122", None),
                    ("10.0.0.123", Some(64500)),
                    ("10.0.0.127", Some(64500)),
                ];
                if paths == wanted {
                    Ok(())
                } else {
                    Err(found.to_string())
                }
            })
            .await?;
            let said = frr.json("show bgp neighbors 10.0.0.122 json")?;
            let neighbour = &said["10.0.0.122"];
            assert_eq!(neighbour["localRole"], "provider", "{neighbour}");
            assert_eq!(neighbour["remoteRole"], "customer", "{neighbour}");
            for name in ["fits", "leaks"] {
                wait_for(SOON, &format!("the route at BIRD, {name}"), async || {
                    let ask = format!("show route 192.168.1.1/32 protocol {name} all");
                    let said = bird.ask(&ask).map_err(|error| error.to_string())?;
                    let marked = said.contains("BGP.otc: 64500");
                    marked.then_some(()).ok_or(said)
                })
                .await?;
            }

            // A provider's route is taken, though it is for customers only; one that a customer
            // should not have passed on is not.
            let routes = ["172.20.0.0/16 10.0.0.22", "172.31.0.0/16 10.0.0.33"];
            has(node, 254, &routes).await?;
            let name = "corten_bgp_received_prefixes_dropped_total";
            let leaked = format!("{name}{{peer=\"10.0.0.33:179\",reason=\"leak\"}} 1");
            metric(node, &leaked).await?;
            Ok(())
        },
    );
}
