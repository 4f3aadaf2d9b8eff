//! Services that an API server has stored and would never let in again, as a cluster has them that
//! was upgraded: written past it, into etcd's own HTTP gateway.

use k8s_openapi::ByteString;
use lab::{Host, Outcome};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::stage::{Fault, Stage};

/// Changes the stored form of a Service: what `patch` names in its spec is replaced.
pub(super) async fn rewrite(stage: &Stage, name: &str, patch: &Value) -> Outcome {
    let mut service = stage.service(name).await?;
    for (field, value) in patch.as_object().into_iter().flatten() {
        service["spec"][field] = value.clone();
    }
    if let Some(metadata) = service["metadata"].as_object_mut() {
        // The store has its own.
        metadata.remove("resourceVersion");
        metadata.remove("managedFields");
    }
    let key = format!("/registry/services/specs/default/{name}");
    let bytes = |text: String| ByteString(text.into_bytes());
    let put = json!({"key": bytes(key), "value": bytes(service.to_string())});
    post(&stage.api_host, "/v3/kv/put", &put).await?;
    // It is read like any other.
    let path = format!("/api/v1/namespaces/default/services/{name}");
    let read = stage.plane.api().get(&path).await?;
    for (field, value) in patch.as_object().into_iter().flatten() {
        if read["spec"][field] != *value {
            return Err(format!("{field} is not {value}: {read}").into());
        }
    }
    Ok(())
}

async fn post(host: &Host, path: &str, body: &Value) -> Result<(), Fault> {
    let mut stream = host.connect("127.0.0.1:2379".parse()?).await?;
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.split(' ').nth(1) == Some("200") {
        Ok(())
    } else {
        Err(format!("etcd: {answer}").into())
    }
}
