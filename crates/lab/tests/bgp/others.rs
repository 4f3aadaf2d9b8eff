//! GoBGP and ExaBGP on the other side: what they read of an advertisement, and graceful restart with
//! another helper than FRR.

use lab::router::{ExaBgp, GoBgp};
use lab::{Host, scene, wait_for, wait_until};
use serde_json::{Value, json};

use crate::stage::{Outcome, SOON, Stage, object};

const PEER: &str = "myASN: 64500, connectTime: 1s, dualStackAddressFamily: true";

/// A neighbour with both families that helps over a restart.
const GOBGP: &str = "\
[global.config]
  as = 64501
  router-id = \"10.0.0.1\"
[[neighbors]]
  [neighbors.config]
    neighbor-address = \"10.0.0.11\"
    peer-as = 64500
  [neighbors.transport.config]
    passive-mode = true
  [neighbors.graceful-restart.config]
    enabled = true
    restart-time = 120
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = \"ipv4-unicast\"
    [neighbors.afi-safis.mp-graceful-restart.config]
      enabled = true
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = \"ipv6-unicast\"
    [neighbors.afi-safis.mp-graceful-restart.config]
      enabled = true
";

/// Shows what it reads, as it reads it.
const EXABGP: &str = "\
neighbor 10.0.0.11 {
  router-id 10.0.0.2;
  local-address 10.0.0.2;
  local-as 64502;
  peer-as 64500;
  hold-time 180;
  passive true;
  family { ipv4 unicast; ipv6 unicast; }
  api { processes [ lab ]; neighbor-changes; receive { parsed; update; } }
}
";

/// Another router on the LAN, at 10.0.0.2.
async fn beside(lab: &lab::Lab, stage: &Stage) -> Outcome<Host> {
    let host = lab.router("beside").await?;
    stage.scene.lan.attach(&host, &["10.0.0.2/24"]).await?;
    Ok(host)
}

/// Pool and advertisement with everything that a route can say.
fn objects() -> String {
    let said = "communities: [\"64500:100\", \"large:64500:1:2\"]";
    object(
        "IPAddressPool",
        "pool",
        "addresses: [192.168.1.0/24, \"2001:db8:1::/64\"]",
    ) + &object("BGPAdvertisement", "all", said)
}

/// What GoBGP has of a prefix: each attribute by its type, and whether it is stale.
fn path(gobgp: &GoBgp, prefix: &str) -> Outcome<Value> {
    let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
    let found = gobgp.json(&format!("global rib -a {family} {prefix}"))?;
    let paths = found[prefix].as_array().cloned().unwrap_or_default();
    let [path] = paths.as_slice() else {
        return Err(format!("not one path: {found}").into());
    };
    let mut said = json!({"stale": path["stale"].as_bool().unwrap_or(false)});
    for attribute in path["attrs"].as_array().into_iter().flatten() {
        let name = attribute["type"].to_string();
        said[name] = attribute.clone();
    }
    Ok(said)
}

async fn path_is(
    gobgp: &GoBgp,
    prefix: &str,
    what: &str,
    so: impl Fn(&Value) -> bool,
) -> Outcome<Value> {
    let what = format!("{prefix} {what} at GoBGP");
    let found = wait_for(SOON, &what, async || match path(gobgp, prefix) {
        Ok(found) if so(&found) => Ok(found),
        Ok(found) => Err(found.to_string()),
        Err(error) => Err(error.to_string()),
    });
    Ok(found.await?)
}

