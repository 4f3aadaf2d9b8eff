//! What the API server is told of the webhook: pure, as JSON.

use serde_json::{Value, json};

use super::review::{PROBE, PROBE_ANSWER, SUBJECTS};

/// Name of the `ValidatingWebhookConfiguration`.
pub const CONFIGURATION: &str = "metallb-webhook-configuration";
/// The definition whose conversion may ask us.
pub const PEER_CRD: &str = "bgppeers.metallb.io";
/// How long the API server waits for an answer; ours comes within 4 s or not at all.
const TIMEOUT_SECONDS: u8 = 5;

/// What the API server does when no webhook answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Policy {
    /// Refuses the object.
    Fail,
    /// Lets it pass; the rules in the CRDs hold all the same.
    Ignore,
}

impl Policy {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "Fail",
            Self::Ignore => "Ignore",
        }
    }
}

/// Where the webhook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name of the Service.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// The entries as they should be. `bundle` is base64; without it the field is left to others.
pub fn configuration(service: &Service, bundle: Option<&Value>, policy: Policy) -> Value {
    let entries = SUBJECTS.iter().map(|subject| {
        let mut client = json!({
            "service": {
                "name": service.name,
                "namespace": service.namespace,
                "path": subject.path(),
                "port": 443,
            },
        });
        if let Some(bundle) = bundle {
            client["caBundle"] = bundle.clone();
        }
        json!({
            "name": format!("{}validationwebhook.metallb.io", subject.singular),
            "admissionReviewVersions": ["v1"],
            "clientConfig": client,
            "failurePolicy": policy.as_str(),
            "rules": [{
                "apiGroups": ["metallb.io"],
                "apiVersions": [subject.version],
                "operations": subject.operations,
                "resources": [subject.plural],
            }],
            "sideEffects": "None",
            "timeoutSeconds": TIMEOUT_SECONDS,
        })
    });
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": CONFIGURATION},
        "webhooks": entries.collect::<Value>(),
    })
}

fn ours(configuration: &Value) -> impl Iterator<Item = &Value> {
    let entries = configuration["webhooks"].as_array().into_iter().flatten();
    entries.filter(|entry| {
        SUBJECTS.iter().any(|subject| {
            entry["name"] == format!("{}validationwebhook.metallb.io", subject.singular)
        })
    })
}

/// The bundle that the entries have, in base64.
pub fn bundle_of(configuration: &Value) -> Option<Value> {
    ours(configuration).find_map(|entry| {
        let bundle = entry.pointer("/clientConfig/caBundle")?;
        bundle.as_str().filter(|text| !text.is_empty())?;
        Some(bundle.clone())
    })
}

/// The policy that is in force: Fail where any entry of ours says so.
pub fn policy_of(configuration: &Value) -> Policy {
    match ours(configuration).any(|entry| entry["failurePolicy"] == "Fail") {
        true => Policy::Fail,
        false => Policy::Ignore,
    }
}

/// Whether everything that is wanted is there; what others have added does not count. Entries of
/// lists of named objects are found by name.
pub fn holds(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, value)| there.get(name).is_some_and(|there| holds(there, value))),
        (Value::Array(there), Value::Array(wanted))
            if wanted.iter().all(|entry| entry["name"].is_string()) =>
        {
            wanted.iter().all(|entry| {
                let mut same = there.iter().filter(|there| there["name"] == entry["name"]);
                same.next().is_some_and(|there| holds(there, entry))
            })
        }
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len()
                && there
                    .iter()
                    .zip(wanted)
                    .all(|(there, wanted)| holds(there, wanted))
        }
        _ => there == wanted,
    }
}

/// `spec.conversion` of a definition whose versions our `/convert` converts.
pub fn conversion(namespace: &str, service: &str) -> Value {
    json!({
        "strategy": "Webhook",
        "webhook": {
            "clientConfig": {
                "service": {
                    "name": service,
                    "namespace": namespace,
                    "path": "/convert",
                    "port": 443,
                },
            },
            "conversionReviewVersions": ["v1"],
        },
    })
}

