//! FRR on the other side, with every form of session that an object can ask for.

use lab::router::Frr;
use lab::{wait_for, wait_until};

use crate::sessions::says;
use crate::stage::{SOON, Stage, known, object};

/// Knows the node by an address for each case; takes connections only.
const NEAR: &str = "\
frr defaults datacenter
router bgp 64501
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 coalesce-time 0
 neighbor 10.0.0.121 remote-as 64512
 neighbor 10.0.0.122 remote-as 64500
 neighbor 10.0.0.122 ttl-security hops 1
 neighbor 10.0.0.123 remote-as 64500
 neighbor 10.0.0.124 remote-as 64500
 neighbor 10.0.0.125 remote-as 64500
 neighbor fd00::121 remote-as 64500
 neighbor fd00::122 remote-as 64500
 neighbor fd00::122 capability extended-nexthop
 neighbor 10.0.0.121 passive
 neighbor 10.0.0.122 passive
 neighbor 10.0.0.123 passive
 neighbor 10.0.0.124 passive
 neighbor 10.0.0.125 passive
 neighbor fd00::121 passive
 neighbor fd00::122 passive
 address-family ipv4 unicast
  neighbor 10.0.0.121 activate
  neighbor 10.0.0.122 activate
  neighbor 10.0.0.123 activate
  neighbor 10.0.0.124 activate
  neighbor 10.0.0.125 activate
  neighbor fd00::121 activate
  neighbor fd00::122 activate
 exit-address-family
 address-family ipv6 unicast
  neighbor fd00::121 activate
  neighbor fd00::122 activate
 exit-address-family
";

/// Behind the router.
const FAR: &str = "\
frr defaults datacenter
router bgp 64509
 bgp router-id 10.9.0.9
 no bgp ebgp-requires-policy
 coalesce-time 0
 neighbor 10.0.0.11 remote-as 64500
 neighbor 10.0.0.11 ebgp-multihop 3
 neighbor 10.0.0.11 update-source 10.9.0.9
 neighbor 10.0.0.11 passive
 neighbor 10.0.0.11 bfd profile far
";

/// One router is between: packets come with 254 of 255. It waits for our first packet.
const BFDD: &str = "\
bfd
 profile far
  detect-multiplier 20
  transmit-interval 500
  receive-interval 500
  minimum-ttl 254
  passive-mode
";

const PEERS: [(&str, &str); 8] = [
    (
        "replaced",
        "peerASN: 64501, peerAddress: 10.0.0.21, sourceAddress: 10.0.0.121, localASN: 64512",
    ),
    (
        "gtsm",
        "peerASN: 64501, peerAddress: 10.0.0.22, sourceAddress: 10.0.0.122, ttlSecurityHops: 1",
    ),
    (
        "internal",
        "dynamicASN: internal, peerAddress: 10.0.0.23, sourceAddress: 10.0.0.123",
    ),
    (
        "elsewhere",
        "dynamicASN: external, peerAddress: 10.0.0.24, sourceAddress: 10.0.0.124, nextHop: {ipv4: 10.0.0.77}",
    ),
    (
        "half-gtsm",
        "peerASN: 64501, peerAddress: 10.0.0.25, sourceAddress: 10.0.0.125, ttlSecurityHops: 1",
    ),
    (
        "six",
        "peerASN: 64501, peerAddress: \"fd00::21\", sourceAddress: \"fd00::121\", dualStack: true",
    ),
    (
        "six-alone",
        "peerASN: 64501, peerAddress: \"fd00::22\", sourceAddress: \"fd00::122\", dualStack: true",
    ),
    (
        "far",
        "peerASN: 64509, peerAddress: 10.9.0.9, multihop: true, bfdProfile: far",
    ),
];

fn objects() -> String {
    let profile = "receiveInterval: 500, transmitInterval: 500, detectMultiplier: 20, \
                   minimumTtl: 254";
    let mut text = object(
        "IPAddressPool",
        "pool",
        "addresses: [192.168.1.0/24, \"2001:db8:1::/64\"]",
    ) + &object("Advertisement", "all", "pools: [pool], bgp: {prepend: 2}")
        + &object("BFDProfile", "far", profile);
    for (name, more) in PEERS {
        text += &object(
            "Peer",
            name,
            &format!("myASN: 64500, connectTime: 1s, {more}"),
        );
    }
    text
}

#[test]
fn frr_takes_every_form() {
    lab::run("forms::frr_takes_every_form", async |lab| {
        let stage = Stage::of(&lab, 1).await?;
        stage.more_addresses(21..26, 21..23).await?;
        let mut near = Frr::start(&stage.router, NEAR, "").await?;
        let far = Frr::start(&stage.outside, FAR, BFDD).await?;
        stage.write("objects.yaml", &objects())?;
        stage.label_nodes(&[""])?;
        let dual = "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]";
        stage.serve("web", "192.168.1.1,2001:db8:1::1", dual, &[0])?;
        let agent = stage.start()?.pop().expect("one");

        let four = [
            // Over IPv6 without extended next hops: the interface's.
            "10.0.0.11 as=64500 64500 64500",
            "10.0.0.121 as=64512 64512 64512",
            "10.0.0.122 as=64500 64500 64500",
            "10.0.0.77 as=64500 64500 64500",
            "fd00::122 as=64500 64500 64500",
        ];
        known(&near, "192.168.1.1/32", &four).await?;
        let six = [
            "fd00::121 as=64500 64500 64500",
            "fd00::122 as=64500 64500 64500",
        ];
        known(&near, "2001:db8:1::1/128", &six).await?;
        known(&far, "192.168.1.1/32", &["10.0.0.11 as=64500 64500 64500"]).await?;
        wait_for(SOON, "BFD over the router", async || {
            let found = far.json("show bfd peers json");
            let found = found.map_err(|error| error.to_string())?;
            let peer = &found[0];
            let up = peer["status"] == "up" && peer["multihop"] == true;
            up.then_some(()).ok_or_else(|| found.to_string())
        })
        .await?;

        // The other kind of AS than was asked for: both sides know why.
        says(&agent, "internal", "wrong AS: expected our own, got 64501").await?;
        wait_until(SOON, "the reason at FRR", async || {
            let log = near.daemon("bgpd").log();
            log.contains("from neighbor 10.0.0.123 2/2 (OPEN Message Error/Bad Peer AS)")
        })
        .await?;
        // TTL security on one side alone: nothing arrives, and that is named.
        says(&agent, "half-gtsm", "is TTL security on there?").await?;

        // Last words are told.
        let shutdown = "neighbor 10.0.0.124 shutdown message back at noon";
        near.ask(&["configure terminal", "router bgp 64501", shutdown])?;
        says(&agent, "elsewhere", "back at noon").await?;
        Ok(())
    });
}
