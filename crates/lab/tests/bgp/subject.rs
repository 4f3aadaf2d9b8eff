//! Both subjects side by side: on one node Corten from the objects, on the other FRR from what
//! MetalLB makes of the same objects. Routers must read the same of both.

use lab::router::Frr;
use lab::{Host, scene, wait_for, wait_until};
use serde_json::{Value, json};

use crate::metallb::{self, Neighbour, Route};
use crate::stage::{Outcome, SOON, Stage, object};

/// Of the other AS, with both families on one session; and of the nodes' own.
const OUTER: &str = "\
frr defaults datacenter
router bgp 64501
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 timers bgp 60 200
 neighbor NODES peer-group
 neighbor NODES remote-as 64500
 bgp listen range 10.0.0.0/24 peer-group NODES
 address-family ipv4 unicast
  neighbor NODES activate
 exit-address-family
 address-family ipv6 unicast
  neighbor NODES activate
 exit-address-family
";

const INNER: &str = "\
frr defaults datacenter
router bgp 64500
 bgp router-id 10.0.0.2
 no bgp default ipv4-unicast
 neighbor NODES peer-group
 neighbor NODES remote-as 64500
 bgp listen range 10.0.0.0/24 peer-group NODES
 address-family ipv4 unicast
  neighbor NODES activate
 exit-address-family
";

/// The routers' addresses.
const BOTH: &[&str] = &["10.0.0.1", "10.0.0.2"];
const INSIDE: &[&str] = &["10.0.0.2"];

const NEIGHBOURS: [Neighbour; 2] = [
    Neighbour {
        address: "10.0.0.1",
        asn: 64501,
        says: &["graceful-restart"],
        families: &["ipv4", "ipv6"],
    },
    Neighbour {
        address: "10.0.0.2",
        asn: 64500,
        says: &["timers 10 30"],
        families: &["ipv4"],
    },
];

const ROUTES: [Route; 5] = [
    Route {
        prefix: "192.168.1.1/32",
        local_pref: Some(300),
        communities: &["64500:100", "65535:65281"],
        large: &["64500:1:2"],
        to: BOTH,
    },
    Route {
        prefix: "192.168.2.1/32",
        local_pref: None,
        communities: &[],
        large: &[],
        to: BOTH,
    },
    Route {
        prefix: "192.168.3.1/32",
        local_pref: None,
        communities: &[],
        large: &[],
        to: INSIDE,
    },
    Route {
        prefix: "192.168.4.0/24",
        local_pref: None,
        communities: &["64500:1", "64500:2"],
        large: &[],
        to: BOTH,
    },
    Route {
        prefix: "2001:db8:5::1/128",
        local_pref: None,
        communities: &["64500:5"],
        large: &[],
        to: BOTH,
    },
];

/// The objects that mean these routes.
fn objects() -> String {
    let session = "myASN: 64500, connectTime: 1s";
    let outer = format!(
        "{session}, peerASN: 64501, peerAddress: 10.0.0.1, dualStackAddressFamily: true, \
         enableGracefulRestart: true"
    );
    let inner = format!(
        "{session}, peerASN: 64500, peerAddress: 10.0.0.2, holdTime: 30s, keepaliveTime: 10s"
    );
    let mut text = object("BGPPeer", "outer", &outer) + &object("BGPPeer", "inner", &inner);
    for (number, range, says) in [
        (
            1,
            "192.168.1.0/24",
            &["localPref: 300, communities: [\"64500:100\", \"65535:65281\", \"large:64500:1:2\"]"]
                [..],
        ),
        (2, "192.168.2.0/24", &[""]),
        (3, "192.168.3.0/24", &["peers: [inner]"]),
        (
            4,
            "192.168.4.0/24",
            &[
                "aggregationLength: 24, communities: [\"64500:1\"]",
                "aggregationLength: 24, communities: [\"64500:2\"]",
            ],
        ),
        (5, "\"2001:db8:5::/64\"", &["communities: [\"64500:5\"]"]),
    ] {
        let name = format!("pool-{number}");
        text += &object("IPAddressPool", &name, &format!("addresses: [{range}]"));
        for (n, says) in says.iter().enumerate() {
            let spec = format!("ipAddressPools: [{name}], {says}");
            text += &object("BGPAdvertisement", &format!("{name}-{n}"), &spec);
        }
    }
    text
}

/// What differs between nodes by nature, in one word.
fn anonymous(text: &str, number: u8) -> String {
    let text = text
        .replace(&format!("10.0.0.1{number}"), "NODE")
        .replace(&format!("fd00::1{number}"), "NODE")
        .replace(&format!("node-{number}"), "NODE");
    let parts = text.split("\"fe80:");
    let rest = |part: &str| part.split_once('"').map_or("", |it| it.1).to_owned();
    let mut parts = parts.enumerate();
    let mut out = parts.next().map_or("", |it| it.1).to_owned();
    for (_, part) in parts {
        out += "\"LINK-LOCAL\"";
        out += &rest(part);
    }
    out
}

/// What a router has read of a prefix from a node: all that it shows, but times and its own choice.
fn path(router: &Frr, prefix: &str, number: u8) -> Result<String, String> {
    let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
    let found = router.json(&format!("show bgp {family} unicast {prefix} json"));
    let found = found.map_err(|error| error.to_string())?;
    let node = format!("10.0.0.1{number}");
    let mut paths = found["paths"].as_array().into_iter().flatten();
    let path = paths.find(|path| path["peer"]["peerId"] == *node);
    let mut path = path
        .cloned()
        .ok_or_else(|| format!("not of {node}: {found}"))?;
    if let Value::Object(path) = &mut path {
        for own in ["lastUpdate", "bestpath", "multipath", "selectionReason"] {
            path.remove(own);
        }
    }
    Ok(anonymous(&path.to_string(), number))
}

