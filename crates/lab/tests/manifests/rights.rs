//! Rights: of the Pods on their nodes, and of the accounts before the API server.

use lab::Outcome;
use lab::chart::NAMESPACE;
use lab::controlplane::Api;
use serde_json::{Value, json};

use crate::template;

/// The agent needs a privileged namespace, which ours is, and says what for; the controller may run
/// in the strictest.
pub(crate) async fn pod_security(api: &Api) -> Outcome {
    let controller = template(api, "deployments", "corten-controller").await?;
    let agent = template(api, "daemonsets", "corten-agent").await?;
    let capabilities = &agent["spec"]["containers"][0]["securityContext"];
    assert_eq!(
        *capabilities,
        json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsUser": 0,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
        })
    );
    assert_eq!(
        controller["spec"]["containers"][0]["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        })
    );
    assert!(controller["spec"]["hostNetwork"].is_null());
    for pod in [&controller, &agent] {
        let spec = &pod["spec"];
        let containers = spec["containers"].as_array().map(Vec::len);
        assert_eq!(containers, Some(1), "{spec}");
        let volumes = spec["volumes"].as_array().into_iter().flatten();
        // Of the node's files only what the agent itself keeps.
        let kept = json!({"path": "/run/corten", "type": "DirectoryOrCreate"});
        for volume in volumes {
            let list = json!({"name": "metallb-excludel2", "optional": true, "defaultMode": 420});
            let own = std::ptr::eq(pod, &agent)
                && (volume["hostPath"] == kept || volume["configMap"] == list);
            assert!(volume["secret"].is_object() || own, "{volume}");
        }
        assert!(spec["hostIPC"].is_null(), "{spec}");
        assert_eq!(
            spec["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        assert!(
            spec["hostPID"].is_null() && spec["initContainers"].is_null(),
            "{spec}"
        );
    }
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "strict", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    });
    api.create("/api/v1/namespaces", &namespace).await?;
    let dry_run = async |namespace: &str, template: &Value| {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "labels": template["metadata"]["labels"]},
            "spec": template["spec"],
        });
        pod["spec"]["nodeName"] = json!("n1");
        let pods = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        api.create(&pods, &pod).await
    };
    dry_run("strict", &controller).await?;
    dry_run(NAMESPACE, &agent).await?;
    let refused = dry_run("strict", &agent)
        .await
        .expect_err("too much")
        .to_string();
    assert!(
        refused.contains("violates PodSecurity") && refused.contains("NET_ADMIN"),
        "{refused}"
    );
    Ok(())
}

/// Who, does what, to what (`group/resource` or `group/resource/subresource`), where, to which one;
/// an empty namespace is the whole cluster.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

const MAY: &[Row] = &[
    ("controller", "list", "/services", "", ""),
    ("controller", "patch", "/services/status", "default", "web"),
    ("controller", "create", "/events", "default", ""),
    (
        "controller",
        "update",
        "coordination.k8s.io/leases",
        NAMESPACE,
        "corten-controller",
    ),
    (
        "controller",
        "patch",
        "metallb.io/ipaddresspools/status",
        NAMESPACE,
        "ip-pool",
    ),
    (
        "controller",
        "get",
        "/secrets",
        NAMESPACE,
        "corten-memberlist",
    ),
    (
        "controller",
        "update",
        "/secrets",
        NAMESPACE,
        "metallb-webhook-cert",
    ),
    (
        "controller",
        "get",
        "apps/deployments",
        NAMESPACE,
        "corten-controller",
    ),
    ("agent", "watch", "discovery.k8s.io/endpointslices", "", ""),
    ("agent", "patch", "corten.dev/nodestates/status", "", "n1"),
    (
        "agent",
        "create",
        "metallb.io/servicel2statuses",
        NAMESPACE,
        "",
    ),
    ("agent", "create", "/events", "default", ""),
    (
        "agent",
        "watch",
        "apps/daemonsets",
        NAMESPACE,
        "corten-agent",
    ),
    ("agent", "watch", "/namespaces", "", NAMESPACE),
    ("agent", "watch", "/pods", NAMESPACE, ""),
    ("controller", "watch", "/pods", NAMESPACE, ""),
];

