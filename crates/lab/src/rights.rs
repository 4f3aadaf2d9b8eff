//! Rights against their use: what roles give to ServiceAccounts, and what the API server's audit log
//! says these accounts asked for. A request that was denied is one right too few, a right that no
//! request needed is one too many.
//!
//! Pure but for [`Rights::read`]. Source: Kubernetes' RBAC (`rbac.authorization.k8s.io/v1`) and its
//! audit events (`audit.k8s.io/v1`).

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use crate::controlplane::{Api, ApiError};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// Roles and bindings.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The audit log.
    #[error("line {line} of the audit log is no JSON")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
}

/// One verb on one resource: the smallest right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    /// The account's user name.
    account: String,
    /// The role that gives it, as `Role NAME`.
    role: String,
    /// `None`: in the whole cluster.
    namespace: Option<String>,
    /// `GROUP/RESOURCE` or `GROUP/RESOURCE/SUBRESOURCE`.
    resource: String,
    /// `None`: every object.
    name: Option<String>,
    verb: String,
}

impl Right {
    fn allows(&self, request: &Request) -> bool {
        self.account == request.account
            && self.verb == request.verb
            && self.resource == request.resource
            && self
                .namespace
                .as_ref()
                .is_none_or(|own| *own == request.namespace)
            && self.name.as_ref().is_none_or(|own| *own == request.name)
    }

    /// A right in one namespace is narrower than one in all, one to a named object narrower still.
    fn narrow(&self) -> (bool, bool) {
        (self.namespace.is_some(), self.name.is_some())
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            account,
            role,
            verb,
            resource,
            ..
        } = self;
        write!(f, "{role}: {account} may {verb} {resource}")?;
        match &self.name {
            Some(name) => write!(f, " {name}"),
            None => Ok(()),
        }
    }
}

/// What an account asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    account: String,
    verb: String,
    resource: String,
    namespace: String,
    name: String,
    /// What the API server said to it, if it was denied for want of a right.
    denied: Option<String>,
}

impl Request {
    /// The requests of an audit event: an apply that makes its object needs the right to create,
    /// too, of which no event tells.
    fn of(event: &Value) -> Vec<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["objectRef"];
        let subresource = text(&object["subresource"]);
        let mut resource = format!(
            "{}/{}",
            text(&object["apiGroup"]),
            text(&object["resource"])
        );
        if object.is_null() {
            resource = text(&event["requestURI"]);
        } else if !subresource.is_empty() {
            resource = format!("{resource}/{subresource}");
        }
        let (code, said) = (
            event["responseStatus"]["code"].as_u64(),
            text(&event["responseStatus"]["message"]),
        );
        let decision = &event["annotations"]["authorization.k8s.io/decision"];
        // Admission says 403 too, and so does the check for a right that the first decision
        // does not cover.
        let missing = code == Some(403) && said.contains("cannot ");
        let request = Self {
            account: text(&event["user"]["username"]),
            verb: text(&event["verb"]),
            resource,
            namespace: text(&object["namespace"]),
            name: text(&object["name"]),
            denied: (decision == "forbid" || missing).then(|| said.clone()),
        };
        // So does a dry run that admission refuses, where its object does not exist: the webhook's probe.
        let probe = text(&event["requestURI"]).contains("dryRun=All")
            && said.contains("denied the request");
        let makes = request.verb == "patch" && (code == Some(201) || probe);
        let creation = makes.then(|| Self {
            verb: "create".to_owned(),
            ..request.clone()
        });
        [Some(request), creation].into_iter().flatten().collect()
    }
}

/// What is wrong with the rights; empty is good.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Requests that were denied, with the API server's words.
    pub denied: Vec<String>,
    /// Rights that nothing used.
    pub unused: Vec<String>,
}

/// The rights of the ServiceAccounts of one namespace.
#[derive(Clone, Debug)]
pub struct Rights {
    accounts: String,
    rights: BTreeSet<Right>,
}

