//! An API server as far as an agent needs one: version, lists that are streamed, watches that stay
//! open, and writes that are accepted. It can say that an EndpointSlice has changed, and when it
//! said so.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use lab::Host;
use serde_json::{Value, json};

use super::Fault;
use super::sink::{ASN, PEERS, address, prefix};

/// Where configuration is.
pub(crate) const NAMESPACE: &str = "metallb-system";
/// The agent's node.
pub(crate) const NODE: &str = "speaker";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
/// With more Services than this the agent finds its `ServiceBGPStatus` objects there, as after a
/// restart: to put them up would take minutes that nobody measures.
const PUT_UP: u32 = 20_000;

/// The server. Its threads end with their connections.
pub(crate) struct Api {
    at: SocketAddr,
    slices: Arc<Mutex<Option<TcpStream>>>,
    version: u64,
}

impl Api {
    /// Serves a cluster with so many Services on a host.
    pub(crate) fn start(host: &Host, at: SocketAddr, services: u32) -> Result<Self, Fault> {
        let listener = host.run(|| TcpListener::bind(at))??;
        let slices = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&slices);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let slices = Arc::clone(&shared);
                // What breaks a connection is the agent's end.
                thread::spawn(move || drop(serve(connection, services, &slices)));
            }
        });
        Ok(Self {
            at,
            slices,
            version: 2,
        })
    }

    /// A kubeconfig that leads here.
    pub(crate) fn kubeconfig(&self) -> String {
        let server = format!("http://{}", self.at);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {"server": server}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            "users": [{"name": "bench", "user": {}}],
        })
        .to_string()
    }

    /// Tells that the pod of a Service is ready, or not; gives the moment before the first byte.
    pub(crate) fn change(&mut self, service: u32, ready: bool) -> Result<Instant, Fault> {
        self.version += 1;
        let slice = slice(service, ready, self.version);
        let event = json!({"type": "MODIFIED", "object": slice}).to_string();
        let mut stream = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = stream.as_mut().ok_or("nobody watches EndpointSlices")?;
        let bytes = chunk(&event);
        let at = Instant::now();
        stream.write_all(&bytes)?;
        Ok(at)
    }
}

/// What a list has.
fn objects(path: &str, services: u32) -> Box<dyn Iterator<Item = Value>> {
    let configuration = |version: &str, kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": format!("metallb.io/{version}"), "kind": kind,
            "metadata": metadata(NAMESPACE, name, 1), "spec": spec,
        })
    };
    let one =
        |object: Value| -> Box<dyn Iterator<Item = Value>> { Box::new(std::iter::once(object)) };
    match path {
        "/api/v1/nodes" => one(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": metadata("", NODE, 1),
            "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.11"}]},
        })),
        "/api/v1/services" => Box::new((0..services).map(service)),
        SLICES => Box::new((0..services).map(|number| slice(number, true, 1))),
        "/apis/metallb.io/v1beta1/namespaces/metallb-system/ipaddresspools" => one(configuration(
            "v1beta1",
            "IPAddressPool",
            "pool",
            json!({"addresses": ["10.64.0.0/14"]}),
        )),
        "/apis/metallb.io/v1beta1/namespaces/metallb-system/bgpadvertisements" => one(
            configuration("v1beta1", "BGPAdvertisement", "all", json!({})),
        ),
        "/apis/metallb.io/v1beta1/namespaces/metallb-system/servicebgpstatuses"
            if services > PUT_UP =>
        {
            Box::new((0..services).map(put_up))
        }
        "/apis/metallb.io/v1beta2/namespaces/metallb-system/bgppeers" => {
            Box::new((1..=PEERS).map(move |number| {
                let spec = json!({
                    "myASN": 64500, "peerASN": ASN, "peerAddress": address(number),
                    "connectTime": "1s",
                });
                configuration("v1beta2", "BGPPeer", &peer(number), spec)
            }))
        }
        _ => Box::new(std::iter::empty()),
    }
}

fn metadata(namespace: &str, name: &str, version: u64) -> Value {
    let mut metadata = json!({
        "name": name, "uid": format!("uid-{namespace}-{name}"), "generation": 1,
        "resourceVersion": version.to_string(), "creationTimestamp": "2026-01-01T00:00:00Z",
    });
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

fn service(number: u32) -> Value {
    let name = format!("s{number}");
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata("default", &name, 1),
        "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": "Local",
            "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "selector": {"app": name},
            "ports": [{"protocol": "TCP", "port": 80, "targetPort": 80, "nodePort": 30080}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": prefix(number), "ipMode": "VIP"}]}},
    })
}

