//! A node with a client and a server behind it: what the client says to the server goes through the
//! node's rules. No segment is on that path, so nobody captures it.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use lab::{Host, Lab, Segment};
use plan::net::Family;

use crate::Fault;
use crate::objects::{ENDPOINTS, PORT, TARGET, cluster_ip, endpoint};
use crate::probe::{self, Server};

/// How long a figure of [`Gate::rates`] is measured.
const SPAN: Duration = Duration::from_secs(3);
/// Destinations of [`Gate::rates`].
const SPREAD: u32 = 256;
/// Connections whose times are taken.
const SAMPLES: usize = 4000;

/// What one side measures in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct First {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Connections a second and Gbit/s.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) connections: f64,
    pub(crate) gbits: f64,
}

/// Where a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A server's own address: plain routing.
    Plain,
    /// A Service's cluster IP.
    Service,
}

#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) node: Host,
    client: Host,
    server: Server,
}

impl Gate {
    /// Gate number `k`: a node of that name, which reaches the API on `lan`.
    pub(crate) async fn build(lab: &Lab, lan: &Segment, name: &str, k: u8) -> Result<Self, Fault> {
        let node = lab.node(name).await?;
        let own = [
            format!("10.0.0.{}/24", 100 + k),
            format!("fd00::{}/64", 100 + k),
        ];
        lan.attach(&node, &own.each_ref().map(String::as_str))
            .await?;
        let addresses = |host: u8| -> Result<[IpAddr; 2], Fault> {
            Ok([
                IpAddr::from([10, 244, k, host]),
                format!("fd01:{k:x}::{host}").parse()?,
            ])
        };
        let (near, far) = (addresses(2)?, addresses(3)?);
        let client = lab.pod(&node, &near, &format!("{name}-client")).await?;
        let server = lab.pod(&node, &far, &format!("{name}-server")).await?;
        for (range, via) in ENDPOINTS.iter().zip(far) {
            // The second pod's device; its server answers for every address of the range.
            let via = via.to_string();
            ip(
                &node,
                &["route", "add", range, "via", &via, "dev", "pod1", "onlink"],
            )?;
            ip(&server, &["route", "add", "local", range, "dev", "lo"])?;
        }
        // Connections that are cut are forgotten soon: there are many.
        for host in [&node, &client, &server] {
            let key = "net.netfilter.nf_conntrack_tcp_timeout_close";
            // Where no rule has asked for connection tracking the setting is of no use.
            let _ = host.sysctl(key, "1");
        }
        let listener = server.run(|| probe::listen(TARGET))??;
        let server = Server::start(listener)?;
        Ok(Self {
            node,
            client,
            server,
        })
    }

    /// What the client does, on a thread.
    async fn measure<T: Send + 'static>(
        &self,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let client = self.client.clone();
        let done = tokio::task::spawn_blocking(move || client.run(what)).await?;
        Ok(done?)
    }

    /// Waits until this Service answers.
    pub(crate) async fn answers(
        &self,
        n: u32,
        since: Instant,
        deadline: Duration,
    ) -> Result<Option<Duration>, Fault> {
        let to = SocketAddr::new(cluster_ip(n, Family::V4), PORT);
        self.measure(move || probe::first_answer(to, since, deadline))
            .await
    }

    /// How many of these Services do not answer at once.
    pub(crate) async fn silent(&self, count: u32) -> Result<usize, Fault> {
        let all: Vec<SocketAddr> = (0..count)
            .map(|n| SocketAddr::new(cluster_ip(n, Family::V4), PORT))
            .collect();
        self.measure(move || probe::sweep(&all)).await
    }

    /// Times from SYN to SYN-ACK at `count` Services, each asked about as often.
    pub(crate) async fn first(&self, way: Way, count: u32) -> Result<First, Fault> {
        let all = destinations(way, count.max(1), Family::V4);
        let times = self.measure(move || {
            probe::latencies(&all, SAMPLES / 10)?;
            probe::latencies(&all, SAMPLES)
        });
        let times = times.await??;
        let at = |share: f64| {
            let index = (times.len() as f64 * share) as usize;
            times
                .get(index)
                .map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
        };
        Ok(First {
            p50: at(0.5),
            p99: at(0.99),
        })
    }

    /// Connections a second, and what one connection carries.
    pub(crate) async fn rates(&self, way: Way, count: u32, family: Family) -> Result<Rates, Fault> {
        let all = destinations(way, count.min(SPREAD), family);
        let bulk = *all.first().ok_or("no Service")?;
        let made = self.measure(move || probe::rate(&all, SPAN)).await??;
        self.server.reads(true);
        let gbits = self.measure(move || probe::throughput(bulk, SPAN)).await?;
        self.server.reads(false);
        Ok(Rates {
            connections: made as f64 / SPAN.as_secs_f64(),
            gbits: gbits?,
        })
    }
}

/// Of `count` Services, spread over all of them.
fn destinations(way: Way, count: u32, family: Family) -> Vec<SocketAddr> {
    // A stride that meets all, in an order that no cache likes.
    let stride = (0..)
        .map(|k| count / 2 + 7 + k)
        .find(|k| gcd(*k, count) == 1);
    let stride = stride.unwrap_or(1);
    (0..count.min(SAMPLES as u32))
        .map(|i| (u64::from(i) * u64::from(stride) % u64::from(count)) as u32)
        .map(|n| match way {
            Way::Plain => SocketAddr::new(endpoint(n, 0, 2, family), TARGET),
            Way::Service => SocketAddr::new(cluster_ip(n, family), PORT),
        })
        .collect()
}

const fn gcd(a: u32, b: u32) -> u32 {
    match b {
        0 => a,
        b => gcd(b, a % b),
    }
}

/// `ip` with these arguments on a host.
fn ip(host: &Host, arguments: &[&str]) -> Result<(), Fault> {
    let mut command = host.command("ip")?;
    command.args(arguments);
    run(&mut command)
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Result<(), Fault> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {output:?}").into()),
    }
}
