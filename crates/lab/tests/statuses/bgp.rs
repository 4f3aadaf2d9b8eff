//! BGP as kubectl shows it: `ServiceBGPStatus`, the event, sessions with their causes in
//! `NodeState` and in events on the Node, and a password that lies in a Secret.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};

use lab::controlplane::{Account, Patch};
use lab::router::Frr;
use lab::{Outcome, bin, wait_for};
use serde_json::{Value, json};

use super::stage::{Fault, SOON, Stage};
use super::{ROOT, SYSTEM, service};

/// AS 64501, a neighbour of every node that knows the password.
pub(crate) const ROUTER: &str = "\
frr defaults datacenter
router bgp 64501
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 neighbor NODES peer-group
 neighbor NODES remote-as 64500
 neighbor NODES password hunter2
 bgp listen range 10.0.0.0/24 peer-group NODES
";

/// One router with the password, one that is not there, for the first node alone.
const PEERS: &str = "\
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: router, namespace: metallb-system}
spec:
  myASN: 64500
  peerASN: 64501
  peerAddress: 10.0.0.1
  connectTime: 1s
  passwordSecret: {name: router-password}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: absent, namespace: metallb-system}
spec:
  myASN: 64500
  peerASN: 64502
  peerAddress: 10.0.0.77
  connectTime: 1s
  nodeSelectors: [{matchLabels: {absent: seen}}]
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: adv, namespace: metallb-system}
";

/// A session that another speaker of the second node has already.
const TAKEN: &str = "\
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: taken, namespace: metallb-system}
spec:
  myASN: 64500
  peerASN: 64503
  peerAddress: 10.0.0.2
  peerPort: 1790
  connectTime: 1s
  nodeSelectors: [{matchLabels: {kubernetes.io/hostname: node-2}}]
";

fn secret(password: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/basic-auth\n\
         metadata: {{name: router-password, namespace: metallb-system}}\n\
         stringData: {{password: {password}}}\n"
    )
}

