//! Malformed attributes on living sessions: each case of proto's table (RFC 7606), with what comes
//! of it seen from outside, in the kernel's routes, on the wire and in the metrics.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use futures::future::try_join_all;
use lab::router::ExaBgp;
use lab::router::speaker::{Speaker, message};
use lab::{Host, wait_for};
use proto::bgp::cases::{self, Case, Outcome};
use serde_json::{Value, json};

use crate::receive::learned;
use crate::sessions::one_service;
use crate::stage::{Outcome as Done, SOON, Stage, object};

/// The AS that the cases' AS_PATHs begin with, and the node's own.
const EXTERNAL: u16 = 65001;
const INTERNAL: u16 = 64500;
/// The third byte of the prefix that comes last on each session; no case has it.
const LAST: u8 = 255;

/// Everything of 198.18.0.0/15 is taken.
fn peer(name: &str, ip: Ipv4Addr, asn: u16) -> String {
    let spec = format!(
        "myASN: 64500, peerASN: {asn}, peerAddress: {ip}, connectTime: 1s, dualStack: true, \
         receive: {{prefixes: [198.18.0.0/15]}}"
    );
    object("Peer", name, &spec)
}

/// The prefix of a case: `198.18.N.0/24` from outside, `198.19.N.0/24` from inside.
fn prefix(external: bool, number: u8) -> [u8; 4] {
    [24, 198, 19 - u8::from(external), number]
}

/// As [`learned`] writes the route to it.
fn route([length, a, b, c]: [u8; 4]) -> String {
    format!("{a}.{b}.{c}.0/{length} 10.0.0.1")
}

/// The cases with their numbers, each from outside and from inside.
fn all() -> impl Iterator<Item = (u8, Case, bool)> {
    let cases = (0..).zip(cases::cases());
    cases.flat_map(|(number, case)| [(number, case, true), (number, case, false)])
}

fn ends(case: &Case, external: bool) -> bool {
    matches!(case.outcome(external), Outcome::Reset(_))
}

/// What one peer sends, and what must come of it.
#[derive(Default)]
struct Story {
    /// Well announced first, so that they can go.
    before: Vec<u8>,
    updates: Vec<Vec<u8>>,
    /// The routes that the kernel has then.
    routes: BTreeSet<String>,
    discarded: usize,
    withdrawn: usize,
}

/// An UPDATE with nothing wrong.
fn good(external: bool, nlri: &[u8]) -> Vec<u8> {
    cases::message(&[], &cases::list(external, 0x40, 1, &[0]), nlri)
}

fn story(external: bool) -> Story {
    let mut story = Story::default();
    let of_kind = all().filter(|(_, case, it)| *it == external && !ends(case, external));
    for (number, case, _) in of_kind {
        let prefix = prefix(external, number);
        story.updates.push(case.update(external, &prefix));
        match case.outcome(external) {
            Outcome::Withdrawn => {
                story.before.extend(prefix);
                story.withdrawn += 1;
                continue;
            }
            Outcome::Discarded => story.discarded += 1,
            Outcome::Taken | Outcome::Reset(_) => {}
        }
        story.routes.insert(route(prefix));
    }
    let last = prefix(external, LAST);
    story.updates.push(good(external, &last));
    story.routes.insert(route(last));
    story
}

/// Waits until the kernel has exactly these routes; what is wrong is named by its case.
async fn has(node: &Host, wanted: &BTreeSet<String>) -> Done {
    let what = format!("{} routes", wanted.len());
    let found = wait_for(SOON, &what, async || {
        let found = learned(node, 254).await;
        let found = found.map_err(|error| error.to_string())?.into_iter();
        let found: BTreeSet<String> = found.collect();
        let wrong: Vec<&String> = found.symmetric_difference(wanted).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        let named = |(number, case, external): (u8, Case, bool)| {
            let route = route(prefix(external, number));
            let state = if found.contains(&route) {
                "too much"
            } else {
                "missing"
            };
            let name = case.name;
            wrong
                .contains(&&route)
                .then(|| format!("{name}, external {external}: {state}"))
        };
        let named: Vec<String> = all().filter_map(named).collect();
        Err(format!("{named:?}, of {wrong:?}"))
    });
    Ok(found.await?)
}

