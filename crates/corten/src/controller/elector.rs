//! One leader by a Lease (`coordination.k8s.io/v1`).
//!
//! The holder renews every second and may send writes until [`DEADLINE`] after its last renewal
//! began; others take the lease over [`LEASE`] after they saw it renewed last, by their own
//! monotonic clock. No clocks of two hosts are compared.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use tokio::sync::watch;

/// Name of the Lease.
pub const LEASE_NAME: &str = "corten-controller";
/// How long a lease holds that nobody renews.
pub const LEASE: Duration = Duration::from_secs(4);
/// How long after the start of its last renewal a leader may send writes.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// Time between renewals, and between looks at another's lease.
const PERIOD: Duration = Duration::from_secs(1);

/// Until when the holder may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// Not leading, or no longer.
    Withdrawn,
    /// Leading until then.
    Until(Instant),
    /// Nobody else can lead (a directory has one `corten run`, by its lock).
    Never,
}

impl Deadline {
    /// Whether a write may be sent at `now`.
    pub fn allows(self, now: Instant) -> bool {
        match self {
            Self::Withdrawn => false,
            Self::Until(deadline) => now < deadline,
            Self::Never => true,
        }
    }
}

/// What was last seen of another's lease.
struct Seen {
    version: Option<String>,
    at: Instant,
}

/// Stands for election until `deadline` has no receivers any more.
pub async fn run(
    client: Client,
    namespace: String,
    identity: String,
    deadline: watch::Sender<Deadline>,
) {
    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    let mut seen: Option<Seen> = None;
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = deadline.closed() => return,
        }
        let started = Instant::now();
        let attempt = attempt(&leases, &identity, &mut seen, started);
        let held = match tokio::time::timeout(DEADLINE, attempt).await {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "lease not renewed"
                );
                None
            }
            Err(_) => {
                tracing::warn!("lease not renewed: the API server did not answer in {DEADLINE:?}");
                None
            }
        };
        let now = Instant::now();
        let next = match (held, *deadline.borrow()) {
            (Some(true), _) => Deadline::Until(started + DEADLINE),
            (Some(false), _) => Deadline::Withdrawn,
            // Not renewed: what was granted still holds until it ends.
            (None, Deadline::Until(granted)) if now < granted => Deadline::Until(granted),
            (None, _) => Deadline::Withdrawn,
        };
        deadline.send_if_modified(|current| {
            let led = *current != Deadline::Withdrawn;
            let leads = next != Deadline::Withdrawn;
            match (led, leads) {
                (false, true) => tracing::info!(%identity, "leading"),
                (true, false) => tracing::warn!(%identity, "no longer leading"),
                _ => {}
            }
            let changed = *current != next;
            *current = next;
            changed
        });
    }
}

/// Takes or renews the lease where that is right: `Some(true)` when it is ours now, `Some(false)`
/// when another holds it, `None` when a race was lost and the answer is unknown.
async fn attempt(
    leases: &Api<Lease>,
    identity: &str,
    seen: &mut Option<Seen>,
    now: Instant,
) -> Result<Option<bool>, Error> {
    let Some(mut lease) = leases.get_opt(LEASE_NAME).await? else {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(LEASE_NAME.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(claim(None, identity)),
            ..Lease::default()
        };
        return written(leases.create(&PostParams::default(), &lease).await);
    };
    let spec = lease.spec.as_ref();
    let holder = spec
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default();
    if holder != identity && !holder.is_empty() {
        let version = lease.metadata.resource_version.clone();
        match seen {
            Some(known) if known.version == version => {
                if now.duration_since(known.at) < LEASE {
                    return Ok(Some(false));
                }
                tracing::info!(holder, "the lease has expired");
            }
            _ => {
                *seen = Some(Seen { version, at: now });
                return Ok(Some(false));
            }
        }
    }
    lease.spec = Some(claim(spec, identity));
    written(
        leases
            .replace(LEASE_NAME, &PostParams::default(), &lease)
            .await,
    )
}

/// The resourceVersion in the object fences the write: a conflict means that another was first.
fn written(result: Result<Lease, Error>) -> Result<Option<bool>, Error> {
    match result {
        Ok(_) => Ok(Some(true)),
        Err(Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

fn claim(old: Option<&LeaseSpec>, identity: &str) -> LeaseSpec {
    let now = MicroTime(k8s_openapi::jiff::Timestamp::now());
    let held = old.filter(|old| old.holder_identity.as_deref() == Some(identity));
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
        acquire_time: held
            .and_then(|old| old.acquire_time.clone())
            .or_else(|| Some(now.clone())),
        renew_time: Some(now),
        lease_transitions: match held {
            Some(old) => old.lease_transitions,
            None => Some(old.and_then(|old| old.lease_transitions).unwrap_or(0) + 1),
        },
        ..LeaseSpec::default()
    }
}

/// Gives the lease back at a planned stop, so that the next leader need not wait.
pub async fn release(client: Client, namespace: &str, identity: &str) {
    let leases: Api<Lease> = Api::namespaced(client, namespace);
    let Ok(Some(mut lease)) = leases.get_opt(LEASE_NAME).await else {
        return;
    };
    let Some(spec) = lease.spec.as_mut() else {
        return;
    };
    if spec.holder_identity.as_deref() == Some(identity) {
        spec.holder_identity = Some(String::new());
        if let Err(error) = leases
            .replace(LEASE_NAME, &PostParams::default(), &lease)
            .await
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "lease not released"
            );
        }
    }
}