/// The patch that lets the API server trust our `/convert`, where the definition asks us and does
/// not trust us yet. With strategy None (as Corten ships it) there is nothing to do.
pub fn conversion_patch(crd: &Value, service: &Service, bundle: &Value) -> Option<Value> {
    let client = crd.pointer("/spec/conversion/webhook/clientConfig")?;
    let ours = crd.pointer("/spec/conversion/strategy")? == "Webhook"
        && client["service"]["name"] == service.name.as_str()
        && client["service"]["namespace"] == service.namespace.as_str();
    (ours && client["caBundle"] != *bundle).then(|| {
        json!({
            // Another's change in the meantime is not overwritten.
            "metadata": {"resourceVersion": crd["metadata"]["resourceVersion"]},
            "spec": {"conversion": {"webhook": {"clientConfig": {"caBundle": bundle}}}},
        })
    })
}

/// An object that every rule of the CRD lets pass and that the webhook always refuses.
pub fn probe(namespace: &str) -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": "IPAddressPool",
        "metadata": {"name": PROBE, "namespace": namespace},
        // TEST-NET-1, RFC 5737.
        "spec": {"addresses": ["192.0.2.0/32"], "autoAssign": false},
    })
}

/// What came of creating the probe without effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The webhook refused it: the API server reaches us.
    Reached,
    /// It passed, or the API server says that it cannot reach the webhook.
    Unreached,
    /// Neither: no right to ask, no CRD, no API server.
    Unknown,
}

impl Probe {
    /// From the API server's answer: HTTP status and message, none if it was accepted.
    pub fn of(refusal: Option<(u16, &str)>) -> Self {
        match refusal {
            None => Self::Unreached,
            Some((_, message)) if message.contains(PROBE_ANSWER) => Self::Reached,
            Some((_, message)) if message.contains("failed calling webhook") => Self::Unreached,
            Some(_) => Self::Unknown,
        }
    }
}

