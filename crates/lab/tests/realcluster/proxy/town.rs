//! What all steps use: the cluster, Services, and clients in Pods, on nodes and outside.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use lab::cluster::Cluster;
use lab::controlplane::Patch;
use lab::{Host, Outcome, wait_for};
use serde_json::{Value, json};

/// For a step that takes a second on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Who has not answered by then is not going to: nothing here takes a hundredth of it.
const SILENCE: Duration = Duration::from_secs(1);
const SERVICES: &str = "/api/v1/namespaces/default/services";

pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct Town<'a> {
    pub(crate) cluster: &'a mut Cluster,
    /// The names of the servers' Pods, by node.
    pub(crate) pods: Vec<String>,
}

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A Pod has answered, which saw this client.
    Answered(String, Option<IpAddr>),
    /// ECONNREFUSED.
    Refused,
    /// Nothing came.
    Silent,
    Other(String),
}

impl Town<'_> {
    /// Makes a Service; gives its first cluster IP.
    pub(crate) async fn service(&self, name: &str, spec: Value) -> Result<IpAddr, Fault> {
        self.service_with(name, json!({}), spec).await
    }

    /// The same with labels.
    pub(crate) async fn service_with(
        &self,
        name: &str,
        labels: Value,
        spec: Value,
    ) -> Result<IpAddr, Fault> {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "labels": labels}, "spec": spec,
        });
        let made = self.cluster.api().create(SERVICES, &object).await?;
        cluster_ip(&made)
    }

    /// Changes one; gives its new form.
    pub(crate) async fn patch(&self, name: &str, patch: Value) -> Result<Value, Fault> {
        let path = format!("{SERVICES}/{name}");
        Ok(self
            .cluster
            .api()
            .patch(&path, Patch::Merge, &patch)
            .await?)
    }

    /// Gives a Service an external address, as a controller would.
    pub(crate) async fn balanced(&self, name: &str, address: &str) -> Outcome {
        let path = format!("{SERVICES}/{name}/status");
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
        self.cluster
            .api()
            .patch(&path, Patch::Merge, &status)
            .await?;
        Ok(())
    }

    pub(crate) async fn read(&self, name: &str) -> Result<Value, Fault> {
        Ok(self
            .cluster
            .api()
            .get(&format!("{SERVICES}/{name}"))
            .await?)
    }

    pub(crate) async fn delete(&self, name: &str) -> Outcome {
        self.cluster
            .api()
            .delete(&format!("{SERVICES}/{name}"))
            .await?;
        Ok(())
    }

    /// The node port of a Service's port of this index.
    pub(crate) async fn node_port(&self, name: &str, index: usize) -> Result<u16, Fault> {
        let service = self.read(name).await?;
        let port = service["spec"]["ports"][index]["nodePort"].as_u64();
        Ok(port.ok_or("no node port")?.try_into()?)
    }

    /// A node's network, from 0.
    pub(crate) fn node(&self, index: usize) -> Host {
        self.cluster.nodes()[index].host().clone()
    }

    /// A node's port as others reach it.
    pub(crate) fn at(&self, index: usize, port: u16) -> Result<SocketAddr, Fault> {
        Ok(SocketAddr::new(self.node(index).address(false)?, port))
    }

    /// The name of the server's Pod on a node.
    pub(crate) fn pod(&self, index: usize) -> &str {
        &self.pods[index]
    }

    /// A page that a node's Pod has asked for.
    pub(crate) async fn page_in_pod(&self, index: usize, url: &str) -> Result<String, Fault> {
        let exec = [
            "exec",
            self.pod(index),
            "-c",
            "web",
            "--",
            "/tools",
            "get",
            url,
        ];
        Ok(self.cluster.kubectl(&exec, "").await?)
    }

    /// Waits until a node's Pod gets a page; gives the name of who answered.
    pub(crate) async fn pod_gets(&self, index: usize, to: SocketAddr) -> Result<String, Fault> {
        let url = format!("http://{to}/");
        let what = format!("a page of {to} in a Pod of {}", self.node(index).name());
        let page = wait_for(SOON, &what, async || {
            self.page_in_pod(index, &url)
                .await
                .map_err(|e| e.to_string())
        });
        Ok(first_word(&page.await?))
    }

    /// Waits until a connection from this host has this fate; `is` says whether.
    pub(crate) async fn fate(
        &self,
        host: &Host,
        to: SocketAddr,
        what: &str,
        is: impl Fn(&Fate) -> bool,
    ) -> Result<Fate, Fault> {
        let what = format!("{to} from {} to be {what}", host.name());
        let found = wait_for(SOON, &what, async || {
            let fate = fate(host, to).await;
            if is(&fate) { Ok(fate) } else { Err(fate) }
        });
        Ok(found.await?)
    }

    /// Waits until a host gets a page; gives the name of who answered and which client that saw.
    pub(crate) async fn gets(
        &self,
        host: &Host,
        to: SocketAddr,
    ) -> Result<(String, Option<IpAddr>), Fault> {
        let answered = |fate: &Fate| matches!(fate, Fate::Answered(..));
        match self.fate(host, to, "answered", answered).await? {
            Fate::Answered(name, client) => Ok((name, client)),
            other => Err(format!("{other:?}").into()),
        }
    }

    pub(crate) async fn refused(&self, host: &Host, to: SocketAddr) -> Outcome {
        let is = |fate: &Fate| *fate == Fate::Refused;
        self.fate(host, to, "refused", is).await?;
        Ok(())
    }

    pub(crate) async fn dropped(&self, host: &Host, to: SocketAddr) -> Outcome {
        let is = |fate: &Fate| *fate == Fate::Silent;
        self.fate(host, to, "dropped", is).await?;
        Ok(())
    }

    /// Waits until exactly these Pods have answered in as many connections as make it certain that
    /// nobody else is asked: of 60 one of three misses each with a chance of 3 in 10^11.
    pub(crate) async fn spread(&self, host: &Host, to: SocketAddr, pods: &[&str]) -> Outcome {
        let wanted: BTreeSet<&str> = pods.iter().copied().collect();
        let what = format!("{to} to lead to {wanted:?}");
        wait_for(SOON, &what, async || {
            let mut found = BTreeSet::new();
            for _ in 0..60 {
                match fate(host, to).await {
                    Fate::Answered(name, _) => found.insert(name),
                    other => return Err(format!("{other:?} after {found:?}")),
                };
            }
            match found.iter().map(String::as_str).eq(wanted.iter().copied()) {
                true => Ok(()),
                false => Err(format!("{found:?}")),
            }
        })
        .await?;
        Ok(())
    }

    /// Waits until the UDP echo at `to` answers this host; gives the name of who did.
    pub(crate) async fn echoes(&self, host: &Host, to: SocketAddr) -> Result<String, Fault> {
        let what = format!("an echo of {to} at {}", host.name());
        let echo = wait_for(SOON, &what, async || {
            let host = host.clone();
            let asked = tokio::task::spawn_blocking(move || host.run(|| echo(to)));
            match asked.await {
                Ok(Ok(answer)) => answer.map_err(|e| e.to_string()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        });
        Ok(first_word(&echo.await?))
    }
}

/// One connection from this host.
pub(crate) async fn fate(host: &Host, to: SocketAddr) -> Fate {
    let Ok(answer) = tokio::time::timeout(SILENCE, host.http_get(to, "/")).await else {
        return Fate::Silent;
    };
    match answer {
        Ok(answer) => {
            let client = answer.client().map(|client| client.ip());
            Fate::Answered(answer.backend().to_owned(), client)
        }
        Err(error) if is_refusal(&error) => Fate::Refused,
        Err(error) => Fate::Other(format!("{error:?}")),
    }
}

fn is_refusal(error: &dyn std::error::Error) -> bool {
    let why = error
        .source()
        .and_then(|why| why.downcast_ref::<io::Error>());
    why.is_some_and(|why| why.kind() == io::ErrorKind::ConnectionRefused)
}

fn echo(to: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.send_to(b"who", to)?;
    let mut buffer = [0; 256];
    let (length, _) = socket.recv_from(&mut buffer)?;
    let answer = buffer.get(..length).unwrap_or_default();
    Ok(String::from_utf8_lossy(answer).into_owned())
}

/// The first cluster IP; the unspecified address for a Service that has none.
pub(crate) fn cluster_ip(service: &Value) -> Result<IpAddr, Fault> {
    match service["spec"]["clusterIP"].as_str() {
        None | Some("" | "None") => Ok(IpAddr::from([0; 4])),
        Some(text) => Ok(text.parse()?),
    }
}

fn first_word(text: &str) -> String {
    let word = text.split_whitespace().next();
    word.unwrap_or_default().to_owned()
}
