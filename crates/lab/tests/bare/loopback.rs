//! Node ports on the loopback (`--nodeport-addresses primary,localhost`): what a process of the node
//! meets at 127.0.0.1 and `::1`, and who does not.

use std::fmt::Write as _;
use std::net::SocketAddr;

use lab::{Prober, Process, Target, bin, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{ECHO, Outcome, SOON, Stage, ip, slice};

const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];
const PAGE: u16 = 30_080;
const ECHOES: u16 = 30_090;
const LATE: u16 = 30_081;
const COUNTED: &str = "kubeproxy_iptables_localhost_nodeports_accepted_packets_total ";

/// A Service of both families with these node ports.
fn service(stage: &Stage, name: &str, policy: &str, page: u16, echoes: u16) -> String {
    let last = page % 100;
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  type: NodePort\n  \
         ipFamilies: [IPv4, IPv6]\n  clusterIPs: [10.96.0.{last}, \"fd96::{last}\"]\n  \
         clusterIP: 10.96.0.{last}\n  externalTrafficPolicy: {policy}\n  ports:\n  \
         - {{name: http, port: 80, nodePort: {page}}}\n  \
         - {{name: echo, protocol: UDP, port: {ECHO}, nodePort: {echoes}}}\n---\n"
    );
    for v6 in [false, true] {
        // The Pod on the other node, so that policy Local has none here.
        let _ = write!(text, "{}", slice(name, v6, &stage.scene.nodes[1..]));
    }
    text
}

fn start(stage: &Stage, addresses: Option<&str>) -> Outcome<Process> {
    let host = &stage.scene.nodes[0].host;
    let mut command = host.command(bin("corten")?)?;
    command.arg("run").arg(&stage.dir);
    command.args(["--node-name", "node-1"]);
    if let Some(addresses) = addresses {
        command.args(["--nodeport-addresses", addresses]);
    }
    Ok(host.spawn("run", command)?)
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

/// Waits until it answers, or does not, at both loopback addresses.
async fn answers(stage: &Stage, port: u16, wanted: bool) -> Outcome {
    let host = &stage.scene.nodes[0].host;
    for address in LOOPBACK {
        let what = format!("[{address}]:{port} to answer: {wanted}");
        wait_until(SOON, &what, async || {
            host.http_get(at(address, port), "/").await.is_ok() == wanted
        })
        .await?;
    }
    Ok(())
}

/// Waits until each has some answers more.
async fn go_on(what: &str, probers: &[Prober]) -> Outcome {
    for (number, prober) in probers.iter().enumerate() {
        let before = prober.answered();
        wait_until(SOON, &format!("{what}: answers to {number}"), async || {
            prober.answered() >= before + 20
        })
        .await?;
    }
    Ok(())
}

async fn ask(stream: &mut TcpStream) -> Outcome {
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: one\r\nConnection: close\r\n\r\n")
        .await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    assert!(page.contains("pod-2"), "{page}");
    Ok(())
}

#[test]
fn the_nodes_processes_reach_services_there() {
    lab::run(
        "loopback::the_nodes_processes_reach_services_there",
        async |lab| {
            let stage = Stage::build(&lab, 2).await?;
            let (node, pod) = (&stage.scene.nodes[0], &stage.scene.nodes[1]);
            let routes = [
                (pod.pod_ip, pod.ip.to_string()),
                (pod.pod_ip6, "fd00::12".to_owned()),
            ];
            for (to, via) in routes {
                let _ = node.host.add_route(&to.to_string(), &via).await;
            }
            stage.write("one.yaml", &service(&stage, "one", "Local", PAGE, ECHOES))?;
            let process = start(&stage, Some("primary,localhost"))?;
            stage.ready("node-1").await?;
            answers(&stage, PAGE, true).await?;
            // A Pod's loopback is its own, and so is the client's.
            for host in [&node.pod, stage.client()] {
                for address in LOOPBACK {
                    let answer = host.http_get(at(address, PAGE), "/").await;
                    assert!(
                        answer.is_err(),
                        "{} has a node port: {answer:?}",
                        host.name()
                    );
                }
            }

            // All along: TCP and UDP, a connection that rests, and the agent is killed meanwhile.
            let mut probers = Vec::new();
            let mut resting = Vec::new();
            for address in LOOPBACK {
                probers.push(node.host.probe(Target::Tcp(at(address, PAGE)))?);
                probers.push(node.host.probe(Target::Udp(at(address, ECHOES)))?);
                for _ in 0..2 {
                    resting.push(node.host.connect(at(address, PAGE)).await?);
                }
            }
            go_on("at first", &probers).await?;
            drop(process);
            go_on("without an agent", &probers).await?;
            for stream in resting.iter_mut().step_by(2) {
                ask(stream).await?;
            }
            let process = start(&stage, Some("primary,localhost"))?;
            stage.ready("node-1").await?;
            go_on("with another agent", &probers).await?;
            for stream in resting.iter_mut().skip(1).step_by(2) {
                ask(stream).await?;
            }
            drop(probers);
            wait_until(SOON, "connections to be counted", async || {
                let counted = stage.metric("node-1", COUNTED).await;
                counted.is_ok_and(|counted| counted >= 40)
            })
            .await?;

            // A Service comes and goes.
            answers(&stage, LATE, false).await?;
            stage.write("two.yaml", &service(&stage, "two", "Cluster", LATE, LATE))?;
            answers(&stage, LATE, true).await?;
            stage.remove("two.yaml")?;
            answers(&stage, LATE, false).await?;
            answers(&stage, PAGE, true).await?;

            // Unless it is asked for, nothing of it is there, not even what was.
            drop(process);
            let _process = start(&stage, None)?;
            stage.ready("node-1").await?;
            answers(&stage, PAGE, false).await?;
            let primary = node
                .host
                .http_get(SocketAddr::new(node.ip, PAGE), "/")
                .await?;
            assert_eq!(primary.backend(), "pod-2");
            Ok(())
        },
    );
}