fn slice(number: u32, ready: bool, version: u64) -> Value {
    let name = format!("s{number}");
    let mut metadata = metadata("default", &format!("{name}-x"), version);
    metadata["labels"] = json!({"kubernetes.io/service-name": name});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": "IPv4",
        "ports": [{"name": "", "protocol": "TCP", "port": 80}],
        "endpoints": [{
            "addresses": ["10.244.1.2"], "nodeName": NODE, "conditions": {"ready": ready},
        }],
    })
}

/// What the agent says of a Service.
fn put_up(number: u32) -> Value {
    let service = format!("s{number}");
    let mut metadata = metadata(NAMESPACE, &format!("bgp-{number}"), 1);
    metadata["labels"] = json!({
        "metallb.io/node": NODE, "metallb.io/service-name": service,
        "metallb.io/service-namespace": "default",
    });
    json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "ServiceBGPStatus", "metadata": metadata,
        "status": {
            "node": NODE, "serviceName": service, "serviceNamespace": "default",
            "peers": (1..=PEERS).map(peer).collect::<Vec<_>>(),
        },
    })
}

/// The name of a peer's object.
fn peer(number: u8) -> String {
    format!("peer-{number}")
}

/// One connection's requests.
fn serve(
    connection: TcpStream,
    services: u32,
    slices: &Mutex<Option<TcpStream>>,
) -> Result<(), Fault> {
    connection.set_nodelay(true)?;
    let mut output = connection.try_clone()?;
    let mut input = BufReader::new(connection);
    while let Some(request) = Request::read(&mut input)? {
        let (path, query) = request
            .target
            .split_once('?')
            .unwrap_or((&request.target, ""));
        match request.method.as_str() {
            "GET" if query.contains("watch=true") => {
                return watch(path, query, services, output, &mut input, slices);
            }
            "GET" if path == "/version" => respond(&mut output, 200, &version())?,
            "GET" => respond(&mut output, 404, &status(404, "NotFound"))?,
            "DELETE" => respond(
                &mut output,
                200,
                &json!({"kind": "Status", "status": "Success"}),
            )?,
            method => {
                let code = if method == "POST" { 201 } else { 200 };
                respond(&mut output, code, &accepted(&request.body))?;
            }
        }
    }
    Ok(())
}

struct Request {
    method: String,
    target: String,
    body: Vec<u8>,
}

impl Request {
    /// `None` at the end of the connection.
    fn read(input: &mut BufReader<TcpStream>) -> Result<Option<Self>, Fault> {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, target) = words.next().zip(words.next()).ok_or("no request line")?;
        let mut length = 0;
        loop {
            let mut header = String::new();
            input.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        input.read_exact(&mut body)?;
        Ok(Some(Self {
            method,
            target,
            body,
        }))
    }
}

/// What was written, as it would be stored.
fn accepted(body: &[u8]) -> Value {
    let mut object: Value = serde_json::from_slice(body).unwrap_or_else(|_| json!({}));
    let metadata = &mut object["metadata"];
    if metadata["name"].is_null() {
        let stem = metadata["generateName"].as_str().unwrap_or("x-").to_owned();
        metadata["name"] = format!("{stem}bench").into();
    }
    metadata["resourceVersion"] = "1".into();
    metadata["uid"] = "uid".into();
    object
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "",
        "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
    })
}

fn status(code: u16, reason: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "message": reason,
        "reason": reason, "code": code,
    })
}

fn respond(output: &mut TcpStream, code: u16, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {code} Answer\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    output.write_all((head + &body).as_bytes())
}

fn chunk(event: &str) -> Vec<u8> {
    format!("{:x}\r\n{event}\n\r\n", event.len() + 1).into_bytes()
}

/// The initial list, if it is asked for, and then the watch until the other end goes.
fn watch(
    path: &str,
    query: &str,
    services: u32,
    mut output: TcpStream,
    input: &mut BufReader<TcpStream>,
    slices: &Mutex<Option<TcpStream>>,
) -> Result<(), Fault> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    output.write_all(head.as_bytes())?;
    if query.contains("sendInitialEvents=true") {
        let mut bytes = Vec::new();
        for object in objects(path, services) {
            bytes.extend(chunk(
                &json!({"type": "ADDED", "object": object}).to_string(),
            ));
            if bytes.len() > 64 << 10 {
                output.write_all(&bytes)?;
                bytes.clear();
            }
        }
        let end = BTreeMap::from([("k8s.io/initial-events-end", "true")]);
        let bookmark = json!({
            "apiVersion": "v1", "kind": "Bookmark",
            "metadata": {"resourceVersion": "2", "annotations": end},
        });
        bytes.extend(chunk(
            &json!({"type": "BOOKMARK", "object": bookmark}).to_string(),
        ));
        output.write_all(&bytes)?;
    }
    if path == SLICES {
        *slices.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
    }
    // Nothing more comes on it but its end.
    io::copy(input, &mut io::sink())?;
    Ok(())
}
