//! A small client of the API server: JSON in, JSON out, one request at a time.
//!
//! It speaks plain HTTP to the unix socket of a `kubectl proxy` that runs in
//! the API server's namespace as admin, so it works from every namespace and
//! costs a millisecond, where a kubectl costs a tenth of a second.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// No request of the lab takes longer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a request gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The socket failed.
    #[error("{method} {path}: no answer from the API server")]
    Io {
        /// The request's method.
        method: &'static str,
        /// Its path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The answer is no HTTP, or its body no JSON.
    #[error("{method} {path}: the answer is not as expected: {answer:?}")]
    Malformed {
        /// The request's method.
        method: &'static str,
        /// Its path.
        path: String,
        /// The answer's start.
        answer: String,
    },
    /// The API server said no.
    #[error("{method} {path}: {status}: {message}")]
    Refused {
        /// The request's method.
        method: &'static str,
        /// Its path.
        path: String,
        /// HTTP status.
        status: u16,
        /// The Status object's message, or the body.
        message: String,
    },
}

impl ApiError {
    /// The HTTP status, if it was answered.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Io { .. } | Self::Malformed { .. } => None,
        }
    }
}

/// How a patch is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patch {
    /// RFC 7386: lists are replaced.
    Merge,
    /// Kubernetes' own: lists of built-in kinds are merged by their keys.
    Strategic,
}

impl Patch {
    fn content_type(self) -> &'static str {
        match self {
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

/// The API server, as admin. Paths are the API's own, as in
/// `/api/v1/namespaces/default/pods/a`.
#[derive(Clone, Debug)]
pub struct Api {
    socket: PathBuf,
}

impl Api {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Reads an object or a list.
    ///
    /// # Errors
    /// See [`ApiError`]; an object that does not exist is `Refused` with 404.
    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.json("GET", path, None).await
    }

    /// Creates an object in the collection `path`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, ApiError> {
        self.json("POST", path, Some(("application/json", object)))
            .await
    }

    /// Changes an object, or its status where `path` ends in `/status`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn patch(&self, path: &str, kind: Patch, patch: &Value) -> Result<Value, ApiError> {
        self.json("PATCH", path, Some((kind.content_type(), patch)))
            .await
    }

    /// Deletes an object at once, without a grace period.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn delete(&self, path: &str) -> Result<Value, ApiError> {
        let options = serde_json::json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
        });
        self.json("DELETE", path, Some(("application/json", &options)))
            .await
    }

    /// `/readyz` answers ok.
    pub(super) async fn ready(&self) -> Result<(), ApiError> {
        self.request("GET", "/readyz", None).await.map(drop)
    }

    async fn json(
        &self,
        method: &'static str,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, ApiError> {
        let answer = self.request(method, path, body).await?;
        serde_json::from_slice(&answer).map_err(|_| malformed(method, path, &answer))
    }

    /// The body of a good answer.
    async fn request(
        &self,
        method: &'static str,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Vec<u8>, ApiError> {
        let (kind, body) = match body {
            Some((kind, value)) => (kind, value.to_string()),
            None => ("application/json", String::new()),
        };
        // HTTP/1.0: the answer is never chunked and ends with the connection.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = match timeout(TIMEOUT, self.exchange(&request)).await {
            Ok(answer) => answer,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let answer = answer.map_err(|source| ApiError::Io {
            method,
            path: path.to_owned(),
            source,
        })?;
        let (status, body) = split(&answer).ok_or_else(|| malformed(method, path, &answer))?;
        if !(200..300).contains(&status) {
            let said: Option<Value> = serde_json::from_slice(body).ok();
            let message = said.as_ref().and_then(|said| said["message"].as_str());
            return Err(ApiError::Refused {
                method,
                path: path.to_owned(),
                status,
                message: message.map_or_else(
                    || String::from_utf8_lossy(body).trim().to_owned(),
                    str::to_owned,
                ),
            });
        }
        Ok(body.to_vec())
    }

    async fn exchange(&self, request: &str) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(answer)
    }
}

/// Status and body of an HTTP/1 answer.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, rest) = answer.split_at(end);
    let line = std::str::from_utf8(head).ok()?.lines().next()?;
    let mut words = line.split(' ');
    words.next()?.strip_prefix("HTTP/1.")?;
    Some((words.next()?.parse().ok()?, rest.get(4..)?))
}

fn malformed(method: &'static str, path: &str, answer: &[u8]) -> ApiError {
    let start = answer.get(..200).unwrap_or(answer);
    ApiError::Malformed {
        method,
        path: path.to_owned(),
        answer: String::from_utf8_lossy(start).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_split_into_status_and_body() {
        assert_eq!(
            split(b"HTTP/1.0 201 Created\r\nA: b\r\n\r\n{}"),
            Some((201, b"{}".as_slice()))
        );
        assert_eq!(
            split(b"HTTP/1.1 404 Not Found\r\n\r\n"),
            Some((404, b"".as_slice()))
        );
        for bad in [
            "",
            "HTTP/1.0 200 OK",
            "HTTP/1.0 x\r\n\r\n",
            "SSH-2.0\r\n\r\n",
        ] {
            assert_eq!(split(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