/// What a router knows of the session with a node: capabilities, times, graceful restart.
fn session(router: &Frr, number: u8) -> Result<Value, String> {
    let node = format!("10.0.0.1{number}");
    let found = router.json(&format!("show bgp neighbors {node} json"));
    let found = found.map_err(|error| error.to_string())?;
    let neighbour = &found[&node];
    let mut session = json!({"capabilities": neighbour["neighborCapabilities"]});
    for key in [
        "bgpState",
        "remoteAs",
        "bgpTimerHoldTimeMsecs",
        "bgpTimerKeepAliveIntervalMsecs",
    ] {
        session[key] = neighbour[key].clone();
    }
    for key in ["remoteGrMode", "nBit", "rBit", "endOfRibRecv", "timers"] {
        session[key] = neighbour["gracefulRestartInfo"][key].clone();
    }
    // What FRR says and Corten does not, on purpose: that it could take several paths (RFC 7911),
    // though it takes none; and RFC 9494 for no family.
    if let Some(capabilities) = session["capabilities"].as_object_mut() {
        for unsaid in [
            "addPath",
            "longLivedGracefulRestart",
            "longLivedGracefulRestartByPeer",
        ] {
            capabilities.remove(unsaid);
        }
    }
    serde_json::from_str(&anonymous(&session.to_string(), number)).map_err(|e| e.to_string())
}

/// Waits until a router sees the same of both nodes, and `so`.
async fn same<T: PartialEq + std::fmt::Display>(
    router: &Frr,
    what: &str,
    look: impl Fn(u8) -> Result<T, String>,
    so: impl Fn(&T) -> bool,
) -> Outcome {
    let what = format!("{what} of both nodes at {}", router.host().name());
    wait_for(SOON, &what, async || {
        let (ours, theirs) = (look(1)?, look(2)?);
        match ours == theirs && so(&ours) {
            true => Ok(()),
            false => Err(format!("Corten: {ours}, MetalLB's FRR: {theirs}")),
        }
    })
    .await?;
    Ok(())
}

#[test]
fn routers_read_the_same_of_corten_and_of_metallbs_frr() {
    lab::run(
        "subject::routers_read_the_same_of_corten_and_of_metallbs_frr",
        async |lab| {
            let stage = Stage::of(&lab, 2).await?;
            let outer = Frr::start(&stage.router, OUTER, "").await?;
            let inside: Host = lab.router("inside").await?;
            stage.scene.lan.attach(&inside, &["10.0.0.2/24"]).await?;
            let inner = Frr::start(&inside, INNER, "").await?;
            let [ours, theirs] = stage.scene.nodes.as_slice() else {
                return Err("not two nodes".into());
            };
            stage.label_nodes(&["", ""])?;
            stage.write("objects.yaml", &objects())?;
            for (number, ip) in [
                (1, "192.168.1.1"),
                (2, "192.168.2.1"),
                (3, "192.168.3.1"),
                (4, "192.168.4.7"),
                (5, "2001:db8:5::1"),
            ] {
                let families = if number == 5 { "IPv6" } else { "IPv4" };
                let more = format!("ipFamilies: [{families}]");
                stage.serve(&format!("s{number}"), ip, &more, &[0, 1])?;
            }
            let mut agent = scene::run(ours, &stage.dir)?;
            let networks = ROUTES.iter().map(|route| route.prefix).collect();
            let config = metallb::config("10.0.0.12", &NEIGHBOURS, &ROUTES, &networks);
            let mut metallb = Frr::start(&theirs.host, &config, "").await?;

            let count = |router: &Frr, family: &str| -> Outcome<usize> {
                let table = router.json(&format!("show bgp {family} unicast json"))?;
                Ok(table["routes"].as_object().map_or(0, serde_json::Map::len))
            };
            for (router, up) in [(&outer, "Restart"), (&inner, "Helper")] {
                for route in &ROUTES {
                    let prefix = route.prefix;
                    let six = prefix.contains(':');
                    let there = match router.host().name() {
                        "inside" => !six,
                        _ => route.to == BOTH,
                    };
                    if there {
                        same(router, prefix, |n| path(router, prefix, n), |_| true).await?;
                    }
                }
                let so = |session: &Value| {
                    session["bgpState"] == "Established" && session["remoteGrMode"] == up
                };
                same(router, "sessions", |n| session(router, n), so).await?;
            }
            assert_eq!(count(&outer, "ipv4")?, 3);
            assert_eq!(count(&outer, "ipv6")?, 1);
            assert_eq!(count(&inner, "ipv4")?, 4);

            // Both die: where graceful restart was asked for, and only there, routes stay.
            agent.kill();
            metallb.daemon("bgpd").kill();
            for prefix in ["192.168.1.1/32", "2001:db8:5::1/128"] {
                let stale = |path: &String| path.contains("\"stale\":true");
                same(&outer, prefix, |n| path(&outer, prefix, n), stale).await?;
            }
            wait_until(SOON, "no route inside", async || {
                count(&inner, "ipv4").is_ok_and(|count| count == 0)
            })
            .await?;
            Ok(())
        },
    );
}
