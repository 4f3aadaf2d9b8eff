//! `corten bgp`: the BGP sessions of all nodes, as their agents tell them.

use std::collections::{BTreeMap, BTreeSet};

use api::corten::v1alpha1::{BgpSession, NodeStateStatus};
use api::crds::yaml;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::nodes::{Nodes, Where};
use super::table::{Form, aligned};
use super::{Failure, runtime};

/// A cause is shown so far, unless more is asked for.
const CAUSE: usize = 60;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Only these nodes.
    nodes: Vec<String>,
    #[command(flatten)]
    place: Where,
    /// In another form than a table.
    #[arg(short, long, value_enum)]
    output: Option<Form>,
}

pub(super) fn main(options: &Options) -> Result<(), Failure> {
    let (mut states, unheard) = runtime()?.block_on(async {
        let nodes = Nodes::open(&options.place).await?;
        let states = nodes.states().await?;
        let unheard = nodes.unheard(&states).await.unwrap_or_else(|error| {
            let error = &*error as &dyn std::error::Error;
            tracing::warn!(error, "whether the nodes still live is not known");
            BTreeSet::new()
        });
        Ok::<_, Failure>((states, unheard))
    })?;
    for node in &options.nodes {
        if !states.contains_key(node) {
            return Err(format!("{node}: no agent serves this node").into());
        }
    }
    states.retain(|node, _| options.nodes.is_empty() || options.nodes.contains(node));
    match options.output {
        Some(Form::Json) => println!("{:#}", items(&states, &unheard)),
        Some(Form::Yaml) => print!("{}", yaml::emit(&items(&states, &unheard))),
        None | Some(Form::Wide) => {
            let wide = options.output.is_some();
            let table = table(&states, &unheard, wide, Timestamp::now());
            if table.len() == 1 {
                eprintln!("No BGP sessions found");
            } else {
                print!("{}", aligned(&table));
            }
        }
    }
    Ok(())
}

/// The sessions, each with its node, and whether that is still heard.
fn items(states: &BTreeMap<String, NodeStateStatus>, unheard: &BTreeSet<String>) -> Value {
    let mut items = Vec::new();
    for (node, state) in states {
        for session in &state.bgp {
            let mut item = serde_json::to_value(session).unwrap_or_default();
            item["node"] = json!(node);
            item["nodeHeard"] = json!(!unheard.contains(node));
            items.push(item);
        }
    }
    json!({ "items": items })
}

/// The table's rows, the head first.
fn table(
    states: &BTreeMap<String, NodeStateStatus>,
    unheard: &BTreeSet<String>,
    wide: bool,
    now: Timestamp,
) -> Vec<Vec<String>> {
    let mut head = vec!["NODE", "PEER", "ASN", "STATE", "AGE", "SENT", "RECEIVED"];
    if wide {
        head.extend(["ADDRESS", "AGENT"]);
    }
    head.push("CAUSE");
    let mut rows = vec![head.into_iter().map(str::to_owned).collect()];
    for (node, state) in states {
        let unheard = unheard.contains(node);
        for session in &state.bgp {
            let mut row = vec![
                node.clone(),
                session.peer.clone(),
                match session.asn {
                    0 => "<any>".to_owned(),
                    asn => asn.to_string(),
                },
                match unheard {
                    true => "Unknown".to_owned(),
                    false => format!("{:?}", session.state),
                },
                age(session, now),
                session.sent.to_string(),
                session.received.to_string(),
            ];
            if wide {
                row.extend([session.address.clone(), state.agent_version.clone()]);
            }
            row.push(match unheard {
                true => format!("node not heard of; last state: {:?}", session.state),
                false => cause(session, wide),
            });
            rows.push(row);
        }
    }
    rows
}

fn cause(session: &BgpSession, whole: bool) -> String {
    let long = !whole && session.cause.chars().count() > CAUSE;
    if long {
        let start = session.cause.chars().take(CAUSE - 1);
        return start.chain(['…']).collect();
    }
    session.cause.clone()
}

