//! A stage for kube-proxy: Kubernetes' objects, and just so much of an API server as it asks for.
//! A real one takes minutes to start in an emulated machine.

use std::fs;
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use lab::Host;
use serde_json::{Value, json};

use super::backend::families;
use super::ground::{Found, PORT, endpoint};

const NODES: &str = "/api/v1/nodes";
const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

/// Objects, by the path of their list.
pub(crate) struct Objects(Vec<(&'static str, Value)>);

impl Objects {
    /// A node with both of Ground's Pods, of which the API says that b is elsewhere, and these
    /// Services at 10.96.0.N and fd96::N, N from 1, with port 80 of these protocols and what else
    /// is said of each.
    pub(crate) fn new(services: &[(&str, &[&str], Value)]) -> Self {
        let mut all = vec![(
            NODES,
            json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node", "uid": "node"},
                "spec": {"podCIDRs": ["10.244.1.0/24", "fd10::/64"]},
                "status": {"addresses": [
                    {"type": "InternalIP", "address": "10.0.0.11"},
                    {"type": "InternalIP", "address": "fd00::11"},
                ]},
            }),
        )];
        for (number, (name, protocols, more)) in (1..).zip(services) {
            all.push((SERVICES, service(number, name, protocols, more)));
            for it in families() {
                let family = if it.cluster.is_ipv4() { "IPv4" } else { "IPv6" };
                let ready = json!({"ready": true, "serving": true, "terminating": false});
                let pods = [(2, "node"), (3, "elsewhere")].map(|(pod, node)| {
                    json!({
                        "addresses": [endpoint(it.cluster, pod).ip()],
                        "nodeName": node, "conditions": ready,
                    })
                });
                let slice = format!("{name}-{}", family.to_lowercase());
                all.push((
                    SLICES,
                    json!({
                        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                        "metadata": {
                            "name": slice, "namespace": "default", "uid": slice,
                            "labels": {"kubernetes.io/service-name": name},
                        },
                        "addressType": family,
                        "ports": ports(protocols, &json!({"port": PORT})),
                        "endpoints": pods,
                    }),
                ));
            }
        }
        for (_, object) in &mut all {
            object["metadata"]["resourceVersion"] = json!("1");
        }
        Self(all)
    }

    /// The same for Corten, and the pools that the addresses are from.
    pub(crate) fn write(&self, dir: &Path) -> Found<()> {
        fs::create_dir_all(dir)?;
        let namespace = "metallb-system";
        let own = [
            json!({
                "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
                "metadata": {"name": "pool", "namespace": namespace},
                "spec": {"addresses": ["192.168.10.0/24", "fd97::/64"]},
            }),
            json!({
                "apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement",
                "metadata": {"name": "all", "namespace": namespace},
            }),
        ];
        let all = self.0.iter().map(|(_, object)| object);
        // JSON is YAML.
        let all: Vec<String> = all.chain(&own).map(ToString::to_string).collect();
        Ok(fs::write(dir.join("all.yaml"), all.join("\n---\n"))?)
    }

    /// Answers at `at` on a host from now on.
    pub(crate) fn serve(self, host: &Host, at: SocketAddr) -> Found<()> {
        let listener = host.run(|| TcpListener::bind(at))??;
        let objects = Arc::new(self);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let objects = Arc::clone(&objects);
                std::thread::spawn(move || objects.answer(&stream));
            }
        });
        Ok(())
    }

    /// One client's requests, one after the other.
    fn answer(&self, mut stream: &TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let (mut first, mut length) = (String::new(), 0);
            reader.read_line(&mut first)?;
            loop {
                let mut header = String::new();
                if reader.read_line(&mut header)? <= 2 {
                    break;
                }
                let header = header.to_ascii_lowercase();
                if let Some(value) = header.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let mut words = first.split(' ');
            let (Some(verb), Some(target)) = (words.next(), words.next()) else {
                return Ok(());
            };
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let of_path = || self.0.iter().filter(move |(list, _)| *list == path);
            let objects = of_path().map(|(_, object)| object);
            let known = of_path().next().is_some() || path.ends_with("/servicecidrs");
            if verb == "GET" && known && query.contains("watch=") {
                return watch(stream, objects, query.contains("sendInitialEvents=true"));
            }
            let one = self.0.iter().find(|(list, object)| {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                path == format!("{list}/{name}")
            });
            let (status, answer) = match (verb, one) {
                ("GET", Some((_, object))) => ("200 OK", object.clone()),
                ("GET", None) if known => {
                    let items: Vec<_> = objects.collect();
                    let meta = json!({"resourceVersion": "1"});
                    ("200 OK", json!({"metadata": meta, "items": items}))
                }
                // Events, which nobody reads.
                ("POST", _) => (
                    "201 Created",
                    serde_json::from_slice(&body).unwrap_or_default(),
                ),
                _ => ("404 Not Found", json!({"kind": "Status", "code": 404})),
            };
            let answer = answer.to_string();
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{answer}",
                answer.len()
            )?;
        }
    }
}

/// All there is, if that is asked for, and then nothing new until the client goes.
fn watch<'o>(
    mut stream: &TcpStream,
    objects: impl Iterator<Item = &'o Value>,
    initial: bool,
) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )?;
    if initial {
        let end = json!({
            "metadata": {
                "resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"},
            },
        });
        let added = objects.map(|object| json!({"type": "ADDED", "object": object}));
        for event in added.chain([json!({"type": "BOOKMARK", "object": end})]) {
            let line = format!("{event}\n");
            write!(stream, "{:x}\r\n{line}\r\n", line.len())?;
        }
    }
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

/// A port of each protocol, by its name.
fn ports(protocols: &[&str], port: &Value) -> Vec<Value> {
    let named = protocols.iter().map(|protocol| {
        let mut port = port.clone();
        port["name"] = json!(protocol.to_lowercase());
        port["protocol"] = json!(protocol);
        port
    });
    named.collect()
}

fn service(number: u16, name: &str, protocols: &[&str], more: &Value) -> Value {
    let clusters = [format!("10.96.0.{number}"), format!("fd96::{number}")];
    let balanced = [format!("192.168.10.{number}"), format!("fd97::{number}")];
    let mut spec = json!({
        "type": "LoadBalancer", "clusterIP": clusters[0], "clusterIPs": clusters,
        "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack",
        "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
        "sessionAffinity": "None",
        "ports": ports(protocols, &json!(
            {"port": 80, "targetPort": PORT, "nodePort": 30_080 + number}
        )),
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name, "namespace": "default", "uid": name,
            "annotations": {"metallb.io/loadBalancerIPs": balanced.join(",")},
        },
        "spec": spec,
        "status": {"loadBalancer": {"ingress":
            balanced.map(|ip| json!({"ip": ip, "ipMode": "VIP"}))}},
    })
}