const MAY_NOT: &[Row] = &[
    ("controller", "update", "/services", "default", "web"),
    ("controller", "patch", "/services", "default", "web"),
    ("controller", "get", "/secrets", "kube-system", "any"),
    ("controller", "list", "/secrets", "", ""),
    ("controller", "list", "/secrets", "default", ""),
    ("controller", "update", "/secrets", NAMESPACE, "any"),
    (
        "controller",
        "delete",
        "/secrets",
        NAMESPACE,
        "corten-memberlist",
    ),
    ("controller", "create", "/pods", NAMESPACE, ""),
    ("controller", "list", "/pods", "", ""),
    ("agent", "delete", "/pods", NAMESPACE, ""),
    (
        "controller",
        "patch",
        "apps/deployments",
        NAMESPACE,
        "corten-controller",
    ),
    (
        "controller",
        "update",
        "coordination.k8s.io/leases",
        "kube-system",
        "kube-scheduler",
    ),
    (
        "controller",
        "update",
        "coordination.k8s.io/leases",
        NAMESPACE,
        "any",
    ),
    (
        "controller",
        "delete",
        "metallb.io/ipaddresspools",
        NAMESPACE,
        "ip-pool",
    ),
    (
        "controller",
        "patch",
        "apiextensions.k8s.io/customresourcedefinitions",
        "",
        "any",
    ),
    (
        "controller",
        "patch",
        "admissionregistration.k8s.io/validatingwebhookconfigurations",
        "",
        "any",
    ),
    ("controller", "patch", "/nodes", "", "n1"),
    ("agent", "patch", "/services/status", "default", "web"),
    ("agent", "patch", "/nodes", "", "n1"),
    ("agent", "list", "/pods", "", ""),
    ("agent", "list", "/secrets", "", ""),
    ("agent", "list", "/secrets", "kube-system", ""),
    ("agent", "create", "/secrets", NAMESPACE, ""),
    (
        "agent",
        "patch",
        "metallb.io/ipaddresspools",
        NAMESPACE,
        "ip-pool",
    ),
    ("agent", "get", "/nodes/proxy", "", "n1"),
    ("agent", "watch", "apps/daemonsets", NAMESPACE, "any"),
    ("agent", "watch", "/namespaces", "", "kube-system"),
];

pub(crate) async fn least_rights(api: &Api) -> Outcome {
    let mut wrong = Vec::new();
    for (rows, want) in [(MAY, true), (MAY_NOT, false)] {
        for row in rows {
            let (who, verb, what, namespace, name) = *row;
            let mut parts = what.splitn(3, '/');
            let mut part = || parts.next().unwrap_or_default();
            let (group, resource, subresource) = (part(), part(), part());
            let review = json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                "spec": {
                    "user": format!("system:serviceaccount:{NAMESPACE}:corten-{who}"),
                    "resourceAttributes": {
                        "verb": verb, "group": group, "resource": resource,
                        "subresource": subresource, "namespace": namespace, "name": name,
                    },
                },
            });
            let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            let answer = api.create(reviews, &review).await?;
            if answer["status"]["allowed"] != want {
                wrong.push(format!("{row:?}: wanted {want}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Rights in the whole cluster never reach a Secret.
    let roles = api
        .get("/apis/rbac.authorization.k8s.io/v1/clusterroles")
        .await?;
    let roles = roles["items"].as_array().cloned().unwrap_or_default();
    let own = |role: &&Value| role["metadata"]["labels"]["app.kubernetes.io/name"] == "corten";
    let own: Vec<&Value> = roles.iter().filter(own).collect();
    assert_eq!(own.len(), 4, "controller, agent, metrics, webhook");
    for role in own {
        let rules = role["rules"].to_string();
        assert!(
            !rules.contains("secrets") && !rules.contains("\"*\""),
            "{role}"
        );
    }
    Ok(())
}
