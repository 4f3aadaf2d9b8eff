//! Fields that a kind has and Corten does not read: not unknown, though no struct holds them.

const METADATA: &[&str] = &[
    "managedFields",
    "finalizers",
    "selfLink",
    "deletionGracePeriodSeconds",
];

const SERVICE: &[&str] = &[
    "spec.ports.appProtocol",
    "spec.trafficDistribution",
    "status.loadBalancer.ingress.ports",
];

const ENDPOINT_SLICE: &[&str] = &[
    "endpoints.hostname",
    "endpoints.targetRef",
    "endpoints.deprecatedTopology",
    "ports.appProtocol",
];

const NODE: &[&str] = &[
    "spec.configSource",
    "spec.externalID",
    "spec.podCIDR",
    "spec.providerID",
    "spec.taints.timeAdded",
    "status.allocatable",
    "status.capacity",
    "status.conditions.lastHeartbeatTime",
    "status.conditions.lastTransitionTime",
    "status.config",
    "status.daemonEndpoints",
    "status.declaredFeatures",
    "status.features",
    "status.images",
    "status.nodeInfo",
    "status.phase",
    "status.runtimeHandlers",
    "status.volumesAttached",
    "status.volumesInUse",
];

/// Whether the kind has the field at `path`, which no struct took.
pub(super) fn is_known(group: &str, kind: &str, path: &str) -> bool {
    let path = without_indexes(path);
    if let Some(field) = path.strip_prefix("metadata.") {
        return METADATA.contains(&field);
    }
    match (group, kind) {
        ("", "Service") => SERVICE.contains(&path.as_str()),
        ("discovery.k8s.io", "EndpointSlice") => ENDPOINT_SLICE.contains(&path.as_str()),
        ("", "Node") => NODE.contains(&path.as_str()),
        // Corten reads of a Pod that it runs; the rest is Kubernetes' business.
        ("", "Pod") => true,
        // The empty parts: `status` of what users write, `spec` of what agents write.
        _ => path == "spec" || path == "status",
    }
}

fn without_indexes(path: &str) -> String {
    let mut inside = false;
    path.chars()
        .filter(|c| {
            inside = *c == '[' || (inside && *c != ']');
            !inside && *c != ']'
        })
        .collect()
}
