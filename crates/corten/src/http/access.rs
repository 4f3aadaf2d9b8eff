//! Who may read the metrics: TokenReview says who asks, SubjectAccessReview whether they may.
//!
//! Verdicts are kept for [`KEPT`], by the token's digest; at most [`ASKING`] questions are put to
//! the API server at a time, so that a flood of tokens does not become a flood of reviews.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

/// How long a verdict holds.
const KEPT: Duration = Duration::from_secs(60);
/// Verdicts that are remembered.
const REMEMBERED: usize = 1024;
/// Questions at a time.
const ASKING: usize = 4;
/// How long the API server may take for both questions.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// May read.
    Granted,
    /// Nobody known: HTTP 401.
    Unauthenticated,
    /// Known, but not allowed: HTTP 403.
    Forbidden,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The API server did not answer the review.
    #[error("the API server did not review the token")]
    Review(#[source] kube::Error),
    /// It took too long.
    #[error("the API server did not review the token in {PATIENCE:?}")]
    Late,
}

/// Verdicts by token digest; time is passed in.
#[derive(Debug, Default)]
struct Verdicts(HashMap<[u8; 32], (Access, Instant)>);

impl Verdicts {
    fn get(&self, token: &[u8; 32], now: Instant) -> Option<Access> {
        let (access, until) = self.0.get(token)?;
        (now < *until).then_some(*access)
    }

    fn put(&mut self, token: [u8; 32], access: Access, now: Instant) {
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, (_, until)| now < *until);
        }
        if self.0.len() < REMEMBERED {
            self.0.insert(token, (access, now + KEPT));
        }
    }
}

/// Guards a path of our own HTTP server.
#[derive(Debug)]
pub struct Guard {
    client: ClientCell,
    path: &'static str,
    verdicts: Mutex<Verdicts>,
    asking: Semaphore,
}

/// kube's client has no Debug.
struct ClientCell(Client);

impl std::fmt::Debug for ClientCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Guard {
    /// Guards GET on `path`, which RBAC knows as a nonResourceURL.
    pub fn new(client: Client, path: &'static str) -> Self {
        Self {
            client: ClientCell(client),
            path,
            verdicts: Mutex::default(),
            asking: Semaphore::new(ASKING),
        }
    }

    /// The verdict on a bearer token.
    pub async fn check(&self, token: &str) -> Result<Access, AccessError> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(access) = self.known(&digest) {
            return Ok(access);
        }
        let asked = async {
            // Closed never: the semaphore is ours.
            let _turn = self.asking.acquire().await;
            if let Some(access) = self.known(&digest) {
                return Ok(access);
            }
            self.ask(token).await.map_err(AccessError::Review)
        };
        let access = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(asked) => asked?,
            Err(_) => return Err(AccessError::Late),
        };
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.put(digest, access, Instant::now());
        Ok(access)
    }

    fn known(&self, digest: &[u8; 32]) -> Option<Access> {
        let verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.get(digest, Instant::now())
    }

    async fn ask(&self, token: &str) -> Result<Access, kube::Error> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.0.clone());
        let review = reviews.create(&PostParams::default(), &review).await?;
        let status = review.status.unwrap_or_default();
        let Some(user) = status.user.filter(|_| status.authenticated == Some(true)) else {
            return Ok(Access::Unauthenticated);
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.0.clone());
        let review = access_review(user, self.path);
        let review = reviews.create(&PostParams::default(), &review).await?;
        Ok(match review.status.is_some_and(|status| status.allowed) {
            true => Access::Granted,
            false => Access::Forbidden,
        })
    }
}

/// May the user get the path?
fn access_review(user: UserInfo, path: &str) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username,
            groups: user.groups,
            uid: user.uid,
            extra: user.extra,
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some(path.to_owned()),
                verb: Some("get".to_owned()),
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

/// The token of an `Authorization` header.
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_tokens() {
        let cases = [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Bearer ", None),
            ("Bearer", None),
            ("Basic abc", None),
            ("", None),
        ];
        for (header, token) in cases {
            assert_eq!(bearer(header), token, "{header:?}");
        }
    }

    #[test]
    fn verdicts_hold_a_minute_and_are_bounded() {
        let now = Instant::now();
        let mut verdicts = Verdicts::default();
        verdicts.put([0; 32], Access::Forbidden, now);
        assert_eq!(verdicts.get(&[0; 32], now), Some(Access::Forbidden));
        assert_eq!(
            verdicts.get(&[0; 32], now + KEPT - Duration::from_millis(1)),
            Some(Access::Forbidden)
        );
        assert_eq!(verdicts.get(&[0; 32], now + KEPT), None);
        for n in 0..2 * REMEMBERED as u32 {
            let mut token = [1; 32];
            token[..4].copy_from_slice(&n.to_be_bytes());
            verdicts.put(token, Access::Unauthenticated, now);
        }
        assert_eq!(verdicts.0.len(), REMEMBERED);
        // Room again once they are old.
        verdicts.put([2; 32], Access::Granted, now + KEPT);
        assert_eq!(verdicts.get(&[2; 32], now + KEPT), Some(Access::Granted));
    }
}