/// The policy from now on. Fail is for webhooks that are known to be reached; what is not known
/// changes nothing.
pub fn next_policy(now: Policy, wanted: Policy, probe: Probe) -> Policy {
    match (wanted, probe) {
        (Policy::Ignore, _) | (_, Probe::Unreached) => Policy::Ignore,
        (Policy::Fail, Probe::Reached) => Policy::Fail,
        (Policy::Fail, Probe::Unknown) => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service {
            name: "metallb-webhook-service".to_owned(),
            namespace: "metallb-system".to_owned(),
        }
    }

    #[test]
    fn entries_are_metallb_s() {
        let made = configuration(&service(), Some(&json!("QUJD")), Policy::Fail);
        let entries = made["webhooks"].as_array().expect("entries");
        let told: Vec<String> = entries
            .iter()
            .map(|entry| {
                let rule = &entry["rules"][0];
                let list = |value: &Value| {
                    let words = value.as_array().expect("list").iter();
                    words
                        .filter_map(Value::as_str)
                        .collect::<Vec<_>>()
                        .join("+")
                };
                format!(
                    "{} {} {} {} {}",
                    entry["name"].as_str().expect("name"),
                    entry["clientConfig"]["service"]["path"]
                        .as_str()
                        .expect("path"),
                    list(&rule["resources"]),
                    list(&rule["operations"]),
                    entry["failurePolicy"].as_str().expect("policy"),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "bgppeervalidationwebhook.metallb.io /validate-metallb-io-v1beta2-bgppeer \
                 bgppeers CREATE+UPDATE Fail",
                "ipaddresspoolvalidationwebhook.metallb.io \
                 /validate-metallb-io-v1beta1-ipaddresspool ipaddresspools CREATE+UPDATE Fail",
                "bgpadvertisementvalidationwebhook.metallb.io \
                 /validate-metallb-io-v1beta1-bgpadvertisement bgpadvertisements \
                 CREATE+UPDATE Fail",
                "communityvalidationwebhook.metallb.io \
                 /validate-metallb-io-v1beta1-community communities CREATE+UPDATE Fail",
                "bfdprofilevalidationwebhook.metallb.io \
                 /validate-metallb-io-v1beta1-bfdprofile bfdprofiles CREATE+DELETE Fail",
                "l2advertisementvalidationwebhook.metallb.io \
                 /validate-metallb-io-v1beta1-l2advertisement l2advertisements \
                 CREATE+UPDATE Fail",
            ]
        );
    }

    #[test]
    fn it_is_written_only_when_it_differs() {
        let wanted = configuration(&service(), Some(&json!("QUJD")), Policy::Fail);
        let mut there = wanted.clone();
        // What the API server fills in, and what others add.
        there["metadata"]["resourceVersion"] = json!("7");
        for entry in there["webhooks"].as_array_mut().expect("entries") {
            entry["matchPolicy"] = json!("Equivalent");
            entry["namespaceSelector"] = json!({});
            entry["rules"][0]["scope"] = json!("*");
        }
        let others = json!({"name": "other.example.com", "failurePolicy": "Fail"});
        there["webhooks"]
            .as_array_mut()
            .expect("entries")
            .insert(0, others);
        assert!(holds(&there, &wanted));
        assert_eq!(policy_of(&there), Policy::Fail);
        for (pointer, value) in [
            ("/webhooks/3/clientConfig/caBundle", json!("")),
            ("/webhooks/3/failurePolicy", json!("Ignore")),
            ("/webhooks/3/rules/0/operations", json!(["CREATE"])),
            ("/webhooks/3/name", json!("x")),
        ] {
            let mut reset = there.clone();
            *reset.pointer_mut(pointer).expect(pointer) = value;
            assert!(!holds(&reset, &wanted), "{pointer}");
        }
        assert!(!holds(
            &json!({"metadata": {"name": CONFIGURATION}}),
            &wanted
        ));
        // Another's Fail is not ours; neither is a bundle that cert-manager put in.
        let ignore = configuration(&service(), None, Policy::Ignore);
        let mut there = configuration(&service(), Some(&json!("QUJD")), Policy::Ignore);
        let others = json!({"name": "other.example.com", "failurePolicy": "Fail"});
        there["webhooks"]
            .as_array_mut()
            .expect("entries")
            .push(others);
        assert_eq!(policy_of(&there), Policy::Ignore);
        assert!(holds(&there, &ignore));
    }

    #[test]
    fn fail_is_for_webhooks_that_are_reached() {
        use Policy::{Fail, Ignore};
        use Probe::{Reached, Unknown, Unreached};
        for (now, wanted, probe, next) in [
            (Ignore, Fail, Reached, Fail),
            (Ignore, Fail, Unreached, Ignore),
            (Ignore, Fail, Unknown, Ignore),
            (Fail, Fail, Reached, Fail),
            (Fail, Fail, Unreached, Ignore),
            (Fail, Fail, Unknown, Fail),
            (Fail, Ignore, Reached, Ignore),
            (Ignore, Ignore, Unknown, Ignore),
        ] {
            assert_eq!(
                next_policy(now, wanted, probe),
                next,
                "{now:?} {wanted:?} {probe:?}"
            );
        }
        for (refusal, probe) in [
            (None, Unreached),
            (
                Some((
                    403,
                    "admission webhook \"x\" denied the request: the webhook was reached",
                )),
                Reached,
            ),
            (
                Some((
                    500,
                    "Internal error occurred: failed calling webhook \"x\": no endpoints",
                )),
                Unreached,
            ),
            (Some((403, "ipaddresspools is forbidden")), Unknown),
            (
                Some((404, "the server could not find the requested resource")),
                Unknown,
            ),
        ] {
            assert_eq!(Probe::of(refusal), probe, "{refusal:?}");
        }
    }

    #[test]
    fn only_our_conversion_is_patched() {
        let bundle = json!("QUJD");
        let crd = |strategy: &str, name: &str, bundle: &str| {
            json!({
                "metadata": {"resourceVersion": "7"},
                "spec": {"conversion": {"strategy": strategy, "webhook": {"clientConfig": {
                    "caBundle": bundle,
                    "service": {"name": name, "namespace": "metallb-system"},
                }}}},
            })
        };
        let ours = "metallb-webhook-service";
        let patch = conversion_patch(&crd("Webhook", ours, ""), &service(), &bundle);
        let patch = patch.expect("a patch");
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        let none = json!({"spec": {"conversion": {"strategy": "None"}}});
        for crd in [
            none,
            crd("None", ours, ""),
            crd("Webhook", "other", ""),
            crd("Webhook", ours, "QUJD"),
        ] {
            assert_eq!(conversion_patch(&crd, &service(), &bundle), None, "{crd}");
        }
    }
}
