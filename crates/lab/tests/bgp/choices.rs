//! BIRD on the other side, with what objects choose: which nodes speak to whom, of what, by which
//! next hop, and when they have said all. It shows the node's name, too.

use lab::router::Bird;
use lab::wait_for;

use crate::bird::shows;
use crate::stage::{Outcome, SOON, Stage, object};

/// A router with a protocol for each of the two nodes.
fn config(address: &str, asn: u32) -> String {
    let mut text = format!(
        "router id {address};\nlog stderr all;\ndebug protocols all;\nprotocol device {{}}\n"
    );
    for (name, node) in [("one", "10.0.0.11"), ("two", "10.0.0.12")] {
        text += &format!(
            "protocol bgp {name} {{\n  local {address} as {asn}; neighbor {node} as 64500;\n  \
             passive on; strict bind on;\n  \
             ipv4 {{ import all; export none; }};\n  ipv6 {{ import all; export none; }};\n}}\n"
        );
    }
    text
}

fn objects() -> String {
    let peer = "myASN: 64500, connectTime: 1s, dualStack: true";
    let mut text = object(
        "Peer",
        "outer",
        &format!("{peer}, peerASN: 64501, peerAddress: 10.0.0.1"),
    ) + &object(
        "Peer",
        "inner",
        &format!(
            "{peer}, peerASN: 64500, peerAddress: 10.0.0.2, \
             nodeSelectors: [{{matchLabels: {{rack: b}}}}], \
             nextHop: {{ipv4: 10.0.0.77, ipv6: \"fd00::77\"}}"
        ),
    );
    for (n, more) in [
        (1, "bgp: {}"),
        (2, "bgp: {peers: [inner, unknown]}"),
        (3, "nodeSelectors: [{matchLabels: {rack: a}}], bgp: {}"),
        (4, "bgp: {aggregationLength: 24, aggregationLengthV6: 64}"),
    ] {
        let pool = format!("addresses: [192.168.{n}.0/24, \"2001:db8:{n}::/64\"]");
        text += &object("IPAddressPool", &format!("pool-{n}"), &pool);
        let advertisement = format!("pools: [pool-{n}], {more}");
        text += &object("Advertisement", &format!("said-{n}"), &advertisement);
    }
    text
}