impl Rights {
    /// What is in force for the accounts of a namespace.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn read(api: &Api, namespace: &str) -> Result<Self, RightsError> {
        let mut objects = Vec::new();
        for kind in ["Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"] {
            let list = api.get(&format!("{RBAC}/{}s", kind.to_lowercase())).await?;
            for object in items(&list["items"]) {
                let mut object = object.clone();
                object["kind"] = kind.into();
                objects.push(object);
            }
        }
        Ok(Self::of(&objects, namespace))
    }

    /// The same from objects: roles and bindings of all kinds, with their `kind`.
    #[must_use]
    pub fn of(objects: &[Value], namespace: &str) -> Self {
        let accounts = format!("system:serviceaccount:{namespace}:");
        let mut rights = BTreeSet::new();
        for binding in objects {
            let (role, kind) = (&binding["roleRef"], binding["kind"].as_str());
            let within = match kind {
                Some("RoleBinding") => binding["metadata"]["namespace"].as_str(),
                Some("ClusterRoleBinding") => None,
                _ => continue,
            };
            let bound = objects.iter().find(|object| {
                object["kind"] == role["kind"]
                    && object["metadata"]["name"] == role["name"]
                    && (role["kind"] == "ClusterRole"
                        || object["metadata"]["namespace"] == binding["metadata"]["namespace"])
            });
            let Some(bound) = bound else { continue };
            let subjects = items(&binding["subjects"]).filter(|subject| {
                subject["kind"] == "ServiceAccount" && subject["namespace"] == namespace
            });
            for subject in subjects {
                let account = format!("{accounts}{}", word(&subject["name"]));
                let title = format!("{} {}", word(&role["kind"]), word(&role["name"]));
                for rule in items(&bound["rules"]) {
                    rights.extend(rule_rights(rule, &account, &title, within));
                }
            }
        }
        Self { accounts, rights }
    }

    /// Judges them by an audit log as far as it is written.
    ///
    /// # Errors
    /// A line that is no JSON.
    pub fn judge(&self, log: &str) -> Result<Verdict, RightsError> {
        let mut requests = BTreeSet::new();
        // What follows the last line's end is being written.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for (number, line) in (1..).zip(whole.lines()) {
            let event: Value = serde_json::from_str(line).map_err(|source| RightsError::Line {
                line: number,
                source,
            })?;
            requests.extend(Request::of(&event));
        }
        requests.retain(|request| request.account.starts_with(&self.accounts));

        let mut verdict = Verdict::default();
        let mut used = BTreeSet::new();
        for request in &requests {
            if let Some(said) = &request.denied {
                let Request {
                    account,
                    verb,
                    resource,
                    namespace,
                    name,
                    ..
                } = request;
                verdict.denied.push(format!(
                    "{account} was denied to {verb} {resource} {namespace}/{name}: {said}"
                ));
                continue;
            }
            // Only the narrowest was needed.
            let fit = || self.rights.iter().filter(|right| right.allows(request));
            let narrowest = fit().map(Right::narrow).max();
            used.extend(fit().filter(|right| Some(right.narrow()) == narrowest));
        }
        let unused = self.rights.iter().filter(|one| !used.contains(one));
        verdict.unused = unused
            .map(|right| format!("{right}: nothing used it"))
            .collect();
        Ok(verdict)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rights.len()
    }
}

