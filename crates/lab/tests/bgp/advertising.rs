//! What is advertised, to whom, by which nodes (`spec/metallb.md` §4.5): of Corten, and of FRR with
//! MetalLB's template in its place.

use std::net::SocketAddr;

use lab::router::Frr;
use lab::{Lab, wait_for, wait_until};

use crate::metallb::{Neighbour, Route, Subject};
use crate::stage::{Outcome, ROUTER, SOON, Stage, known, object, paths};

/// A router of the nodes' own AS.
const INNER: &str = "\
frr defaults datacenter
router bgp 64500
 bgp router-id 10.0.0.2
 no bgp default ipv4-unicast
 timers bgp 3 9
 coalesce-time 0
 neighbor NODES peer-group
 neighbor NODES remote-as 64500
 bgp listen range 10.0.0.0/24 peer-group NODES
 address-family ipv4 unicast
  neighbor NODES activate
 exit-address-family
";

/// A pool for each case, and its advertisements.
fn objects() -> String {
    let peer = "myASN: 64500, connectTime: 1s, holdTime: 9s";
    let mut text = object(
        "BGPPeer",
        "outer",
        &format!("{peer}, peerASN: 64501, peerAddress: 10.0.0.1"),
    );
    text += &object(
        "BGPPeer",
        "inner",
        &format!("{peer}, peerASN: 64500, peerAddress: 10.0.0.2"),
    );
    let aliases = "communities: [{name: fast, value: \"64500:7\"}]";
    text += &object("Community", "aliases", aliases);
    for (pool, advertisements) in [
        (
            "192.168.1.0/24",
            &["localPref: 300, communities: [\"64500:100\", \"large:64500:1:2\", fast]"][..],
        ),
        (
            "192.168.2.0/24",
            &[
                "communities: [\"64500:1\"]",
                "communities: [\"64500:2\"], peers: [inner, unknown]",
            ],
        ),
        ("192.168.3.0/24", &["peers: [inner]"]),
        (
            "192.168.4.0/24",
            &["nodeSelectors: [{matchLabels: {rack: a}}, {matchLabels: {rack: b}}]"],
        ),
        ("192.168.5.0/24", &["aggregationLength: 24"]),
        ("192.168.6.0/24", &["{}"]),
    ] {
        let name = format!("pool-{}", &pool[8..9]);
        text += &object("IPAddressPool", &name, &format!("addresses: [{pool}]"));
        for (n, advertisement) in advertisements.iter().enumerate() {
            let more = match *advertisement {
                "{}" => "",
                more => more,
            };
            let spec = format!("ipAddressPools: [{name}], {more}");
            text += &object("BGPAdvertisement", &format!("{name}-{n}"), &spec);
        }
    }
    text
}

const NEIGHBOURS: [Neighbour; 2] = [
    Neighbour {
        address: "10.0.0.1",
        asn: 64501,
        says: &["timers 3 9"],
        families: &["ipv4"],
    },
    Neighbour {
        address: "10.0.0.2",
        asn: 64500,
        says: &["timers 3 9"],
        families: &["ipv4"],
    },
];

/// What MetalLB makes of the objects.
const ROUTES: [Route; 7] = {
    const PLAIN: Route = Route {
        prefix: "",
        local_pref: None,
        communities: &[],
        large: &[],
        to: &["10.0.0.1", "10.0.0.2"],
    };
    [
        Route {
            prefix: "192.168.1.1/32",
            local_pref: Some(300),
            communities: &["64500:100", "64500:7"],
            large: &["64500:1:2"],
            ..PLAIN
        },
        Route {
            prefix: "192.168.2.1/32",
            communities: &["64500:1"],
            to: &["10.0.0.1"],
            ..PLAIN
        },
        Route {
            prefix: "192.168.2.1/32",
            communities: &["64500:1", "64500:2"],
            to: &["10.0.0.2"],
            ..PLAIN
        },
        Route {
            prefix: "192.168.3.1/32",
            to: &["10.0.0.2"],
            ..PLAIN
        },
        Route {
            prefix: "192.168.4.1/32",
            ..PLAIN
        },
        Route {
            prefix: "192.168.5.0/24",
            ..PLAIN
        },
        Route {
            prefix: "192.168.6.1/32",
            ..PLAIN
        },
    ]
};

/// What a node announces; `local` is the nodes with endpoints of the local Service.
fn announced(node: usize, local: &[usize], gone: &[&str]) -> Vec<&'static str> {
    let all = ROUTES.iter().map(|route| route.prefix);
    all.filter(|prefix| match *prefix {
        "192.168.4.1/32" => node < 2,
        "192.168.6.1/32" => local.contains(&node),
        other => !gone.contains(&other),
    })
    .collect()
}

#[test]
fn advertisements_say_what_their_objects_say() {
    lab::run(
        "advertising::advertisements_say_what_their_objects_say",
        async |lab| objects_say(&lab, Subject::Corten).await,
    );
}

#[test]
fn advertisements_of_metallbs_frr_say_the_same() {
    lab::run(
        "advertising::advertisements_of_metallbs_frr_say_the_same",
        async |lab| objects_say(&lab, Subject::MetalLb).await,
    );
}

