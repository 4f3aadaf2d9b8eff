//! Where decisions go: the Kubernetes API, or the state file of a directory.

pub mod board;
pub mod dir;
pub mod kube;

use std::net::IpAddr;
use std::time::SystemTime;

use api::corten::v1alpha1::{AcceptedConfigSpec, NodeStateStatus};
use board::Board;
use plan::name::{Name, ServiceKey};

/// The status of a Service as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceWrite {
    /// The Service.
    pub service: ServiceKey,
    /// The form the decision was made on; another form in the meantime refuses the write.
    pub resource_version: Name,
    /// `status.loadBalancer.ingress`.
    pub ingress: Vec<IpAddr>,
    /// The annotation `metallb.io/ip-allocated-from-pool`.
    pub pool: Option<Name>,
}

/// Who reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// MetalLB's name for the allocating part, which tools select by.
    Controller,
    /// MetalLB's name for the announcing part.
    Speaker,
}

impl Component {
    /// The event's source component.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "metallb-controller",
            Self::Speaker => "metallb-speaker",
        }
    }
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A Service.
    Service {
        /// Its name.
        key: ServiceKey,
        /// Its UID.
        uid: Name,
    },
    /// A Node.
    Node(Name),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service { key, .. } => write!(f, "Service {key}"),
            Self::Node(name) => write!(f, "Node {name}"),
        }
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Report {
    /// Who reports.
    pub component: Component,
    /// What it is about.
    pub about: Subject,
    /// A Warning, or Normal.
    pub warning: bool,
    /// A word that tools select by.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// Why a write did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The object has changed or is gone: whoever told us of the old form tells the new one too.
    #[error("the object has changed since")]
    Outdated,
    /// It may work later.
    #[error("could not write")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The same write will not work later either.
    #[error("refused")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Takes decisions where they belong. Calls may run at the same time.
pub trait Sink: Clone + Send + Sync + 'static {
    /// How many status writes may be on their way at the same time.
    const IN_FLIGHT: usize = 16;

    /// Where to put up how things are; none where there is nobody to read it.
    fn board(&self) -> Option<Board> {
        None
    }

    /// Writes a Service's status and annotation.
    fn write_service(
        &self,
        write: &ServiceWrite,
    ) -> impl Future<Output = Result<(), WriteError>> + Send;
    /// A Service was deleted: nothing is to be kept of it.
    fn forget_service(
        &self,
        service: &ServiceKey,
    ) -> impl Future<Output = Result<(), WriteError>> + Send;
    /// Tells people what happened, and when.
    fn report(
        &self,
        report: &Report,
        at: SystemTime,
    ) -> impl Future<Output = Result<(), WriteError>> + Send;
    /// Keeps the last good forms of objects whose newest form is bad, for the next start.
    fn keep(
        &self,
        accepted: &AcceptedConfigSpec,
    ) -> impl Future<Output = Result<(), WriteError>> + Send;
    /// Publishes what this node's agent says of it.
    fn publish(
        &self,
        node: &str,
        state: &NodeStateStatus,
    ) -> impl Future<Output = Result<(), WriteError>> + Send;
}