/// As kubectl shows ages: the two largest units where the first is small.
fn age(session: &BgpSession, now: Timestamp) -> String {
    let Ok(since) = session.since.parse::<Timestamp>() else {
        return "<unknown>".to_owned();
    };
    let seconds = now.as_second().saturating_sub(since.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => format!("{minutes}m{}s", seconds % 60),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => format!("{hours}h{}m", minutes % 60),
        28_800..172_800 => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use api::corten::v1alpha1::SessionState;

    use super::*;

    fn states() -> BTreeMap<String, NodeStateStatus> {
        let up = BgpSession {
            peer: "router".to_owned(),
            address: "10.0.0.1:179".to_owned(),
            asn: 64501,
            state: SessionState::Established,
            since: "2026-11-22T10:00:00Z".to_owned(),
            sent: 12,
            ..BgpSession::default()
        };
        let down = BgpSession {
            peer: "other".to_owned(),
            address: "[fd00::1]:179".to_owned(),
            state: SessionState::Down,
            cause: "a cause that is too long for a table of so many columns as this one".to_owned(),
            ..BgpSession::default()
        };
        let state = |bgp| NodeStateStatus {
            bgp,
            agent_version: "1.0.0".to_owned(),
            ..NodeStateStatus::default()
        };
        BTreeMap::from([
            ("node-1".to_owned(), state(vec![down, up])),
            ("node-2".to_owned(), state(Vec::new())),
        ])
    }

    fn heard() -> BTreeSet<String> {
        BTreeSet::new()
    }

    fn now() -> Timestamp {
        "2026-11-22T10:04:05Z".parse().expect("a time")
    }

    #[test]
    fn a_table_as_kubectl_s() {
        let text = aligned(&table(&states(), &heard(), false, now()));
        assert_eq!(
            text,
            "NODE     PEER     ASN     STATE         AGE         SENT   RECEIVED   CAUSE\n\
             node-1   other    <any>   Down          <unknown>   0      0          \
             a cause that is too long for a table of so many columns as …\n\
             node-1   router   64501   Established   4m5s        12     0\n"
        );
        let wide = aligned(&table(&states(), &heard(), true, now()));
        assert!(wide.contains("ADDRESS"), "{wide}");
        assert!(wide.contains("[fd00::1]:179   1.0.0   a cause"), "{wide}");
        assert!(wide.contains("as this one\n"), "{wide}");
        // A node that is dead says nothing any more, and takes nothing back.
        let dead = BTreeSet::from(["node-1".to_owned()]);
        let text = aligned(&table(&states(), &dead, false, now()));
        let said = "64501   Unknown   4m5s        12     0          node not heard of; last state: \
                    Established";
        assert!(text.contains(said), "{text}");
    }

    #[test]
    fn values_for_programs() {
        let items = items(&states(), &BTreeSet::from(["node-1".to_owned()]));
        assert_eq!(items["items"][1]["nodeHeard"], false);
        assert_eq!(items["items"][1]["node"], "node-1");
        assert_eq!(items["items"][1]["sent"], 12);
        assert_eq!(items["items"][1]["state"], "Established");
        assert!(yaml::emit(&items).contains("peer: router"));
    }

    #[test]
    fn ages_are_kubectl_s() {
        let now = now();
        for (seconds, wanted) in [
            (0, "0s"),
            (119, "119s"),
            (125, "2m5s"),
            (659, "10m"),
            (3 * 3600 + 60, "3h1m"),
            (9 * 3600, "9h"),
            (3 * 86_400, "3d"),
        ] {
            let since = Timestamp::from_second(now.as_second() - seconds).expect("a time");
            let session = BgpSession {
                since: since.to_string(),
                ..BgpSession::default()
            };
            assert_eq!(age(&session, now), wanted);
        }
    }
}