async fn objects_say(lab: &Lab, subject: Subject) -> Outcome {
    let stage = Stage::build(lab).await?;
    let outer = Frr::start(&stage.router, ROUTER, "").await?;
    let inside = lab.router("inside").await?;
    stage.scene.lan.attach(&inside, &["10.0.0.2/24"]).await?;
    let inner = Frr::start(&inside, INNER, "").await?;
    stage.label_nodes(&["rack: a", "rack: b", "rack: c"])?;
    stage.write("objects.yaml", &objects())?;
    let cluster = "externalTrafficPolicy: Cluster";
    for (name, ip) in [
        ("said", "192.168.1.1"),
        ("both", "192.168.2.1"),
        ("inside", "192.168.3.1"),
        ("picked", "192.168.4.1"),
        ("wide", "192.168.5.1"),
        ("wider", "192.168.5.200"),
    ] {
        stage.serve(name, ip, cluster, &[0, 1, 2])?;
    }
    let local = "externalTrafficPolicy: Local";
    stage.serve("local", "192.168.6.1", local, &[1])?;
    let mut running = subject
        .start(
            &stage,
            |_| NEIGHBOURS.into(),
            &ROUTES,
            |n| announced(n, &[1], &[]),
        )
        .await?;

    // Communities of both kinds and by name; the local preference inside only.
    let said = "com=64500:7 64500:100 large=64500:1:2";
    let all = |what: &str| {
        let nodes = ["10.0.0.11", "10.0.0.12", "10.0.0.13"];
        nodes.map(|node| format!("{node} {what}").trim().to_owned())
    };
    let check = async |frr: &Frr, prefix: &str, what: &str| {
        let lines = all(what);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        known(frr, prefix, &lines).await
    };
    check(&outer, "192.168.1.1/32", &format!("as=64500 {said}")).await?;
    let inside = format!("as=Local pref=300 {said}");
    check(&inner, "192.168.1.1/32", &inside).await?;
    // Two on one prefix: all communities; each for its peers.
    check(&outer, "192.168.2.1/32", "as=64500 com=64500:1").await?;
    let united = "as=Local pref=100 com=64500:1 64500:2";
    check(&inner, "192.168.2.1/32", united).await?;
    // Of the chosen nodes.
    let picked = ["10.0.0.11 as=64500", "10.0.0.12 as=64500"];
    known(&outer, "192.168.4.1/32", &picked).await?;
    // Of the nodes with endpoints, which may move.
    known(&outer, "192.168.6.1/32", &["10.0.0.12 as=64500"]).await?;
    stage.serve("local", "192.168.6.1", local, &[0, 2])?;
    running.announce(|n| announced(n, &[0, 2], &[]))?;
    let moved = ["10.0.0.11 as=64500", "10.0.0.13 as=64500"];
    known(&outer, "192.168.6.1/32", &moved).await?;
    stage.serve("local", "192.168.6.1", local, &[])?;
    running.announce(|n| announced(n, &[], &[]))?;
    known(&outer, "192.168.6.1/32", &[]).await?;
    // To the chosen peer alone.
    check(&inner, "192.168.3.1/32", "as=Local pref=100").await?;
    assert_eq!(paths(&outer, "192.168.3.1/32")?, [""; 0]);

    // One route for both Services, until the last of them goes.
    check(&outer, "192.168.5.0/24", "as=64500").await?;
    let table = outer.json("show bgp ipv4 unicast json")?;
    let routes = table["routes"].as_object().expect("routes").keys();
    let wide: Vec<_> = routes.filter(|it| it.starts_with("192.168.5.")).collect();
    assert_eq!(wide, ["192.168.5.0/24"]);
    stage.remove("service-wide.yaml")?;
    // What goes with it shows that this was seen.
    stage.remove("service-said.yaml")?;
    running.announce(|n| announced(n, &[], &["192.168.1.1/32"]))?;
    known(&outer, "192.168.1.1/32", &[]).await?;
    known(&inner, "192.168.1.1/32", &[]).await?;
    check(&outer, "192.168.5.0/24", "as=64500").await?;
    stage.remove("service-wider.yaml")?;
    running.announce(|n| announced(n, &[], &["192.168.1.1/32", "192.168.5.0/24"]))?;
    known(&outer, "192.168.5.0/24", &[]).await?;

    if subject == Subject::MetalLb {
        // It has no drain: it withdraws at once.
        return Ok(());
    }
    // The exclude label: asks to be left, then is gone with its session, and comes back.
    let exclude = "node.kubernetes.io/exclude-from-external-load-balancers: \"\"";
    stage.label_nodes(&["rack: a", exclude, "rack: c"])?;
    let asks = [
        "10.0.0.11 as=Local pref=100",
        "10.0.0.12 as=Local pref=0 com=graceful-shutdown",
        "10.0.0.13 as=Local pref=100",
    ];
    known(&inner, "192.168.3.1/32", &asks).await?;
    known(&inner, "192.168.3.1/32", &[asks[0], asks[2]]).await?;
    wait_until(SOON, "the session to end", async || {
        inner
            .session("10.0.0.12")
            .is_ok_and(|state| state != "Established")
    })
    .await?;
    stage.label_nodes(&["rack: a", "rack: b", "rack: c"])?;
    check(&inner, "192.168.3.1/32", "as=Local pref=100").await?;
    Ok(())
}

