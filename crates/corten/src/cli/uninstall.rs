//! `corten uninstall --release`: what `kubectl delete -f` leaves, on purpose, in Services.
//!
//! A Service keeps its address through a removal, so that a reinstall renumbers nothing. Who wants
//! no reinstall takes the addresses away with this.

use api::annotations::IP_ALLOCATED_FROM_POOL;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use super::{Cluster, Failure, cluster, runtime, serving};
use crate::controller::elector::LEASE_NAME;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    cluster: Cluster,
    /// The namespace that Corten was installed in.
    #[arg(long, env = "METALLB_NAMESPACE", default_value_t = serving::own_namespace())]
    namespace: String,
    /// Clear the addresses that pools gave to Services. Nothing else is left to be removed.
    #[arg(long, required = true)]
    release: bool,
}

pub(super) fn main(options: &Options) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let client = cluster::connect(&options.cluster).await?;
        let leases: Api<Lease> = Api::namespaced(client.clone(), &options.namespace);
        if let Some(holder) = leases.get_opt(LEASE_NAME).await?.as_ref().and_then(holder) {
            return Err(format!(
                "the controller {holder} still leads and would give the addresses back; remove it \
                 first: kubectl delete -f deploy/corten.yaml"
            )
            .into());
        }
        let services: Api<Service> = Api::all(client.clone());
        let services = services.list(&ListParams::default()).await?;
        let mut released = 0;
        for service in services.items.iter().filter(|service| is_ours(service)) {
            let metadata = &service.metadata;
            let (Some(namespace), Some(name)) = (&metadata.namespace, &metadata.name) else {
                continue;
            };
            // A form that has changed meanwhile is refused: it may be another allocator's now.
            let patch = Patch::Merge(json!({
                "metadata": {
                    "resourceVersion": metadata.resource_version,
                    "annotations": {IP_ALLOCATED_FROM_POOL: null},
                },
                "status": {"loadBalancer": null},
            }));
            let api: Api<Service> = Api::namespaced(client.clone(), namespace);
            api.patch_status(name, &PatchParams::default(), &patch)
                .await
                .map_err(|error| format!("{namespace}/{name} keeps its address: {error}"))?;
            println!("{namespace}/{name} released");
            released += 1;
        }
        println!("Services released: {released}");
        Ok(())
    })
}

/// The controller that leads now.
fn holder(lease: &Lease) -> Option<&str> {
    let spec = lease.spec.as_ref()?;
    let holder = spec
        .holder_identity
        .as_deref()
        .filter(|name| !name.is_empty())?;
    let renewed = spec.renew_time.as_ref()?.0;
    let lasts = i64::from(spec.lease_duration_seconds.unwrap_or_default());
    (Timestamp::now().as_second() <= renewed.as_second() + lasts).then_some(holder)
}

/// Whether one of our pools, or MetalLB's, gave it its address.
fn is_ours(service: &Service) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    annotations.is_some_and(|annotations| annotations.contains_key(IP_ALLOCATED_FROM_POOL))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use k8s_openapi::jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_lease_that_was_given_back_or_has_ended_is_nobody_s() {
        let lease = |name: &str, age: i64| Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(name.to_owned()),
                lease_duration_seconds: Some(4),
                renew_time: Some(MicroTime(Timestamp::now() - SignedDuration::from_secs(age))),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        assert_eq!(holder(&lease("a", 0)), Some("a"));
        assert_eq!(holder(&lease("a", 60)), None);
        assert_eq!(holder(&lease("", 0)), None);
        assert_eq!(holder(&Lease::default()), None);
    }
}