/// Prefixes and next hops that BIRD has on a session.
fn routes(bird: &Bird, protocol: &str) -> Result<Vec<String>, String> {
    let said = bird.ask(&format!("show route protocol {protocol} all"));
    let said = said.map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    let mut prefix = "";
    for line in said.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if !line.starts_with(char::is_whitespace) && first.contains('/') {
            prefix = first;
        } else if let Some(hops) = line.trim_start().strip_prefix("BGP.next_hop: ") {
            // A link-local one may follow.
            let hop = hops.split_whitespace().next().unwrap_or_default();
            found.push(format!("{prefix} {hop}"));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Waits until BIRD has exactly these prefixes on a session, all by these next hops.
async fn has(bird: &Bird, protocol: &str, hops: [&str; 2], prefixes: &[&str]) -> Outcome {
    let by = |prefix: &&str| {
        let [four, six] = hops;
        let hop = if prefix.contains(':') { six } else { four };
        format!("{prefix} {hop}")
    };
    let mut wanted: Vec<String> = prefixes.iter().map(by).collect();
    wanted.sort_unstable();
    let what = format!("{wanted:?} of {protocol}");
    let found = wait_for(SOON, &what, async || {
        let found = routes(bird, protocol)?;
        (found == wanted)
            .then_some(())
            .ok_or_else(|| format!("{found:?}"))
    });
    Ok(found.await?)
}

const END_OF_RIB: &str = "one: Got END-OF-RIB";

/// What BIRD said of `one` and all others since each time that its session came up.
fn sessions(log: &str) -> impl Iterator<Item = &str> {
    log.split("one: BGP session established").skip(1)
}

/// Whether all prefixes came before any End-of-RIB.
fn ends_with_marks(said: &str, prefixes: &[&str]) -> Result<(), String> {
    let routes = said.split(END_OF_RIB).next().unwrap_or_default();
    let added = |prefix: &&str| {
        let mut lines = routes.lines().filter(|line| line.contains("one.ipv"));
        lines.any(|line| line.contains("> added") && line.contains(&format!(" {prefix} ")))
    };
    let late: Vec<&str> = prefixes.iter().copied().filter(|p| !added(p)).collect();
    late.is_empty()
        .then_some(())
        .ok_or_else(|| format!("{late:?} not in {routes}"))
}

const FIRST: [&str; 2] = ["10.0.0.11", "fd00::11"];
const SECOND: [&str; 2] = ["10.0.0.12", "fd00::12"];
const ELSEWHERE: [&str; 2] = ["10.0.0.77", "fd00::77"];

const ALL: [&str; 2] = ["192.168.1.1/32", "2001:db8:1::1/128"];
const INNER: [&str; 2] = ["192.168.2.1/32", "2001:db8:2::1/128"];
const RACK: [&str; 2] = ["192.168.3.1/32", "2001:db8:3::1/128"];
const WIDE: [&str; 2] = ["192.168.4.0/24", "2001:db8:4::/64"];

#[test]
fn bird_hears_what_objects_choose() {
    lab::run("choices::bird_hears_what_objects_choose", async |lab| {
        let stage = Stage::of(&lab, 2).await?;
        let mut outer = Bird::start(&stage.router, &config("10.0.0.1", 64501)).await?;
        let inside = lab.router("inside").await?;
        stage
            .scene
            .lan
            .attach(&inside, &["10.0.0.2/24", "fd00::2/64"])
            .await?;
        let inner = Bird::start(&inside, &config("10.0.0.2", 64500)).await?;
        stage.label_nodes(&["rack: a", "rack: b"])?;
        stage.write("objects.yaml", &objects())?;
        let dual = "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]";
        for (name, last) in [
            ("all", "1::1"),
            ("inner", "2::1"),
            ("rack", "3::1"),
            ("wide", "4::1"),
            ("wider", "4::2"),
        ] {
            let (n, last) = last.split_once("::").expect("both");
            let ips = format!("192.168.{n}.{last},2001:db8:{n}::{last}");
            stage.serve(name, &ips, dual, &[0, 1])?;
        }
        let _agents = stage.start()?;

        // Advertisements choose nodes and peers, peers choose nodes.
        has(&outer, "one", FIRST, &[ALL, RACK, WIDE].concat()).await?;
        has(&outer, "two", SECOND, &[ALL, WIDE].concat()).await?;
        has(&inner, "two", ELSEWHERE, &[ALL, INNER, WIDE].concat()).await?;
        let said = inner.ask("show protocols one")?;
        assert!(!said.contains("Established"), "{said}");

        for (name, id, node) in [
            ("one", "10.0.0.11", "node-1"),
            ("two", "10.0.0.12", "node-2"),
        ] {
            let said = outer.ask(&format!("show protocols all {name}"))?;
            let found = |key: &str, value: &str| {
                let mut lines = said
                    .lines()
                    .filter_map(|line| line.trim().strip_prefix(key));
                lines.any(|line| line.trim() == value)
            };
            assert!(found("Neighbor ID:", id), "{said}");
            assert!(found("Hostname:", node), "{said}");
        }

        // Anew, with nothing left to learn: all routes, then End-of-RIB of each family.
        let before = sessions(&outer.process().log()).count();
        outer.ask("restart one")?;
        let whole = [ALL, RACK, WIDE].concat();
        wait_for(SOON, "End-of-RIB of both families", async || {
            let log = outer.process().log();
            match sessions(&log).nth(before) {
                Some(said) if said.matches(END_OF_RIB).count() == 2 => {
                    ends_with_marks(said, &whole)
                }
                other => Err(format!("{other:?}")),
            }
        })
        .await?;

        // An aggregate is there for as long as one address in it is.
        stage.remove("service-wide.yaml")?;
        stage.remove("service-rack.yaml")?;
        has(&outer, "one", FIRST, &[ALL, WIDE].concat()).await?;
        stage.remove("service-wider.yaml")?;
        has(&outer, "one", FIRST, &ALL).await?;
        has(&outer, "two", SECOND, &ALL).await?;

        // A node that is moved has other peers.
        stage.label_nodes(&["rack: b", "rack: a"])?;
        has(&inner, "one", ELSEWHERE, &[ALL, INNER].concat()).await?;
        shows(&inner, "show protocols two", "no session", |said| {
            !said.contains("Established")
        })
        .await
    });
}