/// Waits until a session of a node is so.
async fn session(
    stage: &Stage,
    node: &str,
    peer: &str,
    so: impl Fn(&Value) -> bool,
) -> Result<Value, lab::WaitError> {
    let path = format!("/apis/corten.dev/v1alpha1/nodestates/{node}");
    wait_for(SOON, &format!("{peer} in {path}"), async || {
        let found = stage.plane.api().get(&path).await;
        let found = found.map_err(|error| error.to_string())?;
        let sessions = found["status"]["bgp"].as_array();
        let mut sessions = sessions.into_iter().flatten();
        match sessions.find(|session| session["peer"] == peer) {
            Some(session) if so(session) => Ok(session.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Waits until `kubectl describe node` shows an event with this reason and these words.
async fn told(stage: &Stage, node: &str, reason: &str, words: &str) -> Result<(), lab::WaitError> {
    wait_for(SOON, &format!("{reason} {words:?} on {node}"), async || {
        let said = stage.kubectl(&["describe", "node", node], "").await;
        let said = said.map_err(|error| error.to_string())?;
        let mut events = said.lines().skip_while(|line| !line.starts_with("Events:"));
        match events.any(|line| line.contains(reason) && line.contains(words)) {
            true => Ok(()),
            false => Err(said),
        }
    })
    .await
}

/// Another speaker's session is not taken from it, and the Node says so.
async fn conflict(stage: &Stage, frr: &Frr) -> Outcome {
    frr.host().add_address("eth0", "10.0.0.2/24").await?;
    let at = ("10.0.0.2", 1790);
    let node = &stage.scene.node("node-2").host;
    let _router = frr.host().run(|| TcpListener::bind(at))??;
    let speaker = node.run(|| TcpStream::connect(at))??;
    stage.apply(TAKEN).await?;
    let by = format!(
        "another BGP speaker of this node has a session with it ({})",
        speaker.local_addr()?
    );
    told(stage, "node-2", "BGPSpeakerConflict", &by).await?;
    let events = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.kind%3DNode,\
                  reason%3DBGPSpeakerConflict";
    let list = stage.plane.api().get(events).await?;
    let list = list["items"].as_array().map_or(&[][..], Vec::as_slice);
    let [event] = list else {
        return Err(format!("{list:?}").into());
    };
    assert_eq!(event["type"], "Warning", "{event}");
    assert_eq!(event["source"]["host"], "node-2", "{event}");
    let path = "/apis/metallb.io/v1beta2/namespaces/metallb-system/bgppeers/taken";
    stage.plane.api().delete(path).await?;
    stage.say("another speaker's session is left alone, and that is told");
    Ok(())
}

/// The `ServiceBGPStatus` objects: node → peers.
async fn words(stage: &Stage) -> Result<BTreeMap<String, Value>, Fault> {
    let path = format!("{ROOT}/servicebgpstatuses");
    let list = stage.plane.api().get(&path);
    let list = list.await?;
    let mut words = BTreeMap::new();
    for item in list["items"].as_array().into_iter().flatten() {
        let (labels, status) = (&item["metadata"]["labels"], &item["status"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let node = text(&labels["metallb.io/node"]);
        let right = item["metadata"]["generateName"] == "bgp-"
            && labels["metallb.io/service-name"] == "a"
            && labels["metallb.io/service-namespace"] == "default"
            && status["node"] == *node
            && status["serviceName"] == "a"
            && status["serviceNamespace"] == "default";
        if !right || words.insert(node, status["peers"].clone()).is_some() {
            return Err(item.to_string().into());
        }
    }
    Ok(words)
}

async fn say(stage: &Stage, wanted: &[(&str, Value)]) -> Result<(), lab::WaitError> {
    let wanted: BTreeMap<String, Value> = wanted
        .iter()
        .map(|(node, peers)| ((*node).to_owned(), peers.clone()))
        .collect();
    wait_for(
        SOON,
        &format!("ServiceBGPStatus {wanted:?}"),
        async || match words(stage).await {
            Ok(found) if found == wanted => Ok(()),
            Ok(found) => Err(format!("{found:?}")),
            Err(error) => Err(error.to_string()),
        },
    )
    .await
}

/// `corten drain` from a workstation.
async fn drain(stage: &Stage, more: &[&str]) -> Result<String, Fault> {
    corten(stage, &[&["drain", "node-2"], more].concat()).await
}

/// A command of the CLI, from a workstation.
async fn corten(stage: &Stage, words: &[&str]) -> Result<String, Fault> {
    let client = &stage.scene.client;
    let mut command = client.command(bin("corten")?)?;
    command.args(words).arg("--kubeconfig");
    command.arg(stage.plane.kubeconfig(Account::Admin));
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr)?.into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A row of `spec/metallb.md` §5: a metric of the speaker or of its FRR exporter, its type, the
/// labels that tools select by, and the least that it shows once a Service is advertised.
type Row = (&'static str, &'static str, &'static [&'static str], f64);

const NONE: &[&str] = &[];
const PEER: &[&str] = &["peer=\"10.0.0.1:179\"", "vrf=\"default\""];
const ADDRESS: &[&str] = &["ip=\"10.0.0.101\""];
const ANNOUNCED: &[&str] = &[
    "ip=\"10.0.0.101\"",
    "node=\"node-1\"",
    "protocol=\"bgp\"",
    "service=\"default/a\"",
];

/// BFD's are in tests/bgp.
const ROWS: [Row; 19] = [
    ("k8s_client_updates_total", "counter", NONE, 1.0),
    ("k8s_client_update_errors_total", "counter", NONE, 0.0),
    ("k8s_client_config_loaded_bool", "gauge", NONE, 1.0),
    ("k8s_client_config_stale_bool", "gauge", NONE, 0.0),
    ("speaker_announced", "gauge", ANNOUNCED, 1.0),
    ("layer2_gratuitous_sent", "counter", ADDRESS, 1.0),
    ("bgp_session_up", "gauge", PEER, 1.0),
    ("bgp_announced_prefixes_total", "gauge", PEER, 1.0),
    ("bgp_pending_prefixes_total", "gauge", PEER, 0.0),
    ("bgp_received_prefixes_total", "gauge", PEER, 0.0),
    ("bgp_opens_sent", "counter", PEER, 1.0),
    ("bgp_opens_received", "counter", PEER, 1.0),
    ("bgp_notifications_sent", "counter", PEER, 0.0),
    ("bgp_updates_total", "counter", PEER, 1.0),
    ("bgp_updates_total_received", "counter", PEER, 0.0),
    ("bgp_keepalives_sent", "counter", PEER, 1.0),
    ("bgp_keepalives_received", "counter", PEER, 1.0),
    ("bgp_total_sent", "counter", PEER, 3.0),
    ("bgp_total_received", "counter", PEER, 2.0),
];

/// Every row, on a node whose session is up. Of layer 2 only its owner has something to count.
async fn rows(stage: &Stage) -> Outcome {
    let mut texts = Vec::new();
    for node in &stage.scene.nodes {
        let to = ([127, 0, 0, 1], 17472).into();
        texts.push(node.host.http_get(to, "/metrics").await?.body);
    }
    for (name, kind, labels, least) in ROWS {
        let of = match name.starts_with("layer2") {
            true => texts.concat(),
            false => texts.first().cloned().unwrap_or_default(),
        };
        let typed = format!("# TYPE metallb_{name} {kind}");
        assert!(of.lines().any(|line| line == typed), "{typed}\n{of}");
        let found = of.lines().find_map(|line| {
            let rest = line.strip_prefix(&format!("metallb_{name}"))?;
            let value = rest.rsplit(' ').next()?.parse::<f64>().ok()?;
            let labelled = labels.iter().all(|label| rest.contains(label));
            (rest.starts_with(['{', ' ']) && labelled).then_some(value)
        });
        assert!(found >= Some(least), "{name}: {found:?}\n{of}");
    }
    stage.say(format!("{} rows of metrics", ROWS.len()));
    Ok(())
}

/// What the node controller would say of a node.
async fn ready(stage: &Stage, node: &str, status: &str) -> Outcome {
    let path = format!("/api/v1/nodes/{node}/status");
    let conditions = json!([{"type": "Ready", "status": status, "reason": "Lab"}]);
    let patch = json!({"status": {"conditions": conditions}});
    stage.plane.api().patch(&path, Patch::Merge, &patch).await?;
    Ok(())
}

/// `corten bgp`.
async fn shown(stage: &Stage) -> Outcome {
    // Numbers are published some seconds later.
    let wanted = ["node-2", "router", "64501", "Established", "1", "0"];
    let table = wait_for(SOON, "what is sent in `corten bgp`", async || {
        let table = corten(stage, &["bgp"]).await;
        let table = table.map_err(|error| error.to_string())?;
        let sent = table.lines().any(|line| {
            let mut words: Vec<&str> = line.split_whitespace().collect();
            // All but the age.
            words.len() == 7 && {
                words.remove(4);
                words == wanted
            }
        });
        if sent { Ok(table) } else { Err(table) }
    })
    .await?;
    stage.say(format!("corten bgp:\n{table}"));
    let absent = table.lines().find(|line| line.contains(" absent "));
    let absent = absent.ok_or("no line of the absent peer")?;
    assert!(absent.starts_with("node-1"), "{table}");
    assert!(absent.contains(" Down "), "{table}");
    let json = corten(stage, &["bgp", "node-2", "-o", "json"]).await?;
    let found: Value = serde_json::from_str(&json)?;
    assert_eq!(found["items"][0]["node"], "node-2", "{found}");
    assert_eq!(found["items"][0]["asn"], 64501, "{found}");
    assert_eq!(found["items"][0]["nodeHeard"], true, "{found}");
    let yaml = corten(stage, &["bgp", "-o", "yaml"]).await?;
    assert!(yaml.contains("asn: 64502"), "{yaml}");
    let unknown = corten(stage, &["bgp", "no-such-node"]).await;
    let unknown = unknown.err().map(|error| error.to_string());
    assert!(
        unknown.is_some_and(|said| said.contains("no agent serves")),
        "an unknown node is refused"
    );
    // What the agent of a dead node has said is nothing to go by.
    ready(stage, "node-2", "Unknown").await?;
    let table = corten(stage, &["bgp", "node-2"]).await?;
    assert!(table.contains("Unknown"), "{table}");
    assert!(
        table.contains("node not heard of; last state: Established"),
        "{table}"
    );
    ready(stage, "node-2", "True").await?;
    Ok(())
}

/// A node drains, and serves again.
async fn drained(stage: &Stage, frr: &Frr) -> Outcome {
    let nodes: Vec<String> = stage
        .scene
        .nodes
        .iter()
        .map(|it| it.ip.to_string())
        .collect();
    let hops = async |wanted: &[String]| {
        wait_for(SOON, &format!("next hops {wanted:?}"), async || {
            match frr.next_hops("10.0.0.101/32") {
                Ok(hops) if hops == wanted => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    };
    hops(&nodes).await?;
    let said = drain(stage, &[]).await?;
    assert!(
        said.contains("session router (10.0.0.1:179) has ended"),
        "{said}"
    );
    assert!(said.contains("node-2 is drained"), "{said}");
    let node = stage.plane.api().get("/api/v1/nodes/node-2").await?;
    let asked = &node["metadata"]["annotations"]["corten.dev/drain"];
    assert_eq!(asked, "true", "{node}");
    let path = "/apis/corten.dev/v1alpha1/nodestates/node-2";
    let state = stage.plane.api().get(path).await?;
    assert_eq!(state["status"]["drain"], "Drained", "{state}");
    assert_eq!(state["status"]["bgp"][0]["state"], "Drained", "{state}");
    hops(&nodes[..1]).await?;
    // A second time there is nothing to wait for.
    drain(stage, &[]).await?;
    let said = drain(stage, &["--undo"]).await?;
    assert!(said.contains("node-2 serves again"), "{said}");
    hops(&nodes).await?;
    stage.say("node-2 was drained, and serves again");
    Ok(())
}

pub(crate) async fn story(stage: &Stage, frr: &Frr) -> Outcome {
    stage
        .kubectl(&["label", "node", "node-1", "absent=seen"], "")
        .await?;
    stage.apply(SYSTEM).await?;
    stage.apply(&service("a")).await?;
    stage.has("a", &["10.0.0.101"]).await?;
    stage.apply(&secret("hunter2")).await?;
    stage.apply(PEERS).await?;

    let up = |session: &Value| session["state"] == "Established";
    for node in ["node-1", "node-2"] {
        let found = session(stage, node, "router", up).await?;
        assert_eq!(found["address"], "10.0.0.1:179", "{found}");
        assert!(found["since"].is_string(), "{found}");
        assert_eq!(found.get("cause"), None, "{found}");
    }
    let found = session(stage, "node-1", "absent", |session| {
        session["state"] == "Down" && session["cause"].is_string()
    })
    .await?;
    stage.say(format!("sessions are shown: {found}"));
    told(
        stage,
        "node-1",
        "BGPSessionDown",
        "session absent (10.0.0.77:179): ",
    )
    .await?;
    wait_for(SOON, "the route at the router", async || {
        match frr.next_hops("10.0.0.101/32") {
            Ok(hops) if hops.len() == 2 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;

    // Intent: a peer whose session is down is named too.
    let both = json!(["absent", "router"]);
    let one = json!(["router"]);
    say(stage, &[("node-1", both), ("node-2", one.clone())]).await?;
    for node in ["node-1", "node-2"] {
        let told = format!(
            "nodeAssigned metallb-speaker: announcing from node \"{node}\" with protocol \"bgp\""
        );
        stage.event("a", &told).await?;
        let host = stage.scene.nodes.iter().find(|it| it.host.name() == node);
        let host = &host.ok_or("no such node")?.host;
        let name = format!(
            "metallb_speaker_announced{{ip=\"10.0.0.101\",node=\"{node}\",protocol=\"bgp\",\
             service=\"default/a\"}}"
        );
        assert!(stage.metric(host, &name).await? > 0.5, "{node}");
    }
    stage.say("who advertises the Service, and to whom, is shown");

    // Another password in the Secret: only the session that uses it goes, and says why.
    stage.apply(&secret("another")).await?;
    let no_answer = |session: &Value| {
        let cause = session["cause"].as_str().unwrap_or_default();
        session["state"] == "Down" && cause.contains("check password")
    };
    session(stage, "node-2", "router", no_answer).await?;
    let why = "session router (10.0.0.1:179): no answer: check password";
    told(stage, "node-2", "BGPSessionDown", why).await?;
    stage.apply(&secret("hunter2")).await?;
    session(stage, "node-2", "router", up).await?;
    let well = "session router (10.0.0.1:179) is up";
    told(stage, "node-2", "BGPSessionUp", well).await?;
    stage.say("the Secret's password was another one for a while");

    conflict(stage, frr).await?;
    rows(stage).await?;
    shown(stage).await?;
    drained(stage, frr).await?;

    // Less is advertised; then nothing.
    let path = "/apis/metallb.io/v1beta2/namespaces/metallb-system/bgppeers";
    stage.plane.api().delete(&format!("{path}/absent")).await?;
    say(stage, &[("node-1", one.clone()), ("node-2", one)]).await?;
    let path = format!("{ROOT}/servicebgpstatuses");
    let list = stage.plane.api().get(&path);
    let list = list.await?;
    let name = list["items"][0]["metadata"]["name"].as_str();
    let name = name.unwrap_or_default();
    assert!(name.starts_with("bgp-"), "{list}");
    let service = "/api/v1/namespaces/default/services/a";
    stage.plane.api().delete(service).await?;
    say(stage, &[]).await?;
    Ok(())
}