/// The agent's count of a peer's flaws with this outcome.
async fn flaws(node: &Host, ip: Ipv4Addr, outcome: &str) -> Done<usize> {
    let at = SocketAddr::from(([127, 0, 0, 1], 17472));
    let text = node.http_get(at, "/metrics").await?.body;
    let labels = format!("outcome=\"{outcome}\",peer=\"{ip}:179\"");
    let name = format!("corten_bgp_attribute_flaws_total{{{labels}}} ");
    let found = text.lines().find_map(|line| line.strip_prefix(&name));
    Ok(found.map_or(Ok(0), str::parse)?)
}

async fn in_time<T>(what: &str, future: impl Future<Output = std::io::Result<T>>) -> Done<T> {
    let done = tokio::time::timeout(SOON, future).await;
    Ok(done.map_err(|_| format!("no {what} in {SOON:?}"))??)
}

#[test]
fn every_case_has_its_outcome() {
    lab::run("rfc7606::every_case_has_its_outcome", async |lab| {
        let stage = Stage::of(&lab, 1).await?;
        let node = &stage.scene.nodes[0].host;
        // Two sessions live through their cases; each of the others has a session to end.
        let ends: Vec<(Case, bool)> = all()
            .filter(|(_, case, external)| ends(case, *external))
            .map(|(_, case, external)| (case, external))
            .collect();
        let asn = |external: bool| if external { EXTERNAL } else { INTERNAL };
        let living = [
            (true, Ipv4Addr::new(10, 0, 0, 2)),
            (false, Ipv4Addr::new(10, 0, 0, 3)),
        ];
        let mut peers = Vec::from(living);
        peers.extend(
            (20..)
                .zip(&ends)
                .map(|(n, (_, external))| (*external, Ipv4Addr::new(10, 0, 0, n))),
        );
        let host = lab.router("speakers").await?;
        let addresses: Vec<String> = peers.iter().map(|(_, ip)| format!("{ip}/24")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        stage.scene.lan.attach(&host, &addresses).await?;
        let mut objects = String::new();
        let mut speakers = Vec::new();
        for (number, (external, ip)) in peers.into_iter().enumerate() {
            objects += &peer(&format!("p{number}"), ip, asn(external));
            speakers.push(Speaker::listen(&host, ip, asn(external))?);
        }
        one_service(&stage, &objects)?;
        let mut agent = stage.start()?.pop().expect("one");

        let (survivors, doomed) = speakers.split_at(living.len());
        let mut routes = BTreeSet::new();
        let mut sessions = Vec::new();
        for (speaker, (external, ip)) in survivors.iter().zip(living) {
            let story = story(external);
            let mut session = tokio::time::timeout(SOON, speaker.session()).await??;
            session.send(&good(external, &story.before)).await?;
            routes.extend(
                story
                    .before
                    .chunks(4)
                    .map(|it| route([it[0], it[1], it[2], it[3]])),
            );
            sessions.push((session, ip, story));
        }
        has(node, &routes).await?;
        routes.clear();
        for (session, _, story) in &mut sessions {
            session.send(&story.updates.concat()).await?;
            routes.append(&mut story.routes);
        }
        has(node, &routes).await?;
        // The sessions live: they are asked for their routes, and send them again.
        let refresh = message(5, &[0, 1, 0, 1]);
        for (session, ip, story) in &mut sessions {
            session.send(&refresh).await?;
            let mut times = 0;
            while times < 2 {
                let heard = in_time("route again", session.next()).await?;
                let (kind, body) = heard.ok_or("closed")?;
                assert_ne!(kind, 3, "NOTIFICATION {body:?}");
                times += usize::from(body.ends_with(&[32, 192, 168, 1, 1]));
            }
            // An UPDATE of these has one flaw each.
            let found = (
                flaws(node, *ip, "discarded").await?,
                flaws(node, *ip, "withdrawn").await?,
            );
            assert_eq!(found, (story.discarded, story.withdrawn));
        }
        assert!(agent.log().contains("a malformed UPDATE; more of them"));

        // What cannot be read ends the session, with the reason that RFC 7606 has for it.
        let told = doomed
            .iter()
            .zip(&ends)
            .map(async |(speaker, (case, external))| -> Done<_> {
                let mut session = tokio::time::timeout(SOON, speaker.session()).await??;
                session
                    .send(&case.update(*external, &prefix(*external, LAST - 1)))
                    .await?;
                let told = in_time("end of a session", session.end()).await?;
                Ok((case.name, *external, told))
            });
        let wanted: Vec<_> = ends
            .iter()
            .map(|(case, external)| match case.outcome(*external) {
                Outcome::Reset(subcode) => (case.name, *external, Some([3, subcode])),
                other => unreachable!("{other:?}"),
            })
            .collect();
        assert_eq!(try_join_all(told).await?, wanted);
        // Nothing came of their prefixes, and nobody else minds.
        has(node, &routes).await?;
        assert!(agent.try_wait()?.is_none());
        Ok(())
    });
}

/// Shows how its session goes.
const EXABGP: &str = "\
neighbor 10.0.0.11 {
  router-id 10.0.0.2;
  local-address 10.0.0.2;
  local-as 65001;
  peer-as 64500;
  hold-time 180;
  passive true;
  family { ipv4 unicast; ipv6 unicast; }
  api { processes [ lab ]; neighbor-changes; }
}
";

