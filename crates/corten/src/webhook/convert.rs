//! Conversion of `BGPPeer` between its versions, as a `ConversionReview` asks for it.
//!
//! Only the spec is rewritten; metadata and status go through as they are, fields that we do not
//! read among them, as the API server demands.

use api::metallb::{v1beta1, v1beta2};
use serde_json::{Value, json};

const OLD: &str = "metallb.io/v1beta1";
const NEW: &str = "metallb.io/v1beta2";

/// Why a review cannot be answered.
#[derive(Debug, thiserror::Error)]
#[error("not a ConversionReview: {field} is missing")]
pub struct ConvertError {
    field: &'static str,
}

/// The answer to a `ConversionReview`.
pub fn convert(review: &Value) -> Result<Value, ConvertError> {
    let text = |pointer: &str, field| {
        let value = review.pointer(pointer).and_then(Value::as_str);
        value.ok_or(ConvertError { field })
    };
    let uid = text("/request/uid", "request.uid")?;
    let wanted = text("/request/desiredAPIVersion", "request.desiredAPIVersion")?;
    let objects = review.pointer("/request/objects").and_then(Value::as_array);
    let objects = objects.ok_or(ConvertError {
        field: "request.objects",
    })?;
    let converted: Result<Vec<Value>, String> =
        objects.iter().map(|object| one(object, wanted)).collect();
    let response = match converted {
        Ok(objects) => json!({
            "uid": uid, "result": {"status": "Success"}, "convertedObjects": objects,
        }),
        Err(why) => json!({
            "uid": uid, "result": {"status": "Failure", "message": why},
        }),
    };
    Ok(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response,
    }))
}

fn one(object: &Value, wanted: &str) -> Result<Value, String> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let version = object["apiVersion"].as_str().unwrap_or_default();
    if object["kind"] != "BGPPeer" {
        return Err(format!(
            "{} {name}: only BGPPeer is converted",
            object["kind"]
        ));
    }
    let mut converted = object.clone();
    if version == wanted {
        return Ok(converted);
    }
    let spec = object.get("spec").filter(|spec| !spec.is_null());
    let spec = match (version, wanted) {
        (OLD, NEW) => spec.map(up).transpose(),
        (NEW, OLD) => spec.map(down).transpose(),
        _ => {
            return Err(format!(
                "BGPPeer {name}: no conversion from {version} to {wanted}"
            ));
        }
    };
    let spec = spec.map_err(|error| format!("BGPPeer {name}: spec: {error}"))?;
    converted["apiVersion"] = json!(wanted);
    if let Some(spec) = spec {
        converted["spec"] = spec;
    }
    Ok(converted)
}

fn up(spec: &Value) -> Result<Value, serde_json::Error> {
    let old: v1beta1::BGPPeerSpec = serde_json::from_value(spec.clone())?;
    serde_json::to_value(v1beta2::BGPPeerSpec::from(old))
}

fn down(spec: &Value) -> Result<Value, serde_json::Error> {
    let new: v1beta2::BGPPeerSpec = serde_json::from_value(spec.clone())?;
    serde_json::to_value(v1beta1::BGPPeerSpec::from(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(objects: &[Value], wanted: &str) -> Value {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "ConversionReview",
            "request": {"uid": "u", "desiredAPIVersion": wanted, "objects": objects},
        })
    }

    fn peer(version: &str) -> Value {
        json!({
            "apiVersion": version,
            "kind": "BGPPeer",
            "metadata": {"name": "p", "managedFields": [{"manager": "kubectl"}], "x": 1},
            "spec": {"myASN": 64500, "peerASN": 64501, "peerAddress": "10.0.0.1"},
            "status": {},
        })
    }

    #[test]
    fn up_and_down_again_changes_nothing_but_the_version() {
        let up = convert(&review(&[peer(OLD)], NEW)).expect("an answer");
        assert_eq!(up["response"]["result"]["status"], "Success");
        assert_eq!(up["response"]["uid"], "u");
        let new = &up["response"]["convertedObjects"][0];
        assert_eq!(new["apiVersion"], NEW);
        assert_eq!(new["metadata"], peer(OLD)["metadata"]);
        // No timers of zero seconds, as MetalLB would make them.
        assert_eq!(new["spec"].get("holdTime"), None);

        let down = convert(&review(std::slice::from_ref(new), OLD)).expect("an answer");
        let mut old = down["response"]["convertedObjects"][0].clone();
        // The default port may be said.
        if old["spec"]["peerPort"] == 179 {
            old["spec"]
                .as_object_mut()
                .expect("spec")
                .remove("peerPort");
        }
        assert_eq!(old, peer(OLD));
    }

    #[test]
    fn newer_fields_are_left_out_on_the_way_down() {
        let mut new = peer(NEW);
        new["spec"]["vrf"] = json!("red");
        new["spec"]["holdTime"] = json!("90s");
        let down = convert(&review(&[new], OLD)).expect("an answer");
        let old = &down["response"]["convertedObjects"][0]["spec"];
        assert_eq!(old["holdTime"], "1m30s");
        assert_eq!(old.get("vrf"), None);
    }

    #[test]
    fn what_cannot_be_converted_says_which_and_why() {
        let pool = json!({"apiVersion": OLD, "kind": "IPAddressPool", "metadata": {"name": "a"}});
        let mut bad = peer(OLD);
        bad["spec"]["myASN"] = json!("many");
        for (object, wanted, fragment) in [
            (pool, NEW, "only BGPPeer"),
            (
                peer("metallb.io/v1alpha1"),
                NEW,
                "no conversion from metallb.io/v1alpha1",
            ),
            (bad, NEW, "BGPPeer p: spec: invalid type"),
        ] {
            let answer = convert(&review(&[object], wanted)).expect("an answer");
            assert_eq!(answer["response"]["result"]["status"], "Failure");
            let message = answer["response"]["result"]["message"].as_str();
            assert!(
                message.is_some_and(|text| text.contains(fragment)),
                "{answer}"
            );
        }
        assert_eq!(
            convert(&json!({})).expect_err("no review").to_string(),
            "not a ConversionReview: request.uid is missing"
        );
    }
}
