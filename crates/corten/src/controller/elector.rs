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

use super::Candidacy;
use crate::owner::Owner;

/// Name of the Lease.
pub const LEASE_NAME: &str = "corten-controller";
/// How long a lease holds that nobody renews.
pub const LEASE: Duration = Duration::from_secs(4);
/// How long after the start of its last renewal a leader may send writes.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// Time between renewals.
const RENEW: Duration = Duration::from_secs(1);
/// Time between looks at another's lease: what a take-over may be later than the lease's end.
const LOOK: Duration = Duration::from_millis(250);
/// How long the API server may take to answer: a second try fits into [`DEADLINE`].
const ANSWER: Duration = Duration::from_millis(900);

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

/// Waits until a write may be sent: a renewal that came late ends the deadline for a moment and not
/// the term, and what was decided is still to be written. False when no renewal will come any more.
pub(crate) async fn may_write(leads_until: &mut watch::Receiver<Deadline>) -> bool {
    let allows = |deadline: &Deadline| deadline.allows(Instant::now());
    leads_until.wait_for(allows).await.is_ok()
}

/// What was last seen of another's lease.
struct Seen {
    version: Option<String>,
    at: Instant,
}

/// Stands for election, while it may, until `deadline` has no receivers any more; then gives the
/// lease back.
///
/// A Lease that it makes is `owner`'s, and goes with it. Giving back is this task's work, so that no renewal of its own comes after it.
pub async fn run(
    client: Client,
    namespace: String,
    identity: String,
    owner: Owner,
    mut candidacy: watch::Receiver<Candidacy>,
    deadline: watch::Sender<Deadline>,
) {
    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    let mut seen: Option<Seen> = None;
    let mut look = Instant::now();
    loop {
        let stands = *candidacy.borrow_and_update() == Candidacy::Stands;
        if !stands && *deadline.borrow() != Deadline::Withdrawn {
            // No write is sent from here on, and then another may lead.
            deadline.send_replace(Deadline::Withdrawn);
            tracing::warn!(%identity, "no longer leading");
            give_back(&leases, &identity).await;
        }
        tokio::select! {
            () = tokio::time::sleep_until(look.into()), if stands => {}
            Ok(()) = candidacy.changed() => {
                look = Instant::now();
                continue;
            }
            () = deadline.closed() => break,
        }
        let started = Instant::now();
        let attempt = attempt(&leases, &identity, &owner, &mut seen, started);
        let held = match tokio::time::timeout(ANSWER, attempt).await {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "lease not renewed"
                );
                None
            }
            Err(_) => {
                tracing::warn!("lease not renewed: the API server did not answer in {ANSWER:?}");
                None
            }
        };
        look = next_look(started, held, seen.as_ref());
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
    if *deadline.borrow() != Deadline::Withdrawn {
        give_back(&leases, &identity).await;
    }
}

/// When to look again: a holder renews in time, another looks often, and at the moment at which
/// the lease that it saw runs out.
fn next_look(started: Instant, held: Option<bool>, seen: Option<&Seen>) -> Instant {
    match (held, seen) {
        (Some(true), _) => started + RENEW,
        (Some(false), Some(seen)) if seen.at + LEASE > started => {
            (started + LOOK).min(seen.at + LEASE)
        }
        _ => started + LOOK,
    }
}

/// Takes or renews the lease where that is right: `Some(true)` when it is ours now, `Some(false)`
/// when another holds it, `None` when a race was lost and the answer is unknown.
async fn attempt(
    leases: &Api<Lease>,
    identity: &str,
    owner: &Owner,
    seen: &mut Option<Seen>,
    now: Instant,
) -> Result<Option<bool>, Error> {
    let Some(mut lease) = leases.get_opt(LEASE_NAME).await? else {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(LEASE_NAME.to_owned()),
                owner_references: owner.known_references().await?,
                ..ObjectMeta::default()
            },
            spec: Some(claim(None, identity)),
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
async fn give_back(leases: &Api<Lease>, identity: &str) {
    let released = tokio::time::timeout(ANSWER, release(leases, identity));
    if released.await.is_err() {
        tracing::warn!("lease not given back: the API server did not answer in {ANSWER:?}");
    }
}

async fn release(leases: &Api<Lease>, identity: &str) {
    let outcome = async {
        let Some(mut lease) = leases.get_opt(LEASE_NAME).await? else {
            return Ok(());
        };
        let Some(spec) = lease.spec.as_mut() else {
            return Ok(());
        };
        if spec.holder_identity.as_deref() != Some(identity) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        leases
            .replace(LEASE_NAME, &PostParams::default(), &lease)
            .await
            .map(drop)
    };
    match outcome.await {
        Ok(()) => tracing::info!(%identity, "lease given back"),
        Err(error) => {
            let error: Error = error;
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "lease not given back"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_looks_again_at_the_moment_at_which_the_lease_runs_out() {
        let seen_at = Instant::now();
        let seen = Seen {
            version: None,
            at: seen_at,
        };
        for (after, next) in [
            (0, LOOK),
            (3900, LEASE),
            (5000, Duration::from_millis(5000) + LOOK),
        ] {
            let started = seen_at + Duration::from_millis(after);
            assert_eq!(
                next_look(started, Some(false), Some(&seen)),
                seen_at + next,
                "{after} ms after the renewal was seen"
            );
        }
        assert_eq!(next_look(seen_at, Some(true), Some(&seen)), seen_at + RENEW);
    }
}
