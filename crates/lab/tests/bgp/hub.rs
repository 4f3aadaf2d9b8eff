//! A node's session with a hub: the CNI's speaker on the node itself, or a route reflector.

use lab::router::{Bird, Frr};
use lab::wait_for;

use crate::sessions::says;
use crate::stage::{Outcome, SOON, Stage, object};

/// On the first node, as a CNI's: it has port 179, and connects to the agent's.
const LOCAL: &str = "\
router id 10.0.0.100;
protocol device {}
protocol bgp corten {
  connect delay time 1;
  connect retry time 1;
  local 127.0.0.1 as 64500;
  neighbor 127.0.0.1 port 1790 as 64500;
  multihop;
  ipv4 { import all; export none; add paths rx; };
}
protocol bgp plain {
  connect delay time 1;
  connect retry time 1;
  local 127.0.0.2 as 64500;
  neighbor 127.0.0.3 port 1790 as 64500;
  multihop;
  ipv4 { import all; export none; };
}
";

/// Takes several paths, as FRR does by itself.
const REFLECTOR: &str = "\
frr defaults datacenter
router bgp 64501
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 coalesce-time 0
 neighbor 10.0.0.11 remote-as 64500
 neighbor 10.0.0.11 passive
";

/// The next hops of the Service's prefix at FRR, by its session with the first node.
fn at_frr(frr: &Frr) -> Outcome<Vec<String>> {
    let found = frr.json("show bgp ipv4 unicast 192.168.1.1/32 json")?;
    let paths = found["paths"].as_array().into_iter().flatten();
    let hop = |path: &serde_json::Value| path["nexthops"][0]["ip"].as_str().map(str::to_owned);
    let mut hops: Vec<String> = paths.filter_map(hop).collect();
    hops.sort_unstable();
    Ok(hops)
}

fn at_bird(bird: &Bird) -> Outcome<Vec<String>> {
    let said = bird.ask("show route 192.168.1.1/32 all")?;
    let lines = said.lines().map(str::trim);
    let hops = lines.filter_map(|line| line.strip_prefix("BGP.next_hop: "));
    let mut hops: Vec<String> = hops.map(str::to_owned).collect();
    hops.sort_unstable();
    Ok(hops)
}

#[test]
fn a_hub_hears_of_every_node() {
    lab::run("hub::a_hub_hears_of_every_node", async |lab| {
        let stage = Stage::of(&lab, 2).await?;
        let frr = Frr::start(&stage.router, REFLECTOR, "").await?;
        let bird = Bird::start(&stage.scene.nodes[0].host, LOCAL).await?;
        let one = "addPath: true, nodeSelectors: [{matchLabels: {hub: \"yes\"}}]";
        let local = format!(
            "myASN: 64500, peerASN: 64500, peerAddress: 127.0.0.1, listen: {{port: 1790}}, {one}"
        );
        let far =
            format!("myASN: 64500, peerASN: 64501, peerAddress: 10.0.0.1, connectTime: 1s, {one}");
        let plain = format!(
            "myASN: 64500, peerASN: 64500, peerAddress: 127.0.0.2, listen: {{port: 1790}}, {one}"
        );
        let text = object("Peer", "plain", &plain)
            + &object("IPAddressPool", "pool", "addresses: [192.168.1.0/24]")
            + &object("BGPAdvertisement", "all", "")
            + &object("Peer", "local", &local)
            + &object("Peer", "far", &far);
        stage.write("objects.yaml", &text)?;
        stage.label_nodes(&["hub: \"yes\"", ""])?;
        stage.serve(
            "web",
            "192.168.1.1",
            "externalTrafficPolicy: Local",
            &[0, 1],
        )?;
        let mut agents = stage.start()?;
        // A third one takes a single path for a prefix, and gets none.
        says(&agents[0], "plain", "without add-path for IPv4").await?;

        let hear = async |wanted: &[&str]| -> Outcome {
            let what = format!("{wanted:?} at both hubs");
            let heard = wait_for(SOON, &what, async || {
                let found = at_frr(&frr).and_then(|frr| Ok([frr, at_bird(&bird)?]));
                let found = found.map_err(|error| error.to_string())?;
                let all = found.iter().all(|it| it == wanted);
                all.then_some(()).ok_or_else(|| format!("{found:?}"))
            });
            Ok(heard.await?)
        };
        hear(&["10.0.0.11", "10.0.0.12"]).await?;
        // Endpoints leave the hub's own node, and come back.
        stage.serve("web", "192.168.1.1", "externalTrafficPolicy: Local", &[1])?;
        hear(&["10.0.0.12"]).await?;
        stage.serve(
            "web",
            "192.168.1.1",
            "externalTrafficPolicy: Local",
            &[0, 1],
        )?;
        hear(&["10.0.0.11", "10.0.0.12"]).await?;
        // The other node dies.
        agents.pop().expect("two").kill();
        hear(&["10.0.0.11"]).await?;
        Ok(())
    });
}