#[test]
fn gobgp_reads_every_attribute_and_keeps_routes_over_a_restart() {
    lab::run(
        "others::gobgp_reads_every_attribute_and_keeps_routes_over_a_restart",
        async |lab| {
            let stage = Stage::of(&lab, 1).await?;
            let gobgp = GoBgp::start(&stage.router, GOBGP).await?;
            let peer = format!(
                "{PEER}, peerASN: 64501, peerAddress: 10.0.0.1, enableGracefulRestart: true"
            );
            stage.write(
                "objects.yaml",
                &(objects() + &object("BGPPeer", "gobgp", &peer)),
            )?;
            stage.label_nodes(&[""])?;
            let dual = "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]";
            stage.serve("web", "192.168.1.1,2001:db8:1::1", dual, &[0])?;
            let mut agent = stage.start()?.pop().expect("one");

            let (four, six) = ("192.168.1.1/32", "2001:db8:1::1/128");
            let fresh = |path: &Value| path["stale"] == false;
            for prefix in [four, six] {
                let said = path_is(&gobgp, prefix, "", fresh).await?;
                lab.say(&said);
                // ORIGIN, AS_PATH, MED, COMMUNITIES, LARGE_COMMUNITIES (RFC 4271 §5, 1997, 8092).
                assert_eq!(said["1"]["value"], 0, "{said}");
                assert_eq!(said["2"]["as_paths"][0]["asns"], json!([64500]), "{said}");
                assert_eq!(said["4"]["metric"], 0, "{said}");
                assert_eq!(
                    said["8"]["communities"],
                    json!([64500_u32 << 16 | 100]),
                    "{said}"
                );
                let large = json!([{"ASN": 64500, "LocalData1": 1, "LocalData2": 2}]);
                assert_eq!(said["32"]["value"], large, "{said}");
            }
            assert_eq!(path(&gobgp, four)?["3"]["nexthop"], "10.0.0.11");
            let hop = path(&gobgp, six)?["14"]["nexthop"].clone();
            assert_eq!(hop, "fd00::11");

            // Another process, and the same routes.
            agent.kill();
            let stale = |path: &Value| path["stale"] == true;
            path_is(&gobgp, four, "stale", stale).await?;
            path_is(&gobgp, six, "stale", stale).await?;
            let _again = scene::run(&stage.scene.nodes[0], &stage.dir)?;
            path_is(&gobgp, four, "fresh", fresh).await?;
            path_is(&gobgp, six, "fresh", fresh).await?;
            // What goes is withdrawn from it.
            stage.remove("service-web.yaml")?;
            wait_until(SOON, "no routes at GoBGP", async || {
                [four, six]
                    .iter()
                    .all(|prefix| path(&gobgp, prefix).is_err())
            })
            .await?;
            Ok(())
        },
    );
}

#[test]
fn exabgp_reads_every_attribute() {
    lab::run("others::exabgp_reads_every_attribute", async |lab| {
        let stage = Stage::of(&lab, 1).await?;
        let host = beside(&lab, &stage).await?;
        let exabgp = ExaBgp::start(&host, "10.0.0.2", EXABGP).await?;
        let peer = format!("{PEER}, peerASN: 64502, peerAddress: 10.0.0.2");
        stage.write(
            "objects.yaml",
            &(objects() + &object("BGPPeer", "exabgp", &peer)),
        )?;
        stage.label_nodes(&[""])?;
        let dual = "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]";
        stage.serve("web", "192.168.1.1,2001:db8:1::1", dual, &[0])?;
        let _agent = stage.start()?;

        // What it heard, in its own words.
        let update = wait_for(SOON, "the routes at ExaBGP", async || {
            let events = exabgp.events();
            let updates = events
                .iter()
                .map(|event| event["neighbor"]["message"]["update"].clone());
            let text = |update: &Value| update["announce"].to_string();
            let (mut four, mut six) = (None, None);
            for update in updates {
                let said = text(&update);
                if said.contains("\"192.168.1.1/32\"") {
                    four = Some(update);
                } else if said.contains("\"2001:db8:1::1/128\"") {
                    six = Some(update);
                }
            }
            four.zip(six).ok_or_else(|| format!("{events:?}"))
        })
        .await?;
        lab.say(&update.0);
        for update in [&update.0, &update.1] {
            let said = &update["attribute"];
            assert_eq!(said["origin"], "igp", "{update}");
            assert_eq!(said["as-path"], json!([64500]), "{update}");
            assert_eq!(said["med"], 0, "{update}");
            assert_eq!(said["community"], json!([[64500, 100]]), "{update}");
            assert_eq!(said["large-community"], json!([[64500, 1, 2]]), "{update}");
        }
        assert!(update.0["announce"]["ipv4 unicast"]["10.0.0.11"].is_array());
        assert!(update.1["announce"]["ipv6 unicast"]["fd00::11"].is_array());

        Ok(())
    });
}
