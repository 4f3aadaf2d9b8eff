//! BIRD on the other side, with what its neighbour may look like to it: what it reads on each kind
//! of session, what it asks, and what it says when it goes.

use lab::router::Bird;
use lab::wait_for;

use crate::sessions::says;
use crate::stage::{Outcome, SOON, Stage, object};

const CONFIG: &str = "\
router id 10.0.0.1;
protocol device {}
protocol bfd { interface \"*\" { interval 500 ms; multiplier 20; }; }
template bgp corten {
  passive on;
  strict bind on;
  ipv4 { import all; export none; };
}
protocol bgp inside from corten { local 10.0.0.21 as 64500; neighbor 10.0.0.121 as 64500; enable extended messages on; }
protocol bgp outside from corten { local 10.0.0.22 as 64501; neighbor 10.0.0.122 as 64500; bfd on; }
protocol bgp two_octets from corten { local 10.0.0.23 as 64501; neighbor 10.0.0.123 as 64500; enable as4 off; }
protocol bgp over_six from corten {
  local fd00::21 as 64501; neighbor fd00::121 as 64500;
  ipv6 { import all; export none; };
}
protocol bgp over_six_alone from corten {
  local fd00::22 as 64501; neighbor fd00::122 as 64500;
  ipv4 { import all; export none; extended next hop on; };
  ipv6 { import all; export none; };
}
";

/// Name, what its object says more, and what BIRD must show of a prefix on that session.
const SESSIONS: [(&str, &str, &str, &[&str]); 7] = [
    (
        "inside",
        "peerASN: 64500, peerAddress: 10.0.0.21, sourceAddress: 10.0.0.121, gracefulRestart: true",
        "192.168.1.1/32",
        &[
            "BGP.origin: IGP",
            "BGP.as_path: \n",
            "BGP.next_hop: 10.0.0.121\n",
            "BGP.med: 50",
            "BGP.local_pref: 300",
            "BGP.community: (64500,100)",
            "BGP.large_community: (64500, 1, 2)",
            // Link bandwidth, which it passes on without a name.
            "BGP.ext_community: (unknown 0x4, ",
        ],
    ),
    (
        "outside",
        "peerASN: 64501, peerAddress: 10.0.0.22, sourceAddress: 10.0.0.122, bfdProfile: calm",
        "192.168.1.1/32",
        &[
            "BGP.as_path: 64500 64500\n",
            "BGP.next_hop: 10.0.0.122\n",
            "BGP.med: 50",
            "BGP.large_community: (64500, 1, 2)",
        ],
    ),
    (
        // A path of 2-octet numbers.
        "two_octets",
        "peerASN: 64501, peerAddress: 10.0.0.23, sourceAddress: 10.0.0.123",
        "192.168.1.1/32",
        &["BGP.as_path: 64500 64500\n", "BGP.next_hop: 10.0.0.123\n"],
    ),
    (
        "over_six",
        "peerASN: 64501, peerAddress: \"fd00::21\", sourceAddress: \"fd00::121\", dualStack: true",
        "192.168.1.1/32",
        // The interface's own.
        &["BGP.next_hop: 10.0.0.11\n"],
    ),
    (
        "over_six",
        "",
        "2001:db8:1::1/128",
        &["BGP.next_hop: fd00::121"],
    ),
    (
        "over_six_alone",
        "peerASN: 64501, peerAddress: \"fd00::22\", sourceAddress: \"fd00::122\", dualStack: true",
        "192.168.1.1/32",
        &["BGP.next_hop: fd00::122"],
    ),
    (
        "over_six_alone",
        "",
        "2001:db8:1::1/128",
        &["BGP.next_hop: fd00::122"],
    ),
];

fn objects() -> String {
    let advertisement = "pools: [pool], bgp: {localPref: 300, weighted: true, med: 50, prepend: 1, \
                         communities: [\"64500:100\", \"large:64500:1:2\"]}";
    let profile = "receiveInterval: 500, transmitInterval: 500, detectMultiplier: 20";
    let mut text = object(
        "IPAddressPool",
        "pool",
        "addresses: [192.168.1.0/24, \"2001:db8:1::/64\"]",
    ) + &object("Advertisement", "all", advertisement)
        + &object("BFDProfile", "calm", profile);
    for (name, more, ..) in SESSIONS.iter().filter(|(_, more, ..)| !more.is_empty()) {
        let name = name.replace('_', "-");
        text += &object(
            "Peer",
            &name,
            &format!("myASN: 64500, connectTime: 1s, {more}"),
        );
    }
    text
}

/// Waits until BIRD's answer is so.
pub(crate) async fn shows(
    bird: &Bird,
    command: &str,
    what: &str,
    so: impl Fn(&str) -> bool,
) -> Outcome {
    let awaited = format!("{what} in {command}");
    let found = wait_for(SOON, &awaited, async || {
        let said = bird.ask(command).map_err(|error| error.to_string())?;
        so(&said).then_some(()).ok_or(said)
    });
    Ok(found.await?)
}

async fn routes(bird: &Bird) -> Outcome {
    for (name, _, prefix, wanted) in SESSIONS {
        let command = format!("show route {prefix} protocol {name} all");
        for line in wanted {
            shows(bird, &command, line, |said| said.contains(line)).await?;
        }
    }
    Ok(())
}

/// How many routes have come on a session, again and again.
fn updates(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Import updates:"))?;
    line.split_whitespace().nth(2)?.parse().ok()
}

#[test]
fn bird_reads_asks_keeps_and_says() {
    lab::run("bird::bird_reads_asks_keeps_and_says", async |lab| {
        let stage = Stage::of(&lab, 1).await?;
        stage.more_addresses(21..24, 21..23).await?;
        let bird = Bird::start(&stage.router, CONFIG).await?;
        stage.write("objects.yaml", &objects())?;
        stage.label_nodes(&[""])?;
        let dual = "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6], \
                    externalTrafficPolicy: Local";
        stage.serve("web", "192.168.1.1,2001:db8:1::1", dual, &[0])?;
        let mut agent = stage.start()?.pop().expect("one");
        routes(&bird).await?;
        let said = bird.ask("show protocols all inside")?;
        for capability in ["Extended message", "4-octet AS numbers", "Graceful restart"] {
            assert_eq!(said.matches(capability).count(), 2, "{capability}: {said}");
        }
        shows(&bird, "show bfd sessions", "the node up", |said| {
            let mut lines = said.lines().filter(|line| line.contains("10.0.0.122"));
            lines.any(|line| line.contains("Up"))
        })
        .await?;

        // It asks for the routes again.
        let command = "show protocols all inside";
        let before = updates(&bird.ask(command)?).ok_or("no count")?;
        bird.ask("reload in inside")?;
        let more = |said: &str| updates(said).is_some_and(|now| now > before);
        shows(&bird, command, "the routes again", more).await?;

        // It keeps them where graceful restart was asked for, and there alone.
        agent.kill();
        let route = "show route 192.168.1.1/32 protocol";
        shows(&bird, &format!("{route} outside"), "no route", |said| {
            !said.contains("10.0.0.122")
        })
        .await?;
        shows(
            &bird,
            "show protocols inside",
            "the end of the session",
            |said| !said.contains("Established"),
        )
        .await?;
        let kept = bird.ask(&format!("{route} inside"))?;
        assert!(kept.contains("10.0.0.121"), "{kept}");
        let agent = stage.start()?.pop().expect("one");
        routes(&bird).await?;

        // Its last words are told.
        bird.ask("disable outside \"back at noon\"")?;
        says(&agent, "outside", "back at noon").await?;

        // The node leaves: it asks to be left, then its routes go, stale ones too.
        stage.label_nodes(&["node.kubernetes.io/exclude-from-external-load-balancers: \"\""])?;
        let all = "show route protocol inside all";
        let asks = |said: &str| said.contains("(65535,0)") && said.contains("BGP.local_pref: 0");
        shows(&bird, all, "graceful shutdown", asks).await?;
        shows(&bird, all, "no route", |said| !said.contains("10.0.0.121")).await?;
        shows(&bird, "show protocols all inside", "a hard reset", |said| {
            said.contains("Received: ")
        })
        .await
    });
}
