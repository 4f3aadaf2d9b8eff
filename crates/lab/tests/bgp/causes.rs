//! What is wrong with a session is named, with FRR on the other side.

use lab::router::Frr;
use lab::wait_for;

use crate::sessions::{one_service, says};
use crate::stage::{SOON, Stage, object};

/// Knows the node by an address for each case; takes connections only.
const FRR: &str = "\
frr defaults datacenter
router bgp 64501
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 coalesce-time 0
 neighbor 10.0.0.121 remote-as 64500
 neighbor 10.0.0.121 password other
 neighbor 10.0.0.122 remote-as 64500
 neighbor 10.0.0.122 password secret
 neighbor 10.0.0.123 remote-as 64999
 neighbor 10.0.0.124 remote-as 64500
 neighbor 10.0.0.125 remote-as 64500
 neighbor 10.0.0.126 remote-as 64500
 neighbor 10.0.0.128 remote-as 64500
 neighbor 10.0.0.129 remote-as 64500
 neighbor 10.0.0.121 passive
 neighbor 10.0.0.122 passive
 neighbor 10.0.0.123 passive
 neighbor 10.0.0.124 passive
 neighbor 10.0.0.125 passive
 neighbor 10.0.0.126 passive
 neighbor 10.0.0.128 passive
 neighbor 10.0.0.129 passive
 address-family ipv4 unicast
  neighbor 10.0.0.121 activate
  neighbor 10.0.0.122 activate
  neighbor 10.0.0.123 activate
  neighbor 10.0.0.124 activate
  neighbor 10.0.0.126 activate
  neighbor 10.0.0.128 activate
  neighbor 10.0.0.129 activate
 exit-address-family
 address-family ipv6 unicast
  neighbor 10.0.0.125 activate
 exit-address-family
";

/// Name, what its object says more, what is said of it.
const CASES: [(&str, &str, &str); 9] = [
    (
        "other-password",
        "password: right",
        "no answer: check password",
    ),
    ("no-password", "", "or does the peer want a password?"),
    (
        "not-its-as",
        "",
        "Bad Peer AS (2/2): it expects another AS number of us",
    ),
    (
        "not-our-as",
        "peerASN: 64777",
        "wrong AS: expected 64777, got 64501",
    ),
    (
        "other-family",
        "",
        "no common address family: ours IPv4, the peer's IPv6",
    ),
    ("less-families", "dualStackAddressFamily: true", ""),
    ("stranger", "", "is this node among the peer's neighbours?"),
    // Without the kernel's VRF devices: any device will do.
    ("in-device", "vrf: eth0", ""),
    (
        "in-no-device",
        "vrf: red",
        "cannot bind to device red: No such device",
    ),
];

#[test]
fn each_cause_is_named() {
    lab::run("causes::each_cause_is_named", async |lab| {
        let stage = Stage::of(&lab, 1).await?;
        let node = &stage.scene.nodes[0].host;
        let mut peers = String::new();
        for (number, (name, more, _)) in (21..).zip(CASES) {
            let theirs = format!("10.0.0.{number}");
            stage
                .router
                .add_address("eth0", &format!("{theirs}/24"))
                .await?;
            let ours = format!("10.0.0.1{number}");
            node.add_address("eth0", &format!("{ours}/24")).await?;
            let asn = if more.contains("peerASN") {
                ""
            } else {
                "peerASN: 64501,"
            };
            let spec = format!(
                "myASN: 64500, {asn} connectTime: 1s, peerAddress: {theirs}, \
                 sourceAddress: {ours}, {more}"
            );
            peers += &object("BGPPeer", name, &spec);
        }
        let frr = Frr::start(&stage.router, FRR, "").await?;
        one_service(&stage, &peers)?;
        let agent = stage.start()?.pop().expect("one");
        for (name, _, what) in CASES {
            if !what.is_empty() {
                says(&agent, name, what).await?;
            }
        }
        for neighbour in ["10.0.0.126", "10.0.0.128"] {
            let what = format!("the session of {neighbour}");
            wait_for(SOON, &what, async || match frr.session(neighbour) {
                Ok(state) if state == "Established" => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await?;
        }
        says(&agent, "less-families", "without IPv6").await?;
        Ok(())
    });
}