/// A wildcard is a right by the name `*`, which no request uses.
fn rule_rights(rule: &Value, account: &str, role: &str, namespace: Option<&str>) -> Vec<Right> {
    let names: Vec<Option<String>> = match rule["resourceNames"].as_array() {
        Some(names) if !names.is_empty() => {
            let names = names.iter().map(|name| Some(word(name).to_owned()));
            names.collect()
        }
        _ => vec![None],
    };
    let groups = items(&rule["apiGroups"]).flat_map(|group| {
        let resources = items(&rule["resources"]);
        resources.map(move |resource| format!("{}/{}", word(group), word(resource)))
    });
    let urls = items(&rule["nonResourceURLs"]).map(|url| word(url).to_owned());
    let mut rights = Vec::new();
    for resource in groups.chain(urls) {
        for verb in items(&rule["verbs"]) {
            rights.extend(names.iter().map(|name| Right {
                account: account.to_owned(),
                role: role.to_owned(),
                namespace: namespace.map(str::to_owned),
                resource: resource.clone(),
                name: name.clone(),
                verb: word(verb).to_owned(),
            }));
        }
    }
    rights
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const USER: &str = "system:serviceaccount:ours:agent";

    fn bound(kind: &str, name: &str, rules: &Value) -> [Value; 2] {
        let metadata = json!({"name": name, "namespace": "ours"});
        [
            json!({"kind": kind, "metadata": metadata, "rules": rules}),
            json!({
                "kind": format!("{kind}Binding"), "metadata": metadata,
                "roleRef": {"kind": kind, "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": "agent", "namespace": "ours"}],
            }),
        ]
    }

    fn rule(resource: &str, verbs: &[&str]) -> Value {
        json!({"apiGroups": [""], "resources": [resource], "verbs": verbs})
    }

    fn event(verb: &str, resource: &str, code: u16, said: &str, decision: &str) -> String {
        let event = json!({
            "user": {"username": USER}, "verb": verb,
            "objectRef": {"resource": resource, "namespace": "ours", "name": "one"},
            "responseStatus": {"code": code, "message": said},
            "annotations": {"authorization.k8s.io/decision": decision},
        });
        format!("{event}\n")
    }

    fn verdict(objects: &[Value], log: &str) -> Verdict {
        let rights = Rights::of(objects, "ours");
        rights.judge(log).expect("a good log")
    }

    #[test]
    fn every_right_is_used() {
        let objects = bound("Role", "r", &json!([rule("pods", &["get", "patch"])]));
        let log =
            event("get", "pods", 404, "", "allow") + &event("patch", "pods", 200, "", "allow");
        assert_eq!(verdict(&objects, &log), Verdict::default());
        // What is half written does not count.
        let half = log.trim_end();
        assert_eq!(verdict(&objects, half).unused.len(), 1);
        // Nor does another account.
        let other = log.replace(USER, "system:serviceaccount:theirs:agent");
        assert_eq!(verdict(&objects, &other).unused.len(), 2);
        assert!(Rights::of(&objects, "ours").judge("{\n").is_err());
    }

    #[test]
    fn a_right_too_many() {
        let objects = bound("Role", "r", &json!([rule("pods", &["get", "delete"])]));
        let log = event("get", "pods", 200, "", "allow");
        let unused = verdict(&objects, &log).unused;
        assert_eq!(
            unused,
            [format!("Role r: {USER} may delete /pods: nothing used it")]
        );
        let log = log + &event("delete", "pods", 200, "", "allow");
        assert_eq!(verdict(&objects, &log), Verdict::default());
    }

    #[test]
    fn a_right_that_is_too_wide() {
        let mut objects = bound("Role", "r", &json!([rule("secrets", &["list"])])).to_vec();
        objects.extend(bound(
            "ClusterRole",
            "c",
            &json!([rule("secrets", &["list"])]),
        ));
        let log = event("list", "secrets", 200, "", "allow");
        let unused = verdict(&objects, &log).unused;
        assert_eq!(unused.len(), 1);
        assert!(unused[0].starts_with("ClusterRole c"), "{unused:?}");
        // Elsewhere it is needed.
        let log = log.clone() + &log.replace("\"ours\"", "\"other\"");
        assert_eq!(verdict(&objects, &log), Verdict::default());
    }

    #[test]
    fn rights_too_few() {
        let objects = bound("Role", "r", &json!([rule("pods", &["patch"])]));
        let first = event("delete", "pods", 403, "pods is forbidden", "forbid");
        let cannot = format!("pods \"one\" is forbidden: User \"{USER}\" cannot create resource");
        let inner = event("patch", "pods", 403, &cannot, "allow");
        let admission = event("patch", "pods", 403, "webhook denied the request", "allow");
        let denied = verdict(&objects, &(first + &inner + &admission)).denied;
        assert_eq!(denied.len(), 2, "{denied:?}");
    }

    #[test]
    fn an_apply_that_creates() {
        let objects = bound("Role", "r", &json!([rule("pods", &["patch", "create"])]));
        let log = event("patch", "pods", 200, "", "allow");
        assert_eq!(verdict(&objects, &log).unused.len(), 1);
        let made = event("patch", "pods", 201, "", "allow");
        assert_eq!(verdict(&objects, &made), Verdict::default());
        let refused = event("patch", "pods", 403, "webhook denied the request", "allow");
        assert_eq!(verdict(&objects, &refused).unused.len(), 1);
        let dry = refused.replace(
            "\"verb\"",
            "\"requestURI\":\"/pods/one?dryRun=All\",\"verb\"",
        );
        assert_eq!(verdict(&objects, &dry), Verdict::default());
    }
}
