//! A bare client of the API server: it waits for a few octets of what the server sends and reads
//! nothing else of it. What it waits for, every proxy waits for.

use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::AsyncReadExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use kube::core::params::WatchParams;
use kube::{Client, Config};
use tokio::sync::oneshot;

use crate::Fault;

/// What a service proxy watches.
const COLLECTIONS: [&str; 2] = [
    "/api/v1/services",
    "/apis/discovery.k8s.io/v1/endpointslices",
];
/// In the event that ends the objects of a streamed list (KEP-3157).
const END: &[u8] = b"initial-events-end";
/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// How objects are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As Corten reads them.
    Json,
    /// As kube-proxy reads them.
    Protobuf,
}

impl Encoding {
    pub(crate) const ALL: [Self; 2] = [Self::Json, Self::Protobuf];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Protobuf => "protobuf",
        }
    }

    const fn accept(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// When a watch of the object `name`, which is still to come, tells of it. `ready`: the watch has
/// begun. Blocks, on a thread of the host that asks.
pub(crate) fn told(
    kubeconfig: &Path,
    collection: &str,
    name: &str,
    ready: oneshot::Sender<()>,
) -> Result<Instant, Fault> {
    block_on(async {
        let client = client(kubeconfig).await?;
        let params = WatchParams::default()
            .fields(&format!("metadata.name={name}"))
            .disable_bookmarks();
        let request = Request::new(collection).watch(&params, "")?;
        let mut answer = pin!(client.request_stream(request).await?);
        let _ = ready.send(());
        // There is no other event.
        match answer.read(&mut [0; 64]).await? {
            0 => Err(format!("the watch of {name} ended").into()),
            _ => Ok(Instant::now()),
        }
    })
}

/// Seconds until all Services and slices have come, from the connection on. Blocks likewise.
pub(crate) fn list(kubeconfig: &Path, encoding: Encoding) -> Result<f64, Fault> {
    block_on(async {
        let start = Instant::now();
        let client = client(kubeconfig).await?;
        let [services, slices] = COLLECTIONS.map(|path| stream(client.clone(), path, encoding));
        tokio::try_join!(services, slices)?;
        Ok(start.elapsed().as_secs_f64())
    })
}

async fn stream(client: Client, path: &str, encoding: Encoding) -> Result<(), Fault> {
    let params = WatchParams::default().initial_events();
    let mut request = Request::new(path).watch(&params, "")?;
    let headers = request.headers_mut();
    headers.insert("accept", encoding.accept().parse()?);
    let mut answer = pin!(client.request_stream(request).await?);
    // The end of what was read before, in which the words may begin.
    let mut kept = 0;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let room = buffer.get_mut(kept..).unwrap_or_default();
        let read = answer.read(room).await?;
        if read == 0 {
            return Err(format!("the list of {path} ended early").into());
        }
        let end = kept + read;
        let seen = buffer.get(..end).unwrap_or_default();
        if seen.windows(END.len()).any(|words| words == END) {
            return Ok(());
        }
        kept = end.min(END.len() - 1);
        buffer.copy_within(end - kept..end, 0);
    }
}

async fn client(kubeconfig: &Path) -> Result<Client, Fault> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn block_on<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await? })
}