/// One session over IPv6, and one over IPv4 for both families.
const FAMILIES: &str = "\
frr defaults datacenter
router bgp 64501
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 timers bgp 3 9
 coalesce-time 0
 neighbor fd00::11 remote-as 64500
 neighbor fd00::11 passive
 neighbor 10.0.0.12 remote-as 64500
 neighbor 10.0.0.12 passive
 address-family ipv4 unicast
  neighbor 10.0.0.12 activate
 exit-address-family
 address-family ipv6 unicast
  neighbor fd00::11 activate
  neighbor 10.0.0.12 activate
 exit-address-family
";

/// The first node's session, and the second's.
fn sessions(node: usize) -> Vec<Neighbour> {
    let six = Neighbour {
        address: "fd00::1",
        asn: 64501,
        says: &["disable-connected-check"],
        families: &["ipv6"],
    };
    let both = Neighbour {
        address: "10.0.0.1",
        asn: 64501,
        says: &[],
        families: &["ipv4", "ipv6"],
    };
    vec![if node == 0 { six } else { both }]
}

const FAMILY_ROUTES: [Route; 2] = {
    const PLAIN: Route = Route {
        prefix: "192.168.1.1/32",
        local_pref: None,
        communities: &[],
        large: &[],
        to: &["10.0.0.1", "fd00::1"],
    };
    [
        PLAIN,
        Route {
            prefix: "2001:db8:1::1/128",
            ..PLAIN
        },
    ]
};

#[test]
fn each_family_goes_over_the_sessions_that_carry_it() {
    lab::run(
        "advertising::each_family_goes_over_the_sessions_that_carry_it",
        async |lab| each_family(&lab, Subject::Corten).await,
    );
}

#[test]
fn each_family_of_metallbs_frr_goes_the_same_way() {
    lab::run(
        "advertising::each_family_of_metallbs_frr_goes_the_same_way",
        async |lab| each_family(&lab, Subject::MetalLb).await,
    );
}

async fn each_family(lab: &Lab, subject: Subject) -> Outcome {
    let stage = Stage::of(lab, 2).await?;
    let frr = Frr::start(&stage.router, FAMILIES, "").await?;
    stage.label_nodes(&["session: ipv6", "session: both"])?;
    let peer = "myASN: 64500, peerASN: 64501, connectTime: 1s";
    let on = |what: &str| format!("nodeSelectors: [{{matchLabels: {{session: {what}}}}}]");
    let six = format!("{peer}, peerAddress: \"fd00::1\", {}", on("ipv6"));
    let both = format!(
        "{peer}, peerAddress: 10.0.0.1, dualStackAddressFamily: true, {}",
        on("both")
    );
    let text = object("BGPPeer", "six", &six)
        + &object("BGPPeer", "both", &both)
        + &object(
            "IPAddressPool",
            "pool",
            "addresses: [192.168.1.0/24, \"2001:db8:1::/64\"]",
        )
        + &object("BGPAdvertisement", "all", "");
    stage.write("objects.yaml", &text)?;
    let dual = "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]";
    stage.serve("web", "192.168.1.1,2001:db8:1::1", dual, &[0, 1])?;
    let all = |_| FAMILY_ROUTES.iter().map(|route| route.prefix).collect();
    let mut running = subject.start(&stage, sessions, &FAMILY_ROUTES, all).await?;

    known(
        &frr,
        "2001:db8:1::1/128",
        &["fd00::11 as=64500", "fd00::12 as=64500"],
    )
    .await?;
    known(&frr, "192.168.1.1/32", &["10.0.0.12 as=64500"]).await?;
    // The router itself reaches it by what it has learned.
    let forwarded = ["192.168.1.1", "2001:db8:1::1"];
    for address in forwarded.iter().filter(|_| subject == Subject::Corten) {
        let page = SocketAddr::new(address.parse()?, 80);
        let what = format!("the page at {page}");
        wait_for(SOON, &what, async || {
            let answer = stage.router.http_get(page, "/").await;
            answer.map(drop).map_err(|error| error.to_string())
        })
        .await?;
    }
    // A single-stack Service is withdrawn from the other family.
    let single = "ipFamilyPolicy: SingleStack, ipFamilies: [IPv4]";
    stage.serve("web", "192.168.1.1", single, &[0, 1])?;
    running.announce(|_| vec![FAMILY_ROUTES[0].prefix])?;
    known(&frr, "2001:db8:1::1/128", &[]).await?;
    wait_until(SOON, "IPv4 to stay", async || {
        paths(&frr, "192.168.1.1/32").is_ok_and(|paths| paths == ["10.0.0.12 as=64500"])
    })
    .await?;
    Ok(())
}