/// Whether ExaBGP 4.2 sends it as it is told: it cannot write NEXT_HOP by its bytes, and sends no
/// LOCAL_PREF to another AS.
fn exabgp_can_send(case: &Case) -> bool {
    !matches!(case.code, 3 | 5)
}

#[test]
fn exabgp_cannot_end_a_session_with_what_is_forgiven() {
    lab::run(
        "rfc7606::exabgp_cannot_end_a_session_with_what_is_forgiven",
        async |lab| {
            let stage = Stage::of(&lab, 1).await?;
            let node = &stage.scene.nodes[0].host;
            let host = lab.router("beside").await?;
            stage.scene.lan.attach(&host, &["10.0.0.2/24"]).await?;
            let mut exabgp = ExaBgp::start(&host, "10.0.0.2", EXABGP).await?;
            one_service(
                &stage,
                &peer("exabgp", Ipv4Addr::new(10, 0, 0, 2), EXTERNAL),
            )?;
            let mut agent = stage.start()?.pop().expect("one");

            let announce = |number: u8, how: &str| {
                format!("announce route 198.18.{number}.0/24 next-hop 10.0.0.1{how}")
            };
            let cases = (0..).zip(cases::cases());
            let cases: Vec<(u8, Case)> = cases.filter(|(_, case)| exabgp_can_send(case)).collect();
            let (ending, living): (Vec<_>, Vec<_>) =
                cases.into_iter().partition(|(_, it)| ends(it, true));
            let gone: Vec<u8> = living
                .iter()
                .filter(|(_, case)| case.outcome(true) == Outcome::Withdrawn)
                .map(|(number, _)| *number)
                .collect();
            for number in &gone {
                exabgp.tell(&announce(*number, ""))?;
            }
            let routes = |numbers: &mut dyn Iterator<Item = u8>| -> BTreeSet<String> {
                numbers.map(|number| route(prefix(true, number))).collect()
            };
            has(node, &routes(&mut gone.iter().copied())).await?;
            let attribute = |case: &Case| {
                let value: String = case
                    .value()
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                format!(
                    " attribute [ {:#04x} {:#04x} 0x{value} ]",
                    case.code, case.flags
                )
            };
            for (number, case) in &living {
                exabgp.tell(&announce(*number, &attribute(case)))?;
            }
            exabgp.tell(&announce(LAST, ""))?;
            let stay = living.iter().map(|(number, _)| *number);
            let stay = stay.filter(|number| !gone.contains(number));
            let stay = routes(&mut stay.chain([LAST]));
            has(node, &stay).await?;
            let changes = |exabgp: &ExaBgp| -> Vec<Value> {
                let events = exabgp.events();
                let states = events
                    .iter()
                    .map(|event| event["neighbor"]["state"].clone());
                states.filter(Value::is_string).collect()
            };
            assert_eq!(changes(&exabgp), [json!("connected"), json!("up")]);

            // What cannot be read ends the session.
            let (_, case) = ending.last().ok_or("no case that ends a session")?;
            exabgp.tell(&announce(LAST - 1, &attribute(case)))?;
            wait_for(SOON, "the end of the session", async || {
                let changes = changes(&exabgp);
                let down = changes.contains(&json!("down"));
                down.then_some(()).ok_or_else(|| format!("{changes:?}"))
            })
            .await?;
            assert!(agent.try_wait()?.is_none());
            Ok(())
        },
    );
}
